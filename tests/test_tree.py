"""Trees as lists of entries: names of every kind, listings from anywhere, and differences that are never missed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remote.onhost import tree
from remote.onhost.frames import BrokenStream, Reader
from remote.onhost.refused import Refused
from remote.onhost.tree import FILE, FOLDER, LINK, STAGING, Buckets, Entry

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
EXAMPLES = 500 if os.environ.get("CI") else 100

NAMES = ["a", "b", "sub", "with space", "é", "e\u0301", "🦙", "\udcff", "new\nline", "-rf", "'\"$(x)", "x" * 40]
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)
entries = st.builds(
    Entry,
    paths,
    st.sampled_from([FILE, FOLDER, LINK]),
    st.integers(0, 2**62),
    st.integers(-(10**18), 4 * 10**18),
    st.integers(0, 0o777),
    st.sampled_from(["", "a", "../b", "\udcff\n"]),
)
trees = st.lists(entries, max_size=200, unique_by=tree.get_path)


def file(path: str, size: int = 0, mtime_ns: int = 0, mode: int = 0o644) -> Entry:
    return Entry(path, FILE, size, mtime_ns, mode)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, FOLDER, 0, 0, mode)


def link(path: str, to: str) -> Entry:
    return Entry(path, LINK, 0, 0, 0, to)


def listing(lines: bytes) -> bytes:
    """A listing of these lines, whatever they are."""
    packed = zlib.compress(lines, 9)
    return json.dumps({"listing": len(packed)}).encode() + b"\n" + packed


def unpacked(content: bytes, piece: int = 1 << 17) -> list[Entry]:
    return tree.unpack(Reader(content[at : at + piece] for at in range(0, len(content), piece)))


# -- listings on the wire


@settings(max_examples=EXAMPLES)
@given(trees, st.integers(1, 5000))
def test_a_listing_arrives_as_it_was_sent_in_pieces_of_any_size(listed: list[Entry], piece: int) -> None:
    content = b"".join(tree.pack(listed))
    assert unpacked(content, piece) == listed


def test_a_listing_of_many_long_names_arrives() -> None:
    listed = [file("/".join(f"{number:03}" + "\udcfe" * 252 for _ in range(16))) for number in range(300)]
    assert unpacked(b"".join(tree.pack(listed))) == listed


def test_what_follows_a_listing_is_still_there() -> None:
    reader = Reader([b"".join(tree.pack([file("a")])) + b'{"next": 1}\n'])
    tree.unpack(reader)
    assert reader.message() == {"next": 1}


GOOD = ["a", "f", 0, 0, 0o644, ""]
WRONG: dict[str, Any] = {
    "no list": 7,
    "an object": {"a": 1},
    "no entry": [7],
    "a text": ["abcdef"],
    "too few": [GOOD[:5]],
    "too many": [[*GOOD, ""]],
    "path is none": [[None, *GOOD[1:]]],
    "path is a number": [[1, *GOOD[1:]]],
    "unknown kind": [["a", "b", *GOOD[2:]]],
    "kind is a list": [["a", ["f"], *GOOD[2:]]],
    "negative size": [["a", "f", -1, *GOOD[3:]]],
    "size is huge": [["a", "f", 1 << 63, *GOOD[3:]]],
    "size is a float": [["a", "f", 1.0, *GOOD[3:]]],
    "size is not finite": [["a", "f", float("inf"), *GOOD[3:]]],
    "size is a bool": [["a", "f", True, *GOOD[3:]]],
    "size is a text": [["a", "f", "1", *GOOD[3:]]],
    "time is a float": [["a", "f", 0, 0.5, *GOOD[4:]]],
    "time is beyond all years": [["a", "f", 0, 10**30, *GOOD[4:]]],
    "mode is none": [["a", "f", 0, 0, None, ""]],
    "link is a number": [["a", "l", 0, 0, 0, 1]],
}


@pytest.mark.parametrize("rows", WRONG.values(), ids=list(WRONG))
def test_an_entry_of_the_wrong_shape_is_no_listing(rows: Any) -> None:
    with pytest.raises(BrokenStream):
        unpacked(listing(json.dumps(rows).encode() + b"\n"))


BROKEN = {
    "no message": b"",
    "no size": b"{}\n",
    "a negative size": b'{"listing": -1}\n',
    "a size that is a float": b'{"listing": 1.5}\n',
    "not compressed": b'{"listing": 5}\nhello',
    "cut": listing(json.dumps([GOOD] * 1000).encode() + b"\n")[:-5],
    "no end of line": listing(json.dumps([GOOD]).encode()),
    "no JSON": listing(b"[[\n"),
    "deep JSON": listing(b"[" * 500_000 + b"\n"),
    "a number of many digits": listing(b'[["a","f",' + b"9" * 9999 + b',0,0,""]]\n'),
    "not text": listing(b'[["\xff","f",0,0,0,""]]\n'),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=list(BROKEN))
def test_bytes_that_are_no_listing_are_refused(content: bytes) -> None:
    with pytest.raises(BrokenStream):
        unpacked(content)


@pytest.mark.parametrize(
    "bomb", [b"[" + b"{}," * 20_000_000 + b"{}]\n", b" " * 60_000_000 + b"\n", b"[" + b"0," * 30_000_000], ids=len
)
def test_a_few_bytes_that_unpack_into_an_endless_line_take_little_memory(bomb: bytes) -> None:
    content = listing(bomb)
    assert len(content) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BrokenStream):
            unpacked(content)
        assert tracemalloc.get_traced_memory()[1] < 48 << 20
    finally:
        tracemalloc.stop()


def test_modes_beyond_permissions_are_dropped_at_the_door() -> None:
    [entry] = unpacked(listing(json.dumps([["a", "f", 0, 0, 0o106777, ""]]).encode() + b"\n"))
    assert entry.mode == 0o777


# -- what differs


@settings(max_examples=EXAMPLES)
@given(trees, st.data())
def test_no_difference_is_missed_and_equal_trees_have_none(listed: list[Entry], data: st.DataObject) -> None:
    changed = {entry.path: entry for entry in listed}
    for entry in data.draw(st.lists(entries, max_size=5), "put in"):
        changed[entry.path] = entry
    for path in data.draw(st.lists(st.sampled_from(sorted(changed) or [""]), max_size=3), "taken out"):
        changed.pop(path, None)
    mask = data.draw(st.sampled_from([0o777, 0o755, 0]), "mask")
    count = data.draw(st.sampled_from([1, 2, 7, tree.bucket_count(len(listed))]), "buckets")
    theirs = tree.digests(listed, count, mask)
    assert tree.digest_count(theirs) == count
    buckets = Buckets.differing(data.draw(st.permutations(sorted(changed.values()))), theirs, mask)
    before = {entry.path: entry for entry in listed}
    shown = set(buckets.of(listed)) | set(buckets.of(list(changed.values())))
    for path in before.keys() | changed.keys():
        one, other = before.get(path), changed.get(path)
        if one is None or other is None or not tree.same(one, other, mask):
            assert {one, other} - {None} <= shown
    if all(path in before and tree.same(entry, before[path], mask) for path, entry in changed.items()):
        assert len(changed) < len(before) or buckets.numbers == frozenset()
    assert sorted(buckets.of(listed) + buckets.outside(listed)) == sorted(listed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (file("a", 1), file("a", 2)),
        (file("a", 1, 1000), file("a", 1, 2000)),
        (file("a", mode=0o644), file("a", mode=0o600)),
        (folder("a"), folder("a", 0o700)),
        (folder("a"), folder("a")._replace(mtime_ns=5_000_000)),
        (link("a", "b"), link("a", "c")),
        (folder("a"), file("a", mode=0o755)),
        (link("a", ""), folder("a")),
    ],
    ids=["size", "time", "mode", "folder's mode", "folder's time", "link", "kind", "link or folder"],
)
def test_each_trait_counts(one: Entry, other: Entry) -> None:
    assert not tree.same(one, other, 0o777)
    assert tree.digests([one], 1, 0o777) != tree.digests([other], 1, 0o777)


def test_what_one_of_the_two_systems_can_not_keep_does_not_count() -> None:
    for one, other, mask in (
        (file("a", 1, 1000), file("a", 1, 1999), 0o777),
        (file("a", mode=0o644), file("a", mode=0o755), 0),
        (file("a", mode=0o775), file("a", mode=0o755), 0o755),
        (link("a", "b"), link("a", "b")._replace(mode=0o777, mtime_ns=5_000_000), 0o777),
    ):
        assert tree.same(one, other, mask)
        assert tree.digests([one], 1, mask) == tree.digests([other], 1, mask)


def test_without_digests_everything_may_differ() -> None:
    buckets = Buckets.differing([file("a")], b"", 0o777)
    assert buckets.of([file("a"), file("b")]) == [file("a"), file("b")]
    assert buckets.outside([file("a")]) == []


# -- names and links of a host that means harm


SAFE = [folder("a"), file("a/b"), link("a/up", "../a"), link("l", "a/b"), file("c d\n"), file("\udcff"), file("..x")]


def test_an_honest_listing_has_no_problems() -> None:
    assert tree.problems(SAFE, windows=False) == []
    assert tree.problems([file("x/y/z"), file("x/y/w")], windows=False) == []  # folders need not be listed


@pytest.mark.parametrize(
    "path",
    ["../x", "..", ".", "", "/", "/etc/passwd", "a/../../b", "a/..", "./a", "a//b", "a/", "//a", "a\0b", "\0",
     STAGING, f"{STAGING}/own-1/x.part1", "\ud800", "a/\udfff", "\udcc3\udca9", "x/" * 3000 + "x"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [FILE, FOLDER, LINK])
def test_a_name_that_is_none_is_refused(path: str, kind: str) -> None:
    [problem] = tree.problems([*SAFE, Entry(path, kind, 0, 0, 0o644, "a")], windows=False)
    assert len(problem) < 2000


def test_another_place_named_like_our_staging_is_a_name() -> None:
    assert tree.problems([file(f"a/{STAGING}"), file(f"{STAGING}2")], windows=False) == []


@pytest.mark.parametrize(
    "listed",
    [
        [file("a"), file("a")],
        [folder("a"), file("a")],
        [file("a"), file("a/b")],
        [link("a", "b"), file("a/b")],
        [file("a/b"), link("a", "b")],
        [link("a", "."), file("a/b/c/d")],
        [link("a", "."), folder("a/b"), file("a/b/c")],
        [file("a"), folder("a/b/c")],
    ],
    ids=str,
)
def test_entries_that_can_not_be_a_tree_are_refused(listed: list[Entry]) -> None:
    assert tree.problems(listed, windows=False)
    assert tree.problems(listed[::-1], windows=False)


def test_a_long_way_down_is_looked_at_in_little_time() -> None:
    deep = [file("/".join(f"{number}" for number in range(at))) for at in range(1, 900)]
    wide = [file(f"{'d/' * 1000}{number}") for number in range(20_000)]
    assert len(tree.problems(deep, windows=False)) == 898
    assert tree.problems(wide, windows=False) == []


@pytest.mark.parametrize(
    ("path", "to", "out"),
    [
        ("a", "b", False),
        ("a", "b/c", False),
        ("a", "./b", False),
        ("a", ".", False),
        ("d/a", "..", False),
        ("d/a", "../b", False),
        ("d/e/a", "../../b", False),
        ("a", "..x", False),
        ("a", "..", True),
        ("a", "../b", True),
        ("d/a", "../../b", True),
        ("a", "/etc/passwd", True),
        ("a", "/", True),
        ("a", "", True),
        ("a", "b/..", True),
        ("a", "b/../../c", True),
        ("d/a", "../b/..", True),
        ("a", ".//..", True),
        ("a", "b\0", True),
        ("a", "\ud800", True),
        ("a", "x/" * 4000, True),
    ],
)
def test_where_a_link_could_lead(path: str, to: str, out: bool) -> None:
    assert tree.leads_out(path, to) is out


steps = st.lists(st.sampled_from(["..", ".", "", "a", "b", "c"]), min_size=1, max_size=5).map("/".join)
places = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)


@posix
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(places, steps, min_size=1, max_size=6))
@example({"a": ".", "b": "a/.."})
@example({"a/b": "..", "c": "a/b/.."})
@example({"a/b/c": "../..", "b": "a/b/c/a/b/c"})
def test_links_that_pass_never_lead_out_on_a_real_disk(links: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        root = os.path.realpath(os.path.join(temporary, "root"))
        listed = [link(path, to) for path, to in links.items() if not tree.leads_out(path, to)]
        listed = [one for one in listed if not any(one.path.startswith(f"{other.path}/") for other in listed)]
        assert tree.problems(listed, windows=False) == []
        for name in ("a", "b", "c"):
            for below in ("a", "b", "c"):
                with contextlib.suppress(OSError):
                    os.makedirs(os.path.join(root, name, below))
        for one in listed:
            at = os.path.join(root, one.path)
            os.makedirs(os.path.dirname(at), exist_ok=True)
            if os.path.isdir(at):
                remove(at)
            os.symlink(one.link, at)
        for one in listed:
            at = os.path.join(root, one.path)
            try:
                os.stat(at)
            except FileNotFoundError:
                pass  # whatever is made there would lie where realpath says
            except OSError:  # in circles
                continue
            reached = os.path.realpath(at)
            assert reached == root or reached.startswith(root + os.sep), (listed, one, reached)


def remove(path: str) -> None:
    for below in os.listdir(path):
        at = os.path.join(path, below)
        if os.path.islink(at):
            os.unlink(at)
        else:
            remove(at)
    os.rmdir(path)


@pytest.mark.parametrize(
    "name",
    ["CON", "con.txt", "Aux", "nul", "NUL .txt", "com1", "COM9.log", "lpt¹", "CONIN$", "conout$", "a:b", "C:", "a<b",
     "x>", 'q"q', "a|b", "what?", "st*r", "back\\slash", "tab\t", "new\nline", "\x1f", "dot.", "space ", "..", "\udcff",
     "x" * 256, "🦙" * 128],
)  # fmt: skip
def test_a_name_that_windows_can_not_have_is_refused_there_and_only_there(name: str) -> None:
    listed = [folder("d"), file(f"d/{name}")]
    assert tree.problems(listed, windows=True)
    assert (tree.problems(listed, windows=False) == []) is (name != "..")


@pytest.mark.parametrize(
    "name", ["a", "conn", "com", "com10", "console.txt", "aux1", "x.con", ".gitignore", "a b", "é", "好", "x" * 255]
)
def test_other_names_are_fine_on_windows(name: str) -> None:
    assert tree.problems([file(f"d/{name}"), folder(name)], windows=True) == []


def test_windows_makes_no_links() -> None:
    assert len(tree.problems([file("b"), link("a", "b")], windows=True)) == 1


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["a", "A"], 1),
        (["a", "b", "B", "c", "C"], 2),
        (["d/x", "D/y"], 0),
        (["d", "D", "d/x", "D/y"], 1),
        (["straße", "STRASSE"], 1),
        (["é", "e\u0301"], 1),
        (["\udcff", "\udcfe"], 0),
        (["a", "b"], 0),
    ],
)
def test_names_that_are_one_where_case_does_not_count(names: Sequence[str], count: int) -> None:
    assert len(tree.collisions([file(name) for name in names])) == count


# -- what lies on the disk


ODD = [
    b"with space", b"'single' \"double\"", b"new\nline", b"tab\t", "好 🦙".encode(), b"-rf", b"--delete", b"$(id)`id`",
    b"*?[a]", b"back\\slash", b"\xff\xfe", b"caf\xe9", b"~", b"#", b"%s", b"..x", b"x" * 255, "é".encode() * 127,
]  # fmt: skip


@posix
def test_every_name_a_disk_can_have_is_listed_and_leads_back_to_it(tmp_path: Path) -> None:
    for name in ODD:
        at = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(at)
        with open(os.path.join(at, name), "wb") as new:
            new.write(name)
    found = tree.scan(str(tmp_path)).entries
    assert [entry.path for entry in found] == sorted(entry.path for entry in found)
    assert {tree.native(entry.path) for entry in found} == {*ODD, *(name + b"/" + name for name in ODD)}
    for entry in found:
        assert tree.text(tree.native(entry.path)) == entry.path
        assert entry.kind == (FILE if "/" in entry.path else FOLDER)
    assert tree.problems(found, windows=False) == []
    assert unpacked(b"".join(tree.pack(found))) == found


@posix
def test_a_scan_sees_files_folders_and_links_and_names_the_rest(tmp_path: Path) -> None:
    (tmp_path / "d" / STAGING).mkdir(parents=True)
    (tmp_path / "d" / "f").write_bytes(b"four")
    (tmp_path / "d" / "f").chmod(0o4755)
    os.utime(tmp_path / "d" / "f", ns=(1, -5_000_000_001))
    (tmp_path / "to folder").symlink_to("d")
    (tmp_path / "to nothing").symlink_to("nothing")
    (tmp_path / "out").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / STAGING / "own-1").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        found = tree.scan(str(tmp_path))
    assert found.special == ["door", "pipe"]
    by_path = {entry.path: entry for entry in found.entries}
    assert list(by_path) == ["d", f"d/{STAGING}", "d/f", "out", "to folder", "to nothing"]
    assert by_path["d/f"] == Entry("d/f", FILE, 4, -5_000_000_001, 0o755)
    assert by_path["to folder"] == link("to folder", "d")
    assert by_path["out"].link == "/etc"


@posix
def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").touch()
    (tmp_path / "root").symlink_to("real")
    assert [entry.path for entry in tree.scan(str(tmp_path / "root")).entries] == ["f"]


def test_only_the_folders_asked_for_are_entered(tmp_path: Path) -> None:
    for name in ("ours", "ours/below", "large neighbour"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").touch()
    found = tree.scan(str(tmp_path), folders=frozenset({"ours"})).entries
    assert [entry.path for entry in found] == ["large neighbour", "ours", "ours/below", "ours/f"]


def test_too_many_files_are_refused_before_all_are_listed(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}").touch()
    assert len(tree.scan(str(tmp_path), limit=20).entries) == 20
    with pytest.raises(Refused, match="more than 19 files"):
        tree.scan(str(tmp_path), limit=19)


class Vanishing:
    """Rules that leave nothing out; what is called `gone` is removed while it is looked at."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def skips(self, name: str, is_dir: bool) -> bool:
        if name == "gone":
            (self._root / name).unlink()
        return False

    def enter(self, name: str) -> Vanishing:
        return Vanishing(self._root / name)


def test_what_vanishes_while_it_is_listed_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("gone", "d/gone", "d/stays"):
        (tmp_path / name).touch()
    found = tree.scan(str(tmp_path), rules=Vanishing(tmp_path)).entries
    assert [entry.path for entry in found] == ["d", "d/stays"]
