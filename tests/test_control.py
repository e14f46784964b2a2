"""What a laptop can do with runs besides watching: adopt, remove, attach to, stop and try them again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import manifest
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.ledger import Ledger, Record
from remote import runs
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from tests.conftest import Cli
from tests.connected import PYTHON_FOLDER, alive, connect, eventually, private_tmux, tmux
from tests.servers import OpenSshServer, openssh_missing
from tests.test_ps import listener, save, write_host
from tests.test_runs import FILES, SUCCEED
from tests.toy import write_task

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def submission(run_id: str, **keys: object) -> Submission:
    """What another laptop may have asked for."""
    spec = from_mapping({"name": run_id.rpartition("-")[0], "model_name_or_path": "m", "data": "a.csv"} | keys)
    entry = manifest.Entry("inputs/train.jsonl", 3, "0" * 64)
    return Submission(run_id, spec, {"train": entry}, (), "1" * 64)


def submit(agent: Agent, run_id: str, phase: str, document: object = None, **plan: object) -> Path:
    """A run of this shell text on the host, as another laptop would start it; its folder."""
    phases = [{"state": "running", "argv": ["sh", "-c", phase]}]
    plan = {"run_id": run_id, "name": run_id.rpartition("-")[0], "files": FILES, "env": {}, "phases": phases} | plan
    asked = submission(run_id).to_json() if document is None else document
    return Path(runs.submit(agent, plan, links=[], documents={"spec.json": asked}).root)


@contextlib.contextmanager
def agent_on(server: EmbeddedHost | OpenSshServer, workspace: Path) -> Iterator[Agent]:
    with connect(server) as host:
        yield Agent(host, workspace=str(workspace))


@pytest.fixture
def agent(cli: Cli, embedded: EmbeddedHost, tmp_path: Path) -> Iterator[Agent]:
    """On a host that the laptop knows as `box`."""
    save(cli, "box", embedded, tmp_path / "work")
    with agent_on(embedded, tmp_path / "work") as agent:
        yield agent


def ledger(cli: Cli) -> Ledger:
    return Ledger(cli.home / "launch" / "ledger.sqlite")


def own(cli: Cli, run_id: str, **more: object) -> None:
    """Let the laptop know the run as its own."""
    record = Record(run_id, run_id.rpartition("-")[0], "box", time.time() - 3600, submission(run_id))
    ledger(cli).add(dataclasses.replace(record, **more))  # type: ignore[arg-type]


def test_a_second_laptop_takes_a_run_over(cli: Cli, agent: Agent, embedded: EmbeddedHost, tmp_path: Path) -> None:
    home = tmp_path / "second"
    (home / ".ssh").mkdir(parents=True)
    second = Cli(home)
    save(second, "its-box", embedded, tmp_path / "work")
    write_host(second, "dead", login="root@127.0.0.1:1")
    folder = submit(agent, "reviews-aaaaaaaa", "echo hello; while [ ! -e go ]; do sleep 0.05; done; exit 3", attempt=2)
    own(cli, "reviews-aaaaaaaa")
    assert second("logs", "reviews", "--json").error["code"] == "run_not_found"
    adopted = second("adopt", "rev", "--json")  # found by searching every host
    assert adopted.status == 0, adopted
    assert "dead was not searched" in adopted.stderr
    assert (adopted.data["run_id"], adopted.data["host"], adopted.data["attempt"]) == ("reviews-aaaaaaaa", "its-box", 2)
    known = ledger(second).find("reviews")
    assert (known.adopted, known.sources, known.submission) == (True, {}, submission("reviews-aaaaaaaa"))
    assert abs(known.submitted_at - time.time()) < 60
    assert second("adopt", "reviews-aaaaaaaa", "--json").data["already_known"] is True
    assert "known here already, on its-box" in second("adopt", "reviews", "--host", "its-box").stdout
    assert "hello" in second("logs", "reviews").stdout
    (folder / "go").touch()
    assert second("wait", "reviews", "--json").status == 6
    pulled = second("pull", "reviews", "--json")
    assert pulled.data["state"] == "failed"
    assert (Path(pulled.data["folder"]) / "adopted").exists()
    # The first laptop sees the same, and its folder carries no such mark.
    assert cli("ps", "--json").data["runs"][0]["state"] == "failed"
    assert not (Path(cli("pull", "reviews", "--json").data["folder"]) / "adopted").exists()


@pytest.mark.parametrize(
    "document",
    [
        "not an object",
        {},
        [[[[]]]],
        submission("other-aaaaaaaa").to_json(),
        submission("hostile-aaaaaaaa").to_json() | {"protocol": 99},
        submission("hostile-aaaaaaaa").to_json() | {"protocol": 1e999},
        submission("hostile-aaaaaaaa").to_json() | {"inputs": {"x": {"path": "../x", "size_bytes": 1, "sha256": ""}}},
        submission("hostile-aaaaaaaa").to_json() | {"code_sha256": "\ud800"},
        {"filler": "x" * (1 << 20)},
    ],
)  # fmt: skip
def test_what_a_host_says_of_a_run_is_not_believed_blindly(cli: Cli, agent: Agent, document: object) -> None:
    folder = submit(agent, "hostile-aaaaaaaa", SUCCEED)
    (folder / "spec.json").write_text(json.dumps(document))
    refused = cli("adopt", "hostile-aaaaaaaa", "--host", "box", "--json")
    assert refused.status == 1, refused
    assert "Traceback" not in refused.stderr
    assert ledger(cli).lines() == []


def test_a_spec_that_is_a_link_is_not_followed(cli: Cli, agent: Agent, tmp_path: Path) -> None:
    folder = submit(agent, "hostile-aaaaaaaa", SUCCEED)
    (folder / "spec.json").unlink()
    (tmp_path / "secret").write_text(json.dumps(submission("hostile-aaaaaaaa").to_json()))
    (folder / "spec.json").symlink_to(tmp_path / "secret")
    assert cli("adopt", "hostile-aaaaaaaa", "--host", "box", "--json").error["code"] == "run_unreadable"


def test_adopting_what_is_not_there(cli: Cli, agent: Agent) -> None:
    assert cli("adopt", "nothing", "--host", "box", "--json").status == 4
    assert cli("adopt", "nothing", "--json").status == 4
    assert cli("adopt", "", "--json").status == 4
    submit(agent, "prepare-reviews-aaaaaaaa", "exit 0", only_prepares=True)
    assert "only prepares" in cli("adopt", "prepare-reviews-aaaaaaaa", "--json").error["message"]
    folder = submit(agent, "based-aaaaaaaa", SUCCEED)
    assert cli("adopt", "based", "--base", str(folder), "--json").status == 2


def test_what_is_removed_is_gone_there_and_stays_at_home(cli: Cli, agent: Agent, tmp_path: Path) -> None:
    live = submit(agent, "live-aaaaaaaa", "sleep 60")
    done = submit(agent, "done-aaaaaaaa", SUCCEED)
    lost = submit(agent, "lost-aaaaaaaa", "exit 3")
    for name in ("live", "done", "lost"):
        own(cli, f"{name}-aaaaaaaa")
    eventually(lambda: all((folder / "result.json").exists() for folder in (done, lost)))
    assert cli("pull", "lost", "--json").status == 0
    refused = cli("rm", "live", "done", "lost", "--json")
    assert refused.status == 1
    assert {one["run_id"]: one["code"] for one in refused.data["failed"]} == {
        "live-aaaaaaaa": "run_live", "done-aaaaaaaa": "run_not_pulled",
    }  # fmt: skip
    assert [one["run_id"] for one in refused.data["removed"]] == ["lost-aaaaaaaa"]
    assert live.exists() and done.exists() and not lost.exists()
    assert not list(live.parent.parent.glob(".trash-*"))
    assert (cli.home / "runs" / "lost-aaaaaaaa" / "log.txt").exists()
    assert cli("rm", "lost", "--json").status == 4
    assert cli("rm", "--json").status == 2
    assert "done-aaaaaaaa removed from box" in cli("rm", "done", "--force").stdout
    assert not done.exists()
    assert "launch stop live-aaaaaaaa" in cli("rm", "live", "--force").stdout
    assert cli("stop", "live", "--json").data["left"] == []
    shutil.rmtree(live)
    assert cli("rm", "live", "--json").data["removed"][0]["was_there"] is False
    assert ledger(cli).lines() == []


def test_a_host_that_is_gone_for_ever_is_not_asked(cli: Cli) -> None:
    write_host(cli, "box", login="root@127.0.0.1:1")
    own(cli, "away-aaaaaaaa", state="running")
    own(cli, "good-aaaaaaaa", state="succeeded")
    (kept := cli.home / "launch" / "cache" / "checkpoints" / "away-aaaaaaaa" / "checkpoints").mkdir(parents=True)
    refused = cli("rm", "away", "--json")
    assert refused.status == 5
    assert "launch rm away-aaaaaaaa --only-here" in refused.data["failed"][0]["hint"]
    missed = cli("adopt", "foreign", "--json")
    assert (missed.status, missed.error["message"]) == (4, "no run 'foreign' on any host that was searched")
    assert kept.exists()
    told = cli("rm", "away", "good", "--only-here", "--json")
    assert (told.status, told.data["failed"][0]["code"]) == (1, "run_not_pulled")
    assert told.data["removed"][0]["was_there"] is None
    assert not kept.parent.exists()
    assert cli("rm", "good", "--only-here", "--force").status == 0
    assert ledger(cli).lines() == []


def test_a_new_attempt_is_refused_while_the_old_one_may_go_on(cli: Cli, agent: Agent) -> None:
    submit(agent, "live-aaaaaaaa", "sleep 60")
    done = submit(agent, "done-aaaaaaaa", SUCCEED)
    over = submit(agent, "over-aaaaaaaa", "exit 3")
    for name in ("live", "done", "over"):
        own(cli, f"{name}-aaaaaaaa")
    eventually(lambda: (done / "result.json").exists() and (over / "result.json").exists())
    for verb in ("resume", "retry"):
        live = cli(verb, "live", "--json").error
        assert (live["code"], live["hint"]) == ("run_live", "launch stop live-aaaaaaaa")
        assert "succeeded" in cli(verb, "done", "--json").error["message"]
    own(cli, "cut-aaaaaaaa", resumed_from="over-aaaaaaaa")  # its start was cut off before it was one
    assert cli("resume", "cut", "--json").error["hint"] == "launch resume over-aaaaaaaa --force"
    nothing = cli("resume", "over", "--json").error
    assert (nothing["code"], "launch retry over-aaaaaaaa" in nothing["hint"]) == ("no_checkpoint", True)
    # It was never pushed from here, so nothing of it is to be had.
    changed = cli("retry", "over", "--json").error
    assert changed["code"] == "submission_changed" and "data, train: neither on box nor here" in changed["message"]
    with listener(b"nonsense\r\n") as port:
        hosts = cli.home / "launch" / "hosts.toml"
        hosts.write_text(f"[box]\nlogin = 'root@127.0.0.1:{port}'\n")
        for verb in ("resume", "retry"):
            unknown = cli(verb, "live", "--json").error
            assert unknown["code"] == "run_unknown", unknown
            assert unknown["hint"].startswith(f"launch {verb} live-aaaaaaaa --force")
    runs.stop(agent, "live-aaaaaaaa")
    ledger(cli).note_superseded("over-aaaaaaaa", "newer-aaaaaaaa")
    for verb in ("resume", "retry"):
        assert cli(verb, "over", "--json").error["hint"] == f"launch {verb} newer-aaaaaaaa"
    assert [note["code"] for note in cli("ps", "--json").data["notes"]] == []


@pytest.mark.ssh
def test_a_retry_on_another_host_while_the_old_one_is_away(cli: Cli, embedded: EmbeddedHost, tmp_path: Path) -> None:
    if reason := openssh_missing():
        pytest.skip(reason)
    spec = write_task(cli.home / "task")
    server = OpenSshServer(tmp_path / "sshd", path_prefix=[PYTHON_FOLDER])
    with server:
        save(cli, "box", server, tmp_path / "work")
        retry_while_away(cli, spec, server, embedded, tmp_path)


def retry_while_away(cli: Cli, spec: Path, server: OpenSshServer, other: EmbeddedHost, tmp_path: Path) -> None:
    save(cli, "other", other, tmp_path / "other")
    started = cli("train", str(spec), "--host", "box", "-d", "--json")
    assert started.status == 0, started
    first = started.data["run_id"]
    server.stop()
    assert cli("retry", first, "--host", "other", "-d", "--json").error["code"] == "run_unknown"
    retried = cli("retry", first, "--host", "other", "-d", "--force", "--json")
    assert retried.status == 0, retried
    second = retried.data["run_id"]
    assert (retried.data["attempt"], retried.data["supersedes"], retried.data["resumed_from"]) == (2, first, "")
    rows = {row["run_id"]: row for row in cli("ps", "--json").data["runs"]}
    assert (rows[first]["state"], rows[first]["superseded_by"]) == ("unknown", second)
    server.restart()
    shown = cli("ps", "--json").data
    [note] = [note for note in shown["notes"] if note["code"] == "twice"]
    assert f"launch stop {first}" in note["text"]
    assert cli("stop", first, "--json").data["left"] == []
    assert cli("stop", second, "--json").data["left"] == []
    assert second not in [row["run_id"] for row in cli("ps", "--host", "box", "--json").data["runs"]]
    plan = json.loads((tmp_path / "other" / "launch" / "runs" / second / "plan.json").read_text())
    assert plan["attempt"] == 2 and "resumes" not in plan


def test_nobody_waits_for_a_stop_any_more_and_it_happens_all_the_same(cli: Cli, agent: Agent) -> None:
    root = submit(
        agent, "slow-aaaaaaaa", "trap 'touch asked; sleep 1; exit 9' TERM; echo up; while :; do sleep 0.1; done"
    )
    own(cli, "slow-aaaaaaaa")
    eventually(lambda: (root / "log.txt").read_bytes())
    child = json.loads((root / "child.json").read_text())["pid"]
    with cli.start("stop", "slow", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as stopping:
        eventually(lambda: (root / "asked").exists())
        stopping.send_signal(signal.SIGINT)
        stopping.communicate()
    eventually(lambda: (root / "result.json").exists())
    assert json.loads((root / "result.json").read_text())["state"] == "stopped"
    eventually(lambda: not alive(child))


@pytest.mark.slow
def test_memory_of_a_gpu_that_stays_taken_is_a_failure_with_its_pids(cli: Cli, tmp_path: Path) -> None:
    """No driver is at hand that keeps the memory of a dead process: a program in its place says that it does."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/pids\n")
    program.chmod(0o755)
    with (
        EmbeddedHost(tmp_path / "host", path_prefix=[str(program.parent), PYTHON_FOLDER]) as server,
        agent_on(server, tmp_path / "work") as agent,
    ):
        save(cli, "box", server, tmp_path / "work")
        root = submit(agent, "stuck-aaaaaaaa", f"echo $$ > {tmp_path}/pids; sleep 60")
        own(cli, "stuck-aaaaaaaa")
        pid = int(eventually(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text()))
        stopped = cli("stop", "stuck", "--json")
        assert (stopped.status, stopped.error["code"]) == (1, "processes_left")
        assert f"GPU memory is still held by what were its processes: {pid}" in stopped.error["message"]
        assert not alive(pid)
        assert json.loads((root / "result.json").read_text())["state"] == "stopped"
        (tmp_path / "pids").write_text("1\n")  # somebody else's
        assert cli("stop", "stuck", "--json").data["gpu_left"] == []


needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


@needs_tmux
@pytest.mark.ssh
@pytest.mark.parametrize("term", ["xterm-256color", "a-terminal-nobody-knows"])
def test_attaching_shows_the_session_and_leaving_it_hurts_nobody(cli: Cli, tmp_path: Path, term: str) -> None:
    if reason := openssh_missing():
        pytest.skip(reason)
    with (
        private_tmux() as theirs,
        private_tmux() as ours,
        OpenSshServer(tmp_path / "sshd", path_prefix=[str(tmp_path / "bin"), PYTHON_FOLDER]) as server,
        agent_on(server, tmp_path / "work") as agent,
    ):
        wrapper = tmp_path / "bin" / "tmux"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nTMUX_TMPDIR={theirs["TMUX_TMPDIR"]} exec {shutil.which("tmux")} "$@"\n')
        wrapper.chmod(0o755)
        save(cli, "box", server, tmp_path / "work")
        submit(agent, "shown-aaaaaaaa", "echo for whoever looks; sleep 60")
        own(cli, "shown-aaaaaaaa")
        refused = cli("attach", "shown")
        assert refused.status == 2 and "launch logs shown-aaaaaaaa -f" in refused.stderr
        folder = ours["TMUX_TMPDIR"]
        env = [f"-e{name}={cli.env[name]}" for name in ("HOME", "LAUNCH_HOME")]
        env.append(f"-ePYTHONPATH={os.environ.get('PYTHONPATH', os.getcwd())}")
        program = f"TERM={term} {sys.executable} -m launcher attach shown; echo status=$?; sleep 60"
        tmux(folder, "new-session", "-d", "-x", "80", "-y", "24", *env, "-s", "a", "sh", "-c", program)
        tmux(folder, "set-option", "-g", "prefix", "C-a")  # Ctrl-B is for the one over there
        eventually(lambda: "for whoever looks" in tmux(folder, "capture-pane", "-p", "-t", "a"))
        tmux(folder, "send-keys", "-t", "a", "C-b", "d")
        eventually(lambda: "status=0" in tmux(folder, "capture-pane", "-p", "-t", "a"))
        assert "detached" in tmux(folder, "capture-pane", "-p", "-t", "a")
        [state] = runs.states(agent, ["shown-aaaaaaaa"])
        assert state.state == "running"
        # Without a session, and when it is over.
        tmux(theirs["TMUX_TMPDIR"], "kill-session", "-t", "launch-shown-aaaaaaaa")
        program = f"{sys.executable} -m launcher attach shown; echo status=$?; sleep 60"
        for name, words in (("b", "without a tmux session"), ("c", "is over (stopped)")):
            tmux(folder, "new-session", "-d", "-x", "120", "-y", "24", *env, "-s", name, "sh", "-c", program)
            eventually(lambda name=name: "status=1" in tmux(folder, "capture-pane", "-p", "-t", name))  # type: ignore[misc]
            said = tmux(folder, "capture-pane", "-p", "-t", name)
            assert words in said and "launch logs shown-aaaaaaaa" in said
            assert runs.stop(agent, "shown-aaaaaaaa").left == ()
