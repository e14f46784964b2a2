"""Digests of files of this machine: remembered while nothing tells of a change, and never in anybody's way."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from remote import sync
from remote.agent import Agent
from remote.hash_cache import TICK_NS, HashCache
from remote.local_host import LocalHost
from tests.trees import put

ONE = hashlib.sha256(b"one").hexdigest()
Old = Callable[[str], Path]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    """Files with the content "one" that are old enough to be relied on."""
    folder = tmp_path_factory.mktemp("old")
    names = ("remembered", "synced", "held", *(f"broken{number}" for number in range(5)))
    files = {name: put(folder, name, b"one") for name in names}
    grow_old(*files.values())
    return files.__getitem__


def grow_old(*files: Path) -> None:
    """Until nobody could have written to them lately."""
    newest_ns = max(file.stat().st_ctime_ns for file in files)
    while (age_ns := time.time_ns() - newest_ns) <= TICK_NS:
        time.sleep((TICK_NS - age_ns) / 1e9 + 0.01)


def test_a_digest_is_remembered_until_the_file_changes(tmp_path: Path, old: Old) -> None:
    hashes, file = HashCache(tmp_path / "cache" / "hashes.sqlite"), old("remembered")
    assert hashes.sha256(file) == ONE
    with sqlite3.connect(tmp_path / "cache" / "hashes.sqlite") as database:
        database.execute("UPDATE hashes SET sha256 = 'remembered'")
    database.close()
    assert hashes.sha256(file) == "remembered"
    assert hashes.sha256(os.fsencode(file)) == "remembered"
    assert HashCache(tmp_path / "cache" / "hashes.sqlite").sha256(file) == "remembered"
    put(file.parent, file.name, b"two")  # the same size, the same time
    for _ in range(2):
        assert hashes.sha256(file) == hashlib.sha256(b"two").hexdigest()
        grow_old(file)


def test_a_file_that_is_too_young_is_read_again(tmp_path: Path) -> None:
    hashes, file = HashCache(tmp_path / "hashes.sqlite"), tmp_path / "file"
    for content in (b"one", b"two", b"six"):
        file.write_bytes(content)
        assert hashes.sha256(file) == hashlib.sha256(content).hexdigest()
    if (tmp_path / "hashes.sqlite").exists():
        with sqlite3.connect(tmp_path / "hashes.sqlite") as database:
            assert database.execute("SELECT count(*) FROM hashes").fetchone() == (0,)
        database.close()


def not_a_database(at: Path) -> None:
    at.write_bytes(b"this is not SQLite" * 1000)


def another_table(at: Path) -> None:
    with sqlite3.connect(at) as database:
        database.execute("CREATE TABLE hashes (name TEXT)")
    database.close()


def damaged(at: Path) -> None:
    with sqlite3.connect(at) as database:
        database.execute(
            "CREATE TABLE hashes (path BLOB PRIMARY KEY, state TEXT NOT NULL, sha256 TEXT NOT NULL) STRICT"
        )
        database.executemany("INSERT INTO hashes VALUES (?, 'x', 'y')", [(b"%d" % n,) for n in range(5000)])
    database.close()
    content = bytearray(at.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    at.write_bytes(content)


def a_folder(at: Path) -> None:
    at.mkdir()


def below_a_file(at: Path) -> None:
    at.parent.rmdir()
    at.parent.touch()


@pytest.mark.parametrize(
    ("number", "broken"), list(enumerate([not_a_database, another_table, damaged, a_folder, below_a_file]))
)
def test_a_broken_cache_is_no_obstacle(tmp_path: Path, old: Old, number: int, broken: Callable[[Path], None]) -> None:
    (tmp_path / "cache").mkdir()
    broken(tmp_path / "cache" / "hashes.sqlite")
    hashes = HashCache(tmp_path / "cache" / "hashes.sqlite")
    for _ in range(2):
        assert hashes.sha256(old(f"broken{number}")) == ONE


@pytest.mark.slow
def test_a_cache_that_another_process_holds_is_not_waited_for_long(tmp_path: Path, old: Old) -> None:
    hashes, file = HashCache(tmp_path / "hashes.sqlite"), old("held")
    hashes.sha256(file)
    with contextlib.closing(sqlite3.connect(tmp_path / "hashes.sqlite")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        started = time.monotonic()
        assert hashes.sha256(file) == ONE
        assert time.monotonic() - started < 10


def test_a_sync_remembers_digests_of_this_machine(tmp_path: Path, old: Old) -> None:
    file, agent = old("synced"), Agent(LocalHost(tmp_path), workspace=str(tmp_path / "work"))
    put(tmp_path, "target/synced", b"one", mtime_ns=5)  # the same content, another time
    hashes = HashCache(tmp_path / "hashes.sqlite")
    assert "synced" in sync.push(agent, file.parent, str(tmp_path / "target"), hashes=hashes).adopted
    with sqlite3.connect(tmp_path / "hashes.sqlite") as database:
        assert database.execute("SELECT path, sha256 FROM hashes").fetchall() == [(os.fsencode(file), ONE)]
    database.close()
