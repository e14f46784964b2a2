"""Where the base comes from, with a real download from a small Hub on localhost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serve

from jobs import base_model
from jobs.errors import DataError

# huggingface_hub reads HF_ENDPOINT when it is imported, so every download is a process of its own.
PROGRAM = """
import json, sys
from jobs import base_model
from jobs.errors import JobError
try:
    outcome = {"folder": str(base_model.locate(sys.argv[1], sys.argv[2], pushed=None))}
except JobError as error:
    outcome = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
print(json.dumps(outcome))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What a repository holds: what is wanted, and what must not be fetched."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "merges.txt", "model.safetensors"):
        (folder / name).write_text(f"{{}} {name}")
    for name in ("pytorch_model.bin", "modeling_evil.py", "README.md", "consolidated.safetensors", "training_args.pt"):
        (folder / name).write_text("not wanted")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with serve({"org/model": model, "org/gated": model}) as running:
        yield running


def locate(name: str, revision: str, endpoint: str, cache: Path, **environment: str) -> Any:
    strange = ("HF_", "HUGGING")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith(strange) and not key.upper().endswith("_PROXY")
    }
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, name, revision],
        env=kept | ours | {"PYTHONPATH": str(Path(base_model.__file__).parents[1])} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_download_fetches_weights_config_and_tokenizer_only(hub: Hub, model: Path, tmp_path: Path) -> None:
    wanted = {"config.json", "tokenizer.json", "merges.txt", "model.safetensors"}
    found = Path(locate("org/model", "main", hub.endpoint, tmp_path / "cache")["folder"])
    assert {file.name for file in found.iterdir()} == hub.downloaded() == wanted
    assert all((found / name).read_bytes() == (model / name).read_bytes() for name in wanted)

    # With the Hub gone, what is in the cache is enough.
    again = locate("org/model", "main", "http://127.0.0.1:9", tmp_path / "cache")
    assert again == {"folder": str(found)}


@pytest.mark.parametrize(
    ("name", "revision", "error", "says", "hint"),
    [
        ("org/absent", "main", "DataError", "no such model", "model_name_or_path: FOLDER"),
        ("org/gated", "main", "DataError", "gated; its owner has to grant access", "accept the terms"),
        ("org/model", "v9", "DataError", "no revision 'v9'", "model_revision: main"),
        ("../no/such/folder", "main", "DataError", "neither a folder here nor a Hub id", ""),
    ],
)
def test_says_why_there_is_no_model(
    hub: Hub, tmp_path: Path, name: str, revision: str, error: str, says: str, hint: str
) -> None:
    outcome = locate(name, revision, hub.endpoint, tmp_path / "cache")
    assert outcome["error"] == error
    assert outcome["message"].startswith(name)
    assert says in outcome["message"]
    assert hint in outcome["hint"]


def test_an_unreachable_hub_is_no_fault_of_the_model(tmp_path: Path) -> None:
    outcome = locate("org/model", "main", "http://127.0.0.1:9", tmp_path / "cache")
    assert outcome["error"] == "JobError"
    assert "http://127.0.0.1:9 can't be reached" in outcome["message"]
    assert "HF_ENDPOINT" in outcome["hint"]


def test_a_pushed_folder_wins_over_one_of_that_name(model: Path, tmp_path: Path) -> None:
    assert base_model.locate("org/model", "main", pushed=model) == model
    assert base_model.locate(str(model), "main", pushed=None) == model


@pytest.mark.parametrize(("absent", "says"), [("config.json", "not a model"), ("model.safetensors", "pickled weights")])
def test_a_folder_that_cannot_be_loaded_safely_is_refused(model: Path, absent: str, says: str) -> None:
    (model / absent).unlink()
    if absent == "model.safetensors":
        (model / "consolidated.safetensors").unlink()
    with pytest.raises(DataError, match=says):
        base_model.locate(str(model), "main", pushed=None)


def test_weight_files_tell_one_base_from_another(model: Path) -> None:
    before = base_model.weight_files(model)
    (model / "model.safetensors").write_text("another")
    after = base_model.weight_files(model)
    assert before.keys() == after.keys() == {"consolidated.safetensors", "model.safetensors"}
    assert [name for name in after if after[name] != before[name]] == ["model.safetensors"]
