"""A run outlives the laptop, the network and the box's own services; where it can't, what happened is said.

Real processes on a look-alike box behind a real sshd, and the real command line through a relay whose line can be cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.spec import DataFiles, Spec
from jobs.submission import Submission
from launcher.ledger import Ledger, Record
from remote import runs
from remote.agent import Agent
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.box import Box, box_missing
from tests.conftest import Cli, Ended
from tests.connected import eventually
from tests.relay import Relay
from tests.test_runs import FILES, LETTERS, SUCCEED
from tests.toy import write_task

pytestmark = pytest.mark.ssh
LINES = 160
TALK = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.05; done; "
HOLD = "while [ ! -e go ]; do sleep 0.05; done; "
SECRET = "hf_q7Zp4-a-secret-of-the-tests"


class Following:
    """A `launch` that goes on, with what it said so far."""

    def __init__(self, cli: Cli, *argv: str) -> None:
        self._said = [cli.home / f"{name}-{os.urandom(4).hex()}" for name in ("stdout", "stderr")]
        with self._said[0].open("w") as stdout, self._said[1].open("w") as stderr:
            self.process = cli.start(*argv, stdout=stdout, stderr=stderr)

    def stdout(self) -> str:
        return self._said[0].read_text()

    def ended(self, within_s: float = 120) -> Ended:
        """How it ended, once it did."""
        status = self.process.wait(within_s)
        return Ended(status, self.stdout(), self._said[1].read_text())


class Outpost:
    """A box with a line to it that can be cut, a laptop that knows it, and runs of any kind on it."""

    def __init__(self, box: Box, relay: Relay, cli: Cli) -> None:
        self.box, self.relay, self.cli = box, relay, cli
        self.introduce(cli)
        known = cli.home / "known_hosts"
        known.write_text(box.host_key_line)
        host = SshHost("there", parse(box.login_line), questions=Answers([box.password]), known_hosts=known)
        self.agent = Agent(host)

    def introduce(self, cli: Cli) -> None:
        """Let a laptop know the box, by the line that can be cut."""
        line = self.box.login_line_at(self.relay.port)
        added = cli("host", "add", "box", line, "--accept-new", "--install-key", "--json",
                    env={"LAUNCH_PASSWORD": self.box.password})  # fmt: skip
        assert added.status == 0, added

    def submit(self, phase: str, **changes: object) -> str:
        """A run of a shell text, in the laptop's ledger as if it had been trained from there."""
        run_id = f"toy-{''.join(LETTERS[byte % 32] for byte in os.urandom(8))}"
        plan = {"run_id": run_id, "name": "toy", "files": FILES, "env": {},
                "phases": [{"state": "running", "argv": ["sh", "-c", phase]}]}  # fmt: skip
        runs.submit(self.agent, plan | changes, links=[], documents={"spec.json": {}})
        spec = Spec("toy", "base", DataFiles(file="x.csv"))
        ledger = Ledger(self.cli.home / "launch" / "ledger.sqlite")
        ledger.add(Record(run_id, "toy", "box", time.time(), Submission(run_id, spec, {}, (), "0")))
        return run_id

    def path(self, run_id: str, name: str = "") -> Path:
        return self.box.path(f"/root/autodl-tmp/launch/runs/{run_id}/{name}")

    def pid(self, run_id: str, name: str) -> str:
        """In the box: the process that `name`.json is about."""
        eventually(lambda: self.path(run_id, f"{name}.json").exists())
        return str(json.loads(self.path(run_id, f"{name}.json").read_text())["pid"])

    def alive(self, pid: str) -> bool:
        state = self.box.run("sh", "-c", f"cat /proc/{pid}/stat 2>/dev/null").stdout
        return bool(state) and b") Z " not in state

    def state(self, run_id: str) -> runs.State:
        [state] = runs.states(self.agent, [run_id])
        return state

    def follow(self, run_id: str) -> Following:
        """A `launch logs -f` that has begun to show what comes."""
        following = Following(self.cli, "logs", run_id, "-f")
        eventually(lambda: following.stdout().startswith("line 0\n"))
        return following


@pytest.fixture
def outpost(box: Box, cli: Cli) -> Iterator[Outpost]:
    """On a box of its own, which may be hurt."""
    with Relay(box.port) as relay:
        yield Outpost(box, relay, cli)


@pytest.fixture(scope="module")
def training_box() -> Iterator[Box]:
    """Where the environment for real trainings has been proved once."""
    if reason := box_missing():
        pytest.skip(reason)
    with Box() as running:
        yield running


