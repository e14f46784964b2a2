"""Runs from submit to result on real hosts: phases in a shell, tmux or setsid around them, and all that can die."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from remote import runs, store
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from remote.errors import NotFound, RemoteError, Unreachable
from remote.local_host import LocalHost
from tests.connected import PYTHON_FOLDER, alive, connect, eventually, folder_of_programs, private_tmux, tmux

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
FILES = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
RESULT = '{"protocol": 1, "state": "succeeded", "reason": "", "finished_at": 0}'
SUCCEED = f"printf '%s' '{RESULT}' > .r && mv .r result.json"
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
# The hosts without tmux have nothing, either, that could install it.
NONE = "no tmux on the host, and none can be installed: there is no apt-get"
WHY = {"tmux": ("",), "setsid": (NONE, f"{NONE} (not tried again before it restarts)")}


@dataclass
class Place:
    """A host to run on."""

    agent: Agent
    how: str
    tmux_folder: str = ""
    server: EmbeddedHost | None = None

    def submit(self, *phases, name="toy", **changes):
        """The id of a new run of these shell texts (or argvs)."""
        run_id = f"{name}-{''.join(LETTERS[byte % 32] for byte in os.urandom(8))}"
        argvs = [["sh", "-c", phase] if isinstance(phase, str) else phase for phase in phases]
        states = ["preparing", "running", "verifying"][-len(argvs) :] if len(argvs) > 1 else ["running"]
        plan: dict[str, Any] = {
            "run_id": run_id,
            "name": name,
            "files": FILES,
            "env": {},
            "phases": [{"state": state, "argv": argv} for state, argv in zip(states, argvs, strict=True)],
        }
        started = runs.submit(self.agent, plan | changes, links=[], documents={"spec.json": {"asked": name}})
        assert started.how == self.how
        assert started.why in WHY[self.how]
        assert Path(started.root) == self.root(run_id)
        return run_id

    def root(self, run_id):
        return Path(self.agent.workspace) / "runs" / run_id

    def json(self, run_id, name):
        return json.loads((self.root(run_id) / name).read_bytes())

    def has_said(self, run_id):
        """Wait until there is something in its log, which may not be there at first."""
        log = self.root(run_id) / "log.txt"
        eventually(lambda: log.exists() and log.read_bytes())

    def state(self, run_id):
        [state] = runs.states(self.agent, [run_id])
        return state

    def end(self, run_id):
        """The final state, by following."""
        return self.followed(run_id)[2]

    def followed(self, run_id, **offsets):
        """Log, events and final state."""
        log, events = [], []
        for said in runs.follow(self.agent, run_id, **offsets):
            if isinstance(said, runs.LogText):
                log.append(said.text)
            elif isinstance(said, runs.RunEvent):
                events.append(said.fields)
            elif isinstance(said, runs.State):
                return "".join(log), events, said
        raise AssertionError("no state")

    def supervisor(self, run_id):
        return self.json(run_id, "supervisor.json")["pid"]

    def child(self, run_id):
        """The process of the phase that is going on."""
        eventually(lambda: (self.root(run_id) / "child.json").exists())
        return self.json(run_id, "child.json")["pid"]


@contextlib.contextmanager
def with_tmux(folder):
    with (
        private_tmux() as variables,
        EmbeddedHost(folder / "home", path_prefix=[PYTHON_FOLDER], env=variables) as server,
        connect(server) as host,
    ):
        yield Place(Agent(host), "tmux", variables["TMUX_TMPDIR"], server)


@contextlib.contextmanager
def without_tmux(folder):
    tools = folder_of_programs(folder / "bin", "sh", "mkdir", "cat", "sleep", "mv", "head", "tr", "rm", "touch", "env")
    (tools / "python3").symlink_to(os.path.realpath(sys.executable))
    with EmbeddedHost(folder / "home", env={"PATH": str(tools)}) as server, connect(server) as host:
        yield Place(Agent(host), "setsid", server=server)


BOTH = [pytest.param(with_tmux, marks=needs_tmux, id="tmux"), pytest.param(without_tmux, id="setsid")]


@pytest.fixture(scope="module")
def over_tmux(tmp_path_factory):
    with with_tmux(tmp_path_factory.mktemp("tmux")) as place:
        yield place


@pytest.fixture(scope="module")
def over_setsid(tmp_path_factory):
    with without_tmux(tmp_path_factory.mktemp("setsid")) as place:
        yield place


@pytest.fixture
def here(tmp_path, monkeypatch):
    with private_tmux() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("TMUX", raising=False)
        yield Place(Agent(LocalHost(), workspace=str(tmp_path / "work")), "tmux", variables["TMUX_TMPDIR"])


@pytest.fixture(
    params=[pytest.param("over_tmux", marks=needs_tmux), "over_setsid", pytest.param("here", marks=needs_tmux)]
)
def place(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[pytest.param("over_tmux", marks=needs_tmux), "over_setsid"])
def far_place(request):
    """A host whose connection can break."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def any_place(over_setsid):
    """Where it makes no difference what is around the supervisor."""
    return over_setsid


