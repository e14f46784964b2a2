"""events.jsonl: what a run tells, one JSON object a line, append only, `seq` counting up from 1."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class EventLog:
    """Appends to one run's events.  One writer at a time: the job; before and after it the supervisor."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seq = last_seq(path)

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event of type `kind` (state, step, eval, warning, ...); seconds since the epoch are added."""
        self._seq += 1
        record = {"seq": self._seq, "time": round(time.time(), 3), "type": kind, **fields}
        line = json.dumps(record, ensure_ascii=False) + "\n"
        # One write call on an O_APPEND descriptor: a reader may see half a line, never two mixed.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode("utf-8"))
        finally:
            os.close(descriptor)


def last_seq(path: Path) -> int:
    """The highest `seq` in the file, 0 where there is none."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return 0
    return max((event["seq"] for event in parse_events(text.splitlines())), default=0)


def parse_events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The well-formed events among `lines`; anything else (half a line, another shape) is passed over."""
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("seq"), int) and isinstance(event.get("type"), str):
            yield event
