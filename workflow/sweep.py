"""The search of params.yaml: sweep. Plans trials as stages, has an engine run them, goes on.

Run: `python -m workflow sweep [--plan | --apply] [--engine snakemake | dvc]`

The plan is workflow/sweep/dvc.yaml, made anew each time: the trial stage of
workflow/trials/dvc.yaml with one entry a trial. Trials are named by what they try, so those that
have run are up to date whatever is added, and a search that was killed is continued by the same
command.
"""

from __future__ import annotations

import argparse
import io
import operator
import subprocess
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from stages import check, plan
from stages.artifacts import read_json, write_text
from stages.errors import UserError
from stages.params import read
from stages.sweep import FOLDER, Sweep
from stages.trials import overrides, search
from stages.trials.search import Setting
from workflow.editing import round_trip

PLAN = Path("workflow/sweep/dvc.yaml")
MODEL = Path("workflow/trials/dvc.yaml")
ENGINES = {
    "dvc": ["dvc", "repro", str(PLAN)],
    "snakemake": ["snakemake", "--config", f"pipeline={PLAN}"],
}
# No parameter of params.yaml shapes these.
GIVEN = {"finetune.devices", "finetune.strategy", "finetune.seed", "finetune.threads"}
UNUSED = {"stages/leaderboard.py", "stages/statistics.py"}  # by the stage that picks the best
HEAD = """\
# The search of params.yaml: sweep, made by `python -m workflow sweep`; do not edit, commit it with
# the results. `dvc repro workflow/sweep/dvc.yaml` runs what of it has not run yet.
"""


def main(arguments: list[str]) -> int:
    """Plan and run the search; the exit code is the engine's.

    Raises:
        UserError: with every problem of every setting, before anything runs.
    """
    parser = argparse.ArgumentParser(prog="python -m workflow sweep")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="snakemake")
    parser.add_argument("more", nargs="*", help="arguments of the engine, after --")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--plan", action="store_true", help="write what comes next and run nothing")
    only.add_argument("--apply", action="store_true", help="write the best into params.yaml")
    chosen = parser.parse_args(arguments)
    if chosen.apply:
        return apply()
    section: Sweep = check.load().sections["sweep"]
    tried: list[Setting] = []
    for number in range(search.rounds(section)):
        past = [(setting, _outcome(section, setting)) for setting in tried]
        tried += search.plan(section, number, past)
        trials = search.trials(section, tried)
        examine(trials)
        write_text(PLAN, text(section, trials))
        print(f"round {number + 1} of {search.rounds(section)}: {len(trials)} trials", flush=True)
        if chosen.plan:  # rounds that have run stay in the plan, for it says what the best is of
            if not _ran(trials):
                return 0
            continue
        if code := subprocess.run([*ENGINES[chosen.engine], *chosen.more], check=False).returncode:
            return code
    if chosen.plan:
        return 0
    print((FOLDER / "best.yaml").read_text(encoding="utf-8"), end="")
    return 0


def examine(trials: Mapping[str, Setting]) -> None:
    """Check each trial as it would itself, that none fails after hours of others."""
    problems: dict[str, None] = {}
    for one in trials.values():
        try:
            run = check.load(overrides=one).run
            overrides.require_effect(one, run.task_name, run.method_name)
        except UserError as error:
            problems |= dict.fromkeys(error.problems)
    if problems:
        raise UserError(*problems)


def text(section: Sweep, trials: Mapping[str, Setting]) -> str:
    """The content of workflow/sweep/dvc.yaml."""
    stages = read(MODEL)["stages"]
    params = read(Path("params.yaml"))
    trial = _trial(stages["trial"], {*section.parameters, "finetune.seed"}, params)
    items = {
        name: {"given": " ".join(overrides.words(one))}
        | ({"method": one["run.method"]} if "run.method" in one else {})
        for name, one in trials.items()
    }
    result = {
        "vars": ["../../params.yaml:run", {"plan": {"trials": list(items)}, "trials": items}],
        "stages": {
            "trial": {"foreach": "${trials}", "do": trial},
            "sweep": _last(stages["leaderboard"]),
        },
    }
    return HEAD + overrides.dumped(result)


