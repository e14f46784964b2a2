"""Validation answered again on the host: the weights on disk are those that training chose by their scores."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_base_of, make_run, toy_rows
from torch.nn.functional import cross_entropy

from jobs import adapter, data, held_out, probes, reproduction, submission, training
from jobs import model as models
from jobs.__main__ import main
from jobs.checks import Check
from jobs.errors import BrokenRun
from jobs.run_directory import RunDirectory

ID2LABEL = {0: "bad", 1: "good"}


@pytest.fixture(scope="module", params=["no", "yes"], ids=["float32", "bfloat16"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Path]:
    """A run, two of whose validation texts are empty, and its base; not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    dtype = torch.bfloat16 if request.param == "yes" else torch.float32
    base = make_base_of("qwen3", folder / "base", dtype=dtype)
    rows = {"train": toy_rows(200, 0), "validation": [*toy_rows(200, 1), ("", "bad"), (" ", "good")]}
    run = make_run(folder, base, data={**rows, "test": toy_rows(20, 2)}, bf16=request.param, baselines=["frozen"])
    training.train(run.root)
    return run, base


def reproduced(run: RunDirectory, base: Path, **otherwise: Any) -> dict[str, Check]:
    rows = dataclasses.replace(held_out.of_run(run, submission.load(run.spec)), **otherwise)
    found = reproduction.reproduce(run.adapter, run.probes, base, where="host", held_out=rows)
    return {check.id: check for check in found}


def copied(run: RunDirectory, folder: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(run.root, folder / run.run_id)))


def save_again(run: RunDirectory, base: Path, change: Any) -> None:
    """Another adapter in the trained one's place, with probes of its own: nothing but validation can tell."""
    described, _ = probes.load(run.probes)
    dtype = getattr(torch, described.dtype)
    model = adapter.load(base, run.adapter, dtype=dtype, id2label=ID2LABEL, attention=described.attention)
    change(model)
    tokenizer, about = adapter.load_tokenizer(run.adapter), adapter.read_json(run.adapter / adapter.CLASSIFIER)
    adapter.save(
        model, tokenizer, run.adapter, base_name="b", revision="", id2label=ID2LABEL, max_length=about["max_length"],
    )  # fmt: skip
    probes.record(
        model, tokenizer, described.texts, base_folder=base, max_length=about["max_length"], id2label=ID2LABEL,
        folder=run.probes,
    )  # fmt: skip


@pytest.mark.parametrize("tokens_per_batch", [16, 128, "auto"])  # training had 128
def test_the_weights_that_were_chosen_have_the_scores_they_were_chosen_by(
    trained: tuple[RunDirectory, Path], tokens_per_batch: int | str
) -> None:
    checks = reproduced(*trained, tokens_per_batch=tokens_per_batch)
    assert {name: check for name, check in checks.items() if check.status != "pass"} == {}
    assert "on 200 rows" in checks["validation"].detail  # without the empty ones, as in training
    share = checks["validation"].tolerances
    assert share is not None and share < 0.5


def test_weights_of_another_step_are_caught_though_their_probes_agree(
    trained: tuple[RunDirectory, Path], tmp_path: Path
) -> None:
    """The last instead of the best: training that went on for a few steps after the best were found."""
    run, base = copied(trained[0], tmp_path), trained[1]
    rows = data.load_splits(run.root, submission.load(run.spec)).train

    def go_on(model: Any) -> None:
        token_ids = models.encode(adapter.load_tokenizer(run.adapter), rows.texts[:64], 48)
        width = max(map(len, token_ids))
        pad = models.pad_id_of(model)
        input_ids = torch.tensor([row + [pad] * (width - len(row)) for row in token_ids])
        learnt = [p.requires_grad_() for name, p in model.named_parameters() if "lora_" in name]
        optimizer = torch.optim.AdamW(learnt, lr=2e-3)
        for _ in range(4):
            cross_entropy(models.logits(model, input_ids), torch.from_numpy(rows.label_ids[:64])).backward()
            optimizer.step()
            optimizer.zero_grad()

    save_again(run, base, go_on)
    checks = reproduced(run, base)
    assert {name for name, check in checks.items() if check.status != "pass"} == {"validation"}


@pytest.mark.parametrize("trained", ["no"], indirect=True)
def test_finish_fails_a_run_whose_weights_are_not_the_ones_recorded(
    trained: tuple[RunDirectory, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(trained[0], tmp_path)
    record = json.loads(run.training.read_text())
    record["best"]["loss"] *= 1.5
    run.training.write_text(json.dumps(record))
    assert main(["finish", str(run.root)]) == 1
    assert json.loads(run.result.read_text())["reason"] == "verification: validation"
    assert "not the weights that training chose" in capsys.readouterr().out


@pytest.mark.parametrize("trained", ["no"], indirect=True)
def test_one_class_for_nearly_every_row_is_a_warning(trained: tuple[RunDirectory, Path], tmp_path: Path) -> None:
    run, base = copied(trained[0], tmp_path), trained[1]

    def lean(model: Any) -> None:
        """A head that sees "good" in what all texts have in common."""
        features = probes.forward(model, probes.load(run.probes)[0]).pooled.mean(axis=0)
        with torch.no_grad():
            models.head_of(model).weight[1] += torch.from_numpy(features) * 200 / float((features**2).sum())

    save_again(run, base, lean)
    found = reproduced(run, base)
    assert found["degenerate_validation"].status == "warn" and not found["degenerate_validation"].required
    assert "get 'good'; the largest class has 5" in found["degenerate_validation"].detail


@pytest.mark.parametrize("trained", ["no"], indirect=True)
@pytest.mark.parametrize(
    "best", [None, {"loss": 0.1}, {"loss": float("nan"), "accuracy": 1}, {"loss": 0, "accuracy": 2}]
)
def test_a_record_without_scores_is_an_error(trained: tuple[RunDirectory, Path], tmp_path: Path, best: Any) -> None:
    run = copied(trained[0], tmp_path)
    run.training.write_text(json.dumps({"best": best}))
    with pytest.raises(BrokenRun, match="best weights"):
        held_out.of_run(run, submission.load(run.spec))
