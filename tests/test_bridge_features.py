"""Every feature of dvc.yaml: the same by both engines, over several files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bridge
from tests.bridge import Pair

PROJECT = {
    "params.yaml": "grid: {a: {lr: 1}, b: {lr: 2}}\nnames: [x, y]\nplace: sub/deep\n",
    "lib/more.yaml": "other: {k: 3}\n",
    "sub/deep/.keep": "",
    "data/source.csv": "1\n2\n3\n",
    "dvc.yaml": """\
vars: [params.yaml, lib/more.yaml, {tag: T1}]
stages:
  clean:
    cmd:
      - echo clean >> $RUNLOG; mkdir -p out/clean
      - cp data/source.csv out/clean/a.csv
      - echo ${tag} ${other.k} > out/clean/b.txt
    deps: [data/source.csv]
    outs: [out/clean]
  dictionary:
    foreach: ${grid}
    do:
      cmd: echo dictionary_${key} >> $RUNLOG; echo ${item.lr} > "g [${key}].txt"
      deps: [out/clean/a.csv]
      params: ["grid.${key}"]
      outs: ["g [${key}].txt"]
  nested:
    matrix: {n: "${names}", cfg: "${grid}"}
    cmd: >-
      echo nested >> $RUNLOG; echo '${item.cfg} $$HOME "q" {brace}' > l_${key}.txt
    deps: [out/clean]
    outs: ["l_${key}.txt"]
  kept:
    cmd: echo kept >> $RUNLOG; echo line >> checkpoint.txt
    deps: [out/clean/b.txt]
    outs: [{checkpoint.txt: {persist: true}}]
  measured:
    cmd: >-
      echo measured >> $RUNLOG; echo '{"acc":0.5}' > m.json; printf 'step,loss\\n0,1\\n' > p.csv;
      echo u > plain.txt
    deps: ["g [a].txt"]
    params: [{lib/more.yaml: [other.k]}]
    metrics: [{m.json: {cache: false}}]
    plots: [{p.csv: {x: step}}]
    outs: [{plain.txt: {cache: false}}]
  elsewhere:
    cmd: echo elsewhere >> $RUNLOG; cat "../../g [a].txt" > w.txt
    wdir: ${place}
    deps: ["../../g [a].txt"]
    outs: [w.txt]
  always:
    cmd: echo always >> $RUNLOG; echo const > now.txt
    always_changed: true
    outs: [now.txt]
  after_always:
    cmd: echo after_always >> $RUNLOG; wc -l < now.txt > count.txt
    deps: [now.txt]
    outs: [count.txt]
  callback:
    cmd: echo callback >> $RUNLOG
  no_output:
    cmd: echo no_output >> $RUNLOG
    deps: [data/source.csv]
  all:
    cmd: echo all >> $RUNLOG; cat "g [b].txt" > f.txt
    frozen: false
    deps: ["g [b].txt"]
    outs: [f.txt]
  after_frozen:
    cmd: echo after_frozen >> $RUNLOG; cat f.txt > ff.txt
    deps: [f.txt]
    outs: [ff.txt]
""",
    "sub/dvc.yaml": """\
stages:
  part:
    cmd: echo part >> $RUNLOG; cat ../out/clean/a.csv deep/w.txt > s.txt
    deps: [../out/clean/a.csv, deep/w.txt]
    outs: [s.txt]
""",
}
EVERY_TIME = ["always", "callback"]
EDITS: list[tuple[str, str, list[str] | None]] = [
    ("first run", "true", None),
    ("a frozen stage", "sed -i 's/frozen: false/frozen: true/' dvc.yaml", EVERY_TIME),
    (
        "what a frozen stage depends on",
        "sed -i 's/lr: 2/lr: 5/' params.yaml",
        sorted([*EVERY_TIME, "dictionary_b"]),
    ),
    (
        "a file of variables",
        "sed -i 's/k: 3/k: 4/' lib/more.yaml",
        sorted([*EVERY_TIME, "clean", "kept", "measured", *["nested"] * 4]),
    ),
    ("the output of a frozen stage deleted", "rm f.txt", None),
    ("thawed", "sed -i 's/frozen: true/frozen: false/' dvc.yaml", None),
    ("data that dvc add tracks", "rm data/source.csv; echo 99 > data/source.csv", None),
    ("a persistent output deleted", "rm -f checkpoint.txt plain.txt", None),
    ("only the root's dvc.yaml", "rm -f sub/s.txt", EVERY_TIME),
    ("tracked data deleted", "rm data/source.csv", None),
]


def test_both_engines_do_the_same(tmp_path: Path) -> None:
    base = bridge.create(tmp_path / "base", PROJECT)
    base("git", "rm", "-q", "--cached", "data/source.csv")
    base("dvc", "add", "-q", "data/source.csv")
    base("git", "add", "-A")
    base("git", "commit", "-q", "-m", "data")
    pair = Pair(base, tmp_path)
    for name, edit, ran in EDITS:
        pair.shell(edit)
        dvc, snakemake, differences = pair.run(everything="root" not in name)
        assert differences == [], f"{name}: {dvc.output}\n{snakemake.output}"
        assert ran is None or dvc.ran == ran, name


def test_the_order_is_always_the_same(tmp_path: Path) -> None:
    """Also where other dvc.yaml files have most of the stages: there DVC walks a set of hashes."""
    few = "".join(f"  {name}: {{cmd: echo > {name}, outs: [{name}]}}\n" for name in "bdac")
    files = {
        "dvc.yaml": "stages:\n" + few,
        "sub/dvc.yaml": "stages:\n  m: {matrix: {n: [1, 2, 3, 4, 5, 6]}, cmd: 'echo ${item.n}'}\n",
    }
    copy = bridge.create(tmp_path / "one", files)
    for seed in ("1", "2", "3"):
        table = copy("env", f"PYTHONHASHSEED={seed}", "python", "-m", "workflow.pipeline")
        assert [line.split()[1] for line in table.splitlines()] == ["b", "d", "a", "c"]


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        ("threads: two", "meta.snakemake.threads: got 'two'; write a whole number of cores"),
        ("threads: 0", "meta.snakemake.threads: got 0; write a whole number of cores"),
        ("mem_mb: [1]", "meta.snakemake.mem_mb: got [1]; write a number or a text"),
        ("local: 1", "meta.snakemake.local: got 1; write true or false"),
    ],
)
def test_needs_that_cannot_be_read_are_refused(tmp_path: Path, meta: str, problem: str) -> None:
    stage = f"stages:\n  a:\n    cmd: echo a\n    meta: {{snakemake: {{{meta}}}}}\n"
    copy = bridge.create(tmp_path / "one", {"dvc.yaml": stage})
    output = copy("snakemake", "--dry-run", check=False)
    assert f"dvc.yaml: a: {problem}" in output
