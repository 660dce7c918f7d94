"""make share and make fetch: two clones over a folder, OpenSSH and S3; and what can go wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import bridge, servers, team
from tests.bridge import Copy
from tests.project import RAN, Project

SHARE, FETCH = (["python", "-m", "workflow", name] for name in ("share", "fetch"))
NOTHING = "all 8 stages have their results: `make repro` runs nothing"
Use = Callable[[Project | Copy], None]


def use(url: str, **local: object) -> Use:
    """The remote of a project: address in its configuration, credentials in its own copy's."""

    def add(to: Project | Copy) -> None:
        to("dvc", "remote", "add", "-q", "-f", "--default", "team", url)
        for key, value in local.items():
            to("dvc", "remote", "modify", "-q", "--local", "team", key, str(value))

    return add


@contextmanager
def folder(path: Path) -> Iterator[Use]:
    path.mkdir()
    yield use(str(path / "shared"))
    path.rename(path.with_name("unmounted"))


@contextmanager
def ssh(path: Path) -> Iterator[Use]:
    if not servers.SSHD:
        pytest.skip("no sshd here; Debian has it in openssh-server")
    with servers.sshd(path) as (login, key):
        yield use(f"{login}{path}/shared", keyfile=key, allow_agent="false")


@contextmanager
def s3(path: Path) -> Iterator[Use]:
    with servers.s3(path, "team") as address:
        yield use("s3://team/cache", endpointurl=address, **servers.CREDENTIALS)


