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
    """One repo, `owner/model`, with the files of a folder at `COMMIT`, also called main."""

    folder: Path
    gated: bool = False
    requests: list[str] = field(default_factory=list)
    server: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def respond(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        path = path.partition("?")[0].strip("/")
        api, model = "api/models/owner/model", "owner/model/resolve/"
        if not path.startswith((f"{api}/", model)):
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if path.startswith(f"{api}/revision/"):
            if path.rpartition("/")[2] not in ("main", COMMIT):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
            return 200, {}, json.dumps({"id": "owner/model", "sha": COMMIT}).encode()
        if path.startswith(f"{api}/tree/"):
            files = [file for file in sorted(self.folder.rglob("*")) if file.is_file()]
            return 200, {}, json.dumps([self._entry(file) for file in files]).encode()
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        name = path.removeprefix(model).partition("/")[2]
        if not (self.folder / name).is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        body = (self.folder / name).read_bytes()
        etag = f'"{hashlib.sha1(body).hexdigest()}"'
        return 200, {"X-Repo-Commit": COMMIT, "ETag": etag}, body

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
def serve(folder: Path, gated: bool = False) -> Iterator[Hub]:
    """Serve a folder as `owner/model` until the block ends or `stop` is called."""
    hub = Hub(folder, gated)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            status, headers, body = hub.respond(self.path)
            hub.requests.append(f"{self.command} {self.path}")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *arguments: Any) -> None:
            pass

    hub.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.server.daemon_threads = True
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.stop()
