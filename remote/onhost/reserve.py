"""A little room on the disk, kept for the end: a run whose disk is full can still say so.

Some is for the log and whatever else comes first; the last files of the run have their own, which nothing else gets.
"""

from __future__ import annotations

import contextlib
import os
from typing import Callable, TypeVar

from . import evidence
from .atomic import FULL
from .run import RESULT_LOCK, ROOM, Run

NAME = ".reserve"
SIZE_BYTES = 256 * 1024
RESULT_BYTES, CRASH_BYTES = 32 * 1024, 128 * 1024
T = TypeVar("T")


class Reserve:
    """The room that `run` keeps.  Where there is none to keep it goes without."""

    def __init__(self, run: Run) -> None:
        self._path = run.path(NAME)
        last = {run.plan()["files"]["result"]: RESULT_BYTES, evidence.NAME: CRASH_BYTES}
        self._rooms = [run.path(ROOM + name) for name in last]
        try:
            for name, size in last.items():
                _fill(run.path(ROOM + name), size)
            _fill(self._path, SIZE_BYTES)
            with open(run.path(RESULT_LOCK), "a"):  # later there may be no inode for it
                pass
        except OSError:
            self.close()

    def give_back(self) -> None:
        """Let others have the room, but for that of the last files."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def close(self) -> None:
        """Give back all of it."""
        for path in (self._path, *self._rooms):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def spend(self, write: Callable[[], T]) -> T:
        """What `write` gives, with the room given back first where the disk is full."""
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.give_back()
            return write()


def _fill(path: str, size: int) -> None:
    with open(path, "wb") as file:
        # Not zeros: a disk that compresses would keep no room for those.
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
