"""The house rules that keep stage keys complete and minimal."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import __main__, check, plugins
from stages import trial as trial_stage

ROOT = Path(__file__).parent.parent
DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
PINS = PROJECT["tool"]["pins"]
MODULES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("stages", "workflow")
    for path in (ROOT / folder).rglob("*.py")
)
BESIDE: dict[str, Any] = {
    f"{file.parent.relative_to(ROOT)}:{name}": stage.get("do", stage)
    for file in sorted((ROOT / "workflow").rglob("dvc.yaml"))
    for name, stage in yaml.safe_load(file.read_text())["stages"].items()
}
LIGHT = (
    *("fetch_model", "prepare", "tokenize", "baseline", "report", "leaderboard", "sweep"),
    *("study", "baseline_trial"),
)


@cache
def imports(path: str) -> frozenset[str]:
    """Names of the modules that a file imports anywhere, lazily or not; not those that only
    type checkers see."""
    tree = ast.parse((ROOT / path).read_text())
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return frozenset(found)


def file_of(module: str) -> str | None:
    path = module.replace(".", "/") + ".py"
    return path if (ROOT / path).exists() else None


def first_party(path: str) -> set[str]:
    return {file for name in imports(path) if (file := file_of(name))}


def closure(path: str) -> set[str]:
    found, todo = set(), [path]
    while todo:
        if (current := todo.pop()) not in found:
            found.add(current)
            todo += first_party(current)
    return found


def declared(stage: str, run: dict[str, str]) -> set[str]:
    """The code among a stage's deps; a folder counts for the modules in it."""
    return code_of(DVC["stages"][stage]["deps"], run)


def code_of(deps: list[str], run: dict[str, str]) -> set[str]:
    for kind, name in run.items():
        deps = [re.sub(rf"\$\{{(run|item)\.{kind}\}}", name, dep) for dep in deps]
    code: set[str] = set()
    for dep in deps:
        if dep.endswith(".py"):
            code.add(dep)
        elif dep.startswith("stages/"):
            code |= {module for module in MODULES if module.startswith(dep + "/")}
    return {path for path in code if not path.endswith("__init__.py")}


def group(path: str) -> str:
    """The storey of the house that a module lives on."""
    parts = Path(path).with_suffix("").parts
    if parts[0] == "workflow":
        return "supervisor" if parts[1] == "supervision" else "workflow"
    if len(parts) == 3:
        return parts[1]
    beside = {*check.BESIDE, *check.PRETRAIN_STAGES, "baseline_trial", "leaderboard", "study"}
    if parts[1] in {*check.STAGES, *beside}:
        return "stage"
    if parts[1] in {"__main__", "check", "checking", "clean", "explain", "predict", "summary"}:
        return "command"
    return "ground"


MAY_IMPORT = {
    "command": {
        *("command", "stage", "preparing", "base", "training", "exporting", "reporting"),
        *("common", "trials", "ground"),
    },
    "stage": {
        *("preparing", "base", "training", "exporting", "reporting", "trials", "studying"),
        *("common", "ground"),
    },
    "exporting": {"exporting", "training", "common", "ground"},
    "training": {"training", "common", "ground"},
    "reporting": {"reporting", "common", "ground"},
    "trials": {"trials", "reporting", "ground"},
    "studying": {"studying", "reporting", "ground"},
    "preparing": {"preparing", "common", "ground"},
    "base": {"base", "ground"},
    "tasks": {"common", "ground"},
    "common": {"common", "ground"},
    "methods": {"ground"},
    "ground": {"ground"},
    "workflow": {"workflow", "supervisor", "command", "stage", "trials", "ground"},
    "supervisor": set(),
}


@pytest.mark.parametrize("path", MODULES)
def test_imports_point_one_way(path: str) -> None:
    here = group(path)
    for other in first_party(path) - {path}:
        assert group(other) in MAY_IMPORT[here], f"{path} may not import {other}"


@pytest.mark.parametrize("path", [path for path in MODULES if path.startswith("stages/")])
def test_stages_know_no_engine(path: str) -> None:
    roots = {name.partition(".")[0] for name in imports(path)}
    assert not roots & {"dvc", "snakemake", "workflow"}
    if path != "stages/training/loggers.py":
        assert "wandb" not in roots


