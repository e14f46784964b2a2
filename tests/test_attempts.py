"""Attempts of one submission: resumed on the same host and on another, tried again, taken over, removed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jobs.run_directory import RunDirectory
from remote.embedded import EmbeddedHost
from tests.conftest import Cli
from tests.connected import eventually
from tests.servers import OpenSshServer
from tests.toy import write_task

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

TASK = {"train": 80, "held_out": 24, "num_train_epochs": 8, "train_batch_size": 8, "save_steps": 5, "max_length": 32,
        "head_start": "random", "baselines": "[majority]"}  # fmt: skip


def save(cli: Cli, name: str, server: OpenSshServer | EmbeddedHost, workspace: Path) -> None:
    met = cli("host", "add", name, server.login_line, "--workspace", str(workspace),
              "--known-hosts", str(cli.home / "known_hosts"), "--accept-new", "--json")  # fmt: skip
    assert met.status == 0, met


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(RunDirectory(folder).adapter / "adapter_model.safetensors")


def stopped_in_the_middle(cli: Cli, spec: Path, workspace: Path) -> str:
    """The id of a run that was stopped once it had a checkpoint."""
    started = cli("train", str(spec), "--host", "box", "-d", "--json")
    assert started.status == 0, started
    run_id: str = started.data["run_id"]
    folder = workspace / "launch" / "runs" / run_id
    eventually(lambda: list((folder / "checkpoints").glob("step-*")) or (folder / "result.json").exists(), 60)
    stopped = cli("stop", run_id, "--json")
    assert stopped.status == 0, stopped
    assert (stopped.data["state"], stopped.data["left"]) == ("stopped", [])
    assert stopped.data["checkpoint"]["step"] >= 5
    return run_id


@pytest.mark.slow
@pytest.mark.ssh
def test_resumed_on_its_host_and_on_another_it_ends_the_same(
    cli: Cli, sshd: OpenSshServer, embedded: EmbeddedHost, tmp_path: Path
) -> None:
    spec = write_task(cli.home / "task", **TASK)  # type: ignore[arg-type]
    save(cli, "box", sshd, tmp_path / "there")
    save(cli, "other", embedded, tmp_path / "elsewhere")
    first = stopped_in_the_middle(cli, spec, tmp_path / "there")
    for name in ("train.csv", "test.csv"):  # the host's store has what was sent
        (cli.home / "task" / name).unlink()
    shutil.rmtree(cli.home / "launch" / "cache" / "data")
    # From its checkpoint on a machine that lacks the data, which are nowhere as they were.
    gone = cli("resume", first, "--host", "other", "-d", "--json")
    assert (gone.status, gone.error["code"]) == (1, "submission_changed"), gone
    assert "data, train" in gone.error["message"] and "train.csv is gone" in gone.error["message"]

    resumed = cli("resume", first, "--json")
    assert resumed.status == 0, resumed
    assert f"{first} goes on from step " in resumed.stderr and "box:/" in resumed.stderr
    second = resumed.data["run_id"]
    [new, old] = [row for row in cli("ps", "-a", "--json").data["runs"] if row["run_id"] in (first, second)]
    assert (new["run_id"], new["attempt"], old["superseded_by"]) == (second, 2, second)
    plan = json.loads((tmp_path / "there" / "launch" / "runs" / second / "plan.json").read_text())
    assert (plan["attempt"], plan["resumes"]) == (2, first)
    refused = cli("pull", first, "--json")
    assert (refused.status, refused.error["code"]) == (1, "run_superseded")
    assert f"launch pull {second}" in refused.error["hint"]
    [pulled] = cli("pull", "--all", "--json").data["runs"]
    verified = cli("verify", second, "--json")
    assert (verified.status, verified.data["level"]) == (0, "reproduced here"), verified
    training = json.loads(RunDirectory(Path(pulled["folder"])).training.read_text())
    assert training["resumed_from"] and training["steps"] == training["steps_planned"]
    assert "succeeded" in cli("resume", second, "--json").error["message"]
    assert "taken over" in cli("resume", first, "--json").error["message"]

    # On another machine, through this one; the data are made again from what the person has.
    write_task(cli.home / "task", **TASK)  # type: ignore[arg-type]
    moved = cli("resume", first, "--force", "--host", "other", "--json")
    assert moved.status == 0, moved
    third = cli("pull", moved.data["run_id"], "--json")
    assert third.status == 0, third
    here, elsewhere = weights(Path(pulled["folder"])), weights(Path(third.data["folder"]))
    assert here.keys() == elsewhere.keys()
    assert all(np.array_equal(here[name], elsewhere[name]) for name in here)
