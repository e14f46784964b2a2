"""Messages and bytes on one stream, the same code at both ends.

A message is one line of JSON, and may say that bytes follow it.  Unlike tar there is nothing to interpret (no owners,
devices or extended headers), so nothing a hostile sender writes can do more than be refused, and a line is bounded.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Iterator, List

LINE_LIMIT_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024
# What one read of a pipe or socket can give; more would only be allocated in vain.
READ_BYTES = 128 * 1024


class BrokenStream(Exception):
    """The stream ended early or does not follow the protocol."""


class EndedEarly(BrokenStream):
    """The stream ended early: cut, or given up by who sent it."""


def message(fields: Dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


class Reader:
    """Reads lines and byte counts from an iterator of chunks of any size, copying as little as it can."""

    def __init__(self, chunks: Iterable[bytes], line_limit: int = LINE_LIMIT_BYTES) -> None:
        self._chunks = iter(chunks)
        self._line_limit = line_limit
        self._chunk = b""
        self._at = 0

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise EndedEarly("the stream ended early")
        self._chunk, self._at = chunk, 0

    def line(self) -> bytes:
        """The next line without its end.  Raises BrokenStream past the limit."""
        pieces: List[bytes] = []
        length = 0
        while True:
            end = self._chunk.find(b"\n", self._at)
            piece = self._chunk[self._at : end if end >= 0 else None]
            length += len(piece)
            if length > self._line_limit:
                raise BrokenStream("a line is too long")
            if end >= 0:
                self._at = end + 1
                return b"".join(pieces) + piece if pieces else piece
            pieces.append(piece)
            self._more()

    def message(self) -> Dict[str, Any]:
        """The next message.  Raises BrokenStream where it is not one."""
        try:
            fields = json.loads(self.line().decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise BrokenStream("a message is not JSON") from error
        if not isinstance(fields, dict):
            raise BrokenStream("a message is not an object")
        return fields

    def buffered(self) -> bytes:
        """What was read from the chunks and not asked for yet; the caller goes on with the chunks themselves."""
        rest = self._chunk[self._at :]
        self._chunk, self._at = b"", 0
        return rest

    def content(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in chunks."""
        left = size
        while left:
            if self._at == len(self._chunk):
                self._more()
            piece = memoryview(self._chunk)[self._at : self._at + left]
            self._at += len(piece)
            left -= len(piece)
            yield piece

    def fill(self, view: memoryview) -> None:
        """Put the next bytes into `view`, all of it."""
        at = 0
        while at < len(view):
            if self._at == len(self._chunk):
                self._more()
            piece = memoryview(self._chunk)[self._at : self._at + len(view) - at]
            view[at : at + len(piece)] = piece
            at += len(piece)
            self._at += len(piece)

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes in one piece."""
        if self._at + size <= len(self._chunk):
            piece = self._chunk[self._at : self._at + size]
            self._at += size
            return piece
        return b"".join(self.content(size))
