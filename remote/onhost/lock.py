"""The lock of a workspace: whoever adds to it holds it shared, whoever removes from it holds it alone.

The kernel frees it when its owner is dead.  Where the disk knows no locks, nobody waits for anybody.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import Iterator

from .build_lock import WITHOUT_LOCKS
from .refused import Refused

NAME = ".lock"
SHARED_WAIT_S = 30.0
POLL_S = 0.05
BUSY = "another launch works with this store"
WHY_BYTES = 200
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def shared(workspace: str, wait_s: float = SHARED_WAIT_S) -> Iterator[None]:
    """Nothing that lies in the workspace is removed inside the block.  Raises Refused after `wait_s` seconds."""
    with _held(workspace, fcntl.LOCK_SH, wait_s):
        yield


@contextmanager
def exclusive(workspace: str, wait_s: float, why: str = BUSY) -> Iterator[None]:
    """Nobody else holds the workspace inside the block; who wants to is refused at once where there is a `why`.

    Raises Refused after `wait_s` seconds.
    """
    with _held(workspace, fcntl.LOCK_EX, wait_s, why):
        yield


@contextmanager
def _held(workspace: str, how: int, wait_s: float, why: str = "") -> Iterator[None]:
    os.makedirs(workspace, exist_ok=True)
    path = os.path.join(workspace, NAME)
    try:
        # For writing: over NFS an exclusive lock needs that.  Programs that we start don't inherit it.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in FULL:
            raise
        # No room for the file: the folder will do, for as long as nobody else has room for it.
        descriptor = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        path = workspace
    try:
        _wait(descriptor, how, wait_s, workspace)
        if not _is_still(descriptor, path):
            # Our own program went with the rest.
            raise Refused("workspace_removed", f"{workspace} was removed meanwhile", "run the same command again")
        if how == fcntl.LOCK_EX:
            _note(descriptor, why)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, how: int, wait_s: float, workspace: str) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            # Who holds it shared notes nothing: only who waits for one that holds it alone may believe what is there.
            why = _noted(descriptor) if how == fcntl.LOCK_SH else BUSY
            if why != BUSY or time.monotonic() >= deadline:
                raise Refused("workspace_busy", f"{why} ({workspace})", "try again when it is done") from error
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return
            raise
        time.sleep(POLL_S)


def _note(descriptor: int, why: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, why.encode("utf-8", "replace"), 0)
    except OSError:
        pass  # the folder itself, or no room: they hear the usual


def _noted(descriptor: int) -> str:
    try:
        return os.pread(descriptor, WHY_BYTES, 0).decode("utf-8", "replace") or BUSY
    except OSError:
        return BUSY


def _is_still(descriptor: int, path: str) -> bool:
    """Whether the file that was opened is the one that others would open now."""
    try:
        now = os.stat(path)
    except FileNotFoundError:
        return False
    then = os.fstat(descriptor)
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)