def test_a_run_that_succeeds(place):
    run_id = place.submit("echo getting ready", "echo working; echo aside >&2", f"echo checking; {SUCCEED}")
    log, events, state = place.followed(run_id)
    assert log == "getting ready\nworking\naside\nchecking\n"
    assert (state.run_id, state.state, state.reason, state.name) == (run_id, "succeeded", "", "toy")
    assert state.is_over
    assert [event["state"] for event in events[:3]] == ["preparing", "running", "verifying"]
    assert place.json(run_id, "spec.json") == {"asked": "toy"}
    assert place.json(run_id, "result.json") == json.loads(RESULT)
    assert (place.root(run_id) / "heartbeat").exists()
    eventually(lambda: not alive(place.supervisor(run_id)))
    assert place.state(run_id).state == "succeeded"
    assert run_id in [state.run_id for state in runs.states(place.agent)]


@pytest.mark.parametrize(
    ("phase", "reason", "code"),
    [
        ("echo no; exit 3", "running: ended with status 3", 3),
        ("kill -11 $$", "running: ended by signal 11", 139),
        ("kill -9 $$", "running: killed (signal 9; out of memory, or by hand)", 137),
        (["no-such-program", "x"], "running: ended with status 127", 127),
    ],
)
def test_a_phase_that_fails_ends_the_run(any_place, phase, reason, code):
    run_id = any_place.submit(phase, SUCCEED)
    state = any_place.end(run_id)
    assert (state.state, state.reason) == ("failed", reason)
    result = any_place.json(run_id, "result.json")
    assert (result["exit_code"], result["phase"]) == (code, "running")
    if code == 127:
        assert (
            any_place.root(run_id) / "log.txt"
        ).read_text() == "launch: no-such-program: No such file or directory\n"


def test_phases_that_end_well_without_a_result_are_a_failure(any_place):
    state = any_place.end(any_place.submit("true", "printf '{}' > result.json"))
    assert (state.state, state.reason) == ("failed", "every phase ended well, but none wrote a result")


def test_what_a_phase_leaves_behind_ends_with_it(any_place):
    run_id = any_place.submit("sleep 60 & echo $! > left; sleep 0.1", SUCCEED)
    assert any_place.end(run_id).state == "succeeded"
    assert not alive(int((any_place.root(run_id) / "left").read_text()))


def test_the_log_arrives_to_the_last_byte_whatever_is_in_it(place):
    strange = (
        b"\xff\xfe\x80abc\xe8\xaf\x84\xe8\xae\xba\xf0\x9f\x98\x80\r\n\x1b[31m\x00"
        + bytes(range(256))
        + "评".encode()[:2]
    )
    octal = "".join(f"\\{byte:03o}" for byte in strange)
    log, _, _ = place.followed(place.submit(f"printf '{octal}'; {SUCCEED}"))
    # What a carriage return overwrites is folded, into lines of their own; one before a newline stays.
    before, after = strange.split(b"\x0c\r\x0e")
    assert log == (before + b"\x0c\n\x0e" + after).decode("utf-8", "replace") + "\n"


BIG = (
    "import os\nfor n in range(20000): os.write(1, b'%06d \\xe8\\xaf\\x84 \\xff ' % n + b'x' * 985 + b'\\n')\n"
    "os.rename('.r', 'result.json')"
)


