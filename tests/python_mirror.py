"""A mirror of the Pythons that uv fetches, on localhost: a list of downloads, and one archive made of a Python at hand.

uv checks every archive against a sha256, also one from a mirror, and the one that it brings along nobody can meet with
an archive of his own.  So the list (UV_PYTHON_DOWNLOADS_JSON_URL) names ours and its sum; its address is the real one,
which UV_PYTHON_INSTALL_MIRROR replaces.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TAG = "20260101"
GITHUB = "https://github.com/astral-sh/python-build-standalone/releases/download"
VERSION = ".".join(map(str, sys.version_info[:3]))
MINOR = ".".join(map(str, sys.version_info[:2]))
MACHINE = platform.machine()
NAME = f"cpython-{VERSION}%2B{TAG}-{MACHINE}-unknown-linux-gnu-install_only_stripped.tar.gz"
LEFT_OUT = ("/site-packages", "/test", "__pycache__", f"/config-{MINOR}", "/idlelib", "/lib2to3", "/tkinter")


@dataclass
class Mirror:
    """A running one: its address, the paths it was asked for, and its faults."""

    archive: bytes
    url: str = ""
    requests: list[str] = field(default_factory=list)
    # Bytes of an archive after which nothing more comes until `go_on`.
    stops_after: int = 0
    go_on: threading.Event = field(default_factory=threading.Event)
    is_gone: bool = False
    is_another: bool = False

    @property
    def env(self) -> dict[str, str]:
        """What the owner of a host would set."""
        return {"UV_PYTHON_INSTALL_MIRROR": self.url, "UV_PYTHON_DOWNLOADS_JSON_URL": f"{self.url}/downloads.json"}

    @property
    def downloads(self) -> int:
        """How often an archive was asked for."""
        return sum(path.endswith(".tar.gz") for path in self.requests)

    def listed(self) -> bytes:
        """The list of downloads, in the shape of uv's own."""
        row = {
            "name": "cpython", "arch": {"family": MACHINE, "variant": None}, "os": "linux", "libc": "gnu",
            "major": sys.version_info[0], "minor": sys.version_info[1], "patch": sys.version_info[2], "prerelease": "",
            "url": f"{GITHUB}/{TAG}/{NAME}", "sha256": hashlib.sha256(self.archive).hexdigest(), "variant": None,
            "build": TAG,
        }  # fmt: skip
        return json.dumps({f"cpython-{VERSION}-linux-{MACHINE}-gnu": row}).encode()


def archived(path: Path) -> bytes:
    """The Python that runs this as an archive of uv's kind, without what its owner installed; made once, at `path`."""
    if not path.exists():
        python, library = os.path.realpath(sys.executable), Path(sysconfig.get_path("stdlib"))
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            archive.add(python, f"python/bin/python{MINOR}")
            for name in ("python", "python3"):
                link = tarfile.TarInfo(f"python/bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, f"python{MINOR}"
                archive.addfile(link)
            archive.add(library, f"python/lib/{library.name}", filter=_kept)
    return path.read_bytes()


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith(".a") or any(one in member.name for one in LEFT_OUT) else member


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, mirror: Mirror, *rest: object) -> None:
        self.mirror = mirror
        super().__init__(*rest)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        mirror = self.mirror
        mirror.requests.append(self.path)
        content = {"/downloads.json": mirror.listed(), f"/{TAG}/{NAME}": mirror.archive}.get(self.path)
        if content is None or (mirror.is_gone and self.path.endswith(".gz")):
            self.send_error(404)
            return
        if mirror.is_another and self.path.endswith(".gz"):
            content = content[:4] + bytes(4) + content[8:]  # its date: what is in it is the same
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        stop = mirror.stops_after if self.path.endswith(".gz") else 0
        with contextlib.suppress(ConnectionError):  # who asked may have been killed
            self.wfile.write(content[:stop])
            if stop:
                mirror.go_on.wait(60)
            self.wfile.write(content[stop:])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(archive: bytes) -> Iterator[Mirror]:
    """A mirror that runs until the end of the block."""
    mirror = Mirror(archive)
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, mirror))
    mirror.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield mirror
    finally:
        mirror.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()
