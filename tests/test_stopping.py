"""Stopping a run: nothing of it may be left, wherever it hid, and whoever else asks at the same time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest

from remote import runs
from remote.errors import NotFound, RemoteError
from tests.connected import alive, eventually
from tests.test_runs import FILES, LETTERS, SUCCEED, any_place, needs_tmux, over_setsid, over_tmux  # noqa: F401 (fixtures)

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs /proc")

# Leaves the group and the session, and has init for a parent; ignores every polite signal.
RUNAWAY = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(600)
"""


# What it prints goes nowhere once the supervisor is dead.
SAVES = """
import signal, sys, time
def save(number, frame):
    open("saved", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
open("up", "w").close()
time.sleep(600)
"""


def pid_in(path):
    return int(eventually(lambda: path.exists() and path.read_text()))


def test_what_left_the_group_and_the_session_is_killed_too(any_place):  # noqa: F811
    run_id = any_place.submit([sys.executable, "-ISc", RUNAWAY, "pid"])
    runaway = pid_in(any_place.root(run_id) / "pid")
    stopped = runs.stop(any_place.agent, run_id)
    assert (stopped.state, stopped.left, stopped.gpu_left, stopped.checkpoint) == ("stopped", (), (), None)
    assert not alive(runaway)


def test_also_one_that_cleared_its_environment_while_its_parent_lives(any_place):  # noqa: F811
    setsid, env, sleep = (shutil.which(name) for name in ("setsid", "env", "sleep"))
    if not (setsid and env and sleep):
        pytest.skip("needs setsid")
    run_id = any_place.submit(f"{setsid} {env} -i {sleep} 600 & echo $! > pid; wait")
    pid = pid_in(any_place.root(run_id) / "pid")
    eventually(lambda: b"LAUNCH_RUN" not in Path(f"/proc/{pid}/environ").read_bytes())
    assert runs.stop(any_place.agent, run_id).left == ()
    assert not alive(pid)


def test_with_the_supervisor_dead_the_job_still_saves_and_ends(any_place):  # noqa: F811
    run_id = any_place.submit([sys.executable, "-ISc", SAVES])
    eventually(lambda: (any_place.root(run_id) / "up").exists())
    child = any_place.child(run_id)
    os.kill(any_place.supervisor(run_id), signal.SIGKILL)
    eventually(lambda: not alive(any_place.supervisor(run_id)))
    stopped = runs.stop(any_place.agent, run_id)
    assert (stopped.state, stopped.reason, stopped.left) == ("failed", "supervisor killed", ())
    assert (any_place.root(run_id) / "saved").exists()
    assert not alive(child)


def test_what_it_left_behind_goes_when_it_is_over(any_place):  # noqa: F811
    run_id = any_place.submit(
        f"{sys.executable} -ISc '{RUNAWAY}' pid & while [ ! -s pid ]; do sleep 0.05; done; {SUCCEED}"
    )
    runaway = pid_in(any_place.root(run_id) / "pid")
    eventually(lambda: not alive(any_place.supervisor(run_id)))
    assert not alive(runaway)
    stopped = runs.stop(any_place.agent, run_id)
    assert (stopped.state, stopped.left) == ("succeeded", ())


def test_what_left_the_group_ends_with_a_supervisor_that_was_killed(any_place):  # noqa: F811
    run_id = any_place.submit([sys.executable, "-ISc", RUNAWAY, "pid"])
    runaway = pid_in(any_place.root(run_id) / "pid")
    os.kill(any_place.supervisor(run_id), signal.SIGKILL)
    eventually(lambda: any_place.state(run_id).reason == "supervisor killed")
    assert not alive(runaway)


def test_what_left_the_group_ends_at_the_time_limit(any_place):  # noqa: F811
    """As the ranks do that torchrun starts in sessions of their own, when torchrun itself is killed."""
    run_id = any_place.submit([sys.executable, "-ISc", RUNAWAY, "pid"], limit_s=1.0)
    runaway = pid_in(any_place.root(run_id) / "pid")
    assert any_place.end(run_id).reason == "time limit"
    eventually(lambda: not alive(any_place.supervisor(run_id)))
    assert not alive(runaway)


