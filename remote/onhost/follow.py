"""Streams a run's log and events from any offset until the run is over.

A message is a line of JSON; the log's bytes follow theirs as they are.  First comes {"begin", "age_s", "files"}: the
offset in the log, how long ago the run was submitted, and the names of the log's files.  Then {"log": size, "offset"}
and so many bytes, {"gap", "offset"} for bytes that are gone, {"event", "offset"}, {"alive"}, and last {"state"}.  Every
offset is where the next piece begins.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from . import log_segments, process
from .frames import message
from .refused import Refused
from .run import Run, run_age_s
from .states import FINAL

POLL_S = 0.04
# Of a log that does not grow.
QUIET_S, QUIET_POLL_S = 3.0, 0.1
CHECK_S = 2.0
KEEP_ALIVE_S = 8.0
CHUNK_BYTES = 256 * 1024
EVENTS_TAIL_BYTES = 16 * 1024
# How long a supervisor may take, once the result is there, to write what the job said before it.
SETTLE_S = 15.0


def follow(run: Run, request: Dict[str, Any]) -> Iterator[bytes]:
    """The messages, for a request with `log_offset`, `events_offset`, `once` (the present state ends the stream too),
    and `tail` (lines) or `since_s` where the host is to say where to begin.

    The state comes only after every byte that was in log and events before it; its absence means that the stream was
    cut, never that the run is over.
    """
    plan = run.plan()
    log = run.path(plan["files"]["log"])
    offset, events_offset = request["log_offset"], request["events_offset"]
    tail, since_s = request.get("tail"), request.get("since_s")
    if tail is not None:
        offset = log_segments.start_of_tail(log, tail)
    if since_s is not None:
        from_time = log_segments.start_of_time(log, time.time() - since_s)
        offset = max(offset, from_time) if tail is not None else from_time
    # Of what is shorter than it was, because somebody emptied it, one follows what comes; whoever asked is told.
    offset = min(max(0, offset), log_segments.end(log))
    events = _Events(run.path(plan["files"]["events"]), max(0, events_offset))
    if tail is not None or since_s is not None:
        events.to_tail()
    return _Follower(run, plan, _Log(log, offset), events).messages(request["once"])


class _Follower:
    def __init__(self, run: Run, plan: Dict[str, Any], log: _Log, events: _Events) -> None:
        self._run, self._plan = run, plan
        self._log, self._events = log, events
        self._result = run.path(plan["files"]["result"])
        self._checked, self._settled_by = float("-inf"), float("inf")
        self._state: Optional[Dict[str, Any]] = None

    def messages(self, once: bool) -> Iterator[bytes]:
        yield message({"begin": self._log.offset, "age_s": run_age_s(self._plan), "files": self._log.files()})
        said_at = news_at = time.monotonic()
        while True:
            state = self._over(once)
            said = False
            for piece in self._news(state is not None):
                said = True
                yield piece
            if state is not None:
                yield message({"state": state})
                return
            if said:
                said_at = news_at = time.monotonic()
            elif time.monotonic() - said_at > KEEP_ALIVE_S:
                # Also how this process learns that nobody listens any more: the write fails, and it ends.
                said_at = time.monotonic()
                yield message({"alive": True})
            time.sleep(POLL_S if time.monotonic() - news_at < QUIET_S else QUIET_POLL_S)

    def _news(self, last: bool) -> Iterator[bytes]:
        """What is new; with `last` half a character is given too: nothing will come to complete it."""
        while True:
            before = self._log.offset
            start, text = self._log.read(last)
            if start > before:
                yield message({"gap": before, "offset": start})
            if text:
                yield message({"log": len(text), "offset": self._log.offset}) + text
            lines, at = self._events.read()
            for line in lines.splitlines(keepends=True):
                # Each with its own offset: whoever is cut off between two of them asks for the second one again.
                at += len(line)
                yield message({"event": line.decode("utf-8", "replace"), "offset": at})
            if not text and not lines and start == before:
                return

    def _over(self, once: bool) -> Optional[Dict[str, Any]]:
        """The state that ends the stream, None while it goes on.  To ask for it costs more than to see that nothing
        can have changed."""
        now = time.monotonic()
        there = os.path.exists(self._result)
        if there and self._settled_by == float("inf"):
            self._settled_by = now + SETTLE_S
        if not once and not there and now - self._checked < CHECK_S:
            return None
        works = self._is_supervised()
        if once or not works or now > self._settled_by or self._events.are_over:
            state = self._asked()
            if once or state["state"] in FINAL or state["state"] in ("lost", "gone"):
                return state
        if not there:
            self._checked = now
        return None

    def _is_supervised(self) -> bool:
        supervisor = self._run.supervisor() if self._plan["boot"] == process.boot_marker() else None
        return supervisor is not None and process.is_alive(supervisor)

    def _asked(self) -> Dict[str, Any]:
        try:
            return self._run.state()
        except Refused as refused:
            if refused.code != "run_not_found":
                raise
            gone = {"run_id": self._run.run_id, "state": "gone", "name": self._plan["name"]}
            return {**gone, "reason": "its folder was removed from the host"}


class _Log:
    def __init__(self, path: str, offset: int) -> None:
        self.offset = offset
        self._path = path
        self._seen = offset  # beyond `offset` where half a character waits for its rest
        self._present: Optional[log_segments.Segment] = None

    def files(self) -> List[str]:
        """The names of the log's files, in order."""
        return [os.path.basename(segment.path) for segment in log_segments.segments(self._path)]

    def read(self, last: bool) -> Tuple[int, bytes]:
        """Where what is new begins, and it: whole characters, unless it is the `last` time."""
        if not last and not self._has_more():
            return self.offset, b""
        start, new = log_segments.read(self._path, self.offset, CHUNK_BYTES)
        self._seen, self._present = start + len(new), None
        if len(new) == CHUNK_BYTES:
            new = new[: new.rfind(b"\n") + 1] or _whole_characters(new)
        elif not last:
            new = _whole_characters(new)
        self.offset = start + len(new)
        return start, new

    def _has_more(self) -> bool:
        """Whether to read; two questions to the file system while nothing happens."""
        if self._present is None:
            found = log_segments.segments(self._path)
            begun = [one for one in found if one.start <= self._seen]
            if not begun:
                return bool(found)
            self._present = begun[-1]
        try:
            end = self._present.start + os.stat(self._present.path).st_size
        except OSError:
            self._present = None
            return True
        return end > self._seen or os.path.exists(log_segments.path_at(self._path, end))


