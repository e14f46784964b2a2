"""Faults that were found by trying to break the command line, each with the input that showed it."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.run_directory import RunDirectory
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.errors import LaunchError, NoSuchRun
from launcher.ledger import Ledger, Record
from tests.conftest import REPOSITORY, Cli
from tests.test_bring_home import RUN_ID, Laptop
from tests.toy import write_task

SUBMISSION = Submission(
    RUN_ID, from_mapping({"name": "reviews", "model_name_or_path": "m", "data": "a.csv"}), {}, (), ""
)


def remember(cli: Cli, host: str = "local", **fields: object) -> Ledger:
    """A ledger that knows one run."""
    (cli.home / "launch").mkdir(exist_ok=True)
    ledger = Ledger(cli.home / "launch" / "ledger.sqlite")
    ledger.add(Record(RUN_ID, "reviews", host, time.time(), SUBMISSION, **fields))  # type: ignore[arg-type]
    return ledger


def write_hosts(cli: Cli, text: str) -> Path:
    (cli.home / "launch").mkdir(exist_ok=True)
    path = cli.home / "launch" / "hosts.toml"
    path.write_text(text, "utf-8")
    return path


def test_without_a_command_there_is_help_and_no_error(cli: Cli) -> None:
    for argv in ([], ["host"]):
        ended = cli(*argv)
        assert ended.status == 2
        assert ended.stderr.startswith("Usage:")


def test_the_end_of_the_input_is_no_interrupt(cli: Cli) -> None:
    remember(cli)
    ended = cli("stop", "--json")
    assert (ended.status, ended.error["code"]) == (2, "usage")
    assert "--yes" in ended.error["hint"]


def test_an_empty_name_names_no_run(cli: Cli) -> None:
    """`launch stop "$RUN"` with RUN unset ended the only run, without a question."""
    remember(cli)
    assert cli("stop", "").status == 4


@pytest.mark.parametrize("sink", ["/dev/full", "closed pipe"])
@pytest.mark.parametrize("argv", [["ps"], ["ps", "--json"], ["logs", "x", "--json"]], ids=" ".join)
def test_output_that_nobody_takes_ends_without_a_traceback(cli: Cli, argv: list[str], sink: str) -> None:
    command = shlex.join([sys.executable, "-m", "launcher", *argv])
    script = f"{command} > /dev/full" if sink == "/dev/full" else f"(sleep 0.3; {command}; echo $? >&2) | true"
    done = subprocess.run(["sh", "-c", script], env=cli.env, cwd=cli.home, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    status = done.returncode if sink == "/dev/full" else int(done.stderr.split()[-1])
    assert status == (4 if "logs" in argv else 1)


def test_a_folder_that_cannot_be_made_is_an_error_in_words(cli: Cli) -> None:
    laptop_of(cli).finish()
    (cli.home / "file").write_text("mine")
    ended = cli("pull", "--to", "file/runs", "--json")
    assert (ended.status, ended.error["code"]) == (1, "error")
    assert "Traceback" not in ended.stderr


def test_a_host_that_cannot_be_saved_is_not_even_asked(cli: Cli) -> None:
    assert cli("host", "add", "a b", "root@127.0.0.1:1").status == 2
    write_hosts(cli, "not TOML")
    broken = cli("host", "add", "box", "root@127.0.0.1:1")
    assert "hosts.toml" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_a_broken_entry_can_be_removed_as_the_hint_says(cli: Cli) -> None:
    path = write_hosts(cli, '[bad]\nport = 1\n[good]\nlogin = "root@box"\n')
    hint = cli("host", "list", "--json").error["hint"]
    assert cli(*shlex.split(hint)[1:], "-y").status == 0
    assert "[good]" in path.read_text()
    assert [host["name"] for host in cli("host", "list", "--json").data["hosts"]] == ["good"]


def test_only_what_is_saved_is_asked_about_before_it_is_forgotten(cli: Cli) -> None:
    for name in ("local", "root@box"):
        assert cli("host", "remove", name).status == 4


def test_a_hosts_file_saved_by_notepad(cli: Cli) -> None:
    write_hosts(cli, '\ufeff[box]\nlogin = "root@box"\n')
    assert cli("host", "list", "--json").data["hosts"][0]["name"] == "box"


def test_known_hosts_are_found_from_every_folder(cli: Cli, embedded: object) -> None:
    line = embedded.login_line  # type: ignore[attr-defined]
    assert cli("host", "add", "box", line, "--known-hosts", "keys", "--accept-new").status == 0
    (cli.home / "elsewhere").mkdir()
    assert cli("ps", "--host", "box", "--json", cwd=cli.home / "elsewhere").data["runs"] == []


def test_how_a_run_ended_stays_known(cli: Cli) -> None:
    ledger = remember(cli)
    ledger.note_state(RUN_ID, "gone", "")
    ledger.note_state(RUN_ID, "running", "")  # its disk was away for a while
    assert ledger.find(RUN_ID).state == "running"
    ledger.note_state(RUN_ID, "succeeded", "")
    for late in ("running", "gone", "lost"):
        ledger.note_state(RUN_ID, late, "")
        assert ledger.find(RUN_ID).state == "succeeded"


def test_a_run_being_submitted_is_not_gone_for_ever(cli: Cli) -> None:
    ledger = remember(cli)
    assert cli("ps", "--json").data["runs"][0]["state"] == "gone"
    assert not ledger.find(RUN_ID).is_over


def test_a_ledger_of_a_newer_launch_is_read(cli: Cli) -> None:
    remember(cli, state="succeeded")
    with sqlite3.connect(cli.home / "launch" / "ledger.sqlite") as database:
        database.execute("ALTER TABLE runs ADD COLUMN priority INTEGER")
    database.close()
    assert cli("ps", "--json").data["runs"][0]["run_id"] == RUN_ID


@pytest.mark.parametrize("column", ["submission", "sources"])
@pytest.mark.parametrize("value", ["{", "1", "[" * 99_999])
def test_a_row_that_cannot_be_read_is_named(cli: Cli, column: str, value: str) -> None:
    ledger = remember(cli)
    with sqlite3.connect(cli.home / "launch" / "ledger.sqlite") as database:
        database.execute(f"UPDATE runs SET {column} = ?", (value,))
    database.close()
    with pytest.raises(Exception, match=RUN_ID) as caught:
        ledger.all()
    assert hasattr(caught.value, "hint"), caught.value


def test_a_ledger_without_a_column_is_an_error_in_words(cli: Cli) -> None:
    ledger = remember(cli)
    with sqlite3.connect(cli.home / "launch" / "ledger.sqlite") as database:
        database.execute("ALTER TABLE runs DROP COLUMN sources")
    database.close()
    with pytest.raises(LaunchError, match="ledger"):
        ledger.all()


def test_the_log_at_home_is_shown_when_the_host_is_forgotten_or_has_forgotten(cli: Cli) -> None:
    home = RunDirectory(cli.home / "runs" / RUN_ID)
    home.root.mkdir(parents=True)
    home.log.write_text("said\n")
    for host in ("demo", "local"):
        remember(cli, host).note_pulled(RUN_ID, home.root)
        assert cli("logs").stdout == "said\n", host
        (cli.home / "launch" / "ledger.sqlite").unlink()


def test_a_long_log_comes_home_with_all_its_files(cli: Cli) -> None:
    laptop = laptop_of(cli)
    laptop.finish()
    laptop.run.log.write_bytes(b"first\n" + b"x" * (1 << 20))
    (laptop.run.root / "log.0000000001048582.txt").write_bytes(b"\nlast\n")
    (laptop.run.root / "log.txt.0000000001048582").write_bytes(b"no part of it")
    assert cli("pull").status == 0
    home = RunDirectory(cli.home / "runs" / RUN_ID)
    assert [path.name for path in home.logs] == ["log.txt", "log.0000000001048582.txt"]
    assert [path.read_bytes() for path in home.logs] == [path.read_bytes() for path in laptop.run.logs]
    assert not list(home.root.glob("log.txt.*"))


def test_a_home_folder_in_a_spec_is_found(cli: Cli) -> None:
    spec = write_task(cli.home / "task")
    text = spec.read_text().replace("train.csv", "~/task/train.csv")
    assert "~/task" in text
    spec.write_text(text)
    assert cli("train", str(spec), "--host", "local", "--dry-run", "--json").data["rows"]["train"] == 200
    spec.write_text(text.replace("~/task", "~nobody-of-that-name/task"))
    refused = cli("train", str(spec), "--host", "local", "--dry-run", "--json")
    assert "nobody-of-that-name" in refused.error["message"]


def laptop_of(cli: Cli) -> Laptop:
    """A finished run in the workspace that `--host local` works in."""
    folder = cli.home / "launch"
    laptop = Laptop(folder)
    laptop.run = RunDirectory(folder / "cache" / "launch" / "runs" / RUN_ID)
    (folder / "ledger.sqlite").unlink()
    remember(cli)
    return laptop


def test_a_reason_from_a_host_cannot_move_the_cursor(cli: Cli) -> None:
    laptop = laptop_of(cli)
    laptop.finish("failed")
    result = json.loads(laptop.run.result.read_text())
    laptop.run.result.write_text(json.dumps(result | {"reason": "[red]\x1b[2Jgone\x07"}))
    pulled = cli("pull")
    assert "(failed: [red]gone)" in pulled.stdout
    assert "\x1b" not in pulled.stdout
    assert cli("pull", "--json").data["reason"] == "[red]gone"


def test_a_folder_of_the_runs_name_that_is_a_file(cli: Cli) -> None:
    laptop_of(cli).finish()
    (cli.home / "runs").mkdir()
    (cli.home / "runs" / RUN_ID).write_text("mine")
    refused = cli("pull", "--json")
    assert refused.status == 1
    assert "Traceback" not in refused.stderr
    assert (cli.home / "runs" / RUN_ID).read_text() == "mine"
    assert [path.name for path in (cli.home / "runs").iterdir()] == [RUN_ID]


def test_pulls_at_the_same_time_both_end_well(cli: Cli) -> None:
    laptop_of(cli).finish()
    pulls = [cli.start("pull", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(3)]
    said = [pull.communicate()[0] for pull in pulls]
    assert [pull.returncode for pull in pulls] == [0, 0, 0], said
    assert [path.name for path in (cli.home / "runs").iterdir()] == [RUN_ID]


def test_a_manifest_that_is_not_utf_8(cli: Cli) -> None:
    laptop = laptop_of(cli)
    laptop.finish()
    laptop.run.manifest.write_bytes(b"\xff\xfe")
    result = json.loads(laptop.run.result.read_text())
    result["manifest_sha256"] = hashlib.sha256(b"\xff\xfe").hexdigest()
    laptop.run.result.write_text(json.dumps(result))
    assert cli("pull", "--json").error["code"] == "run_broken"


def test_find_refuses_an_empty_name(cli: Cli) -> None:
    with pytest.raises(NoSuchRun):
        remember(cli).find("")


def test_a_pipe_gets_a_whole_line_a_run(cli: Cli) -> None:
    """A long host name pushed the state off the eightieth column."""
    host = "root@" + "h" * 60 + ".example.com:39111"
    remember(cli, host, state="failed", reason="[red]\x1b[2Jout of memory")
    [line] = [line for line in cli("ps").stdout.splitlines() if RUN_ID in line]
    assert host in line
    assert "failed: [red]out of memory" in line


def test_a_boolean_of_the_spec_can_be_given_as_a_flag(cli: Cli) -> None:
    spec = write_task(cli.home / "task")
    argv = ("train", str(spec), "--host", "local", "--dry-run", "--json", "--use-rslora")
    assert cli(*argv, "false").data["spec"]["use_rslora"] is False
    assert cli(*argv, "perhaps").status == 2


ON_A_TERMINAL = """
import click
from launcher import cli
from launcher.output import Output
from launcher.progress import LogPiece, RunNews

