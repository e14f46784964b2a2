"""The sha256 of files on this machine, remembered for as long as nothing about a file tells that it changed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3

SCHEMA = "CREATE TABLE IF NOT EXISTS hashes (path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT"
# The coarsest clock of a filesystem (FAT).  What was written to so lately may be written to again without a new time.
TICK_NS = 2_000_000_000
MOST_ROWS = 1_000_000


class HashCache:
    """Digests in an SQLite file that may be deleted at any time; without a file nothing is remembered."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file

    def sha256(self, path: Any) -> str:
        """Of the content of a file; `path` as the operating system takes it.  Raises OSError."""
        with open(path, "rb") as file:
            state, racy = _state(os.fstat(file.fileno()))
            key = os.fsencode(os.path.abspath(path))
            if not racy and (known := self._ask(_known, key, state)):
                return known
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not racy and _state(os.fstat(file.fileno())) == (state, False):
                self._ask(_remember, key, state, digest)
        return digest

    def _ask(self, question: Callable[..., str], *arguments: Any) -> str:
        """The answer of the database, "" where there is none or it can't be used: a cache never stops anybody."""
        if self._file is None:
            return ""
        import sqlite3

        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self._file, timeout=2)) as database, database:
                database.execute("PRAGMA synchronous = OFF")
                database.execute(SCHEMA)
                return question(database, *arguments)
        except (OSError, sqlite3.Error):
            return ""


def _known(database: sqlite3.Connection, key: bytes, state: str) -> str:
    row = database.execute("SELECT sha256 FROM hashes WHERE path = ? AND state = ?", (key, state)).fetchone()
    return str(row[0]) if row else ""


def _remember(database: sqlite3.Connection, key: bytes, state: str, digest: str) -> str:
    database.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?)", (key, state, digest))
    if database.execute("SELECT max(rowid) FROM hashes").fetchone()[0] > MOST_ROWS:
        database.execute("DELETE FROM hashes")
    return digest


def _state(status: os.stat_result) -> tuple[str, bool]:
    """What changes with the content, and whether it is too young to be relied on (git's racy rule)."""
    state = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
    return state, time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < TICK_NS
