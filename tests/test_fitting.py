"""The optimizer loop: the same gradients however a step is cut up, the same bits after a break, reasons to stop."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import Loop, make_loop
from tiny import make_base
from torch import nn

from jobs import batches, fitting, inference, validation
from jobs import model as models
from jobs.checkpoint import Checkpoints
from jobs.errors import JobError
from jobs.events import parse_events
from jobs.spec import from_mapping


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


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


def test_no_epochs_is_an_error(base: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="num_train_epochs 0"):
        make_loop(base, tmp_path, num_train_epochs=0).fit()


def test_a_bf16_base_keeps_lora_and_head_in_float32(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, dtype=torch.bfloat16)
    kinds = {parameter.dtype for parameter in loop.model.parameters() if parameter.requires_grad}
    assert kinds == {torch.float32}
    fitted = loop.fit()
    assert all(math.isfinite(loss) for _, loss in fitted.losses)
    assert inference.logits(loop.model, list(loop.rows.token_ids)[:4], tokens_per_batch=64).dtype == np.float32


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_learning_rate_warms_up_and_falls(kind: str) -> None:
    document = {"name": "t", "model_name_or_path": "b", "data": "d", "lr_scheduler_type": kind, "warmup_ratio": 0.1}
    rates = [fitting.rate(done, 100, from_mapping(document)) for done in range(100)]
    assert 0 < rates[0] < 0.2
    assert max(rates) == rates[10] == 1.0
    assert (rates[99] < 0.05) == (kind != "constant")
    assert all(later <= earlier for earlier, later in zip(rates[10:], rates[11:], strict=False))


def test_evaluations_stay_cheap_and_always_see_the_end() -> None:
    assert validation.evaluation_steps(100, 50, 1_000, 100) == {17, 34, 50, 67, 84, 100}
    assert validation.evaluation_steps(100, 50, 1_000, 10) == {13, 25, 38, 50, 63, 75, 88, 100}
    assert validation.evaluation_steps(100, 50, 1_000, 5_000) == {50, 100}
    assert validation.evaluation_steps(500, 50, 1_000, 10) == set(range(50, 501, 50))
    assert validation.evaluation_steps(7, 50, 1_000, 5_000) == {7}


def test_a_golden_curve(base: Path, tmp_path: Path) -> None:
    """Losses of a tiny run, computed once: whatever changes them changes what everybody's training does."""
    fitted = make_loop(base, tmp_path, tokens_per_batch=4096, lora_r=4, num_train_epochs=2).fit()
    found = [round(loss, 3) for step, loss in fitted.losses if step in (1, 2, 3, 4, 8, 12, 16)]
    assert found == pytest.approx(GOLDEN, abs=5e-3)
    assert (fitted.best.loss if fitted.best else math.nan) == pytest.approx(GOLDEN_VALIDATION, abs=5e-3)


def plain_step(loop: Loop, spec: Any) -> dict[str, torch.Tensor]:
    """The textbook: rows in the order of the file, one at a time, transformers' own forward, torch's own AdamW."""
    model = loop.model.train()
    parameters = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    losses = []
    for row, label in zip(loop.rows.token_ids, loop.rows.label_ids, strict=True):
        ids = torch.tensor(row)[None].long()
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        losses.append(nn.functional.cross_entropy(logits, torch.tensor([int(label)])))
    torch.stack(losses).mean().backward()
    torch.nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
    optimizer.step()
    return loop.weights()


@pytest.mark.parametrize("budget", [64, 100_000])
def test_bucketed_and_padded_is_the_same_as_plain_order_and_unpadded(base: Path, tmp_path: Path, budget: int) -> None:
    # All rows are one step here, so that order cannot matter; what is left is padding, sorting and cutting up.
    keys = {"train_batch_size": 61, "warmup_ratio": 0, "lr_scheduler_type": "constant", "tokens_per_batch": budget}
    ours, plain = (make_loop(base, tmp_path, **keys) for _ in range(2))
    before = ours.weights()
    expected = plain_step(plain, plain.spec)
    # The gradient is compared, by what one step without the averaging and with the sign-like update of Adam would hide.
    fitting.fit(ours.model, ours.rows, ours.validation, ours.spec, ours.events)
    for name, weight in ours.weights().items():
        moved = expected[name] - before[name]
        # The kept weights are an average of before and after, the newest having a share of 9/10.
        assert torch.allclose(weight - before[name], 0.9 * moved, rtol=1e-2, atol=1e-5), name


