"""manifest.json: path, size and sha256 of every artifact, so that what comes home can be proven to be what was made."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.errors import BrokenRun

MAX_FILES = 100_000
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """One artifact: `path` relative to the artifacts folder with forward slashes, size in bytes, sha256 in hex."""

    path: str
    size_bytes: int
    sha256: str


def sha256_of(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[Entry]:
    """Every regular file below `folder`, sorted by path.  Raises BrokenRun on links and special files."""
    entries = []
    for parent, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                relative = path.relative_to(folder).as_posix()
                entries.append(Entry(relative, path.stat().st_size, sha256_of(path)))
            elif not stat.S_ISDIR(mode):
                raise BrokenRun(f"{path}: an artifact must be a plain file")
    return sorted(entries, key=lambda entry: entry.path)


def dump(entries: list[Entry]) -> str:
    """The manifest's text; the same entries give the same bytes."""
    return json.dumps({"files": [asdict(entry) for entry in entries]}, ensure_ascii=False, indent=1) + "\n"


def read(path: Path) -> list[Entry]:
    """As `parse`, of a file.  Raises BrokenRun."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BrokenRun(f"{path}: {size:,} bytes, which no manifest has")
        return parse(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BrokenRun(f"{path}: not readable ({type(error).__name__})") from error


def parse(text: str) -> list[Entry]:
    """The entries of a manifest from anywhere.  Raises BrokenRun unless every path stays inside its folder."""
    try:
        files = json.loads(text)["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BrokenRun(f"manifest: not readable ({type(error).__name__})") from error
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise BrokenRun("manifest: `files` must be a list of at most 100,000 entries")
    entries = [_entry(file) for file in files]
    seen: dict[str, str] = {}
    for entry in entries:
        # Two names that differ only in case are one file on Windows and macOS: the second would replace the first.
        name = entry.path.casefold()
        if name in seen:
            raise BrokenRun(f"manifest: {entry.path!r} and {seen[name]!r} are one name on some filesystems")
        seen[name] = entry.path
    return entries


def problems(folder: Path, entries: list[Entry]) -> list[str]:
    """What differs between `folder` and the manifest, in words; empty when every byte is as listed."""
    found = []
    present = {entry.path: entry for entry in list_files(folder)} if folder.is_dir() else {}
    for entry in entries:
        here = present.pop(entry.path, None)
        if here is None:
            found.append(f"{entry.path}: missing")
        elif here.size_bytes != entry.size_bytes:
            found.append(f"{entry.path}: {here.size_bytes} bytes, the manifest says {entry.size_bytes}")
        elif here.sha256 != entry.sha256:
            found.append(f"{entry.path}: content differs from the manifest (sha256)")
    found += [f"{path}: not in the manifest" for path in sorted(present)]
    return found


def _entry(file: Any) -> Entry:
    match file:
        case {"path": str(path), "size_bytes": int(size), "sha256": str(digest)}:
            check_relative(path)
            if size < 0 or isinstance(size, bool) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise BrokenRun(f"manifest: {path!r} has an impossible size or sha256")
            return Entry(path, size, digest)
    raise BrokenRun("manifest: every entry needs path, size_bytes and sha256")


def check_relative(path: str) -> None:
    """Raise BrokenRun unless `path` names something strictly inside its folder on every operating system."""
    parts = PurePosixPath(path).parts
    bad = (
        not parts
        or path.startswith("/")
        or ".." in parts
        or "/".join(parts) != path
        or any(character in path for character in '\\:*?"<>|')
        or any(ord(character) < 32 or ord(character) == 127 for character in path)
        or any(part.endswith((".", " ")) or _reserved_on_windows(part) for part in parts)
    )
    if bad:
        raise BrokenRun(f"unsafe path from the host: {path!r}", hint="nothing was written; look at the run on the host")


def _reserved_on_windows(part: str) -> bool:
    stem = part.split(".")[0].upper()
    return stem in {"CON", "PRN", "AUX", "NUL"} or (stem[:3] in {"COM", "LPT"} and stem[3:] in set("123456789"))
