"""Small files that are there whole or not at all.

A login's variables and paths need not be UTF-8; `surrogateescape` keeps their bytes as they are.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from typing import Any, Dict

FULL = (errno.ENOSPC, errno.EDQUOT)


def write_json(path: str, value: Any) -> None:
    """Replace `path` by `value` as JSON: temporary file in the same folder, fsync, rename."""
    descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def fill_json(room: str, path: str, value: Any) -> None:
    """As `write_json` on a full disk: into the blocks that the file `room` has, which becomes `path`."""
    with open(room, "r+b") as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogateescape"))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    os.replace(room, path)


def read_json(path: str) -> Any:
    """The JSON value in `path`, None where there is no such file.  Raises ValueError on anything else."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return json.load(file)
    except FileNotFoundError:
        return None


def read_object(path: str) -> Dict[str, Any]:
    """The JSON object in `path`, an empty one where there is none that can be read."""
    try:
        value = read_json(path)
    except (ValueError, OSError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
