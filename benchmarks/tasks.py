"""Every task beside its best baseline: the main metric with its interval on the test split.

Run: `python -m benchmarks.tasks` on the data that ship with the project (minutes on two cores),
`python -m benchmarks.tasks real` on public sets in ../shared/data where these are (longer), or
`python -m benchmarks.tasks NAME ...`. Writes benchmarks/tasks.json: what ran replaces its own rows.

Each set runs through the project's own stages in a clone of this revision, by parameters and files
alone. Of large sets a slice of the training rows is used, which the table's name says.
"""

from __future__ import annotations

import csv
import json
import lzma
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.artifacts import read_json, write_json
from stages.reporting import text
from stages.reporting.verdict import compare, headline

DATA = Path("../shared/data")
OUTPUT = Path("benchmarks/tasks.json")
STAGES = ("fetch_model", "prepare", "tokenize", "finetune", "evaluate", "baseline")
METHOD = "full"


@dataclass(frozen=True)
class Set:
    """A data set: the task, keys of params.yaml (with dots), and for one that does not ship a
    function from the folder of public data to that of the raw files."""

    task: str
    params: dict[str, Any]
    make: Callable[[Path, Path], None] | None = None
    data: dict[str, Any] = field(default_factory=dict)  # of the task's section `data`


def banking77(source: Path, target: Path) -> None:
    for split in ("train", "test"):
        shutil.copy(source / f"banking77/{split}.csv", target / f"{split}.csv")


def emobank(source: Path, target: Path) -> None:
    shutil.copy(source / "emobank/emobank.csv", target / "emobank.csv")


