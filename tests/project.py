"""A whole project in a temporary folder: the code of this one, a tiny base, little data."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests import tiny
from workflow.editing import round_trip

ROOT = Path(__file__).parent.parent
RAN = re.compile(r"^Running stage '(?:[^':]*:)?(\w+)':", re.MULTILINE)
WORDS = {
    "positive": [
        "good",
        "great",
        "love",
        "fine",
        "nice",
        "best",
        "happy",
        "fast",
        "works",
        "excellent",
    ],
    "negative": [
        "bad",
        "awful",
        "hate",
        "poor",
        "ugly",
        "worst",
        "sad",
        "slow",
        "broken",
        "terrible",
    ],
}


class Project:
    """Runs commands in a project folder with this interpreter's environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *command: str, code: int | None = 0, **variables: str) -> str:
        """Output of a command; fails unless it exits with `code` (None: any)."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment() | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        output = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{output}"
        return output

    def repro(self, *arguments: str) -> set[str]:
        """Run `dvc repro`; the names of the stages that ran."""
        return set(RAN.findall(self("dvc", "repro", *arguments)))

    def edit(self, file: str, change: Callable[[Any], None]) -> None:
        """Change a YAML file through its content."""
        path = self.folder / file
        yaml = round_trip()
        content = yaml.load(path.read_text())
        change(content)
        with path.open("w") as out:
            yaml.dump(content, out)

    def set(self, key: str, value: Any) -> None:
        """Set a key of params.yaml, given with dots."""

        def change(content: Any) -> None:
            *path, last = key.split(".")
            for part in path:
                content = content[part]
            assert last in content, key
            content[last] = value

        self.edit("params.yaml", change)

    def append(self, file: str, text: str) -> None:
        with (self.folder / file).open("a") as out:
            out.write(text)

    def commit(self, message: str = "change") -> None:
        self("git", "add", "-A")
        self("git", "commit", "-q", "-m", message)


def environment() -> dict[str, str]:
    """This environment with its own `python` and `dvc` first, and without the network."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    return variables | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@localhost",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@localhost",
    }


def make(folder: Path, rows: int = 120) -> Project:
    """Copy what git would hold of this project and make it tiny.

    The copy trains a base of two small layers for one epoch on the CPU; it is a git and DVC
    repository with one commit and no results.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        wanted = source.is_symlink() or source.is_file()
        if wanted and name != "dvc.lock" and not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name, follow_symlinks=False)
    project = Project(folder)
    tiny.make_base(folder / "data/local_base")
    (folder / "data/raw/reviews.csv").write_text(reviews(rows))
    for key, value in {
        "fetch_model.source": "folder",
        "fetch_model.sha256": {},
        "finetune.epochs": 1,
        "finetune.warmup_epochs": 0.5,
        "finetune.threads": 1,
        "tokenize.max_length": 16,
        "tokenize.max_truncated": 1.0,
        "evaluate.bootstrap": 100,
        "baseline.bootstrap": 100,
        "tracking.wandb": "disabled",
    }.items():
        project.set(key, value)
    project("git", "init", "-q", "-b", "main")
    project.commit("a tiny project")
    return project


def reviews(rows: int) -> str:
    """CSV with the columns of data/raw/reviews.csv; labels follow from the words."""
    lines = ["text,label,rating,domain,style"]
    for number in range(rows):
        label = ("negative", "positive")[number % 2]
        words = WORDS[label]
        first, second = words[number % 10], words[(number // 10) % 10]
        text = f"the {first} and {second} one number {number}"
        lines.append(f"{text},{label},{1 + 4 * (number % 2)},food,stated")
    return "\n".join(lines) + "\n"
