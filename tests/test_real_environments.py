"""Environments with the real libraries, from the package index that pip is set up for, as on a rented machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import recipe as recipes
from remote.onhost import environment
from tests.images import image_with_torch
from tests.servers import OpenSshServer
from tests.test_end_to_end import save_host
from tests.toy import write_task

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs POSIX")]

BARE = os.path.dirname(os.path.realpath(sys.executable))


@pytest.fixture
def image(tmp_path: Path):
    """A server whose only Python >= 3.11 has torch, and nothing else of what a run needs."""
    with OpenSshServer(tmp_path / "sshd", path_prefix=[str(image_with_torch(tmp_path / "image"))]) as server:
        yield server


@pytest.mark.ssh
@pytest.mark.timeout(600)
def test_the_laptop_dies_while_the_environment_is_built_and_the_run_succeeds(cli, image, tmp_path: Path) -> None:
    save_host(cli, image, tmp_path / "workspace")
    spec = write_task(cli.home / "task", train=120, held_out=40)
    with cli.start("train", str(spec), "--host", "box", stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as watching:
        assert any("environment: building" in line for line in watching.stdout)
        watching.send_signal(signal.SIGKILL)
    waited = cli("wait", "--json")
    assert (waited.status, waited.data["state"]) == (0, "succeeded"), waited
    [root] = (tmp_path / "workspace/launch/runs").iterdir()
    prepared = json.loads((root / "environment.json").read_text())
    assert prepared["how"] == "reused"
    log = (root / "log.txt").read_text()
    site = next((tmp_path / "image").glob("lib/*/site-packages"))
    assert f"from {site}/torch\n" in log
    for name in ("transformers", "peft", "sklearn", "numpy"):
        assert (
            f"from {os.path.dirname(os.path.dirname(prepared['python']))}/lib/python3.11/site-packages/{name}\n" in log
        )
    # The next one has it at once.
    again = cli("env", "prepare", "box", "--json")
    assert again.data["environment"]["key"] == prepared["key"]
    assert len(list((tmp_path / "workspace/launch/runs").iterdir())) == 1


@pytest.mark.ssh
@pytest.mark.timeout(600)
def test_wheels_of_the_laptop_make_an_environment_without_an_index(cli, image, tmp_path: Path) -> None:
    settings = image.home / ".config" / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True)
    settings.write_text("[global]\nindex-url = http://127.0.0.1:9/simple\nextra-index-url =\nretries = 0\n")
    save_host(cli, image, tmp_path / "workspace")
    refused = cli("env", "prepare", "box")
    assert refused.status == 6, refused
    assert "box is not ready" in refused.stderr
    assert "pip install" in refused.stdout + refused.stderr  # what failed there
    made = cli("env", "prepare", "box", "--offline-wheels", "--json")
    assert made.status == 0, made
    assert made.data["environment"]["how"] == "reused"
    assert "wheels for Python 3.11" in made.stderr
    # Ready is ready: nothing is fetched for it again.
    again = cli("env", "prepare", "box", "--offline-wheels", "--json")
    assert again.data == made.data
    assert "wheels" not in again.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_full_environment(installer: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", f"{BARE}:/usr/bin:/bin")
    recipe = recipes.recipe() | ({} if installer == "uv" else {"uv": "uv==0.0.0"})
    said: list[str] = []
    prepared = environment.prepare(str(tmp_path), recipe, "boot", said.append)
    assert (prepared.how, prepared.proven_on) == ("built", "cpu"), said
    assert any(line.startswith("Successfully installed") for line in said) is (installer == "pip"), said
    pinned = dict(line.split("==") for line in recipe["constraints"])
    site = next(Path(prepared.python).parent.parent.glob("lib/*/site-packages"))
    installed = {
        name.replace("_", "-").lower(): version
        for path in site.glob("*.dist-info")
        for name, version in [path.name.removesuffix(".dist-info").split("-", 1)]
    }
    for name in ("transformers", "peft", "numpy", "scipy", "accelerate", "sympy"):
        assert installed[name] == pinned[name]
    assert installed["torch"].split("+")[0] == "2.13.0"
