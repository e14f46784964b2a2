"""What a supervisor does beyond phases: its turn, limits, secrets, events beside the job's, an end in any case."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.events import EventLog
from remote import runs
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from remote.errors import RemoteError
from remote.onhost import secret_file
from remote.onhost.run import Run
from tests.connected import PYTHON_FOLDER, alive, connect, eventually, private_tmux, tmux
from tests.test_runs import SUCCEED, Place, needs_tmux

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]
HOLD = "while [ ! -e go ]; do sleep 0.05; done; "
SECRET = "hf_q7Zp4-secret-value-评论"
TWO_GPUS = """#!/bin/sh
case $* in
  -L) echo 'GPU 0: NVIDIA A (UUID: GPU-a)'; echo 'GPU 1: NVIDIA A (UUID: GPU-b)' ;;
  *driver_version*) echo 550.54.14; echo 550.54.14 ;;
  *utilization*) echo '0, 97, 20100, 24564, 71'; echo '1, [N/A], 5, 24564, 33' ;;
esac
"""


@contextlib.contextmanager
def a_place(folder, *, programs=None, **env):
    tools = folder / "programs"
    tools.mkdir(parents=True)
    for name, text in (programs or {}).items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    with (
        private_tmux() as variables,
        EmbeddedHost(folder / "home", path_prefix=[str(tools), PYTHON_FOLDER], env=variables | env) as server,
        connect(server) as host,
    ):
        how = "tmux" if shutil.which("tmux") else "setsid"
        yield Place(Agent(host), how, variables["TMUX_TMPDIR"], server)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with a_place(tmp_path_factory.mktemp("place")) as found:
        yield found


@pytest.fixture
def own_place(tmp_path):
    with a_place(tmp_path) as found:
        yield found


def states(place, *run_ids):
    return [place.state(run_id).state for run_id in run_ids]


def go(place, run_id):
    (place.root(run_id) / "go").touch()


def tickets(place):
    return sorted(path.name for path in (Path(place.agent.workspace) / "queue").glob("0*"))


def test_runs_that_need_a_turn_have_it_one_after_the_other_in_order(place):
    ids = [place.submit(f"echo begun; {HOLD}{SUCCEED}", name=name, gpus=0) for name in ("one", "two", "three")]
    eventually(lambda: states(place, *ids) == ["running", "queued", "queued"])
    assert [place.state(run_id).position for run_id in ids] == [0, 1, 2]
    other = place.submit(SUCCEED)  # what needs no turn waits for nobody
    assert place.end(other).state == "succeeded"
    for done, run_id in enumerate(ids):
        eventually(lambda run_id=run_id: place.state(run_id).state == "running")
        assert states(place, *ids[done + 1 :]) == ["queued"] * (2 - done)
        go(place, run_id)
        assert place.end(run_id).state == "succeeded"
    assert [event["state"] for event in place.followed(ids[2])[1]][:2] == ["queued", "running"]
    eventually(lambda: tickets(place) == [])


def test_a_run_gets_a_gpu_of_its_own_and_the_next_one_waits(tmp_path):
    with a_place(tmp_path, programs={"nvidia-smi": TWO_GPUS}) as place:
        tell = f'echo "gpu $CUDA_VISIBLE_DEVICES"; {HOLD}{SUCCEED}'
        one, two = (place.submit(tell, name=name, gpus=1) for name in ("one", "two"))
        both = place.submit(tell, name="both", gpus=2)
        late = place.submit(tell, name="late", gpus=1)
        eventually(lambda: states(place, one, two, both, late) == ["running", "running", "queued", "queued"])
        go(place, two)
        assert place.followed(two)[0] == "gpu 1\n"
        time.sleep(1.5)
        # There is a free one now, and who came first wants two: it is not overtaken.
        assert states(place, both, late) == ["queued", "queued"]
        for run_id, seen in ((one, "gpu 0\n"), (both, "launch: waits for its turn\ngpu 0,1\n")):
            go(place, run_id)
            log, events, state = place.followed(run_id)
            assert (log, state.state) == (seen, "succeeded")
        runs.stop(place.agent, late)
        [told, *_] = [event for event in events if event["type"] == "gpu"]
        assert told["gpus"] == [
            {"index": 0, "use_percent": 97, "memory_used_mb": 20100, "memory_total_mb": 24564, "temperature_c": 71},
            {"index": 1, "memory_used_mb": 5, "memory_total_mb": 24564, "temperature_c": 33},
        ]


def test_who_asks_for_all_gpus_gets_all_that_are_free_of_those_the_login_shows(tmp_path):
    with a_place(tmp_path, programs={"nvidia-smi": TWO_GPUS}, CUDA_VISIBLE_DEVICES="5,7") as place:
        run_id = place.submit(f'echo "$CUDA_VISIBLE_DEVICES"; {SUCCEED}', gpus=0)
        assert place.followed(run_id)[0] == "5,7\n"


@pytest.mark.parametrize("victim", ["running", "waiting"])
def test_the_queue_goes_on_without_a_supervisor_that_was_killed(own_place, victim):
    place = own_place
    first, second, third = (place.submit(f"{HOLD}{SUCCEED}", name=name, gpus=0) for name in ("a", "b", "c"))
    eventually(lambda: states(place, first, second, third) == ["running", "queued", "queued"])
    child = place.child(first)
    os.kill(place.supervisor(first if victim == "running" else second), signal.SIGKILL)
    go(place, second)
    go(place, third)
    if victim == "running":
        assert (place.end(second).state, place.end(third).state) == ("succeeded", "succeeded")
        assert place.state(first).reason == "supervisor killed"
        assert not alive(child)  # it would hold the GPU that the next one was given
    else:
        assert place.state(third).state == "queued"
        go(place, first)
        assert place.end(third).state == "succeeded"
        assert place.state(second).reason == "supervisor killed"
    assert place.end(first).is_over


def test_a_waiting_run_can_be_stopped_and_its_folder_removed(own_place):
    place = own_place
    first, second, third, fourth = (place.submit(f"{HOLD}{SUCCEED}", name=name, gpus=0) for name in "abcd")
    eventually(lambda: states(place, first, second, third, fourth) == ["running", *["queued"] * 3])
    stopped = runs.stop(place.agent, second)
    assert (stopped.state, stopped.reason) == ("stopped", "asked to")
    supervisor = place.supervisor(third)
    shutil.rmtree(place.root(third))
    (Path(place.agent.workspace) / "queue" / "0000000000-no such run").write_text("{")
    go(place, first)
    go(place, fourth)
    assert place.end(fourth).state == "succeeded"
    eventually(lambda: not alive(supervisor))
    assert place.state(third).state == "gone"


def test_two_that_come_at_once_have_different_places(own_place):
    import threading

    place = own_place
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: ids.append(place.submit(f"{HOLD}{SUCCEED}", name=f"n{n}", gpus=0)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: sorted(states(place, *ids)) == ["queued", "queued", "queued", "running"])
    assert sorted(place.state(run_id).position for run_id in ids) == [0, 1, 2, 3]
    for run_id in ids:
        runs.stop(place.agent, run_id)


def test_a_process_that_was_stopped_with_the_queue_in_its_hand_hangs_nobody(own_place):
    import fcntl

    place = own_place
    first, second = (place.submit(f"{HOLD}{SUCCEED}", name=name, gpus=0) for name in "ab")
    eventually(lambda: states(place, first, second) == ["running", "queued"])
    with (Path(place.agent.workspace) / "queue" / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        time.sleep(1.2)  # the one that waits has asked for its turn by now
        began = time.monotonic()
        stopped = runs.stop(place.agent, second)
    assert (stopped.state, stopped.reason) == ("stopped", "asked to")
    assert time.monotonic() - began < 8
    runs.stop(place.agent, first)


def test_a_ticket_that_makes_no_sense_or_is_gone_is_no_riddle(own_place):
    place = own_place
    first, second, third = (place.submit(f"{HOLD}{SUCCEED}", name=name, gpus=0) for name in "abc")
    eventually(lambda: states(place, first, second, third) == ["running", "queued", "queued"])
    workspace = Path(place.agent.workspace)
    for number, plan in enumerate(("{}", '{"protocol": 2}', '{"protocol": 2, "files": {"result": "r"}}')):
        run_id = f"odd-aaaaaaa{'abc'[number]}"
        (workspace / "runs" / run_id).mkdir()
        (workspace / "runs" / run_id / "plan.json").write_text(plan)
        (workspace / "queue" / f"0000000000-{run_id}").write_text("{}")
    next((workspace / "queue").glob(f"*-{third}")).unlink()
    assert place.end(third).reason == f"the supervisor can't go on: {third} has no place in the queue any more"
    go(place, first)
    go(place, second)
    assert place.end(second).state == "succeeded"


def test_a_killed_run_is_not_counted_among_those_that_wait(own_place):
    place = own_place
    ids = [place.submit(f"{HOLD}{SUCCEED}", name=name, gpus=0) for name in "abc"]
    eventually(lambda: states(place, *ids) == ["running", "queued", "queued"])
    os.kill(place.supervisor(ids[1]), signal.SIGKILL)
    eventually(lambda: place.state(ids[1]).is_over)
    assert place.state(ids[2]).position == 1
    for run_id in ids:
        runs.stop(place.agent, run_id)


def test_while_a_gpu_is_in_use_it_is_not_given_again_where_the_driver_fails_to_tell_of_it(tmp_path):
    with a_place(tmp_path, programs={"nvidia-smi": TWO_GPUS}) as place:
        one = place.submit(f"{HOLD}{SUCCEED}", gpus=1)
        eventually(lambda: place.state(one).state == "running")
        program = tmp_path / "programs" / "nvidia-smi"
        program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Unknown Error'; exit 9\n")
        blind = place.submit(SUCCEED, gpus=1)
        time.sleep(2.5)
        assert place.state(blind).state == "queued"
        go(place, one)
        assert place.end(blind).state == "succeeded"


def test_a_run_is_stopped_at_its_limit_and_can_save_first(place):
    run_id = place.submit("trap 'echo saved; exit 1' TERM; echo begun; sleep 60 & wait", limit_s=1.0)
    began = time.monotonic()
    log, _, state = place.followed(run_id)
    assert (log, state.state, state.reason) == ("begun\nsaved\n", "stopped", "time limit")
    assert 0.5 < time.monotonic() - began < 15


def test_the_limit_counts_the_time_in_the_queue(own_place):
    place = own_place
    first = place.submit("sleep 60", gpus=0)
    second = place.submit(SUCCEED, gpus=0, limit_s=1.5)
    state = place.end(second)
    assert (state.state, state.reason) == ("stopped", "time limit")
    assert place.state(first).state == "running"
    runs.stop(place.agent, first)


def every_file(*folders):
    for folder in folders:
        for path in Path(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def environment_of(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("how_long", [0, 100_000], ids=["inline", "long request"])
def test_a_secret_reaches_the_job_and_nothing_else(own_place, tmp_path, how_long):
    place = own_place
    cut = f"printf '%s' \"$HF_TOKEN\" | head -c 9; sleep 0.3; printf '%s\\n' \"$HF_TOKEN\" | tail -c +10; {HOLD}"
    run_id = f"secret-{'a' * 8}"
    plan = {
        "run_id": run_id,
        "name": "secret",
        "files": {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"},
        "env": {},
        "secrets": ["HF_TOKEN"],
        "phases": [{"state": "running", "argv": ["sh", "-c", f'echo "[$HF_TOKEN]"; {cut}{SUCCEED}']}],
    }
    filler = {"filler.json": os.urandom(how_long).hex()}
    asked = {"HF_TOKEN": SECRET, "OTHER": "a b\nc='$(id)'"}
    runs.submit(place.agent, plan, links=[], documents=filler, secrets=asked)
    child = place.child(run_id)
    eventually(lambda: (place.root(run_id) / "log.txt").read_bytes().count(b"\n") >= 2)
    secret = SECRET.encode()
    assert b"HF_TOKEN=" + secret in environment_of(child)
    assert b"OTHER=a b\nc='$(id)'\0" in environment_of(child)
    lines = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
    for line in lines:
        with contextlib.suppress(OSError):
            assert secret not in line.read_bytes()
    assert secret not in environment_of(place.supervisor(run_id))
    go(place, run_id)
    log, _, state = place.followed(run_id)
    assert (log, state.state) == ("[***]\n***\n", "succeeded")
    if place.how == "tmux":
        assert SECRET not in tmux(place.tmux_folder, "show-environment", "-g")
    memory = Path("/dev/shm") / f"launch-{os.geteuid()}"
    for path, content in every_file(tmp_path, memory):
        assert secret not in content, path


def test_what_is_no_secret_is_refused_and_leaves_no_run(own_place):
    place = own_place
    run_id = f"secret-{'b' * 8}"
    plan = {"run_id": run_id, "name": "x", "files": {}, "env": {}, "phases": []}
    with pytest.raises(RemoteError, match="did not come as NAME=VALUE") as failure:
        runs.submit(place.agent, plan, links=[], documents={}, secrets={"NOT A NAME": SECRET})
    assert SECRET not in str(failure.value)
    assert not place.root(run_id).exists()


def test_secrets_that_are_too_long_for_a_process_are_refused_and_not_cut(own_place):
    plan = {"run_id": f"secret-{'c' * 8}", "name": "x", "files": {}, "env": {}, "phases": []}
    for secrets, words in (
        ({"KEY": "x" * 140_000}, "KEY is longer than"),
        ({"A": "x" * 2_000_000}, "longer than 1 MB"),
    ):
        with pytest.raises(RemoteError, match=words):
            runs.submit(own_place.agent, plan, links=[], documents={}, secrets=secrets)
    assert not own_place.root(plan["run_id"]).exists()


PLANTED = """
import os, sys
from remote.onhost import secret_file
ours, root = f"/dev/shm/launch-{os.geteuid()}", sys.argv[1]
os.mkdir(ours)
with open(f"{ours}/toy-aaaaaaaa", "w") as file:
    file.write("LD_PRELOAD=/tmp/evil.so")
