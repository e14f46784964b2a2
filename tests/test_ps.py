"""`launch ps` over many hosts: each row is right whatever the other hosts do, and nobody waits for a dead one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.run_directory import new_run_id
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher import runs_table
from launcher.ledger import Ledger, Record
from launcher.overview import Note, Overview, Row
from remote import runs
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from tests.conftest import Cli
from tests.connected import PYTHON_FOLDER, connect, eventually, private_tmux, tmux
from tests.servers import OpenSshServer
from tests.test_runs import FILES, SUCCEED

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def remember(cli: Cli, run_id: str, host: str, **more: object) -> Ledger:
    """Let the laptop know of a run, as after a submit."""
    name = run_id.rpartition("-")[0]
    spec = from_mapping({"name": name, "model_name_or_path": "m", "data": "a.csv"})
    ledger = Ledger(cli.home / "launch" / "ledger.sqlite")
    submission = Submission(run_id, spec, {}, (), "0")
    ledger.add(Record(run_id, name, host, time.time() - 3600, submission, **more))  # type: ignore[arg-type]
    return ledger


def save(cli: Cli, name: str, server: EmbeddedHost | OpenSshServer, workspace: Path, **more: str) -> None:
    """An entry in the file of hosts."""
    entry = {"login": server.login_line, "workspace": str(workspace), "known_hosts": str(server.known_hosts_file)}
    write_host(cli, name, **entry | more)


def write_host(cli: Cli, name: str, **entry: str) -> None:
    file = cli.home / "launch" / "hosts.toml"
    file.parent.mkdir(exist_ok=True)
    lines = "".join(f"{key} = '{value}'\n" for key, value in entry.items() if key != "hostname")
    identity = f"[{name}.identity]\nhostname = '{entry['hostname']}'\n" if "hostname" in entry else ""
    with file.open("a") as hosts:
        hosts.write(f"[{name}]\n{lines}{identity}\n")


def submit(agent: Agent, run_id: str, phase: str) -> None:
    phases = [{"state": "running", "argv": ["sh", "-c", phase]}]
    plan = {"run_id": run_id, "name": run_id.rpartition("-")[0], "files": FILES, "env": {}, "phases": phases}
    runs.submit(agent, plan, links=[], documents={})


@contextlib.contextmanager
def listener(talk: bytes | None) -> Iterator[int]:
    """A port that takes connections and says this, or nothing at all, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    kept.append(connection)
                    if talk is not None:
                        connection.sendall(talk)
                        connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in kept:
                one.close()


def liar_python(folder: Path) -> Path:
    """A python3 that passes for one and answers every verb with a state that is none."""
    folder.mkdir()
    script = folder / "python3"
    script.write_text(
        f"""#!/bin/sh
case "$3" in *version_info*) echo "$0"; exit 0;; esac
case "$2" in *.pyz) printf '\\n@launch %s reply {{"runs": [{{"run_id": 5}}], "host": [[[[]]]]}}\\n' "$4"; exit 0;; esac
exec {sys.executable} "$@"
"""
    )
    script.chmod(0o755)
    return folder


def test_the_rows_of_sound_hosts_are_right_whatever_the_others_do(cli: Cli, tmp_path: Path) -> None:
    expected = {}
    with contextlib.ExitStack() as stack:
        for at in range(8):
            server = stack.enter_context(EmbeddedHost(tmp_path / f"host{at}", path_prefix=[PYTHON_FOLDER]))
            save(cli, f"box{at}", server, tmp_path / f"work{at}")
            run_id = new_run_id(f"sound-{at}")
            with connect(server) as host:
                submit(Agent(host, workspace=str(tmp_path / f"work{at}")), run_id, "exit 3" if at % 2 else SUCCEED)
                eventually(
                    lambda at=at, run_id=run_id: (
                        tmp_path / f"work{at}" / "launch" / "runs" / run_id / "result.json"
                    ).exists()
                )  # type: ignore[misc]
            remember(cli, run_id, f"box{at}")
            expected[run_id] = "failed" if at % 2 else "succeeded"
        sound = stack.enter_context(EmbeddedHost(tmp_path / "moved", path_prefix=[PYTHON_FOLDER]))
        save(cli, "other-machine", sound, tmp_path / "moved-work", hostname="somebody-else")
        hanging = stack.enter_context(listener(None))
        garbage = stack.enter_context(listener(b"\x1b[31m\xff\x00 HTTP/1.1 400 Bad Request\r\n" * 50))
        write_host(cli, "hangs", login=f"root@127.0.0.1:{hanging}")
        write_host(cli, "garbage", login=f"root@127.0.0.1:{garbage}")
        write_host(cli, "refuses", login="root@127.0.0.1:1")
        broken = ("other-machine", "hangs", "garbage", "refuses", "never-saved")
        for name in broken:
            remember(cli, new_run_id(f"on-{name}"), name, state="running")
        started = time.monotonic()
        done = cli("ps", "-a", "--json")
        took_s = time.monotonic() - started
    assert done.status == 0, done
    assert took_s < 12  # of which ps waits eight seconds at most for the one that hangs
    rows = {row["run_id"]: row for row in done.data["runs"]}
    assert {run_id: rows[run_id]["state"] for run_id in expected} == expected
    unknown = {row["host"]: row for row in rows.values() if row["host"] in broken}
    assert {row["state"] for row in unknown.values()} == {"unknown"}
    assert {row["was"] for row in unknown.values()} == {"running"}
    assert "another machine" in unknown["other-machine"]["reason"]
    assert unknown["hangs"]["reason"]
    assert "\x1b" not in done.stdout
    assert Ledger(cli.home / "launch" / "ledger.sqlite").find("on-hangs").state == "running"