def test_a_large_log_arrives_whole(over_setsid):
    run_id = over_setsid.submit(f"printf '%s' '{RESULT}' > .r", [sys.executable, "-ISc", BIG])
    digest, end = hashlib.sha256(), 0
    for said in runs.follow(over_setsid.agent, run_id):
        if isinstance(said, runs.LogText):
            digest.update(said.text.encode())
            assert said.offset > end
            end = said.offset
    content = (over_setsid.root(run_id) / "log.txt").read_bytes()
    assert len(content) == end > 19_000_000
    assert digest.hexdigest() == hashlib.sha256(content.decode("utf-8", "replace").encode()).hexdigest()


TALK = (
    "import os, time\n"
    "events = open('events.jsonl', 'ab', buffering=0)\n"
    "for n in range(300):\n"
    "    os.write(1, b'%05d \\xe8\\xaf\\x84\\xe8\\xae\\xba\\n' % n)\n"
    '    events.write(b\'{"seq": %d, "time": 1, "type": "step", "n": %d}\\n\' % (n + 100, n))\n'
    "    time.sleep(0.002)\n"
    "os.rename('.r', 'result.json')"
)


def talker(place):
    return place.submit(f"printf '%s' '{RESULT}' > .r", [sys.executable, "-ISc", TALK])


def expected(place, run_id):
    """Log and events as they lie on the disk."""
    root = place.root(run_id)
    events = [json.loads(line) for line in (root / "events.jsonl").read_bytes().splitlines()]
    return (root / "log.txt").read_text("utf-8"), events


def test_following_again_from_any_offset_loses_and_doubles_nothing(any_place):
    run_id = talker(any_place)
    assert any_place.end(run_id).state == "succeeded"
    eventually(lambda: not alive(any_place.supervisor(run_id)))
    log, events, at = "", [], {"log_offset": 0, "events_offset": 0}
    for many in (1, 2, 30, 200, 10_000):
        # Taken so far and no further, as somebody does whose connection breaks.
        for count, said in enumerate(runs.follow(any_place.agent, run_id, **at)):
            if count == many:
                break
            if isinstance(said, runs.LogText):
                log, at["log_offset"] = log + said.text, said.offset
            elif isinstance(said, runs.RunEvent):
                events.append(said.fields)
                at["events_offset"] = said.offset
    assert (log, events) == expected(any_place, run_id)


def test_following_over_broken_connections_loses_and_doubles_nothing(far_place):
    run_id = talker(far_place)
    log, events, at, cuts, state = "", [], {"log_offset": 0, "events_offset": 0}, 0, None
    while state is None:
        try:
            for said in runs.follow(far_place.agent, run_id, **at):
                if isinstance(said, runs.LogText):
                    log, at["log_offset"] = log + said.text, said.offset
                elif isinstance(said, runs.RunEvent):
                    events.append(said.fields)
                    at["events_offset"] = said.offset
                elif isinstance(said, runs.State):
                    state = said
                if cuts < 3 and len(events) > 60 * (cuts + 1):
                    cuts += 1
                    far_place.server.cut()
        except Unreachable:
            continue
    assert (cuts, state.state) == (3, "succeeded")
    whole_log, whole_events = expected(far_place, run_id)
    assert log == whole_log
    # The supervisor's last word may be younger than the result that ends the stream.
    assert events in (whole_events, whole_events[:-1])


def test_a_look_at_a_run_that_goes_on(any_place):
    run_id = any_place.submit("echo begun; sleep 60")
    any_place.has_said(run_id)
    log, _, state = any_place.followed(run_id, once=True)
    assert (log, state.state, state.is_over) == ("begun\n", "running", False)
    assert 0 <= state.age_s < 20
    assert 0 <= state.run_age_s < 20
    assert runs.stop(any_place.agent, run_id).state == "stopped"


