"""What a run will take on the GPUs of real machines, as their nvidia-smi told, before anything is sent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_estimate import QWEN_1_5B
from test_probe import captured, read

from jobs.spec import Spec, from_mapping
from launcher import forecast
from remote.facts import Facts


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(QWEN_1_5B), "utf-8")
    return tmp_path


def spec(**keys: Any) -> Spec:
    return from_mapping({"name": "a", "model_name_or_path": "Qwen/Qwen2.5-1.5B", "data": "a.csv"} | keys)


def plan(of: Spec, base: Path | None, tokens: float = 1e7) -> Any:
    sources = {"base": str(base)} if base else {}
    return SimpleNamespace(submission=SimpleNamespace(spec=of), sources=sources, train_tokens=tokens)


def with_memory(facts: Facts, gpu_bytes: int) -> Facts:
    assert facts.gpus
    return dataclasses.replace(
        facts, gpus=[dataclasses.replace(one, memory_total_bytes=gpu_bytes) for one in facts.gpus]
    )


def test_a_4090_and_what_an_hour_of_it_costs(base: Path) -> None:
    of = spec(price=1.98, num_train_epochs=3)
    found = forecast.forecast(plan(of, base), read(captured("autodl-4090.txt")))
    assert found is not None
    assert found.basis == "by the base's shape"
    assert 4_000 < found.tokens < 12_000
    # 1.31 billion parameters beside the embedding, 4 operations a token each, 30 % of 165 TFLOP/s
    assert found.seconds == pytest.approx(4 * 1.31e9 * 3e7 / (0.3 * 165e12), rel=0.02)
    assert found.cost == pytest.approx((found.seconds or 0) / 3600 * 1.98)
    assert list(forecast.findings(found, of)) == []
    said = found.in_words(of)
    assert "RTX 4090" in said
    assert "at 1.98 an hour (data sheet of the card, 30% of its peak)" in said


def test_what_costs_too_much_is_refused_with_the_estimate_that_says_so(base: Path) -> None:
    of = spec(price=1.98, max_cost=1, num_train_epochs=100)
    found = forecast.forecast(plan(of, base), read(captured("autodl-4090.txt")))
    assert found is not None
    [one] = forecast.findings(found, of)
    assert (one.code, one.fatal) == ("cost", True)
    assert "more than max_cost 1" in one.what
    assert "estimate before the start" in one.why


def test_a_model_that_does_not_fit(base: Path) -> None:
    facts = with_memory(read(captured("autodl-4090.txt")), 3 * 2**30)
    found = forecast.forecast(plan(spec(), base), facts)
    assert found is not None
    assert found.tokens == 0
    [one] = forecast.findings(found, spec())
    assert (one.code, one.fatal) == ("gpu_memory", True)
    few = spec(target_modules="q_proj")
    assert [one.fatal for one in forecast.findings(found, few)] == [False]


def test_what_is_not_known_is_not_made_up(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))
    facts = read(captured("autodl-4090.txt"))
    assert forecast.forecast(plan(spec(), base), read(captured("autodl-no-gpu-mode.txt"))) is None
    assert forecast.forecast(plan(spec(model_name_or_path="somebody/model"), None), facts) is None
    named = forecast.forecast(plan(spec(model_name_or_path="Qwen/Qwen2.5-7B"), None), facts)
    assert named is not None
    assert named.basis == "by the base's name"
    assert named.cost is None
    assert facts.gpus
    odd = dataclasses.replace(facts, gpus=[dataclasses.replace(facts.gpus[0], name="A card of tomorrow")])
    unknown = forecast.forecast(plan(spec(price=1), base), odd)
    assert unknown is not None
    assert (unknown.seconds, unknown.cost) == (None, None)
    old = dataclasses.replace(facts, gpus=[dataclasses.replace(facts.gpus[0], compute_capability="7.0")])
    single = forecast.forecast(plan(spec(), base), old)
    both = forecast.forecast(plan(spec(), base), facts)
    assert single is not None
    assert both is not None
    assert single.memory.fixed_bytes > 1.5 * both.memory.fixed_bytes  # in float32
