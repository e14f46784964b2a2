"""events.jsonl: what a run tells, one JSON object a line, append only, `seq` counting up from 1."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from jobs.secret_values import masked_fields

TAIL_BYTES = 64 * 1024


class EventLog:
    """Appends to one run's events, as the supervisor does at the same time: each takes the file's lock for a line."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event of type `kind` (state, step, eval, warning, ...); seconds since the epoch are added."""
        with self._path.open("a+b", buffering=0) as file:
            _lock(file)
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = file.read()
            record = {"seq": _last_seq(tail) + 1, "time": round(time.time(), 3), "clock": _clock(), "type": kind}
            # In the fields, not in the line: a secret that is a common word must not break that.
            said = {key: value if key == "state" else masked_fields(value) for key, value in fields.items()}
            line = json.dumps(record | said, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
            # Somebody who was killed may have left half a line, which would swallow ours.
            file.write(line if tail[-1:] in (b"", b"\n") else b"\n" + line)


def _lock(file: IO[bytes]) -> None:
    """Until the file is closed; nothing on a system or a disk that has no such locks."""
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)


def _clock() -> float:
    """Seconds since this machine booted: ages and limits must not depend on who sets its time."""
    return round(time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic(), 3)


def _last_seq(tail: bytes) -> int:
    lines = tail.decode("utf-8", "replace").splitlines()
    return next((event["seq"] for event in parse_events(reversed(lines))), 0)


def parse_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The well-formed events among `lines`; anything else (half a line, another shape) is passed over."""
    for line in lines:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("seq"), int) and isinstance(event.get("type"), str):
            yield event
