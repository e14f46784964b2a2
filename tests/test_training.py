"""The training of a toy run on a tiny random base, from its folder to its adapter."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_base, make_run, toy_rows

from jobs import adapter, baselines, batches, fitting, inference, probes, training
from jobs import model as models
from jobs.errors import JobError
from jobs.events import EventLog, parse_events
from jobs.run_directory import RunDirectory
from jobs.spec import Spec, from_mapping


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run that was trained once, for the tests that look at what it left."""
    run = make_run(tmp_path_factory.mktemp("runs"), base, num_train_epochs=4)
    training.train(run.root)
    return run


def figures(run: RunDirectory) -> Any:
    return json.loads(run.training.read_text("utf-8"))


def test_it_learns_and_beats_the_frozen_head(trained: RunDirectory) -> None:
    record = figures(trained)
    losses = [entry["loss"] for entry in record["losses"]]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    assert record["best"]["loss"] == min(evaluation["loss"] for evaluation in record["evaluations"])
    assert record["best"]["loss"] < record["baselines"]["frozen_head"]["loss"]
    assert record["best"]["accuracy"] > 0.8
    assert record["baselines"].keys() == {"majority", "tfidf", "frozen_head"}


def test_the_record_says_what_was_trained_on_what(trained: RunDirectory, base: Path) -> None:
    record = figures(trained)
    assert record["label_names"] == ["bad", "good"]
    assert record["positive_label"] == "good"
    assert record["rows"] == {"train": 200, "validation": 40, "test": 40}
    assert sum(record["rows_by_label"]["train"].values()) == 200
    assert record["steps"] == 100
    assert record["rows_trained"] == 800
    assert list(record["base"]["weights_sha256"]) == ["model.safetensors"]
    assert record["base"]["parameters"] == sum(parameter.numel() for parameter in load_base(base).parameters())
    assert 1.0 <= record["padded_to_real_tokens"] < 1.3
    assert record["initial"].keys() == {entry for entry in record["initial"] if "lora_" in entry or "score" in entry}
    assert len(record["losses"]) <= training.LOSSES_KEPT
    assert record["seconds"]["total"] >= record["seconds"]["training"] > 0


def load_base(folder: Path) -> Any:
    return models.load_base(
        folder, label_names=("bad", "good"), pad_token_id=0, dtype=torch.float32, device=torch.device("cpu")
    )


def test_what_lies_on_disk_is_the_model_with_the_best_weights(trained: RunDirectory, base: Path) -> None:
    record = figures(trained)
    loaded = adapter.load(base, trained.adapter, dtype=torch.float32, id2label={0: "bad", 1: "good"})
    now = adapter.fingerprints(loaded)
    assert all(now[name]["sha256"] != record["initial"][name]["sha256"] for name in now)
    described, stored = probes.load(trained.probes)
    assert np.abs(inference.logits(loaded, described.token_ids, tokens_per_batch=128) - stored["portable"]).max() < 1e-4
    token_ids = models.encode(adapter.load_tokenizer(trained.adapter), [text for text, _ in toy_rows(40, 1)], 48)
    truth = np.array([label == "good" for _, label in toy_rows(40, 1)])
    accuracy = (inference.logits(loaded, token_ids, tokens_per_batch=128).argmax(axis=1) == truth).mean()
    assert accuracy == record["best"]["accuracy"]


def test_the_baselines_have_logits_for_both_held_out_splits(trained: RunDirectory) -> None:
    found = baselines.load(trained.artifacts / baselines.FILE)
    assert found.keys() == {"majority", "tfidf", "frozen_head"}
    for by_split in found.values():
        assert {name: logits.shape for name, logits in by_split.items()} == {"validation": (40, 2), "test": (40, 2)}
        assert all(np.isfinite(logits).all() for logits in by_split.values())


def test_events_are_steps_and_evaluations(trained: RunDirectory) -> None:
    events = list(parse_events(trained.events.read_text("utf-8").splitlines()))
    steps = [event for event in events if event["type"] == "step"]
    assert steps[-1]["step"] == steps[-1]["steps"] == 100
    assert steps[-1].keys() >= {"epoch", "loss", "learning_rate", "rows_per_s", "tokens_per_s", "eta_s"}
    evaluations = [event for event in events if event["type"] == "eval"]
    assert [event["step"] for event in evaluations] == [entry["step"] for entry in figures(trained)["evaluations"]]
    assert {event["type"] for event in events} == {"step", "eval", "calibration"}


