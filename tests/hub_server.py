"""The part of the Hugging Face Hub's HTTP interface that downloads and uploads need, on localhost, with the faults of
real ones.

A repository is a folder.  Its safetensors files are LFS files, all others small ones in git; `org/gated` and `org/down`
are refused as the Hub would.  There is no Xet here, as on mirrors.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK_BYTES = 64 * 1024


@dataclass
class Answer:
    """One answer to a GET of a file, as far as it was sent."""

    name: str
    sent_bytes: int = 0


@dataclass
class Hub:
    """A running server: its address for HF_ENDPOINT, every request it got as `METHOD path`, and how it is to behave."""

    repositories: dict[str, Path]
    endpoint: str = ""
    requests: list[str] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    # Where the branch `main` of every repository stands, and other commits' files.
    main: str = COMMIT
    commits: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    # Faults.  Each number of `cuts` ends the connection of one more download of that file after so many bytes.
    bytes_per_s: float = 0
    cuts: dict[str, list[int]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)
    listed_bytes: dict[str, int] = field(default_factory=dict)
    knows_ranges: bool = True
    is_a_portal: bool = False
    token: str = ""
    # Uploads: where repositories are made, which of all are private, every byte that came, and LFS files by sha256.
    home: Path | None = None
    private: set[str] = field(default_factory=set)
    received: list[bytes] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    # Faults of uploads: the status that a step (create, preupload, batch, put, commit) answers with; 0 is a connection
    # that breaks, and "late" breaks a commit's after it was made.
    refuses: dict[str, int | str] = field(default_factory=dict)
    makes_public: bool = False

    def downloaded(self) -> set[str]:
        """Names of the files that were fetched."""
        return {request.rsplit("/", 1)[1] for request in self.requests if request.startswith("GET /org/")}

    def forget(self) -> None:
        """What was asked and sent so far."""
        self.requests.clear()
        self.authorizations.clear()
        self.answers.clear()

    def sent_bytes(self) -> dict[str, int]:
        """Bytes of each file that were sent."""
        total: Counter[str] = Counter()
        for answer in self.answers:
            total[answer.name] += answer.sent_bytes
        return dict(total)

    def folder(self, repository: str, revision: str) -> Path | None:
        """The files of a repository at a branch or commit."""
        commit = self.main if revision == "main" else self.tags.get(revision, revision)
        return self.commits.get(commit) or (self.repositories.get(repository) if commit == COMMIT else None)


@contextlib.contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[Hub]:
    """A Hub with these repositories (`owner/name` to folder), each with one commit on `main`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub = Hub(repositories, f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes, and the second would wait 40 ms

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal; the requests are kept in the Hub."""

    @property
    def hub(self) -> Hub:
        return cast(Hub, cast(Any, self.server).hub)

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.authorizations.append(self.headers["Authorization"])
        # Whatever the answer is: what is left of a request would be read as the next one.
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.hub.received += [path.encode(), self.body]
        parts = path.strip("/").split("/")
        if self.hub.token and self.headers["Authorization"] not in (None, f"Bearer {self.hub.token}"):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif self.hub.is_a_portal:
            self._send(200, b"<html>Log in to this network</html>")
        elif step := _step(self.command, parts):
            self._upload(step, parts)
        elif parts[0] == "api" and parts[1:2] in (["models"], ["datasets"]):
            self._api("/".join(parts[2:4]), *parts[4:6])
        elif parts[0] == "datasets" and len(parts) == 6 and parts[3] == "resolve":
            self._file("/".join(parts[1:3]), parts[4], parts[5])
        elif len(parts) == 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], parts[4])
        else:
            self._refuse(404, "")

    def _api(self, repository: str, verb: str = "", revision: str = "main") -> None:
        folder = self.hub.folder(repository, revision)
        if repository == "org/down":
            self._refuse(503, "")
        elif repository not in self.hub.repositories or not self._may_see(repository):
            self._refuse(401, "RepoNotFound")
        elif folder is None:
            self._refuse(404, "RevisionNotFound")
        elif verb == "paths-info":
            asked = self._form()
            self._json([self._listed(folder / name) for name in asked if (folder / name).is_file()])
        elif verb == "tree":
            self._json([self._listed(file) for file in sorted(folder.iterdir())])
        else:
            commit = self.hub.main if revision == "main" else self.hub.tags.get(revision, revision)
            siblings = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            self._json({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings, "tags": [],
                        "private": repository in self.hub.private})  # fmt: skip

    def _form(self) -> list[str]:
        """The paths that were asked for: `datasets` posts a form, `huggingface_hub` JSON."""
        body = self.body.decode()
        return json.loads(body)["paths"] if body.startswith("{") else parse_qs(body).get("paths", [])

    def _may_see(self, repository: str) -> bool:
        return repository not in self.hub.private or self.headers["Authorization"] is not None

    def _upload(self, step: str, parts: list[str]) -> None:
        """One step of the way up, or its fault."""
        fault = self.hub.refuses.get(step)
        if fault == 0:
            self.close_connection = True  # without an answer
        elif isinstance(fault, int):
            self._refuse(fault, "", "no " + (self.headers["Authorization"] or ""))  # a Hub that quotes what it got
        elif self.headers["Authorization"] is None and step != "put":
            self._refuse(401, "", "Invalid username or password.")
        elif step == "validate":
            head = yaml.safe_load(json.loads(self.body)["content"].split("---\n")[1])
            self._json({"errors": [] if isinstance(head, dict) else [{"message": "no head"}], "warnings": []})
        elif step == "create":
            self._create(json.loads(self.body))
        elif step == "batch":
            self._batch("/".join(parts[:2]).removesuffix(".git"))
        elif step == "put":
            fits = hashlib.sha256(self.body).hexdigest() == parts[1]
            self.hub.blobs |= {parts[1]: self.body} if fits else {}
            self._send(200 if fits else 400, b"")
        else:
            repository = "/".join(parts[2:4])
            if repository not in self.hub.repositories:
                self._refuse(404, "RepoNotFound")
            elif step == "preupload":
                self._preupload(self.hub.repositories[repository])
            else:
                self._commit(repository)

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        if repository in self.hub.repositories:
            self._refuse(409, "", "You already created this model repo")
            return
        assert self.hub.home is not None
        self.hub.repositories[repository] = self.hub.home / repository
        (self.hub.home / repository).mkdir(parents=True)
        if asked["visibility"] == "private" and not self.hub.makes_public:
            self.hub.private.add(repository)
        self._json({"url": f"{self.hub.endpoint}/{repository}"})

    def _preupload(self, folder: Path) -> None:
        files = []
        for asked in json.loads(self.body)["files"]:
            is_lfs, there = asked["path"].endswith(".safetensors"), folder / asked["path"]
            oid = digest(there, "sha256" if is_lfs else "sha1") if there.is_file() else None
            mode = "lfs" if is_lfs else "regular"
            files.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _batch(self, repository: str) -> None:
        objects = json.loads(self.body)["objects"]
        for one in objects:
            if one["oid"] not in self.hub.blobs:
                one["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}"}}
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, repository: str) -> None:
        """All files of a commit, or none."""
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
        for name, content in files.items():
            (self.hub.repositories[repository] / name).write_bytes(content)
        self.hub.main = hashlib.sha1(self.body, usedforsecurity=False).hexdigest()
        self.hub.commits[self.hub.main] = self.hub.repositories[repository]
        if self.hub.refuses.get("commit") == "late":
            self.close_connection = True
        else:
            url = f"{self.hub.endpoint}/{repository}/commit/{self.hub.main}"
            self._json({"commitUrl": url, "commitOid": self.hub.main})

    def _listed(self, file: Path) -> dict[str, Any]:
        size = self.hub.listed_bytes.get(file.name, file.stat().st_size)
        entry: dict[str, Any] = {"type": "file", "path": file.name, "size": size, "oid": digest(file, "sha1")}
        if file.suffix == ".safetensors":
            entry["lfs"] = {"oid": digest(file, "sha256"), "size": size, "pointerSize": 134}
        return entry

    def _file(self, repository: str, revision: str, name: str) -> None:
        folder = self.hub.folder(repository, revision)
        if repository == "org/gated" and self.headers["Authorization"] != "Bearer hf_granted":
            self._refuse(403, "GatedRepo")
        elif folder is None or not (folder / name).is_file():
            self._refuse(404, "EntryNotFound")
        else:
            self._stream(folder / name)

    def _stream(self, path: Path) -> None:
        size, start = path.stat().st_size, 0
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "") if self.hub.knows_ranges else None
        headers = {"X-Repo-Commit": self.hub.main, "ETag": f'"{digest(path, "sha256")}"'}
        if asked and int(asked[1]) >= size:
            self._send(416, b"", **{"Content-Range": f"bytes */{size}"})
            return
        end = size
        if asked:
            start, end = int(asked[1]), min(size, int(asked[2] or size) + 1)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self._head(206 if asked else 200, end - start, **headers)
        if self.command != "GET":
            return
        self.hub.answers.append(answer := Answer(path.name))
        cuts = self.hub.cuts.get(path.name)
        cut = cuts.pop(0) if cuts else end
        with path.open("rb") as file, contextlib.suppress(ConnectionError):
            file.seek(start)
            while (at := file.tell()) < end and at - start < cut:
                piece = file.read(min(CHUNK_BYTES, end - at, cut - (at - start)))
                if path.name in self.hub.wrong and at == 0:
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                self.wfile.write(piece)
                answer.sent_bytes += len(piece)
                if self.hub.bytes_per_s:
                    time.sleep(len(piece) / self.hub.bytes_per_s)
        self.close_connection = self.close_connection or cut < end - start

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self._send(status, b"{}", **({"X-Error-Code": code} if code else {}), **{"X-Error-Message": message or code})

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self._head(status, len(body), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _step(method: str, parts: list[str]) -> str:
    """Which step of an upload a request is; "" for none."""
    match method, parts:
        case "POST", ["api", "repos", "create"]:
            return "create"
        case "POST", ["api", "validate-yaml"]:
            return "validate"
        case "POST", ["api", "models", _, _, ("preupload" | "commit") as step, "main"]:
            return step
        case "POST", [_, _, "info", "lfs", "objects", "batch"]:
            return "batch"
        case "PUT", ["lfs", _]:
            return "put"
    return ""


def digest(file: Path, kind: str) -> str:
    """sha256 of a file, or the sha1 that git gives it."""
    return _digest(file, kind, file.stat().st_mtime_ns)


@functools.cache
def _digest(file: Path, kind: str, mtime_ns: int) -> str:
    hasher = hashlib.new(kind, usedforsecurity=False)
    if kind == "sha1":
        hasher.update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as content:
        while piece := content.read(1024 * 1024):
            hasher.update(piece)
    return hasher.hexdigest()
