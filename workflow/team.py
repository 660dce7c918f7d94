"""The team's remote: reached or refused in the user's words, and counted.

What lies there is DVC's own: objects by their hash, and the run-cache's entries below `runs/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any

from stages.errors import UserError
from workflow import hardening

if TYPE_CHECKING:
    from dvc.output import Output
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

PATIENCE = 30  # seconds for the first answer; some clients wait for half an hour
LOCALLY = "`make repro` computes the results here"
OURS = (UserError, AssertionError, AttributeError, LookupError, NameError, TypeError)
SEE = 'README, "Share results with your team"'


class Heard(logging.Handler):
    """What DVC logs instead of raising."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.errors.append(in_words(error) if error else record.getMessage())


@dataclass
class Remote:
    """A remote that answers. `odb` holds the objects, `runs` is the run-cache's folder."""

    repo: Repo
    name: str
    url: str
    odb: Any
    runs: str
    heard: Heard
    moved: set[str] = field(default_factory=set)

    @property
    def fs(self) -> Any:
        return self.odb.fs

    @property
    def about(self) -> str:
        return f"remote '{self.name}' ({self.url})"

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Whatever goes wrong with the remote inside is said as a mistake that can be mended.

        Raises:
            UserError: it cannot be used.
        """
        try:
            yield
        except OURS:
            raise
        except Exception as error:  # each kind of remote has its own
            raise UserError(f"{self.about} failed: {in_words(error)}; {LOCALLY}") from error

    def path(self, key: str, *name: str) -> str:
        """Of a run-cache entry, or of all for one key."""
        return str(self.fs.join(self.runs, key[:2], key, *name))

    def count(self, hashes: Iterable[HashInfo]) -> None:
        self.moved |= {info.value for info in hashes if info.value}

    def amount(self) -> str:
        """Files and size of the objects that were moved."""
        cache = self.repo.cache.local
        size = sum(Path(cache.oid_to_path(value)).stat().st_size for value in self.moved)
        return f"{len(self.moved)} file{'s' * (len(self.moved) != 1)}, {_bytes(size)}"


def connect(repo: Repo, command: str) -> Remote:
    """The project's default remote, once it has answered.

    Raises:
        UserError: there is none, it is of a kind that cannot be used, or it does not answer.
    """
    name = _name(repo, command)
    url = str(repo.config["remote"][name]["url"])
    heard = _listen()
    hardening.upload_whole()
    try:
        if url.startswith(("http://", "https://")):
            raise UserError(
                f"remote '{name}' ({url}): web servers list no files, so the run-cache cannot be "
                "found there; use `dvc push` and `dvc pull`"
            )
        odb = repo.cloud.get_remote_odb(name, command)
        path = repo.cloud.get_remote(name).path
        _answer(lambda: _look(odb.fs, path))
    except OURS:
        raise
    except Exception as error:  # each kind of remote has its own
        raise UserError(
            f"remote '{name}' ({url}) cannot be reached or used: {in_words(error)}; {LOCALLY}. "
            f"Address and credentials: {SEE}"
        ) from error
    return Remote(repo, name, url, odb, odb.fs.join(path, "runs"), heard)


def objects(out: Output) -> set[HashInfo]:
    """What an output consists of, as far as the cache knows: itself, the files of a folder."""
    from dvc_data.hashfile.tree import Tree

    found = {out.hash_info}
    if out.hash_info.isdir and out.cache.exists(out.hash_info.value):
        tree = Tree.load(out.cache, out.hash_info, hash_name=out.hash_name)
        found |= {info for _, _, info in tree if info}
    return found


def in_words(error: BaseException) -> str:
    """An error on one line, with the name of its kind where the text alone says little."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _name(repo: Repo, command: str) -> str:
    remotes = list(repo.config["remote"])
    name = repo.config["core"].get("remote")
    if name in remotes:
        return str(name)
    if remotes:
        raise UserError(
            f"make {command}: which of the remotes {', '.join(remotes)}? write "
            f"`dvc remote default {remotes[0]}`"
        )
    raise UserError(
        f"make {command}: this project has no remote; write `dvc remote add --default team "
        f"ADDRESS`, ADDRESS as s3://bucket/folder, ssh://host/folder or /a/shared/folder ({SEE}). "
        f"Without one {LOCALLY}"
    )


def _look(fs: Any, path: str) -> None:
    """Fails unless a remote answers. Nothing need be there yet, but a folder's parent."""
    _ = fs.fs  # connects; its FileNotFoundError would be about a key file
    try:
        fs.info(path)
    except FileNotFoundError:
        if fs.protocol == "local" and not Path(path).parent.is_dir():
            raise FileNotFoundError(f"no folder {Path(path).parent}; is it mounted?") from None


def _answer(ask: Callable[[], None]) -> None:
    answers: SimpleQueue[BaseException | None] = SimpleQueue()

    def work() -> None:
        try:
            ask()
        except BaseException as error:
            answers.put(error)
        else:
            answers.put(None)

    Thread(target=work, daemon=True).start()
    try:
        error = answers.get(timeout=PATIENCE)
    except Empty:
        raise TimeoutError(f"no answer in {PATIENCE} seconds") from None
    if error:
        raise error


def _listen() -> Heard:
    heard = Heard()
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logger = logging.getLogger(name)
        logger.addHandler(heard)
        logger.propagate = False
    return heard


def _bytes(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