def test_the_same_seed_gives_the_same_losses(base: Path, tmp_path: Path) -> None:
    runs = [make_run(tmp_path, base, rows=64, num_train_epochs=1, lora_dropout=0.1, seed=seed) for seed in (7, 7, 8)]
    for run in runs:
        training.train(run.root)
    first, again, other = (figures(run) for run in runs)
    assert first["losses"] == again["losses"]
    assert first["initial"] == again["initial"]
    assert first["evaluations"] == again["evaluations"]
    assert first["losses"] != other["losses"]


@dataclasses.dataclass(frozen=True)
class Loop:
    """A model with LoRA, rows and a spec: what `fit` needs, without a run around it."""

    model: Any
    rows: fitting.Encoded
    validation: fitting.Encoded
    spec: Spec
    events: EventLog

    def fit(self) -> fitting.Fitted:
        return fitting.fit(self.model, self.rows, self.validation, self.spec, self.events)


def make_loop(base: Path, folder: Path, **keys: Any) -> Loop:
    document = {"name": "toy", "model_name_or_path": str(base), "data": "toy.csv", "num_train_epochs": 1}
    spec = from_mapping(document | {"train_batch_size": 8, "tokens_per_batch": 64, "learning_rate": 5e-3} | keys)
    tokenizer = models.load_tokenizer(base)
    torch.manual_seed(spec.seed)
    splits = []
    for seed, count in enumerate((61, 20)):
        rows = toy_rows(count, seed)
        token_ids = models.encode(tokenizer, [text for text, _ in rows], spec.max_length)
        splits.append(
            fitting.Encoded(batches.Tokens(token_ids), np.array([label == "good" for _, label in rows], np.int64))
        )
    return Loop(models.with_lora(load_base(base), spec), *splits, spec, EventLog(folder / "events.jsonl"))


