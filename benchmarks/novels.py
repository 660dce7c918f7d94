"""The causal base that ships in data/novels/: a small GPT-2, of a hundred public-domain novels.

Run: `python -m benchmarks.novels`, where ../shared/data has litbank_fulltexts; about an hour on two
cores. It works in a clone of this revision in results/run/novels, so the same command goes on after
a kill; remove that folder to begin anew.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks.tasks import DATA, put

ARCHIVE = DATA / "litbank_fulltexts/litbank_original_100_books.tar.xz"
CLONE = Path("results/run/novels")
PARAMS = {
    "pretrain_tokenize.block": 256,
    "pretrain.batch_size": 8,  # as many tokens a step as 16 blocks of 128
    "pretrain.dtype": "float16",
}
SHIPPED = Path("data/novels")
ABOUT = """\
---
license: cc0-1.0
language: en
pipeline_tag: text-generation
---
To try the task `generation` without a network; for work, take a larger base. The texts are the
hundred novels of LitBank (github.com/dbamman/litbank, `original`), from Project Gutenberg and
in the public domain in the US, with a paragraph a line. They were written before 1924 and speak of
people as their time did; so will the model. `python -m benchmarks.novels` makes it anew.

"""
VERSE = 50  # characters of a line on average, below which lines are kept


def main() -> int:
    if not ARCHIVE.exists():
        print(f"benchmarks.novels: there is no {ARCHIVE}", file=sys.stderr)
        return 2
    if not CLONE.exists():
        subprocess.run(["git", "clone", "--quiet", ".", str(CLONE)], check=True)
    write_texts(CLONE / "data/raw/texts")
    put(CLONE / "workflow/pretrain/params.yaml", PARAMS)
    subprocess.run(["dvc", "repro", "workflow/pretrain/dvc.yaml"], cwd=CLONE, check=True)
    shutil.rmtree(SHIPPED, ignore_errors=True)
    shutil.copytree(CLONE / "models/pretrained", SHIPPED)
    card = SHIPPED / "README.md"
    card.write_text(ABOUT + card.read_text(encoding="utf-8"), encoding="utf-8")
    return 0


def write_texts(folder: Path) -> None:
    """A file for each novel, a paragraph a line."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if (file := archive.extractfile(member)) and member.name.endswith(".txt"):
                text = io.TextIOWrapper(file, encoding="utf-8").read()
                (folder / Path(member.name).name).write_text(unwrapped(text), encoding="utf-8")


def unwrapped(text: str) -> str:
    """A text without the line breaks inside of its paragraphs, but those of verses and headings."""
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in paragraph.splitlines()]
        full = lines[:-1] or lines
        prose = sum(map(len, full)) / len(full) >= VERSE
        found.append((" " if prose else "\n").join(lines))
    return "\n".join(found) + "\n"


if __name__ == "__main__":
    sys.exit(main())