@pytest.fixture
def training_post(training_box: Box, cli: Cli) -> Iterator[Outpost]:
    """For real trainings."""
    with Relay(training_box.port) as relay:
        yield Outpost(training_box, relay, cli)


def shows_every_line_once(shown: Ended, run_id: str) -> None:
    lines = [line for line in shown.stdout.splitlines() if not line.startswith("launch: ")]
    assert lines[:LINES] == [f"line {n}" for n in range(LINES)]
    assert lines[LINES:] == [f"{run_id} succeeded", f"launch pull {run_id}"]
    assert shown.status == 0


def test_sshd_is_killed_and_comes_back(outpost: Outpost) -> None:
    box = outpost.box
    run_id = outpost.submit(TALK + SUCCEED)
    following = outpost.follow(run_id)
    box.run("sh", "-c", "for p in /proc/[0-9]*; do case $(cat $p/comm) in sshd*) kill -9 ${p#/proc/};; esac; done")
    outpost.agent.host.close()
    time.sleep(1)
    started = box.run("/usr/sbin/sshd", "-o", f"ListenAddress=127.0.0.1:{box.port}")
    assert started.returncode == 0, started
    shows_every_line_once(following.ended(), run_id)


@pytest.mark.parametrize("seconds", [5, pytest.param(90, marks=pytest.mark.slow)])
def test_the_network_is_away_for_a_while(outpost: Outpost, seconds: int) -> None:
    run_id = outpost.submit(TALK + HOLD + SUCCEED)
    following = outpost.follow(run_id)
    outpost.relay.freeze()
    time.sleep(seconds)
    assert following.process.poll() is None
    outpost.relay.thaw()
    outpost.path(run_id, "go").touch()
    shown = following.ended()
    shows_every_line_once(shown, run_id)
    assert ("monitoring lost" in shown.stdout + shown.stderr) == (seconds > 60)


@pytest.mark.slow
def test_the_network_is_away_for_ever(outpost: Outpost) -> None:
    run_id = outpost.submit(TALK + SUCCEED)
    following = outpost.follow(run_id)
    outpost.relay.freeze()
    eventually(lambda: outpost.path(run_id, "result.json").exists())
    assert following.process.poll() is None  # nothing that does not come is taken for a success
    following.process.send_signal(signal.SIGINT)
    left = following.ended()
    assert left.status == 130
    assert f"launch logs {run_id} -f" in left.stderr
    [row] = outpost.cli("ps", "--json").data["runs"]
    assert row["state"] == "unknown"
    outpost.relay.thaw()
    [row] = outpost.cli("ps", "--json").data["runs"]
    assert row["state"] == "succeeded"


def test_a_training_that_is_killed_is_told_with_what_that_means(outpost: Outpost) -> None:
    run_id = outpost.submit("echo line 0; sleep 60")
    following = outpost.follow(run_id)
    outpost.box.run("kill", "-9", outpost.pid(run_id, "child"))
    shown = following.ended()
    assert shown.status == 6
    assert "killed" in shown.stderr
    state = outpost.state(run_id)
    assert (state.state, state.reason) == ("failed", "running: killed (signal 9; out of memory, or by hand)")


def test_a_killed_supervisor_takes_the_training_with_it(outpost: Outpost) -> None:
    run_id = outpost.submit("echo line 0; sleep 60 & wait")
    child = outpost.pid(run_id, "child")
    following = outpost.follow(run_id)
    outpost.box.run("kill", "-9", outpost.pid(run_id, "supervisor"))
    shown = following.ended()
    assert shown.status == 6
    assert "supervisor killed" in shown.stderr
    assert outpost.state(run_id).reason == "supervisor killed"
    eventually(lambda: not outpost.alive(child))


def test_a_killed_tmux_server_hurts_nobody(outpost: Outpost) -> None:
    run_id = outpost.submit(TALK + HOLD + SUCCEED)
    following = outpost.follow(run_id)
    assert outpost.box.run("tmux", "kill-server").returncode == 0
    outpost.path(run_id, "go").touch()
    shows_every_line_once(following.ended(), run_id)


