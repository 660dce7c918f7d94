"""What `dvc repro` would run, Snakemake runs, and both leave the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import bridge
from tests.bridge import Copy, Pair

PROJECT = {
    "raw.txt": "c\na\nb\n",
    "step.sh": 'cat "$1"\n',
    "tag.yaml": "tag: T1\n",
    "params.yaml": """\
split: {rows: 3, seed: 1}
train: {rate: 1, epochs: 2}
grid: {a: 1, b: 2}
unused: 0
""",
    "dvc.yaml": """\
vars: [tag.yaml]
stages:
  prepare:
    cmd: echo prepare >> $RUNLOG; head -n ${split.rows} raw.txt > prepared.txt
    deps: [raw.txt]
    params: [split]
    outs: [prepared.txt]
  tokens:
    cmd:
      - echo tokens >> $RUNLOG; mkdir -p tokens
      - sort prepared.txt > tokens/rows; echo ${tag} > tokens/tag
    deps: [prepared.txt]
    outs: [tokens]
  train:
    cmd: >-
      echo train >> $RUNLOG; mkdir -p model; sh step.sh tokens/rows > model/w &&
      echo ${train.rate} >> model/w && echo '{"loss":1}' > curve.json
    deps: [step.sh, tokens/rows]
    params: [train]
    outs: [model]
    metrics: [{curve.json: {cache: false}}]
    meta: {snakemake: {threads: 2, mem_mb: 100}}
  evaluate:
    cmd: echo evaluate >> $RUNLOG; echo "{\\"rows\\":\\"$(cat model/w | tr '\\n' ' ')\\"}" > scores.json
    deps: [model]
    metrics: [{scores.json: {cache: false}}]
  fan:
    matrix: {size: [a, b]}
    cmd: echo fan_${item.size} >> $RUNLOG; sort -r prepared.txt > fan_${item.size}.txt
    deps: [prepared.txt]
    params: ["grid.${item.size}"]
    outs: ["fan_${item.size}.txt"]
  report:
    cmd: echo report >> $RUNLOG; cat scores.json curve.json fan_a.txt > report.txt
    deps: [scores.json, curve.json, fan_a.txt]
    outs: [report.txt]
