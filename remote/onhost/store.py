"""Content-addressed files: `store/<sha256>`, mode 0444, trusted only while their stat record is unchanged."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from typing import BinaryIO, Iterable, List

from .frames import BrokenStream, Reader
from .refused import Refused

SHA256 = re.compile(r"[0-9a-f]{64}\Z")
PART = ".part-"
PART_KEPT_S = 24 * 3600


class Store:
    """The store of one workspace."""

    def __init__(self, root: str) -> None:
        self._root = os.path.join(root, "store")
        os.makedirs(self._root, exist_ok=True)

    def _path(self, sha256: str) -> str:
        if not SHA256.match(sha256):
            raise Refused("store_name_invalid", f"not a sha256: {sha256[:80]!r}")
        return os.path.join(self._root, sha256)

    def missing(self, digests: Iterable[str]) -> List[str]:
        """Those of `digests` whose content does not lie here, each once."""
        return [sha256 for sha256 in dict.fromkeys(digests) if not self._has(sha256)]

    def _has(self, sha256: str) -> bool:
        path = self._path(sha256)
        try:
            record = _record(path)
        except FileNotFoundError:
            return False
        try:
            with open(path + ".stat") as file:
                if file.read() == record:
                    return True
        except FileNotFoundError:
            pass
        if _sha256_of(path) == sha256:
            _write(path + ".stat", record.encode("ascii"))
            return True
        # Somebody changed it.  Kept for a look, out of the way, so that the right content can take its place.
        os.replace(path, path + ".quarantined")
        return False

    def receive(self, reader: Reader) -> int:
        """Take in the frames of a stream, each named by its sha256; the number of files.  Keeps what came whole."""
        count = 0
        self._sweep()
        while True:
            fields = reader.header()
            if fields is None:
                return count
            self._receive_one(fields["path"], fields["size"], reader)
            count += 1

    def _receive_one(self, sha256: str, size: int, reader: Reader) -> None:
        path = self._path(sha256)
        free = shutil.disk_usage(self._root).free
        if size > free - 64 * 1024 * 1024:
            raise Refused(
                "disk_full",
                f"{size >> 20} MB are to be sent, {free >> 20} MB are free in {self._root}",
                "free some space on the host, then run the same command again",
            )
        descriptor, temporary = tempfile.mkstemp(prefix=PART, dir=self._root)
        try:
            with os.fdopen(descriptor, "wb") as file:
                digest = hashlib.sha256()
                for chunk in reader.content(size):
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if digest.hexdigest() != sha256:
                raise BrokenStream(f"{sha256[:12]}: the content that arrived has another sha256")
            os.chmod(temporary, 0o444)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
        _write(path + ".stat", _record(path).encode("ascii"))

    def _sweep(self) -> None:
        """Remove what a transfer left that was killed: nobody writes to a file for a day without touching it."""
        for name in os.listdir(self._root):
            path = os.path.join(self._root, name)
            if name.startswith(PART) and os.path.getmtime(path) < time.time() - PART_KEPT_S:
                os.unlink(path)

    def place(self, sha256: str, target: str) -> None:
        """Make `target` a link to the object, or a copy where links don't work.  Raises Refused if it is not here."""
        path = self._path(sha256)
        if not self._has(sha256):
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
            shutil.copyfile(path, target)


def _record(path: str) -> str:
    status = os.lstat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _write(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "wb") as file:
        file.write(content)
    os.replace(temporary, path)


def _sha256_of(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: _read(file), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _read(file: BinaryIO) -> bytes:
    return file.read(1 << 20)
