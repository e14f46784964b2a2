"""The laptop's memory of its runs (SQLite).  A cache: the run directories on the hosts are the truth."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jobs.submission import Submission
from jobs.submission import parse as parse_submission
from launcher.errors import LaunchError, NoSuchRun

SCHEMA_VERSION = 1
"""In the file's `user_version`, one more with every column that is added.

A newer launch may have added columns: its file is read, and left as it is.
"""
FIRST_SCHEMA = """
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
CREATE TABLE IF NOT EXISTS hosts (name TEXT PRIMARY KEY, reached_at REAL NOT NULL) STRICT;
"""
# Column by column, so that a file of any age becomes one of today; an older launch goes on working with it.
ADDED = {
    "attempt": "INTEGER NOT NULL DEFAULT 1",
    "resumed_from": "TEXT NOT NULL DEFAULT ''",
    "superseded_by": "TEXT NOT NULL DEFAULT ''",
    "adopted": "INTEGER NOT NULL DEFAULT 0",
    "since": "REAL NOT NULL DEFAULT 0",
}
MOVE_AWAY = "it is only a cache: move it away; the hosts keep their runs (launch ps --host NAME)"
WAIT_S = 10
FINAL = ("succeeded", "failed", "stopped", "lost", "gone")


@dataclass(frozen=True)
class Line:
    """One run, without what was submitted.

    `attempt` counts from 1; `resumed_from` is the attempt whose checkpoint this one went on from, `superseded_by` the
    one that took over.  An `adopted` run was submitted elsewhere: what was asked for is known from its host alone.  In
    `state` it is `since` then, by this laptop's clock, 0 where that is not known.
    """

    run_id: str
    name: str
    host: str
    submitted_at: float
    state: str = field(default="queued", kw_only=True)
    reason: str = field(default="", kw_only=True)
    checked_at: float = field(default=0.0, kw_only=True)
    pulled_to: str = field(default="", kw_only=True)
    attempt: int = field(default=1, kw_only=True)
    resumed_from: str = field(default="", kw_only=True)
    superseded_by: str = field(default="", kw_only=True)
    adopted: bool = field(default=False, kw_only=True)
    since: float = field(default=0.0, kw_only=True)

    @property
    def is_over(self) -> bool:
        return self.state in FINAL


@dataclass(frozen=True)
class Record(Line):
    """One run.  `sources` are the laptop's own paths behind what was sent: `base` and each input by its name."""

    submission: Submission
    sources: dict[str, str] = field(default_factory=dict)


LINE = ", ".join(one.name for one in fields(Line))
WHOLE = ", ".join(one.name for one in fields(Record))
# checked_at is the ledger's own.
GIVEN = [one.name for one in fields(Record) if one.name not in ("checked_at", "pulled_to")]


