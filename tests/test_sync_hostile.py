"""Hosts that mean harm: nothing outside of a target is written, nothing is believed, and errors say what it was."""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote import sync
from remote.errors import BadReply, RemoteError
from remote.onhost.frames import message
from remote.onhost.transfer import SMALL_BYTES
from remote.onhost.tree import FILE, FOLDER, LINK, STAGING, Entry
from remote.sync import Options
from tests.liar import END, Liar, a_file, large, lines, lying, opening, said, small
from tests.trees import WHEN_NS, put, state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

DELETE = Options(delete=True)
BIG = bytes(SMALL_BYTES + 1)
D = Entry("d", FOLDER, 0, WHEN_NS, 0o755)


def link(path: str, to: str) -> Entry:
    return Entry(path, LINK, 0, 0, 0, to)


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Liar]:
    with lying(tmp_path_factory.mktemp("liar")) as host:
        yield host


@pytest.fixture
def target(tmp_path: Path) -> Any:
    """A target with a file and a link out of it, in a folder of which nothing else may change."""
    put(tmp_path, "outside/sub/file", b"mine")
    put(tmp_path, "target/kept", b"mine")
    (tmp_path / "target" / "out").symlink_to("../outside")
    before = state(tmp_path)
    yield tmp_path / "target"
    after = {path: one for path, one in state(tmp_path).items() if not path.startswith("target")}
    assert after == {path: one for path, one in before.items() if not path.startswith("target")}
    assert (tmp_path / "target" / "kept").read_bytes() == b"mine"
    assert os.readlink(tmp_path / "target" / "out") == "../outside"


def test_a_host_that_plays_by_the_rules_is_taken_at_its_word(liar: Liar, target: Path) -> None:
    says = said(a_file("a"), D, a_file("d/b", len(BIG)), link("l", "d"),
                stream=small((0, b"abc")) + large(2, BIG) + END)  # fmt: skip
    outcome = liar.pull(target, says)
    assert (outcome.sent, outcome.linked, outcome.failed) == (["a", "d/b"], ["l"], {})
    assert (target / "a").read_bytes() == b"abc"
    assert (target / "d" / "b").read_bytes() == BIG
    assert os.readlink(target / "l") == "d"


LISTINGS: dict[str, list[Entry]] = {
    "up": [a_file("../x")],
    "absolute": [a_file("/tmp/x")],
    "down and up": [a_file("a/../../b")],
    "dot": [a_file("a/./b")],
    "nothing": [a_file("")],
    "an empty name": [a_file("a//b")],
    "NUL": [a_file("a\0b")],
    "twice": [a_file("a"), a_file("a")],
    "twice, as two kinds": [a_file("a"), link("a", "b")],
    "twice, spelled in two ways": [a_file("é"), a_file("\udcc3\udca9")],
    "no name on any disk": [a_file("\ud800")],
    "below a file": [a_file("a"), a_file("a/b")],
    "below a link": [link("a", "b"), a_file("a/b")],
    "far below a link": [link("a", "b"), a_file("a/b/c/d")],
    "below a link that comes later": [a_file("a/b/c"), link("a", "b")],
    "a link out": [link("a", "../outside")],
    "an absolute link": [link("a", "/etc")],
    "a link to nothing": [link("a", "")],
    "out in two steps": [link("x", "."), link("y", "x/..")],
    "a folder of ours": [a_file(f"{STAGING}/own-1/x")],
    "our folder as a link": [link(STAGING, ".")],
    "too long": [a_file("x/" * 5000 + "x")],
}


@pytest.mark.parametrize("entries", LISTINGS.values(), ids=list(LISTINGS))
@pytest.mark.parametrize("options", [sync.PLAIN, DELETE], ids=["", "delete"])
def test_a_name_or_link_that_leads_anywhere_is_refused_whole(
    liar: Liar, target: Path, entries: list[Entry], options: Options
) -> None:
    before = state(target)
    stream = small(*[(number, b"abc") for number, entry in enumerate(entries) if entry.kind == FILE]) + END
    with pytest.raises(BadReply) as failure:
        liar.pull(target, said(a_file("good"), *entries, stream=stream), options=options)
    assert failure.value.hint == "nothing was written"
    assert len(failure.value.message) < 2000
    assert state(target) == before


