"""The ledger: a real SQLite file, found by name, prefix or nothing; used by several processes at once."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.run_directory import new_run_id
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.errors import LaunchError, NoSuchRun
from launcher.ledger import Ledger, Record


def record(run_id: str, at: float) -> Record:
    name = run_id.rsplit("-", 1)[0]
    spec = from_mapping({"name": name, "model_name_or_path": "m", "data": "a.csv"})
    return Record(run_id, name, "box", at, Submission(run_id, spec, {}, (), "0"), {"file": "/a.csv"})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "data" / "ledger.sqlite")


def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    first = record("reviews-aaaaaaaa", 1)
    ledger.add(first)
    found = ledger.find("reviews-aaaaaaaa")
    assert (found.submission, found.sources, found.state) == (first.submission, {"file": "/a.csv"}, "queued")
    ledger.note_state("reviews-aaaaaaaa", "failed", "why")
    ledger.note_pulled("reviews-aaaaaaaa", Path("/home/runs/x"))
    found = ledger.find(None)
    assert (found.state, found.reason, found.pulled_to, found.is_over) == ("failed", "why", "/home/runs/x", True)


def test_since_when_a_run_is_in_its_state(ledger: Ledger) -> None:
    ledger.add(record("reviews-aaaaaaaa", 1))
    assert ledger.find(None).since == 0
    before = time.time()
    ledger.note_state("reviews-aaaaaaaa", "running", "")
    heard = ledger.find(None).since
    assert before <= heard <= time.time()
    ledger.note_state("reviews-aaaaaaaa", "running", "")
    assert ledger.find(None).since == heard
    ledger.note_state("reviews-aaaaaaaa", "failed", "why", 3600)
    assert 3590 < time.time() - ledger.find(None).since < 3660


def test_names_prefixes_and_the_latest(ledger: Ledger) -> None:
    for at, run_id in enumerate(["reviews-aaaaaaaa", "reviews-abbbbbbb", "spam-aaaaaaaa", "reviews-b-cccccccc"]):
        ledger.add(record(run_id, at))
    assert ledger.find(None).run_id == "reviews-b-cccccccc"
    assert ledger.find("reviews").run_id == "reviews-abbbbbbb"  # a name, the latest of it
    assert ledger.find("reviews-ab").run_id == "reviews-abbbbbbb"
    assert ledger.find("sp").run_id == "spam-aaaaaaaa"
    with pytest.raises(NoSuchRun, match="could be"):
        ledger.find("reviews-a")
    with pytest.raises(NoSuchRun):
        ledger.find("nothing")


def test_an_empty_ledger_says_what_to_do(ledger: Ledger) -> None:
    with pytest.raises(NoSuchRun) as caught:
        ledger.find(None)
    assert "launch train" in caught.value.hint


def test_many_writers_at_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: ledger.add(record(new_run_id("run"), at)), range(64)))
    assert len(ledger.all()) == 64


def test_a_broken_file_is_a_clear_error(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(LaunchError, match=r"ledger\.sqlite") as caught:
        ledger.all()
    assert "cache" in caught.value.hint


def test_the_file_is_plain_sqlite(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add(record("reviews-aaaaaaaa", 1))
    database = sqlite3.connect(tmp_path / "data" / "ledger.sqlite")
    assert database.execute("SELECT run_id, host FROM runs").fetchall() == [("reviews-aaaaaaaa", "box")]
    database.close()


OLD = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, name TEXT NOT NULL, host TEXT NOT NULL, submitted_at REAL NOT NULL,
    submission TEXT NOT NULL, sources TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    checked_at REAL NOT NULL, pulled_to TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX by_time ON runs (submitted_at);
"""
INSERT = "INSERT INTO runs VALUES (?, ?, 'box', ?, ?, '{}', 'succeeded', '', 5, '/home/x')"


def old_file(path: Path) -> Path:
    """What the launch before this one left."""
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.executescript(OLD)
    for at in range(50):
        one = record(f"run-aaaaaa{chr(97 + at // 26)}{chr(97 + at % 26)}", at)
        database.execute(INSERT, (one.run_id, one.name, at, json.dumps(one.submission.to_json())))
    database.commit()
    database.close()
    return path


def test_an_older_file_is_brought_up_to_date_by_many_at_once(tmp_path: Path) -> None:
    path = old_file(tmp_path / "data" / "ledger.sqlite")
    program = "import sys, pathlib, launcher.ledger as l; print(len(l.Ledger(pathlib.Path(sys.argv[1])).lines()))"
    both = [subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) for _ in range(4)]
    assert [one.communicate()[0] for one in both] == [b"50\n"] * 4
    ledger = Ledger(path)
    [*_, first] = ledger.all()
    assert (first.run_id, first.state, first.pulled_to, first.checked_at) == ("run-aaaaaaaa", "succeeded", "/home/x", 5)
    assert (first.attempt, first.resumed_from, first.superseded_by, first.adopted) == (1, "", "", False)
    # The launch of before goes on using it.
    database = sqlite3.connect(path)
    named = "(run_id, name, host, submitted_at, submission, sources, state, reason, checked_at)"
    other = json.dumps(record("late-aaaaaaaa", 99).submission.to_json())
    values = ("late-aaaaaaaa", "late", "box", 99, other, "{}", "queued", "", 99)
    database.execute(f"INSERT INTO runs {named} VALUES ({', '.join('?' * 9)})", values)
    database.commit()
    database.close()
    assert ledger.find("late").attempt == 1


def test_what_a_run_is_besides_comes_back(ledger: Ledger) -> None:
    old = record("reviews-aaaaaaaa", 1)
    more = {"attempt": 2, "resumed_from": old.run_id, "adopted": True}
    new = replace(record("reviews-bbbbbbbb", 2), **more)  # type: ignore[arg-type]
    ledger.add(old)
    ledger.add(new)
    ledger.note_superseded(old.run_id, new.run_id)
    found = ledger.find(new.run_id)
    assert {name: getattr(found, name) for name in more} == more
    assert [line.superseded_by for line in ledger.lines()] == ["", new.run_id]
    ledger.forget(new.run_id)
    assert ledger.find(old.run_id).superseded_by == ""


def test_when_a_host_was_reached(ledger: Ledger) -> None:
    before = time.time()
    ledger.add(record("reviews-aaaaaaaa", 1))
    ledger.note_reached(["other"])
    ledger.note_reached(["other", "third"])
    assert ledger.reached().keys() == {"box", "other", "third"}
    assert all(before <= at <= time.time() for at in ledger.reached().values())
