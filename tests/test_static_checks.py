"""Static checks: what they know and what they can't know; how adapters of all kinds fare is in test_corpus."""

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
from breakages import WEIGHTS, config, each, last, tensors
from safetensors.torch import load_file, save_file
from tiny_adapter import TinyRun

from jobs import adapter, base_tensors, lora_configuration, safetensors_file
from jobs.checks import Check
from jobs.errors import AdapterRejected
from jobs.explanations import STATIC
from jobs.static_checks import check_adapter
from jobs.static_subject import Told

HEAD = "base_model.model.score.weight"
EMBEDDING = "base_model.model.model.embed_tokens"
LAYER = "base_model.model.model.layers.0.mlp"
DOWN_A = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


def by_id(checks: list[Check]) -> dict[str, str]:
    return {check.id: check.status for check in checks}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return tiny_adapter.shared_run(tmp_path_factory)


@pytest.fixture
def broken(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.adapter, tmp_path / "adapter"))


def told(run: TinyRun) -> Told:
    """What a run tells of its training."""
    saved = {key: adapter.array_fingerprint(array) for key, array in run.arrays().items()}
    return Told(run.initial, saved, base_tensors.of_folder(run.base).weights_sha256())


def test_a_healthy_adapter_passes_every_check(tiny_run: TinyRun) -> None:
    checks = check_adapter(tiny_run.adapter, base=base_tensors.of_folder(tiny_run.base), told=told(tiny_run))
    assert [check for check in checks if check.status != "pass"] == []
    assert [check.id for check in checks] == list(STATIC)


def test_rows_that_a_relu_never_lets_through_are_no_shard(tiny_run: TinyRun, broken: Path) -> None:
    def dead(matrix: Any) -> Any:
        matrix[1:-1:2] = 0
        return matrix

    each(".lora_B.", dead)(broken)
    assert by_id(check_adapter(broken, base=base_tensors.of_folder(tiny_run.base)))["shards"] == "pass"


def test_untrained_weights_are_what_they_were_before_step_0(tiny_run: TinyRun) -> None:
    now = {key: adapter.array_fingerprint(array) for key, array in tiny_run.arrays().items()}
    still = check_adapter(tiny_run.adapter, told=Told(now))
    assert by_id(still)["moved"] == "fail"
    head_only = {key: now[key] if key == HEAD else tiny_run.initial[key] for key in now}
    assert by_id(check_adapter(tiny_run.adapter, told=Told(head_only)))["moved"] == "fail"
    one_a = {key: now[key] if key == DOWN_A else tiny_run.initial[key] for key in now}
    assert by_id(check_adapter(tiny_run.adapter, told=Told(one_a)))["moved"] == "fail"
    all_a = {key: now[key] if ".lora_A." in key else tiny_run.initial[key] for key in now}
    assert by_id(check_adapter(tiny_run.adapter, told=Told(all_a)))["moved"] == "pass"


def test_what_cannot_be_known_is_not_checked(tiny_run: TinyRun) -> None:
    foreign = {check.id: check for check in check_adapter(tiny_run.adapter)}
    unknown = {"modules", "shapes", "update_size", "moved", "saved", "base"}
    assert {name for name, check in foreign.items() if check.status != "pass"} == unknown
    assert all(foreign[name].status == "not_checked" for name in unknown)
    assert not any(foreign[name].required for name in unknown)
    ours = {check.id: check for check in check_adapter(tiny_run.adapter, told=Told())}
    assert ours["moved"].status == "not_checked" and ours["moved"].required


def test_without_a_base_the_configuration_alone_can_fail(tiny_run: TinyRun, broken: Path) -> None:
    config(target_modules=["q_proj"])(broken)
    assert by_id(check_adapter(broken))["modules"] == "fail"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_are_read(tiny_run: TinyRun, broken: Path, dtype: torch.dtype) -> None:
    tensors(lambda held: held.update({key: value.to(dtype) for key, value in held.items()}))(broken)
    assert set(by_id(check_adapter(broken, base=base_tensors.of_folder(tiny_run.base))).values()) == {
        "pass",
        "not_checked",
    }
    arrays = safetensors_file.read_arrays(safetensors_file.read_header(broken / WEIGHTS))
    for key, value in load_file(broken / WEIGHTS).items():
        assert np.array_equal(arrays[key].astype(np.float32), value.float().numpy())


def test_a_base_saved_without_the_prefix_has_the_same_shapes(tiny_run: TinyRun, tmp_path: Path) -> None:
    held = load_file(tiny_run.base / "model.safetensors")
    save_file({key.removeprefix("model."): v for key, v in held.items()}, tmp_path / "model.safetensors")
    checks = check_adapter(tiny_run.adapter, base=base_tensors.of_folder(tmp_path))
    assert by_id(checks)["modules"] == by_id(checks)["shapes"] == "pass"
    modules = ["model.layers.0.self_attn.q_proj"]
    prefixed = base_tensors.of_folder(tmp_path).named_like(modules)
    assert prefixed.shapes == base_tensors.of_folder(tiny_run.base).shapes
    assert prefixed.rms(modules[0]) == base_tensors.of_folder(tiny_run.base).rms(modules[0])


