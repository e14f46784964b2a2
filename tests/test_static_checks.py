"""Static checks: healthy adapters pass without a warning, each kind of damage is named by its own check."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_adapter
import torch
from safetensors.torch import load_file, save_file
from tiny_adapter import TinyRun

from jobs import adapter, safetensors_file
from jobs.checks import Check
from jobs.explanations import STATIC
from jobs.static_checks import base_shapes, check_adapter

WEIGHTS, CONFIG = adapter.WEIGHTS, adapter.CONFIG
HEAD = "base_model.model.score.weight"
DOWN_B = "base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"
DOWN_A = DOWN_B.replace("lora_B", "lora_A")
Damage = Callable[[Path], None]


def by_id(checks: list[Check]) -> dict[str, str]:
    return {check.id: check.status for check in checks}


def tensors(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """A damage to the tensors, saved as a file that is otherwise sound."""

    def damage(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        document = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(document | changes))

    return damage


def raw(change: Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))

    return damage


def renamed(old: str, new: str) -> Damage:
    def change(held: dict[str, Any]) -> None:
        for key in list(held):
            held[key.replace(old, new)] = held.pop(key)

    return tensors(change)


def each_b(change: Callable[[Any], Any]) -> Damage:
    def over(held: dict[str, Any]) -> None:
        for key in held:
            if ".lora_B." in key:
                held[key] = change(held[key].clone())

    return tensors(over)


def only_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def first_rows(matrix: Any) -> Any:
    """Rank 0's slice of two."""
    matrix[len(matrix) // 2 :] = 0
    return matrix


def one_value(key: str, value: float) -> Damage:
    def change(held: dict[str, Any]) -> None:
        held[key].view(-1)[3] = value

    return tensors(change)


def without(part: str) -> Damage:
    return tensors(lambda held: [held.pop(key) for key in list(held) if part in key])


def entry(**changes: Any) -> Damage:
    """A damage to one entry of the header, its length kept right."""

    def change(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        header[HEAD] |= changes
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return raw(change)


def to_float64(held: dict[str, Any]) -> None:
    held[HEAD] = held[HEAD].double()


def twice(content: bytes) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    text = content[8 : 8 + length].replace(b"{", b'{"' + HEAD.encode() + b'":{},', 1)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


EMPTY_FILE = struct.pack("<Q", 32) + b'{"__metadata__":{"format":"pt"}}'
assert len(EMPTY_FILE) == 40
BREAKAGES: dict[str, tuple[Damage, str]] = {
    "40 bytes of metadata": (raw(lambda _: EMPTY_FILE), "tensors"),
    "no byte at all": (raw(lambda _: b""), "header"),
    "Size([0]) tensors": (each_b(lambda b: torch.zeros(0)), "tensors"),
    "no weights file": (lambda folder: (folder / WEIGHTS).unlink(), "files"),
    "no configuration": (lambda folder: (folder / CONFIG).unlink(), "files"),
    "only a pickle": (only_pickle, "files"),
    "configuration is a list": (lambda folder: (folder / CONFIG).write_text("[]"), "config"),
    "configuration nested beyond reason": (
        lambda folder: (folder / CONFIG).write_text("[" * 100_000),
        "config",
    ),
    "no head": (without("score"), "head"),
    "head all zero": (tensors(lambda held: held[HEAD].zero_()), "head"),
    "head of three classes": (tensors(lambda held: held.update({HEAD: torch.ones(3, 32)})), "classes"),
    "head of another hidden size": (tensors(lambda held: held.update({HEAD: torch.ones(2, 48)})), "head"),
    "every lora_B zero": (each_b(torch.zeros_like), "lora_b"),
    "one lora_B zero": (tensors(lambda held: held[DOWN_B].zero_()), "lora_b"),
    "one lora_A zero": (tensors(lambda held: held[DOWN_A].zero_()), "lora_a"),
    "rank 0's shard of lora_B": (each_b(first_rows), "shards"),
    "a row of lora_A zero": (tensors(lambda held: held[DOWN_A][1].zero_()), "shards"),
    "torch.compile's prefix": (renamed("base_model.model.", "base_model.model._orig_mod."), "prefixes"),
    "DDP's prefix": (renamed("base_model.", "module.base_model."), "prefixes"),
    "FSDP's prefix": (renamed("base_model.model.", "base_model.model._fsdp_wrapped_module."), "prefixes"),
    "the adapter's name in the keys": (renamed(".weight", ".default.weight"), "keys"),
    "keys without PEFT's root": (renamed("base_model.model.", ""), "keys"),
    "NaN": (one_value(DOWN_B, float("nan")), "finite"),
    "infinity in the head": (one_value(HEAD, float("inf")), "finite"),
    "alpha 0": (config(lora_alpha=0), "alpha"),
    "alpha NaN": (config(lora_alpha=float("nan")), "alpha"),
    "r 0": (config(r=0), "config"),
    "r of another adapter": (config(r=8), "pairs"),
    "another PEFT type": (config(peft_type="IA3"), "config"),
    "another task": (config(task_type="TOKEN_CLS"), "config"),
    "truncated": (raw(lambda content: content[:-100]), "header"),
    "trailing bytes": (raw(lambda content: content + b"\0" * 8), "header"),
    "zero tail": (raw(lambda content: content[:-200] + b"\0" * 200), "zero_tail"),
    "a page never written": (raw(lambda c: c[:8192] + b"\0" * 4096 + c[12288:]), "zero_tail"),
    "a module missing": (without("layers.1.mlp.up_proj"), "modules"),
    "targets narrower than the file": (config(target_modules=["q_proj", "v_proj"]), "modules"),
    "targets wider than the file": (config(target_modules=["q_proj", "w_proj"]), "modules"),
    "lora_A without lora_B": (tensors(lambda held: held.pop(DOWN_B)), "pairs"),
    "ranks that do not fit": (tensors(lambda held: held.update({DOWN_B: torch.ones(32, 3)})), "pairs"),
    "a vector for a matrix": (tensors(lambda held: held.update({DOWN_B: torch.ones(32)})), "pairs"),
    "a module of another width": (tensors(lambda held: held.update({DOWN_B: torch.ones(48, 4)})), "shapes"),
    "a module the base has not": (renamed("layers.1.mlp.up_proj", "layers.7.mlp.up_proj"), "shapes"),
    "float64": (tensors(to_float64), "dtypes"),
    "header bomb": (raw(lambda content: struct.pack("<Q", 2**40) + content[8:]), "header"),
    "header that is not JSON": (raw(lambda content: content[:8] + b"x" + content[9:]), "header"),
    "a key twice": (raw(twice), "header"),
    "tensors that overlap": (entry(data_offsets=[0, 256]), "header"),
    "a shape that does not fit its bytes": (entry(shape=[2, 33]), "header"),
    "an unknown dtype": (entry(dtype="F12"), "header"),
    "a negative shape": (entry(shape=[-2, -32]), "header"),
}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return tiny_adapter.shared_run(tmp_path_factory)


@pytest.fixture
def broken(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.adapter, tmp_path / "adapter"))


def test_a_healthy_adapter_passes_every_check(tiny_run: TinyRun) -> None:
    checks = check_adapter(tiny_run.adapter, base_folder=tiny_run.base, initial=tiny_run.initial, ours=True)
    assert [check for check in checks if check.status != "pass"] == []
    assert [check.id for check in checks] == list(STATIC)


@pytest.mark.parametrize("name", BREAKAGES)
def test_breakage_is_named_by_its_check(tiny_run: TinyRun, broken: Path, name: str) -> None:
    damage, expected = BREAKAGES[name]
    damage(broken)
    checks = {
        check.id: check
        for check in check_adapter(broken, base_folder=tiny_run.base, initial=tiny_run.initial, ours=True)
    }
    assert checks[expected].status == "fail", name
    assert checks[expected].required and checks[expected].meaning and checks[expected].todo
    assert checks[expected].detail.isascii() and len(checks[expected].detail) < 600


def test_rows_that_a_relu_never_lets_through_are_no_shard(tiny_run: TinyRun, broken: Path) -> None:
    def dead(matrix: Any) -> Any:
        matrix[1:-1:2] = 0
        return matrix

    each_b(dead)(broken)
    assert by_id(check_adapter(broken, base_folder=tiny_run.base))["shards"] == "pass"


def test_untrained_weights_are_what_they_were_before_step_0(tiny_run: TinyRun) -> None:
    now = {key: adapter.array_fingerprint(array) for key, array in tiny_run.arrays().items()}
    still = check_adapter(tiny_run.adapter, initial=now, ours=True)
    assert by_id(still)["moved"] == "fail"
    head_only = {key: now[key] if key == HEAD else tiny_run.initial[key] for key in now}
    assert by_id(check_adapter(tiny_run.adapter, initial=head_only, ours=True))["moved"] == "fail"
    one_a = {key: now[key] if key == DOWN_A else tiny_run.initial[key] for key in now}
    assert by_id(check_adapter(tiny_run.adapter, initial=one_a, ours=True))["moved"] == "fail"
    all_a = {key: now[key] if ".lora_A." in key else tiny_run.initial[key] for key in now}
    assert by_id(check_adapter(tiny_run.adapter, initial=all_a, ours=True))["moved"] == "pass"


def test_what_cannot_be_known_is_not_checked(tiny_run: TinyRun) -> None:
    foreign = {check.id: check for check in check_adapter(tiny_run.adapter)}
    assert {name for name, check in foreign.items() if check.status != "pass"} == {
        "modules",
        "shapes",
        "moved",
    }
    assert all(foreign[name].status == "not_checked" for name in ("modules", "shapes", "moved"))
    assert not any(foreign[name].required for name in ("modules", "shapes", "moved"))
    ours = {check.id: check for check in check_adapter(tiny_run.adapter, ours=True)}
    assert ours["moved"].status == "not_checked" and ours["moved"].required


def test_without_a_base_the_configuration_alone_can_fail(tiny_run: TinyRun, broken: Path) -> None:
    config(target_modules=["q_proj"])(broken)
    assert by_id(check_adapter(broken))["modules"] == "fail"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_read(tiny_run: TinyRun, broken: Path, dtype: torch.dtype) -> None:
    tensors(lambda held: held.update({key: value.to(dtype) for key, value in held.items()}))(broken)
    assert set(by_id(check_adapter(broken, base_folder=tiny_run.base)).values()) == {"pass", "not_checked"}
    arrays = safetensors_file.read_arrays(safetensors_file.read_header(broken / WEIGHTS))
    for key, value in load_file(broken / WEIGHTS).items():
        assert np.array_equal(arrays[key].astype(np.float32), value.float().numpy())


def test_a_base_saved_without_the_prefix_has_the_same_shapes(tiny_run: TinyRun, tmp_path: Path) -> None:
    held = load_file(tiny_run.base / "model.safetensors")
    save_file({key.removeprefix("model."): v for key, v in held.items()}, tmp_path / "model.safetensors")
    checks = check_adapter(tiny_run.adapter, base_folder=tmp_path)
    assert by_id(checks)["modules"] == by_id(checks)["shapes"] == "pass"
    modules = ["model.layers.0.self_attn.q_proj"]
    assert base_shapes(tmp_path, modules) == base_shapes(tiny_run.base, modules)


def test_the_written_file_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones((1, 1), dtype=np.float32)}
    safetensors_file.write(tmp_path / "x.safetensors", arrays)
    again = load_file(tmp_path / "x.safetensors")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[key].numpy(), arrays[key]) for key in arrays)