class _Events:
    def __init__(self, path: str, offset: int) -> None:
        self._path, self._offset = path, offset
        self.are_over = False
        """Whether the last word of the supervisor was among those read."""

    def to_tail(self) -> None:
        """Go on shortly before the end, with the state that the run is in: what was before that does not count."""
        try:
            size = os.path.getsize(self._path)
        except OSError:
            return
        start = max(0, size - EVENTS_TAIL_BYTES)
        content = log_segments.read_at(self._path, start, EVENTS_TAIL_BYTES) or b""
        self._offset = at = start + (content.find(b"\n") + 1 if start else 0)
        for line in content[at - start :].splitlines(keepends=True):
            if _state_in(line):
                self._offset = at
            at += len(line)

    def read(self) -> Tuple[bytes, int]:
        """New whole lines, and where they begin."""
        start = self._offset
        try:
            size = os.stat(self._path).st_size
        except OSError:
            return b"", start
        self._offset = min(start, size)
        if size <= start:
            return b"", self._offset
        new = log_segments.read_at(self._path, start, CHUNK_BYTES) or b""
        if b"\n" in new:
            new = new[: new.rfind(b"\n") + 1]
        elif len(new) < CHUNK_BYTES:
            new = b""
        self._offset += len(new)
        self.are_over = self.are_over or any(_state_in(line) in FINAL for line in new.splitlines())
        return new, start


def _state_in(line: bytes) -> Optional[str]:
    """The state that an event tells, None where it tells something else."""
    if b'"state"' not in line:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    told = event.get("state") if isinstance(event, dict) and event.get("type") == "state" else None
    return told if isinstance(told, str) else None


def _whole_characters(content: bytes) -> bytes:
    """`content` without a UTF-8 character that is cut off at its end."""
    for back in range(1, min(4, len(content)) + 1):
        byte = content[-back]
        if byte >= 0xC0:  # the first byte of a character of several
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return content[:-back] if length > back else content
        if byte < 0x80:
            break
    return content
