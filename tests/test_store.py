"""Contents in a host's store: each sent once, trusted only while nobody touched it, whole or not there."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time

import pytest

from remote import runs, store
from remote.agent import Agent
from remote.errors import RemoteError, Unreachable
from remote.local_host import LocalHost
from remote.onhost.target import PART_KEPT_S
from remote.onhost.tree import STAGING
from tests.connected import connect, embedded_host, eventually

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.fixture
def embedded_pair(tmp_path):
    with embedded_host(tmp_path / "home") as (server, host):
        yield server, Agent(host, workspace=str(tmp_path / "work"))


@pytest.fixture
def agent(embedded_pair):
    return embedded_pair[1]


@pytest.fixture
def folder(tmp_path):
    """Where the store's objects lie."""
    return tmp_path / "work" / "launch" / "store"


@pytest.fixture
def make(tmp_path):
    """A file of that content, hashed."""

    def made(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        return store.LocalFile(path, hashlib.sha256(content).hexdigest(), len(content))

    return made


def objects(folder):
    """The contents in the store by name; nothing else may lie there but their records."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    found = {name for name in names if len(name) == 64}
    assert names == found | {f"{name}.stat" for name in found}
    return {name: (folder / name).read_bytes() for name in found}


def nothing_half_written(folder):
    """Returns when what received there has ended, and cleaned up."""
    eventually(lambda: not (folder / STAGING).exists())


def test_every_content_is_sent_once(agent, folder, make):
    one, same, other, empty = make("a", b"one"), make("b", b"one"), make("c", b"two" * 100_000), make("d", b"")
    assert store.push(agent, [one, same, other, empty]) == store.Sent(3, 300_003, 0)
    assert objects(folder) == {one.sha256: b"one", other.sha256: b"two" * 100_000, empty.sha256: b""}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if len(path.name) == 64} == {0o444}
    assert store.push(agent, [one, same, other, empty]) == store.Sent(0, 0, 3)
    assert store.push(agent, []) == store.Sent(0, 0, 0)
    new = make("e", b"three")
    assert store.push(agent, [one, new]) == store.Sent(1, 5, 1)


def test_this_machine_has_a_store_too(tmp_path, make):
    agent = Agent(LocalHost(), workspace=str(tmp_path / "here"))
    file = make("a", os.urandom(1_000_000))
    assert store.push(agent, [file]).files == 1
    assert store.push(agent, [file]).files == 0


@pytest.mark.ssh
def test_openssh_carries_it_too(sshd, tmp_path, make):
    with connect(sshd) as host:
        agent = Agent(host, workspace=str(tmp_path / "there"))
        files = [make(f"f{number}", os.urandom(1000 + number)) for number in range(200)]
        assert store.push(agent, files).files == 200
        assert store.push(agent, files).already_there == 200


@pytest.mark.parametrize("change", ["content", "size", "replaced"])
def test_an_object_that_somebody_changed_is_put_aside_and_sent_again(agent, folder, make, change):
    file = make("a", b"right")
    store.push(agent, [file])
    path = folder / file.sha256
    if change == "replaced":
        path.unlink()
    else:
        path.chmod(0o644)
    path.write_bytes(b"wrong" if change == "content" else b"much longer")
    assert store.push(agent, [file]) == store.Sent(1, 5, 0)
    assert path.read_bytes() == b"right"
    assert (folder / f"{file.sha256}.quarantined").read_bytes() in (b"wrong", b"much longer")
    assert store.push(agent, [file]).files == 0


def test_an_object_that_was_only_touched_or_lost_its_record_is_kept(agent, folder, make):
    file = make("a", b"right")
    store.push(agent, [file])
    os.utime(folder / file.sha256)
    assert store.push(agent, [file]).files == 0
    (folder / f"{file.sha256}.stat").unlink()
    assert store.push(agent, [file]).files == 0
    assert objects(folder) == {file.sha256: b"right"}


@pytest.mark.parametrize(
    "content", [b"other", b"longer than before", b"x", None], ids=["same size", "more", "less", "gone"]
)
def test_a_file_that_changes_before_it_is_sent_is_an_error_and_leaves_nothing(agent, folder, make, content):
    first, file = make("first", b"kept"), make("a", b"right")
    if content is None:
        file.source.unlink()
    else:
        file.source.write_bytes(content)
    with pytest.raises(RemoteError) as failure:
        store.push(agent, [first, file])
    assert not isinstance(failure.value, Unreachable)
    assert failure.value.hint
    nothing_half_written(folder)
    # How far the host got with the first one by then is its own affair.
    assert objects(folder) in ({}, {first.sha256: b"kept"})
    file.source.write_bytes(b"right")
    store.push(agent, [first, file])
    assert objects(folder) == {first.sha256: b"kept", file.sha256: b"right"}


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_sent(agent, folder, tmp_path):
    size = shutil.disk_usage(tmp_path).free + (1 << 30)
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(size)
    started = time.monotonic()
    with pytest.raises(RemoteError, match=r"MB are to be sent, \d+ MB are free") as failure:
        store.push(agent, [store.LocalFile(tmp_path / "huge", "a" * 64, size)])
    assert failure.value.code == "disk_full"
    assert failure.value.hint
    assert time.monotonic() - started < 10
    assert objects(folder) == {}


def test_a_cut_in_the_middle_leaves_whole_objects_and_a_retry_sends_the_rest(embedded_pair, folder, make):
    server, agent = embedded_pair
    small, large = make("small", b"small"), make("large", os.urandom(60_000_000))

    def cut_when_begun():
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            # The second one has begun to arrive.
            if any(path.stat().st_size > 5_000_000 for path in (folder / STAGING).glob("*/*.part*")):
                break
            time.sleep(0.001)
        server.cut()

    cutter = threading.Thread(target=cut_when_begun)
    cutter.start()
    with pytest.raises(Unreachable):
        store.push(agent, [small, large])
    cutter.join()
    assert not (folder / large.sha256).exists()
    sent = store.push(agent, [small, large])
    assert sent.files + sent.already_there == 2
    assert sent.size_bytes <= 55_000_005
    nothing_half_written(folder)
    assert hashlib.sha256((folder / large.sha256).read_bytes()).hexdigest() == large.sha256


def test_what_a_killed_transfer_left_is_swept_after_a_week(agent, folder, make):
    store.push(agent, [make("a", b"a")])
    dead, empty = folder / STAGING / "own-1", folder / STAGING / "own-2"
    dead.mkdir(parents=True)
    empty.mkdir()
    (empty / "1").touch()
    old, new = dead / "a.part1", dead / "b.part2"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    for path in (old, dead):
        os.utime(path, (time.time() - PART_KEPT_S - 1,) * 2)
    store.push(agent, [make("b", b"b")])
    assert not old.exists()
    assert not empty.exists()
    assert new.exists()


def test_two_pushes_at_once_of_the_same_files(agent, folder, make):
    files = [make(f"f{number}", os.urandom(300_000)) for number in range(10)]
    sent = []
    threads = [
        threading.Thread(target=lambda order=order: sent.append(store.push(agent, order)))
        for order in (files, files[::-1], files)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sent) == 3
    assert objects(folder) == {file.sha256: file.source.read_bytes() for file in files}
    assert store.push(agent, files).files == 0


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "/etc/passwd", "é" * 64]
)
def test_a_name_that_is_no_sha256_is_refused(agent, tmp_path, name):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(RemoteError, match="not a sha256"):
        store.push(agent, [store.LocalFile(tmp_path / "file", name, 1)])


def plan(run_id):
    files = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
    return {"run_id": run_id, "name": "n", "files": files, "env": {}, "phases": []}


@pytest.mark.parametrize("fault", ["absent", "changed", "named twice", "outside", "no name"])
def test_a_run_gets_only_what_lies_in_the_store_unchanged_and_no_half_a_folder(agent, folder, tmp_path, make, fault):
    file, other = make("a", b"right"), make("b", b"other")
    store.push(agent, [file, other])
    links = [{"path": "inputs/a", "sha256": file.sha256}]
    if fault == "changed":
        (folder / file.sha256).chmod(0o644)
        (folder / file.sha256).write_bytes(b"wrong")
    links += {
        "absent": [{"path": "inputs/b", "sha256": "b" * 64}],
        "changed": [],
        "named twice": [{"path": "inputs/a", "sha256": other.sha256}],
        "outside": [{"path": "../../x", "sha256": other.sha256}],
        "no name": [{"path": ".", "sha256": other.sha256}],
    }[fault]
    code = {"absent": "store_object_missing", "changed": "store_object_missing", "named twice": "path_taken"}
    with pytest.raises(RemoteError) as failure:
        runs.submit(agent, plan("x-aaaaaaaa"), links=links, documents={})
    assert failure.value.code == code.get(fault, "path_outside")
    assert not (tmp_path / "work" / "launch" / "runs" / "x-aaaaaaaa").exists()
    assert (folder / other.sha256).read_bytes() == b"other"