@pytest.mark.parametrize("method", plugins.names("methods"))
@pytest.mark.parametrize("task", plugins.names("tasks"))
@pytest.mark.parametrize("stage", check.STAGES)
def test_code_deps_are_the_import_closure(stage: str, task: str, method: str) -> None:
    """Complete: no module is missing from the key. Minimal: none is there without need, but for
    what tasks share, which counts as needed where a task is."""
    assert declared(stage, {"task": task, "method": method}) == needs(stage, task, method)


def needs(stage: str, task: str, method: str) -> set[str]:
    """The modules that a stage loads, with those of a task and a method where it uses them."""
    needed = closure(f"stages/{stage}.py")
    if stage in check.PRETRAIN_STAGES:  # they bring their own task, and always train all
        needed |= closure("stages/methods/full.py") if stage == "pretrain" else set()
        return {path for path in needed if not path.endswith("__init__.py")}
    uses = (ROOT / f"stages/{stage}.py").read_text() + "".join(
        (ROOT / path).read_text() for path in needed if group(path) == "training"
    )
    if "run.task" in uses:
        needed |= closure(f"stages/tasks/{task}.py")
        needed |= {path for path in MODULES if path.startswith("stages/common/")}
    if "run.method" in uses:
        needed |= closure(f"stages/methods/{method}.py")
    return {path for path in needed if not path.endswith("__init__.py")}


@pytest.mark.parametrize("method", plugins.names("methods"))
@pytest.mark.parametrize("task", plugins.names("tasks"))
@pytest.mark.parametrize("name", BESIDE)
def test_code_deps_of_other_pipelines(name: str, task: str, method: str) -> None:
    """Complete, and no module is named without need; whole folders may be."""
    stage, deps = BESIDE[name]["cmd"].split()[3], BESIDE[name]["deps"]
    needed, run = needs(stage, task, method), {"task": task, "method": method}
    assert needed <= code_of(deps, run)
    assert code_of([dep for dep in deps if dep.endswith(".py")], run) <= needed
    folders = {dep for dep in deps if dep.startswith("stages/") and not dep.endswith(".py")}
    assert all(any(path.startswith(f"{folder}/") for path in needed) for folder in folders)


@pytest.mark.parametrize(
    "name", [name for name in BESIDE if "stages trial " in BESIDE[name]["cmd"]]
)
def test_params_of_trials_are_complete_and_minimal(name: str) -> None:
    """What the command line sets is no parameter of params.yaml, so a changed default reruns
    nothing."""
    stage = BESIDE[name]
    given = set(re.findall(r"([\w.]+)=", stage["cmd"])) | {
        "finetune.threads",
        "finetune.devices",
        "finetune.strategy",
    }
    if name.startswith("workflow/sweep:"):
        given |= {*SHIPPED["sweep"]["parameters"], "finetune.seed"}
    keys = {key for key in stage["params"] if isinstance(key, str)}
    finetune = {f"finetune.{key}" for key in check.section_class("finetune").model_fields}
    assert {key for key in keys if key.startswith("finetune")} == finetune - given
    assert {"evaluate.batch_size", "run.task", "tasks.${run.task}.loss"} <= keys
    assert ("run.method" in keys) == ("run.method" not in given)
    trial = {f"trial.{key}" for key in check.section_class("trial").model_fields}
    assert "trial" in keys or {key for key in keys if key.startswith("trial.")} == trial - given
    (pins,) = (key["pyproject.toml"] for key in stage["params"] if isinstance(key, dict))
    libraries = {pin.removeprefix("tool.pins.") for pin in pins}
    assert {name for name in libraries if not name.startswith("methods.")} == set(
        trial_stage.LIBRARIES
    )


@pytest.mark.parametrize("path", [path for path in MODULES if path.endswith("__init__.py")])
def test_package_files_hold_no_code(path: str) -> None:
    """Because they are no deps."""
    assert all(isinstance(node, ast.Expr) for node in ast.parse((ROOT / path).read_text()).body)


