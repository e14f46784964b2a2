"""Estimates of memory and time, against what torch itself allocates and what is known of models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher import estimate

QWEN_1_5B = {
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "vocab_size": 151936,
}  # fmt: skip
QWEN_0_5B = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "vocab_size": 151936,
}  # fmt: skip
QWEN3_0_6B = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "vocab_size": 151936, "head_dim": 128,
}  # fmt: skip


def base(folder: Path, config: dict[str, int]) -> Path:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "parameters", "lora"),
    [(QWEN_1_5B, 1.54e9, 1_154_048), (QWEN_0_5B, 0.494e9, 549_888), (QWEN3_0_6B, 0.596e9, 630_784)],
)
def test_parameters_are_those_of_the_models(
    tmp_path: Path, config: dict[str, int], parameters: float, lora: int
) -> None:
    found = estimate.shape(base(tmp_path, config), "")
    assert found is not None
    assert found.parameters == pytest.approx(parameters, rel=0.005)
    assert found.lora_parameters(1) == lora


def test_a_name_tells_about_the_same(tmp_path: Path) -> None:
    exact = estimate.shape(base(tmp_path, QWEN_1_5B), "")
    named = estimate.shape(None, "Qwen/Qwen2.5-1.5B-Instruct")
    assert exact is not None
    assert named is not None
    for rank in (8, 64):
        one, other = (estimate.memory(of, rank=rank, bf16=True) for of in (exact, named))
        assert other.fixed_bytes == pytest.approx(one.fixed_bytes, rel=0.25)
        assert other.token_bytes == pytest.approx(one.token_bytes, rel=0.25)
    assert estimate.shape(None, "somebody/a-model") is None


@pytest.mark.parametrize("config", [{}, {**QWEN_0_5B, "hidden_size": 0}, {**QWEN_0_5B, "vocab_size": "many"}, []])
def test_a_config_that_tells_nothing(tmp_path: Path, config: dict[str, int]) -> None:
    assert estimate.shape(base(tmp_path, config), "somebody/a-model") is None


@pytest.mark.parametrize("bf16", [False, True])
def test_bytes_per_token_are_what_autograd_keeps(bf16: bool) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    from jobs import model as models
    from jobs.spec import from_mapping

    dtype = torch.bfloat16 if bf16 else torch.float32
    sizes = {"hidden_size": 96, "intermediate_size": 320, "num_attention_heads": 6, "num_key_value_heads": 2}
    spec = from_mapping({"name": "a", "model_name_or_path": "m", "data": "d", "lora_r": 8})
    kept = []
    for layers in (3, 6):  # what the last layer and the head keep is the same in both
        config = Qwen2Config(vocab_size=99, num_hidden_layers=layers, pad_token_id=0, num_labels=2, **sizes)
        model = Qwen2ForSequenceClassification(config).to(dtype).requires_grad_(False)
        model.score.to(torch.float32)
        model = models.with_lora(model, spec).train()
        weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
        seen: dict[int, int] = {}

        def keep(tensor: torch.Tensor, weights: set[int] = weights, seen: dict[int, int] = seen) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                seen[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            answer = models.logits(model, torch.randint(1, 99, (4, 64)))
        kept.append(sum(seen.values()))
        del answer
    found = (kept[1] - kept[0]) / 3 / (4 * 64)
    of = estimate.Shape(1.0, 1.0, 96, 320, 1, 96, 32, known=True)
    assert of.bytes_per_token(8, 2 if bf16 else 4) == pytest.approx(found, rel=0.1)


def test_time_is_operations_over_what_the_card_does() -> None:
    of = estimate.Shape(1.5e9, 0.2e9, known=True)
    alone = estimate.seconds(of, 1e6, "NVIDIA GeForce RTX 4090")
    assert alone == pytest.approx(4 * 1.3e9 * 1e6 / (0.3 * 165e12))
    assert estimate.seconds(of, 1e6, "NVIDIA GeForce RTX 4090 D") == pytest.approx((alone or 0) * 165 / 147)
    assert estimate.seconds(of, 1e6, "NVIDIA GeForce RTX 4090", 2) == pytest.approx((alone or 0) / 2)
    assert estimate.seconds(of, 1e6, "A card of tomorrow") is None


def test_what_fits(tmp_path: Path) -> None:
    of = estimate.shape(base(tmp_path, QWEN_1_5B), "")
    assert of is not None
    found = estimate.memory(of, rank=16, bf16=True)
    assert 3.5e9 < found.fixed_bytes < 5e9
    assert 4_000 < found.tokens(24 * 2**30) < 12_000
    assert found.tokens(2 * 2**30) == 0