def test_a_full_disk_is_a_failure_in_words_with_the_log_to_its_end(cli: Cli) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    with Box(data_disk_mb=4) as box, Relay(box.port) as relay:
        outpost = Outpost(box, relay, cli)
        # As `torch.save` does: it fills the disk, and says why it died.
        phase = "echo line 0; cat /dev/zero >checkpoint; echo 'OSError: [Errno 28] No space left on device'; exit 1"
        run_id = outpost.submit(phase)
        shown = cli("logs", run_id, "-f")
        assert shown.status == 6
        assert "the disk is full" in shown.stderr
        assert "No space left on device\n" in shown.stdout
        state = outpost.state(run_id)
        assert (state.state, state.reason) == ("failed", "running: ended with status 1")
        assert box.run("df", "/root/autodl-tmp").returncode == 0


BYTES, FILES_FULL = {"data_disk_mb": 4}, {"data_disk_mb": 40, "data_disk_inodes": 300}
CHATTY = "head -c 1000000 /dev/zero | tr '\\0' x; "
NO_INODE = "(n=0; while : > f$n; do n=$((n+1)); done) 2>/dev/null; "


@pytest.mark.parametrize(
    ("limits", "fill"),
    [
        # The log eats up what is kept, and the disk is full again.
        (BYTES, f"cat /dev/zero >big; {CHATTY}cat /dev/zero >>big; "),
        (FILES_FULL, NO_INODE),
        (FILES_FULL, f"{NO_INODE}{CHATTY}sleep 0.5; {NO_INODE.replace('$n', 'g$n')}"),
    ],
    ids=["bytes", "inodes", "inodes and a log"],
)
def test_a_disk_that_is_full_to_the_end_still_takes_the_result(cli: Cli, limits: dict[str, int], fill: str) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    with Box(**limits) as box, Relay(box.port) as relay:
        outpost = Outpost(box, relay, cli)
        run_id = outpost.submit(f"{fill}exit 3")
        eventually(lambda: not outpost.alive(outpost.pid(run_id, "supervisor")))
        state = outpost.state(run_id)
        assert (state.state, state.reason) == ("failed", "running: ended with status 3")
        assert outpost.path(run_id, "result.json").exists()
        disks = json.loads(outpost.path(run_id, "crash.json").read_text())["disks"]
        assert 0 in [disks[0]["least_free_bytes"], disks[0]["least_free_inodes"]]
        left = os.listdir(outpost.path(run_id))
        assert not [name for name in left if name.startswith((".room-", ".reserve", ".part-"))]


def test_a_disk_that_takes_no_result_at_all_hides_no_end(cli: Cli) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    with Box(data_disk_mb=4) as box, Relay(box.port) as relay:
        outpost = Outpost(box, relay, cli)
        run_id = outpost.submit("sleep 60")
        box.run("kill", "-9", outpost.pid(run_id, "supervisor"))
        folder = "/root/autodl-tmp/launch/runs"
        box.run("sh", "-c", f"rm {folder}/{run_id}/.r[eo]*; cat /dev/zero >{folder}/{run_id}/big")
        state = eventually(lambda: (found := outpost.state(run_id)).is_over and found)
        assert state.reason == "supervisor killed; no result can be written: No space left on device"


@pytest.mark.parametrize("offset", ["-2h", "+2h"])
def test_a_host_whose_clock_is_hours_off(cli: Cli, offset: str) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("faketime is not installed")
    told = f"SetEnv LD_PRELOAD={library} FAKETIME={offset}"
    with Box(sshd_lines=[told]) as box, Relay(box.port) as relay:
        outpost = Outpost(box, relay, cli)
        there = int(box.run("env", f"LD_PRELOAD={library}", f"FAKETIME={offset}", "date", "+%s").stdout)
        assert abs(there - time.time()) > 7000
        run_id = outpost.submit(TALK + SUCCEED, limit_s=600)
        shows_every_line_once(outpost.follow(run_id).ended(), run_id)
        [row] = cli("ps", "-a", "--json").data["runs"]
        assert row["state"] == "succeeded"
        assert 0 <= row["age_s"] < 60
        late = outpost.submit("echo line 0; sleep 60", limit_s=2)
        state = outpost.follow(late).ended()
        assert state.status == 124
        assert outpost.state(late).reason == "time limit"


def test_a_restart_of_the_box_is_lost_and_not_failed(outpost: Outpost) -> None:
    run_id = outpost.submit("echo line 0; sleep 60")
    following = outpost.follow(run_id)
    outpost.box.power_cycle(new_port=False)
    outpost.agent.host.close()
    shown = following.ended()
    assert shown.status == 6
    assert "restarted" in shown.stderr
    assert outpost.state(run_id).state == "lost"
    [row] = outpost.cli("ps", "--json").data["runs"]
    assert row["state"] == "lost"


