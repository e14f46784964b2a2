"""A run's secrets on their way from the login to the supervisor: a file for a moment, in memory where that can be.

NUL-separated NAME=VALUE, as they came; parsed, never sourced.  The supervisor takes them and the file is gone; one
whose supervisor never came is removed by whoever visits next, or finds the run dead.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from typing import Dict

from .refused import Refused

MEMORY = "/dev/shm"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
MOST_BYTES = 1024 * 1024
# Of one variable: what the kernel gives to a process.
LONGEST_BYTES = 128 * 1024
NAME_ON_DISK = ".secrets"
STALE_S = 120.0


def put(run_id: str, root: str, content: bytes) -> None:
    """Keep `content` for the supervisor of the run in `root`.  Raises Refused where it is not what it should be."""
    parse(content)
    descriptor = os.open(_path(run_id, root), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def take(run_id: str, root: str) -> Dict[str, str]:
    """The secrets, which lie nowhere any more then."""
    found: Dict[str, str] = {}
    for path in (_in_memory(run_id), os.path.join(root, NAME_ON_DISK)):
        if not _is_ours(os.path.dirname(path)):
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with open(path, "rb") as file:
                content = file.read(MOST_BYTES)
            os.unlink(path)
            found.update(parse(content))
    return found


def discard(run_id: str, root: str) -> None:
    """Remove what nobody took."""
    for path in (_in_memory(run_id), os.path.join(root, NAME_ON_DISK)):
        if _is_ours(os.path.dirname(path)):
            with contextlib.suppress(OSError):
                os.unlink(path)


def sweep() -> None:
    """Remove what lies there for longer than any start takes."""
    folder = os.path.dirname(_in_memory(""))
    if not _is_ours(folder):
        return
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            with contextlib.suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > STALE_S:
                    os.unlink(entry.path)


def parse(content: bytes) -> Dict[str, str]:
    """Names and values; a value may hold anything but NUL, bytes that are no UTF-8 included."""
    found: Dict[str, str] = {}
    for word in filter(None, content.split(b"\0")):
        name, equals, value = word.decode("utf-8", "surrogateescape").partition("=")
        if not equals or not NAME.match(name):
            raise Refused("secrets_invalid", "the secrets did not come as NAME=VALUE")
        if len(word) >= LONGEST_BYTES:
            raise Refused("secrets_invalid", f"{name} is longer than a variable can be ({LONGEST_BYTES // 1024} KB)")
        found[name] = value
    return found


def _path(run_id: str, root: str) -> str:
    path = _in_memory(run_id)
    folder = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.mkdir(folder, 0o700)
    there = _is_ours(folder) and not os.lstat(folder).st_mode & 0o077
    return path if there else os.path.join(root, NAME_ON_DISK)


def _is_ours(folder: str) -> bool:
    """Whether it is a folder and nobody else's: another user may have been there first, or made a link of it."""
    try:
        there = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(there.st_mode) and there.st_uid == os.geteuid()


def _in_memory(run_id: str) -> str:
    return os.path.join(MEMORY, f"launch-{os.geteuid()}", run_id)
