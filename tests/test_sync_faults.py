"""Syncs that are cut, killed, starved, raced and lied to: a path has its old file or its new one, and a retry ends it.

Source and target lie on this machine on both ways; only the line between them, and who decides, are another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs import manifest
from jobs.run_directory import RunDirectory
from launcher.host_book import HostBook, SavedHost
from launcher.ledger import Ledger
from launcher.progress import Note
from launcher.sync import Moved, going_on
from remote import store, sync
from remote.agent import Agent
from remote.errors import RemoteError, Unreachable
from remote.onhost.target import IDLE_S, Target
from remote.onhost.tree import STAGING
from remote.ssh import address, connection
from remote.ssh.host import SshHost
from remote.ssh.packets import Pieces
from remote.ssh.process import SshProcess
from tests.answers import Answers
from tests.box import Box, box_missing
from tests.conftest import REPOSITORY
from tests.connected import PYTHON_FOLDER, alive, eventually
from tests.relay import Relay
from tests.servers import OpenSshServer
from tests.test_bring_home import RUN_ID, Laptop

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.ssh,
]
WAYS = pytest.mark.parametrize("up", [True, False], ids=["push", "pull"])
MB = 1_000_000


def state_of(path):
    """Content and time of a file."""
    status = path.lstat()
    return hashlib.sha256(path.read_bytes()).hexdigest(), status.st_size, status.st_mtime_ns // 1000


def files(root):
    """path -> state of every file below a folder, unfinished ones excepted."""
    found = {}
    for path in sorted(root.rglob("*")) if root.exists() else ():
        name = path.relative_to(root).as_posix()
        if not name.startswith(f"{STAGING}/") and not path.is_dir():
            found[name] = state_of(path)
    return found


def part_bytes(root):
    """How much lies below a folder of files that are not finished."""
    return sum(path.stat().st_size for path in (root / STAGING).glob("*/*.part*"))


class Trees:
    """A source, and a target that has some of it, some of it older and some not at all, and one file of its own."""

    def __init__(self, folder, *, small=40, large=(3 * MB, 3 * MB), seed=1, target=None, called=None):
        self.source, self.target = folder / "source", target or folder / "target"
        self._called = called or str(self.target)  # as the host calls it
        chance = random.Random(seed)
        self._old = {"only here": (b"mine", 5)}
        for number in range(small):
            name = f"{('', 'a/', 'a/b/')[number % 3]}s{number:04}"
            content = chance.randbytes(chance.randrange(1, 20_000))
            self._put(self.source / name, content, 10_000 * seed + number)
            if number % 4 == 1:
                self._old[name] = (chance.randbytes(700), 10)
            elif number % 4 == 2:
                self._old[name] = (chance.randbytes(len(content)), 10)
            elif number % 4 == 3:
                self._old[name] = (content, 10_000 * seed + number)
        for number, size in enumerate(large):
            self._put(self.source / f"large/{number}", chance.randbytes(size), 5000 + 10_000 * seed + number)
        if large:
            self._old["large/0"] = (chance.randbytes(MB), 10)
        self.reset()

    def _put(self, path, content, mtime):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (mtime, mtime))

    def reset(self):
        """Make the target old again."""
        shutil.rmtree(self.target, ignore_errors=True)
        for name, (content, mtime) in self._old.items():
            self._put(self.target / name, content, mtime)
        self.old, self.new = files(self.target), files(self.source)
        kept = [name for name in self.old if self.new.get(name, self.old[name]) == self.old[name]]
        self._untouched = {name: (self.target / name).stat().st_ino for name in kept}

    def go(self, up, agent, **options):
        """One sync."""
        if up:
            return sync.push(agent, self.source, self._called, **options)
        return sync.pull(agent, str(self.source), self.target, **options)

    def check_whole(self, *others):
        """Every path has its old file or the new one, also of `others`, and nothing else lies there or was touched."""
        found = files(self.target)
        for name, state in found.items():
            assert state in (self.old.get(name), *(trees.new.get(name) for trees in (self, *others))), name
        assert not set(self.old) - set(found)
        for name, inode in self._untouched.items():
            assert (self.target / name).stat().st_ino == inode or any(name in trees.new for trees in others), name

    def check_done(self):
        self.check_whole()
        assert files(self.target) == self.old | self.new
        assert not (self.target / STAGING).exists()

    def missing_bytes(self):
        """What has not arrived."""
        found = files(self.target)
        changed = sum(state[1] for name, state in self.new.items() if found.get(name) != state)
        return changed - part_bytes(self.target)


class There:
    """An OpenSSH server behind a relay, and a workspace on it."""

    def __init__(self, server, relay, folder):
        self.server, self.relay = server, relay
        self.workspace = folder / "workspace"
        self.known_hosts = folder / f"known_hosts_{relay.port}"
        line = server.known_hosts_file.read_text()
        self.known_hosts.write_text(line.replace(f":{server.port} ", f":{relay.port} "))
        key = shlex.quote(str(server.identity_file))
        self.login_line = f"ssh -i {key} -p {relay.port} {server.address}"

    @contextlib.contextmanager
    def agent(self):
        """Our program there, over a connection of its own; nobody who turns us away is tried again."""
        with SshHost("there", address.parse(self.login_line), known_hosts=self.known_hosts, retry_s=()) as host:
            yield Agent(host, workspace=str(self.workspace))

    def programs(self):
        """The pids of our program on the host's side."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if len(words) > 2 and words[2].startswith(f"{self.workspace}/launch/onhost/".encode()):
                    found.append(int(process.name))
        return found

    def kill(self, pids=None):
        """Kill our program on the host's side."""
        for pid in pids or self.programs():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def quiet(self):
        """Returns when nobody works on the host's side any more."""
        eventually(lambda: not self.programs())