def test_a_run_whose_folder_is_removed_is_gone(outpost: Outpost) -> None:
    run_id = outpost.submit("echo line 0; sleep 60")
    child = outpost.pid(run_id, "child")
    following = outpost.follow(run_id)
    outpost.box.run("rm", "-rf", f"/root/autodl-tmp/launch/runs/{run_id}")
    shown = following.ended()
    assert shown.status != 0
    assert "gone" in shown.stderr
    eventually(lambda: not outpost.alive(child))


def test_a_deaf_job_is_stopped_for_good(outpost: Outpost) -> None:
    deaf = "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; sleep 600' & echo line 0; while :; do sleep 1; done"
    run_id = outpost.submit(deaf, stop_grace_s=1)
    outpost.path(run_id, "log.txt")
    stopped = outpost.cli("stop", run_id, "--json")
    assert (stopped.status, stopped.data["state"]) == (0, "stopped")
    left = outpost.box.run("sh", "-c", f"grep -lz LAUNCH_RUN={run_id} /proc/[0-9]*/environ").stdout
    assert left == b""


GIGABYTE = """
import os
block = b"".join(b"%07d " % n + b"x" * 91 + b"\\n" for n in range(10_000))
for n in range(1000): os.write(1, block)
os.rename(".r", "result.json")
"""


@pytest.mark.slow
def test_a_log_of_a_gigabyte(outpost: Outpost) -> None:
    made = """printf '{"protocol": 1, "state": "succeeded", "reason": ""}' > .r; echo line 0; """
    run_id = outpost.submit(f"{made} exec /root/miniconda3/bin/python -ISc '{GIGABYTE}'")
    eventually(lambda: outpost.state(run_id).is_over, within_s=120)
    size = sum(path.stat().st_size for path in outpost.path(run_id).glob("log*.txt"))
    assert size == len("line 0\n") + 1_000_000_000
    began = time.monotonic()
    last = outpost.cli("logs", run_id, "-n", "3")
    assert [line[:8] for line in last.stdout.splitlines()] == ["0009997 ", "0009998 ", "0009999 "]
    assert time.monotonic() - began < 10


@pytest.mark.slow
def test_two_laptops_and_two_launches_at_once(training_post: Outpost, tmp_path: Path) -> None:
    (tmp_path / "other" / ".ssh").mkdir(parents=True, mode=0o700)
    other = Cli(tmp_path / "other")
    training_post.introduce(other)
    started = []
    for cli in (training_post.cli, other):
        spec = write_task(cli.home / "task", name=f"of-{cli.home.name}")
        started.append(Following(cli, "train", str(spec), "--host", "box", "--force"))
    shown = [process.ended(within_s=200) for process in started]
    assert [one.status for one in shown] == [0, 0], shown
    for cli in (training_post.cli, other):
        assert len(cli("ps", "-a", "--json").data["runs"]) == 1
        there = cli("ps", "--host", "box", "--json").data["runs"]
        there = [row for row in there if row["name"].startswith("of-")]
        assert sorted((row["name"], row["state"]) for row in there) == [
            ("of-laptop", "succeeded"),
            ("of-other", "succeeded"),
        ]
        assert cli("pull").status == 0
    # One after the other: the second one's training began when the first one was over.
    spans = []
    for row in there:
        events = [
            json.loads(line) for line in training_post.path(row["run_id"], "events.jsonl").read_text().splitlines()
        ]
        times = {event["state"]: event["time"] for event in events if event["type"] == "state"}
        spans.append((times["preparing"], times["evaluating"]))
    first, second = sorted(spans)
    assert first[1] <= second[0]


