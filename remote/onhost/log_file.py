"""Writes what a job prints into the log of its run, complete to the last byte, whatever it prints and the disk says.

Three things happen to it on the way.  Values that are secret become `***`.  Of a line that carriage returns overwrite,
as progress bars do, only the last state is kept.  And the log is cut into files (see `log_segments`), of which the
oldest but the first are removed when it becomes too large.  Nothing here raises: a run does not end because of its log.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from typing import Callable, Iterator, List, Optional, Sequence
from urllib.parse import quote, quote_plus

from . import log_segments

SEGMENT_BYTES = 64 * 1024 * 1024
KEEP_BYTES = 1024 * 1024 * 1024
# How far beyond its size a file may go to end with a line.
SLACK_BYTES = 64 * 1024
TAIL_BYTES = 64 * 1024
# A state of a progress bar; what is longer is text.
STATE_BYTES = 16 * 1024
PROGRESS_S = 10.0
RETRY_S = 1.0
# Of a secret of several lines each is one, but for those that could be anything.
SECRET_LINE_BYTES = 6
MASK = b"***"
FULL = (errno.ENOSPC, errno.EDQUOT)

_RETURN = re.compile(rb"\r(?!\n)")
_RETURNS = re.compile(rb"\r{2,}")
_END_OF_STATE = re.compile(rb"\r\n|\r|\n")


def _nothing() -> None:
    """What is done about a full disk unless somebody knows better."""


class LogWriter:
    """Appends to the log whose first file is `path`; one writer at a time.

    `on_full` is called once, when the disk is full for the first time: it may free what it kept for this.
    `echo` is given what goes into the log, for whoever watches here.  `progress_s` is how often a progress bar's state
    is written while it goes on.
    """

    def __init__(
        self,
        path: str,
        *,
        secrets: Sequence[bytes] = (),
        segment_bytes: int = SEGMENT_BYTES,
        keep_bytes: int = KEEP_BYTES,
        on_full: Callable[[], None] = _nothing,
        echo: Optional[Callable[[bytes], None]] = None,
        progress_s: float = PROGRESS_S,
    ) -> None:
        self.lost_bytes = 0
        self._secrets = _Secrets(secrets)
        self._files = _Files(path, segment_bytes, keep_bytes)
        self._echo = echo
        self._on_full: Optional[Callable[[], None]] = on_full
        self._progress_s = progress_s
        self._tail = bytearray()
        self._ends_line = self._files.ends_line()
        self._return = False  # a carriage return came last: what follows tells what it means
        self._state: Optional[bytes] = None  # what a progress bar showed before its present state; None beside one
        self._now = b""  # its present state
        self._shown = b""  # the state that was written last
        self._due = 0.0
        self._missing = 0  # bytes lost since we could last say so
        self._why = ""
        self._owed = b""  # a line of ours that begins in the file and must be ended there
        self._retry_at = 0.0

    def feed(self, chunk: bytes) -> None:
        """Take output of the job, cut anywhere."""
        chunk = self._secrets.mask(chunk)
        if chunk:
            self._take(chunk)

    def tick(self) -> None:
        """Write what is due; called some ten times a second."""
        now = time.monotonic()
        if self._state is not None and now >= self._due:
            self._put(self._present())
        elif (self._missing or self._owed) and now >= self._retry_at:
            self._put(b"")

    def line(self, text: str) -> None:
        """Write a line of ours, on a line of its own."""
        content = self._secrets.masked(text.replace("\n", " ").encode("utf-8", "replace"))
        self._put(self._present() + (b"" if self._ends_line or self._state is not None else b"\n") + content + b"\n")

    def close(self) -> None:
        """Write what is held.  What is fed later is written, too."""
        rest = self._secrets.rest()
        if rest:
            self._take(rest)
        if self._return and self._state is None and not self._ends_line:
            self._put(b"\n")
        self._return = False
        self._put(self._present())
        self._state, self._now, self._shown = None, b"", b""
        self._retry_at = 0.0
        if self._missing or self._owed:
            self._put(b"")
        self._files.close()

    def tail(self) -> bytes:
        """The last 64 KB, also of what the disk did not take and of what is held."""
        held = self._now if self._state is not None and self._now.strip() else self._state or b""
        return bytes(self._tail[-TAIL_BYTES:] + held)[-TAIL_BYTES:]

    def _take(self, chunk: bytes) -> None:
        """Fold the progress bars and write the rest."""
        if self._return:
            chunk = b"\r" + chunk
        if b"\r\r" in chunk:
            chunk = _RETURNS.sub(b"\r", chunk)
        self._return = chunk.endswith(b"\r")
        if self._return:
            chunk = chunk[:-1]
        if self._state is None and b"\r" not in chunk:
            self._put(chunk)
            return
        self._put(b"".join(self._folded(chunk)))

    def _folded(self, chunk: bytes) -> List[bytes]:
        """What of a chunk is to be written now."""
        out: List[bytes] = []
        at, ends_line = 0, self._ends_line
        while at < len(chunk):
            if self._state is None:
                found = _RETURN.search(chunk, at)
                text = chunk[at : found.start() if found else None]
                if text:
                    out.append(text)
                    ends_line = text.endswith(b"\n")
                if found is None:
                    break
                if not ends_line:  # it was written, or would have been if it had come alone
                    out.append(b"\n")
                    ends_line = True
                self._begin_state()
                at = found.end()
                continue
            found = _END_OF_STATE.search(chunk, at)
            self._now += chunk[at : found.start() if found else None]
            if len(self._now) > STATE_BYTES:
                text = self._now
                out.append(text)
                ends_line = False
                self._state, self._now = None, b""
                at = found.start() if found else len(chunk)
                continue
            if found is None:
                break
            at = found.end()
            if found[0] == b"\r":
                self._keep_state()
                continue
            final = self._now or self._state
            if not final or final != self._shown:
                out.append(final + found[0])
            ends_line = True
            self._state, self._now, self._shown = None, b"", b""
        return out

    def _begin_state(self) -> None:
        self._state, self._now, self._shown = b"", b"", b""
        self._due = time.monotonic() + self._progress_s

    def _keep_state(self) -> None:
        """The present state is about to be overwritten: by blanks it would be wiped out."""
        if self._now:
            self._state = self._now if self._now.strip() else b""
        self._now = b""

    def _present(self) -> bytes:
        """The state of a progress bar as a line, if it was not written yet."""
        if self._state is None:
            return b""
        self._due = time.monotonic() + self._progress_s
        state = self._now if self._now.strip() else self._state
        if not state or state == self._shown:
            return b""
        self._shown = state
        return state + b"\n"

    def _put(self, content: bytes) -> None:
        """Write, or count as lost."""
        if content:
            self._ends_line = content.endswith(b"\n")
            self._tail += content[-TAIL_BYTES:]
            if len(self._tail) > 4 * TAIL_BYTES:
                del self._tail[:-TAIL_BYTES]
            if self._echo is not None:
                self._echo(content)
        if (self._missing or self._owed) and (time.monotonic() < self._retry_at or not self._caught_up()):
            self._lose(len(content))
            return
        if content:
            left = self._write(content)
            if left:
                self._lose(len(left))

    def _caught_up(self) -> bool:
        """Whether all that is missing could be told: then there is room again."""
        while self._owed or self._missing:
            told = self._owed or self._notice()
            left = self._write(told)
            if not self._owed and len(left) < len(told):
                self._missing = 0
            if left:
                self._owed = left if len(left) < len(told) or self._owed else b""
                return False
            self._owed = b""
        return True

    def _notice(self) -> bytes:
        text = f"launch: {self._missing} bytes of output are missing here: {self._why}\n"
        return (b"" if self._files.ends_line() else b"\n") + text.encode("utf-8", "replace")

    def _lose(self, size: int) -> None:
        self.lost_bytes += size
        self._missing += size

    def _write(self, content: bytes) -> bytes:
        """What could not be written."""
        if not content:
            return b""
        left = self._files.append(content)
        if left and self._files.error in FULL and self._on_full is not None:
            free, self._on_full = self._on_full, None
            free()
            left = self._files.append(left)
        if left:
            is_full = self._files.error in FULL
            self._why = "the disk was full" if is_full else os.strerror(self._files.error)
            self._retry_at = time.monotonic() + RETRY_S
        return left


def _forms(value: bytes) -> Iterator[bytes]:
    """A secret as it may be printed: plainly, in JSON, by repr, in an address."""
    text = value.decode("utf-8", "surrogateescape")
    for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1],
                 quote(value), quote(value, safe=""), quote_plus(value)):  # fmt: skip
        yield form.encode("utf-8", "surrogateescape")


class _Secrets:
    """Replaces known values in a stream.

    What is held back is a suffix that is the beginning of a value.  It is decided from left to right, at each place
    for the longest value there, so that it does not matter how the stream is cut.
    """

    def __init__(self, values: Sequence[bytes]) -> None:
        whole = {value.strip() for value in values} - {b""}
        lines = {line.strip() for value in whole if b"\n" in value for line in value.splitlines()}
        whole |= {line for line in lines if len(line) >= SECRET_LINE_BYTES}
        self._values = sorted({form for value in whole for form in _forms(value)}, key=len, reverse=True)
        self._any = re.compile(b"|".join(map(re.escape, self._values))) if self._values else None
        self._held = b""

    def mask(self, chunk: bytes) -> bytes:
        """What can be let through now."""
        if self._any is None:
            return chunk
        chunk = self._held + chunk
        self._held = b""
        out: List[bytes] = []
        at, hold = 0, self._unsure_from(chunk, 0)
        # A search for each is many times faster than one for any.
        if any(value in chunk for value in self._values):
            while True:
                found = self._any.search(chunk, at)
                if found is None or found.start() >= hold:
                    break
                out += [chunk[at : found.start()], MASK]
                at = found.end()
                if hold < at:
                    hold = self._unsure_from(chunk, at)
        self._held = chunk[hold:]
        out.append(chunk[at:hold])
        return b"".join(out)

    def rest(self) -> bytes:
        """What is still held, when nothing more comes."""
        rest, self._held = self.masked(self._held), b""
        return rest

    def masked(self, text: bytes) -> bytes:
        """`text`, which is complete, without the values."""
        return self._any.sub(MASK, text) if self._any is not None else text

    def _unsure_from(self, chunk: bytes, at: int) -> int:
        """The first place from `at` on where a value may have begun that goes on in the next chunk."""
        first = len(chunk)
        for value in self._values:
            start = max(at, len(chunk) - len(value) + 1)
            while (start := chunk.find(value[:1], start, first)) >= 0:
                if value.startswith(chunk[start:]):
                    first = start
                    break
                start += 1
        return first


class _Files:
    """The files of the log, opened for appending."""

    def __init__(self, path: str, segment_bytes: int, keep_bytes: int) -> None:
        self.error = 0
        self._path = path
        self._segment_bytes, self._keep_bytes = segment_bytes, keep_bytes
        self._descriptor: Optional[int] = None
        self._last_time = self._last_look = float("-inf")
        found = log_segments.segments(path)
        self._start = found[-1].start if found else 0
        self._size = found[-1].size if found else 0
        last = log_segments.read_at(found[-1].path, max(0, self._size - 1), 1) if found else b""
        self._last_byte = last or b""
        self._is_full = self._size >= segment_bytes + (0 if self.ends_line() else SLACK_BYTES)
        try:
            self._open()  # also of a job that says nothing there is a log
        except OSError:
            pass  # the first bytes will tell

    def ends_line(self) -> bool:
        """Whether the next byte begins a line."""
        return self._last_byte in (b"", b"\n")

    def append(self, content: bytes) -> bytes:
        """What could not be written; `error` is then why."""
        view = memoryview(content)
        try:
            while view:
                self._open()
                self._note_time()
                cut = self._cut(content, len(content) - len(view))
                while cut:
                    written = os.write(self._descriptor, view[:cut])  # type: ignore[arg-type]
                    self._size += written
                    cut -= written
                    self._last_byte = bytes(view[written - 1 : written])
                    view = view[written:]
        except OSError as error:
            self.error = error.errno or errno.EIO
            self._is_full = False
            if self.error not in FULL:
                self.close()
            return bytes(view)
        return b""

    def close(self) -> None:
        if self._descriptor is not None:
            try:
                os.close(self._descriptor)
            except OSError:
                pass
            self._descriptor = None

    def _cut(self, content: bytes, at: int) -> int:
        """How many bytes of `content` from `at` on go into the present file; notes whether it is full then."""
        left, room = len(content) - at, self._segment_bytes - self._size
        if left < room:
            return left
        newline = content.find(b"\n", at + max(0, room - 1), at + room + SLACK_BYTES)
        if newline >= 0:
            self._is_full = True
            return newline + 1 - at
        if left >= room + SLACK_BYTES:
            self._is_full = True
            return max(1, room + SLACK_BYTES)
        return left

    def _open(self) -> None:
        now = time.monotonic()
        if self._descriptor is not None and now - self._last_look > RETRY_S:
            self._last_look = now
            if os.fstat(self._descriptor).st_nlink == 0:  # somebody removed it: nobody would ever read this
                self.close()
                self._is_full = True
        if self._is_full and self._size:
            self.close()
            self._start, self._size = self._start + self._size, 0
            self._make_room()
        self._is_full = False
        if self._descriptor is None:
            path = log_segments.path_at(self._path, self._start)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self._last_look = now

    def _make_room(self) -> None:
        """Remove the oldest files but the first, before another one is begun."""
        found = log_segments.segments(self._path)
        size = sum(segment.size for segment in found)
        for segment in found:
            if size + self._segment_bytes <= self._keep_bytes:
                break
            if segment.start > 0:
                os.unlink(segment.path)
                size -= segment.size

    def _note_time(self) -> None:
        """Note when the log had which size, before it grows: whatever comes later is younger."""
        now = time.time()
        if 0 <= now - self._last_time < log_segments.TIMES_S:
            return
        self._last_time = now
        try:
            descriptor = os.open(log_segments.times_path(self._path), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError:
            return
        try:
            whole = os.fstat(descriptor).st_size // log_segments.TIMES_BYTES * log_segments.TIMES_BYTES
            os.ftruncate(descriptor, whole)  # half a line, from when the disk was full
            os.write(descriptor, log_segments.TIMES_LINE.format(now, self._start + self._size).encode("ascii"))
        except OSError:
            pass
        finally:
            os.close(descriptor)