def _trial(model: dict[str, Any], swept: set[str], params: Mapping[str, Any]) -> dict[str, Any]:
    """The trial stage for every setting of a search: `item.given` are its overrides."""
    stage = {key: value for key, value in model.items() if key != "matrix"}
    stage["cmd"] = "python -m stages trial results/sweep/trials/${key}.json ${item.given}"
    stage["desc"] = "${item.given}"
    stage["params"] = _params(model["params"], swept, params)
    stage["metrics"] = [{"results/sweep/trials/${key}.json": {"cache": False}}]
    if "run.method" in swept:
        stage = _renamed(stage, "${run.method}", "${item.method}")
    return stage


def _params(entries: Sequence[Any], swept: set[str], params: Mapping[str, Any]) -> list[Any]:
    """What a trial reads of params.yaml: what no setting gives. So the best may be written into
    params.yaml, and no trial runs again."""
    kept: list[Any] = [
        f"finetune.{key}" for key in params["finetune"] if f"finetune.{key}" not in GIVEN | swept
    ]
    for entry in entries:
        if isinstance(entry, dict):
            kept.append(entry)
        elif not entry.startswith("finetune.") and entry not in swept:
            section = _renamed(entry, "${run.task}", params["run"]["task"])
            section = _renamed(section, "${run.method}", params["run"]["method"])
            if any(key.startswith(f"{section}.") for key in swept):
                inner = reduce(operator.getitem, section.split("."), params)
                kept += [f"{section}.{key}" for key in inner if f"{section}.{key}" not in swept]
            else:
                kept.append(entry)
    return kept


def _last(model: dict[str, Any]) -> dict[str, Any]:
    """The stage that picks the best."""
    code = sorted({*model["deps"], "stages/params.py", "stages/sweep.py"} - UNUSED)
    return {
        "wdir": model["wdir"],
        "cmd": "python -m stages sweep ${plan}",
        "desc": "The best of the settings",
        "meta": model["meta"],
        "deps": [_renamed(dep, "results/trials/grid", "results/sweep/trials") for dep in code],
        "metrics": [{"results/sweep/leaderboard.json": {"cache": False}}],
        "plots": [
            {f"results/sweep/{name}": {"cache": False}}
            for name in ("leaderboard.csv", "coordinates.svg")
        ],
        "outs": [{"results/sweep/best.yaml": {"cache": False}}],
    }


def _renamed(value: Any, old: str, new: str) -> Any:
    """With another text in every string of a nested value."""
    if isinstance(value, str):
        return value.replace(old, new)
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    if isinstance(value, dict):
        return {_renamed(key, old, new): _renamed(item, old, new) for key, item in value.items()}
    return value


def _file(name: str) -> Path:
    return FOLDER / f"trials/{name}.json"


def _ran(trials: Mapping[str, Setting]) -> bool:
    return all(_file(name).exists() for name in trials)


def _outcome(section: Sweep, setting: Setting) -> float | None:
    """Mean over seeds of the main metric on the validation split; None where it is no number in
    one, for training diverged or could not be done."""
    trials = [read_json(_file(name)) for name in search.trials(section, [setting])]
    values = [trial.get("validation", {}).get(trial.get("main_metric")) for trial in trials]
    return None if None in values else float(sum(values) / len(values))


def apply() -> int:
    """Write the best setting into params.yaml, whose comments stay."""
    path = FOLDER / "best.yaml"
    if not path.exists():
        raise UserError(f"{path}: missing; run `python -m workflow sweep` to make it")
    yaml = round_trip()
    file = Path("params.yaml")
    content = yaml.load(file.read_text(encoding="utf-8"))
    changed = []
    for key, value in plan.flat(read(path)):
        *sections, last = key.split(".")
        inner = content
        for section in sections:
            if inner.get(section) is None:
                inner[section] = {}
            inner = inner[section]
        changed.append(f"{key}: {value}, was {inner.get(last, 'absent')}")
        inner[last] = value
    out = io.StringIO()
    yaml.dump(content, out)
    write_text(file, out.getvalue())
    print(*changed, sep="\n")
    return 0