os.utime(file.name, (0, 0))
os.chown(ours, 12345, 12345)
assert secret_file.take("toy-aaaaaaaa", root) == {}, "taken from a stranger"
secret_file.put("toy-bbbbbbbb", root, b"A=1")
assert os.listdir(ours) == ["toy-aaaaaaaa"], "given to a stranger"
assert secret_file.take("toy-bbbbbbbb", root) == {"A": "1"}
os.rename(ours, "/dev/shm/elsewhere")
os.symlink("/dev/shm/elsewhere", ours)
secret_file.sweep()
assert os.listdir("/dev/shm/elsewhere"), "removed behind a link"
"""


def test_a_folder_of_another_user_is_not_trusted(tmp_path):
    """Who may write to /dev/shm could be there first, with variables for our job or a link to files of ours."""
    own_shm = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs t /dev/shm || exit 9; exec "$@"', "sh"]
    done = subprocess.run([*own_shm, sys.executable, "-c", PLANTED, str(tmp_path)], cwd=Path(__file__).parent.parent,
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode in (1, 9) and "Traceback" not in done.stderr:
        pytest.skip(f"no /dev/shm of its own: {done.stderr}")
    assert done.returncode == 0, done.stderr


def test_of_a_run_whose_supervisor_never_came_no_secret_is_left(own_place, tmp_path):
    run_id = own_place.submit(SUCCEED)
    own_place.end(run_id)
    eventually(lambda: not alive(own_place.supervisor(run_id)))
    root, plan = own_place.root(run_id), own_place.json(run_id, "plan.json")
    (root / "plan.json").write_text(json.dumps(plan | {"submitted_clock": plan["submitted_clock"] - 100}))
    for name in ("result.json", "supervisor.json"):
        (root / name).unlink()
    (root / ".secrets").write_text(f"A={SECRET}")
    (root / ".sources.json").write_text(json.dumps({"PIP_INDEX_URL": f"https://me:{SECRET}@there"}))
    assert own_place.state(run_id).reason == "the supervisor never started"
    for path, content in every_file(root):
        assert SECRET.encode() not in content, path


def test_a_secret_that_nobody_took_is_removed_by_the_next_visit(own_place, tmp_path):
    secret_file.put("left-aaaaaaaa", str(tmp_path), b"A=" + SECRET.encode())
    [path] = [path for path, content in every_file(f"/dev/shm/launch-{os.geteuid()}") if SECRET.encode() in content]
    assert path.stat().st_mode & 0o777 == 0o600
    runs.states(own_place.agent)
    assert path.exists()  # it may be on its way
    os.utime(path, (time.time() - 600, time.time() - 600))
    runs.states(own_place.agent)
    assert not path.exists()


def test_a_run_whose_folder_is_removed_ends_with_all_it_started(place):
    run_id = place.submit("sleep 60 & echo $!; wait")
    child, supervisor = place.child(run_id), place.supervisor(run_id)
    left = int(eventually((place.root(run_id) / "log.txt").read_text))
    shutil.rmtree(place.root(run_id))
    eventually(lambda: not alive(supervisor))
    assert not alive(child)
    assert not alive(left)
    assert place.state(run_id).state == "gone"


@needs_tmux
def test_ctrl_c_in_the_session_does_not_end_the_run(place):
    run_id = place.submit(f"echo begun; {HOLD}{SUCCEED}")
    session = f"launch-{run_id}"
    eventually(lambda: "begun" in tmux(place.tmux_folder, "capture-pane", "-p", "-t", session))
    tmux(place.tmux_folder, "send-keys", "-t", session, "C-c")
    eventually(lambda: "launch stop" in tmux(place.tmux_folder, "capture-pane", "-p", "-t", session))
    assert place.state(run_id).state == "running"
    go(place, run_id)
    assert place.end(run_id).state == "succeeded"


def test_what_can_not_be_found_and_holds_the_output_does_not_hold_up_the_run(place):
    if shutil.which("setsid") is None:
        pytest.skip("needs setsid")
    run_id = place.submit(f"setsid env -i sleep 30 & echo $!; {SUCCEED}")
    began = time.monotonic()
    log, _, state = place.followed(run_id)
    assert state.state == "succeeded"
    eventually(lambda: not alive(place.supervisor(run_id)))
    assert time.monotonic() - began < 15
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(log), signal.SIGKILL)


WRITER = """
import sys
from pathlib import Path
from jobs.events import EventLog
log = EventLog(Path(sys.argv[1]) / "events.jsonl")
for n in range(200):
    log.write("step", n=n, text="评" * (n % 50))
