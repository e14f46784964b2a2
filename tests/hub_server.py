"""The part of the Hugging Face Hub's HTTP interface that a snapshot download needs, on localhost.

A repository is a folder; what the server answers for it is decided by its name: `org/gated`, `org/down` and
`org/absent` are refused as the Hub would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running server: its address for HF_ENDPOINT, and every request it got as `METHOD path`."""

    repositories: dict[str, Path]
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)

    def downloaded(self) -> set[str]:
        """Names of the files that were fetched."""
        return {request.rsplit("/", 1)[1] for request in self.requests if request.startswith("GET /org/")}


@contextlib.contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[Hub]:
    """A Hub with these repositories (`owner/name` to folder), each with one commit on `main`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub = Hub(repositories, f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal; the requests are kept in the Hub."""

    def _answer(self) -> None:
        hub = cast(Any, self.server).hub
        path = unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._api(hub, "/".join(parts[2:4]), *parts[4:6])
        elif len(parts) == 5 and parts[2] == "resolve":
            self._file(hub, "/".join(parts[:2]), parts[4])
        else:
            self._refuse(404, "")

    def _api(self, hub: Hub, repository: str, verb: str = "", revision: str = "") -> None:
        if repository == "org/down":
            self._refuse(503, "")
        elif repository not in hub.repositories:
            self._refuse(401, "RepoNotFound")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        elif verb == "tree":
            self._json(
                [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": _digest(file)}
                    for file in sorted(hub.repositories[repository].iterdir())
                ]
            )
        else:
            self._json({"id": repository, "modelId": repository, "sha": COMMIT, "siblings": [], "tags": []})

    def _file(self, hub: Hub, repository: str, name: str) -> None:
        if repository == "org/gated":
            self._refuse(403, "GatedRepo")
            return
        file = hub.repositories[repository] / name
        if not file.is_file():
            self._refuse(404, "EntryNotFound")
            return
        self._send(200, file.read_bytes(), ETag=f'"{_digest(file)}"', **{"X-Repo-Commit": COMMIT})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", **({"X-Error-Code": code, "X-Error-Message": code} if code else {}))

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