def test_two_that_stop_at_once_agree(any_place):  # noqa: F811
    run_id = any_place.submit("trap 'sleep 0.5; exit 9' TERM; echo up; while :; do sleep 0.1; done")
    log = any_place.root(run_id) / "log.txt"
    eventually(lambda: log.exists() and log.read_bytes())
    found = []
    threads = [threading.Thread(target=lambda: found.append(runs.stop(any_place.agent, run_id))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(one.state, one.reason, one.left) for one in found} == {("stopped", "asked to", ())}


def test_a_run_whose_supervisor_never_started(any_place):  # noqa: F811
    run_id = any_place.submit(SUCCEED)
    any_place.end(run_id)
    root = any_place.root(run_id)
    plan = any_place.json(run_id, "plan.json")
    (root / "plan.json").write_text(json.dumps(plan | {"submitted_clock": plan["submitted_clock"] - 29.0}))
    for name in ("result.json", "supervisor.json"):
        (root / name).unlink()
    stopped = runs.stop(any_place.agent, run_id)
    assert (stopped.state, stopped.reason) == ("stopped", "asked to, before it started")


def test_the_newest_checkpoint_is_told(any_place):  # noqa: F811
    run_id = any_place.submit("while [ ! -e made ]; do sleep 0.05; done; echo up; sleep 60")
    folder = any_place.root(run_id) / "checkpoints"
    for name in ("step-00000003", "step-00000020", ".step-00000030.0.part", "step-99999999x"):
        (folder / name).mkdir(parents=True)
        (folder / name / "state.json").write_text("{}")
    (folder / "step-00000040").symlink_to("/etc")
    (any_place.root(run_id) / "made").touch()
    log = any_place.root(run_id) / "log.txt"
    eventually(lambda: log.exists() and log.read_bytes())
    newest = runs.stop(any_place.agent, run_id).checkpoint
    assert newest is not None
    assert (newest.step, newest.path, newest.size_bytes) == (20, "checkpoints/step-00000020", 2)
    assert 0 <= newest.age_s < 20


def test_a_new_run_gets_the_plain_files_of_an_old_ones_checkpoints(any_place, tmp_path):  # noqa: F811
    old = any_place.submit(SUCCEED)
    any_place.end(old)
    folder = any_place.root(old) / "checkpoints"
    for name in ("step-00000003", ".step-00000009.0.part"):
        (folder / name).mkdir(parents=True)
        (folder / name / "state.json").write_text(name)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (folder / "step-00000003" / "link").symlink_to(secret)
    os.mkfifo(folder / "step-00000003" / "pipe")
    (folder / "step-00000004").symlink_to(tmp_path)
    (folder / "step-00000003" / "deep" / "deeper").mkdir(parents=True)
    (folder / "step-00000003" / "deep" / "deeper" / "file").write_text("x")
    new = next_run(any_place, old, ["checkpoints", "base.json"])
    came = any_place.root(new) / "checkpoints"
    assert [str(path.relative_to(came)) for path in came.rglob("*") if path.is_file() or path.is_symlink()] == [
        "step-00000003/state.json"
    ]
    # The old run may go, the new one keeps its own.
    runs.remove(any_place.agent, old, pulled=True, force=False)
    assert (came / "step-00000003" / "state.json").read_text() == "step-00000003"
    with pytest.raises(RemoteError):
        next_run(any_place, new, ["../../store"])
    with pytest.raises(RemoteError):
        next_run(any_place, new, ["/etc/passwd"])
    with pytest.raises(NotFound):
        next_run(any_place, old, ["checkpoints"])


def next_run(place, old, paths):
    run_id = "next-" + "".join(LETTERS[byte % 32] for byte in os.urandom(8))
    plan = {"run_id": run_id, "name": "next", "files": FILES, "env": {}, "resumes": old, "attempt": 2}
    plan["phases"] = [{"state": "running", "argv": ["sh", "-c", SUCCEED]}]
    before = {"run_id": old, "paths": paths}
    try:
        runs.submit(place.agent, plan, links=[], documents={}, from_run=before)
    except RemoteError:
        assert not place.root(run_id).exists()
        raise
    assert place.end(run_id).state == "succeeded"
    return run_id
