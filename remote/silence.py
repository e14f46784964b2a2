"""Notices that a stream says nothing any more: a network that was cut tells nobody, and TCP may wait for hours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

LOOK_S = 1.0


class Silence:
    """Calls `end`, from a thread of its own, once `limit_s` went by in waiting for the next chunk of `watched`.

    Time in which nobody asks for a chunk does not count: whoever reads may have stopped the terminal.
    """

    def __init__(self, limit_s: float, end: Callable[[], None]) -> None:
        self.limit_s = limit_s
        self.is_broken = False
        self._end = end
        self._waiting_since: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()

    def watched(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks as they come."""
        each = iter(chunks)
        while True:
            self._waiting_since = time.monotonic()
            chunk = next(each, None)
            self._waiting_since = None
            if chunk is None:
                return
            yield chunk

    def _look(self) -> None:
        while not self._over.wait(min(LOOK_S, self.limit_s / 4)):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self.limit_s:
                self.is_broken = True
                self._end()
                return
