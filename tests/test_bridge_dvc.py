"""The parts of DVC that workflow/ overrides, repeats or relies upon are those it was written for.

Where one of these fails, DVC has changed: read the new source, see whether the mend in
workflow/hardening.py (or what is named beside it) still fits, run
`python -m tests.fuzz_bridge 100`, then put in the new hash that the message gives.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from functools import reduce

import pytest

KNOWN = {
    # workflow/hardening.py
    "dvc.lock:make_lock": "15c4aa7c460c",
    "dvc.lock:Lock": "8840bc14fa02",
    "dvc.rwlock:rwlock": "e8e87c10cc64",
    "dvc.rwlock:_edit_rwlock": "cf3a97fb9efa",
    "dvc.rwlock:_check_blockers": "dfab1ca07593",
    "dvc.stage.decorators:rwlocked": "2f9910ef188b",
    "dvc.stage.decorators:unlocked_repo": "48479e14bcce",
    "dvc.dvcfile:Lockfile": "fcddb5f11557",
    "dvc.utils.serialize._yaml:modify_yaml": "f12395992e53",
    "dvc.utils.serialize._common:_modify_data": "5d8432d4d300",
    "dvc.stage.run:_make_cmd": "1f0d02534025",
    "dvc.stage.run:prepare_kwargs": "b7f2672fdcd4",
    "dvc.stage.run:_run": "4ee9956e4314",
    "dvc.stage.run:cmd_run": "d2696e63976b",
    "dvc.stage.run:run_stage": "d4b66f275003",
    # workflow/run_stage.py repeats what follows the command
    "dvc.stage:Stage.run": "d0e5527866ee",
    "dvc.stage:Stage.reproduce": "a4fd0ff85381",
    "dvc.repo:lock_repo": "77da8142ad03",
    "dvc.repo.reproduce:_reproduce": "c763611bd0ef",
    "dvc.repo.reproduce:_reproduce_stage": "32cb1baa118f",
    # workflow/pipeline.py and workflow/decisions.py tell beforehand what these will do
    "dvc.repo.reproduce:reproduce": "290e8114b421",
    "dvc.repo.reproduce:plan_repro": "3b40949c0a24",
    "dvc.repo.reproduce:get_active_graph": "6f91d99314c7",
    "dvc.stage:Stage.changed": "1425cb5a6a8c",
    "dvc.stage:Stage.changed_deps": "e8a1d343fc12",
    "dvc.stage:Stage._changed_deps": "0e78433ca533",
    "dvc.stage:Stage.changed_outs": "0857a73905ae",
    "dvc.stage:PipelineStage.changed_stage": "39ebcc56d478",
    "dvc.stage.cache:_can_hash": "5fbce5b4695b",
    "dvc.stage.cache:_get_cache_hash": "a880dc015fd4",
    "dvc.stage.cache:StageCache._load": "387d30ed4675",
    "dvc.stage.cache:StageCache._create_stage": "ade1cc22e4d4",
    "dvc.stage.cache:StageCache.restore": "c7e43f44087e",
    "dvc.dependency.param:ParamsDependency.workspace_status": "47882b94a100",
    "dvc.stage.cache:StageCache._cache_type_copy": "89900e52b96c",
    "sshfs.spec:SSHFileSystem._put_file": "e8c00d9118e5",
    # workflow/ordering.py: the lines of .gitignore
    "scmrepo.git:Git._get_gitignore": "5d02f0edc9e2",
    "scmrepo.git:Git._add_entry_to_gitignore": "8518e75cd5ef",
}


@pytest.mark.parametrize("name", KNOWN)
def test_dvc_is_what_the_bridge_was_written_for(name: str) -> None:
    module, _, path = name.partition(":")
    found = reduce(getattr, path.split("."), importlib.import_module(module))
    source = inspect.getsource(inspect.unwrap(found))  # type: ignore[arg-type]
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    assert digest == KNOWN[name], f"{name} is new; see the head of this file. Now {digest}"