@pytest.mark.parametrize("remote", [folder, ssh, s3])
def test_two_clones(
    ann: Project, tmp_path: Path, remote: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()  # no credentials but those of the project
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    ann = team.copy(ann, tmp_path / "ann")
    with remote(tmp_path / "server") as add:  # type: ignore[attr-defined]
        add(ann)
        # 8 committed, the report of the branch, 4 stages of each experiment
        assert "17 new results of 17 here" in ann(*SHARE)
        assert "0 files, 0 bytes sent, 0 new results of 17 here" in ann(*SHARE)
        bob = team.clone(ann, tmp_path / "bob")
        add(bob)

        assert NOTHING in (first := bob(*FETCH))
        assert _ran(bob("dvc", "repro")) == set()
        assert bob("git", "status", "--porcelain") == ann("git", "status", "--porcelain")

        bob.set("report.title", team.TITLE)  # ann ran it on a branch
        assert NOTHING in (second := bob(*FETCH))
        assert _files(second) == 1 < _files(first)
        assert _ran(bob("dvc", "repro")) == set()

        bob("git", "checkout", "-q", "params.yaml", "dvc.lock")
        bob.set("finetune.learning_rate", float(team.RATES[0]))  # ann's queue ran it
        assert NOTHING in (third := bob(*FETCH))
        assert 1 < _files(third) < _files(first)
        output = bob("snakemake")
        assert "restored from the cache: finetune, evaluate, export, report" in output
        assert _ran(output) == set()
        assert "up to date" in bob("dvc", "status", "dvc.yaml")
        (bob.folder / ".dvc/config.local").unlink(missing_ok=True)
        if remote is not folder:
            _refused(bob, *FETCH)  # no credentials
    for who, command in ((bob, FETCH), (ann, SHARE)):
        _refused(who, *command)  # the server is gone
    assert "up to date" in bob("dvc", "repro")


def _refused(who: Project, *command: str) -> None:
    output = who(*command, code=2)
    assert re.match(r"remote 'team' \(.*\) cannot be reached or used: \w+: .+", output), output
    assert "`make repro` computes the results here" in output
    assert len(output.splitlines()) == 1


def _ran(output: str) -> set[str]:
    return set(RAN.findall(output))


def _files(output: str) -> int:
    found = re.search(r"(\d+) files?, ", output)
    assert found, output
    return int(found[1])


SHELL = {
    "data.txt": "a\nb\n",
    "params.yaml": "first: 1\nsecond: 1\n",
    "dvc.yaml": """\
stages:
  first:
    cmd: echo first >> $RUNLOG; mkdir -p folder/sub; cat data.txt params.yaml > folder/sub/a.txt; head -c 20000000 /dev/urandom > folder/big
    deps: [data.txt]
    params: [first]
    outs: [folder]
  second:
    cmd: echo second >> $RUNLOG; wc -c < folder/sub/a.txt > size.txt; echo '{"a":1}' > metrics.json
    deps: [folder/sub/a.txt]
    params: [second]
    outs: [size.txt]
    metrics: [{metrics.json: {cache: false}}]
""",
}


@pytest.fixture
def small(tmp_path: Path) -> Copy:
    """A project of shell commands with tracked data and committed results."""
    copy = bridge.create(tmp_path / "small", SHELL)
    copy("git", "rm", "-q", "--cached", "data.txt")
    copy("dvc", "add", "-q", "data.txt")
    assert copy.run("dvc").ran == ["first", "second"]
    copy("git", "add", "-A")
    copy("git", "commit", "-q", "-m", "results")
    return copy


def _clone(of: Copy, folder: Path) -> Copy:
    of("git", "clone", "-q", str(of.folder), str(folder))
    return Copy(folder)


def _command(copy: Copy, *command: str) -> tuple[int, str]:
    done = subprocess.run(
        command,
        check=False,
        cwd=copy.folder,
        env=copy.environment(),
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_data_too_and_what_nobody_has(small: Copy, tmp_path: Path) -> None:
    add = use(str(tmp_path / "shared"))
    add(small)
    small(*SHARE)
    other = _clone(small, tmp_path / "other")
    add(other)
    assert "all 3 stages have their results" in other(*FETCH)
    assert (other.folder / "data.txt").read_text() == "a\nb\n"
    assert other.run("dvc").ran == []
    other.shell("sed -i 's/first: 1/first: 2/' params.yaml")
    output = other(*FETCH)
    assert "nobody has shared first for these inputs: `make repro` runs it here" in output
    assert "what depends on that is known afterwards: second" in output


def test_data_that_others_changed_come_and_what_was_edited_here_stays(
    small: Copy, tmp_path: Path
) -> None:
    add = use(str(tmp_path / "shared"))
    add(small)
    small(*SHARE)
    other = _clone(small, tmp_path / "other")
    add(other)
    other(*FETCH)
    (small.folder / "data.txt").write_text("c\n")
    small("dvc", "add", "-q", "data.txt")
    small.run("dvc")
    small("git", "commit", "-q", "-m", "other data", "--", "data.txt.dvc", "dvc.lock")
    small(*SHARE)
    other("git", "pull", "-q")
    assert "all 3 stages have their results" in other(*FETCH)
    assert (other.folder / "data.txt").read_text() == "c\n"
    (other.folder / "data.txt").unlink()  # which is a link to the cache
    (other.folder / "data.txt").write_text("mine\n")
    code, output = _command(other, *FETCH)
    assert code == 0, output
    assert "data.txt: edited here, and left so; `dvc add data.txt` takes it up" in output
    assert "nobody has shared" not in output
    assert (other.folder / "data.txt").read_text() == "mine\n"


def test_what_plain_dvc_push_sent_is_enough_for_the_committed_state(
    small: Copy, tmp_path: Path
) -> None:
    """It sends no object of a metric that git keeps; the clone has that file from git."""
    add = use(str(tmp_path / "shared"))
    add(small)
    small("dvc", "push", "-q")
    other = _clone(small, tmp_path / "other")
    add(other)
    assert "all 3 stages have their results" in other(*FETCH)
    assert other.run("snakemake").ran == []
    assert "up to date" in other("dvc", "status", "dvc.yaml")


def test_shares_at_once(small: Copy, tmp_path: Path) -> None:
    add = use(str(tmp_path / "shared"))
    add(small)
    others = [bridge.duplicate(small, tmp_path / name) for name in ("b", "c")]
    running = [copy.start(*SHARE) for copy in (small, *others)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert "0 files, 0 bytes sent, 0 new results" in small(*SHARE)
    other = _clone(small, tmp_path / "other")
    add(other)
    other(*FETCH)
    assert other.run("dvc").ran == []


@pytest.mark.skipif(not servers.SSHD, reason="no sshd here; Debian has it in openssh-server")
def test_a_killed_share_leaves_no_half_and_goes_on(small: Copy, tmp_path: Path) -> None:
    shared = tmp_path / "server/shared"
    with servers.sshd(tmp_path / "server") as (login, key):
        add = use(f"{login}{shared}", keyfile=key)
        add(small)
        process = small.start(*SHARE)
        while not any(path.stat().st_size for path in shared.rglob("*.partial")):
            assert process.poll() is None, "over before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not any(path.stat().st_size >= 10**7 for path in _objects(shared))
        assert all(_is_whole(path) for path in _objects(shared))
        small(*SHARE)
        other = _clone(small, tmp_path / "other")
        add(other)
        other(*FETCH)
    assert other.run("dvc").ran == []


def test_a_damaged_object_is_refused(small: Copy, tmp_path: Path) -> None:
    add = use(str(tmp_path / "shared"))
    add(small)
    small(*SHARE)
    (big,) = (path for path in _objects(tmp_path / "shared") if path.stat().st_size >= 10**7)
    big.chmod(0o644)
    os.truncate(big, 1000)
    big.chmod(0o444)  # of a writable one DVC itself would see it, in a folder
    other = _clone(small, tmp_path / "other")
    add(other)
    code, output = _command(other, *FETCH)
    assert code == 2
    assert f"{big} is damaged; remove it there" in output
    big.unlink()
    small(*SHARE)
    assert "all 3 stages have their results" in other(*FETCH)


def test_one_cache_for_all_on_a_machine(small: Copy, tmp_path: Path) -> None:
    other = _clone(small, tmp_path / "other")
    small.shell(f"mv .dvc/cache {tmp_path}/cache")
    for copy in (small, other):
        copy("dvc", "cache", "dir", "--local", str(tmp_path / "cache"))
        copy("dvc", "config", "--local", "cache.shared", "group")
    other("dvc", "checkout", "-q")
    assert other.run("dvc").ran == []
    other.shell("sed -i 's/second: 1/second: 2/' params.yaml; umask 022; dvc repro -q")
    small.shell("sed -i 's/second: 1/second: 2/' params.yaml")
    assert small.run("snakemake").ran == []
    newest = max((tmp_path / "cache/runs").glob("*"), key=lambda path: path.stat().st_mtime)
    assert newest.stat().st_mode & 0o020, "not for the group"


def test_no_remote(small: Copy, tmp_path: Path) -> None:
    for command, name in ((SHARE, "share"), (FETCH, "fetch")):
        code, output = _command(small, *command)
        assert code == 2
        assert f"make {name}: this project has no remote; write `dvc remote add" in output
    small("dvc", "remote", "add", "-q", "team", str(tmp_path / "shared"))
    code, output = _command(small, *SHARE)
    assert code == 2
    assert "which of the remotes team? write `dvc remote default team`" in output


def test_a_server_that_never_answers(small: Copy) -> None:
    with socket.socket() as silent:
        silent.bind((servers.HOST, 0))
        silent.listen()
        address = f"{servers.HOST}:{silent.getsockname()[1]}"
        use("s3://team/cache", endpointurl=f"http://{address}", **servers.CREDENTIALS)(small)
        started = time.monotonic()
        code, output = _command(
            small,
            "python",
            "-c",
            "import sys; from workflow import __main__, team; team.PATIENCE = 1; "
            "sys.exit(__main__.main(['fetch']))",
        )
    assert code == 2
    assert "cannot be reached or used: TimeoutError: no answer in 1 seconds" in output
    assert time.monotonic() - started < 300


def _objects(shared: Path) -> list[Path]:
    return [
        path
        for path in (shared / "files/md5").rglob("*")
        if path.is_file() and path.suffix != ".partial"
    ]


def _is_whole(path: Path) -> bool:
    from hashlib import md5

    name = f"{path.parent.name}{path.name}"
    return md5(path.read_bytes()).hexdigest() == name.removesuffix(".dir")
