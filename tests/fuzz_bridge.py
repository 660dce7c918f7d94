"""Random DAGs and random edits, run by both engines and compared.

Run: `python -m tests.fuzz_bridge 500` for the DAGs of seeds 0 to 499;
`python -m tests.fuzz_bridge 20 --first 100` for those of seeds 100 to 119.
"""

from __future__ import annotations

import argparse
import atexit
import json
import random
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests import bridge
from tests.bridge import Copy, Pair

SOURCES = 4
VALUES = 3
EDITS = (
    *("source", "source", "parameter", "parameter", "delete", "delete many", "corrupt", "touch"),
    *("revert", "branch", "switch", "switch", "command", "grow", "drop", "nothing"),
    *("lose an object",),
)


class Dag:
    """A random dvc.yaml: files, folders, files in a shared folder, parts of folders as deps,
    uncached and persistent outputs, matrices, commands that often give the same output."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.params = {f"p{number}": 0 for number in range(draw.randint(4, 8))}
        self.stages: dict[str, dict[str, Any]] = {}
        self.outs: list[str] = []
        self.branches = ["main"]
        self._usable: list[str] = []
        for number in range(len(self.params)):
            self._add(number)
        if draw.random() < 0.5:
            self._add_matrix(len(self.params))

    def _add(self, number: int) -> None:
        draw = self.draw
        deps = draw.sample(self._usable, min(len(self._usable), draw.randint(0, 2)))
        if not deps or draw.random() < 0.5:
            deps.append(f"src{draw.randrange(SOURCES)}.txt")
        shared = any("g" in stage["deps"] for stage in self.stages.values())
        if draw.random() < 0.2 and any(path.startswith("g/") for path in self.outs):
            deps, shared = [dep for dep in deps if not dep.startswith("g/")] + ["g"], True
        kind = draw.choice(["file", "file", "folder", "file" if shared else "shared"])
        out = {"file": f"o{number}.txt", "folder": f"d{number}", "shared": f"g/o{number}.txt"}[kind]
        stage: dict[str, Any] = {"deps": sorted(set(deps)), "cmd": ""}
        stage["cmd"] = self._command(number, stage["deps"], out, kind)
        if draw.random() < 0.5:
            stage["params"] = [f"p{number}"]
        fate = draw.random()
        options = {"cache": False} if fate < 0.1 else {"persist": True} if fate < 0.18 else None
        if 0.18 <= fate < 0.24:
            stage["always_changed"] = True
        if options == {"cache": False} and draw.random() < 0.5:
            stage["metrics"] = [{out: options}]
        else:
            stage["outs"] = [{out: options}] if options else [out]
        self.stages[f"s{number}"] = stage
        self.outs.append(out)
        self._usable.append(f"{out}/a" if kind == "folder" and draw.random() < 0.5 else out)

    def _add_matrix(self, number: int) -> None:
        deps = [self.draw.choice([*self._usable, "src0.txt"])]
        read = self._command(number, deps, f"m{number}_${{item.n}}.txt", "file")
        self.stages[f"s{number}"] = {
            "matrix": {"n": self.draw.sample(range(9), 2)},
            "cmd": read.replace(f"${{p{number}}}", "${item.n}"),
            "deps": deps,
            "outs": [f"m{number}_${{item.n}}.txt"],
        }

    def grow(self) -> None:
        """One more in each matrix, in front of the others or behind them."""
        for stage in self.stages.values():
            if "matrix" in stage:
                values = stage["matrix"]["n"]
                free = [n for n in range(9) if n not in values]
                values.insert(self.draw.choice([0, len(values)]), self.draw.choice(free or [10]))

    def drop(self) -> None:
        """Take a stage out; whatever read its output finds it as a plain file."""
        if len(self.stages) > 2:
            del self.stages[self.draw.choice(list(self.stages))]

    def _command(self, number: int, deps: list[str], out: str, kind: str) -> str:
        only = self.draw.choice(["cat", "cat", "head -n 1", "wc -l | tr -d ' '"])
        read = (
            f"for x in {' '.join(deps)}; do find $x -type f ! -name .keep ! -name .gitignore"
            f" | sort | xargs cat; done | sort | {only}; echo ${{p{number}}}"
        )
        note = f"echo s{number} >> $RUNLOG; "
        if kind == "folder":
            return note + f"mkdir -p {out}; ({read}) > {out}/a; echo k > {out}/b"
        return note + f"({read}) > {out}"

    def write(self, copy: Copy) -> None:
        """JSON is YAML."""
        (copy.folder / "params.yaml").write_text(json.dumps(self.params, indent=1))
        (copy.folder / "dvc.yaml").write_text(json.dumps({"stages": self.stages}, indent=1))

    def read(self, copy: Copy) -> None:
        """Follow the files after git has put back older ones."""
        self.params = json.loads((copy.folder / "params.yaml").read_text())
        self.stages = json.loads((copy.folder / "dvc.yaml").read_text())["stages"]


def edit(kind: str, dag: Dag, pair: Pair) -> None:
    draw, outs = dag.draw, dag.outs
    if kind == "source":
        pair.shell(f"echo {draw.randrange(VALUES)} >> src{draw.randrange(SOURCES)}.txt")
    elif kind == "parameter":
        dag.params[draw.choice(list(dag.params))] = draw.randrange(VALUES)
        pair.each(dag.write)
    elif kind == "delete":
        pair.shell(f"rm -rf {draw.choice(outs)}")
    elif kind == "delete many":
        pair.shell(f"rm -rf {' '.join(draw.choices(outs, k=3))}")
    elif kind == "corrupt":
        out = draw.choice(outs)
        file = f"{out}/a" if out.startswith("d") else out
        pair.shell(f"rm -f {file}; mkdir -p $(dirname {file}); echo bad > {file}")
    elif kind == "command":
        stage = dag.stages[draw.choice(list(dag.stages))]
        stage["cmd"] += "; true"
        pair.each(dag.write)
    elif kind == "touch":
        path = draw.choice([*outs, "dvc.yaml", "params.yaml", "src0.txt"])
        pair.shell(f"find {path} -exec touch {{}} + || true")
    elif kind in {"grow", "drop"}:
        dag.grow() if kind == "grow" else dag.drop()
        pair.each(dag.write)
    elif kind == "revert":
        back = f"git checkout -q HEAD~{draw.randint(1, 2)} --"
        pair.shell(f"{back} dvc.yaml params.yaml src*.txt || true; {back} dvc.lock || true")
        dag.read(pair.copies["dvc"])
    elif kind == "branch":
        dag.branches.append(f"b{len(dag.branches)}")
        start, name = draw.choice(["HEAD", "HEAD~1", "HEAD~2"]), dag.branches[-1]
        has_it = f"git cat-file -e {start}:dvc.yaml 2>/dev/null"
        pair.shell(f"{has_it} && git checkout -q -b {name} {start} || git checkout -q -b {name}")
        dag.read(pair.copies["dvc"])
    elif kind == "switch":
        pair.shell(f"git checkout -q {draw.choice(dag.branches)}")
        dag.read(pair.copies["dvc"])
    elif kind == "lose an object":
        pick = draw.random()
        pair.each(lambda copy: lose(copy, pick))


def lose(copy: Copy, pick: float) -> None:
    """The same object goes missing in both caches."""
    objects = sorted((copy.folder / ".dvc/cache/files").rglob("??/*"))
    files = [path for path in objects if path.is_file()]
    if files:
        files[int(pick * len(files))].unlink()


@cache
def empty() -> Copy:
    """The project without stages, made once."""
    files = {f"src{number}.txt": f"{number}\n" for number in range(SOURCES)} | {"g/.keep": ""}
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    return bridge.create(folder / "empty", files)


def made_again(dvc: list[str], snakemake: list[str]) -> bool:
    """Whether it is no difference that other stages ran: where two had made the same object that
    is lost now, either may make it again, and side by side both do."""
    return len(dvc) == len(snakemake) or set(dvc) < set(snakemake)


def check(seed: int, folder: Path, steps: int) -> list[str]:
    """Run one DAG through some edits; what differed, empty if nothing."""
    draw = random.Random(seed)
    dag = Dag(draw)
    pair = Pair(empty(), folder)
    pair.each(dag.write)
    for step in range(steps):
        kind = draw.choice(EDITS) if step else "nothing"
        edit(kind, dag, pair)
        dvc, snakemake, differences = pair.run()
        if kind == "lose an object" and made_again(dvc.ran, snakemake.ran):
            differences = [line for line in differences if not line.startswith("ran ")]
        if dvc.code and not step:
            differences.append(f"dvc failed: {dvc.output}")
        if differences:
            where = f"seed {seed}, step {step}, {kind}: "
            return [where + line for line in differences] + [snakemake.output]
        if dvc.code:  # in both: a file that a dropped stage had made was deleted
            return []
        pair.shell("git add -A; git commit -q --allow-empty -m step")
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dags", type=int)
    parser.add_argument("--first", type=int, default=0, help="seed of the first DAG")
    parser.add_argument("--steps", type=int, default=10, help="runs of each DAG")
    arguments = parser.parse_args()
    failed = 0
    for seed in range(arguments.first, arguments.first + arguments.dags):
        with tempfile.TemporaryDirectory() as folder:
            differences = check(seed, Path(folder), arguments.steps)
        failed += bool(differences)
        print(f"seed {seed}: {differences or 'the same'}", flush=True)
    print(f"{arguments.dags} DAGs of {arguments.steps} runs, {failed} with differences")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
