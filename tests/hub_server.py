"""A hub on 127.0.0.1 that speaks as much of the protocol as huggingface_hub's client needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repo, `owner/model` or the data set `owner/rows`, with the files of a folder at `COMMIT`,
    also called main."""

    folder: Path
    gated: bool = False
    dataset: bool = False
    requests: list[str] = field(default_factory=list)
    server: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def respond(self, path: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        path = path.partition("?")[0].strip("/")
        repo = "owner/rows" if self.dataset else "owner/model"
        kind = "datasets" if self.dataset else "models"
        api, model = f"api/{kind}/{repo}", f"{'datasets/' * self.dataset}{repo}/resolve/"
        if not path.startswith((f"{api}/", model)):
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if path.startswith(f"{api}/revision/"):
            if path.rpartition("/")[2] not in ("main", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return 200, {}, json.dumps({"id": repo, "sha": COMMIT}).encode()
        if path.startswith(f"{api}/tree/"):
            files = [file for file in sorted(self.folder.rglob("*")) if file.is_file()]
            return 200, {}, json.dumps([self._entry(file) for file in files]).encode()
        if path.startswith(f"{api}/paths-info/"):
            names = json.loads(body)["paths"]
            files = [self.folder / name for name in names if (self.folder / name).is_file()]
            return 200, {}, json.dumps([self._entry(file) for file in files]).encode()
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        name = path.removeprefix(model).partition("/")[2]
        if not (self.folder / name).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = (self.folder / name).read_bytes()
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        return 200, {"X-Repo-Commit": COMMIT, "ETag": etag}, content

    def _entry(self, file: Path) -> dict[str, Any]:
        body = file.read_bytes()
        path = file.relative_to(self.folder).as_posix()
        return {
            "type": "file",
            "path": path,
            "size": len(body),
            "oid": hashlib.sha1(body).hexdigest(),
        }


@contextmanager
def serve(folder: Path, gated: bool = False, dataset: bool = False) -> Iterator[Hub]:
    """Serve a folder as `owner/model` until the block ends or `stop` is called."""
    hub = Hub(folder, gated, dataset)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = hub.respond(self.path, sent)
            hub.requests.append(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    hub.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.server.daemon_threads = True
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.stop()