""",
}
ALL = ["evaluate", "fan_a", "fan_b", "prepare", "report", "tokens", "train"]
TRAINED = ["evaluate", "report", "train"]


@dataclass(frozen=True)
class Step:
    """An edit, and the commands that have to run after it; None: whatever DVC runs."""

    edit: str
    ran: list[str] | None
    fails: bool = False


def put(old: str, new: str, file: str = "params.yaml") -> str:
    return f"grep -q '{old}' {file}; sed -i 's/{old}/{new}/' {file}"


NEW_RATE = put("rate: 1", "rate: 5")
LOST = "rm $(grep -rl T1 .dvc/cache/files)"
SCENARIOS: dict[str, list[Step]] = {
    "a fresh clone": [Step("rm -r dvc.lock .dvc/cache; git clean -qfdX -e .dvc", ALL)],
    "nothing": [Step("true", [])],
    "a parameter, and back": [Step(NEW_RATE, TRAINED), Step(put("rate: 5", "rate: 1"), [])],
    "a parameter that changes no output": [Step(put("seed: 1", "seed: 2"), ["prepare"])],
    "a parameter that changes all outputs": [Step(put("rows: 3", "rows: 2"), ALL)],
    "a parameter that nobody reads": [Step(put("unused: 0", "unused: 1"), [])],
    "a key more in a section that is read": [Step(put("rate: 1", "rate: 1, new: 3"), ["train"])],
    "a key less": [Step(put("{rate: 1, epochs: 2}", "{rate: 1}"), ["train"])],
    "a parameter that the command needs is gone": [Step(put("rows: 3, ", ""), [], fails=True)],
    "a parameter of one of a matrix": [Step(put("b: 2", "b: 3"), ["fan_b"])],
    "a file of variables": [Step(put("T1", "T2", "tag.yaml"), ["tokens"])],
    "what the scheduler should know": [Step(put("threads: 2", "threads: 1", "dvc.yaml"), [])],
    "touched files": [Step("touch raw.txt step.sh dvc.yaml params.yaml tokens/rows", [])],
    "raw data": [Step("echo d > raw.txt", ALL)],
    "a comment in a script": [Step("echo '# more' >> step.sh", ["train"])],
    "a script that is gone": [Step(f"rm step.sh; {NEW_RATE}", [], fails=True)],
    "a script that fails": [
        Step(f"echo exit 3 > step.sh; {put('b: 2', 'b: 3')}", ["fan_b", "train"], fails=True),
        Step("echo 'cat $1' > step.sh", None),
    ],
    "a deleted folder": [Step("rm -r model", [])],
    "a deleted metric that git keeps": [Step("rm scores.json", [])],
    "all outputs deleted": [Step("rm -r *.txt tokens model *.json; git checkout raw.txt", [])],
    "an output edited by hand": [Step("rm fan_a.txt; echo junk > fan_a.txt", [])],
    "a file more in an output": [Step("echo junk > tokens/junk", [])],
    "a lost object of the cache": [Step(f"{LOST}; rm -r tokens", ["tokens"])],
    "a lost object, with the file still there": [Step(LOST, None)],
    "the text of a command": [Step(put("cat model", "cat  model", "dvc.yaml"), ["evaluate"])],
    "a matrix that grows": [
        Step(
            put(r"\[a, b\]", "[a, c, b]", "dvc.yaml") + "; " + put("a: 1", "a: 1, c: 3"), ["fan_c"]
        )
    ],
    "a matrix that shrinks": [Step(put(r"\[a, b\]", "[a]", "dvc.yaml"), [])],
    "a stage with another name": [Step(put("  tokens:", "  tokenize:", "dvc.yaml"), [])],
    "an output more": [
        Step(
            put(r"outs: \[report.txt\]", "outs: [report.txt, copy.txt]", "dvc.yaml"),
            ["report"],
            True,
        ),
        Step(put("> report.txt", "> report.txt; cp report.txt copy.txt", "dvc.yaml"), ["report"]),
    ],
    "an output that git keeps from now on": [
        Step(put(r"outs: \[report.txt\]", "outs: [{report.txt: {cache: false}}]", "dvc.yaml"), None)
    ],
    "the lock file deleted": [Step("rm dvc.lock", [])],
    "one entry of the lock file deleted": [
        Step("sed -i '/^  prepare:/,/^  tokens:/{/tokens:/!d}' dvc.lock", [])
    ],
    "branches switched": [
        Step(f"git checkout -qb other; {NEW_RATE}", TRAINED),
        Step("git add -A; git commit -qm other; git checkout -q main", []),
        Step("git checkout -q other", []),
    ],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """The project, run once by DVC, with its results committed."""
    copy = bridge.create(tmp_path_factory.mktemp("base") / "base", PROJECT)
    assert copy.run("dvc").ran == ALL
    copy("git", "add", "-A")
    copy("git", "commit", "-q", "-m", "results")
    return copy


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_engines_do_the_same(base: Copy, tmp_path: Path, name: str) -> None:
    pair = Pair(base, tmp_path)
    for step in SCENARIOS[name]:
        pair.shell(step.edit)
        dvc, snakemake, differences = pair.run()
        assert differences == [], dvc.output + snakemake.output
        assert (dvc.code != 0) == step.fails, dvc.output
        assert step.ran is None or dvc.ran == step.ran
        if not step.fails:
            assert "up to date" in pair.copies["snakemake"]("dvc", "status")


def test_a_dry_run_says_why_and_does_nothing(base: Copy, tmp_path: Path) -> None:
    copy = bridge.duplicate(base, tmp_path / "copy")
    for edit in (NEW_RATE, put("b: 2", "b: 3"), "echo '# more' >> step.sh", "rm fan_a.txt"):
        copy.shell(edit)
    before = copy.tree()
    output = copy("snakemake", "--dry-run")
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "ok prepare up to date" in lines
    assert "restore fan@a fan_a.txt is missing; the result is in the cache" in lines
    assert "run fan@b params.yaml: grid.b 2 -> 3" in lines
    (train,) = (line for line in lines if line.startswith("run train"))
    assert "step.sh changed" in train
    assert "params.yaml: train.rate 1 -> 5" in train
    assert "maybe evaluate depends on what train will make" in lines
    assert copy.tree() == before


def test_snakemake_views(base: Copy, tmp_path: Path) -> None:
    copy = bridge.duplicate(base, tmp_path / "copy")
    assert "your workflow is in a good condition" in copy("snakemake", "--lint")
    copy.shell(NEW_RATE)
    assert "digraph" in copy("snakemake", "--dag")
    copy("snakemake")  # the default profile says the rest
    assert copy.log.read_text().split()[-3:] == ["train", "evaluate", "report"]
    copy("snakemake", "--report", "page.html")
    page = (copy.folder / "page.html").read_text()
    assert "evaluate" in page


def test_one_stage_can_be_asked_for(base: Copy, tmp_path: Path) -> None:
    copy = bridge.duplicate(base, tmp_path / "copy")
    copy.shell(f"{NEW_RATE}; {put('b: 2', 'b: 3')}")
    assert copy.run("snakemake", "evaluate").ran == ["evaluate", "train"]