def test_stop_ends_the_job_and_what_it_started(place):
    run_id = place.submit("sleep 60 & echo $!; trap 'echo saved; exit 9' TERM; wait")
    place.has_said(run_id)
    started = time.monotonic()
    state = runs.stop(place.agent, run_id)
    assert time.monotonic() - started < 8
    assert (state.state, state.reason) == ("stopped", "asked to")
    log, _, state = place.followed(run_id)
    assert state.state == "stopped"
    assert "saved" in log
    eventually(lambda: not alive(int(log.split()[0])))
    eventually(lambda: not alive(place.supervisor(run_id)))
    assert runs.stop(place.agent, run_id).state == "stopped"


def test_stop_ends_a_job_that_will_not_hear(any_place):
    run_id = any_place.submit("trap '' TERM; echo deaf; while :; do sleep 1; done", stop_grace_s=0.5)
    any_place.has_said(run_id)
    child = any_place.child(run_id)
    state = runs.stop(any_place.agent, run_id)
    assert (state.state, state.reason) == ("stopped", "asked to")
    eventually(lambda: not alive(child))


def test_stop_of_what_is_over_or_never_was_changes_nothing(any_place):
    run_id = any_place.submit(SUCCEED)
    any_place.end(run_id)
    before = (any_place.root(run_id) / "result.json").read_bytes()
    assert runs.stop(any_place.agent, run_id).state == "succeeded"
    assert (any_place.root(run_id) / "result.json").read_bytes() == before
    with pytest.raises(NotFound):
        runs.stop(any_place.agent, "never-aaaaaaaa")


def test_a_killed_supervisor_is_found_and_written_down_once(place):
    run_id = place.submit("echo begun; sleep 60 & wait")
    child = place.child(run_id)
    os.kill(place.supervisor(run_id), signal.SIGKILL)
    eventually(lambda: not alive(place.supervisor(run_id)))
    assert alive(child)
    found, written = [], []

    def find():
        found.append(place.state(run_id))
        written.append((place.root(run_id) / "result.json").read_bytes())

    finders = [threading.Thread(target=find) for _ in range(3)]
    for finder in finders:
        finder.start()
    for finder in finders:
        finder.join()
    assert {(state.state, state.reason) for state in found} == {("failed", "supervisor killed")}
    assert len(set(written)) == 1
    eventually(lambda: not alive(child))
    assert place.followed(run_id)[2].state == "failed"


@pytest.mark.slow
def test_a_follower_learns_that_the_supervisor_was_killed(place):
    run_id = place.submit("echo begun; sleep 60")
    timer = threading.Timer(0.3, os.kill, (place.supervisor(run_id), signal.SIGKILL))
    timer.start()
    log, _, state = place.followed(run_id)
    timer.join()
    assert (log, state.state, state.reason) == ("begun\n", "failed", "supervisor killed")


@needs_tmux
def test_killing_the_tmux_session_does_not_hurt_the_run(over_tmux):
    run_id = over_tmux.submit(f"while [ ! -e go ]; do sleep 0.05; done; echo survived; {SUCCEED}")
    assert f"launch-{run_id}:" in tmux(over_tmux.tmux_folder, "ls")
    tmux(over_tmux.tmux_folder, "kill-session", "-t", f"launch-{run_id}")
    assert run_id not in tmux(over_tmux.tmux_folder, "ls")
    (over_tmux.root(run_id) / "go").touch()
    log, _, state = over_tmux.followed(run_id)
    assert (log, state.state) == ("survived\n", "succeeded")


@needs_tmux
def test_whoever_attaches_sees_the_log(over_tmux):
    run_id = over_tmux.submit("echo for whoever looks; sleep 60")
    eventually(
        lambda: "for whoever looks" in tmux(over_tmux.tmux_folder, "capture-pane", "-p", "-t", f"launch-{run_id}")
    )
    runs.stop(over_tmux.agent, run_id)


@pytest.mark.parametrize("host", BOTH)
def test_a_run_outlives_the_connection_the_server_and_tmux(tmp_path, host):
    with host(tmp_path) as place:
        run_id = place.submit(f"while [ ! -e go ]; do sleep 0.05; done; {SUCCEED}")
        root, supervisor = place.root(run_id), place.supervisor(run_id)
        assert os.getsid(supervisor) == supervisor  # what ends a login's processes does not reach it
        place.server.cut()
    (root / "go").touch()
    eventually(lambda: (root / "result.json").exists())
    eventually(lambda: not alive(supervisor))