@pytest.mark.parametrize("stage", check.STAGES)
def test_pins_in_the_key_are_the_libraries_of_the_stage(stage: str) -> None:
    module = importlib.import_module(f"stages.{stage}")
    keys = [
        key.removeprefix("tool.pins.")
        for entry in DVC["stages"][stage]["params"]
        if isinstance(entry, dict)
        for key in entry["pyproject.toml"]
    ]
    assert sorted(set(keys) - {"methods.${run.method}"}) == sorted(module.LIBRARIES)
    loads_method = any("methods/${run.method}" in dep for dep in DVC["stages"][stage]["deps"])
    assert ("methods.${run.method}" in keys) == loads_method
    assert (stage in __main__.LOAD_METHOD) == loads_method


@pytest.mark.parametrize("stage", check.PRETRAIN_STAGES)
def test_pretraining_reads_its_section_and_its_pins(stage: str) -> None:
    own, pins = BESIDE[f"workflow/pretrain:{stage}"]["params"]
    assert own == {str(check.PRETRAIN): [stage]}
    libraries = importlib.import_module(f"stages.{stage}").LIBRARIES
    assert pins["pyproject.toml"] == [f"tool.pins.{name}" for name in sorted(libraries)]


def test_trials_check_the_pins_of_their_method() -> None:
    assert "trial" in __main__.LOAD_METHOD


@pytest.mark.parametrize("method", plugins.names("methods"))
def test_each_method_pins_its_libraries(method: str) -> None:
    assert sorted(PINS["methods"][method]) == sorted(plugins.load("methods", method).LIBRARIES)


def test_pins_are_what_is_installed_by_make() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    installed = dict(
        line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#")
    )
    pins = {name: version for name, version in PINS.items() if name != "methods"}
    for libraries in PINS["methods"].values():
        pins |= libraries
    assert pins == {name: installed[name] for name in pins}


def test_each_stage_is_one_name() -> None:
    assert list(DVC["stages"]) == list(check.STAGES)
    for stage in check.STAGES:
        assert DVC["stages"][stage]["cmd"] == f"python -m stages {stage}"
        assert check.section_class(stage).__name__ == stage.title().replace("_", "")


@pytest.mark.parametrize("stage", check.STAGES)
def test_a_stage_reads_its_own_section(stage: str) -> None:
    assert stage in DVC["stages"][stage]["params"]


@pytest.mark.parametrize("stage", check.STAGES)
def test_each_stage_can_be_restored_from_the_run_cache(stage: str) -> None:
    """DVC keeps no run-cache for a stage with an uncached output that is not a metric."""
    assert all(isinstance(out, str) for out in DVC["stages"][stage].get("outs", []))


def test_light_stages_load_no_torch() -> None:
    """Importing them, and whatever they import lazily at first level, leaves torch alone."""
    heavy = {"torch", "lightning", "transformers", "peft"}
    for stage in LIGHT:
        for path in closure(f"stages/{stage}.py"):
            roots = {name.partition(".")[0] for name in imports(path)}
            allowed = heavy if group(path) in {"tasks", "common", "methods"} else set()
            if path == "stages/base/files.py":
                allowed = {"torch", "transformers"}  # converts a pickle, only when asked to
            assert not (roots & heavy) - allowed, path


def test_checking_parameters_loads_nothing_heavy() -> None:
    code = (
        "import sys; from stages import check; check.load(); "
        "print(sorted({'torch', 'lightning', 'transformers', 'pandas', 'pyarrow', 'sklearn',"
        " 'matplotlib', 'jinja2', 'wandb', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_only_one_module_changes_dvc() -> None:
    """Overrides are assignments to attributes of DVC's modules: all in workflow/hardening.py."""
    for path in [path for path in MODULES if path.startswith("workflow/")]:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else []
            flat = [t for target in targets for t in getattr(target, "elts", [target])]
            changed = [ast.unparse(t) for t in flat if isinstance(t, ast.Attribute)]
            overrides = [name for name in changed if name.startswith(("dvc.", "module."))]
            assert not overrides or path == "workflow/hardening.py", path


def test_the_supervisor_needs_only_the_standard_library() -> None:
    """It starts with each command, isolated from the environment's packages."""
    roots = {name.partition(".")[0] for name in imports("workflow/supervision.py")}
    assert roots <= set(sys.stdlib_module_names)


def test_snakefile_stays_small() -> None:
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 40
