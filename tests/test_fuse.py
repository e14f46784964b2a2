"""A box that powers itself off when its run is over: one test a clause, on a box whose shutdown only leaves a mark."""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

import paramiko
import pytest

from remote import runs
from remote.agent import Agent
from remote.errors import RemoteError
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.box import Box, box_missing
from tests.connected import eventually

reason = box_missing()
pytestmark = [pytest.mark.ssh, pytest.mark.skipif(reason is not None, reason=str(reason))]

FILES = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
RESULT = '{"protocol": 1, "state": "succeeded", "reason": "", "finished_at": 0}'
SUCCEED = f"printf '%s' '{RESULT}' > .r && mv .r result.json"
WHEN_TOLD = "until [ -e go ]; do sleep 0.02; done; "
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
MARK = "/root/autodl-fs/.powered-off"
NVIDIA_SMI = "#!/bin/sh\ncat /run/gpu-pids 2>/dev/null || :\n"
# As the profile of such a box says; the rest is quicker than people are.
POWEROFF: dict[str, Any] = {
    "command": ["/bin/sh", "/usr/bin/shutdown"],
    "keep_on_failure": False,
    "durable": ["/", "/root/autodl-tmp", "/root/autodl-fs"],
    "poll_s": 0.05,
    "grace_s": 0.2,
    "quiet_s": 0.2,
    "stopped_s": 0.2,
    "margin_s": 0.3,
    "retry_s": [],
}
WELL_PAST_S = 0.7
LONG_S = 3600


class Rented:
    """A box, an agent on it, and runs with fuses."""

    def __init__(self, box: Box, host: SshHost, agent: Agent) -> None:
        self.box, self.host, self.agent = box, host, agent

    def submit(
        self,
        phase: str,
        *,
        limit_s: float = LONG_S,
        fuse: bool = True,
        stop_grace_s: float = 10,
        plan: dict[str, Any] | None = None,
        **changes: Any,
    ) -> str:
        """The id of a new run of this shell text; `changes` are those of its fuse, `plan` what its plan has besides."""
        run_id = "toy-" + "".join(LETTERS[byte % 32] for byte in os.urandom(8))
        whole: dict[str, Any] = {
            "run_id": run_id,
            "name": "toy",
            "files": FILES,
            "env": {"LAUNCH_RUN": run_id},
            "limit_s": limit_s,
            "stop_grace_s": stop_grace_s,
            "phases": [{"state": "running", "argv": ["sh", "-c", phase]}],
        }
        if fuse:
            whole["poweroff"] = POWEROFF | changes
        runs.submit(self.agent, whole | (plan or {}), links=[], documents={})
        eventually(lambda: not fuse or self.json(run_id, "guard.json"))
        return run_id

    def root(self, run_id: str) -> str:
        return f"{self.agent.workspace}/runs/{run_id}"

    def go(self, run_id: str) -> None:
        self.box.path(f"{self.root(run_id)}/go").touch()

    def json(self, run_id: str, name: str) -> Any:
        try:
            return json.loads(self.box.path(f"{self.root(run_id)}/{name}").read_bytes())
        except FileNotFoundError:
            return {}

    def state(self, run_id: str) -> runs.State:
        [state] = runs.states(self.agent, [run_id])
        return state

    def kill(self, run_id: str, who: str) -> None:
        self.box.run("kill", "-9", str(self.json(run_id, who)["pid"]))

    @property
    def fired(self) -> bool:
        return self.box.path(MARK).exists()

    def fires(self) -> None:
        eventually(lambda: self.fired)

    def waits(self, run_id: str, word: str) -> runs.State:
        """Its fuse says that it does not fire, for that reason, and does not."""
        eventually(lambda: word in self.json(run_id, "fuse.json").get("why", ""))
        time.sleep(WELL_PAST_S)
        assert not self.fired
        return self.state(run_id)

    def defuse(self) -> None:
        """Leave nothing that could fire, or be waited for."""
        for state in runs.states(self.agent):
            self.box.path(f"{self.root(state.run_id)}/fuse.off").touch()
            if not state.is_over:
                runs.stop(self.agent, state.run_id)
            guard = self.json(state.run_id, "guard.json").get("pid")
            # One that is about to fire would do so in the next test.
            eventually(lambda guard=guard: guard is None or self.box.run("test", "-d", f"/proc/{guard}").returncode)
        for name in (MARK, "/run/gpu-pids"):
            self.box.path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def rented(folder, **limits):
    with Box(programs={"nvidia-smi": NVIDIA_SMI}, **limits) as box:
        known = folder / "known_hosts"
        known.write_text(box.host_key_line)
        with SshHost("box", parse(box.login_line), known_hosts=known, questions=Answers([box.password])) as host:
            yield Rented(box, host, Agent(host))


