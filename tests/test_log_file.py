"""The writer of a run's log: whatever is printed, however it is cut, whatever the disk says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.skipif(os.name == "nt", reason="runs on the host")
if os.name != "nt":
    from remote.onhost import log_segments
    from remote.onhost.log_file import SLACK_BYTES, STATE_BYTES, LogWriter


def read(folder: Path) -> bytes:
    """The whole log, over its files."""
    log = str(folder / "log.txt")
    return log_segments.read(log, 0, 1 << 30).content


def written(*chunks: bytes, **options) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        writer = LogWriter(f"{folder}/log.txt", **options)
        for chunk in chunks:
            writer.feed(chunk)
            writer.tick()
        writer.close()
        return read(Path(folder))


@pytest.mark.parametrize(
    ("printed", "kept"),
    [
        (b"plain\nlines\r\nof text", b"plain\nlines\r\nof text"),
        (b"\r 0%\r 50%\r100%\nafter\n", b"100%\nafter\n"),
        (b"begun 1%\r2%\r3%\r\nafter\n", b"begun 1%\n3%\r\nafter\n"),
        (b"\r 50%\r\n", b" 50%\r\n"),
        (b"\r 10%\r 20%", b" 20%\n"),
        (b"\r100%\r    \rdone\n", b"done\n"),
        (b"\r100%\r\r\n", b"100%\r\n"),
        (b"text\r", b"text\n"),
        (b"\r\r\r", b""),
        (b"", b""),
        (b"a\n\n\nb\n", b"a\n\n\nb\n"),
        (b"\xff\x00\xe8\xaf", b"\xff\x00\xe8\xaf"),
    ],
)
def test_of_a_line_that_is_overwritten_the_last_state_is_kept(printed: bytes, kept: bytes) -> None:
    assert written(printed) == kept
    assert written(*(bytes([byte]) for byte in printed)) == kept


def test_a_real_progress_bar(tmp_path: Path) -> None:
    """As tqdm draws one: a state begins with the carriage return."""
    states = [f"\r {n:3}%|{'#' * (n // 10):<10}| {n}/100 [00:0{n // 20}<00:00]" for n in range(101)]
    assert written("".join(states).encode() + b"\nsaved\n") == f"{states[-1][1:]}\nsaved\n".encode()


pieces = st.lists(
    st.sampled_from(
        [b"a", b"bc\n", b"\r", b"\r\n", b"\n", b"   ", b"x" * 40, "评论".encode(), b"\xff", b"tok", b"en-1"]
    )
)
secrets = st.lists(st.sampled_from([b"token-1", b"token-12", b"kent", b"bc\r", b"aa", b"n-1\xff", b"xxx"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(pieces, secrets, st.data(), st.integers(1, 200))
def test_any_chunking_gives_the_same_log_and_no_secret(
    parts: list[bytes], values: list[bytes], data: st.DataObject, segment_bytes: int
) -> None:
    printed = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(printed)), max_size=8)))
    chunks = [printed[start:end] for start, end in zip([0, *cuts], [*cuts, len(printed)], strict=True)]
    options = {"secrets": values, "segment_bytes": segment_bytes}
    whole = written(printed, **options)
    assert written(*chunks, **options) == whole
    assert written(*(bytes([byte]) for byte in printed), **options) == whole
    assert not any(value.strip() in whole for value in values)
    if b"\r" not in printed and not values:
        assert whole == printed


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3 * STATE_BYTES), max_size=5),
    st.sampled_from([b"\n", b"\r", b"\r\n"]),
    st.integers(1000, 99_999),
)
def test_states_too_long_to_hold_are_text_however_they_are_cut(sizes: list[int], end: bytes, size: int) -> None:
    printed = b"\r" + end.join(b"%d" % (n % 10) * length for n, length in enumerate(sizes))
    chunks = [printed[at : at + size] for at in range(0, len(printed), size)]
    assert written(*chunks) == written(printed)


def test_a_secret_is_masked_wherever_it_is_cut() -> None:
    value = b"hf_abcdefgh"
    for cut in range(len(value) + 1):
        assert written(b"token=" + value[:cut], value[cut:] + b";\n", secrets=[value]) == b"token=***;\n"
    assert written(b"hf_abc", secrets=[value]) == b"hf_abc"
    # Of a key of several lines no line appears, whatever stands between them.
    key = b"-----BEGIN\nAAAABBBB\nCCCCDDDD\n"
    assert written(b"CCCCDDDD\r\nAAAABBBB", secrets=[key]) == b"***\r\n***"
    assert written(b"anything", secrets=[b"", b"  "]) == b"anything"


def test_text_is_there_at_once_and_a_prompt_does_not_wait_for_its_newline(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log.txt"), secrets=[b"zebra"])
    writer.feed(b"Continue? [y/n] ")
    assert read(tmp_path) == b"Continue? [y/n] "
    writer.line("launch: a line of ours")
    assert read(tmp_path) == b"Continue? [y/n] \nlaunch: a line of ours\n"
    writer.feed(b"ze")
    assert not read(tmp_path).endswith(b"ze")
    writer.close()
    assert read(tmp_path).endswith(b"ze")


def test_a_progress_bar_is_seen_to_move(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log.txt"), progress_s=0.05)
    writer.feed(b"\r 10%")
    writer.tick()
    assert read(tmp_path) == b""
    assert writer.tail() == b" 10%"
    for state in (b" 10%", b" 10%", b"\r 20%"):
        time.sleep(0.06)
        writer.tick()
        writer.tick()
        assert read(tmp_path).splitlines()[-1] == b" 10%"
        writer.feed(state if state.startswith(b"\r") else b"")
    time.sleep(0.06)
    writer.tick()
    assert read(tmp_path) == b" 10%\n 20%\n"
    writer.feed(b"\r 30%\r 30%\n")
    writer.line("ours")
    writer.feed(b"\r 1%")
    writer.line("ours again")
    writer.close()
    assert read(tmp_path) == b" 10%\n 20%\n 30%\nours\n 1%\nours again\n"


def test_segments_end_with_a_line_and_the_oldest_but_the_first_go(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log.txt"), segment_bytes=1000, keep_bytes=5000)
    lines = [b"%06d %s\n" % (n, b"x" * (n % 90)) for n in range(1000)]
    printed = b"".join(lines)
    for at in range(0, len(printed), 777):
        writer.feed(printed[at : at + 777])
    writer.close()
    found = log_segments.segments(str(tmp_path / "log.txt"))
    assert [Path(one.path).name for one in found][0] == "log.txt"
    assert all(re.fullmatch(r"log\.\d{16}\.txt", Path(one.path).name) for one in found[1:])
    assert sum(one.size for one in found) <= 5000 + SLACK_BYTES
    assert 4 <= len(found) <= 6
    for one in found:
        content = Path(one.path).read_bytes()
        assert content == printed[one.start : one.start + one.size]
        assert content.endswith(b"\n")
        assert 1000 <= one.size < 1100 or one is found[-1]
    assert found[-1].start + found[-1].size == len(printed)
    # Who writes on finds the end, and where it is told how much is gone.
    writer = LogWriter(str(tmp_path / "log.txt"), segment_bytes=1000, keep_bytes=5000)
    writer.feed(b"more\n")
    writer.close()
    assert log_segments.end(str(tmp_path / "log.txt")) == len(printed) + 5
    piece = log_segments.read(str(tmp_path / "log.txt"), found[0].size + 10, 1 << 20)
    assert piece.start == found[1].start > found[0].size + 10


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log.txt"), segment_bytes=1000)
    writer.feed(b"x" * (3 * (1000 + SLACK_BYTES)))
    writer.close()
    assert [one.size for one in log_segments.segments(str(tmp_path / "log.txt"))] == [1000 + SLACK_BYTES] * 3


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=30), st.integers(0, 40), st.integers(20, 2000), st.booleans())
def test_the_tail_begins_where_the_last_lines_do(
    parts: list[bytes], lines: int, segment_bytes: int, ends: bool
) -> None:
    printed = b"\n".join(part.replace(b"\r", b"") for part in parts) + (b"\n" if ends else b"")
    with tempfile.TemporaryDirectory() as folder:
        writer = LogWriter(f"{folder}/log.txt", segment_bytes=segment_bytes)
        writer.feed(printed)
        writer.close()
        start = log_segments.start_of_tail(f"{folder}/log.txt", lines)
    kept = printed.split(b"\n")
    kept = [line + b"\n" for line in kept[:-1]] + ([kept[-1]] if kept[-1] else [])
    assert printed[start:] == b"".join(kept[len(kept) - lines :] if lines < len(kept) else kept) * bool(lines)


def test_what_was_written_since_is_found(tmp_path: Path) -> None:
    log = str(tmp_path / "log.txt")
    writer = LogWriter(log)
    writer.feed(b"old\nhalf a ")
    time.sleep(1.1)
    before = time.time()
    writer.feed(b"line\nnew\n")
    time.sleep(1.1)
    writer.feed(b"newest\n")
    writer.close()
    assert read(tmp_path)[log_segments.start_of_time(log, before) :] == b"half a line\nnew\nnewest\n"
    assert read(tmp_path)[log_segments.start_of_time(log, before + 1.05) :] == b"newest\n"
    assert log_segments.start_of_time(log, 0) == 0
    assert log_segments.start_of_time(log, time.time() + 60) == len(read(tmp_path))
    assert len((tmp_path / "log.times").read_bytes()) == 3 * log_segments.TIMES_BYTES
    (tmp_path / "log.times").write_bytes(b"x" * 100)
    assert 0 <= log_segments.start_of_time(log, before) <= len(read(tmp_path))
    (tmp_path / "log.times").unlink()
    assert log_segments.start_of_time(log, before) == 0


def test_a_run_folder_that_is_removed_or_never_was(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    writer = LogWriter(str(tmp_path / "run" / "log.txt"), segment_bytes=100)
    writer.feed(b"a line\n" * 14)
    shutil.rmtree(tmp_path / "run")
    writer.feed(b"a line\n" * 1000)
    assert writer.lost_bytes > 6500
    writer.line("ours")
    writer.tick()
    assert writer.tail().endswith(b"a line\nours\n")
    writer.close()
    nowhere = LogWriter(str(tmp_path / "none" / "log.txt"))
    nowhere.feed(b"12345")
    nowhere.close()
    assert (nowhere.lost_bytes, nowhere.tail()) == (5, b"12345")


def test_a_log_that_somebody_removes_goes_on_in_a_new_file(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log.txt"))
    writer.feed(b"before\n")
    (tmp_path / "log.txt").unlink()
    time.sleep(1.1)
    writer.feed(b"after\n")
    writer.close()
    assert (tmp_path / "log.0000000000000007.txt").read_bytes() == b"after\n"
    assert log_segments.read(str(tmp_path / "log.txt"), 0, 100) == (7, b"after\n")


FULL_DISK = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", sys.argv[2]], check=True)
from remote.onhost.log_file import LogWriter
reserve, log, calls = sys.argv[2] + "/reserve", sys.argv[2] + "/log.txt", []
open(reserve, "wb").write(b"x" * 64 * 1024)
def free():
    calls.append(os.path.getsize(log))
    os.unlink(reserve)
writer = LogWriter(log, on_full=free)
line = b"0123456789" * 7 + b"012345678\\n"
fed = b""
for n in range(4000):
    fed += line
    writer.feed(line)
    writer.tick()
assert writer.lost_bytes == len(fed) - os.path.getsize(log), "all is there or counted"
assert len(calls) == 1 and os.path.getsize(log) > calls[0] + 60000, "the reserve was used"
assert writer.tail() == fed[-65536:]
lost = writer.lost_bytes
kept = os.path.getsize(log)
os.truncate(log, 1000)  # now there is room
time.sleep(1.1)
writer.tick()
writer.feed(b"after\\n")
writer.close()
content = open(log, "rb").read()
assert content[:1000] == fed[:1000]
said = b"\\nlaunch: %d bytes of output are missing here: the disk was full\\nafter\\n" % lost
assert content[1000:] == said, content[1000:]
assert writer.lost_bytes == lost
print("well")
"""


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0 or not shutil.which("unshare"), reason="needs a small disk")
def test_a_full_disk_costs_output_that_is_counted_and_nothing_else(tmp_path: Path) -> None:
    argv = ["unshare", "-m", sys.executable, "-c", FULL_DISK, str(REPOSITORY), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout == "well\n", done.stderr


def test_it_is_fast_enough_to_never_hold_up_a_job(tmp_path: Path) -> None:
    chunk = b"a line of some sixty characters, as they are printed by a job\n" * 1000
    writer = LogWriter(str(tmp_path / "log.txt"), secrets=[b"hf_not_in_there_at_all"], segment_bytes=1 << 24)
    started = time.process_time()
    for _ in range(1000):
        writer.feed(chunk)
    whole_s = time.process_time() - started
    started = time.process_time()
    for _ in range(20_000):
        writer.feed(b"a line of some sixty characters, as they are printed by a job\n")
        writer.tick()
    lines_s = time.process_time() - started
    writer.close()
    print(f"{len(chunk) * 1000 / whole_s / 1e6:.0f} MB/s, {20_000 / lines_s:.0f} lines/s one by one")
    assert whole_s < 62 / 50
    assert lines_s < 1