def gradients(loop: Loop, rows: batches.Indices, budget: int) -> list[torch.Tensor]:
    loop.model.train()
    parameters = [one for one in loop.model.parameters() if one.requires_grad]
    for part in batches.micro_batches(rows, loop.rows.lengths, budget):
        ids = torch.from_numpy(batches.padded(loop.rows.token_ids, part, 0))
        loss = nn.functional.cross_entropy(
            models.logits(loop.model, ids), torch.from_numpy(loop.rows.label_ids[part]), reduction="sum"
        )
        fitting.add_gradients(parameters, torch.autograd.grad(loss, parameters), 1 / len(rows))
    return [one.grad for one in parameters if one.grad is not None]


def test_padding_does_not_change_a_gradient(base: Path, tmp_path: Path) -> None:
    rows = np.argsort(-make_loop(base, tmp_path).rows.lengths, kind="stable")[::3]
    padded = gradients(make_loop(base, tmp_path, lora_r=4), rows, 100_000)
    alone = gradients(make_loop(base, tmp_path, lora_r=4), rows, 1)
    assert len(padded) == len(alone) > 0
    for one, other in zip(padded, alone, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


GOLDEN = [1.086, 0.736, 0.342, 0.103, 0.602, 0.019, 0.264]
GOLDEN_VALIDATION = 0.241

KEYS: list[dict[str, Any]] = [
    {},
    {"lora_dropout": 0.1, "num_train_epochs": 2.5},
    {"lr_scheduler_type": "linear", "weight_decay": 0.1, "metric_for_best_model": "f1", "class_weights": "balanced"},
]


@pytest.mark.parametrize("keys", KEYS)
def test_going_on_from_a_checkpoint_is_bitwise_the_same(base: Path, tmp_path: Path, keys: dict[str, Any]) -> None:
    whole = make_loop(base, tmp_path, **keys)
    expected = whole.fit()
    weights = whole.weights()
    for after in range(1, expected.steps, 3):
        folder = tmp_path / f"after-{after}"
        broken = make_loop(base, tmp_path, save_steps=after, **keys)
        with pytest.raises(Breaks):
            broken.fit(checkpoints=BreaksAfterSaving(folder, "toy"), start={"initial": after})
        # Another process, as far as it goes: a new model, and random numbers from elsewhere.
        torch.manual_seed(999)
        again = make_loop(base, tmp_path, **keys)
        torch.manual_seed(999)
        found, problems = Checkpoints(folder, "toy").latest()
        assert found is not None
        assert (found.step, found.state["start"], problems) == (after, {"initial": after}, [])
        fitted = again.fit(found=found)
        assert fitted.losses == expected.losses
        assert fitted.evaluations == expected.evaluations
        assert (fitted.rows, fitted.tokens, fitted.padded_tokens) == (
            expected.rows, expected.tokens, expected.padded_tokens
        )  # fmt: skip
        assert fitted.resumed_from == [after]
        for name, weight in again.weights().items():
            assert torch.equal(weight, weights[name]), name


class Breaks(Exception):
    """The power went."""


class BreaksAfterSaving(Checkpoints):
    """Saves one checkpoint, and that was that."""

    def save(self, checkpoint: Any) -> None:
        super().save(checkpoint)
        raise Breaks


def test_asked_to_stop_it_leaves_a_checkpoint_and_says_so(base: Path, tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, threading\n"
        "sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "from pathlib import Path\n"
        "from loops import make_loop\n"
        "from jobs.checkpoint import Checkpoints\n"
        "from jobs.stopping import Stopped\n"
        "base, folder = Path(sys.argv[3]), Path(sys.argv[4])\n"
        "loop = make_loop(base, folder, num_train_epochs=500)\n"
        "threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "try:\n"
        "    loop.fit(checkpoints=Checkpoints(folder / 'checkpoints', 'toy'))\n"
        "except Stopped as error:\n"
        "    print('STOPPED', error.message)\n"
    )
    here = Path(__file__).resolve().parent
    argv = [sys.executable, "-c", code, str(here), str(here.parent), str(base), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    assert "STOPPED stopped after step" in done.stdout
    found, _ = Checkpoints(tmp_path / "checkpoints", "toy").latest()
    assert found is not None
    assert f"step {found.step} of 4000" in done.stdout


def test_a_full_disk_is_no_reason_to_stop(base: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file where a folder should be", "utf-8")
    loop = make_loop(base, tmp_path, save_steps=2)
    fitted = loop.fit(checkpoints=Checkpoints(blocked, "toy"))
    assert fitted.done == fitted.steps
    events = parse_events((tmp_path / "events.jsonl").read_text("utf-8").splitlines())
    assert "no checkpoint after step 2" in next(one["message"] for one in events if one["type"] == "warning")


def test_a_checkpoint_that_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Breaks):
        make_loop(base, tmp_path, save_steps=2).fit(checkpoints=BreaksAfterSaving(tmp_path / "c", "toy"))
    found, _ = Checkpoints(tmp_path / "c", "toy").latest()
    with pytest.raises(JobError, match="does not fit this training"):
        make_loop(base, tmp_path, lora_r=2).fit(found=found)


OUT_OF_MEMORY = """
import json, resource, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
import torch
from loops import make_loop
cap, budget, base, folder = int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]), Path(sys.argv[6])
loop = make_loop(base, folder, rows=4000, train_batch_size=4000, num_train_epochs=2, tokens_per_batch=budget)
list(loop.model(input_ids=torch.ones(1, 4).long()).logits)  # whatever is loaded late is there now
if cap:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (pages + cap, pages + cap))
fitted = loop.fit()
print(json.dumps([fitted.tokens_per_batch, fitted.losses]))
"""


def under_a_cap(base: Path, folder: Path, cap_bytes: int, budget: int) -> str:
    here = Path(__file__).resolve().parent
    argv = [sys.executable, "-c", OUT_OF_MEMORY, str(here), str(here.parent), str(cap_bytes), str(budget), str(base)]
    done = subprocess.run([*argv, str(folder)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_out_of_memory_halves_the_budget_and_trains_the_same(base: Path, tmp_path: Path) -> None:
    """A real cap on the address space: what does not fit fails in torch's own allocator."""
    free = json.loads(under_a_cap(base, tmp_path, 0, 100_000).splitlines()[-1])
    capped = under_a_cap(base, tmp_path, 100_000_000, 100_000)
    assert "warning: out of memory: going on with" in capped
    budget, losses = json.loads(capped.splitlines()[-1])
    assert free[0] == 100_000
    assert 100 < budget <= 50_000
    assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in free[1]], rel=1e-3)


def test_a_row_that_does_not_fit_by_itself_is_said(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    loop.model.get_base_model().model.register_forward_pre_hook(lambda *_: torch.empty(2**50) and None)
    with pytest.raises(JobError, match="out of memory with a single row of [0-9]+ tokens"):
        loop.fit()


def test_auto_finds_a_budget_by_a_trial_that_changes_nothing(base: Path, tmp_path: Path) -> None:
    fixed = make_loop(base, tmp_path, tokens_per_batch=100_000, lora_dropout=0.1)
    expected = fixed.fit()
    auto = make_loop(base, tmp_path, tokens_per_batch="auto", lora_dropout=0.1, rows=61)
    found = auto.fit()
    assert found.tokens_per_batch >= fitting.SMALLEST_BUDGET
    # 8 rows of at most 48 tokens fit into the smallest: the same batches, so the same bits, random numbers included
    assert 8 * int(auto.rows.lengths.max()) <= fitting.SMALLEST_BUDGET * 2
    assert [loss for _, loss in found.losses] == pytest.approx([loss for _, loss in expected.losses], rel=1e-5)


def test_rare_classes_weigh_more_and_labels_can_be_smoothed(base: Path, tmp_path: Path) -> None:
    assert fitting.class_weights(np.array([3, 1]), "none") is None
    balanced = fitting.class_weights(np.array([3, 1]), "balanced")
    assert balanced is not None
    assert balanced.tolist() == pytest.approx([2 / 3, 2.0])
    loop = make_loop(base, tmp_path, class_weights="balanced", label_smoothing_factor=0.2, tokens_per_batch=4096)
    rows = batches.epoch(loop.rows.lengths, 8, seed=loop.spec.seed, number=0)[0]
    with torch.no_grad():
        logits = models.logits(loop.model, torch.from_numpy(batches.padded(loop.rows.token_ids, rows, 0)))
    counts = np.bincount(loop.rows.label_ids)
    expected = 0.0
    for row, label in zip(nn.functional.log_softmax(logits, dim=1).numpy(), loop.rows.label_ids[rows], strict=True):
        weights = counts.sum() / (2 * counts)
        expected -= 0.8 * weights[label] * row[label] + 0.2 / 2 * float((weights * row).sum())
    assert loop.fit().losses[0][1] == pytest.approx(expected / len(rows), rel=1e-4)


def test_it_stops_when_validation_gets_no_better(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, num_train_epochs=100, early_stopping_patience=3, learning_rate=2e-2)
    fitted = loop.fit()
    assert fitted.done < fitted.steps
    assert fitted.stopped_early == "3 evaluations without a better loss"
    assert fitted.best is not None
    assert [one.step > fitted.best.step for one in fitted.evaluations].count(True) == 3
    assert min(one.loss for one in fitted.evaluations) == fitted.best.loss


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "f1", "mcc"])
def test_the_best_weights_are_the_best_by_the_metric_asked_for(base: Path, tmp_path: Path, metric: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    theirs = {
        "accuracy": sklearn.accuracy_score,
        "balanced_accuracy": sklearn.balanced_accuracy_score,
        "f1": lambda truth, found: sklearn.f1_score(truth, found, average="macro"),
        "mcc": sklearn.matthews_corrcoef,
    }
    loop = make_loop(base, tmp_path, num_train_epochs=4, metric_for_best_model=metric)
    fitted = loop.fit()
    assert fitted.best is not None
    assert fitted.best.score == max(one.score for one in fitted.evaluations)
    logits = inference.logits(loop.model, loop.validation.token_ids, tokens_per_batch=512)
    assert theirs[metric](loop.validation.label_ids, logits.argmax(axis=1)) == pytest.approx(fitted.best.score)


def test_the_first_steps_tell_what_the_rest_takes_and_costs(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, num_train_epochs=10, price=3600.0)
    fitted = loop.fit(spent_s=100.0)
    told = fitted.calibration
    assert told is not None
    assert told["cost"] == pytest.approx(told["total_s"])  # at one a second
    assert told["total_s"] > 100 + told["left_s"] > 100
    assert told["left_s"] == pytest.approx(fitted.seconds, rel=1.5)
    assert 0 < told["mfu"] < 1
    assert told["peak_bytes"] > 10_000_000
    events = parse_events((tmp_path / "events.jsonl").read_text("utf-8").splitlines())
    assert [one["type"] for one in events].count("calibration") == 1


def test_what_costs_too_much_is_not_trained(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path, num_train_epochs=1000, price=3600.0, max_cost=0.5)
    with pytest.raises(JobError, match=r"would cost about .* more than max_cost 0.5 \(estimate of 17 measured steps"):
        loop.fit()