@click.command()
def broken():
    output = Output()
    output.observe(RunNews("step", {"step": "[red]\x1b[2J", "steps": 9, "loss": 10**400}))
    output.observe(LogPiece("half a line"))
    raise OSError("the disk is full")

raise SystemExit(cli._run(broken, []))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_an_error_takes_the_live_view_away_and_leaves_the_cursor(cli: Cli) -> None:
    ours, theirs = os.openpty()
    argv = [sys.executable, "-c", ON_A_TERMINAL]
    env = cli.env | {"TERM": "xterm", "PYTHONPATH": str(REPOSITORY)}
    status = subprocess.run(argv, env=env, stdout=theirs, stderr=theirs, check=False).returncode
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert status == 1
    assert "\x1b[?25l" not in said  # the cursor was never taken
    assert said.rindex("\x1b[J") < said.rindex("half a line\r\n") < said.index("the disk is full")
    assert "[red]" not in said  # no number
    assert "loss" not in said


def test_what_failed_does_not_drown_in_what_could_not_be_checked(cli: Cli) -> None:
    laptop_of(cli).finish()
    assert cli("pull").status == 0
    (cli.home / "runs" / RUN_ID / "artifacts" / "adapter" / "adapter_model.safetensors").unlink()
    refused = cli("verify", "--static", "--json")
    assert (refused.status, refused.error["code"]) == (7, "verification_failed")
    assert refused.error["message"].count("\n") <= 3
    assert "more could not be checked" in refused.error["message"]