def test_a_host_whose_program_lies_costs_only_its_own_row(cli: Cli, tmp_path: Path) -> None:
    folder = liar_python(tmp_path / "bin")
    with (
        EmbeddedHost(tmp_path / "liar", path_prefix=[str(folder)]) as liar,
        EmbeddedHost(tmp_path / "sound", path_prefix=[PYTHON_FOLDER]) as sound,
    ):
        save(cli, "liar", liar, tmp_path / "a")
        save(cli, "box", sound, tmp_path / "b")
        with connect(sound) as host:
            submit(Agent(host, workspace=str(tmp_path / "b")), "good-aaaaaaaa", "exit 3")
        remember(cli, "good-aaaaaaaa", "box")
        remember(cli, "bad-aaaaaaaa", "liar", state="running")
        eventually(lambda: (tmp_path / "b" / "launch" / "runs" / "good-aaaaaaaa" / "result.json").exists())
        states = {row["run_id"]: row["state"] for row in cli("ps", "--json").data["runs"]}
    assert states == {"good-aaaaaaaa": "failed", "bad-aaaaaaaa": "unknown"}


def test_a_damaged_run_does_not_hide_the_others(cli: Cli, embedded: EmbeddedHost, tmp_path: Path) -> None:
    save(cli, "box", embedded, tmp_path / "work")
    with connect(embedded) as host:
        agent = Agent(host, workspace=str(tmp_path / "work"))
        for run_id in ("sound-aaaaaaaa", "damaged-aaaaaaaa", "newer-aaaaaaaa"):
            submit(agent, run_id, SUCCEED)
            remember(cli, run_id, "box", state="running")
    folder = tmp_path / "work" / "launch" / "runs"
    eventually(lambda: all((one / "result.json").exists() for one in folder.iterdir()))
    (folder / "damaged-aaaaaaaa" / "plan.json").write_text('{"protocol": 2}')
    (folder / "newer-aaaaaaaa" / "plan.json").write_text('{"protocol": 99}')
    rows = {row["name"]: row for row in cli("ps", "--json").data["runs"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        "sound": "succeeded", "damaged": "unknown", "newer": "unknown",
    }  # fmt: skip
    assert "newer launch" in rows["newer"]["reason"]
    assert rows["newer"]["was"] == "running"


def test_a_box_that_is_on_for_nothing_is_named(cli: Cli, embedded: EmbeddedHost, tmp_path: Path) -> None:
    save(cli, "box", embedded, tmp_path / "work", profile="autodl")
    save(cli, "mine", embedded, tmp_path / "mine", profile="plain")
    said = cli("ps")
    if "logged in" not in said.stdout:
        pytest.skip("somebody is logged in here, or a GPU is in use")
    assert "box is on and idle" in said.stdout and "launch host poweroff box" in said.stdout
    assert "mine is on" not in said.stdout
    with connect(embedded) as host:
        agent = Agent(host, workspace=str(tmp_path / "work"))
        submit(agent, "busy-aaaaaaaa", "sleep 60")  # by another laptop: it counts, too
        assert cli("ps", "--json").data["notes"] == []
        [note] = cli("ps", "--host", "box", "--json").data["notes"]
        assert (note["code"], note["host"]) == ("foreign", "box")
        assert "launch adopt busy-aaaaaaaa --host box" in note["text"]
        assert runs.stop(agent, "busy-aaaaaaaa").left == ()
    assert [note["code"] for note in cli("ps", "--json").data["notes"]] == ["idle"]


def test_when_the_data_of_a_box_that_is_off_may_be_deleted(cli: Cli) -> None:
    import sqlite3

    write_host(cli, "box", login="root@127.0.0.1:1", profile="autodl")
    remember(cli, "away-aaaaaaaa", "box", state="succeeded")
    for days, words in ((6, "in 9 days at the earliest"), (14.7, "perhaps within a day"), (20, "perhaps by now")):
        with sqlite3.connect(cli.home / "launch" / "ledger.sqlite") as database:
            database.execute("UPDATE runs SET checked_at = ?", (time.time() - days * 86400,))
        database.close()
        said = cli("ps")
        assert words in said.stdout
        assert "away-aaaaaaaa never came home" in said.stdout
    Ledger(cli.home / "launch" / "ledger.sqlite").note_pulled("away-aaaaaaaa", cli.home)
    assert cli("ps", "--json").data["notes"] == []


LONG = "sentiment-of-hotel-reviews-with-a-long-name-k3x7q2mh"


def rows(count: int) -> Overview:
    kinds = (
        Row("reviews-k3x7q2mh", "reviews", "box", "running", "", 300.0, "", silent_s=300.0, fuse_left_s=10_000.0),
        Row(LONG, "long", "a-host-with-a-long-name", "failed", "running: 显存不足, the process was killed", 7200.0, ""),
        Row("酒店-abcdefgh", "酒店", "盒子", "queued", "", 5.0, "", position=2),
        Row("gone-abcdefgh", "gone", "far", "unknown", "connection refused", None, "", was="running", was_s=180.0),
        Row("old-abcdefgh", "old", "box", "stopped", "asked to", 9e5, "/home", superseded_by="new-abcdefgh"),
        Row("new-abcdefgh", "new", "box", "running", "", None, "", asking=True),
    )
    notes = (Note("idle", "box", "box is on and idle: it costs; launch host poweroff box"),)
    return Overview(tuple(kinds[at % len(kinds)] for at in range(count)), notes)


@pytest.mark.parametrize("width", [20, 40, 59, 60, 80, 120])
@pytest.mark.parametrize("count", [0, 1, 5, 30])
def test_no_line_is_wider_than_the_terminal_and_no_id_is_broken(width: int, count: int) -> None:
    from rich.cells import cell_len

    shown = rows(count)
    lines = [*runs_table.lines(shown, width), *runs_table.notes(shown, width)]
    if count:
        assert max(map(cell_len, lines)) <= width
    if count >= 5 and width > len(LONG):
        assert any(LONG in line for line in lines)  # an id is there to be copied


def test_a_pipe_gets_whole_lines() -> None:
    lines = runs_table.lines(rows(6), None)
    assert len(lines) == 7
    assert lines[1].split()[:3] == ["reviews-k3x7q2mh", "box", "running"]
    assert "running (no sign for 5 min), off in <= 3 h" in lines[1]
    assert LONG in lines[2] and "显存不足, the process was killed" in lines[2]
    assert "queued (2nd)" in lines[3]
    assert "unknown: connection refused (was running 3 min ago)" in lines[4]
    assert "superseded by new-abcdefgh" in lines[5]
    assert "running, asking ..." in lines[6]


@pytest.mark.alone
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_on_a_terminal_nothing_is_left_but_the_table(cli: Cli, tmp_path: Path) -> None:
    with listener(None) as hanging, private_tmux() as variables:
        write_host(cli, "hangs", login=f"root@127.0.0.1:{hanging}")
        for at in range(30):
            remember(cli, new_run_id(f"run-{at}"), "hangs", state="running")
        folder = variables["TMUX_TMPDIR"]
        program = f"unset LINES COLUMNS; trap : INT; {sys.executable} -m launcher ps; echo status=$?"
        env = [f"-e{name}={cli.env[name]}" for name in ("HOME", "LAUNCH_HOME")]
        env.append(f"-ePYTHONPATH={os.environ.get('PYTHONPATH', os.getcwd())}")
        tmux(folder, "new-session", "-d", "-x", "80", "-y", "20", *env, "-s", "a", "sh", "-c", f"{program}; sleep 60")
        eventually(lambda: "asking ..." in tmux(folder, "capture-pane", "-p", "-t", "a"))
        eventually(lambda: "status=0" in tmux(folder, "capture-pane", "-p", "-t", "a"))
        whole = tmux(folder, "capture-pane", "-p", "-S", "-", "-t", "a")
        assert whole.count("RUN") == 1
        assert "asking" not in whole
        assert all(whole.count(f"run-{at}-") == 1 for at in range(30))
        # Ctrl-C in the middle leaves at once, and nothing of the table.
        tmux(folder, "new-session", "-d", "-x", "80", "-y", "20", *env, "-s", "b", "sh", "-c", f"{program}; sleep 60")
        eventually(lambda: "asking ..." in tmux(folder, "capture-pane", "-p", "-t", "b"))
        started = time.monotonic()
        tmux(folder, "send-keys", "-t", "b", "C-c")
        eventually(lambda: "status=130" in tmux(folder, "capture-pane", "-p", "-S", "-", "-t", "b"))
        assert time.monotonic() - started < 3
        assert "asking" not in tmux(folder, "capture-pane", "-p", "-S", "-", "-t", "b")


def test_ctrl_c_leaves_at_once(cli: Cli) -> None:
    with listener(None) as hanging:
        write_host(cli, "hangs", login=f"root@127.0.0.1:{hanging}")
        remember(cli, "run-aaaaaaaa", "hangs", state="running")
        with cli.start("ps", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
            time.sleep(1.5)  # it is at it; were it not yet, it would end as well
            started = time.monotonic()
            asking.send_signal(signal.SIGINT)
            asking.communicate()
        assert time.monotonic() - started < 3
        assert asking.returncode in (130, -signal.SIGINT)