def test_after_a_restart_the_run_is_lost_and_nobody_is_hurt(any_place):
    run_id = any_place.submit("sleep 60")
    child = any_place.child(run_id)
    path = any_place.root(run_id) / "plan.json"
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"boot": "another-1"}))
    state = any_place.state(run_id)
    assert (state.state, state.is_over) == ("lost", True)
    assert any_place.followed(run_id)[2].state == "lost"
    assert not (any_place.root(run_id) / "result.json").exists()
    # After a restart its processes' numbers are other people's.
    assert alive(child)
    path.write_text(before)
    assert any_place.state(run_id).state == "running"
    runs.stop(any_place.agent, run_id)


def test_one_id_is_claimed_once(any_place):
    run_id = any_place.submit(SUCCEED)
    plan = any_place.json(run_id, "plan.json")
    with pytest.raises(RemoteError, match="is there already") as failure:
        runs.submit(any_place.agent, plan, links=[], documents={})
    assert failure.value.code == "run_exists"
    claimed = []

    def claim(number):
        try:
            runs.submit(
                any_place.agent, plan | {"run_id": "claim-aaaaaaaa", "name": str(number)}, links=[], documents={}
            )
            claimed.append(number)
        except RemoteError as error:
            assert error.code == "run_exists"

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == 1
    assert any_place.end("claim-aaaaaaaa").name == str(claimed[0])


BAD_IDS = ["", ".", "..", "../x-aaaaaaaa", "x", "X-aaaaaaaa", "x-AAAAAAAA", "x-aaaaaaa1", "-x-aaaaaaaa", "x y-aaaaaaaa",
           "x-aaaaaaaa\n", "/tmp/x-aaaaaaaa", "x" * 60 + "-aaaaaaaa", "é-aaaaaaaa"]  # fmt: skip


@pytest.mark.parametrize("run_id", BAD_IDS)
def test_an_id_that_is_none_is_refused_everywhere(any_place, run_id):
    plan = {"run_id": run_id, "name": "x", "files": FILES, "env": {}, "phases": []}
    for ask in (
        lambda: runs.submit(any_place.agent, plan, links=[], documents={}),
        lambda: runs.stop(any_place.agent, run_id),
        lambda: list(runs.follow(any_place.agent, run_id)),
    ):
        with pytest.raises(RemoteError, match="not a run id"):
            ask()
    assert any_place.state(run_id).state == "gone"


def test_a_run_of_a_newer_launch_is_not_touched(any_place):
    run_id = any_place.submit(SUCCEED)
    any_place.end(run_id)
    path = any_place.root(run_id) / "plan.json"
    path.write_text(json.dumps(any_place.json(run_id, "plan.json") | {"protocol": 99}))
    with pytest.raises(RemoteError, match="newer launch") as failure:
        list(runs.follow(any_place.agent, run_id))
    assert "pip install --upgrade" in failure.value.hint
    # One such run does not keep the others from being listed.
    other = any_place.submit(SUCCEED)
    assert other in [state.run_id for state in runs.states(any_place.agent)]


def test_broken_files_of_one_run_do_not_hide_the_others(any_place):
    run_id, other = any_place.submit(SUCCEED), any_place.submit(SUCCEED)
    any_place.end(run_id)
    any_place.end(other)
    root = any_place.root(run_id)
    with (root / "events.jsonl").open("ab") as file:
        file.write(
            b'{"seq": 7}\n{"seq": 8, "type": "state"}\n{"seq": 9, "type": "state", "time": "x"}\n' + b"[" * 100_000
        )
        file.write(b'\n\xff\n{"seq": true}\nnull\n')
    found = {state.run_id: state.state for state in runs.states(any_place.agent)}
    assert (found[run_id], found[other]) == ("succeeded", "succeeded")
    (any_place.root(other) / "plan.json").write_text("{")
    (any_place.root(other).parent / "not a run").mkdir()
    assert run_id in [state.run_id for state in runs.states(any_place.agent)]
    shutil.rmtree(any_place.root(other).parent / "not a run")


