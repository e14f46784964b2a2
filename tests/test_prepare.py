"""A host made ready before it costs: `launch prepare` and `launch env`, through a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from remote.embedded import EmbeddedHost
from tests import hub_server
from tests.connected import PYTHON_FOLDER, eventually
from tests.test_end_to_end import save_host
from tests.toy import BASE, write_task

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


@pytest.mark.ssh
def test_a_host_is_ready_and_the_run_finds_it_so(cli, sshd, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    save_host(cli, sshd, workspace)
    assert "no environments on box" in cli("env", "list", "box").stdout
    # The laptop dies while it watches; the preparation must not notice.
    with cli.start("env", "prepare", "box", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as watching:
        assert any("prepares box" in line for line in watching.stderr)
        watching.send_signal(signal.SIGKILL)
    [result] = eventually(lambda: list(workspace.glob("launch/runs/prepare-*/result.json")), within_s=120)
    assert json.loads(result.read_text())["state"] == "succeeded"
    ready = cli("env", "prepare", "box", "--json")
    assert ready.status == 0, ready
    environment = ready.data["environment"]
    assert (environment["how"], environment["proven_on"]) == ("image", "cpu")
    assert len(list(workspace.glob("launch/runs/*"))) == 1  # nothing was left to be done

    spec = write_task(cli.home / "task")
    prepared = cli("prepare", str(spec), "--host", "box")
    assert prepared.status == 0, prepared
    assert "box is ready: a Python that was there" in prepared.stdout
    assert "environment: ready:" in prepared.stdout  # the log of the preparation
    # What was sent is there: the run pushes nothing, and is not taken for one that could be pulled.
    trained = cli("train", str(spec), "--host", "box", "-d")
    assert "sent 0 files" in trained.stdout + trained.stderr, trained
    assert [row["name"] for row in cli("ps", "--json").data["runs"]] == ["toy"]
    cli("stop", "toy")
    # A preparation made nothing that anybody could miss; a run that nobody pulled stays.
    cleaned = cli("clean", "box", "--dry-run", "--json").data
    going = [item["path"] for item in cleaned["items"] if item["kind"] == "run"]
    assert len(going) == 2
    assert all(path.startswith("runs/prepare-") for path in going)


@pytest.mark.ssh
def test_environments_are_listed_and_removed(cli, sshd, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    save_host(cli, sshd, workspace)
    envs = workspace / "launch" / "envs"
    for key, marker in (
        ("0123456789abcdef", '{"how": "built", "base": "/usr/bin/python3", "built_at": 1}'),
        ("f" * 16, ""),
    ):
        (envs / key / "bin").mkdir(parents=True)
        (envs / key / "bin" / "python").write_bytes(bytes(5_000_000))
        if marker:
            (envs / key / "ready.json").write_text(marker)
    found = {one["key"]: one for one in cli("env", "list", "box", "--json").data}
    assert {key: one["state"] for key, one in found.items()} == {"0123456789abcdef": "ready", "f" * 16: "unfinished"}
    assert found["f" * 16]["size_bytes"] >= 5_000_000
    table = cli("env", "list", "box").stdout
    assert "0123456789abcdef" in table
    assert "nobody" in table
    assert max(map(len, table.splitlines())) < 200
    refused = cli("env", "remove", "box", "0123456789abcdef", "nothing", "-y", "--json")
    assert (refused.status, refused.error["code"]) == (1, "environment_not_found")
    assert len(list(envs.glob("*/bin"))) == 2  # all or none
    removed = cli("env", "remove", "box", "0123456789abcdef", "-y", "--json")
    assert removed.status == 0, removed
    assert removed.data["freed_bytes"] >= 5_000_000
    assert [one["key"] for one in removed.data["left"]] == ["f" * 16]


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_there_once_and_its_commit_goes_with_the_adapter(cli, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    with (
        hub_server.serve({"org/tiny": BASE}) as hub,
        EmbeddedHost(tmp_path / "box", path_prefix=[PYTHON_FOLDER], env={**env, "HF_ENDPOINT": hub.endpoint}) as server,
    ):
        save_host(cli, server, tmp_path / "workspace")
        spec = write_task(cli.home / "task", model_name_or_path="org/tiny", train=60, held_out=20)
        prepared = cli("prepare", str(spec), "--host", "box", "--json")
        assert prepared.status == 0, prepared
        weights = [request for request in hub.requests if request.startswith("GET") and "safetensors" in request]
        assert len(weights) == 1
        trained = cli("train", str(spec), "--host", "box")
        assert trained.status == 0, trained
        assert [one for one in hub.requests if one.startswith("GET") and "safetensors" in one] == weights
        assert cli("pull", "toy", "--json").status == 0
    [folder] = (cli.home / "runs").iterdir()
    adapter = json.loads((folder / "artifacts/adapter/adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/tiny", hub_server.COMMIT)

    # The laptop's cache is as good: the host needs no hub then, and the same files prove it at home.
    cli.env.update(HF_HOME=str(tmp_path / "hub"), HF_ENDPOINT="http://127.0.0.1:9")
    verified = cli("verify", "toy", "--json")
    assert (verified.status, verified.data["level"]) == (0, "reproduced here"), verified
    pushed = cli("train", str(spec), "--host", "local", "--push-model", "--dry-run", "--json")
    assert pushed.data["base"] == "pushed from this machine"
    cli.env["HF_HOME"] = str(tmp_path / "empty")
    missing = cli("train", str(spec), "--host", "local", "--push-model", "--dry-run", "--json")
    assert missing.status == 1
    assert "org/tiny (main) is not whole in this machine's cache" in missing.error["message"]
    assert "hf download org/tiny" in missing.error["hint"]