ROW = ["a", "f", 3, WHEN_NS, 0o644, ""]
ROWS: dict[str, Any] = {
    "a negative size": [[*ROW[:2], -3, *ROW[3:]]],
    "a size that is a float": [[*ROW[:2], 3.0, *ROW[3:]]],
    "a size that is a text": [[*ROW[:2], "3", *ROW[3:]]],
    "a size beyond any number": [[*ROW[:2], 1 << 63, *ROW[3:]]],
    "a time that is a float": [[*ROW[:3], 0.5, *ROW[4:]]],
    "a time beyond all years": [[*ROW[:3], 10**30, *ROW[4:]]],
    "a device": [["a", "c", *ROW[2:]]],
    "no kind": [["a", None, *ROW[2:]]],
    "no path": [[None, *ROW[1:]]],
    "no fields": [[]],
    "an object": {"path": "a"},
    "a number": 7,
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=list(ROWS))
def test_a_listing_of_another_shape_is_refused(liar: Liar, target: Path, rows: Any) -> None:
    before = state(target)
    with pytest.raises(BadReply, match="can't be read"):
        liar.pull(target, opening() + lines(rows) + message({"parts": {}}) + small((0, b"abc")) + END)
    assert state(target) == before


OPENINGS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"nonsense\n",
    "a list": b"[]\n",
    "only an opening": opening(),
    "no listing": opening() + message({"parts": {}}) + message({"end": True}),
    "a listing that is cut": opening() + lines([ROW])[:-3],
    "a listing of another length": opening() + message({"listing": "7"}),
    "buckets that are texts": opening(differ=["0"]) + lines([ROW]) + message({}),
    "buckets that are no list": opening(differ=7) + lines([ROW]) + message({}),
    "a listing of buckets that do not differ": opening(differ=[]) + lines([ROW]) + message({}) + END,
    "an endless line": b"x" * (9 << 20),
    "deep JSON": b"[" * 200_000 + b"\n",
}


@pytest.mark.parametrize("says", OPENINGS.values(), ids=list(OPENINGS))
def test_an_opening_that_makes_no_sense_is_an_error(liar: Liar, target: Path, says: bytes) -> None:
    before = state(target)
    with pytest.raises(RemoteError):
        liar.pull(target, says)
    assert state(target) == before


def test_fields_that_make_no_sense_are_as_good_as_none(liar: Liar, target: Path) -> None:
    for fields in (
        {"total": "x", "special": 7, "root": None, "free": [], "inodes": {}, "kind": 3, "leaf": 5},
        {"total": -5, "special": [None, {}], "root": {}, "kind": None},
        {"total": 10**400},
    ):
        outcome = liar.pull(target, said(a_file("a"), stream=small((0, b"abc")) + END, **fields))
        assert isinstance(outcome.total, int)
        (target / "a").unlink()


A, B = a_file("a"), a_file("b", len(BIG))
WRONG_DIGEST = "0" * 64
STREAMS: dict[str, tuple[bytes, str]] = {
    "no stream": (b"", "connection broke"),
    "no end": (small((0, b"abc")), "connection broke"),
    "an unknown message": (message({"y": 1}), "unknown message"),
    "no message": (b"[]\n", "not an object"),
    "no JSON": (b"abc\n", "not JSON"),
    "a long line": (b"x" * (9 << 20) + b"\n", "line is too long"),
    "a small file that nobody asked for": (small((7, b"abc")), "nobody asked for"),
    "a negative number": (small((-1, b"abc")), "nobody asked for"),
    "a number that is a text": (small(("0", b"abc")), "nobody asked for"),
    "a number that is a float": (small((0.0, b"abc")), "nobody asked for"),
    "a number that is a list": (small(([], b"abc")), "nobody asked for"),
    "a number that is true": (small((False, b"abc")), "nobody asked for"),
    "a file twice": (small((0, b"abc"), (0, b"abc")), "nobody asked for"),
    "rows of another shape": (message({"b": [7]}), "wrong shape"),
    "rows that are none": (message({"b": 7}), "wrong shape"),
    "a large file as a small one": (small((1, BIG)), "large file came as a small one"),
    "a large file that nobody asked for": (large(2, BIG), "nobody asked for"),
    "a folder that nobody asked for": (large(None, BIG), "nobody asked for"),
    "an offset that nobody asked for": (large(1, BIG, offset=1), "offset that nobody asked for"),
    "a negative offset": (large(1, BIG, offset=-1), "offset that nobody asked for"),
    "an offset that is none": (large(1, BIG, offset=None), "offset that nobody asked for"),
    "more bytes than announced": (large(1, BIG + b"x"), "not as long as announced"),
    "fewer bytes than announced": (large(1, BIG[:-1]), "not as long as announced"),
    "a negative count": (large(1, BIG, announced=-1), "not as long as announced"),
    "a count that is a float": (large(1, BIG, announced=1.0), "not as long as announced"),
    "a count beyond memory": (large(1, BIG, announced=1 << 60), "not as long as announced"),
    "an update that nobody asked for": (message({"u": [9, 1, 1]}), "nobody asked for"),
    "an update of another shape": (message({"u": [0]}), "wrong shape"),
    "an update to a negative size": (message({"u": [0, -1, 1]}), "wrong shape"),
    "an update beyond the disk": (message({"u": [1, 1 << 60, 1]}), "no room"),
    "giving up what nobody asked for": (message({"x": 5, "why": "so"}), "nobody asked for"),
    "a refusal": (message({"refused": {"code": "x", "message": "no more", "hint": "go away"}}), "no more"),
    "a refusal of another shape": (message({"refused": {"code": [], "message": {}}}), "{}"),
    "the wrong content, always": ((message({"b": [[0, WRONG_DIGEST]]}) + b"abc" + END) * 2, "not what was sent"),
    "the wrong large content, always": ((large(1, BIG, digest=WRONG_DIGEST) + END) * 2, "not what was sent"),
}  # fmt: skip


