"""The laptop's memory of its runs (SQLite).  A cache: the run directories on the hosts are the truth."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jobs.submission import Submission
from jobs.submission import parse as parse_submission
from launcher.errors import LaunchError, NoSuchRun

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    submitted_at REAL NOT NULL,
    submission TEXT NOT NULL,
    sources TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    checked_at REAL NOT NULL,
    pulled_to TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX IF NOT EXISTS by_time ON runs (submitted_at);
"""
MOVE_AWAY = "it is only a cache: move it away; the hosts keep their runs (launch ps --host NAME)"
FINAL = ("succeeded", "failed", "stopped", "lost", "gone")


@dataclass(frozen=True)
class Record:
    """One run.  `sources` are the laptop's own paths behind what was sent: `base` and each input by its name."""

    run_id: str
    name: str
    host: str
    submitted_at: float
    submission: Submission
    sources: dict[str, str] = field(default_factory=dict)
    state: str = "queued"
    reason: str = ""
    checked_at: float = 0.0
    pulled_to: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in FINAL


class Ledger:
    """The runs of this laptop.  Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=10)
        except (OSError, sqlite3.Error) as error:
            raise LaunchError(f"the ledger {self._path} can't be opened: {error}") from error
        try:
            with database:
                database.row_factory = sqlite3.Row
                database.executescript(SCHEMA)
                yield database
        except (sqlite3.Error, IndexError) as error:  # IndexError: a column is not there
            raise LaunchError(
                f"the ledger {self._path}: {error}",
                hint=MOVE_AWAY,
            ) from error
        finally:
            database.close()

    def add(self, record: Record) -> None:
        """Remember a run that was just submitted."""
        row = (record.run_id, record.name, record.host, record.submitted_at, json.dumps(record.submission.to_json()),
               json.dumps(record.sources), record.state, record.reason, time.time())  # fmt: skip
        with self._database() as database:
            database.execute(
                "INSERT INTO runs (run_id, name, host, submitted_at, submission, sources, state, reason, checked_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def forget(self, run_id: str) -> None:
        """Forget a run that never came to be."""
        with self._database() as database:
            database.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))

    def note_state(self, run_id: str, state: str, reason: str) -> None:
        """Remember what the host said last.

        How a run ended stays known when its host forgot it, and when a slower process brings an older answer.
        """
        ended = "('succeeded', 'failed', 'stopped')"
        with self._database() as database:
            database.execute(
                "UPDATE runs SET state = ?, reason = ?, checked_at = ?"
                f" WHERE run_id = ? AND (state NOT IN {ended} OR ? IN {ended})",
                (state, reason, time.time(), run_id, state),
            )

    def note_pulled(self, run_id: str, folder: Path) -> None:
        """Remember where a run came home to."""
        with self._database() as database:
            database.execute("UPDATE runs SET pulled_to = ? WHERE run_id = ?", (str(folder), run_id))

    def all(self) -> list[Record]:
        """Every run, newest first."""
        with self._database() as database:
            return [
                _record(row) for row in database.execute("SELECT * FROM runs ORDER BY submitted_at DESC, rowid DESC")
            ]

    def find(self, name: str | None) -> Record:
        """The run of that id, unique prefix of an id, or name (the latest of it); without one the latest of all."""
        records = self.all()
        if name == "":  # an unset variable of a script; it would be the beginning of every id
            raise NoSuchRun("the name of the run is empty", hint="launch ps -a")
        if not records:
            raise NoSuchRun("there is no run yet", hint="launch train SPEC.yaml --host NAME")
        if name is None:
            return records[0]
        exact = [record for record in records if record.run_id == name]
        named = [record for record in records if record.name == name]
        begun = [record for record in records if record.run_id.startswith(name)]
        if exact or named:
            return (exact or named)[0]
        if len(begun) > 1:
            raise NoSuchRun(
                f"{name!r} could be {', '.join(record.run_id for record in begun[:5])}", hint="give more of it"
            )
        if not begun:
            raise NoSuchRun(f"no run {name!r}", hint="launch ps -a")
        return begun[0]


def _record(row: sqlite3.Row) -> Record:
    # By name: a newer launch may have added columns.
    values: dict[str, Any] = {one.name: row[one.name] for one in fields(Record)}
    try:
        submission, values["sources"] = json.loads(values["submission"]), dict(json.loads(values["sources"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise LaunchError(f"ledger, {values['run_id']}: can't be read ({error})", hint=MOVE_AWAY) from error
    values["submission"] = parse_submission(submission, origin=f"ledger, {values['run_id']}")
    return Record(**values)