def nf4(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    packed = torch.zeros(value.numel() // 2, 1, dtype=torch.uint8)
    return {name: packed, f"{name}.absmax": torch.ones(value.numel() // 64), f"{name}.quant_map": torch.zeros(16)}


def gptq(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    module, rows = name.removesuffix("weight"), value.shape[1] // 8
    packed = torch.zeros(rows, len(value), dtype=torch.int32)
    return {f"{module}qweight": packed, f"{module}scales": torch.ones(1, len(value))}


@pytest.mark.parametrize("packing", [nf4, gptq])
def test_of_a_quantised_base_the_modules_are_known(
    tiny_run: TinyRun, broken: Path, tmp_path: Path, packing: Callable[[str, torch.Tensor], dict[str, torch.Tensor]]
) -> None:
    held: dict[str, torch.Tensor] = {}
    for name, value in load_file(tiny_run.base / "model.safetensors").items():
        held |= packing(name, value) if name.endswith("_proj.weight") else {name: value}
    save_file(held, tmp_path / "model.safetensors")
    base = base_tensors.of_folder(tmp_path)
    found = by_id(check_adapter(broken, base=base))
    assert found["modules"] == "pass" and found["shapes"] == found["update_size"] == "not_checked"
    assert "fail" not in found.values()
    config(target_modules=["q_proj"])(broken)
    assert by_id(check_adapter(broken, base=base))["modules"] == "fail"


def test_rows_of_zeros_in_an_embedding_are_of_tokens_that_never_came(broken: Path) -> None:
    embedding = torch.randn(64, 1024)
    embedding[0:3] = 0
    tensors(lambda held: held.update({f"{EMBEDDING}.weight": embedding}))(broken)
    assert by_id(check_adapter(broken))["zero_tail"] == "pass"
    tensors(lambda held: held.update({f"{LAYER}.lora_A.weight": embedding}))(broken)
    assert by_id(check_adapter(broken))["zero_tail"] == "fail"


def test_an_expert_may_have_had_no_text_but_not_all_of_them(broken: Path) -> None:
    idle = f"{LAYER}.experts.0.up_proj.lora_B.weight"

    def with_experts(held: dict[str, torch.Tensor]) -> None:
        held.clear()
        for number in range(2):
            root = f"{LAYER}.experts.{number}.up_proj"
            held |= {f"{root}.lora_A.weight": torch.randn(4, 8), f"{root}.lora_B.weight": torch.randn(8, 4)}
        held[idle] = torch.zeros(8, 4)

    tensors(with_experts)(broken)
    assert by_id(check_adapter(broken))["lora_b"] == "pass"
    each("lora_B", torch.zeros_like)(broken)
    assert by_id(check_adapter(broken))["lora_b"] == "fail"


@pytest.mark.parametrize("name", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_magnitudes_go_by_both_of_their_names(broken: Path, name: str) -> None:
    config(use_dora=True)(broken)

    def with_magnitudes(held: dict[str, torch.Tensor]) -> None:
        magnitudes = {key.replace("lora_B.weight", name): torch.ones(len(held[key])) for key in held if "lora_B" in key}
        held.update(magnitudes)

    tensors(with_magnitudes)(broken)
    found = by_id(check_adapter(broken))
    assert found["pairs"] == found["keys"] == "pass"


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
        arrays[f"{root}.lora_B.weight"] = chance.random((1024, 256), dtype=np.float32) * np.float32(1e-3)
    shutil.copytree(tiny_run.adapter, tmp_path, dirs_exist_ok=True)
    safetensors_file.write(tmp_path / WEIGHTS, arrays)
    config(r=256, target_modules=["up_proj"])(tmp_path)
    initial = {key: {"sha256": "0" * 64, "norm": 1.0} for key in arrays}
    saved = {key: adapter.array_fingerprint(array) for key, array in arrays.items()}
    base = {key.replace("lora_A.", "").removeprefix("base_model.model."): chance.random((1024, 1024), dtype=np.float32)
            for key in arrays if "lora_A" in key}  # fmt: skip
    (tmp_path / "base").mkdir()
    safetensors_file.write(tmp_path / "base" / "model.safetensors", base)
    assert (tmp_path / WEIGHTS).stat().st_size > 100e6
    before = time.process_time()
    checks = check_adapter(tmp_path, base=base_tensors.of_folder(tmp_path / "base"), told=Told(initial, saved))
    assert time.process_time() - before < 1.0
    assert {check.id for check in checks if check.status == "not_checked"} == {"base"}
    assert not {"fail", "warn"} & set(by_id(checks).values())


def test_one_module_without_an_update_worth_the_name_is_enough(tiny_run: TinyRun, broken: Path) -> None:
    last(".lora_B.", lambda matrix: matrix * 1e-20)(broken)
    assert by_id(check_adapter(broken, base=base_tensors.of_folder(tiny_run.base)))["update_size"] == "fail"


def test_a_part_of_the_rank_that_was_not_trained(broken: Path) -> None:
    def half(matrix: Any) -> Any:
        matrix[:, :2] = 0
        return matrix

    last(".lora_B.", half)(broken)
    [shards] = [check for check in check_adapter(broken) if check.id == "shards"]
    assert shards.status == "fail" and "lora_B': 2 of 4 columns are all zero" in shards.detail


@pytest.mark.parametrize("fingerprint", [None, {}, {"sha256": None}])
def test_a_fingerprint_that_is_none_shows_no_movement(tiny_run: TinyRun, fingerprint: Any) -> None:
    initial = tiny_run.initial | {DOWN_A: fingerprint}
    assert by_id(check_adapter(tiny_run.adapter, told=Told(initial)))["moved"] == "fail"


@pytest.mark.parametrize(
    "alpha", [10**400, -(10**400), "x", "", [], [[]], {"a": 1}, None, True, float("inf")], ids=lambda one: f"{one!r:.9}"
)
def test_an_alpha_that_is_no_number_is_a_finding(tiny_run: TinyRun, broken: Path, alpha: Any) -> None:
    base = base_tensors.of_folder(tiny_run.base)
    config(lora_alpha=alpha)(broken)
    assert "fail" in by_id(check_adapter(broken, base=base)).values()
    config(lora_alpha=1, alpha_pattern={"up_proj": alpha})(broken)
    assert "fail" in by_id(check_adapter(broken, base=base)).values()


def test_names_and_patterns_without_end_are_not_compared(tiny_run: TinyRun, broken: Path) -> None:
    arrays = {f"base_model.model.m.{number}.q.lora_A.weight": np.ones((1, 1), np.float32) for number in range(9000)}
    safetensors_file.write(broken / WEIGHTS, arrays)
    for key in ("target_modules", "modules_to_save", "rank_pattern"):
        names = [f"x{number}" for number in range(9000)]
        config(**{key: dict.fromkeys(names, 1) if key == "rank_pattern" else names})(broken)
        before = time.process_time()
        checks = {check.id: check for check in check_adapter(broken)}
        assert time.process_time() - before < 3
        assert checks["config"].status == "fail" and "9,000 tensors" in checks["config"].detail
        config(**{key: None} if key != "target_modules" else {key: ["q"]})(broken)


def test_patterns_that_are_quick_one_by_one_have_an_end_together() -> None:
    document = {"r": 1, "target_modules": ["q"], "rank_pattern": {f"(.*.*)x{number}": 1 for number in range(1000)}}
    lora = lora_configuration.LoraConfiguration(document, lora_configuration._Clock(0.2))
    before = time.process_time()
    with pytest.raises(AdapterRejected, match="for ever"):
        for number in range(100_000):
            lora.rank_of(f"model.layers.{number}.mlp.q")
    assert time.process_time() - before < 3


def test_a_file_that_is_nothing_but_a_hole_is_not_read(broken: Path) -> None:
    rows = 2**28
    text = json.dumps({"x": {"dtype": "BF16", "shape": [rows], "data_offsets": [0, 2 * rows]}}).encode()
    with (broken / WEIGHTS).open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 2 * rows)
    [header] = [check for check in check_adapter(broken) if check.id == "header"]
    assert header.status == "fail" and "were ever written" in header.detail


def test_tokens_that_never_came_are_no_page_that_was_never_written(broken: Path) -> None:
    """An embedding that is saved whole has rows of zeros: for padding, and for tokens that were only reserved."""
    table = torch.randn(8, 2048)
    table[[0, 6, 7]] = 0
    config(modules_to_save=["score", "embed_tokens"])(broken)
    tensors(lambda held: held.update({"base_model.model.model.embed_tokens.weight": table}))(broken)
    assert by_id(check_adapter(broken))["zero_tail"] == "pass"
    table[3, :2047] = 0
    tensors(lambda held: held.update({"base_model.model.model.embed_tokens.weight": table}))(broken)
    assert by_id(check_adapter(broken))["zero_tail"] == "fail"


def test_static_verification_imports_no_torch() -> None:
    code = (
        "import sys, jobs.verification; "
        "sys.exit(bool({'torch', 'transformers', 'peft', 'safetensors'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
