"""Streams a run's log and events from any offset until its result is there."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Iterator, Tuple

from .run import Run
from .states import FINAL

POLL_S = 0.05
CHECK_S = 2.0
KEEP_ALIVE_S = 10.0
CHUNK_BYTES = 64 * 1024


def follow(run: Run, log_offset: int, events_offset: int, once: bool) -> Iterator[bytes]:
    """JSON lines: {"log", "offset"}, {"event", "offset"}, {"alive"}, and last {"state": ...}.

    The final line comes only after every byte that was in log and events before the result; its absence means that
    the stream was cut, never that the run is over.  With `once` the present state ends the stream too.
    """
    files = run.plan()["files"]
    log, events = _Tail(run.path(files["log"]), log_offset), _Tail(run.path(files["events"]), events_offset)
    last_check = last_said = float("-inf")
    state: Dict[str, Any] = {}
    while True:
        if time.monotonic() - last_check > CHECK_S or os.path.exists(run.path(files["result"])):
            last_check, state = time.monotonic(), run.state()
        said, ends = False, once or state["state"] in FINAL or state["state"] == "lost"
        while True:
            text, offset = log.read(partial=True, last=ends)
            if text:
                yield _line({"log": text.decode("utf-8", "replace"), "offset": offset})
            lines, end = events.read(partial=False)
            at = end - len(lines)
            for line in lines.splitlines(keepends=True):
                # Each with its own offset: whoever is cut off between two of them asks for the second one again.
                at += len(line)
                yield _line({"event": line.decode("utf-8", "replace"), "offset": at})
            if not text and not lines:
                break
            said = True
        if ends:
            yield _line({"state": state})
            return
        if said:
            last_said = time.monotonic()
        elif time.monotonic() - last_said > KEEP_ALIVE_S:
            # Also how this process learns that nobody listens any more: the write fails, and it ends.
            last_said = time.monotonic()
            yield _line({"alive": state["state"]})
        time.sleep(POLL_S)


class _Tail:
    def __init__(self, path: str, offset: int) -> None:
        self._path, self._offset = path, offset

    def read(self, partial: bool, last: bool = False) -> Tuple[bytes, int]:
        """What is new and the offset after it; whole lines only, unless `partial` (then whole characters).

        With `last` half a character is given too: nothing will come to complete it.
        """
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                new = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return b"", self._offset
        if partial and last and len(new) < CHUNK_BYTES:
            pass
        elif partial:
            new = _whole_characters(new)
        elif b"\n" in new:
            new = new[: new.rfind(b"\n") + 1]
        elif len(new) < CHUNK_BYTES:
            new = b""
        self._offset += len(new)
        return new, self._offset


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


def _line(fields: Dict[str, Any]) -> bytes:
    return json.dumps(fields).encode("ascii") + b"\n"