def test_a_hundred_megabytes_take_less_than_a_second(tmp_path: Path, tiny_run: TinyRun) -> None:
    chance = np.random.default_rng(0)
    arrays = {"base_model.model.score.weight": chance.random((2, 1024), dtype=np.float32)}
    for layer in range(50):
        root = f"base_model.model.model.layers.{layer}.mlp.up_proj"
        arrays[f"{root}.lora_A.weight"] = chance.random((256, 1024), dtype=np.float32)
        arrays[f"{root}.lora_B.weight"] = chance.random((1024, 256), dtype=np.float32)
    shutil.copytree(tiny_run.adapter, tmp_path, dirs_exist_ok=True)
    safetensors_file.write(tmp_path / WEIGHTS, arrays)
    config(r=256, target_modules=["up_proj"])(tmp_path)
    initial = {key: {"sha256": "0" * 64, "norm": 1.0} for key in arrays}
    assert (tmp_path / WEIGHTS).stat().st_size > 100e6
    before = time.process_time()
    checks = check_adapter(tmp_path, initial=initial)
    assert time.process_time() - before < 1.0
    assert not {"fail", "warn"} & set(by_id(checks).values())


def test_static_verification_imports_no_torch() -> None:
    code = (
        "import sys, jobs.verification; "
        "sys.exit(bool({'torch', 'transformers', 'peft', 'safetensors'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