@pytest.fixture(scope="module")
def one_box(tmp_path_factory):
    with rented(tmp_path_factory.mktemp("box")) as found:
        yield found


@pytest.fixture
def there(one_box):
    yield one_box
    one_box.defuse()


@contextlib.contextmanager
def another_workspace(there):
    """A run that goes on in another workspace, by its id."""
    agent = there.agent
    there.agent = Agent(there.host, workspace="/root/autodl-tmp/elsewhere")
    run_id = there.submit(WHEN_TOLD + SUCCEED, fuse=False)
    there.agent, other = agent, there.agent
    yield run_id
    runs.stop(other, run_id)


@contextlib.contextmanager
def logged_in(box):
    """A person at a terminal, over a real SSH login."""
    with paramiko.SSHClient() as client:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(box.host_key_line)
        client.get_host_keys().add(entry.hostnames[0], entry.key.get_name(), entry.key)
        client.connect(box.host, box.port, box.user, password=box.password, allow_agent=False, look_for_keys=False)
        shell = client.invoke_shell()
        shell.recv(1)
        yield shell


def test_it_fires_once_the_result_is_written(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED)
    row = there.state(run_id)
    assert row.fuse == "armed"
    assert LONG_S - 60 < row.fuse_left_s <= LONG_S + 1
    assert not there.fired
    there.go(run_id)
    there.fires()
    assert there.json(run_id, "result.json")["state"] == "succeeded"
    assert there.json(run_id, "fuse.json")["state"] in ("fired", "failed")  # the box is still there, which it notices
    assert there.json(run_id, "fuse.json")["tries"] == 1


def test_there_is_no_fuse_without_being_asked_for(there):
    run_id = there.submit(SUCCEED, fuse=False)
    eventually(lambda: there.state(run_id).is_over)
    assert there.json(run_id, "guard.json") == {}
    assert (there.state(run_id).fuse, there.state(run_id).fuse_left_s) == ("", None)


def test_it_never_fires_where_results_would_not_survive(there):
    run_id = there.submit(SUCCEED, durable=["/root/autodl-fs"], limit_s=0.2)
    eventually(lambda: there.state(run_id).is_over)
    time.sleep(WELL_PAST_S)  # the hard limit is over, too
    assert not there.fired
    row = there.state(run_id)
    assert row.fuse.startswith("void: ")
    assert "may not survive a power-off" in row.fuse
    assert row.fuse_left_s is None


@pytest.mark.slow
def test_a_disk_in_memory_below_a_durable_path_does_not_survive(there):
    other = Rented(there.box, there.host, Agent(there.host, workspace="/dev/shm/work"))
    run_id = other.submit(SUCCEED)
    eventually(lambda: other.state(run_id).is_over)
    time.sleep(WELL_PAST_S)
    assert "another disk than /," in other.state(run_id).fuse
    assert not there.fired


@pytest.mark.parametrize("how", ["exit 3", "kill -9 $$"])
def test_it_fires_after_a_failure(there, how):
    run_id = there.submit(how)
    there.fires()
    assert there.json(run_id, "result.json")["state"] == "failed"


def test_a_failure_that_is_to_be_looked_at_keeps_the_box_until_the_hard_limit(there):
    run_id = there.submit("exit 3", keep_on_failure=True, limit_s=3)
    row = there.waits(run_id, "to be looked at")
    assert (row.state, row.fuse.split(":")[0]) == ("failed", "kept")
    there.fires()


def test_a_success_is_not_kept(there):
    there.submit(SUCCEED, keep_on_failure=True)
    there.fires()


def test_it_waits_for_another_run(there):
    other = there.submit(WHEN_TOLD + SUCCEED, fuse=False)
    run_id = there.submit(SUCCEED)
    assert there.waits(run_id, f"run {other} goes on").fuse == f"waiting: run {other} goes on"
    there.go(other)
    there.fires()


def test_it_waits_for_whoever_is_in_the_queue(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED, plan={"gpus": 0})
    other = there.submit(WHEN_TOLD + SUCCEED, fuse=False, plan={"gpus": 0})
    eventually(lambda: there.state(other).state == "queued")
    there.go(run_id)
    there.waits(run_id, f"run {other} goes on")
    there.go(other)
    there.fires()


def test_a_ticket_whose_run_was_killed_and_removed_holds_nothing_up(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED, plan={"gpus": 0})
    other = there.submit(SUCCEED, fuse=False, plan={"gpus": 0})
    there.kill(other, "supervisor.json")
    eventually(lambda: there.state(other).state == "failed")
    runs.remove(there.agent, other, pulled=False, force=False)
    assert len(list(there.box.path(f"{there.agent.workspace}/queue").glob(f"*-{other}"))) == 1
    there.go(run_id)
    there.fires()


