"""Files as frames on a byte stream, the same code at both ends.

A frame is one JSON line, `{"path": ..., "size": N}`, followed by N bytes.  `{"end": true}` ends the stream: without
it the stream was cut.  Unlike tar there is nothing to interpret (no links, modes, owners or extended headers), so
nothing a hostile sender writes can do more than be refused, and a header line is bounded.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO, Callable, Dict, Iterable, Iterator, Optional

HEADER_LIMIT_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024


class BrokenStream(Exception):
    """The stream ended early or does not follow the protocol."""


class EndedEarly(BrokenStream):
    """The stream ended early: cut, or given up by who sent it."""


def pack(files: Iterable[Any], opened: Callable[[Any], BinaryIO]) -> Iterator[bytes]:
    """The stream for `files` (objects with `path` and `size_bytes`), each read through `opened(file)`.

    Raises BrokenStream when a file no longer has the size it was listed with.
    """
    for file in files:
        yield header({"path": file.path, "size": file.size_bytes})
        left = file.size_bytes
        with opened(file) as content:
            while left:
                chunk = content.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise BrokenStream(f"{file.path} became shorter while it was sent")
                left -= len(chunk)
                yield chunk
    yield header({"end": True})


def header(fields: Dict[str, Any]) -> bytes:
    """One header line."""
    return json.dumps(fields, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"


class Reader:
    """Reads lines and byte counts from an iterator of chunks of any size."""

    def __init__(self, chunks: Iterable[bytes], line_limit: int = HEADER_LIMIT_BYTES) -> None:
        self._chunks = iter(chunks)
        self._line_limit = line_limit
        self._buffer = bytearray()

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise EndedEarly("the stream ended early")
        self._buffer += chunk

    def line(self) -> bytes:
        """The next line without its end.  Raises BrokenStream past the limit."""
        start = 0
        while True:
            end = self._buffer.find(b"\n", start)
            if end >= 0:
                break
            start = len(self._buffer)
            if start > self._line_limit:
                raise BrokenStream("a line is too long")
            self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def buffered(self) -> bytes:
        """What was read from the chunks and not asked for yet; the caller goes on with the chunks themselves."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def content(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, in chunks."""
        left = size
        while left:
            if not self._buffer:
                self._more()
            chunk = bytes(self._buffer[:left])
            del self._buffer[: len(chunk)]
            left -= len(chunk)
            yield chunk

    def header(self) -> Optional[Dict[str, Any]]:
        """The next frame's `path` (str) and `size` (int >= 0), or None at the end of the stream."""
        try:
            fields = json.loads(self.line().decode("ascii"))
        except (ValueError, RecursionError) as error:
            raise BrokenStream("a header is not JSON") from error
        if isinstance(fields, dict):
            if fields.get("end") is True:
                return None
            size = fields.get("size")
            if isinstance(fields.get("path"), str) and isinstance(size, int) and size >= 0 and size is not True:
                return fields
        raise BrokenStream("a header lacks path or size")
