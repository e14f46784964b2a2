"""Takes keys out of this account's authorized_keys again, where a mark says that `launch` put them there."""

from __future__ import annotations

import os
import tempfile
from typing import AbstractSet, Sequence

FILE = os.path.join("~", ".ssh", "authorized_keys")


def remove(keys: Sequence[str], mark: str, *, dry_run: bool) -> int:
    """How many lines hold one of `keys` (base64) and end with the word `mark`; without `dry_run` they are gone.

    All other bytes, mode and owner stay as they were.  Raises OSError, and then nothing is changed.
    """
    path = os.path.realpath(os.path.expanduser(FILE))  # where a link leads to it, the file itself
    try:
        with open(path, "rb") as file:
            lines, status = file.read().split(b"\n"), os.fstat(file.fileno())
    except FileNotFoundError:
        return 0
    wanted = {key.encode("ascii") for key in keys}
    left = [line for line in lines if not _is_ours(line, wanted, mark.encode("ascii"))]
    if not dry_run and len(left) < len(lines):
        _replace(path, b"\n".join(left), status)
    return len(lines) - len(left)


def _is_ours(line: bytes, keys: AbstractSet[bytes], mark: bytes) -> bool:
    words = line.split()
    return bool(words) and words[-1] == mark and not words[0].startswith(b"#") and not keys.isdisjoint(words)


def _replace(path: str, content: bytes, status: os.stat_result) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".authorized_keys-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            now = os.fstat(file.fileno())
            if (now.st_uid, now.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
