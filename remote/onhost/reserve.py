"""A little room on the disk, kept for the end: a run whose disk is full can still say so."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Callable, TypeVar

from .run import Run

NAME = ".reserve"
SIZE_BYTES = 256 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)
T = TypeVar("T")


class Reserve:
    """The room that `run` keeps.  Where there is none to keep it goes without."""

    def __init__(self, run: Run) -> None:
        self._path = run.path(NAME)
        try:
            with open(self._path, "wb") as file:
                # Not zeros: a disk that compresses would keep no room for those.
                file.write(os.urandom(SIZE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self.give_back()

    def give_back(self) -> None:
        """Let others have the room."""
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def spend(self, write: Callable[[], T]) -> T:
        """What `write` gives, with the room given back first where the disk is full."""
        try:
            return write()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self.give_back()
            return write()
