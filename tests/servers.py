"""Real servers on loopback, started for a test: OpenSSH's sshd, and one that speaks S3."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
HOST = "127.0.0.1"
CREDENTIALS = {"access_key_id": "test", "secret_access_key": "test"}
CONFIG = """\
Port {port}
ListenAddress {host}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
"""


@contextmanager
def sshd(folder: Path) -> Iterator[tuple[str, Path]]:
    """An SSH server with keys of its own: address of a user's login, and that user's key."""
    assert SSHD
    folder.mkdir(parents=True)
    for name in ("host_key", "user_key"):
        key = str(folder / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    port = free_port()
    (folder / "config").write_text(CONFIG.format(port=port, host=HOST, folder=folder))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd confines itself
    command = [SSHD, "-D", "-e", "-f", str(folder / "config")]
    with serving(command, port, folder / "sshd.log"):
        yield f"ssh://{getpass.getuser()}@{HOST}:{port}", folder / "user_key"


@contextmanager
def s3(folder: Path, bucket: str) -> Iterator[str]:
    """An S3 server with one bucket; its address. It takes any key for the right one."""
    import boto3

    folder.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    with serving(command, port, folder / "s3.log"):
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{HOST}:{port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.create_bucket(Bucket=bucket)
        yield f"http://{HOST}:{port}"


@contextmanager
def serving(command: list[str], port: int, log: Path) -> Iterator[None]:
    """Run a server; from the moment it listens until the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + 120
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0
