"""Syncs, both ways: the target becomes exactly what the source is, nothing else is touched, and no host is believed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remote import store, sync
from remote.agent import Agent
from remote.differences import WORTH_LOOKING_BYTES, compare, to_delete
from remote.errors import BadReply, NotFound, RemoteError
from remote.hash_cache import HashCache
from remote.ignore import Ignore
from remote.local_host import LocalHost
from remote.onhost import tree
from remote.onhost.frames import CHUNK_BYTES
from remote.onhost.refused import Refused
from remote.onhost.target import Target, part_key
from remote.onhost.transfer import SMALL_BYTES
from remote.onhost.tree import FILE, FOLDER, LINK, STAGING, Buckets, Entry
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from remote.sync import Moving, Options
from tests.answers import Answers
from tests.box import Box, box_missing
from tests.connected import connect, embedded_host
from tests.trees import WHEN_NS, contents, kept, put, state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

WAYS = pytest.mark.parametrize("way", ["push", "pull"])
EXAMPLES = 100 if os.environ.get("CI") else 15
DELETE = Options(delete=True)
ODD = [
    b"with space", b"'single' \"double\"", b"new\nline", b"tab\t", "好 🦙".encode(), b"-rf", b"--delete", b"$(id)`id`",
    b"*?[a]", b"back\\slash", b"\xff\xfe", b"caf\xe9", b"~", b"#", b"%s", b"..x", b"x" * 255, "é".encode() * 127,
]  # fmt: skip


class Pair:
    """A source and a target, one of them on the host, which is this machine unless another is given."""

    def __init__(self, folder: Path, way: str, agent: Agent | None = None) -> None:
        self.way = way
        self.source, self.target = folder / "source", folder / "target"
        self.source.mkdir()
        self.workspace = folder / "workspace"
        self.agent = agent or Agent(LocalHost(folder), workspace=str(self.workspace))

    def sync(self, options: Options = sync.PLAIN, **more: Any) -> sync.Outcome:
        if self.way == "push":
            return sync.push(self.agent, self.source, str(self.target), options=options, **more)
        return sync.pull(self.agent, str(self.source), self.target, options=options, **more)

    @property
    def mask(self) -> int:
        """What of a mode arrives."""
        return sync.MODES_UP if self.way == "push" else sync.MODES_DOWN

    def require_equal(self) -> None:
        assert kept(state(self.target), self.mask) == kept(state(self.source), self.mask)

    def rests(self) -> None:
        """There is nothing left to do, and doing it again does nothing."""
        before = state(self.target)
        again = self.sync()
        assert (again.changed, again.sent_bytes, again.deleted, again.failed) == (0, 0, [], {})
        assert state(self.target) == before


@pytest.fixture
def pair(tmp_path: Path, way: str) -> Pair:
    return Pair(tmp_path, way)


def odd(root: Path) -> None:
    """One of everything."""
    top = os.fsencode(root)
    for number, name in enumerate(ODD):
        at = os.path.join(top, name)
        os.mkdir(at)
        with open(os.path.join(at, name), "wb") as file:
            file.write(name)
        os.symlink(name, os.path.join(at, b"link"))
        os.utime(os.path.join(at, name), ns=(WHEN_NS + number * 1000,) * 2)
    put(root, "empty")
    (root / "empty folder").mkdir()
    (root / "empty folder" / "another").mkdir(mode=0o700)
    for mode in (0o400, 0o444, 0o600, 0o640, 0o755, 0o555, 0o711):
        put(root, f"modes/{mode:o}", b"x", mode=mode)
    for when_ns in (0, -1_000, -(10**18), 999, 4_000_000_000 * 10**9, time.time_ns()):
        put(root, f"times/{when_ns}", b"x", mtime_ns=when_ns)
    for size in (1, SMALL_BYTES, SMALL_BYTES + 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7):
        put(root, f"sizes/{size}", os.urandom(size))
    put(root, "links/deep/file", b"x")
    for name, to in (
        ("up", "../../modes/600"),
        ("root", "../.."),
        ("self", "self"),
        ("nowhere", "no/such"),
        ("file", "file"),
    ):
        if name != "file":
            (root / "links" / "deep" / name).symlink_to(to)
    (root / "links" / "folder").symlink_to("deep")
    for folder, when in (("links/deep", 5), ("links", 6), ("empty folder", 7), ("modes", WHEN_NS // 10**9)):
        os.utime(root / folder, (when, when))
    (root / "modes").chmod(0o750)


# -- exactness


@WAYS
def test_everything_arrives_as_it_is(pair: Pair) -> None:
    odd(pair.source)
    before = state(pair.source)
    outcome = pair.sync()
    pair.require_equal()
    assert state(pair.source) == before
    assert outcome.failed == {}
    assert (
        len(outcome.sent) + len(outcome.linked) == outcome.total == sum(one[0] != "folder" for one in before.values())
    )
    assert outcome.sent_bytes == sum(
        at.stat().st_size for at in pair.source.rglob("*") if at.is_file() and not at.is_symlink()
    )
    pair.rests()


@WAYS
def test_everything_arrives_over_ssh(tmp_path: Path, way: str) -> None:
    with embedded_host(tmp_path / "home") as (_, host):
        pair = Pair(tmp_path, way, Agent(host))
        odd(pair.source)
        pair.sync()
        pair.require_equal()
        pair.rests()


@pytest.mark.ssh
@WAYS
def test_everything_arrives_over_openssh(tmp_path: Path, way: str, sshd: Any) -> None:
    with connect(sshd) as host:
        pair = Pair(tmp_path, way, Agent(host, workspace=str(tmp_path / "work")))
        odd(pair.source)
        pair.sync()
        pair.require_equal()
        pair.rests()


@WAYS
def test_a_change_changes_that_and_nothing_else(pair: Pair) -> None:
    for name in ("a/1", "a/2", "b/1", "c"):
        put(pair.source, name, name.encode())
    pair.sync()
    inodes = {path: (pair.target / path).stat().st_ino for path in ("a/1", "a/2", "b/1", "c")}
    with open(pair.source / "a" / "2", "r+b") as file:  # in place: the folder's time does not change
        file.write(b"new content")
    put(pair.source, "b/new/2", b"2")
    (pair.source / "c").chmod(0o600)
    outcome = pair.sync()
    assert (outcome.sent, outcome.adopted) == (["a/2", "b/new/2"], ["c"])
    pair.require_equal()  # with the times of the folders
    for path in ("a/1", "b/1", "c"):
        assert (pair.target / path).stat().st_ino == inodes[path]
    pair.rests()


@WAYS
def test_folders_keep_their_times_when_something_in_them_is_deleted(pair: Pair) -> None:
    put(pair.source, "a/b/keep")
    pair.sync()
    os.utime(pair.source / "a" / "b", (5, 5))
    pair.sync()
    put(pair.target, "a/b/extra")
    assert pair.sync(DELETE).deleted == ["a/b/extra"]
    pair.require_equal()
    assert (pair.target / "a" / "b").stat().st_mtime == 5


@WAYS
def test_the_target_and_the_folders_above_it_are_made(pair: Pair) -> None:
    put(pair.source, "a", b"x")
    pair.target = pair.target / "not" / "there yet"
    pair.sync()
    assert contents(pair.target) == {"a": b"x"}


@WAYS
def test_an_empty_folder_is_a_source_too(pair: Pair) -> None:
    assert pair.sync() == sync.Outcome(root=str(pair.target if pair.way == "push" else pair.source))
    pair.rests()


@WAYS
def test_the_target_may_be_a_link_to_a_folder(pair: Pair) -> None:
    put(pair.source, "a", b"x")
    pair.target.with_name("real").mkdir()
    pair.target.symlink_to("real")
    pair.sync()
    assert pair.target.is_symlink()
    assert contents(pair.target.with_name("real")) == {"a": b"x"}


@WAYS
def test_a_target_that_is_a_file_stays_one(pair: Pair) -> None:
    put(pair.source, "a", b"x")
    pair.target.write_bytes(b"mine")
    with pytest.raises(RemoteError, match="is not a folder") as failure:
        pair.sync()
    assert failure.value.hint
    assert pair.target.read_bytes() == b"mine"


def test_a_path_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "pull")
    for path in (tmp_path / "nothing", tmp_path / "nothing" / "below"):
        with pytest.raises(NotFound, match="there is no") as failure:
            sync.pull(pair.agent, str(path), pair.target)
        assert failure.value.hint
    assert not pair.target.exists()


@WAYS
def test_what_is_no_file_folder_or_link_is_named_and_left_out(pair: Pair) -> None:
    put(pair.source, "d/file", b"x")
    os.mkfifo(pair.source / "d" / "pipe")
    assert pair.sync().special == ["d/pipe"]
    assert contents(pair.target) == {"d/file": b"x"}


@WAYS
def test_a_dry_run_changes_neither_side(pair: Pair) -> None:
    odd(pair.source)
    put(pair.target, "extra/file", b"x" * 20_000)
    put(pair.source, "renamed", b"x" * 20_000)
    put(pair.target, "sizes/1", b"yy")
    before = state(pair.source), state(pair.target), pair.target.stat().st_mtime_ns
    planned = pair.sync(Options(delete=True, dry_run=True))
    assert (state(pair.source), state(pair.target), pair.target.stat().st_mtime_ns) == before
    assert planned.sent_bytes == 0
    done = pair.sync(DELETE)
    assert (planned.sent, planned.copied, planned.linked, planned.adopted, planned.deleted, planned.total) == (
        done.sent, done.copied, done.linked, done.adopted, done.deleted, done.total
    )  # fmt: skip
    assert done.copied == ["renamed"]
    assert set(done.deleted) == {"extra", "extra/file"}
    pair.require_equal()


@WAYS
def test_a_dry_run_makes_no_target(pair: Pair) -> None:
    put(pair.source, "a", b"x")
    assert pair.sync(Options(dry_run=True)).sent == ["a"]
    assert not pair.target.exists()


@pytest.mark.slow
@WAYS
def test_a_file_of_more_than_4_gib_arrives(pair: Pair) -> None:
    with (pair.source / "large").open("wb") as file:
        for at in (0, (1 << 32) - 3, (1 << 32) + 100_000_000):
            file.seek(at)
            file.write(b"some bytes")
    outcome = pair.sync()
    assert outcome.sent_bytes == (1 << 32) + 100_000_010
    pair.require_equal()
    pair.rests()


# -- one file


@pytest.mark.parametrize("name", ["new name", "-x", "\udcff", "x" * 255])
def test_a_file_goes_into_a_folder_or_gets_a_new_name(tmp_path: Path, name: str) -> None:
    pair = Pair(tmp_path, "push")
    file = put(pair.source, "file", b"content", mode=0o640)
    (pair.target / "folder").mkdir(parents=True)
    put(pair.target, "neighbour", b"y")
    sync.push(pair.agent, file, str(pair.target / "folder"), leaf=name)
    sync.push(pair.agent, file, str(pair.target / name), leaf="file")
    sync.push(pair.agent, file, f"{pair.target}/made/", leaf="file")
    home = tmp_path / "home"
    home.mkdir()
    at_home = Agent(LocalHost(home), workspace=str(pair.workspace))
    sync.push(at_home, file, name, leaf="file")  # relative, no folder named
    sync.push(at_home, file, ".", leaf="file")
    expected = state(pair.source)["file"]
    assert state(home) == {name: expected, "file": expected}
    del (found := kept(state(pair.target), 0o777))["neighbour"]
    assert {path: one for path, one in found.items() if one[0] == "file"} == {
        f"folder/{name}": expected, name: expected, "made/file": expected
    }  # fmt: skip
    again = sync.push(pair.agent, file, str(pair.target / name), leaf="file")
    assert (again.changed, again.total) == (0, 1)
    sync.pull(pair.agent, str(pair.target / name), tmp_path / "unused", file_at=(tmp_path / "down", name))
    assert state(tmp_path / "down") == {name: expected}
    again = sync.pull(pair.agent, str(pair.target / name), tmp_path / "unused", file_at=(tmp_path / "down", name))
    assert (again.changed, again.total) == (0, 1)
    assert not (tmp_path / "unused").exists()


def test_a_file_behind_a_link_comes_under_the_name_that_was_asked_for(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "pull")
    put(pair.source, "v3", b"content")
    (pair.source / "latest").symlink_to("v3")
    sync.pull(pair.agent, str(pair.source / "latest"), tmp_path / "unused", file_at=(pair.target, "latest"))
    assert contents(pair.target) == {"latest": b"content"}


@WAYS
def test_one_file_takes_no_name_that_something_else_has(tmp_path: Path, way: str) -> None:
    pair = Pair(tmp_path, way)
    file = put(pair.source, "file", b"content")
    (pair.target / "file").mkdir(parents=True)
    put(pair.target, "file/file", b"content")
    for name in ("file", "link"):
        with contextlib.suppress(FileExistsError):
            (pair.target / "link").symlink_to("file/file")
        with pytest.raises(RemoteError, match="taken"):
            if way == "push":
                sync.push(pair.agent, file, str(pair.target), leaf=name)
            else:
                sync.pull(pair.agent, str(file), pair.target / "file", file_at=(pair.target, name))
    assert contents(pair.target) == {"file/file": b"content", "link": b"content"}


# -- links


def test_a_link_that_leads_out_is_not_pushed_and_nothing_else_is(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "push")
    put(pair.source, "a", b"x")
    for name, to in (("absolute", "/etc/passwd"), ("up", "../x"), ("through", "a/../../x")):
        (pair.source / name).symlink_to(to)
    with pytest.raises(RemoteError, match=r"3 links in .* lead out of it") as failure:
        pair.sync()
    assert "absolute -> /etc/passwd" in failure.value.message
    assert ".launchignore" in failure.value.hint
    assert not pair.target.exists()
    (pair.source / ".launchignore").write_text("absolute\nup\nthrough\n")
    pair.sync(rules=Ignore.at(pair.source))
    assert (pair.target / "a").read_bytes() == b"x"


@pytest.mark.parametrize("to", ["/etc/passwd", "/etc", "../outside", "d/../../outside"])
def test_a_link_that_leads_out_is_not_followed_and_not_made_by_a_pull(tmp_path: Path, to: str) -> None:
    pair = Pair(tmp_path, "pull")
    put(pair.source, "a", b"x")
    (pair.source / "d").mkdir()
    put(tmp_path, "outside/secret", b"s")
    (pair.source / "link").symlink_to(to)
    with pytest.raises(BadReply, match="'link': a link that leads outside"):
        pair.sync()
    assert not pair.target.exists()


def test_a_push_gives_a_link_its_new_end_and_a_pull_does_not(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "push")
    put(pair.source, "a", b"a")
    put(pair.source, "b", b"b")
    (pair.source / "link").symlink_to("a")
    pair.sync()
    (pair.source / "link").unlink()
    (pair.source / "link").symlink_to("b")
    assert pair.sync().linked == ["link"]
    pair.require_equal()
    pair.way = "pull"
    (pair.target / "link").unlink()
    (pair.target / "link").symlink_to("a")
    with pytest.raises(RemoteError, match=r"taken here by something else:\n  link is a link"):
        pair.sync()
    assert os.readlink(pair.target / "link") == "a"


@pytest.mark.parametrize("there", ["file", "folder", "link"])
def test_a_pull_writes_through_no_link_and_replaces_none(tmp_path: Path, there: str) -> None:
    pair = Pair(tmp_path, "pull")
    put(tmp_path, "outside/a/b", b"mine")
    put(pair.source, "z", b"z")
    if there == "file":
        put(pair.source, "a", b"theirs")
    elif there == "folder":
        put(pair.source, "a/b", b"theirs")
    else:
        (pair.source / "a").symlink_to("z")
    pair.target.mkdir()
    (pair.target / "a").symlink_to(tmp_path / "outside" / "a")
    before = state(tmp_path / "outside"), state(pair.target)
    with pytest.raises(RemoteError, match="a is a link") as failure:
        pair.sync()
    assert "--delete" in failure.value.hint
    assert (state(tmp_path / "outside"), state(pair.target)) == before
    pair.sync(DELETE)  # asked to: the link goes, what it led to stays
    pair.require_equal()
    assert state(tmp_path / "outside") == before[0]


# -- what is in the way, and what is deleted


KINDS = ["file", "folder", "link"]


def kind(root: Path, name: str, of: str) -> None:
    if of == "file":
        put(root, name, b"content")
    elif of == "folder":
        put(root, f"{name}/below/file", b"content")
    else:
        put(root, "target of link", b"x")
        (root / name).symlink_to("target of link")


@WAYS
@pytest.mark.parametrize(("one", "other"), [(one, other) for one in KINDS for other in KINDS if one != other])
def test_something_of_another_kind_stays_unless_asked_otherwise(pair: Pair, one: str, other: str) -> None:
    kind(pair.source, "x", one)
    put(pair.source, "also", b"new")
    pair.target.mkdir()
    kind(pair.target, "x", other)
    before = state(pair.target)
    with pytest.raises(RemoteError, match=f"x is a {other}") as failure:
        pair.sync()
    assert "--delete" in failure.value.hint
    assert state(pair.target) == before
    pair.sync(DELETE)
    pair.require_equal()
    pair.rests()


@WAYS
def test_nothing_is_deleted_unless_asked(pair: Pair) -> None:
    put(pair.source, "a/1", b"1")
    put(pair.target, "a/old", b"old")
    put(pair.target, "other/deep/old", b"old")
    (pair.target / "empty").mkdir()
    assert pair.sync().deleted == []
    assert contents(pair.target) == {"a/1": b"1", "a/old": b"old", "other/deep/old": b"old"}
    assert (pair.target / "empty").is_dir()
    deleted = pair.sync(DELETE).deleted
    assert sorted(deleted) == ["a/old", "empty", "other", "other/deep", "other/deep/old"]
    pair.require_equal()


@WAYS
def test_what_the_rules_leave_out_is_not_deleted(pair: Pair) -> None:
    ruled = pair.source if pair.way == "push" else pair.target
    put(pair.source, "a", b"a")
    put(pair.target, "out/model.bin", b"m")
    put(pair.target, "kept.log", b"log")
    put(pair.target, "old/kept.log", b"log")
    put(pair.target, "old/gone.txt", b"txt")
    put(pair.target, "gone.txt", b"txt")
    rules_file = put(ruled, ".launchignore", b"*.log\nout/\n.launchignore\n")
    outcome = pair.sync(DELETE, rules=Ignore.at(ruled))
    assert sorted(outcome.deleted) == ["gone.txt", "old/gone.txt"]  # not `old`, which stays
    rules_file.unlink()
    assert contents(pair.target) == {"a": b"a", "out/model.bin": b"m", "kept.log": b"log", "old/kept.log": b"log"}


@WAYS
def test_what_the_rules_leave_out_makes_no_way_either(pair: Pair) -> None:
    ruled = pair.source if pair.way == "push" else pair.target
    put(pair.source, "x", b"a file")
    put(pair.target, "x/kept.log", b"log")
    put(pair.target, "gone", b"x")
    put(ruled, ".launchignore", b"*.log\n.launchignore\n")
    before = state(pair.target)
    with pytest.raises(RemoteError, match="'x' is in the way") as failure:
        pair.sync(DELETE, rules=Ignore.at(ruled))
    assert failure.value.hint
    assert state(pair.target) == before


@WAYS
def test_a_source_that_is_suddenly_empty_empties_nothing(pair: Pair) -> None:
    (pair.source / "a").mkdir()  # a folder to mount something on
    put(pair.target, "a/1", b"1")
    put(pair.target, "2", b"2")
    before = state(pair.target)
    with pytest.raises(RemoteError, match="there is no file in the source: --delete would remove all 2") as failure:
        pair.sync(DELETE)
    assert "mounted" in failure.value.hint
    assert state(pair.target) == before


def test_a_source_is_not_empty_because_what_it_has_is_here_already(tmp_path: Path) -> None:
    """What lies in buckets that do not differ is not listed."""
    pair = Pair(tmp_path, "pull")
    names = [f"{number}" for number in range(1000)]
    ours = [name for name in names if tree.bucket(name, 2) == 0][:20]
    extra = [name for name in names if tree.bucket(name, 2) == 1][:20]
    for name in ours:
        put(pair.source, name)
    pair.sync()
    for name in extra:
        put(pair.target, name)
    assert pair.sync(DELETE).deleted == sorted(extra)
    pair.require_equal()


# -- planned by content


@WAYS
def test_a_file_that_was_only_touched_is_not_sent(pair: Pair) -> None:
    for name in ("small", "large"):
        put(pair.source, name, name.encode() * 100_000)
    pair.sync()
    for name in ("small", "large"):
        os.utime(pair.source / name)
    outcome = pair.sync()
    assert (outcome.sent, outcome.sent_bytes, sorted(outcome.adopted)) == ([], 0, ["large", "small"])
    pair.require_equal()
    pair.rests()


@WAYS
@pytest.mark.parametrize("options", [sync.PLAIN, DELETE], ids=["kept", "deleted"])
def test_a_file_with_a_new_name_is_copied_over_there(pair: Pair, options: Options) -> None:
    put(pair.source, "d/old", os.urandom(WORTH_LOOKING_BYTES))
    put(pair.source, "tiny", os.urandom(WORTH_LOOKING_BYTES - 1))
    put(pair.source, "decoy", os.urandom(WORTH_LOOKING_BYTES))
    pair.sync()
    (pair.source / "d" / "old").rename(pair.source / "new")
    (pair.source / "tiny").rename(pair.source / "d" / "tiny")
    shutil.copy2(pair.source / "new", pair.source / "d" / "twice")
    os.utime(pair.source / "d" / "twice", (5, 5))
    (pair.source / "decoy").rename(pair.source / "decoy2")
    (pair.source / "decoy2").write_bytes(os.urandom(WORTH_LOOKING_BYTES))
    outcome = pair.sync(options)
    assert sorted(outcome.copied) == ["d/twice", "new"]
    assert sorted(outcome.sent) == ["d/tiny", "decoy2"]
    assert outcome.sent_bytes == 2 * WORTH_LOOKING_BYTES - 1
    for name in ("new", "d/twice"):
        assert (pair.target / name).stat().st_nlink == 1
    if options.delete:
        pair.require_equal()
    else:
        assert (pair.target / "d" / "old").stat().st_nlink == 1
        assert state(pair.source).items() - state(pair.target).items() == set()


@WAYS
def test_the_contents_of_two_files_change_places(pair: Pair) -> None:
    put(pair.source, "a", b"a" * 50_000)
    put(pair.source, "b", b"b" * 50_000)
    pair.sync()
    put(pair.source, "a", b"b" * 50_000, mtime_ns=WHEN_NS + 10**9)
    put(pair.source, "b", b"a" * 50_000, mtime_ns=WHEN_NS + 10**9)
    assert sorted(pair.sync().sent) == ["a", "b"]
    pair.require_equal()


def test_what_lies_in_the_store_is_copied_from_there(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "push")
    content = os.urandom(sync.WORTH_ASKING_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    base = put(pair.source, "base/model.bin", content)
    decoy = put(tmp_path, "decoy", os.urandom(len(content)))
    files = [store.LocalFile(at, hashlib.sha256(at.read_bytes()).hexdigest(), len(content)) for at in (base, decoy)]
    assert store.push(pair.agent, files).files == 2
    put(pair.source, "other", os.urandom(len(content)))
    put(pair.source, "small", content[:-1])
    outcome = pair.sync()
    assert (outcome.copied, sorted(outcome.sent)) == (["base/model.bin"], ["other", "small"])
    pair.require_equal()
    there, stored = pair.target / "base" / "model.bin", pair.workspace / "store" / digest
    assert there.stat().st_nlink == stored.stat().st_nlink == 1
    with there.open("r+b") as file:
        file.write(b"changed")
    assert stored.read_bytes() == content
    assert base.read_bytes() == content
    assert pair.sync().copied == ["base/model.bin"]
    pair.require_equal()


def test_an_object_of_the_store_that_somebody_changed_is_not_copied(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "push")
    content = os.urandom(sync.WORTH_ASKING_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    base = put(pair.source, "model.bin", content)
    store.push(pair.agent, [store.LocalFile(base, digest, len(content))])
    stored = pair.workspace / "store" / digest
    stored.chmod(0o644)
    stored.write_bytes(bytes(len(content)))
    assert pair.sync().sent == ["model.bin"]
    pair.require_equal()


@WAYS
def test_checksum_finds_what_size_and_time_hide_and_only_that(pair: Pair) -> None:
    for name in ("d/same", "d/other", "touched"):
        put(pair.source, name, b"content")
    pair.sync()
    put(pair.target, "d/other", b"CONTENT")
    os.utime(pair.source / "touched", ns=(5, 5))
    assert pair.sync(Options(dry_run=True)).sent == []
    outcome = pair.sync(Options(checksum=True))
    assert (outcome.sent, outcome.adopted, outcome.copied, outcome.linked) == (["d/other"], ["touched"], [], [])
    pair.require_equal()
    outcome = pair.sync(Options(checksum=True))
    assert (outcome.changed, outcome.total) == (0, 3)


@WAYS
def test_the_answers_about_thousands_of_long_names_are_read(pair: Pair) -> None:
    folder = os.path.join(os.fsencode(pair.source), *[b"\xfe" * 255] * 11)
    os.makedirs(folder)
    for number in range(600):
        with open(os.path.join(folder, b"%04d" % number + b"\xff" * 251), "wb") as file:
            file.write(b"x")
    pair.sync()
    # Each name takes 18 KB in an answer, and a line of more than 8 MiB is not read.
    assert (pair.sync(Options(checksum=True)).changed, pair.rests()) == (0, None)


def test_a_folder_of_equal_sizes_that_got_a_new_name_is_planned_in_little_time() -> None:
    count = 20_000
    source = [Entry(f"new/{number}", FILE, 20_000, 0, 0o644) for number in range(count)]
    there = [Entry(f"old/{number}", FILE, 20_000, 0, 0o644) for number in range(count)]
    started = time.monotonic()
    found = compare(source, there, Buckets(1), mode_mask=0o777)
    assert found.candidates == {entry.path for entry in there}
    number = {index: f"{index:064}" for index in found.doubtful}
    found.note_contents(number.__getitem__, {entry.path: f"{at:064}" for at, entry in enumerate(there)}, ())
    assert time.monotonic() - started < 5
    assert found.copies == [(number, f"old/{number}") for number in range(count)]
    assert found.files == {}


# -- ignore rules


def test_what_the_rules_leave_out_is_counted_and_not_sent(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "push")
    for name in (".git/config", "a.py", "a.pyc", "data/x.csv", "data/y.log", "out/1", "out/2"):
        put(pair.source, name, name.encode())
    put(pair.source, ".gitignore", b"*.pyc\nout/\n")
    put(pair.source, "data/.gitignore", b"*.log\n")
    outcome = pair.sync(rules=Ignore.at(pair.source))
    assert sorted(outcome.skipped) == [".git", "a.pyc", "data/y.log", "out"]
    assert outcome.rules == ".gitignore"
    assert set(contents(pair.target)) == {".gitignore", "a.py", "data/.gitignore", "data/x.csv"}
    assert outcome.total == 4


# -- files that change


class Meddler:
    """An observer that does something when content has moved, a number of times."""

    def __init__(self, does: Any, times: int = 1) -> None:
        self._does, self._left = does, times

    def __call__(self, moving: Moving) -> None:
        if self._left:
            self._left -= 1
            self._does()


def scribble(path: Path) -> None:
    """A change that its size does not show."""
    with path.open("r+b") as file:
        file.write(os.urandom(16))


@WAYS
def test_a_file_that_changes_while_it_is_sent_is_sent_once_more(pair: Pair) -> None:
    put(pair.source, "a", b"a")
    changing = put(pair.source, "changing", os.urandom(16 * CHUNK_BYTES))
    put(pair.source, "z", os.urandom(SMALL_BYTES + 1))
    outcome = pair.sync(observer=Meddler(lambda: scribble(changing)))
    assert outcome.failed == {}
    assert sorted(outcome.sent) == ["a", "changing", "z"]
    assert outcome.sent_bytes > 17 * CHUNK_BYTES
    pair.require_equal()
    pair.rests()


@WAYS
def test_a_file_that_changes_again_and_again_is_named_and_all_others_arrive(pair: Pair) -> None:
    put(pair.source, "a", b"a")
    changing = put(pair.source, "changing", os.urandom(16 * CHUNK_BYTES))
    put(pair.source, "d/z", os.urandom(SMALL_BYTES + 1))
    put(pair.target, "changing", b"old")
    outcome = pair.sync(observer=Meddler(lambda: scribble(changing), 1000))
    assert outcome.failed == {"changing": "it changed while it was sent"}
    assert sorted(outcome.sent) == ["a", "d/z"]
    assert (pair.target / "changing").read_bytes() == b"old"  # never a mixture
    changing.unlink()
    (pair.target / "changing").unlink()
    pair.require_equal()
    assert not (pair.target / STAGING).exists()


BECOMES: dict[str, Any] = {
    "longer": lambda at: at.write_bytes(b"much longer than before"),
    "large": lambda at: at.write_bytes(bytes(SMALL_BYTES + 1)),
    "empty": lambda at: at.write_bytes(b""),
    "another of its size": lambda at: at.write_bytes(b"BEFORE"),
    "touched": lambda at: os.utime(at, (9, 9)),
    "gone": lambda at: at.unlink(),
    "a folder": lambda at: (at.unlink(), at.mkdir()),
    "a link": lambda at: (at.unlink(), at.symlink_to("/etc/passwd")),
    "a pipe": lambda at: (at.unlink(), os.mkfifo(at)),
}


@WAYS
@pytest.mark.parametrize("becomes", list(BECOMES))
def test_a_file_that_is_another_one_by_the_time_it_is_sent(pair: Pair, becomes: str) -> None:
    put(pair.source, "first", os.urandom(32 * CHUNK_BYTES))
    later = put(pair.source, "later", b"before")
    put(pair.source, "middle", os.urandom(SMALL_BYTES + 1))
    outcome = pair.sync(observer=Meddler(lambda: BECOMES[becomes](later)))
    arrived = pair.target / "later"
    if later.is_file() and not later.is_symlink():
        assert outcome.failed == {}
        pair.require_equal()
        pair.rests()
    else:
        assert list(outcome.failed) == ["later"]
        assert sorted(outcome.sent) == ["first", "middle"]
        assert not arrived.exists()
        assert not arrived.is_symlink()
    assert (pair.target / "first").read_bytes() == (pair.source / "first").read_bytes()


@WAYS
def test_a_file_that_is_gone_before_it_is_hashed_fails_alone(pair: Pair) -> None:
    for name in ("gone", "touched"):
        put(pair.source, name, b"content")
    pair.sync()
    for name in ("gone", "touched"):
        os.utime(pair.source / name)

    class Gone(HashCache):
        """A file vanishes between being listed and being hashed."""

        def sha256(self, path: Any) -> str:
            (pair.source / "gone").unlink(missing_ok=True)
            return super().sha256(path)

    outcome = pair.sync(hashes=Gone())
    assert outcome.adopted in (["touched"], ["gone", "touched"])  # on the host it may be hashed before
    assert list(outcome.failed) in (["gone"], [])
    assert (pair.target / "gone").read_bytes() == b"content"


def leftover(pair: Pair, path: str, content: bytes) -> None:
    """An unfinished file of an earlier transfer of `path`, with this beginning."""
    status = (pair.source / path).stat()
    entry = Entry(path, FILE, status.st_size, status.st_mtime_ns, 0o644)
    put(pair.target, f"{STAGING}/own-0/{part_key(entry)}.part0", content, mode=0o600)


@WAYS
def test_an_unfinished_file_of_another_content_costs_a_second_turn_and_no_failure(pair: Pair) -> None:
    for name in ("a", "b"):
        put(pair.source, name, os.urandom(3 * CHUNK_BYTES))
    leftover(pair, "a", (pair.source / "a").read_bytes()[:CHUNK_BYTES])
    leftover(pair, "b", bytes(CHUNK_BYTES))
    outcome = pair.sync()
    assert outcome.failed == {}
    assert sorted(outcome.sent) == ["a", "b"]
    assert outcome.resumed_bytes == 2 * CHUNK_BYTES
    assert outcome.sent_bytes == 7 * CHUNK_BYTES
    pair.require_equal()
    assert not (pair.target / STAGING).exists()


@WAYS
def test_a_failure_is_told_also_where_another_file_took_a_second_turn(pair: Pair) -> None:
    put(pair.source, "a", os.urandom(32 * CHUNK_BYTES))
    put(pair.source, "b", os.urandom(3 * CHUNK_BYTES))
    gone = put(pair.source, "gone", b"x")
    leftover(pair, "b", bytes(CHUNK_BYTES))
    outcome = pair.sync(observer=Meddler(gone.unlink))
    assert outcome.failed == {"gone": "No such file or directory"}
    assert sorted(outcome.sent) == ["a", "b"]
    pair.require_equal()


@WAYS
@pytest.mark.parametrize("dry_run", [True, False])
def test_nothing_is_removed_behind_a_link_that_is_named_like_our_folder(pair: Pair, dry_run: bool) -> None:
    put(pair.source, "a", b"x")
    put(pair.target.parent, "victim/own-1/1", b"precious")
    put(pair.target.parent, "victim/project/x.part", b"precious", mtime_ns=0)
    pair.target.mkdir()
    (pair.target / STAGING).symlink_to("../victim")
    before = state(pair.target.parent / "victim")
    with contextlib.nullcontext() if dry_run else pytest.raises(RemoteError, match="is not a folder"):
        pair.sync(Options(dry_run=dry_run))
    assert state(pair.target.parent / "victim") == before


@WAYS
def test_what_is_not_ours_in_our_folder_is_left_alone(pair: Pair) -> None:
    put(pair.source, "a", b"x")
    put(pair.target, f"{STAGING}/project/x", b"precious")
    put(pair.source, f"{STAGING}/project/x", b"never sent")
    pair.sync(DELETE)
    assert contents(pair.target) == {"a": b"x", f"{STAGING}/project/x": b"precious"}


# -- names that are one where case does not count


def test_names_that_collide_are_reported_at_every_pull(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "pull")
    for name in ("Readme", "readme", "d/A", "d/a", *map(str, range(100))):
        put(pair.source, name, name.encode())
    if len(list(pair.source.iterdir())) != 103:
        pytest.skip("this disk does not tell upper from lower case")
    assert pair.sync().collisions == ["'d/A' and 'd/a'", "'Readme' and 'readme'"]
    put(pair.source, "readme", b"changed")
    # One of the two lies in a bucket that does not differ, and is not listed again.
    assert tree.bucket("Readme", 4) != tree.bucket("readme", 4)
    assert len(pair.sync().collisions) == 2
    pair.require_equal()


# -- room


@pytest.mark.ssh
def test_a_disk_that_is_too_small_is_named_before_anything_is_sent(tmp_path: Path) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    with Box(data_disk_mb=100) as box, connected(box, tmp_path) as host:
        agent = Agent(host)
        source = tmp_path / "source"
        put(source, "large", bytes(60_000_000))
        put(source, "small", b"x")
        with pytest.raises(RemoteError, match=r"60 MB are to be sent, \d+ MB are free") as failure:
            sync.push(agent, source, "/root/autodl-tmp/data")
        assert failure.value.code == "disk_full"
        assert failure.value.hint
        assert box.run("ls", "/root/autodl-tmp").stdout.split() == [b"launch"]
        put(source, "large", bytes(10_000_000))
        assert sync.push(agent, source, "/root/autodl-tmp/data").sent == ["large", "small"]


@pytest.mark.ssh
def test_a_disk_without_room_for_another_name_is_named_too(tmp_path: Path) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    with Box(data_disk_inodes=100) as box, connected(box, tmp_path) as host:
        source = tmp_path / "source"
        for number in range(120):
            put(source, f"{number}")
        with pytest.raises(RemoteError, match=r"120 files are to be made, the disk has room for \d\d more") as failure:
            sync.push(Agent(host), source, "/root/autodl-tmp/data")
        assert failure.value.hint
        assert box.run("ls", "/root/autodl-tmp").stdout.split() == [b"launch"]


@contextlib.contextmanager
def connected(box: Box, folder: Path) -> Iterator[SshHost]:
    known = folder / "known_hosts"
    known.write_text(box.host_key_line)
    with SshHost("box", parse(box.login_line), known_hosts=known, questions=Answers([box.password])) as host:
        yield host


@WAYS
def test_more_than_any_disk_has_is_refused_before_anything_is_made(pair: Pair) -> None:
    with (pair.source / "huge").open("wb") as file:
        file.truncate(shutil.disk_usage(pair.source).free + (1 << 30))
    with pytest.raises(RemoteError, match="MB are to be sent") as failure:
        pair.sync()
    assert failure.value.code == "disk_full"
    assert not pair.target.exists()


# -- any tree to any other


class Node(NamedTuple):
    """A file with one of CONTENTS, a link to somewhere, or a folder of others."""

    content: int | None = None
    to: str = ""
    mode: int = 0o644
    mtime_ns: int = WHEN_NS
    below: dict[str, Any] | None = None


CONTENTS = [b"", b"x", b"y", b"x" * 20_000, b"y" * 20_000, b"z" * (SMALL_BYTES + 1)]
TIMES = [WHEN_NS, WHEN_NS + 1_000, -(10**15), 10**18]
NAMES = ["a", "b", "c", "A", "sp ace", "é\n", "\udcff", "-x", ".h"]
times = st.sampled_from(TIMES)
files = st.tuples(st.integers(0, len(CONTENTS) - 1), st.sampled_from([0o644, 0o600, 0o755, 0o444, 0o664]), times).map(
    # Where size and time are the same, only --checksum would tell two contents apart.
    lambda drawn: Node(content=drawn[0], mode=drawn[1], mtime_ns=drawn[2] + drawn[0] * 10**6)
)
links = st.sampled_from(["a", "b/c", "../a", ".", "nowhere", "../../a/b"]).map(lambda to: Node(to=to))


def folders(children: Any) -> Any:
    below = st.dictionaries(st.sampled_from(NAMES), children, max_size=4)
    return st.tuples(below, st.sampled_from([0o755, 0o700, 0o750]), times).map(
        lambda drawn: Node(below=drawn[0], mode=drawn[1], mtime_ns=drawn[2])
    )


roots = st.dictionaries(
    st.sampled_from(NAMES), st.recursive(files | links, lambda below: folders(below) | files, max_leaves=12), max_size=5
)


def grow(root: Path, nodes: dict[str, Node], depth: int = 0) -> None:
    root.mkdir(exist_ok=True)
    for name, node in nodes.items():
        at = root / name
        if node.below is not None:
            grow(at, node.below, depth + 1)
            at.chmod(node.mode)
            os.utime(at, ns=(node.mtime_ns, node.mtime_ns))
        elif node.content is not None:
            put(root, name, CONTENTS[node.content], mode=node.mode, mtime_ns=node.mtime_ns)
        else:
            at.symlink_to(node.to if node.to.count("../") <= depth else "a")


def expected(source: dict[str, Any], there: dict[str, Any], way: str, delete: bool) -> dict[str, Any] | None:
    """What the target should be afterwards, None where the sync has to be refused."""
    conflicts = [
        path for path, one in source.items()
        if path in there and (there[path][0] != one[0] or (way == "pull" and one[0] == "link" and there[path] != one))
    ]  # fmt: skip
    if not delete:
        return None if conflicts else {**there, **source}
    gone = [*conflicts, *(there.keys() - source.keys())]
    return None if gone and all(one[0] == "folder" for one in source.values()) else source


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.mark.slow
@WAYS
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(roots, roots, st.booleans())
def test_any_tree_comes_to_any_other(
    way: str, workspace: Path, tmp_path_factory: pytest.TempPathFactory, one: Any, other: Any, delete: bool
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    pair = Pair(folder, way, Agent(LocalHost(folder), workspace=str(workspace)))
    grow(pair.source, one)
    grow(pair.target, other)
    source, there = state(pair.source), state(pair.target)
    wanted = expected(kept(source, pair.mask), kept(there, pair.mask), way, delete)
    try:
        outcome = pair.sync(Options(delete=delete))
    except RemoteError:
        assert wanted is None
        assert state(pair.target) == there
    else:
        assert wanted is not None
        assert kept(state(pair.target), pair.mask) == wanted
        assert outcome.failed == {}
        assert outcome.total == sum(entry[0] != "folder" for entry in source.values())
        assert not outcome.deleted or delete
        again = pair.sync(Options(delete=delete))
        assert (again.changed, again.deleted, again.sent_bytes) == (0, [], 0)
        assert kept(state(pair.target), pair.mask) == wanted
        if delete and source:
            assert wanted.keys() == source.keys()
    assert state(pair.source) == source
    shutil.rmtree(folder)


# -- what is decided about two listings, without a disk


def test_a_link_on_the_way_is_no_folder_to_look_into(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(Refused, match="another kind"):
        Target(str(tmp_path)).folder("link/etc")


def test_a_link_is_replaced_only_where_that_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("old")
    entry = Entry("link", LINK, 0, 0, 0, "new")
    for new_links_only in (True, False):
        target = Target(str(tmp_path), new_links_only=new_links_only)
        target.begin()
        target.link(entry)
        with pytest.raises(Refused, match="another kind") if new_links_only else contextlib.nullcontext():
            target.commit()
        target.end()
        assert os.readlink(tmp_path / "link") == ("old" if new_links_only else "new")
    assert os.listdir(tmp_path) == ["link"]


def test_protected_files_hold_the_folders_they_lie_in() -> None:
    there = [
        Entry(path, FOLDER if path.endswith("d") else FILE, 0, 0, 0o755) for path in ("d", "d/d", "d/d/x", "d/y", "z")
    ]
    found = compare([], there, Buckets(1), mode_mask=0o777)
    assert to_delete(found, lambda path, is_folder: path == "d/d/x") == ["d/y", "z"]
    assert to_delete(found, lambda path, is_folder: False) == ["d", "d/d", "d/d/x", "d/y", "z"]


def test_delete_never_reaches_what_is_ours_on_the_host(tmp_path: Path) -> None:
    disk, source = tmp_path / "disk", tmp_path / "source"
    source.mkdir()
    disk.mkdir()
    (source / "kept").touch()
    (disk / "gone").touch()
    ours = disk / "launch" / "runs" / "x"
    ours.mkdir(parents=True)
    (ours / "result.json").touch()
    agent = Agent(LocalHost(), workspace=str(disk / "launch"))
    done = sync.push(agent, source, str(disk), options=Options(delete=True))
    assert done.deleted == ["gone"]
    assert (ours / "result.json").exists()
    assert sorted(os.listdir(disk)) == ["kept", "launch"]
