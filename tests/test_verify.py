"""`launch verify`: bases that are not here, and folders that no run of ours made, healthy, several, odd and hostile."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import Recipe, base_of, make
from hub_server import COMMIT, Hub, serve
from peft import IA3Config, get_peft_model
from tiny import make_run
from transformers import AutoModelForSequenceClassification

from jobs import adapter, atomic, manifest, training
from jobs.__main__ import main as jobs_main
from tests.conftest import REPOSITORY, Cli

RECIPE = Recipe("qwen2", {"r": 4, "target_modules": "all-linear", "use_dora": True}, "CAUSAL_LM")
BOMB = struct.pack("<Q", 2**40) + b"{"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_of("qwen2", tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(RECIPE, base, tmp_path_factory.mktemp("made") / "adapter")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "adapter"))


@pytest.fixture
def hub(cli: Cli, base: Path, tmp_path: Path) -> Iterator[Hub]:
    """A Hub that this laptop would ask, and that counts whoever does."""
    with serve({"org/tiny": base, "evil/base": base}) as hub:
        cli.env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
        yield hub


def change(folder: Path, **keys: Any) -> None:
    path = folder / adapter.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def statuses(data: dict[str, Any]) -> dict[str, str]:
    return {check["id"]: check["status"] for check in data["checks"]}


def failure(stdout: str) -> tuple[dict[str, str], dict[str, str]]:
    """Status by check, and the error."""
    document = json.loads(stdout)
    assert document["ok"] is False and document["data"]["ok"] is False
    return statuses(document["data"]), document["error"]


def test_an_adapter_of_a_language_model_made_elsewhere(cli: Cli, folder: Path, base: Path) -> None:
    alone = cli("verify", str(folder), "--json")
    assert alone.status == 0, alone
    assert (alone.data["ok"], alone.data["level"]) == (True, "static")
    unknown = {name for name, status in statuses(alone.data).items() if status != "pass"}
    assert unknown == {"modules", "shapes", "head", "classes", "update_size", "moved", "saved", "base", "reproduction"}
    held = cli("verify", str(folder), "--base", str(base), "--json")
    assert unknown - {name for name, status in statuses(held.data).items() if status != "pass"} == {
        "modules",
        "shapes",
        "update_size",
    }
    shown = cli("verify", str(folder), "--base", str(base))
    assert shown.status == 0 and "(static; 18 passed, 6 not checked)" in shown.stdout


def test_several_in_one_folder_are_all_looked_at(cli: Cli, folder: Path, base: Path) -> None:
    shutil.copytree(folder, folder / "second")
    shutil.copytree(folder, folder / "checkpoint-20")
    well = cli("verify", str(folder), "--base", str(base), "--json")
    assert {check["adapter"] for check in well.data["checks"]} == {"adapter", "second", "checkpoint-20"}
    (folder / "second" / adapter.WEIGHTS).write_bytes(BOMB)
    ill = cli("verify", str(folder), "--base", str(base), "--json")
    assert ill.status == 7
    document = json.loads(ill.stdout)
    bad = {(check["adapter"], check["id"]) for check in document["data"]["checks"] if check["status"] == "fail"}
    assert bad == {("second", "header")}
    assert "second: header: the header claims 1,099,511,627,776 bytes" in document["error"]["message"]


def test_none_of_several_is_left_out(cli: Cli, folder: Path) -> None:
    shutil.copytree(folder, folder / "second")
    (folder / "second" / adapter.CONFIG).unlink()
    ill = cli("verify", str(folder), "--json")
    assert ill.status == 7 and "second: files: no adapter_config.json" in json.loads(ill.stdout)["error"]["message"]
    for number in range(100):
        (folder / f"checkpoint-{number}").mkdir()
        (folder / f"checkpoint-{number}" / adapter.CONFIG).touch()
    many = cli("verify", str(folder), "--json")
    assert many.status == 1 and "102 adapters in one folder" in many.error["message"]


def test_other_kinds_are_named_and_never_passed(cli: Cli, base: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(), adapter.quiet_libraries():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=2)
        get_peft_model(model, IA3Config(task_type="SEQ_CLS")).save_pretrained(str(tmp_path / "ia3"))
    ended = cli("verify", str(tmp_path / "ia3"), "--base", str(base), "--json")
    assert ended.status == 7
    found, error = failure(ended.stdout)
    assert (found["config"], found["finite"], found["pairs"]) == ("not_checked", "pass", "not_checked")
    assert "fail" not in found.values()
    assert "peft_type IA3: only LORA is looked into" in error["message"]


def test_what_is_neither_run_nor_adapter(cli: Cli, base: Path) -> None:
    ended = cli("verify", str(base), "--json")
    assert (ended.status, ended.error["code"]) == (4, "run_not_found")
    assert "neither a run (result.json) nor an adapter" in ended.error["message"]


def test_the_shapes_of_a_base_of_the_hub_take_some_kilobytes(cli: Cli, hub: Hub, folder: Path) -> None:
    change(folder, base_model_name_or_path="org/tiny")
    unasked = cli("verify", str(folder), "--json")
    assert unasked.status == 0 and "--fetch-base asks the Hub for org/tiny" in unasked.stderr
    assert hub.requests == []
    asked = cli("verify", str(folder), "--fetch-base", "--json")
    assert asked.status == 0, asked
    found = statuses(asked.data)
    assert (found["modules"], found["shapes"], found["update_size"]) == ("pass", "pass", "not_checked")
    assert set(hub.sent_bytes()) == {"model.safetensors"} and hub.sent_bytes()["model.safetensors"] <= 100_000
    change(folder, base_model_name_or_path="org/none")
    nobody = cli("verify", str(folder), "--fetch-base", "--json")
    assert nobody.status == 1 and "org/none: no such model" in nobody.error["message"]
    change(folder, base_model_name_or_path="/root/models/mine")
    local = cli("verify", str(folder), "--fetch-base", "--json")
    assert local.status == 0 and "names none of the Hub" in local.stderr


@pytest.mark.slow
def test_the_base_of_a_run_is_fetched_where_it_is_not_here(cli: Cli, hub: Hub, base: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", base, rows=64, model_name_or_path="org/tiny")
    weights = base / "model.safetensors"
    files = {weights.name: {"size_bytes": weights.stat().st_size, "sha256": manifest.sha256_of(weights)}}
    atomic.write_json(run.base, {"folder": str(base), "revision": COMMIT, "files": files})
    training.train(run.root)
    assert jobs_main(["finish", str(run.root)]) == 0
    unasked = cli("verify", str(run.root), "--json")
    assert (unasked.data["level"], hub.requests) == ("reproduced on host", [])

    looked = cli("verify", str(run.root), "--static", "--fetch-base", "--json")
    assert looked.status == 0, looked
    found = statuses(looked.data)
    assert (looked.data["level"], found["shapes"], found["base"]) == ("static", "pass", "pass")
    assert hub.sent_bytes()[weights.name] <= 100_000
    fetched = cli("verify", str(run.root), "--fetch-base", "--json")
    assert fetched.status == 0, fetched
    assert fetched.data["level"] == "reproduced here"
    assert f"{weights.name}: whole and as listed" in fetched.stderr
    hub.forget()
    assert cli("verify", str(run.root), "--static", "--json").data["checks"] and hub.requests == []


class Canary:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_folder_runs_nothing_fetches_nothing_and_gets_a_verdict(
    cli: Cli, hub: Hub, folder: Path, base: Path, tmp_path: Path
) -> None:
    trap, secret = tmp_path / "trapped", tmp_path / "secret"
    secret.write_text("password")
    for name in ("adapter_model.bin", "optimizer.pt", "training_args.bin", "scheduler.pkl"):
        torch.save(Canary(trap), folder / name)
    code = f"import os; os.mkdir({str(trap)!r})"
    for name in ("modeling_evil.py", "sitecustomize.py", "torch.py", "numpy.py", "jobs.py"):
        (folder / name).write_text(code)
    change(
        folder, base_model_name_or_path="evil/base", revision="../../etc", auto_map={"AutoModel": "modeling_evil.Evil"},
        auto_mapping={"parent_library": "modeling_evil", "base_model_class": "Evil"}, megatron_core="modeling_evil",
        loftq_config={"x": 1}, runtime_config={"__import__": "os"},
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["modeling_evil.T", None]}})
    )
    (folder / "loop").symlink_to(folder)
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to(secret)
    for argv in ([], ["--base", str(base)]):
        # As the installed command is started: what lies in the current folder is not imported.
        command = [sys.executable, "-P", "-m", "launcher", "verify", ".", *argv, "--json"]
        env = cli.env | {"PYTHONPATH": str(REPOSITORY)}
        ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
        assert json.loads(ended.stdout)["data"]["ok"] is True
        assert not trap.exists() and hub.requests == []
        assert "password" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("name", "check"),
    [("bomb", "header"), ("pickle", "files"), ("pipe", "files"), ("device", "files"), ("sparse", "header"),
     ("dangling", "files"), ("file of somebody", "header"), ("escapes", "config"), ("key escapes", "keys"),
     ("huge number", "config"), ("pattern", "modules"), ("many patterns", "config")],
)  # fmt: skip
def test_every_trick_with_files_and_names_ends_in_a_verdict(
    cli: Cli, folder: Path, base: Path, tmp_path: Path, name: str, check: str
) -> None:
    weights, config = folder / adapter.WEIGHTS, folder / adapter.CONFIG
    secret = tmp_path / "secret"
    secret.write_text("password of somebody " * 99)
    match name:
        case "bomb":
            weights.write_bytes(BOMB)
        case "pickle":
            weights.unlink()
            torch.save(Canary(tmp_path / "trapped"), folder / "adapter_model.bin")
        case "pipe":
            weights.unlink()
            os.mkfifo(weights)
        case "device":
            weights.unlink()
            weights.symlink_to("/dev/zero")
        case "sparse":
            os.truncate(weights, 2**40)
        case "dangling":
            weights.unlink()
            weights.symlink_to(weights.name)
        case "file of somebody":
            weights.unlink()
            weights.symlink_to(secret)
        case "escapes":
            change(folder, task_type="\x1b[2J\x1b]0;owned\x07[red]")
        case "key escapes":
            content = weights.read_bytes()
            length = struct.unpack("<Q", content[:8])[0]
            header = content[8 : 8 + length].replace(b"base_model.model.", b"base_\\u001b[2Jm.model.", 1)
            weights.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + length :])
        case "huge number":
            config.write_text(config.read_text().replace('"r": 4', '"r": ' + "9" * 5000))
        case "pattern":
            change(folder, target_modules=r"(\w|\w\w|.)*(.*)*!")
        case "many patterns":
            change(folder, rank_pattern={f"(.*.*.*)*x{number}": 4 for number in range(20_000)})
    started = time.monotonic()
    ended = cli("verify", str(folder), "--base", str(base), "--json")
    assert time.monotonic() - started < 20
    assert ended.status == 7, ended
    found, error = failure(ended.stdout)
    assert found[check] == "fail", found
    shown = cli("verify", str(folder), "--base", str(base))
    assert "\x1b" not in shown.stdout + shown.stderr and error["hint"]
    assert "password" not in shown.stdout + shown.stderr + ended.stdout
    assert not (tmp_path / "trapped").exists()