def test_it_waits_for_a_run_of_another_workspace(there):
    """Where it is nobody knows, but its supervisor is there to be seen."""
    with another_workspace(there) as other:
        run_id = there.submit(SUCCEED)
        there.waits(run_id, f"run {other} goes on")
    there.fires()


def test_folders_that_make_no_sense_do_not_end_the_guard(there):
    for number, plan in enumerate(("{}", '{"protocol": "x"}', "[", '{"protocol": 2, "files": 7}')):
        root = there.box.path(f"{there.agent.workspace}/runs/odd-aaaaaaa{'abcd'[number]}")
        root.mkdir()
        (root / "plan.json").write_text(plan)
    there.submit(SUCCEED)
    there.fires()
    there.box.run("sh", "-c", f"rm -r {there.agent.workspace}/runs/odd-*")


def test_a_result_that_makes_no_sense_does_not_end_the_guard(there):
    there.submit("""echo '{"state": "failed", "finished_at": "noon", "reason": 7}' > .r && mv .r result.json""")
    there.fires()


def test_a_run_that_comes_after_a_try_that_did_not_help_is_safe(there):
    mark = f"echo x >>{MARK}"
    run_id = there.submit(SUCCEED, command=["/bin/sh", "-c", f"{mark}; exit 7"], retry_s=[1.5, 1.5, 1.5])
    there.fires()
    other = there.submit(WHEN_TOLD + SUCCEED, fuse=False)
    eventually(lambda: there.json(run_id, "fuse.json")["state"] == "waiting")
    time.sleep(2)
    tries = there.box.path(MARK).read_text().count("x")
    assert tries == 1
    there.go(other)
    eventually(lambda: there.box.path(MARK).read_text().count("x") == 2)


def test_who_submits_while_it_fires_is_told(there):
    """Else the run would be there for a moment, and lost."""
    run_id = there.submit(SUCCEED, command=["/bin/sh", "-c", f"echo x >>{MARK}; sleep 9"])
    there.fires()
    with pytest.raises(RemoteError, match=f"powers itself off after run {run_id}"):
        there.submit(SUCCEED, fuse=False)


def test_at_the_hard_limit_also_with_a_disk_that_takes_no_result(tmp_path):
    with rented(tmp_path, data_disk_mb=4) as there:
        fill = "trap '' TERM; cat /dev/zero >big 2>/dev/null; cat /dev/zero >>big; touch /root/autodl-fs/full; "
        run_id = there.submit(fill + "while :; do sleep 1; done", limit_s=1, stop_grace_s=60)
        eventually(lambda: there.box.path("/root/autodl-fs/full").exists())
        there.box.run("sh", "-c", f"cat /dev/zero >>{there.root(run_id)}/big")
        there.fires()


@pytest.mark.slow
def test_a_ticket_of_a_run_that_is_over_holds_nothing_up(there):
    over = there.submit(SUCCEED, fuse=False)
    eventually(lambda: there.state(over).is_over)
    queue = there.box.path(f"{there.agent.workspace}/queue")
    queue.mkdir(exist_ok=True)
    (queue / f"8-{over}").write_text("{}")
    there.submit(SUCCEED)
    there.fires()
    (queue / f"8-{over}").unlink()


def test_it_waits_for_a_person_who_is_logged_in(there):
    with logged_in(there.box):
        run_id = there.submit(SUCCEED)
        there.waits(run_id, "1 person is logged in")
    there.fires()


def test_it_waits_for_a_process_on_a_gpu_but_not_for_its_own(there):
    there.box.path("/run/gpu-pids").write_text("4242\n")
    run_id = there.submit(SUCCEED)
    there.waits(run_id, "process 4242 holds a GPU")
    there.box.path("/run/gpu-pids").unlink()
    there.fires()


def test_what_the_run_itself_left_on_the_gpu_holds_nothing_up(there):
    run_id = there.submit(SUCCEED, grace_s=1.5)
    supervisor = there.json(run_id, "supervisor.json")["pid"]
    eventually(lambda: there.box.run("test", "-d", f"/proc/{supervisor}").returncode)
    # As one that could not be killed.
    left = f"LAUNCH_RUN={run_id} setsid sleep 60 >/dev/null 2>&1 & echo $! > /run/gpu-pids"
    there.box.run("sh", "-c", f"{left}; cp /run/gpu-pids {there.root(run_id)}/left")
    there.fires()
    assert there.box.path(f"{there.root(run_id)}/left").read_text() == there.box.path("/run/gpu-pids").read_text()
    there.box.run("sh", "-c", f"kill $(cat {there.root(run_id)}/left)")


