"""The training of a toy run on a tiny random base, from its folder to its adapter."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import load_base, make_loop
from tiny import make_base, make_run, toy_rows

from jobs import adapter, baselines, batches, evaluation, inference, probes, submission, training
from jobs import model as models
from jobs.checkpoint import Checkpoint, Checkpoints
from jobs.classifier import Classifier
from jobs.errors import AdapterRejected, JobError
from jobs.events import parse_events
from jobs.run_directory import RunDirectory


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


def test_a_diverging_run_leaves_no_adapter(base: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, base, learning_rate=1.0, max_grad_norm=0, lora_alpha=60000, num_train_epochs=30, rows=64)
    with pytest.raises(JobError, match="not finite at step"):
        training.train(run.root)
    assert not run.adapter.exists()
    assert not run.training.exists()


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


def test_only_the_baselines_that_were_asked_for(base: Path, tmp_path: Path) -> None:
    for asked, expected in ((["majority", "frozen"], {"majority", "frozen_head"}), ([], set())):
        run = make_run(tmp_path, base, num_train_epochs=1, rows=40, baselines=asked, head_start="random")
        training.train(run.root)
        assert baselines.load(run.artifacts / baselines.FILE).keys() == expected
        assert figures(run)["baselines"].keys() == expected
        evaluation.on_host(run, submission.load(run.spec), base)
        metrics = json.loads(run.metrics.read_text("utf-8"))
        assert {model["key"] for model in metrics["models"]} == {"lora", *expected}


def test_empty_texts_are_answered_without_the_model(base: Path, tmp_path: Path) -> None:
    train = [*toy_rows(60, 0), ("", "good"), (" \u200b\n", "good")]
    rows = {"train": train, "validation": [*toy_rows(40, 1), ("", "bad")], "test": [("", "bad"), *toy_rows(9, 2)]}
    run = make_run(tmp_path, base, num_train_epochs=1, data=rows)
    training.train(run.root)
    record = figures(run)
    assert record["rows"] == {"train": 60, "validation": 40, "test": 10}
    good = sum(label == "good" for _, label in train[:60])
    expected = np.log(np.array([60 - good + 1, good + 1]) / 62)
    assert adapter.empty_text_logits(run.adapter, 2) == pytest.approx(expected.tolist(), abs=1e-6)
    found = baselines.load(run.artifacts / baselines.FILE)["frozen_head"]["test"]
    assert found[0].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    said = Classifier.open(base, run.adapter, label_names=("bad", "good")).logits(["", "好好", "\t"])
    assert said[0].tolist() == said[2].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert said[1].tolist() != said[0].tolist()


@pytest.mark.parametrize("answer", [[0.0], [0.0, float("1e9")], ["a", "b"], {"a": 1}, [True, False]])
def test_an_answer_to_empty_texts_that_is_none_is_refused(trained: RunDirectory, tmp_path: Path, answer: Any) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(trained.adapter, folder)
    document = json.loads((folder / adapter.CLASSIFIER).read_text("utf-8"))
    (folder / adapter.CLASSIFIER).write_text(json.dumps(document | {"empty_text_logits": answer}), "utf-8")
    with pytest.raises(AdapterRejected, match="not an answer to empty texts"):
        adapter.empty_text_logits(folder, 2)
    (folder / adapter.CLASSIFIER).write_text(json.dumps({}), "utf-8")
    assert adapter.empty_text_logits(folder, 2) is None


def job(run: RunDirectory, verb: str = "train", **more: Any) -> subprocess.Popen[bytes]:
    """As the supervisor starts it."""
    repository = Path(__file__).resolve().parent.parent
    env = {**os.environ, "PYTHONPATH": str(repository), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with (run.root / "log.txt").open("ab") as log:
        argv = [sys.executable, "-P", "-m", "jobs", verb, str(run.root)]
        return subprocess.Popen(argv, env=env, stdout=log, stderr=log, start_new_session=True, **more)


def until(run: RunDirectory, words: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while words not in run.log.read_text("utf-8"):
        assert process.poll() is None and time.monotonic() < deadline, run.log.read_text("utf-8")
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_that_was_ended_by_signals_goes_on_to_the_same_bytes(base: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"num_train_epochs": 20, "save_steps": 25, "lora_dropout": 0.05, "rows": 100}
    whole, broken = (make_run(tmp_path, base, **keys) for _ in range(2))
    assert job(whole).wait(timeout=200) == 0
    for words, number in (("checkpoint after step 50", signal.SIGKILL), ("checkpoint after step 125", signal.SIGTERM)):
        process = job(broken)
        until(broken, words, process)
        os.killpg(process.pid, number)
        assert process.wait(timeout=30) == (-number if number == signal.SIGKILL else 128 + number)
        assert not broken.result.exists()  # who asked for it says how the run ended
        assert not broken.adapter.exists()
    assert job(broken).wait(timeout=200) == 0
    one, other = figures(whole), figures(broken)
    assert len(other["resumed_from"]) == 2
    for key in ("losses", "evaluations", "best", "initial", "rows_trained", "padded_to_real_tokens", "baselines"):
        assert other[key] == one[key], key
    for folder in ("adapter", "probes"):
        for path in sorted((whole.artifacts / folder).iterdir()):
            assert (broken.artifacts / folder / path.name).read_bytes() == path.read_bytes(), path.name
    assert not broken.checkpoints.exists()


def test_a_checkpoint_of_another_spec_is_not_gone_on_from(base: Path, tmp_path: Path) -> None:
    one, other = make_run(tmp_path, base, num_train_epochs=1), make_run(tmp_path, base, num_train_epochs=2)
    Checkpoints(other.checkpoints, training._identity(submission.load(one.spec), one)).save(
        Checkpoint(3, {"a": np.zeros(1, np.float32)}, {})
    )
    with pytest.raises(JobError, match="a checkpoint of another training"):
        training.train(other.root)


def test_thinned_losses_are_means_over_stretches() -> None:
    assert training.thinned([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(2, 2.0), (3, 5.0)]