"""


def test_job_and_supervisor_write_events_at_once_and_none_is_lost(place):
    run_id = place.submit(HOLD + SUCCEED)
    root = place.root(run_id)
    eventually(lambda: (root / "events.jsonl").exists())
    job = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], cwd=Path(__file__).parent.parent)
    run = Run(place.agent.workspace, run_id)
    for n in range(200):
        run.add_event("gpu", n=n)
    assert job.wait() == 0
    go(place, run_id)
    place.end(run_id)
    events = [json.loads(line) for line in (root / "events.jsonl").read_bytes().splitlines()]
    numbers = [event["seq"] for event in events]
    assert numbers == list(range(1, len(events) + 1))
    assert [event["n"] for event in events if event["type"] == "step"] == list(range(200))


def test_a_job_keeps_its_secrets_out_of_its_events(tmp_path, monkeypatch):
    monkeypatch.setenv("LAUNCH_SECRETS", "HF_TOKEN,SHORT,NOT_THERE")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("SHORT", "e")
    EventLog(tmp_path / "events.jsonl").write("warning", text=f"denied for {SECRET}")
    assert json.loads((tmp_path / "events.jsonl").read_text("utf-8"))["text"] == "denied for ***"


ODD = 'pass"word\\with\nlines of/all+kinds 评论'


def test_a_secret_is_also_masked_as_json_an_address_or_python_shows_it(place):
    show = (
        "import json, os, urllib.parse as u; s = os.environ['HF_TOKEN']; "
        "print(json.dumps({'t': s})); print(json.dumps(s, ensure_ascii=False)); print(repr([s])); "
        "print('https://me:' + u.quote(s, safe='') + '@there', u.urlencode({'t': s}), u.quote(s))"
    )
    run_id = f"secret-{'d' * 8}"
    plan = {"run_id": run_id, "name": "x", "env": {}, "files": place.json(place.submit(SUCCEED), "plan.json")["files"]}
    phases = [{"state": "running", "argv": [sys.executable, "-c", show]}]
    runs.submit(place.agent, plan | {"phases": phases}, links=[], documents={}, secrets={"HF_TOKEN": ODD})
    log, *_ = place.followed(run_id)
    assert log == '{"t": "***"}\n"***"\n[\'***\']\nhttps://me:***@there t=*** ***\n'


def test_in_events_too_and_a_secret_that_is_a_common_word_breaks_none(tmp_path, monkeypatch):
    monkeypatch.setenv("LAUNCH_SECRETS", "ODD,WORD")
    monkeypatch.setenv("ODD", ODD)
    monkeypatch.setenv("WORD", "type")
    log = EventLog(tmp_path / "events.jsonl")
    log.write("warning", text=f"denied: {ODD}", rows=[{"type": repr(ODD)}], n=3)
    [line] = (tmp_path / "events.jsonl").read_text("utf-8").splitlines()
    event = json.loads(line)
    assert (event["type"], event["text"], event["rows"]) == ("warning", "denied: ***", [{"type": "'***'"}])
    assert event["n"] == 3


@pytest.mark.slow
@needs_tmux
def test_a_supervisor_that_comes_after_it_was_given_up_runs_nothing(tmp_path):
    real = shutil.which("tmux")
    later = f'new-session) (sleep 16; exec {real} "$@") >/dev/null 2>&1 &'
    late = f'#!/bin/sh\ncase $1 in {later} ;; *) exec {real} "$@" ;; esac\n'
    with a_place(tmp_path, programs={"tmux": late}) as place:
        with pytest.raises(RemoteError, match="did not start"):
            place.submit("touch trained; sleep 60", name="late")
        [state] = runs.states(place.agent)
        assert (state.state, state.reason) == ("failed", "the supervisor did not start in time")
        root = place.root(state.run_id)
        eventually(lambda: (root / "supervisor.json").exists())
        eventually(lambda: not alive(place.supervisor(state.run_id)))
        assert not (root / "trained").exists()
