"""Logits that were worked out already, in a file that a power cut leaves usable: an inference goes on where it was.

Owns the file: a header that says what was asked of what, then a record for each window of texts, on the disk before the
next window is begun.  Believes nothing in it that its digests do not vouch for.  Knows nothing of models and texts.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import struct
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BrokenRun
from jobs.log_line import say

MAGIC = b"launch logits 1\n"
_HEADER = struct.Struct("<16s32sI")
"""Magic with its version, sha256 of what was asked of what, classes."""
_RECORD = struct.Struct("<I32s32s")
"""Rows, sha256 of their texts, sha256 of that and of the float32 numbers that follow."""


class KeptLogits:
    """The file at `path`, gone through once: windows that were kept are read, those behind them are added.

    What is of another `identity`, damaged or cut off is dropped, and everything behind it.  Two processes that do the
    same at the same time write the same bytes to the same places.  Raises BrokenRun where something else has the name:
    through a link in a run's folder, which anybody may have made, another file would be written over.
    """

    def __init__(self, path: Path, identity: bytes, classes: int) -> None:
        self._name, self._row_bytes = path.name, 4 * classes
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise BrokenRun(f"{path}: not a plain file", hint=f"take it away: rm -r {shlex.quote(str(path))}")
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "x+b")
        header = _HEADER.pack(MAGIC, identity, classes)
        found = self._file.read(_HEADER.size)
        self._whole = found == header
        if not self._whole:
            if found:
                say(f"{path.name}: logits of another model, other settings or another version; not used")
            self._file.seek(0)
            self._file.truncate()
            self._file.write(header)

    def __enter__(self) -> KeptLogits:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def next(self, rows: int, texts: bytes) -> NDArray[np.float32] | None:
        """(rows, C) of the next window, whose texts have this sha256; None where it and all behind it is to be made."""
        if not self._whole:
            return None
        start = self._file.tell()
        record = self._record(rows, texts)
        if record is None:
            self._whole = False
            self._file.seek(start)
            self._file.truncate()
        return record

    def add(self, texts: bytes, logits: NDArray[np.float32]) -> None:
        """Have a window's logits (n, C) on the disk.  Raises OSError."""
        content = np.ascontiguousarray(logits, dtype="<f4").tobytes()
        self._file.write(_RECORD.pack(len(logits), texts, _digest(texts, content)) + content)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _record(self, wanted: int, texts: bytes) -> NDArray[np.float32] | None:
        head = self._file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return None
        rows, of_texts, digest = _RECORD.unpack(head)
        size = rows * self._row_bytes
        if size > os.fstat(self._file.fileno()).st_size - self._file.tell():
            return None  # the last one, cut off while it was written; or its length is not to be believed
        content = self._file.read(size)
        if _digest(of_texts, content) != digest:
            say(f"{self._name}: damaged; what is behind that place is done anew")
            return None
        if (rows, of_texts) != (wanted, texts):
            say(f"{self._name}: the texts have changed; what is behind that place is done anew")
            return None
        return np.frombuffer(content, dtype="<f4").reshape(rows, -1)


def _digest(texts: bytes, content: bytes) -> bytes:
    return hashlib.sha256(texts + content).digest()
