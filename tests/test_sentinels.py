"""Trainings that would bring nothing home end early, with the reason; healthy ones are left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from loops import Loop, make_loop
from tiny import make_base, make_run

from jobs import fitting, training
from jobs import model as models
from jobs.sentinels import Sentinels, TrainingIsFutile


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


def test_lora_without_any_gradient_is_stopped_after_the_first_step(base: Path, tmp_path: Path) -> None:
    """The disaster: the hidden states are cut off from the graph, as reentrant checkpointing does; the head learns."""
    loop = make_loop(base, tmp_path)
    cut_off = loop.model.get_base_model().model
    cut_off.register_forward_hook(lambda _m, _i, out: setattr(out, "last_hidden_state", out.last_hidden_state.detach()))
    before = loop.weights()
    with pytest.raises(TrainingIsFutile, match="14 of 14 lora_B matrices get no gradient in the first step"):
        loop.fit()
    assert all(torch.equal(now, before[name]) for name, now in loop.weights().items())


def test_the_head_alone_would_have_learnt(base: Path, tmp_path: Path) -> None:
    """What the sentinel above prevents: without LoRA's gradient the loss falls all the same."""
    loop = make_loop(base, tmp_path, rows=200, num_train_epochs=3, learning_rate=2e-2)
    for name, parameter in loop.model.named_parameters():
        parameter.requires_grad_("score.modules_to_save" in name)
    parameters = [one for one in loop.model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-2)
    losses = []
    for _ in range(30):
        ids = torch.from_numpy(fitting.batches.padded(loop.rows.token_ids, np.arange(64), 0))
        loss = torch.nn.functional.cross_entropy(
            models.logits(loop.model, ids), torch.from_numpy(loop.rows.label_ids[:64])
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def freeze(loop: Loop, part: str) -> Loop:
    """Give every gradient of `part`'s lora_B the value zero, without making it none."""
    for name, parameter in loop.model.named_parameters():
        if part in name and ".lora_B." in name:
            parameter.register_hook(torch.zeros_like)
    return loop


def test_a_layer_that_never_moves_is_noticed_within_twenty_steps(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingIsFutile, match="2 of 14 lora_B matrices are still zero after step 20, first .*v_proj"):
        freeze(make_loop(base, tmp_path, num_train_epochs=10), "v_proj").fit()


def test_in_a_short_training_by_its_last_step(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingIsFutile, match="still zero after step 8"):
        freeze(make_loop(base, tmp_path), "v_proj").fit()


def test_a_learning_rate_of_nothing_is_noticed_at_once(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingIsFutile, match="14 of 14 lora_B matrices are still zero after step 1"):
        make_loop(base, tmp_path, learning_rate=0.0).fit()


def test_texts_of_a_single_token_are_no_fault(base: Path, tmp_path: Path) -> None:
    """Attention over one token gives its query and key no gradient; by the twentieth step they had their chance."""
    loop = make_loop(base, tmp_path, num_train_epochs=3)
    rows = [[1 + index % 2, 5, 2] if index > 8 else [5] for index in range(61)]
    rows = [*rows[9:], *rows[:9]]
    one = fitting.Encoded(fitting.batches.Tokens(rows), loop.rows.label_ids)
    fitting.fit(loop.model, one, loop.validation, loop.spec, loop.events)


def test_a_loss_of_exactly_zero_is_no_success(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    with torch.no_grad():
        models.head_of(loop.model).weight.mul_(1e4)
        truth = torch.from_numpy(loop.rows.label_ids)
        ids = torch.from_numpy(fitting.batches.padded(loop.rows.token_ids, np.arange(61), 0))
        said = models.logits(loop.model, ids).argmax(dim=1)
    label_ids = said.numpy() if len(set(said.tolist())) > 1 else truth.numpy()
    rows = fitting.Encoded(loop.rows.token_ids, label_ids)
    with pytest.raises(TrainingIsFutile, match="the loss is exactly 0 at step 1"):
        fitting.fit(loop.model, rows, loop.validation, loop.spec, loop.events)


def watch(shares: list[float], base: Path, folder: Path) -> Sentinels:
    return Sentinels(make_loop(base, folder).model, np.array(shares))


def test_one_answer_to_everything_twice_in_a_row(base: Path, tmp_path: Path) -> None:
    sentinels = watch([0.5, 0.5], base, tmp_path)
    always = np.tile(np.array([[0.0, 4.0]], np.float32), (10, 1))
    truth = np.array([0, 1] * 5)
    sentinels.validation(10, 100, always, truth)  # the first quarter is for finding one's way
    sentinels.validation(30, 100, always, truth)
    with pytest.raises(TrainingIsFutile, match="every validation text gets the same class"):
        sentinels.validation(40, 100, always, truth)


@pytest.mark.parametrize(
    ("logits", "truth"),
    [
        ([[0.0, 0.1], [0.0, 2.0]], [0, 1]),  # one class, but the loss is better than the shares'
        ([[0.0, 4.0], [0.0, 4.0]], [1, 1]),  # that is how the split is
        ([[4.0, 0.0], [0.0, 4.0]], [1, 0]),  # all wrong, but two classes
    ],
)
def test_what_is_not_a_collapse(base: Path, tmp_path: Path, logits: Any, truth: Any) -> None:
    sentinels = watch([0.5, 0.5], base, tmp_path)
    for step in (50, 60, 70):
        sentinels.validation(step, 100, np.array(logits * 5, np.float32), np.array(truth * 5))


def test_a_run_that_is_futile_leaves_no_adapter(base: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, base, learning_rate=0.0)
    with pytest.raises(TrainingIsFutile):
        training.train(run.root)
    assert not run.adapter.exists()
    assert not run.training.exists()
