"""Trees of files, made and looked at without the code that is tested."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

WHEN_NS = 1_700_000_000_123_456_000


def put(root: Path, path: str, content: bytes = b"", *, mode: int = 0o644, mtime_ns: int = WHEN_NS) -> Path:
    """A file, and the folders above it."""
    at = root / path
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(content)
    at.chmod(mode)
    os.utime(at, ns=(mtime_ns, mtime_ns))
    return at


def state(root: Path) -> dict[str, Any]:
    """Everything below a folder: kind, mode and time, content or where a link leads."""
    found: dict[str, Any] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            at = os.path.join(folder, name)
            status, path = os.lstat(at), os.fsdecode(os.path.relpath(at, top))
            if os.path.islink(at):
                found[path] = ("link", os.readlink(at))
            elif os.path.isdir(at):
                found[path] = ("folder", status.st_mode & 0o7777, status.st_mtime_ns // 1000)
            else:
                with open(at, "rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                found[path] = ("file", status.st_mode & 0o7777, status.st_mtime_ns // 1000, content)
    return found


def kept(found: dict[str, Any], mask: int) -> dict[str, Any]:
    """The same, of the modes only what the mask leaves."""
    return {path: (one[0], one[1] & mask, *one[2:]) if one[0] != "link" else one for path, one in found.items()}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
