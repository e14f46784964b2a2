"""The laptop's own copy of logs: by offset, from any number of processes, bounded."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.kept_log import KeptLog
from tests.conftest import REPOSITORY

LOG = bytes(range(256)) * 40


def content(kept: KeptLog) -> bytes:
    """What is kept, which must be without gaps."""
    whole = b""
    for part in kept.parts():
        assert part.offset == len(whole)
        whole += part.content
    return whole


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, len(LOG)), st.integers(0, 3000)), max_size=20))
def test_whoever_keeps_which_part_nothing_is_doubled_or_mixed(kept_parts: list[tuple[int, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        several = [KeptLog(Path(folder), "toy-aaaaaaaa", piece_bytes=500) for _ in range(4)]
        known = bytearray(len(LOG))
        for who, start, size in kept_parts:
            several[who].keep(start, LOG[start : start + size])
            known[start : start + size] = b"\1" * len(LOG[start : start + size])
        for one in several:
            one.close()
        at = 0
        for part in several[0].parts():
            assert not any(known[at : part.offset])
            assert part.content == LOG[part.offset : part.offset + len(part.content)]
            at = part.offset + len(part.content)
            assert all(known[part.offset : at])
        assert not any(known[at:])
        standing = several[0].standing()
        assert (standing.end if standing else 0) == at


KEEPER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from launcher.kept_log import KeptLog
kept = KeptLog(Path(sys.argv[1]), "toy-aaaaaaaa", piece_bytes=5000)
log = bytes(range(256)) * 400
for at in range(0, len(log), 100):
    kept.keep(at, log[at:at + 100])
kept.seen()
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", KEEPER, str(tmp_path), str(REPOSITORY)]
    both = [subprocess.Popen(argv) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    kept = KeptLog(tmp_path, "toy-aaaaaaaa")
    assert content(kept) == bytes(range(256)) * 400
    assert (standing := kept.standing())
    assert standing.end == 102_400
    assert standing.age_s < 60


def test_what_is_kept_already_is_not_written_again(tmp_path: Path) -> None:
    for _ in range(3):
        kept = KeptLog(tmp_path, "toy-aaaaaaaa")
        kept.keep(0, LOG)
        kept.seen()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == len(LOG)


def test_the_oldest_goes_where_it_becomes_too_large(tmp_path: Path) -> None:
    kept = KeptLog(tmp_path, "toy-aaaaaaaa", run_bytes=10_000, piece_bytes=1000)
    for at in range(0, 50_000, 300):
        kept.keep(at, b"x" * 300)
    kept.close()
    parts = list(kept.parts())
    assert parts[-1].offset + len(parts[-1].content) == 50_100
    assert 8000 < sum(len(part.content) for part in parts) <= 10_000
    kept.forget()
    assert kept.standing() is None
    assert list(kept.parts()) == []


def test_a_folder_that_can_not_be_written_ends_the_keeping_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the way")
    kept = KeptLog(tmp_path / "logs", "toy-aaaaaaaa")
    kept.keep(0, b"x")
    kept.seen()
    assert kept.standing() is None
    assert list(kept.parts()) == []
