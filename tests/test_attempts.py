"""Attempts of one submission: resumed on the same host and on another, tried again, taken over, removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from jobs.run_directory import RunDirectory
from remote.embedded import EmbeddedHost
from tests.conftest import Cli
from tests.connected import eventually
from tests.servers import OpenSshServer
from tests.toy import write_task

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

TASK = {"train": 80, "held_out": 24, "num_train_epochs": 10, "train_batch_size": 8, "save_steps": 5, "max_length": 32,
        "head_start": "random", "baselines": "[majority]"}  # fmt: skip


def save(cli: Cli, name: str, server: OpenSshServer | EmbeddedHost, workspace: Path) -> None:
    met = cli("host", "add", name, server.login_line, "--workspace", str(workspace),
              "--known-hosts", str(cli.home / "known_hosts"), "--accept-new", "--json")  # fmt: skip
    assert met.status == 0, met


def stop_with_another_checkpoint(cli: Cli, folder: Path, before: set[str]) -> None:
    """Stop the run once it has a checkpoint that is none of those `before`."""
    eventually(
        lambda: (
            {path.name for path in (folder / "checkpoints").glob("step-*")} - before
            or (folder / "result.json").exists()
        ),
        90,
    )
    stopped = cli("stop", folder.name, "--json")
    assert stopped.status == 0, stopped
    assert (stopped.data["state"], stopped.data["left"]) == ("stopped", [])
    assert stopped.data["checkpoint"]["step"] >= 5


@pytest.mark.slow
@pytest.mark.ssh
def test_resumed_on_its_host_and_then_on_another_it_ends_as_a_whole_run(
    cli: Cli, sshd: OpenSshServer, embedded: EmbeddedHost, tmp_path: Path
) -> None:
    spec = write_task(cli.home / "task", **TASK)  # type: ignore[arg-type]
    save(cli, "box", sshd, tmp_path / "there")
    save(cli, "other", embedded, tmp_path / "elsewhere")
    started = cli("train", str(spec), "--host", "box", "-d", "--json")
    assert started.status == 0, started
    first = started.data["run_id"]
    stop_with_another_checkpoint(cli, tmp_path / "there" / "launch" / "runs" / first, set())
    for name in ("train.csv", "test.csv"):  # the host's store has what was sent
        (cli.home / "task" / name).unlink()
    shutil.rmtree(cli.home / "launch" / "cache" / "data")
    # Not on a machine that lacks the data, which are nowhere as they were.
    gone = cli("resume", first, "--host", "other", "-d", "--json")
    assert (gone.status, gone.error["code"]) == (1, "submission_changed"), gone
    assert "data, train" in gone.error["message"] and "train.csv is gone" in gone.error["message"]

    resumed = cli("resume", first, "-d", "--json")
    assert resumed.status == 0, resumed
    assert f"{first} goes on from step " in resumed.stderr and "box:/" in resumed.stderr
    second = resumed.data["run_id"]
    folder = tmp_path / "there" / "launch" / "runs" / second
    before = {path.name for path in (folder / "checkpoints").glob("step-*")}
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["attempt"], plan["resumes"]) == (2, first)
    stop_with_another_checkpoint(cli, folder, before)
    assert "taken over" in cli("resume", first, "--json").error["message"]
    refused = cli("pull", first, "--json")
    assert (refused.status, refused.error["code"]) == (1, "run_superseded")
    assert f"launch pull {second}" in refused.error["hint"]

    # On another machine, through this one; the data are made again from what the person has.
    write_task(cli.home / "task", **TASK)  # type: ignore[arg-type]
    moved = cli("resume", second, "--host", "other", "--json")
    assert moved.status == 0, moved
    third = moved.data["run_id"]
    rows = {row["run_id"]: row for row in cli("ps", "-a", "--json").data["runs"]}
    assert [rows[run_id]["attempt"] for run_id in (first, second, third)] == [1, 2, 3]
    assert [rows[run_id]["superseded_by"] for run_id in (first, second, third)] == [second, third, ""]
    [pulled] = cli("pull", "--all", "--json").data["runs"]
    verified = cli("verify", third, "--json")
    assert (verified.status, verified.data["level"]) == (0, "reproduced here"), verified
    training = json.loads(RunDirectory(Path(pulled["folder"])).training.read_text())
    assert len(training["resumed_from"]) == 2
    assert training["steps"] == training["steps_planned"]
    assert "succeeded" in cli("resume", third, "--json").error["message"]