def test_events_are_numbered_on_even_where_a_job_left_half_a_line(any_place):
    half = 'printf \'{"seq": 41, "time": 1, "type": "step"}\\n{"seq": 42, "ti\' >> events.jsonl'
    run_id = any_place.submit("true", half, "exit 1")
    any_place.end(run_id)
    eventually(lambda: not alive(any_place.supervisor(run_id)))
    events = []
    for line in (any_place.root(run_id) / "events.jsonl").read_bytes().splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            assert line == b'{"seq": 42, "ti'
    assert [event.get("state") for event in events] == ["preparing", "running", None, "verifying", "failed"]
    numbers = [event["seq"] for event in events]
    assert numbers == sorted(set(numbers))


def test_a_job_gets_the_logins_path_and_the_plans_variables_and_no_input(tmp_path):
    with (
        private_tmux() as variables,
        EmbeddedHost(
            tmp_path / "home",
            path_prefix=[PYTHON_FOLDER, "/the/logins/own"],
            env={
                **variables,
                "MY_API_KEY": "hidden-value",
                "HF_TOKEN": "hidden-value",
                "HF_ENDPOINT": "https://mirror",
                "PIP_INDEX_URL": "https://me:hidden-value@mirror/simple",
            },
        ) as server,
        connect(server) as host,
    ):
        # A tmux server that was there before, with another environment.
        if shutil.which("tmux"):
            tmux(variables["TMUX_TMPDIR"], "new-session", "-d", "-s", "earlier", "sleep 60")
        place = Place(Agent(host), "tmux" if shutil.which("tmux") else "setsid")
        run_id = place.submit(
            'echo "${PIP_INDEX_URL#*@}"',
            'echo "[$PIP_INDEX_URL]"',
            f'echo "$PATH"; echo "$HF_ENDPOINT"; echo "$FROM_PLAN"; cat; pwd; {SUCCEED}',
            env={"FROM_PLAN": "a 'b' $c"},
        )
        log, _, _ = place.followed(run_id)
        # Where packages come from only what prepares needs to know.
        index, nothing, path, endpoint, from_plan, folder = log.splitlines()
        assert (index, nothing) == ("mirror/simple", "[]")
        assert path.startswith(f"{PYTHON_FOLDER}:/the/logins/own:")
        assert (endpoint, from_plan, Path(folder)) == ("https://mirror", "a 'b' $c", place.root(run_id))
        eventually(lambda: not alive(place.supervisor(run_id)))
        for file in place.root(run_id).rglob("*"):
            assert not file.is_file() or b"hidden-value" not in file.read_bytes()


def test_a_login_whose_variables_are_not_utf8_can_run(tmp_path):
    with (
        private_tmux() as variables,
        EmbeddedHost(
            tmp_path / "home", path_prefix=[PYTHON_FOLDER], env={**variables, "HF_HOME": "/models/\udcff"}
        ) as server,
        connect(server) as host,
    ):
        place = Place(Agent(host), "tmux" if shutil.which("tmux") else "setsid")
        log, _, state = place.followed(place.submit(f"printf '%s' \"$HF_HOME\" | od -An -tx1; {SUCCEED}"))
        assert bytes.fromhex(log) == b"/models/\xff"
        assert state.state == "succeeded"


def test_inputs_come_from_the_store(any_place, tmp_path):
    content = b"rows\n" * 1000
    (tmp_path / "rows").write_bytes(content)
    file = store.LocalFile(tmp_path / "rows", hashlib.sha256(content).hexdigest(), len(content))
    store.push(any_place.agent, [file])
    for run_id in ("inputs-aaaaaaaa", "inputs-bbbbbbbb"):
        plan = {
            "run_id": run_id,
            "name": "inputs",
            "files": FILES,
            "env": {},
            "phases": [{"state": "running", "argv": ["sh", "-c", f"cat inputs/rows.csv; {SUCCEED}"]}],
        }
        runs.submit(
            any_place.agent,
            plan,
            links=[{"path": "inputs/rows.csv", "sha256": file.sha256}],
            documents={"spec.json": {}},
        )
        assert any_place.followed(run_id)[0].encode() == content
