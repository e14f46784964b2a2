"""Following a run: over segments and gaps, from the end, since a time, over networks that break, and what is kept."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from launcher.kept_log import KeptLog
from launcher.progress import LogPiece, Note
from launcher.watch import Patience, follow
from remote import runs
from remote.agent import Agent
from remote.errors import NotFound, RemoteError, Unreachable
from remote.ssh import address
from remote.ssh.host import SshHost
from tests.connected import eventually
from tests.relay import Relay
from tests.test_runs import RESULT, SUCCEED, Place, without_tmux

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

SMALL = {"segment_bytes": 4000, "keep_bytes": 20_000}
PRINT = (
    "import os\nfor n in range({}): os.write(1, b'%06d \\xe8\\xaf\\x84\\xe8\\xae\\xba\\n' % n)\n"
    "os.rename('.r', 'result.json')"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with without_tmux(tmp_path_factory.mktemp("place")) as one:
        yield one


def printer(place, lines, **changes):
    run_id = place.submit(f"printf '%s' '{RESULT}' > .r", [sys.executable, "-ISc", PRINT.format(lines)], **changes)
    assert place.end(run_id).state == "succeeded"
    return run_id


def line(n):
    return f"{n:06d} 评论\n"


def logged(place, run_id, **options):
    """Where the log began, its text, and the gaps."""
    begun, text, gaps = None, "", []
    for said in runs.follow(place.agent, run_id, **options):
        match said:
            case runs.Begun():
                begun = said.offset
            case runs.LogText():
                text += said.text
            case runs.LogGap():
                gaps.append(said)
    return begun, text, gaps


def test_a_log_in_segments_is_one_log_and_a_gap_is_said(place):
    run_id = printer(place, 5000, log=SMALL)
    assert len(list(place.root(run_id).glob("log*.txt"))) >= 4
    begun, text, [gap] = logged(place, run_id)
    assert begun == 0
    lines = text.splitlines(keepends=True)
    first = (place.root(run_id) / "log.txt").read_text("utf-8").splitlines(keepends=True)
    assert lines[: len(first)] == first == [line(n) for n in range(len(first))]
    rest = lines[len(first) :]
    assert rest == [line(n) for n in range(5000 - len(rest), 5000)]
    assert gap.start == len(first) * 14
    assert gap.offset == (5000 - len(rest)) * 14
    # From within the gap, and from any place after it.
    _, text, [again] = logged(place, run_id, log_offset=gap.start + 100)
    assert (again.start, again.offset) == (gap.start + 100, gap.offset)
    assert text == "".join(rest)
    assert logged(place, run_id, log_offset=gap.offset + 14) == (gap.offset + 14, "".join(rest[1:]), [])


def test_the_end_of_a_log_and_what_is_younger(place):
    run_id = printer(place, 1000, log=SMALL)
    for lines in (1, 3, 400, 900):
        begun, text, _ = logged(place, run_id, once=True, tail=lines)
        assert text == "".join(line(n) for n in range(1000 - lines, 1000))
        assert begun == (1000 - lines) * 14
    assert logged(place, run_id, tail=0)[1] == ""
    time.sleep(1.1)  # the host notes times to a second
    assert logged(place, run_id, since_s=0)[1] == ""
    assert logged(place, run_id, since_s=3600)[1].endswith(line(999))
    assert logged(place, run_id, since_s=3600, tail=2)[1] == line(998) + line(999)
    assert logged(place, run_id, since_s=0, tail=2)[1] == ""


def test_a_tail_goes_on_with_what_comes(place):
    go = "for n in 1 2 3 4 5; do echo $n; done; while [ ! -e go ]; do sleep 0.02; done; echo after; " + SUCCEED
    run_id = place.submit(go)
    eventually(lambda: (place.root(run_id) / "log.txt").read_bytes().endswith(b"5\n"))
    threading.Timer(0.3, (place.root(run_id) / "go").touch).start()
    assert logged(place, run_id, tail=2)[1] == "4\n5\nafter\n"


def test_whoever_asks_for_more_than_there_is_follows_what_comes(place):
    run_id = place.submit(f"echo begun; while [ ! -e go ]; do sleep 0.05; done; echo more; {SUCCEED}")
    eventually((place.root(run_id) / "log.txt").read_bytes)
    stream = runs.follow(place.agent, run_id, log_offset=10**25, events_offset=10**25)
    assert next(stream).offset == len("begun\n")
    (place.root(run_id) / "go").touch()
    said = list(stream)
    assert b"".join(one.content for one in said if isinstance(one, runs.LogText)) == b"more\n"
    assert [one.fields["state"] for one in said if isinstance(one, runs.RunEvent)] == ["succeeded"]
    assert place.followed(run_id, log_offset=-7, events_offset=-7)[0] == "begun\nmore\n"


def test_a_run_that_is_removed_meanwhile_is_gone(place):
    run_id = place.submit("echo begun; sleep 60")
    child, seen, state = place.child(run_id), [], None
    for said in runs.follow(place.agent, run_id):
        if isinstance(said, runs.LogText):
            seen.append(said.text)
            os.kill(place.supervisor(run_id), 9)
            shutil.rmtree(place.root(run_id))
        if isinstance(said, runs.State):
            state = said
    os.kill(child, 9)
    assert (seen, state.state, state.is_over) == (["begun\n"], "gone", True)
    with pytest.raises(NotFound):
        logged(place, run_id)


def test_what_is_printed_in_the_end_comes_before_the_state(place):
    """The result may be there long before the pipe of the job is empty."""
    for _ in range(5):
        run_id = place.submit(f"{SUCCEED}; for n in $(cat /proc/sys/kernel/random/uuid); do echo last words; done")
        log, events, state = place.followed(run_id)
        assert (log, state.state) == ("last words\n", "succeeded")
        assert events[-1]["state"] == "succeeded"


def test_a_grandchild_that_left_can_not_hold_the_run_up(place):
    run_id = place.submit(f"setsid sleep 30 & {SUCCEED}")
    started = time.monotonic()
    assert place.end(run_id).state == "succeeded"
    assert time.monotonic() - started < 10


@pytest.fixture
def far(place):
    """The same place behind a line of its own, which can be cut."""
    with Relay(place.server.port) as relay:
        known = place.server.home / "known_relay"
        key = place.server.known_hosts_file.read_text().split(" ", 1)[1]
        known.write_text(f"[127.0.0.1]:{relay.port} {key}")
        login = place.server.login_line.replace(f"-p {place.server.port}", f"-p {relay.port}")
        with SshHost("there", address.parse(login), known_hosts=known, retry_s=()) as host:
            yield Place(Agent(host), "setsid"), relay


class Seen:
    """An observer that remembers."""

    def __init__(self, on_text=lambda text: None):
        self.text, self.notes, self._on_text = "", [], on_text

    def __call__(self, progress):
        match progress:
            case LogPiece(text):
                self.text += text
                self._on_text(self.text)
            case Note(text):
                self.notes.append(text)


def test_watching_over_a_broken_line_loses_and_doubles_nothing(place, far, tmp_path):
    there, relay = far
    slow = PRINT.replace("% n)", "% n), __import__('time').sleep(0.002)").format(600)
    run_id = place.submit(f"printf '%s' '{RESULT}' > .r", [sys.executable, "-ISc", slow])
    cuts = []

    def cut(text):
        if len(cuts) < 2 and text.count("\n") > 100 * (len(cuts) + 1):
            cuts.append(len(text))
            relay.reset() if cuts[1:] else relay.cut()

    seen, kept = Seen(cut), KeptLog(tmp_path, run_id)
    state = follow(run_id, there.agent, seen, kept=kept)
    assert (len(cuts), state.state) == (2, "succeeded")
    assert seen.text == "".join(line(n) for n in range(600))
    assert b"".join(part.content for part in kept.parts()).decode() == seen.text
    assert [note for note in seen.notes if "trying again in 1 s" in note]
    assert [note for note in seen.notes if "there is back after" in note]


def test_a_line_that_is_silent_counts_as_broken(place, far):
    """A network that was cut says nothing, and TCP waits for many minutes."""
    there, relay = far
    run_id = place.submit(f"echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; {SUCCEED}")
    seen = Seen(lambda text: relay.freeze_after(0) if text == "before\n" else None)
    threading.Timer(1, (place.root(run_id) / "go").touch).start()
    state = follow(run_id, there.agent, seen, patience=Patience(silence_s=1.5))
    assert (seen.text, state.state) == ("before\nafter\n", "succeeded")
    assert "nothing was heard for 1.5 s" in seen.notes[0]


@pytest.mark.slow
def test_a_loss_is_said_once_and_so_is_the_return(place, far):
    there, relay = far
    run_id = place.submit(f"echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; {SUCCEED}")
    port = relay.target_port

    def lose(text):
        if text == "before\n":
            relay.target_port = 1
            relay.cut()

    def find():
        (place.root(run_id) / "go").touch()
        relay.target_port = port

    threading.Timer(9, find).start()
    state = follow(run_id, there.agent, seen := Seen(lose), patience=Patience(lost_after_s=0.5))
    assert (seen.text, state.state) == ("before\nafter\n", "succeeded")
    told = [note.split(":")[0] for note in seen.notes if "trying again in" not in note]
    assert told[0] == "monitoring lost, the run goes on"
    assert len(told) == 2
    assert re.match(r"there is back after \d+s; the run went on meanwhile", told[1])


def test_a_reader_that_stops_is_not_a_silent_line(place, far):
    there, _ = far
    run_id = printer(place, 10)
    seen = Seen(lambda text: time.sleep(2))
    assert follow(run_id, there.agent, seen, patience=Patience(silence_s=0.5)).state == "succeeded"
    assert seen.notes == []


def test_the_first_connection_must_succeed_and_another_machine_ends_the_watching(place, far):
    there, relay = far
    run_id = place.submit("echo begun; sleep 60")
    marker = Path(place.agent.workspace) / "box-id"
    before = marker.read_text()
    identity = there.agent.place.identity
    agent = Agent(there.agent.host, identity=identity)

    def move(text):
        marker.write_text("0" * 32)
        relay.cut()

    try:
        with pytest.raises(RemoteError) as refused:
            follow(run_id, agent, seen := Seen(move))
    finally:
        marker.write_text(before)
    assert refused.value.code == "other_machine"
    assert refused.value.hint
    assert any("the run goes on" in note for note in seen.notes)
    runs.stop(place.agent, run_id)
    relay.target_port = 1
    relay.cut()
    with pytest.raises(Unreachable):
        follow(run_id, there.agent, Seen())


@pytest.mark.alone
def test_the_tail_of_a_large_log_takes_two_round_trips(place, far):
    there, relay = far
    run_id = printer(place, 10)
    with (place.root(run_id) / "log.txt").open("r+b") as file:
        file.truncate(1 << 30)  # all holes, but as long
        file.seek(0, 2)
        file.write(b"\nlast\nlines\n")
    assert logged(there, run_id, once=True, tail=2)[1] == "last\nlines\n"
    relay.reset_counts()
    there.state(run_id)  # a request, and its answer
    eventually(lambda: relay.round_trips >= 2)
    time.sleep(0.2)
    turns = relay.round_trips
    relay.reset_counts()
    started = time.monotonic()
    assert logged(there, run_id, once=True, tail=2)[1] == "last\nlines\n"
    assert relay.round_trips <= turns + 1  # it hangs up
    assert relay.bytes_from_server < 10_000
    assert time.monotonic() - started < 2


def test_a_follower_that_has_nothing_to_do_costs_next_to_nothing(place):
    run_id = place.submit("echo begun; sleep 60")
    stream = runs.follow(place.agent, run_id)
    for said in stream:
        if isinstance(said, runs.LogText):
            break
    rest = threading.Thread(target=lambda: list(stream), daemon=True)
    rest.start()
    argv = ["pgrep", "-n", "-f", f"{place.agent.place.program} follow "]
    [pid] = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    before = ticks(pid)
    time.sleep(5)
    used_s = (ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
    runs.stop(place.agent, run_id)
    rest.join()
    assert used_s / 5 <= 0.01


def ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