def test_it_waits_for_a_transfer(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED)
    with there.agent.converse("store", {}):  # waits for what is to be stored
        there.go(run_id)
        there.waits(run_id, "launch is at work there (store)")
    there.fires()


def test_at_the_hard_limit_it_fires_whoever_is_there(there):
    with logged_in(there.box):
        run_id = there.submit(SUCCEED, limit_s=3)
        there.waits(run_id, "logged in")
        there.fires()
        assert there.json(run_id, "fuse.json")["tries"] == 1


def test_at_the_hard_limit_a_run_ends_that_its_supervisor_could_not_end(there):
    run_id = there.submit("trap '' TERM; while :; do sleep 1; done", limit_s=1, stop_grace_s=60)
    there.fires()
    result = there.json(run_id, "result.json")
    assert (result["state"], result["reason"]) == ("stopped", "time limit; its supervisor had to be killed")


def test_it_fires_with_the_supervisor_dead(there):
    run_id = there.submit("sleep 60")
    there.kill(run_id, "supervisor.json")
    there.fires()
    result = there.json(run_id, "result.json")
    assert (result["state"], result["reason"]) == ("failed", "supervisor killed")


@pytest.mark.slow
def test_it_fires_with_tmux_gone(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED)
    there.box.run("tmux", "kill-server")
    there.go(run_id)
    there.fires()
    assert there.json(run_id, "result.json")["state"] == "succeeded"


def test_a_stop_by_hand_leaves_time_to_disarm_it(there):
    run_id = there.submit("sleep 60", stopped_s=1.5)
    assert runs.stop(there.agent, run_id).state == "stopped"
    time.sleep(WELL_PAST_S)
    assert not there.fired
    there.fires()


def test_off_is_off(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED, limit_s=2)
    eventually(lambda: there.state(run_id).state == "running")
    row = runs.fuse(there.agent, run_id, off=True)
    assert (row.fuse, row.fuse_left_s, row.state) == ("off", None, "running")
    there.go(run_id)
    eventually(lambda: there.json(run_id, "fuse.json").get("state") == "off")
    time.sleep(1 + WELL_PAST_S)  # its limit is over
    assert not there.fired


@pytest.mark.slow
def test_off_while_it_waits(there):
    run_id = there.submit("exit 3", keep_on_failure=True)
    there.waits(run_id, "to be looked at")
    assert runs.fuse(there.agent, run_id).fuse.startswith("kept: ")
    assert runs.fuse(there.agent, run_id, off=True).fuse == "off"
    assert there.json(run_id, "fuse.json")["state"] == "off"


def test_a_guard_that_was_killed_is_told(there):
    run_id = there.submit(WHEN_TOLD + SUCCEED)
    there.kill(run_id, "guard.json")
    row = eventually(lambda: (row := there.state(run_id)).fuse.startswith("dead: ") and row)
    assert row.fuse_left_s is None
    there.go(run_id)
    assert eventually(lambda: (row := there.state(run_id)).is_over and row).fuse.startswith("dead: ")
    assert runs.fuse(there.agent, run_id, off=True).fuse == "off"


def test_of_several_fuses_the_last_one_fires(there):
    first, second = (there.submit(WHEN_TOLD + SUCCEED) for _ in range(2))
    there.go(first)
    there.waits(first, f"run {second} goes on")
    there.go(second)
    there.fires()


@pytest.mark.slow
def test_a_failure_that_is_to_be_looked_at_holds_the_fuses_of_others_too(there):
    kept = there.submit("exit 3", keep_on_failure=True)
    there.waits(kept, "to be looked at")
    other = there.submit(SUCCEED)
    there.waits(other, f"run {kept} failed, and is to be looked at")
    runs.fuse(there.agent, kept, off=True)
    there.fires()


def test_a_command_that_fails_is_tried_again_and_told(there):
    run_id = there.submit(SUCCEED, command=["/bin/sh", "-c", "echo x >>/root/autodl-fs/.powered-off; exit 7"],
                          retry_s=[0.1, 0.1])  # fmt: skip
    eventually(lambda: there.json(run_id, "fuse.json").get("tries") == 3)
    row = eventually(lambda: (row := there.state(run_id)).fuse.startswith("failed: ") and row)
    assert row.fuse == "failed: the power-off command ended with status 7"
    assert there.box.path(MARK).read_text() == "x\nx\nx\n"


@pytest.mark.slow
def test_after_a_power_cycle_there_is_no_fuse(tmp_path):
    with rented(tmp_path) as there:
        run_id = there.submit("sleep 60", limit_s=3)
        there.box.power_cycle(new_port=False)
        there.host.close()
        row = eventually(lambda: there.state(run_id))
        assert (row.state, row.fuse, row.fuse_left_s) == ("lost", "", None)
        time.sleep(3 + WELL_PAST_S)
        assert not there.fired
