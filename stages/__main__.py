"""Run one stage, or one of the commands around them.

    python -m stages prepare        one stage; `dvc repro` calls this
    python -m stages check          is all of it possible, and what would run?
    python -m stages predict TEXT   answers of the exported model; also --file, standard input
    python -m stages summary        the result, and what the last run did
    python -m stages explain        why would a stage run again, or why do its bytes differ?
    python -m stages schema         write workflow/schemas/params.schema.json
    python -m stages clean [--all]  remove checkpoints that no run will go on from
    python -m stages trial OUT KEY=VALUE...   one trial with these parameters, metrics only
    python -m stages baseline_trial OUT KEY=VALUE...   the same of the best trivial model
    python -m stages leaderboard FOLDER       table and plot of the trials in a folder
    python -m stages pretrain_tokenize, pretrain   those of workflow/pretrain/dvc.yaml
    python -m stages sweep --trials NAME...   the same of a search, and the best of it
    python -m stages study FOLDER ...         the report of workflow/studies

Exit codes: 0 done; 1 a bug of ours; 2 something that you can mend, said in one line each;
130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from stages import check
from stages.alone import alone
from stages.artifacts import write_json
from stages.errors import UnsuitedError, UserError, did_you_mean

LOAD_METHOD = ("finetune", "evaluate", "export", "trial")  # its libraries shape their outputs too
TRIALS = ("trial", "baseline_trial")
COMMANDS = (
    *("baseline_trial", "check", "clean", "explain", "leaderboard", "predict", "schema", "study"),
    *("summary", "sweep", "trial"),
)


def main(arguments: list[str]) -> int:
    """Exit code of a command line."""
    signal.signal(signal.SIGTERM, _terminate)  # so that half-written files are removed
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__.strip())
        return 0 if arguments else 2
    name, *rest = arguments
    try:
        code = _dispatch(name, rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        print("\n".join(error.problems), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{name}: interrupted; nothing half-written is left", file=sys.stderr)
        return 130


def _dispatch(name: str, rest: list[str]) -> int:
    if name in (*check.STAGES, *check.PRETRAIN_STAGES):
        if rest:
            raise UserError(
                f"python -m stages {name}: takes no argument, got {rest[0]!r}; remove it"
            )
        with alone(name):
            (run_stage if name in check.STAGES else run_pretrain)(name)
        return 0
    if name in TRIALS:
        run_trial(name, rest)
        return 0
    if name in COMMANDS and name != "schema":
        file = "checking" if name == "check" else name
        return importlib.import_module(f"stages.{file}").main(rest)
    if name == "schema":
        check.write_schema()
        return 0
    known = (*check.STAGES, *check.PRETRAIN_STAGES, *COMMANDS)
    raise UserError(f"python -m stages: no such stage, got {name!r}; {did_you_mean(name, known)}")


def run_stage(name: str) -> None:
    """Check everything that can be checked, run one stage, and note how it went."""
    params = check.load()
    module = importlib.import_module(f"stages.{name}")
    libraries = set(module.LIBRARIES)
    if name in LOAD_METHOD:
        libraries |= set(params.run.method.LIBRARIES)
    method = params.run.method_name
    _run(name, libraries, method, lambda: module.run(params.sections[name], params.run))


def run_pretrain(name: str) -> None:
    """`run_stage` of workflow/pretrain/dvc.yaml, whose parameters lie beside it."""
    section = check.load_pretrain()[name]
    module = importlib.import_module(f"stages.{name}")
    _run(name, set(module.LIBRARIES), "full", lambda: module.run(section))


def run_trial(stage: str, arguments: list[str]) -> None:
    """`run_stage` of a trial, given where its numbers go and what is another than in
    params.yaml."""
    from stages.trials import overrides

    out = Path(arguments[0]) if arguments else Path()
    if out.suffix != ".json" or out.is_absolute() or out.parts[0] != "results":
        raise UserError(
            f"python -m stages {stage}: a JSON file below results/ comes first, got {str(out)!r}; "
            "write results/trials/NAME.json"
        )
    given = overrides.parse(arguments[1:])
    skips = stage == "trial" and given.get("trial.lacking") == "skip"
    if skips and (reason := check.refused(given)):
        leave_out(out, given, reason)
        return
    params = check.load(overrides=given)
    method = params.run.method_name if stage == "trial" else None
    overrides.require_effect(given, params.run.task_name, method)
    module = importlib.import_module(f"stages.{stage}")
    needed = [params.sections[name] for name in module.SECTIONS]
    job = module.Job(out, given, *needed[1:])
    name = out.relative_to("results").with_suffix("").as_posix()
    with alone(name):
        libraries = set(module.LIBRARIES)
        if stage in LOAD_METHOD:
            libraries |= set(params.run.method.LIBRARIES)
        work = partial(module.run, needed[0], params.run, job)
        try:
            _run(name, libraries, params.run.method_name, work)
        except UnsuitedError as error:
            if not skips:
                raise
            leave_out(out, given, error.reason)


def leave_out(out: Path, given: Mapping[str, Any], reason: str) -> None:
    """The outcome of a trial whose method cannot do the task, or not with the base."""
    write_json(out, {"overrides": given, "refused": reason})
    print(f"{out}: left out: {reason}")


def _run(
    name: str, libraries: set[str], method: str, work: Callable[[], dict[str, object]]
) -> None:
    """Do the work of a stage and note, under a name, how it went.

    Args:
        libraries: that shape its outputs; `method`: whose they are where only one needs them.
    """
    from stages import pins, runs

    pins.require(sorted(libraries), method)
    started = time.perf_counter()
    facts = work()
    seconds = time.perf_counter() - started
    runs.record(name, seconds, facts)
    told = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in facts.items())
    print(f"{name}: {told} in {seconds:.1f} s" if told else f"{name}: {seconds:.1f} s")


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
