"""A log as a row of files, addressed by offsets into all that was ever written.

`log.txt` is the first and begins at 0; what follows is `log.<offset, 16 digits>.txt` beside it.  Nothing is renamed.
The oldest but the first may be removed, which leaves a gap.  Beside them `log.times` tells when how much was there.
"""

from __future__ import annotations

import os
import re
from typing import List, NamedTuple, Optional, Tuple

# `<seconds since the epoch> <offset>`, all of one length, so that a line is found without reading those before it.
TIMES_LINE = "{:014.3f} {:016d}\n"
TIMES_BYTES = 32
# What was written within this time of a line of `log.times` has none of its own.
TIMES_S = 1.0
BLOCK_BYTES = 256 * 1024
LINE_BYTES = 64 * 1024


class Segment(NamedTuple):
    """A file of the log: where it begins, in bytes of the whole, and how many it holds."""

    start: int
    size: int
    path: str


class Piece(NamedTuple):
    """What was read: it begins at `start`, which is later than what was asked for where there is a gap."""

    start: int
    content: bytes


def path_at(log: str, start: int) -> str:
    """The file of the log `log` (its first file) that begins at `start`."""
    stem, ending = os.path.splitext(log)
    return log if start == 0 else f"{stem}.{start:016d}{ending}"


def times_path(log: str) -> str:
    """Where the times of the log are."""
    return os.path.splitext(log)[0] + ".times"


def segments(log: str) -> List[Segment]:
    """The files that are there, in order."""
    folder, name = os.path.split(log)
    stem, ending = os.path.splitext(name)
    later = re.compile(re.escape(stem) + r"\.(\d{16})" + re.escape(ending) + r"\Z")
    found = []
    try:
        for entry in os.scandir(folder or "."):
            match = later.match(entry.name)
            if match or entry.name == name:
                try:
                    found.append(Segment(int(match[1]) if match else 0, entry.stat().st_size, entry.path))
                except FileNotFoundError:
                    continue  # removed just now
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def end(log: str) -> int:
    """Where the next byte will be."""
    found = segments(log)
    return found[-1].start + found[-1].size if found else 0


def read(log: str, offset: int, limit: int) -> Piece:
    """At most `limit` bytes from `offset` on; beyond a gap if that is where the next ones are."""
    parts: List[bytes] = []
    start, at = offset, offset
    found = segments(log)
    for number, segment in enumerate(found):
        after = found[number + 1].start if number + 1 < len(found) else None
        if after is not None and after <= at:
            continue
        if segment.start > at:
            if parts:
                break  # the gap comes with the next piece
            start = at = segment.start
        content = read_at(segment.path, at - segment.start, limit)
        if not content:
            continue
        parts.append(content)
        at += len(content)
        limit -= len(content)
        if limit <= 0:
            break
    return Piece(start, b"".join(parts))


def read_at(path: str, position: int, limit: int) -> Optional[bytes]:
    """What stands in a file from `position` on, None where there is no such file (any more)."""
    try:
        with open(path, "rb", buffering=0) as file:
            file.seek(position)
            return file.read(limit)
    except (FileNotFoundError, NotADirectoryError):
        return None


def start_of_tail(log: str, lines: int) -> int:
    """Where the last `lines` lines begin; found from the end, in blocks."""
    found = segments(log)
    at = found[-1].start + found[-1].size if found else 0
    if lines <= 0:
        return at
    # The newline of the last line ends it; every other one begins a line.
    wanted, is_last = lines, True
    for segment in reversed(found):
        left = segment.size
        while left > 0:
            length = min(BLOCK_BYTES, left)
            block = read_at(segment.path, left - length, length) or b""
            left -= length
            position = len(block)
            if is_last and block:
                position -= block.endswith(b"\n")
                is_last = False
            while (position := block.rfind(b"\n", 0, position)) >= 0:
                wanted -= 1
                if wanted == 0:
                    return segment.start + left + position + 1
        at = segment.start
    return at


def start_of_time(log: str, since: float) -> int:
    """Where what was written at or after `since` (seconds since the epoch) begins: a line's beginning, and at most a
    second early."""
    times = times_path(log)
    low, high = 0, _size(times) // TIMES_BYTES
    if not high:
        return 0
    while low < high:
        middle = (low + high) // 2
        if _time(times, middle)[0] + TIMES_S < since:
            low = middle + 1
        else:
            high = middle
    last = end(log)
    offset = min(_time(times, low)[1], last) if low < _size(times) // TIMES_BYTES else last
    before = read(log, max(0, offset - LINE_BYTES), min(offset, LINE_BYTES))
    if before.start + len(before.content) == offset and b"\n" in before.content and not before.content.endswith(b"\n"):
        return before.start + before.content.rfind(b"\n") + 1
    return offset


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _time(path: str, number: int) -> Tuple[float, int]:
    words = (read_at(path, number * TIMES_BYTES, TIMES_BYTES) or b"").split()
    try:
        return float(words[0]), int(words[1])
    except (ValueError, IndexError):
        return 0.0, 0