@pytest.fixture
def there(sshd, tmp_path):
    with Relay(sshd.port) as relay:
        found = There(sshd, relay, tmp_path)
        yield found
        relay.reset()
        found.quiet()


def points(total, count, chance):
    """Byte counts over a whole conversation: one in three in its first 6 KB (keys, login, opening), two at its end."""
    head = [chance.randrange(1, min(6000, total)) for _ in range(count // 3)]
    return [*head, *(chance.randrange(1, total) for _ in range(count - len(head) - 2)), total - 30, total]


@WAYS
@pytest.mark.parametrize("count", [6, pytest.param(30, marks=pytest.mark.slow)])
def test_a_cut_at_any_point_leaves_whole_files_and_a_retry_sends_the_rest(there, tmp_path, up, count):
    trees, relay = Trees(tmp_path), there.relay
    for _ in range(2):  # the first one brings our program there
        trees.reset()
        relay.reset_counts()
        with there.agent() as agent:
            trees.go(up, agent)
    trees.check_done()
    totals = {"client": relay.bytes_from_client, "server": relay.bytes_from_server}
    chance = random.Random(7)
    main, side = ("client", "server") if up else ("server", "client")
    cuts = [(main, at) for at in points(totals[main], count * 2 // 3, chance)]
    cuts += [(side, chance.randrange(1, totals[side])) for _ in range(count - len(cuts))]
    broke = 0
    for sender, at in cuts:
        trees.reset()
        try:
            relay.cut_after(at, sender=sender)
            with there.agent() as agent, contextlib.suppress(Unreachable):
                broke += 1
                trees.go(up, agent)
                broke -= 1
            relay.disarm()
            there.quiet()
            trees.check_whole()
            assert all(path.stat().st_size for path in (trees.target / STAGING).glob("*/*"))
            missing = trees.missing_bytes()
            with there.agent() as agent:
                outcome = trees.go(up, agent)
            assert outcome.sent_bytes == missing
            there.quiet()
            trees.check_done()
        except BaseException as error:
            error.add_note(f"cut after {at} bytes of the {sender}, of {totals[sender]}")
            raise
    assert broke >= count // 2


@WAYS
def test_half_of_a_large_file_is_not_sent_again(there, tmp_path, up):
    trees, relay = Trees(tmp_path, small=0, large=(60 * MB,)), there.relay
    relay.cut_after(30 * MB, sender="client" if up else "server")
    relay.rate_bytes_per_s = 30 * MB  # else up to 2 MB wait in sshd for whoever takes them, and go with it
    with there.agent() as agent, pytest.raises(Unreachable):
        trees.go(up, agent)
    relay.rate_bytes_per_s = None
    there.quiet()
    trees.check_whole()
    relay.reset_counts()
    with there.agent() as agent:
        outcome = trees.go(up, agent)
    trees.check_done()
    assert outcome.resumed_bytes > 27 * MB
    resumed = relay.bytes_from_client + relay.bytes_from_server
    print(f"resumed with {resumed / (60 * MB):.1%} of the bytes")
    assert resumed <= 0.55 * 60 * MB


@WAYS
def test_what_came_of_a_file_that_is_another_one_by_now_goes(there, tmp_path, up):
    trees, relay = Trees(tmp_path), there.relay
    relay.rate_bytes_per_s = 20 * MB
    relay.cut_after(5 * MB, sender="client" if up else "server")
    with there.agent() as agent, pytest.raises(Unreachable):
        trees.go(up, agent)
    relay.rate_bytes_per_s = None
    there.quiet()
    assert part_bytes(trees.target) > MB
    for path in (trees.source / "large").iterdir():
        path.write_bytes(b"small by now" if path.name == "1" else bytes(2 * MB))
    with there.agent() as agent:
        assert trees.go(up, agent).resumed_bytes == 0
    assert files(trees.target) == trees.old | files(trees.source)
    assert not (trees.target / STAGING).exists()


class Broken:
    """A channel of a connection that breaks when more is asked for; what had come lies in `in_buffer`."""

    def __init__(self, content):
        self.in_buffer = Pieces()
        self.in_buffer.feed(content)
        self.in_buffer.close()

    def recv(self, size):
        if piece := self.in_buffer.read(size):
            raise EOFError
        return piece

    def recv_stderr(self, size):
        return b""

    def shutdown_write(self):
        raise EOFError

    def close(self):
        pass


def test_what_had_come_before_the_break_is_read_to_the_end():
    content = random.Random(3).randbytes(MB)
    with SshProcess("there", Broken(content), ()) as process:
        assert b"".join(process.chunks()) == content


# -- going on by itself


@WAYS
def test_after_a_cut_it_goes_on_by_itself(there, tmp_path, up):
    trees, notes = Trees(tmp_path), []
    there.relay.cut_after(4 * MB, sender="client" if up else "server")
    moved = Moved(notes.append)
    with there.agent() as agent:
        going_on(lambda: trees.go(up, agent, observer=moved), moved, notes.append)
    assert ["going on" in note.text for note in notes if isinstance(note, Note)] == [True]
    there.quiet()
    trees.check_done()


@WAYS
def test_a_line_that_breaks_every_two_megabytes_is_enough(there, tmp_path, up):
    trees, notes = Trees(tmp_path), []
    there.relay.rate_bytes_per_s = 12 * MB  # else sshd has taken in most of them, and drops that
    there.relay.cut_after(2 * MB, sender="client" if up else "server", connections=None)
    moved = Moved(notes.append)
    with there.agent() as agent:
        going_on(lambda: trees.go(up, agent, observer=moved), moved, notes.append)
    assert 3 <= sum(isinstance(note, Note) for note in notes) <= 8
    there.relay.disarm()
    there.quiet()
    trees.check_done()


@WAYS
def test_a_line_on_which_nothing_arrives_is_given_up(there, tmp_path, up):
    """What is sent into it looks like progress from here."""
    trees, relay = Trees(tmp_path, small=0), there.relay
    with there.agent() as agent:
        agent.call("states", {})  # our program is there
    relay.reset_counts()
    relay.cut_after(400_000, sender="client" if up else "server", connections=None)
    moved = Moved(lambda progress: None)
    with there.agent() as agent, pytest.raises(Unreachable) as failure:
        going_on(lambda: trees.go(up, agent, observer=moved), moved, lambda progress: None)
    assert failure.value.hint
    assert 1 <= relay.connections <= 5
    relay.disarm()
    there.quiet()
    trees.check_whole()
    with there.agent() as agent:
        trees.go(up, agent)
    trees.check_done()


@WAYS
def test_a_frozen_line_that_thaws_loses_nothing(there, tmp_path, up):
    trees, relay = Trees(tmp_path), there.relay
    relay.rate_bytes_per_s = 20 * MB
    relay.freeze_after(3 * MB, sender="client" if up else "server")
    thawing = threading.Timer(1, relay.thaw)
    thawing.start()
    with there.agent() as agent:
        trees.go(up, agent)
    thawing.join()
    assert relay.connections == 1
    trees.check_done()


@pytest.mark.alone
@pytest.mark.slow
def test_who_was_given_up_on_a_frozen_line_does_not_bring_old_files_back(there, sshd, tmp_path, monkeypatch):
    """Its process lives on there, and learns only when the line thaws that nobody listens any more."""
    monkeypatch.setattr(connection, "KEEPALIVE_S", 1)
    monkeypatch.setattr(connection, "SILENCE_S", 2)
    up, down, broken = Trees(tmp_path / "up", small=200), Trees(tmp_path / "down"), []

    def stall(way, trees, is_up):
        way.relay.rate_bytes_per_s = 8 * MB
        way.relay.freeze_after(5 * MB if is_up else 3 * MB, sender="client" if is_up else "server")
        with way.agent() as agent:
            try:
                trees.go(is_up, agent)
            except Unreachable as error:
                broken.append(error)
        way.relay.rate_bytes_per_s = None

    with Relay(sshd.port) as relay:
        other = There(sshd, relay, tmp_path)
        ways = ((there, up, True), (other, down, False))
        stalled = [threading.Thread(target=stall, args=way) for way in ways]
        for thread in stalled:
            thread.start()
        for thread in stalled:
            thread.join()
        assert len(broken) == 2
        assert len(there.programs()) == 2  # they know nothing of it
        time.sleep(IDLE_S)
        for path in up.source.rglob("s*"):
            path.write_bytes(b"newer " + path.name.encode())
        up.new = files(up.source)
        for _, trees, is_up in ways:
            with there.agent() as agent:
                assert trees.go(is_up, agent).resumed_bytes > MB
            assert files(trees.target) == trees.old | trees.new
        there.relay.thaw()
        relay.thaw()
        there.quiet()
    assert files(up.target) == up.old | up.new
    assert not (up.target / STAGING).exists()
    down.check_done()


# -- full disks


def fill(folder, keep_bytes=0):
    """Take all the room of a disk, or all but some."""
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MB))
    if keep_bytes:
        os.truncate(folder / "filler", (folder / "filler").stat().st_size - keep_bytes)


def fill_inodes(folder):
    """Take all the room of a disk for another file."""
    (folder / "fillers").mkdir()
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (folder / "fillers" / str(number)).touch()


def during(condition, action):
    """A thread that acts as soon as something is so."""

    def work():
        eventually(condition)
        action()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_the_hosts_disk_becomes_full(tmp_path):
    if reason := box_missing():
        pytest.skip(reason)
    with Box(data_disk_mb=110, data_disk_inodes=600) as box, Relay(box.port) as relay:
        disk = box.path("/root/autodl-tmp")
        known = tmp_path / "known_hosts"
        known.write_text(box.host_key_line_at(relay.port))
        questions = Answers([box.password] * 9)
        options = {"known_hosts": known, "questions": questions, "retry_s": ()}
        with SshHost("box", address.parse(box.login_line_at(relay.port)), **options) as host:
            agent = Agent(host)

            def filled(trees, begun, fill):
                relay.rate_bytes_per_s = 8 * MB
                filler = during(begun, fill)
                with pytest.raises(RemoteError, match="the disk of /root/autodl-tmp/.* is full") as failure:
                    trees.go(True, agent)
                filler.join()
                relay.rate_bytes_per_s = None
                assert (failure.value.code, isinstance(failure.value, Unreachable)) == ("disk_full", False)
                assert "free some space" in failure.value.hint
                eventually(lambda: not list(trees.target.glob(f"{STAGING}/*/[0-9]*")))
                trees.check_whole()
                assert files(trees.target) != trees.old | trees.new

            large = Trees(tmp_path / "a", large=(20 * MB,), target=disk / "bytes", called="/root/autodl-tmp/bytes")
            filled(large, lambda: part_bytes(large.target) > 3 * MB, lambda: fill(disk))
            (disk / "filler").unlink()
            large.go(True, agent)
            large.check_done()
            many = Trees(tmp_path / "b", small=240, large=(), target=disk / "inodes", called="/root/autodl-tmp/inodes")
            begun = lambda: len(list(many.target.glob(f"{STAGING}/*/[0-9]*"))) > 20  # noqa: E731
            filled(many, begun, lambda: fill_inodes(disk))
            shutil.rmtree(disk / "fillers")
            many.go(True, agent)
            many.check_done()


@contextlib.contextmanager
def small_disk(at, size_mb):
    """A disk of its own at a folder."""
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", at], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def test_the_laptops_disk_becomes_full(there, tmp_path):
    if os.getuid() != 0:
        pytest.skip("needs root, to mount a small disk")
    with small_disk(tmp_path / "disk", 110) as disk:
        trees = Trees(tmp_path, large=(20 * MB,), target=disk / "target")
        there.relay.rate_bytes_per_s = 8 * MB
        filler = during(lambda: part_bytes(trees.target) > 3 * MB, lambda: fill(disk))
        with (
            there.agent() as agent,
            pytest.raises(RemoteError, match=f"the disk of {trees.target} is full") as failure,
        ):
            trees.go(False, agent)
        filler.join()
        there.relay.rate_bytes_per_s = None
        assert failure.value.code == "disk_full"
        assert "free some space" in failure.value.hint
        trees.check_whole()
        (disk / "filler").unlink()
        with there.agent() as agent:
            trees.go(False, agent)
        trees.check_done()


# -- killed


@pytest.fixture
def laptop(cli, there):
    """The command line, to which the host is known as "box"."""
    book = HostBook(cli.home / "launch" / "hosts.toml")
    book.path.parent.mkdir()
    book.add(SavedHost("box", there.login_line, workspace=str(there.workspace), known_hosts=str(there.known_hosts)))
    return cli


def ends(trees, up):
    """SRC and DST of `launch sync`."""
    return (f"{trees.source}/", f"box:{trees.target}/") if up else (f"box:{trees.source}/", f"{trees.target}/")


@WAYS
@pytest.mark.parametrize("shares", [[0.4], pytest.param([0.05, 0.7, 0.97], marks=pytest.mark.slow)])
def test_the_hosts_process_is_killed(there, tmp_path, up, shares):
    # Large: of what is on its way to us, some 10 MB have left the process.
    trees, relay = Trees(tmp_path, large=(3 * MB, 18 * MB)), there.relay
    with there.agent() as agent:
        trees.go(up, agent)
    total = relay.bytes_from_client if up else relay.bytes_from_server
    killed = 0
    for share in shares:
        trees.reset()
        relay.reset_counts()
        relay.rate_bytes_per_s = 50 * MB

        def far(share=share):
            return (relay.bytes_from_client if up else relay.bytes_from_server) >= share * total

        killer = during(far, there.kill)
        with there.agent() as agent, contextlib.suppress(RemoteError):  # all may have left it when it dies
            killed += 1
            trees.go(up, agent)
            killed -= 1
        killer.join()
        relay.rate_bytes_per_s = None
        there.quiet()
        trees.check_whole()
        missing = trees.missing_bytes()
        with there.agent() as agent:
            assert trees.go(up, agent).sent_bytes == missing
        trees.check_done()
    assert killed


def killed_when(process, condition):
    """Kill a process once something is so."""
    with process:
        while process.poll() is None and not condition():
            pass
        process.kill()


@WAYS
@pytest.mark.parametrize("shares", [[0.5], pytest.param([0.1, 0.9], marks=pytest.mark.slow)])
def test_the_laptops_process_is_killed(there, laptop, tmp_path, up, shares):
    trees, relay = Trees(tmp_path), there.relay
    assert laptop("sync", *ends(trees, up)).status == 0
    total = relay.bytes_from_client if up else relay.bytes_from_server
    unfinished = 0
    for share in shares:
        trees.reset()
        relay.reset_counts()
        relay.rate_bytes_per_s = 20 * MB

        def far(share=share):
            time.sleep(0.001)
            return (relay.bytes_from_client if up else relay.bytes_from_server) >= share * total

        killed_when(laptop.start("sync", *ends(trees, up)), far)
        relay.rate_bytes_per_s = None
        there.quiet()
        trees.check_whole()
        missing = trees.missing_bytes()
        unfinished += missing > 0  # all of it may have been on its way
        done = laptop("sync", *ends(trees, up), "--json")
        assert done.data["sent_bytes"] == missing
        trees.check_done()
    assert unfinished


@WAYS
def test_it_is_killed_while_files_are_given_their_names(there, laptop, tmp_path, up):
    trees = Trees(tmp_path, small=800, large=())
    first = trees.target / "a/b/s0002"
    old = first.stat().st_ino
    named = lambda: first.stat().st_ino != old  # noqa: E731
    if up:

        def kill():
            pids = eventually(there.programs)
            while not named() and alive(pids[0]):
                pass
            there.kill(pids)

        with there.agent() as agent:
            agent.call("states", {})
            there.quiet()
            killer = threading.Thread(target=kill)
            killer.start()
            with contextlib.suppress(RemoteError):
                trees.go(up, agent)
            killer.join()
    else:
        killed_when(laptop.start("sync", *ends(trees, up)), named)
    there.quiet()
    trees.check_whole()
    found = files(trees.target)
    came = sum(found.get(name) == state for name, state in trees.new.items() if trees.old.get(name) != state)
    print(f"{came} of 600 had their names")
    assert laptop("sync", *ends(trees, up)).status == 0
    trees.check_done()


@WAYS
def test_ctrl_c(there, laptop, tmp_path, up):
    trees, relay = Trees(tmp_path), there.relay
    with there.agent() as agent:
        agent.call("states", {})
    relay.reset_counts()
    relay.rate_bytes_per_s = 5 * MB
    process = laptop.start("sync", *ends(trees, up), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        eventually(lambda: (relay.bytes_from_client if up else relay.bytes_from_server) > 3 * MB)
        process.send_signal(signal.SIGINT)
        started = time.monotonic()
        said = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert (process.returncode, "Traceback" in said[1]) == (130, False)
    assert "interrupted" in said[1]
    relay.rate_bytes_per_s = None
    there.quiet()
    trees.check_whole()
    # What was whole, and came before, has its name.
    found = files(trees.target)
    assert all(found[name] == trees.new[name] for name in ("a/b/s0005", "a/s0001", "a/s0004"))
    missing = trees.missing_bytes()
    assert 0 < missing < 5 * MB
    assert laptop("sync", *ends(trees, up), "--json").data["sent_bytes"] == missing
    trees.check_done()


# -- at once


def at_once(*works):
    """What each work returned or was refused, when all are done at the same time."""
    outcomes = [None] * len(works)

    def work(number):
        try:
            outcomes[number] = works[number]()
        except RemoteError as error:
            outcomes[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None not in outcomes
    for outcome in outcomes:
        assert not isinstance(outcome, RemoteError) or (outcome.hint and outcome.code == "taken_over"), outcome
    return outcomes


@WAYS
@pytest.mark.parametrize("alike", [True, False], ids=["alike", "different"])
def test_two_at_once_into_one_target(there, tmp_path, up, alike):
    one = Trees(tmp_path)
    other = one if alike else Trees(tmp_path / "other", seed=2, target=one.target)
    with there.agent() as first, there.agent() as second:
        for _ in range(3):
            one.reset()
            at_once(lambda: one.go(up, first), lambda: other.go(up, second))
            one.check_whole(other)
            found = files(one.target)
            for trees, agent in ((one, first), (other, second)):
                if not alike:
                    assert found.keys() == {*one.old, *one.new}
                trees.go(up, agent)
                assert files(one.target) == one.old | trees.new
            assert not (one.target / STAGING).exists()


def test_many_who_begin_and_end_at_once(tmp_path):
    """Whoever ends, or only looks, removes what is empty, and so might take away what another one just made."""
    works = 300

    def begin_and_end():
        for _ in range(works):
            target = Target(str(tmp_path))
            target.parts()
            target.begin()
            target.end()
        return works

    assert at_once(*[begin_and_end] * 4) == [works] * 4
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_into_one_store(there, tmp_path):
    trees = Trees(tmp_path)
    local = [store.LocalFile(trees.source / name, state[0], state[1]) for name, state in trees.new.items()]
    with there.agent() as first, there.agent() as second:
        at_once(lambda: store.push(first, local), lambda: store.push(second, local[::-1]))
        assert store.push(first, local).files == 0
    folder = there.workspace / "launch" / "store"
    assert {path.name for path in folder.iterdir() if len(path.name) == 64} == {file.sha256 for file in local}
    assert all(hashlib.sha256((folder / file.sha256).read_bytes()).hexdigest() == file.sha256 for file in local)
    assert not (folder / STAGING).exists()


# -- a server that changes its keys, and large files


class Rekeying(OpenSshServer):
    """Changes the keys of a connection every 16 MB, and says so."""

    def _config(self):
        return f"{super()._config()}RekeyLimit 16M\nLogLevel DEBUG1\n"


@WAYS
def test_keys_are_changed_on_the_way(tmp_path, up):
    with Rekeying(tmp_path / "sshd", path_prefix=[PYTHON_FOLDER]) as server, Relay(server.port) as relay:
        there = There(server, relay, tmp_path)
        trees = Trees(tmp_path, large=(100 * MB,))
        with there.agent() as agent:
            trees.go(up, agent)
        trees.check_done()
        assert relay.connections == 1
        assert server.log_file.read_text().count("SSH2_MSG_NEWKEYS received") >= 5


MEASURED = """
import os, sys
pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[1:]], os.environ)
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
"""


@pytest.mark.slow
@WAYS
def test_a_large_file_takes_little_memory(there, laptop, tmp_path, up):
    (tmp_path / "source").mkdir()
    source, target = tmp_path / "source" / "file", tmp_path / "target" / "file"
    with source.open("wb") as file:
        file.truncate(1500 * MB)
    words = [f"{source}", f"box:{target.parent}/"] if up else [f"box:{source}", f"{target.parent}/"]
    argv = [sys.executable, "-c", MEASURED, "-m", "launcher", "sync", *words]
    done = subprocess.Popen(argv, env=laptop.env, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    there_bytes = 0
    while done.poll() is None:
        for pid in there.programs():
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{pid}/status").read_text()
                there_bytes = max(there_bytes, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
        time.sleep(0.05)
    status, here_bytes = map(int, done.stdout.read().splitlines()[-1].split())
    done.stdout.close()
    print(f"peak here {here_bytes / MB:.0f} MB, there {there_bytes / MB:.0f} MB")
    assert status == 0
    assert target.stat().st_size == 1500 * MB
    assert here_bytes < 150 * MB
    assert 0 < there_bytes < 100 * MB
    source.unlink()
    target.unlink()


# -- a source that changes


def truncate(path):
    os.truncate(path, 1000)


def rewrite(path):
    with path.open("r+b") as file:
        file.write(b"other")


def replace(path):
    path.with_name("new").write_bytes(b"another one" * 50_000)
    path.with_name("new").replace(path)


def remove(path):
    path.unlink()


def become_a_folder(path):
    path.unlink()
    path.mkdir()


def become_a_link(path):
    path.unlink()
    path.symlink_to("../only here")


@WAYS
@pytest.mark.parametrize(
    "change",
    [truncate, remove]
    + [pytest.param(change, marks=pytest.mark.slow) for change in (replace, become_a_folder, become_a_link)],
)
def test_a_source_that_changes_on_the_way(there, tmp_path, up, change):
    trees = Trees(tmp_path, large=(MB, 16 * MB, MB))
    victim = trees.source / "large" / "1"
    # The sender is some 8 MB ahead.
    there.relay.rate_bytes_per_s = 40 * MB
    changer = during(lambda: part_bytes(trees.target) > 2.5 * MB, lambda: change(victim))
    with there.agent() as agent:
        outcome = trees.go(up, agent)
    changer.join()
    there.quiet()
    now = files(trees.source).get("large/1") if victim.is_file() and not victim.is_symlink() else None
    came = files(trees.target).pop("large/1", None)
    if "large/1" in outcome.failed:
        assert outcome.failed["large/1"]
        assert came is None  # as before
    else:
        assert came in (now, trees.new["large/1"])
    others = {name: state for name, state in (trees.old | trees.new).items() if name != "large/1"}
    assert {name: state for name, state in files(trees.target).items() if name != "large/1"} == others
    assert not (trees.target / STAGING).exists()


@WAYS
def test_what_is_in_the_way_of_a_file_that_does_not_come_stays(there, tmp_path, up):
    trees = Trees(tmp_path, large=(MB, 16 * MB))
    victim, inside = trees.source / "large" / "1", trees.target / "large" / "1" / "inside"
    inside.parent.mkdir()
    inside.write_text("old")
    there.relay.rate_bytes_per_s = 40 * MB
    changer = during(lambda: part_bytes(trees.target) > 2.5 * MB, lambda: remove(victim))
    with there.agent() as agent:
        outcome = trees.go(up, agent, options=sync.Options(delete=True))
        changer.join()
        assert list(outcome.failed) == ["large/1"]
        assert inside.read_text() == "old"
        assert not (trees.target / "only here").exists()
        victim.write_text("new")
        trees.go(up, agent, options=sync.Options(delete=True))
    assert victim.read_text() == (trees.target / "large" / "1").read_text()
    assert files(trees.target) == files(trees.source)


@WAYS
def test_a_source_that_never_stops_changing_is_named(there, tmp_path, up):
    trees = Trees(tmp_path, large=(MB, 4 * MB, MB))
    victim, done = trees.source / "large" / "1", threading.Event()

    def go_on_changing():
        while not done.wait(0.002):
            rewrite(victim)

    there.relay.rate_bytes_per_s = 20 * MB
    changer = threading.Thread(target=go_on_changing)
    changer.start()
    try:
        with there.agent() as agent:
            outcome = trees.go(up, agent)
    finally:
        done.set()
        changer.join()
    assert list(outcome.failed) == ["large/1"]
    assert "large/1" not in outcome.sent
    there.quiet()
    trees.check_whole()
    assert not (trees.target / STAGING).exists()
    with there.agent() as agent:
        assert trees.go(up, agent).sent == ["large/1"]
    assert files(trees.target) == trees.old | files(trees.source)


def test_a_file_that_may_not_be_read_any_more_is_named_and_the_others_go(there, laptop, tmp_path):
    trees = Trees(tmp_path, large=(4 * MB, 4 * MB, 2 * MB))
    # root reads everything, unless it lacks this right.
    without = ["setpriv", "--inh-caps=-all", "--bounding-set=-dac_override,-dac_read_search"]
    argv = [*(without if os.getuid() == 0 else []), sys.executable, "-m", "launcher", "sync", *ends(trees, True)]
    there.relay.rate_bytes_per_s = 10 * MB
    process = subprocess.Popen(argv, env=laptop.env, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    with process:
        eventually(lambda: part_bytes(trees.target) > MB)
        (trees.source / "large/1").chmod(0)
        said = process.communicate()[1]
    assert process.returncode == 1
    assert "1 files did not go" in said
    assert "large/1: Permission denied" in said
    there.quiet()
    del trees.new["large/1"]
    trees.check_done()


# -- runs


class Runs(Laptop):
    """A finished run there, and a folder at home to pull it to."""

    def __init__(self, folder, there, cli):
        super().__init__(folder)
        assert self.workspace == there.workspace / "launch"
        self.finish(big=random.Random(5).randbytes(6 * MB))
        self.target = cli.home / "runs"
        self.home = RunDirectory(self.target / RUN_ID)
        Ledger(cli.home / "launch" / "ledger.sqlite").add(self.record)

    def is_home(self):
        """Whether the run has its final name; it has it only whole."""
        if not self.home.root.exists():
            return False
        assert manifest.problems(self.home.artifacts, manifest.parse(self.home.manifest.read_text())) == []
        assert self.home.result.read_bytes() == self.run.result.read_bytes()
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_pull_of_a_run_is_killed(there, laptop, tmp_path, number):
    runs, relay = Runs(tmp_path, there, laptop), there.relay
    for at in (MB, 4 * MB):
        relay.reset_counts()
        relay.rate_bytes_per_s = 8 * MB
        with laptop.start("pull", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as pull:
            eventually(lambda at=at: relay.bytes_from_server > at or pull.poll() is not None)
            pull.send_signal(number)
            said = pull.communicate()[0]
        assert pull.returncode == (130 if number == signal.SIGINT else -number), said
        assert "Traceback" not in said
        assert not runs.is_home()
    relay.rate_bytes_per_s = None
    relay.reset_counts()
    assert laptop("pull").status == 0
    assert runs.is_home()
    assert relay.bytes_from_server < 3.5 * MB
    assert [path.name for path in runs.target.iterdir()] == [RUN_ID]


def test_two_pulls_of_one_run_at_once_and_a_cut(there, laptop, tmp_path):
    runs, seen = Runs(tmp_path, there, laptop), []
    there.relay.rate_bytes_per_s = 8 * MB
    there.relay.cut_after(3 * MB)
    pulls = [laptop.start("pull", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    while any(pull.poll() is None for pull in pulls):
        seen.append(runs.is_home())
        time.sleep(0.01)
    said = [pull.communicate()[0] for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0], said
    assert "going on" in "".join(said)
    assert not seen[0]
    assert runs.is_home()
    assert [path.name for path in runs.target.iterdir()] == [RUN_ID]