def goemotions(source: Path, target: Path) -> None:
    """The first 8,000 training rows, each label by its name."""
    folder = source / "goemotions/original"
    names = (folder / "labels.txt").read_text().split()
    for split, rows in (("train", 8000), ("dev", None), ("test", None)):
        lines = (folder / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[:rows]
        with open(target / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for words, numbers, _ in (line.split("\t") for line in lines):
                labels = [names[int(number)] for number in numbers.split(",")]
                file.write(json.dumps({"text": words, "labels": labels}) + "\n")


def sts(source: Path, target: Path) -> None:
    """The scored pairs of four files."""
    with open(target / "sts.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["score", "first", "second"])
        for path in sorted((source / "sts_open_subset").glob("*/*.tsv")):
            for line in path.read_text(encoding="utf-8").splitlines():
                score, first, second = line.split("\t")[:3]
                if score.strip():
                    writer.writerow([score, first, second])


def med(source: Path, target: Path) -> None:
    lines = (source / "med_nli/MED.tsv").read_text(encoding="utf-8").splitlines()
    names, *rows = (line.split("\t") for line in lines)
    wanted = [names.index(name) for name in ("sentence1", "sentence2", "gold_label")]
    with open(target / "med.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([names[i] for i in wanted] for _ in range(1))
        csv.writer(file).writerows([row[i] for i in wanted] for row in rows)


def wnut17(source: Path, target: Path) -> None:
    for name, split in (
        ("wnut17train.conll", "train"),
        ("emerging.dev.conll", "dev"),
        ("emerging.test.annotated", "test"),
    ):
        shutil.copy(source / "wnut17" / name, target / f"{split}.conll")


def ud(source: Path, target: Path) -> None:
    """The first 5,000 training sentences."""
    folder = source / "ud_english_ewt"
    with lzma.open(folder / "en_ewt-ud-train.rebuilt.conllu.xz", "rt", encoding="utf-8") as file:
        sentences = file.read().split("\n\n")[:5000]
    (target / "train.conllu").write_text("\n\n".join(sentences) + "\n\n", encoding="utf-8")
    for split in ("dev", "test"):
        shutil.copy(folder / f"en_ewt-ud-{split}.conllu", target / f"{split}.conllu")


def xquad(source: Path, target: Path) -> None:
    """In English, of each article in one split by prepare.group."""
    shutil.copy(source / "xquad/xquad.en.json", target / "xquad.json")


def e2e(source: Path, target: Path) -> None:
    """Trained on the development set, whose meanings have several texts each; tested on the first
    text of each of the test set's."""
    shutil.copy(source / "e2e_nlg/devset.csv", target / "train.csv")
    with open(source / "e2e_nlg/testset_w_refs.csv", encoding="utf-8", newline="") as file:
        first = {row["mr"]: row["ref"] for row in reversed([*csv.DictReader(file)])}
    with open(target / "test.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("mr", "ref"), *first.items()])


NOVELS = {  # the causal base that ships, of 4 million weights: small ones take large steps
    "fetch_model.source": "folder",
    "fetch_model.folder": "data/novels",
    "fetch_model.sha256": {},
    "tokenize.max_length": 256,
    "finetune.learning_rate": 1e-3,
}
REVIEWS = {"prepare.path": "data/raw/reviews.csv"}
SMALL = {"finetune.epochs": 15, "finetune.batch_size": 8, "finetune.warmup_epochs": 1.5}
WORDS = {"text": None, "entities": None}
SHIPPED = {
    "reviews: label": Set("classification", REVIEWS, data={"label": "label"}),
    "reviews: domain": Set("classification", REVIEWS, data={"label": "domain"}),
    "questions_answered": Set(
        "classification",
        SMALL | {"prepare.path": "data/raw/questions_answered.csv", "prepare.group": "text"},
        data={"text_pair": "question", "label": "answered"},
    ),
    "requests": Set("multilabel", SMALL | {"prepare.path": "data/raw/requests.jsonl"}),
    "reviews: rating": Set("regression", REVIEWS, data={"value": "rating"}),
    "questions": Set(
        "question_answering",
        SMALL | {"prepare.path": "data/raw/questions.jsonl", "prepare.group": "context"},
    ),
    "entities": Set("token_classification", SMALL | {"prepare.path": "data/raw/entities.jsonl"}),
    "instructions": Set(
        "generation", SMALL | NOVELS | {"prepare.path": "data/raw/instructions.jsonl"}
    ),
}
REAL = {
    "banking77": Set("classification", {"finetune.epochs": 10}, banking77, {"label": "category"}),
    "emobank: valence": Set(
        "regression",
        {"prepare.path": "data/raw/real/emobank.csv", "prepare.split": "split"},
        emobank,
        {"value": "V"},
    ),
    "goemotions, 8,000 training rows": Set("multilabel", {"finetune.epochs": 3}, goemotions),
    "sts_open_subset": Set(
        "regression",
        {"prepare.path": "data/raw/real/sts.csv"},
        sts,
        {"text": "first", "text_pair": "second", "value": "score"},
    ),
    "med_nli": Set(
        "classification",
        {"prepare.path": "data/raw/real/med.csv"},
        med,
        {"text": "sentence1", "text_pair": "sentence2", "label": "gold_label"},
    ),
    "wnut17": Set("token_classification", {}, wnut17, WORDS | {"tokens": "tokens", "tags": "tags"}),
    "xquad.en, by article": Set(
        "question_answering",
        {
            "prepare.path": "data/raw/real/xquad.json",
            "prepare.group": "title",
            "tokenize.max_length": 256,
            "tokenize.stride": 96,
            "finetune.batch_size": 16,
        },
        xquad,
    ),
    "ud_english_ewt, 5,000 training sentences": Set(
        "token_classification",
        {"finetune.epochs": 2, "finetune.warmup_epochs": 0.2},
        ud,
        WORDS | {"tokens": "form", "tags": "upos", "scheme": "plain"},
    ),
    "e2e_nlg, development set": Set(
        "generation",
        NOVELS | {"prepare.group": "mr", "evaluate.decoding.max_new_tokens": 128},
        e2e,
        dict.fromkeys(("instruction", "input", "output")) | {"prompt": "mr", "response": "ref"},
    ),
}


def main(arguments: list[str]) -> int:
    sets = SHIPPED | REAL
    chosen = {"": list(SHIPPED), "real": list(REAL)}.get(" ".join(arguments), arguments)
    strange = [name for name in chosen if name not in sets]
    if strange:
        print(f"no such set: {strange[0]}; there are: {'; '.join(sets)}", file=sys.stderr)
        return 2
    found = read_json(OUTPUT) if OUTPUT.exists() else {}
    source = DATA.resolve()
    for name in chosen:
        if sets[name].make and not source.exists():
            print(f"{name}: left out, there is no {DATA}", file=sys.stderr)
            continue
        found[name] = measure(sets[name], source)
        write_json(OUTPUT, {key: found[key] for key in sets if key in found})
        print(row(name, found[name]), flush=True)
    return 0


def measure(of: Set, source: Path) -> dict[str, Any]:
    """Run a set through the stages in a clone; what the table says of it."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder)
        prepare(of, source, clone)
        put(clone / "params.yaml", {"run.method": METHOD})
        started = time.monotonic()
        for stage in STAGES:
            subprocess.run([sys.executable, "-m", "stages", stage], cwd=clone, check=True)
        minutes = (time.monotonic() - started) / 60
        return summary(clone) | {"task": of.task, "method": METHOD, "minutes": round(minutes, 1)}


def prepare(of: Set, source: Path, clone: Path) -> None:
    """Clone this revision, with the files and parameters of a set.

    Args:
        clone: an empty folder.
    """
    subprocess.run(["git", "clone", "--quiet", ".", str(clone)], check=True)
    own = {f"tasks.{of.task}.data.{key}": value for key, value in of.data.items()}
    base: dict[str, Any] = {"run.task": of.task, "prepare.keep": []}
    if of.make:
        (clone / "data/raw/real").mkdir()
        of.make(source, clone / "data/raw/real")
        base["prepare.path"] = "data/raw/real"
    put(clone / "params.yaml", base | of.params | own)


def put(path: Path, values: dict[str, Any]) -> None:
    yaml = YAML()
    content = yaml.load(path.read_text())
    for key, value in values.items():
        *way, last = key.split(".")
        section = content
        for part in way:
            section = section[part]
        section[last] = value
    with path.open("w") as out:
        yaml.dump(content, out)


def summary(clone: Path) -> dict[str, Any]:
    """Of the files under results/: rows, main metric of model and best baseline, the verdict."""
    import pandas as pd

    from stages import plugins

    metrics, baseline = (read_json(clone / f"results/{n}.json") for n in ("metrics", "baseline"))
    predictions, others = (
        pd.read_parquet(clone / f"results/{name}.parquet") for name in ("predictions", "baseline")
    )
    task = plugins.load("tasks", read_json(clone / "results/training.json")["task"])
    labels = read_json(clone / "data/prepared/labels.json")
    head = headline(
        metrics, baseline, compare(task, labels, metrics, baseline, predictions, others)
    )
    data = read_json(clone / "results/data.json")
    best = head.baselines[0]
    return {
        "rows": {split: part["rows"] for split, part in data["splits"].items()},
        "metric": head.metric,
        "fine_tuned": {"value": head.model.value, "low": head.model.low, "high": head.model.high},
        "baseline": {"name": best.name, "value": best.value, "low": best.low, "high": best.high},
        "outcome": head.outcome,
        "lost_targets": sum(
            part.get("lost_targets", 0)
            for part in read_json(clone / "results/tokens.json")["splits"].values()
        ),
    }


def row(name: str, found: dict[str, Any]) -> str:
    """A line of a table in Markdown."""
    rows, best = found["rows"], found["baseline"]
    cells = [
        found["task"],
        name,
        f"{rows['train']:,} / {rows['test']:,}",
        (SHIPPED | REAL)[name].params.get("fetch_model.folder", "all-MiniLM-L6-v2"),
        found["method"],
        f"{text.name(found['metric'])} {text.interval(found['fine_tuned'])}",
        f"{text.interval(best)} {best['name']}",
        found["outcome"],
        f"{found['minutes']:g}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
