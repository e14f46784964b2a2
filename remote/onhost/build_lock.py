"""Of those who want the same thing built, one builds and the others wait.

The system frees the lock when its owner is dead, and so is whatever that started and gave the lock to.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager
from typing import Callable, Iterator

POLL_S = 0.1
# Where the disk knows no locks, nobody waits for anybody.
WITHOUT_LOCKS = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS)
TOLD_EVERY_S = 30.0

if os.name == "nt":
    import msvcrt

    def taken(descriptor: int) -> bool:
        """Whether nobody else has this lock; it is ours then, until the last copy of the descriptor is closed."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True

else:
    import fcntl

    def taken(descriptor: int) -> bool:
        """Whether nobody else has this lock; it is ours then, until the last copy of the descriptor is closed."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        return True


@contextmanager
def held(path: str, waiting: Callable[[float], None]) -> Iterator[int]:
    """The lock's descriptor, for processes that must keep it when we die.  `waiting` hears the seconds so far."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        started = time.monotonic()
        told = started - TOLD_EVERY_S
        while not taken(descriptor):
            if time.monotonic() - told >= TOLD_EVERY_S:
                told = time.monotonic()
                waiting(told - started)
            time.sleep(POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def held_if_free(path: str) -> Iterator[bool]:
    """Whether nobody builds there; then nobody begins to inside the block."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        yield taken(descriptor)
    finally:
        os.close(descriptor)


def is_held(path: str) -> bool:
    """Whether somebody builds there now."""
    if not os.path.exists(path):
        return False
    with held_if_free(path) as free:
        return not free