@pytest.mark.parametrize(("stream", "words"), STREAMS.values(), ids=list(STREAMS))
def test_a_stream_that_breaks_the_rules_is_an_error_and_leaves_only_what_was_right(
    liar: Liar, target: Path, stream: bytes, words: str
) -> None:
    with pytest.raises(RemoteError, match=words):
        liar.pull(target, said(A, B, D, stream=stream))
    new = {path for path in state(target) if not path.startswith(STAGING)} - {"kept", "out"}
    assert new <= {"a"}
    assert not new or (target / "a").read_bytes() == b"abc"


def test_a_host_that_keeps_files_back_is_named_by_them(liar: Liar, target: Path) -> None:
    why = "\x1b[31mbecause\n" + "x" * 10_000
    outcome = liar.pull(
        target, said(A, B, a_file("c"), stream=small((2, b"abc")) + message({"x": 0, "why": why}) + END)
    )
    assert sorted(outcome.failed) == ["a", "b"]
    assert len(outcome.failed["a"]) < 1000
    assert outcome.sent == ["c"]
    assert (target / "c").read_bytes() == b"abc"


def test_no_mode_lets_others_write_or_a_program_be_somebody_else(liar: Liar, target: Path) -> None:
    says = said(
        a_file("all", mode=0o6777), a_file("none", mode=0), D._replace(mode=0o7777), a_file("d/s", mode=0o4711),
        Entry("e", FOLDER, 0, WHEN_NS, 0), a_file("e/f", mode=0o1222),
        stream=small((0, b"abc"), (1, b"abc"), (3, b"abc"), (5, b"abc")) + END,
    )  # fmt: skip
    liar.pull(target, says)
    modes = {path: one[1] for path, one in state(target).items() if one[0] != "link" and path != "kept"}
    assert modes == {"all": 0o755, "none": 0o400, "d": 0o755, "d/s": 0o711, "e": 0o700, "e/f": 0o600}


def test_more_than_the_disk_has_is_refused_before_it_is_asked_for(liar: Liar, target: Path) -> None:
    before = state(target)
    with pytest.raises(RemoteError, match="MB are to be sent") as failure:
        liar.pull(target, said(a_file("a", (1 << 63) - 1), a_file("b", (1 << 63) - 1)))
    assert failure.value.code == "disk_full"
    assert state(target) == before


def test_nothing_is_written_below_a_link_of_ours_that_the_listing_does_not_name(liar: Liar, target: Path) -> None:
    for entry in (a_file("out/file"), a_file("out/sub/file"), Entry("out/new", FOLDER, 0, WHEN_NS, 0o755),
                  link("out/link", "sub")):  # fmt: skip
        with pytest.raises(RemoteError, match="another kind"):
            liar.pull(target, said(entry, stream=small((0, b"abc")) + END))


def test_a_link_of_theirs_does_not_take_the_place_of_a_folder_to_lead_through_ours(liar: Liar, target: Path) -> None:
    """A folder of ours is deleted, a link to our link out takes its name, a file follows through both."""
    put(target, "a/sub/old", b"x")
    with pytest.raises(BadReply, match="lies below 'a'"):
        liar.pull(target, said(link("a", "out"), a_file("kept"), a_file("a/sub/file"),
                               stream=small((1, b"abc"), (2, b"abc")) + END), options=DELETE)  # fmt: skip
    assert (target / "a" / "sub" / "old").read_bytes() == b"x"