class Ledger:
    """The runs of this laptop.  Several processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=WAIT_S)
        except (OSError, sqlite3.Error) as error:
            raise LaunchError(f"the ledger {self._path} can't be opened: {error}") from error
        try:
            with database:
                database.row_factory = sqlite3.Row
                _migrate(database)
                yield database
        except (sqlite3.Error, IndexError) as error:
            is_busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
            raise LaunchError(
                f"the ledger {self._path}: {error}",
                hint="another launch writes to it for long: the same command again" if is_busy else MOVE_AWAY,
            ) from error
        finally:
            database.close()

    def add(self, record: Record) -> None:
        """Remember a run that was just submitted, or adopted."""
        row: dict[str, Any] = {name: getattr(record, name) for name in GIVEN}
        row["submission"], row["sources"] = json.dumps(record.submission.to_json()), json.dumps(record.sources)
        row |= {"adopted": int(record.adopted), "checked_at": time.time()}
        names = ", ".join(row)
        with self._database() as database:
            database.execute(f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(row))})", [*row.values()])

    def forget(self, run_id: str) -> None:
        """Forget a run that never came to be, or was removed."""
        with self._database() as database:
            database.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            database.execute("UPDATE runs SET superseded_by = '' WHERE superseded_by = ?", (run_id,))

    def note_state(self, run_id: str, state: str, reason: str, age_s: float | None = None) -> None:
        """Remember what the host said last, and that the run has been in that state for `age_s` seconds.

        How a run ended stays known when its host forgot it, and when a slower process brings an older answer.
        """
        self.note_states([(run_id, state, reason, age_s)])

    def note_states(self, told: Sequence[tuple[str, str, str, float | None]]) -> None:
        """The same for several at once: id, state, reason, age."""
        ended, now = "('succeeded', 'failed', 'stopped')", time.time()
        rows = [
            {"id": run_id, "state": state, "reason": reason, "now": now, "since": 0.0 if age_s is None else now - age_s}
            for run_id, state, reason, age_s in told
        ]
        with self._database() as database:
            database.executemany(
                "UPDATE runs SET reason = :reason, checked_at = :now, since = CASE"
                " WHEN :since > 0 THEN :since WHEN state <> :state THEN :now ELSE since END, state = :state"
                f" WHERE run_id = :id AND (state NOT IN {ended} OR :state IN {ended})",
                rows,
            )

    def note_pulled(self, run_id: str, folder: Path) -> None:
        """Remember where a run came home to."""
        with self._database() as database:
            database.execute("UPDATE runs SET pulled_to = ? WHERE run_id = ?", (str(folder), run_id))

    def note_superseded(self, run_id: str, by: str) -> None:
        """Remember which attempt took over; none with ""."""
        with self._database() as database:
            database.execute("UPDATE runs SET superseded_by = ? WHERE run_id = ?", (by, run_id))

    def note_reached(self, hosts: Sequence[str]) -> None:
        """Remember that these hosts answered just now."""
        with self._database() as database:
            database.executemany(
                "INSERT INTO hosts (name, reached_at) VALUES (?, ?)"
                " ON CONFLICT (name) DO UPDATE SET reached_at = excluded.reached_at",
                [(name, time.time()) for name in hosts],
            )

    def reached(self) -> dict[str, float]:
        """When each host answered last, in seconds since the epoch."""
        with self._database() as database:
            found = dict(database.execute("SELECT name, reached_at FROM hosts").fetchall())
            told = database.execute("SELECT host, MAX(checked_at) FROM runs GROUP BY host").fetchall()
        return {name: max(found.get(name, 0.0), at) for name, at in told} | {
            name: at for name, at in found.items() if name not in dict(told)
        }

    def lines(self) -> list[Line]:
        """Every run, newest first, without what was submitted."""
        with self._database() as database:
            rows = database.execute(f"SELECT {LINE} FROM runs ORDER BY submitted_at DESC, rowid DESC").fetchall()
        return [Line(**_values(row)) for row in rows]

    def all(self) -> list[Record]:
        """Every run, newest first."""
        with self._database() as database:
            rows = database.execute(f"SELECT {WHOLE} FROM runs ORDER BY submitted_at DESC, rowid DESC").fetchall()
        return [_record(row) for row in rows]

    def get(self, run_id: str) -> Record | None:
        """The run of exactly that id."""
        with self._database() as database:
            row = database.execute(f"SELECT {WHOLE} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return None if row is None else _record(row)

    def find(self, name: str | None) -> Record:
        """The run of that id, unique prefix of an id, or name (the latest of it); without one the latest of all."""
        found = self.get(chosen(self.lines(), name).run_id)
        if found is None:  # another process removed it in this very moment
            raise NoSuchRun(f"no run {name!r}", hint="launch ps -a")
        return found


def chosen(lines: Sequence[Line], name: str | None) -> Line:
    """Of `lines`, newest first, the one that is called so, as in `Ledger.find`.  Raises NoSuchRun."""
    if name == "":  # an unset variable of a script; it would be the beginning of every id
        raise NoSuchRun("the name of the run is empty", hint="launch ps -a")
    if not lines:
        raise NoSuchRun("there is no run yet", hint="launch train SPEC.yaml --host NAME")
    if name is None:
        return lines[0]
    exact = [line for line in lines if line.run_id == name]
    named = [line for line in lines if line.name == name]
    begun = [line for line in lines if line.run_id.startswith(name)]
    if exact or named:
        return (exact or named)[0]
    if len(begun) > 1:
        raise NoSuchRun(f"{name!r} could be {', '.join(line.run_id for line in begun[:5])}", hint="give more of it")
    if not begun:
        raise NoSuchRun(f"no run {name!r}", hint="launch ps -a")
    return begun[0]


def _migrate(database: sqlite3.Connection) -> None:
    """Bring the file to today's columns; of two that come at once, one waits and finds it done."""
    if _version(database) >= SCHEMA_VERSION:
        return
    before, database.isolation_level = (
        database.isolation_level,
        None,
    )  # else Python ends the transaction before some statements
    try:
        database.execute("BEGIN IMMEDIATE")
        if _version(database) < SCHEMA_VERSION:
            for statement in filter(str.strip, FIRST_SCHEMA.split(";")):
                database.execute(statement)
            there = {row["name"] for row in database.execute("PRAGMA table_info(runs)")}
            for column, kind in ADDED.items():
                if column not in there:
                    database.execute(f"ALTER TABLE runs ADD COLUMN {column} {kind}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")
        database.isolation_level = before


def _version(database: sqlite3.Connection) -> int:
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    return version


def _values(row: sqlite3.Row) -> dict[str, Any]:
    return dict(row) | {"adopted": bool(row["adopted"])}


def _record(row: sqlite3.Row) -> Record:
    values = _values(row)
    try:
        submission, values["sources"] = json.loads(values["submission"]), dict(json.loads(values["sources"]))
    except (ValueError, TypeError, RecursionError) as error:
        raise LaunchError(f"ledger, {values['run_id']}: can't be read ({error})", hint=MOVE_AWAY) from error
    values["submission"] = parse_submission(submission, origin=f"ledger, {values['run_id']}")
    return Record(**values)
