"""What DVC 3.67 lacks for several runners in one workspace: one function a hazard.

Every override of DVC's internals is here, and nowhere else. tests/test_bridge_dvc.py compares the
sources of what is overridden or relied upon with those that this was written for.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from workflow import filesystem, journal, supervision
from workflow.leftovers import replacing
from workflow.ordering import Ordering

LABEL = re.compile(r"@(\S+) (\d+) (.+)")  # "@host process stage", in the rwlock file
SHARED = {"nfs", "nfs4", "lustre", "gpfs", "ceph", "beegfs", "cifs", "smb3", "9p", "fuse.sshfs"}


def apply(address: str, descriptors: list[int], ordering: Ordering) -> None:
    """All mends, in this process, which runs one stage and holds its lock.

    Args:
        address: of the stage.
        descriptors: of the locks that the command inherits: the stage's
            (`supervision.stage_lock`) and those of its GPUs (`gpus.taken`).
        ordering: places of new entries in dvc.lock.
    """
    wait_for_locks()
    tell_other_nodes(address)
    keep_lock_whole(ordering)
    leave_no_orphan(descriptors)
    keep_finished_work()


def wait_for_locks() -> None:
    """Hazard: stages that end together fail, and their work is lost.

    DVC gives up on the guard of its path locks (`.dvc/tmp/rwlock.lock`) after 3 seconds whatever
    `--wait-for-lock` says, and looks at the repository's lock only twice a second.
    """
    import dvc.lock
    import dvc.rwlock

    make_lock: Callable[..., Any] = dvc.lock.make_lock
    dvc.lock.DEFAULT_TIMEOUT = 0.3  # in 6 tries: one each 50 ms, and with `wait` for ever
    dvc.rwlock.make_lock = lambda *args, **kwargs: make_lock(*args, **{**kwargs, "wait": True})


def tell_other_nodes(address: str) -> None:
    """Hazard: a second node starts a stage that this one is running; a torn file stops all.

    DVC looks up the process of a path lock on its own host, and drops the lock where there is
    none. Process 1 exists on every node, so that our locks hold for plain `dvc` anywhere; whose
    they really are stands in their command. Those of dead runners are dropped when the file is
    next opened. DVC writes the file in place, so a kill can leave half of it, at which every
    later command fails: here it is renamed into place, and half a file counts as an empty one.
    """
    import dvc.rwlock

    process = os.getpid()
    shown = 1 if seen_by_other_nodes() else process
    dvc.rwlock.os = SimpleNamespace(getpid=lambda: shown)
    original = dvc.rwlock.rwlock

    def rwlock(tmp_dir: str, fs: Any, cmd: str, *rest: Any) -> Any:
        return original(tmp_dir, fs, f"@{supervision.HOST} {process} {address}", *rest)

    @contextmanager
    def edit_rwlock(lock_dir: str, fs: Any, hardlink: bool) -> Iterator[Any]:
        path = Path(lock_dir) / dvc.rwlock.RWLOCK_FILE
        guard = dvc.rwlock.make_lock(
            str(path.with_name(dvc.rwlock.RWLOCK_LOCK)), tmp_dir=lock_dir, hardlink_lock=hardlink
        )
        with guard:
            lock = _read_path_locks(path)
            _drop_dead(lock, address, process)
            yield lock
            with replacing(path) as partial:
                partial.write_text(json.dumps(lock), "utf-8")

    dvc.rwlock.rwlock = rwlock
    dvc.rwlock._edit_rwlock = edit_rwlock


def keep_lock_whole(ordering: Ordering) -> None:
    """Hazard: a kill while DVC writes dvc.lock destroys it, and its order is by who ended first.

    DVC empties the file and writes it anew. Here it is written beside and renamed, with the
    entries that are new in this run in the order of `dvc repro`.
    """
    import dvc.dvcfile
    from dvc.utils.serialize import dump_yaml
    from dvc.utils.serialize._yaml import parse_yaml_for_update

    @contextmanager
    def modify_yaml(path: str, fs: Any = None) -> Iterator[Any]:
        file = Path(path)
        data = parse_yaml_for_update(file.read_text("utf-8"), path) if file.exists() else {}
        yield data
        ordering.place(os.path.relpath(path), data.get("stages", {}))
        with replacing(file) as partial:
            dump_yaml(str(partial), data)

    dvc.dvcfile.modify_yaml = modify_yaml


def leave_no_orphan(descriptors: list[int]) -> None:
    """Hazard: after SIGKILL of the runner the command goes on, and writes into the next run.

    Each command gets the supervisor for a parent and inherits the locks of its stage.
    """
    import dvc.stage.run as module

    make_cmd, prepare_kwargs = module._make_cmd, module.prepare_kwargs

    def supervised(executable: str, cmd: str) -> list[str]:
        isolated = [sys.executable, "-ISE", str(Path(supervision.__file__).resolve())]
        return [*isolated, *make_cmd(executable, cmd)]

    def inheriting(stage: Any, run_env: dict[str, str] | None = None) -> dict[str, Any]:
        kwargs = prepare_kwargs(stage, run_env)
        kwargs["pass_fds"] = descriptors
        kwargs["env"] |= {
            supervision.INHERITED: ",".join(map(str, descriptors)),
            supervision.RUNNER: str(os.getpid()),
        }
        return kwargs

    module._make_cmd, module.prepare_kwargs = supervised, inheriting


def keep_finished_work() -> None:
    """Hazards: a result that cannot be recorded is lost; one of other inputs is recorded.

    DVC hashes dependencies after the command, so an edit during the run is taken for what was
    used: here the stage fails. What a finished command made is written down before DVC records
    it, so that a full disk or a kill costs the recording and not the run. Outputs are hashed
    while other stages may have the repository's lock; DVC's table of hashes remembers them.
    """
    import dvc.stage.run as module
    from dvc.exceptions import DvcException

    cmd_run = module.cmd_run

    def recorded(stage: Any, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
        stage.save_deps()
        used = journal.inputs(stage)
        cmd_run(stage, dry=dry, run_env=run_env)
        journal.write(stage, used)
        stage.save_deps()
        if changed := journal.difference(used, journal.inputs(stage)):
            journal.forget(stage.addressing)
            raise DvcException(
                f"{', '.join(changed)} changed while '{stage.addressing}' ran, so its result is "
                "not recorded; run again"
            )
        journal.add_hashes(stage)

    module.cmd_run = recorded


def never_run() -> None:
    """For the job that restores: a result that is gone from the cache is no reason to run."""
    import dvc.stage.run as module
    from dvc.exceptions import DvcException

    def refuse(stage: Any, dry: bool = False, run_env: dict[str, str] | None = None) -> None:
        raise DvcException(f"'{stage.addressing}' is no longer in the cache; run again")

    module.cmd_run = refuse


def upload_whole() -> None:
    """Hazard: half a file on an SSH server, left by a kill, counts as there for ever.

    sshfs writes to the final name. Here it is written beside, and renamed.
    """
    try:
        from sshfs import SSHFileSystem
    except ImportError:  # no such remote can be in use
        return
    put_file = SSHFileSystem._put_file

    async def put_whole(self: Any, lpath: str, rpath: str, **kwargs: Any) -> None:
        partial = f"{rpath}.{secrets.token_hex(8)}.partial"
        await put_file(self, lpath, partial, **kwargs)
        await self._mv(partial, rpath)

    SSHFileSystem._put_file = put_whole


def seen_by_other_nodes() -> bool:
    """Whether other machines may share this folder: a network file system, or a SLURM job."""
    if "SLURM_JOB_ID" in os.environ:
        return True
    with suppress(OSError):
        return filesystem.mount(Path.cwd(), filesystem.MOUNTS.read_text())[0] in SHARED
    return False


def _read_path_locks(path: Path) -> Any:
    """The content of the rwlock file, as DVC's functions want it; empty where it is torn."""
    from dvc.rwlock import SCHEMA, Invalid

    try:
        content = SCHEMA(json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, ValueError, Invalid):
        content = SCHEMA({})
    read, write = defaultdict(list, content["read"]), defaultdict(dict, content["write"])
    return {"read": read, "write": write}


def _drop_dead(lock: Any, address: str, process: int) -> None:
    """Forget the path locks of runners that are gone."""

    def dead(info: dict[str, Any]) -> bool:
        match = LABEL.fullmatch(info["cmd"])
        if not match or (match[1], int(match[2])) == (supervision.HOST, process):
            return False
        # We hold the lock of our own stage, so who had it before is gone.
        return match[3] == address or not supervision.is_running(match[3])

    for path in [path for path, info in lock["write"].items() if dead(info)]:
        del lock["write"][path]
    for path, infos in list(lock["read"].items()):
        lock["read"][path] = [info for info in infos if not dead(info)]
        if not lock["read"][path]:
            del lock["read"][path]