@pytest.mark.slow
def test_the_laptop_is_killed_at_every_phase(training_post: Outpost) -> None:
    """Before the start nothing is left half-done, after it the run needs nobody."""
    cli, spec = training_post.cli, write_task(training_post.cli.home / "task", name="killed")
    for mark in ("data: ", "pushing to", "sent ", "started on", "preparing", "running", "verifying"):
        with cli.start(
            "train", str(spec), "--host", "box", "--force", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdout is not None
            assert any(mark in line for line in process.stdout), mark
            process.send_signal(signal.SIGKILL)

    def states() -> list[str]:
        rows = cli("ps", "--host", "box", "--json").data["runs"]
        return [row["state"] for row in rows if row["name"] == "killed"]

    eventually(lambda: set(states()) == {"succeeded"}, within_s=200)
    rows = cli("ps", "-a", "--json").data["runs"]
    assert 4 <= len(rows) <= 7
    # One killed between ledger and start is not on the host; none of those that are is unknown here.
    assert {row["state"] for row in rows} <= {"succeeded", "gone", "queued"}
    assert len([row for row in rows if row["state"] == "succeeded"]) == len(states()) >= 4
    for row in rows:
        if row["state"] == "succeeded":
            assert cli("pull", row["run_id"]).status == 0


def trained_until_a_checkpoint(post: Outpost, name: str) -> str:
    """The id of a real training that goes on and has something to be resumed from."""
    spec = write_task(post.cli.home / "task", name=name, num_train_epochs=12, save_steps=4)
    run_id: str = post.cli("train", str(spec), "--host", "box", "--force", "-d", "--json").data["run_id"]
    eventually(lambda: list(post.path(run_id, "checkpoints").glob("[!.]*")), within_s=100)
    return run_id


def resumed_to_a_proven_adapter(post: Outpost, run_id: str) -> None:
    shown = post.cli("resume", run_id, "--force", "-y")
    assert shown.status == 0, shown
    assert "checkpoint" in shown.stdout + shown.stderr
    new = post.cli("ps", "-a", "--json").data["runs"][0]["run_id"]
    log = "".join(path.read_text() for path in sorted(post.path(new).glob("log*.txt")))
    assert "going on from the checkpoint of step" in log, log
    assert post.cli("pull", new).status == 0
    assert post.cli("verify", new, "--static").status == 0
    [old] = [row for row in post.cli("ps", "-a", "--json").data["runs"] if row["run_id"] == run_id]
    assert old["superseded_by"] == new
    refused = post.cli("pull", run_id, "--json")
    assert refused.error["code"] == "run_superseded"


@pytest.mark.slow
def test_after_a_restart_of_the_box_a_training_goes_on_from_its_checkpoint(training_post: Outpost) -> None:
    run_id = trained_until_a_checkpoint(training_post, "restarted")
    training_post.box.power_cycle(new_port=False)
    told = training_post.cli("wait", run_id)
    assert told.status == 6
    assert "restarted" in told.stderr
    assert f"launch resume {run_id}" in told.stderr
    resumed_to_a_proven_adapter(training_post, run_id)


@pytest.mark.slow
def test_a_training_whose_disk_is_full_says_so_and_goes_on_once_there_is_room(cli: Cli) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    with Box(data_disk_mb=400) as box, Relay(box.port) as relay:
        post = Outpost(box, relay, cli)
        run_id = trained_until_a_checkpoint(post, "full")
        box.run("sh", "-c", "cat /dev/zero >/root/autodl-tmp/filler")
        told = cli("wait", run_id)
        assert told.status == 6
        assert "disk is full" in told.stderr
        [row] = cli("ps", "-a", "--json").data["runs"]
        assert row["state"] == "failed"
        box.run("rm", "/root/autodl-tmp/filler")
        resumed_to_a_proven_adapter(post, run_id)


def files_below(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    yield path, path.read_bytes()


@pytest.mark.slow
def test_a_secret_is_nowhere_but_in_the_jobs_environment(training_post: Outpost) -> None:
    cli, box = training_post.cli, training_post.box
    spec = write_task(cli.home / "task", secrets="[HF_TOKEN]")
    cli.env["HF_TOKEN"] = SECRET
    submitted = cli("train", str(spec), "--host", "box", "--force", "-d", "--json")
    run_id = submitted.data["run_id"]
    said = [submitted]
    eventually(lambda: training_post.path(run_id, "child.json").exists())
    holders: set[bytes] = set()

    def look() -> bool:
        looked = box.run("sh", "-c", "grep -lzf - /proc/[0-9]*/environ /proc/[0-9]*/cmdline", stdin=SECRET.encode())
        found = looked.stdout
        holders.update(re.sub(rb"\d+", b"N", line) for line in found.splitlines())
        return bool(holders) and training_post.state(run_id).is_over

    eventually(look, within_s=120)
    assert holders == {b"/proc/N/environ"}
    assert SECRET.encode() not in box.run("tmux", "show-environment", "-g").stdout
    said += [cli("logs", run_id, "-f"), cli("ps", "-a", "--json"), cli("pull", run_id)]
    assert said[1].status == 0, said[1]
    for one in said:
        assert SECRET not in one.stdout + one.stderr
    for path, content in files_below(box.path("/root"), box.path("/tmp"), box.path("/dev/shm"), cli.home):
        assert SECRET.encode() not in content, path