def test_the_frozen_base_is_bit_identical_afterwards(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    before = {name: parameter.detach().clone() for name, parameter in loop.model.named_parameters()}
    loop.fit()
    moved = {name for name, parameter in loop.model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if "lora_" in name or "score.modules_to_save" in name}


def test_steps_have_their_rows_whatever_the_budget(base: Path, tmp_path: Path) -> None:
    fitted = make_loop(base, tmp_path, tokens_per_batch=64, num_train_epochs=1.5).fit()
    assert fitted.steps == 12  # 61 rows are 7 steps of 8 and one of 5
    assert fitted.rows >= 61 + 3 * 8 + 5
    assert fitted.padded_tokens >= fitted.tokens


def test_micro_batches_give_the_gradient_of_the_whole_step(base: Path, tmp_path: Path) -> None:
    whole = make_loop(base, tmp_path, tokens_per_batch=4096).fit()
    cut = make_loop(base, tmp_path, tokens_per_batch=64).fit()
    assert [loss for _, loss in cut.losses] == pytest.approx([loss for _, loss in whole.losses], rel=1e-3)


def test_threads_with_a_batch_each_train_the_same_model(base: Path, tmp_path: Path) -> None:
    alone = make_loop(base, tmp_path, tokens_per_batch=4096)
    together = make_loop(base, tmp_path, tokens_per_batch=4096)
    fitted = alone.fit()
    torch.set_num_threads(3)
    try:
        beside = together.fit()
        assert torch.get_num_threads() == 3
        logits = inference.logits(together.model, together.rows.token_ids, tokens_per_batch=64)
    finally:
        torch.set_num_threads(1)
    assert [loss for _, loss in beside.losses] == pytest.approx([loss for _, loss in fitted.losses], rel=1e-3)
    assert np.abs(logits - inference.logits(together.model, together.rows.token_ids, tokens_per_batch=64)).max() < 1e-5


def test_a_loss_that_is_not_finite_stops_the_run(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    with torch.no_grad():
        models.head_of(loop.model).weight[0, 0] = math.nan
    with pytest.raises(JobError, match="loss is not finite at step 1"):
        loop.fit()


def test_a_diverging_run_leaves_no_adapter(base: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, base, learning_rate=1.0, max_grad_norm=0, lora_alpha=60000, num_train_epochs=30, rows=64)
    with pytest.raises(JobError, match="not finite at step"):
        training.train(run.root)
    assert not run.adapter.exists()
    assert not run.training.exists()


def test_no_epochs_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="num_train_epochs 0"):
        make_loop(base, tmp_path, num_train_epochs=0).fit()


def test_inference_is_in_order_and_the_same_as_transformers_own_forward(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    loop.fit()
    token_ids = [*list(loop.rows.token_ids)[:20], [2], [0]]  # an empty text, and one of padding only
    done: list[int] = []
    found = inference.logits(loop.model, token_ids, tokens_per_batch=64, progress=lambda rows, _: done.append(rows))
    batch = torch.from_numpy(batches.padded(token_ids, np.arange(22), 0))
    mask = (torch.arange(batch.shape[1]) < torch.tensor([[len(row)] for row in token_ids])).long()
    with torch.no_grad():
        expected = loop.model(input_ids=batch, attention_mask=mask).logits.numpy()
    assert np.abs(found - expected).max() < 1e-5
    assert done[-1] == 22
    features = inference.pooled_features(loop.model, token_ids, tokens_per_batch=64)
    weight = models.head_of(loop.model).weight.detach().numpy()
    assert np.abs(features @ weight.T - found).max() < 1e-5


def test_a_bf16_base_keeps_lora_and_head_in_float32(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, bf16="yes")
    model = models.load_base(
        base, label_names=("bad", "good"), pad_token_id=0, dtype=torch.bfloat16, device=torch.device("cpu")
    )
    loop = dataclasses.replace(loop, model=models.with_lora(model, loop.spec))
    kinds = {parameter.dtype for parameter in loop.model.parameters() if parameter.requires_grad}
    assert kinds == {torch.float32}
    fitted = loop.fit()
    assert all(math.isfinite(loss) for _, loss in fitted.losses)
    assert inference.logits(loop.model, list(loop.rows.token_ids)[:4], tokens_per_batch=64).dtype == np.float32


def test_a_tokenizer_that_transformers_has_changed_is_noticed(base: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(base, changed)
    document = json.loads((base / "tokenizer.json").read_text("utf-8"))
    document["normalizer"] = {"type": "Lowercase"}
    (changed / "tokenizer.json").write_text(json.dumps(document), "utf-8")
    for folder, expected in ((base, 0), (changed, 1)):
        assert models.cut_otherwise(models.load_tokenizer(folder), folder, ["GOOD", "bad", ""], 48) == expected


def test_an_empty_text_has_a_place(base: Path) -> None:
    tokenizer = models.load_tokenizer(base)
    assert models.encode(tokenizer, ["", "好"], 48)[0] == [1, 2]
    tokenizer.backend_tokenizer.post_processor = None
    assert models.encode(tokenizer, [""], 48) == [[2]]


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_learning_rate_warms_up_and_falls(kind: str) -> None:
    document = {"name": "t", "model_name_or_path": "b", "data": "d", "lr_scheduler_type": kind, "warmup_ratio": 0.1}
    rates = [fitting.rate(done, 100, from_mapping(document)) for done in range(100)]
    assert 0 < rates[0] < 0.2
    assert max(rates) == rates[10] == 1.0
    assert (rates[99] < 0.05) == (kind != "constant")
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))


def test_evaluations_stay_cheap_and_always_see_the_end() -> None:
    assert fitting.evaluation_steps(100, 50, 1_000, 100) == {17, 34, 50, 67, 84, 100}
    assert fitting.evaluation_steps(100, 50, 1_000, 10) == {13, 25, 38, 50, 63, 75, 88, 100}
    assert fitting.evaluation_steps(100, 50, 1_000, 5_000) == {50, 100}
    assert fitting.evaluation_steps(500, 50, 1_000, 10) == set(range(50, 501, 50))
    assert fitting.evaluation_steps(7, 50, 1_000, 5_000) == {7}


def test_thinned_losses_are_means_over_stretches() -> None:
    assert training.thinned([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(2, 2.0), (3, 5.0)]
