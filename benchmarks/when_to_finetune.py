"""The study of when to fine-tune: as it is by default, on the shipped reviews and on a public set,
and with the methods that train few weights beside full training, on 2,000 rows of that set.

Run: `python -m benchmarks.when_to_finetune [NAME ...]`, with names of `SETS`, or none for all; the
public set where ../shared/data has it. Each runs in a clone of this revision, for 10 to 30 minutes
on two quiet cores. Writes benchmarks/when_to_finetune.json; minutes are those of that machine,
whatever else ran on it.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.tasks import DATA, Set, prepare, put
from benchmarks.training import lines
from stages.artifacts import read_json, write_json
from stages.studying.findings import trained

PIPELINE = "workflow/studies/when_to_finetune/dvc.yaml"
STUDY = "workflow/studies/when_to_finetune/small.yaml"
OUTPUT = Path("benchmarks/when_to_finetune.json")


def polarity(source: Path, target: Path) -> None:
    """Sentences of film reviews (Pang and Lee, 2005)."""
    archive = source / "nltk_sentence_polarity/sentence_polarity.zip"
    with open(target / "sentences.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for label in ("neg", "pos"):
            writer.writerows([text, label] for text in lines(archive, label))


POLARITY = Set("classification", {"prepare.path": "data/raw/real/sentences.csv"}, polarity)
FEW_WEIGHTS = "nltk_sentence_polarity, 2,000 rows"
SETS = {
    "reviews": Set("classification", {}),
    "nltk_sentence_polarity": POLARITY,
    FEW_WEIGHTS: POLARITY,
}
CHANGES: dict[str, dict[str, Any]] = {  # of the study's own parameters
    FEW_WEIGHTS: {
        "study.method": ["prompt", "ia3", "bitfit", "lora", "adapter", "full"],
        "study.rows": [2000],
        "training.epochs": 6,
    }
}


def main(arguments: list[str]) -> int:
    if strange := [name for name in arguments if name not in SETS]:
        print(f"no such set: {strange[0]}; there are: {', '.join(SETS)}", file=sys.stderr)
        return 2
    found = read_json(OUTPUT) if OUTPUT.exists() else {}
    for name, values in measured(arguments or list(SETS)):
        found[name] = values
        write_json(OUTPUT, {key: found[key] for key in SETS if key in found})
    return 0


def measured(names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    source = DATA.resolve()
    for name in names:
        if SETS[name].make and not source.exists():
            print(f"{name}: left out, there is no {DATA}", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            prepare(SETS[name], source, Path(folder))
            put(Path(folder) / STUDY, CHANGES.get(name, {}))
            command = ["snakemake", "--config", f"pipeline={PIPELINE}"]
            subprocess.run(command, cwd=folder, check=True)
            yield name, figures(Path(folder))


def figures(project: Path) -> dict[str, Any]:
    """What the study found there, with the minutes that a run took on average."""
    found = read_json(project / "results/studies/when_to_finetune.json")
    minutes = read_json(project / "results/run/studies/when_to_finetune.json")
    return found | {"minutes": minutes}


def table(found: dict[str, Any]) -> Iterator[str]:
    """Lines of a table in Markdown; ± is half of an interval."""
    sizes = [f"{size:,}" for size in found["sizes"]]
    yield f"| test {found['metric']} by training rows | trained weights | {' | '.join(sizes)} |"
    for curve in found["curves"].values():
        parameters = curve["trained_parameters"]
        share = trained(parameters, curve.get("parameters_total"))
        cells = [curve["name"], "" if parameters is None else share]
        for size in found["sizes"]:
            value = curve["values"][str(size)]
            cells.append(f"{value['value']:.3f} ±{value['high'] - value['value']:.3f}")
        yield f"| {' | '.join(cells)} |"


def rules(studies: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Lines of a table in Markdown: what became of each rule of thumb in each study of several
    sizes."""
    studies = {name: found for name, found in studies.items() if len(found["sizes"]) > 1}
    yield f"| rule of thumb | {' | '.join(studies)} |"
    for same in zip(*(found["rules"] for found in studies.values()), strict=True):
        yield f"| {same[0]['rule']} | {' | '.join(rule['verdict'] for rule in same)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