def peak_bytes() -> int:
    """The most memory this process had since it was last forgotten."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_listing_of_a_million_entries_takes_bounded_memory(liar: Liar, target: Path) -> None:
    before = state(target)
    packed = zlib.compress((json.dumps([list(a_file("a"))] * 1000).encode() + b"\n") * 1000, 9)
    assert len(packed) < 200_000
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    now = peak_bytes()
    with pytest.raises(BadReply, match="named twice"):
        liar.pull(target, opening() + message({"listing": len(packed)}) + packed + message({"parts": {}}) + END)
    assert peak_bytes() - now < 1 << 30
    assert state(target) == before


def test_of_the_names_asked_for_no_others_come(liar: Liar, target: Path) -> None:
    before = state(target)
    for path in ("b", "ab", "a2/x", "log.txt2"):
        with pytest.raises(BadReply, match="nobody asked for it"):
            liar.pull(target, said(a_file(path), stream=small((0, b"abc")) + END), names=["a", "log.txt"])
    assert state(target) == before
    liar.pull(target, said(a_file("a/x"), stream=small((0, b"abc")) + END), names=["a", "log.txt"])
    assert (target / "a" / "x").read_bytes() == b"abc"


def test_the_host_does_not_choose_the_name_of_the_one_file_asked_for(liar: Liar, target: Path) -> None:
    says = said(a_file(".bashrc"), kind=FILE, stream=small((0, b"abc")) + END)
    liar.pull(target / "unused", says, file_at=(target, "model.bin"))
    assert set(state(target)) == {"kept", "out", "model.bin"}
    before = state(target)
    for entries in ([], [a_file("a"), a_file("b")], [a_file("d/a")], [Entry("a", FOLDER, 0, 0, 0)],
                    [link("a", "kept")]):  # fmt: skip
        with pytest.raises(BadReply):
            liar.pull(target / "unused", said(*entries, kind=FILE), file_at=(target, "model.bin"))
    for name in ("..", ".", "", "../a", STAGING):
        with pytest.raises(RemoteError, match="can't be the name of a file"):
            liar.pull(target / "unused", says, file_at=(target, name))
    assert state(target) == before


REPLIES: dict[str, bytes] = {
    "nothing": b"",
    "no message": b"7\n",
    "done with a number": message({"done": 7}),
    "done without failures": message({"done": {}}),
    "failures that are none": message({"done": {"failed": 7}}),
    "failures of another shape": message({"done": {"failed": [7]}}),
    "failures that are lists": message({"done": {"failed": [[[], "why"]]}}),
    "bad, always": message({"bad": [0]}) * 2,
    "bad of another shape": message({"bad": [[], {}, "x"]}) * 2,
    "a refusal": message({"refused": {"code": "x", "message": "no"}}),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=list(REPLIES))
def test_a_reply_to_a_push_that_makes_no_sense_is_an_error(liar: Liar, tmp_path: Path, reply: bytes) -> None:
    source = tmp_path / "source"
    put(source, "a", b"abc")
    with pytest.raises(RemoteError):
        liar.push(source, opening() + lines([]) + message({"parts": {}, "sizes": []}) + reply)


def test_what_a_host_makes_up_about_contents_does_no_harm_to_a_push(liar: Liar, tmp_path: Path) -> None:
    source = tmp_path / "source"
    put(source, "a", b"abc")
    put(source, "b", bytes(sync.WORTH_ASKING_BYTES))
    there = [["a", "f", 3, 5, 0o644, ""], ["../c", "f", 20_000, 5, 0o644, ""], ["a/b/\0", "l", 0, 0, 0, "/"]]
    more = message({"parts": {"x": "y"}, "sizes": ["x", None, sync.WORTH_ASKING_BYTES, []]})
    done = message({"done": {"failed": [[99, "no such number"], ["x", "nor this"], [1, "\x1b[2Jbecause"]]}})
    for answer in ({"hash": 7, "have": 7}, {"hash": {"a": []}, "have": [[], {}, 7, "x"]}, {}):
        outcome = liar.push(source, opening() + lines(there) + more + message(answer) + done)
        assert list(outcome.failed) == ["b"]
