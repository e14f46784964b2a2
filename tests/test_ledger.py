"""The ledger: a real SQLite file, found by name, prefix or nothing; used by several processes at once."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
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
