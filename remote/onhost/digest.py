"""The sha256 of what is on its way, computed beside reading, sending and writing it."""

from __future__ import annotations

import threading
from hashlib import sha256
from queue import Queue
from types import TracebackType
from typing import Any, Callable, Optional, Type

WAITING = 4


def nothing(piece: Any) -> None:
    """Nobody needs to know."""


class Digest:
    """A sha256 in a thread of its own.  A piece may be used again once `done(piece)` was called."""

    def __init__(self, done: Callable[[Any], None] = nothing) -> None:
        self._digest = sha256()
        self._done = done
        self._pieces: "Queue[Any]" = Queue(WAITING)
        self._thread: Optional[threading.Thread] = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while True:
            piece = self._pieces.get()
            if piece is None:
                return
            self._digest.update(piece)
            self._done(piece)

    def update(self, piece: Any) -> None:
        """Take in the next bytes; waits while too many others wait."""
        self._pieces.put(piece)

    def hexdigest(self) -> str:
        """Of everything so far; the last word."""
        self.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None

    def __enter__(self) -> "Digest":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], at: Optional[TracebackType]
    ) -> None:
        self.close()
