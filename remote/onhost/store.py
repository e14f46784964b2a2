"""Content-addressed files: `store/<sha256>`, mode 0444, trusted only while their stat record is unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from typing import Any, Callable, Dict, List

from .frames import CHUNK_BYTES, Reader, message
from .refused import Refused
from .target import Target, copy_file
from .transfer import WORTH_ASKING_BYTES, Receiver
from .tree import FILE, Entry, unpack

SHA256 = re.compile(r"[0-9a-f]{64}\Z")


class Store:
    """The store of one workspace."""

    def __init__(self, workspace: str) -> None:
        self._root = os.path.join(workspace, "store")
        os.makedirs(self._root, exist_ok=True)

    def path(self, sha256: str) -> str:
        """Where an object lies, or would.  Raises Refused for what is no sha256."""
        if not SHA256.match(sha256):
            raise Refused("store_name_invalid", f"not a sha256: {sha256[:80]!r}")
        return os.path.join(self._root, sha256)

    def sizes(self) -> List[int]:
        """The sizes of the larger objects, to tell which contents are worth a question."""
        with os.scandir(self._root) as listing:
            sizes = {item.stat(follow_symlinks=False).st_size for item in listing if SHA256.match(item.name)}
        return sorted(size for size in sizes if size >= WORTH_ASKING_BYTES)

    def has(self, sha256: str) -> bool:
        """Whether that content lies here.  Reads it again where its record does not vouch for it."""
        path = self.path(sha256)
        try:
            record = _record(path)
        except FileNotFoundError:
            return False
        try:
            with open(path + ".stat") as file:
                if file.read() == record:
                    _renew(path)
                    return True
        except FileNotFoundError:
            pass
        if sha256_of(path) == sha256:
            _write(path + ".stat", record.encode("ascii"))
            return True
        # Somebody changed it.  Kept for a look, out of the way, so that the right content can take its place.
        os.replace(path, path + ".quarantined")
        return False

    def converse(self, reader: Reader, say: Callable[[bytes], None]) -> None:
        """Take in a listing of objects, tell which are missing, and take in those.

        {"missing": [i, ...], "parts": {key: bytes}, "free": bytes} answers the listing.  Then come
        {"files": [[i, offset]]} and a stream, answered by {"done": [i, ...]} with what came whole.
        """
        entries = [entry._replace(kind=FILE, mode=0o444) for entry in unpack(reader)]
        missing = [index for index, entry in enumerate(entries) if not self.has(entry.path)]
        target = Target(self._root, committed=self._note)
        say(message({"missing": missing, "parts": target.parts(), "free": target.room().size_bytes}))
        if not missing:
            return
        wanted: Dict[int, int] = dict(reader.message()["files"])
        target.begin()
        receiver = Receiver(target, entries, wanted, expected={index: entries[index].path for index in wanted})
        try:
            receiver.take(reader)
            target.commit()
        finally:
            target.end()
        say(message({"done": sorted(wanted.keys() - receiver.failed.keys() - set(receiver.bad))}))

    def _note(self, entry: Entry, at: Any) -> None:
        _write(self.path(entry.path) + ".stat", _record(self.path(entry.path)).encode("ascii"))

    def place(self, sha256: str, target: str) -> None:
        """Make `target` a link to the object, or a copy where links don't work.  Raises Refused if it is not here."""
        path = self.path(sha256)
        if not self.has(sha256):
            raise Refused(
                "store_object_missing", f"{sha256[:12]} is not in the store any more", "run the same command again"
            )
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(path, target)
        except FileExistsError as error:
            # A copy would be written through the link that is there, into another object of the store.
            raise Refused("path_taken", f"{target} is named twice") from error
        except OSError:
            copy_file(path, target)


def _record(path: str) -> str:
    status = os.lstat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _renew(path: str) -> None:
    """Let the object count as young: whoever was told that it is here relies on it, and `clean` goes by its ctime."""
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _write(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def sha256_of(path: Any, flags: int = 0) -> str:
    """Of the content of a file, opened with these `flags` more.  Raises OSError."""
    digest = hashlib.sha256()
    with open(os.open(path, os.O_RDONLY | flags), "rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
