"""The optimizer loop: from a model with LoRA around it to the weights that validate best.

Owns steps, schedule, averaging and when to look at the validation split; knows nothing of files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor
from torch.nn import Parameter, functional

from jobs import batches, head, inference
from jobs import model as models
from jobs.average import Average
from jobs.errors import JobError
from jobs.events import EventLog
from jobs.log_line import say
from jobs.spec import Spec

SECONDS_BETWEEN_EVENTS = 0.5
SECONDS_BETWEEN_LINES = 5.0

VALIDATION_SHARE = 0.1
"""At most about this share of the training's time is spent on looking at the validation split between epochs' ends."""


@dataclass(frozen=True)
class Encoded:
    """One split as the model sees it: N rows of token ids, their lengths (N,), and label_ids (N,)."""

    token_ids: list[list[int]]
    label_ids: NDArray[np.int64]
    lengths: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "lengths", np.array([len(row) for row in self.token_ids], dtype=np.int64))


@dataclass(frozen=True)
class Evaluation:
    """The validation split after `step` steps: mean loss in nats, accuracy in [0, 1]."""

    step: int
    epoch: float
    loss: float
    accuracy: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"epoch": round(self.epoch, 4)}


@dataclass
class Fitted:
    """What the loop did; `losses` are (step, mean loss a row since the last entry)."""

    steps: int = 0
    rows: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    best: Evaluation | None = None


def fit(model: PeftModel, train_rows: Encoded, validation_rows: Encoded, spec: Spec, events: EventLog) -> Fitted:
    """Train `model` in place and leave the averaged weights in it that had the lowest validation loss.

    Raises JobError as soon as a loss is not finite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    device = models.head_of(model).weight.device
    steps_per_epoch = math.ceil(len(train_rows.token_ids) / spec.train_batch_size)
    steps = round(spec.num_train_epochs * steps_per_epoch)
    if steps == 0:
        raise JobError(f"num_train_epochs {spec.num_train_epochs:g} is no step at all", hint="num_train_epochs: 3")
    evaluate_at = evaluation_steps(
        steps, steps_per_epoch, int(train_rows.lengths.sum()), int(validation_rows.lengths.sum())
    )
    optimizer = torch.optim.AdamW(
        parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=device.type != "mps"
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: rate(done, steps, spec))
    label_ids = torch.from_numpy(train_rows.label_ids).to(device)  # (N,)
    average = Average(parameters)
    fitted, reporter = Fitted(steps=steps), Reporter(events, steps, steps_per_epoch)
    best_weights: list[Tensor] = []
    pending: tuple[int, Tensor] | None = None
    # Random numbers have one order only in one thread.
    lanes = 1 if device.type != "cpu" or models.draws_random_numbers(model) else torch.get_num_threads()

    def loss_and_gradients(rows: batches.Indices) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Of the rows of one micro-batch, each summed over them."""
        input_ids = torch.from_numpy(batches.padded(train_rows.token_ids, rows, models.pad_id_of(model)))  # (B, T)
        logits = models.logits(model, input_ids.to(device))  # (B, C) float32
        loss = functional.cross_entropy(logits, label_ids[torch.from_numpy(rows)], reduction="sum")
        return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

    model.train()
    with inference.lanes(device, lanes) as parallel:
        for step, micro_batches in enumerate(_steps(train_rows, steps, steps_per_epoch, spec, lanes), start=1):
            rows_in_step = sum(map(len, micro_batches))
            step_loss = torch.zeros((), device=device)
            for loss, gradients in parallel(loss_and_gradients, micro_batches):
                # Sums, divided by the rows of the whole step: the mean a row, however the step was cut up.
                step_loss += loss / rows_in_step
                add_gradients(parameters, gradients, 1 / rows_in_step)
            if spec.max_grad_norm > 0:
                torch.nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            learning_rate = float(schedule.get_last_lr()[0])
            schedule.step()
            average.update()

            # The loss of the step before is looked at while a GPU still works on this one: no waiting, one step late.
            if pending is not None:
                fitted.losses.append(
                    (pending[0], finite(pending[1].item(), f"loss is not finite at step {pending[0]}"))
                )
            pending = (step, step_loss)
            fitted.rows += rows_in_step
            fitted.tokens += int(sum(train_rows.lengths[rows].sum() for rows in micro_batches))
            fitted.padded_tokens += batches.padded_tokens(micro_batches, train_rows.lengths)
            reporter.step(step, fitted, learning_rate)

            if step in evaluate_at:
                fitted.losses.append((step, finite(step_loss.item(), f"loss is not finite at step {step}")))
                pending = None
                with average.in_place():
                    evaluation = validate(model, validation_rows, step, step / steps_per_epoch, spec, parallel)
                    fitted.evaluations.append(evaluation)
                    better = fitted.best is None or evaluation.loss < fitted.best.loss
                    if better:
                        fitted.best = evaluation
                        best_weights = [parameter.detach().clone() for parameter in parameters]
                reporter.evaluation(evaluation, better)

    with torch.no_grad():
        for parameter, best in zip(parameters, best_weights, strict=True):
            parameter.copy_(best)
    model.eval()
    return fitted


def add_gradients(parameters: list[Parameter], gradients: tuple[Tensor | None, ...], scale: float) -> None:
    """Add scaled gradients to what the parameters have; None stands for a parameter that took no part."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            scaled = gradient.mul_(scale)
            parameter.grad = scaled if parameter.grad is None else parameter.grad.add_(scaled)


def validate(
    model: PeftModel, rows: Encoded, step: int, epoch: float, spec: Spec, parallel: inference.Parallel
) -> Evaluation:
    """Loss and accuracy on validation rows.  Raises JobError when the loss is not finite."""
    budget = inference.budget(spec.tokens_per_batch, models.head_of(model).weight.device)
    logits = inference.logits(model, rows.token_ids, tokens_per_batch=budget, parallel=parallel)  # (N, C)
    found = scores(logits, rows.label_ids)
    loss = finite(found["loss"], f"validation loss is not finite at step {step}")
    return Evaluation(step, epoch, loss, found["accuracy"])


def finite(loss: float, otherwise: str) -> float:
    """`loss`, if it is a number.  Raises JobError with the words of `otherwise`."""
    if not math.isfinite(loss):
        raise JobError(otherwise, hint="a lower learning_rate, or bf16: no")
    return loss


def rate(done: int, steps: int, spec: Spec) -> float:
    """Share of the peak learning rate for the step after `done` steps: linear warm-up, then the spec's schedule."""
    warmup = round(spec.warmup_ratio * steps)
    if done < warmup:
        return (done + 1) / (warmup + 1)
    left = 1 - (done - warmup) / max(1, steps - warmup)  # 1 at the end of the warm-up, 0 after the last step
    if spec.lr_scheduler_type == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    return left if spec.lr_scheduler_type == "linear" else 1.0


def evaluation_steps(steps: int, steps_per_epoch: int, train_tokens: int, validation_tokens: int) -> frozenset[int]:
    """Steps after which to look at the validation split: every epoch's end and the last step; in runs of at most three
    epochs up to four times an epoch, where that costs little beside the training."""
    # A row costs about three times as much in training (forward, backward) as in validation (forward).
    affordable = int(VALIDATION_SHARE * 3 * train_tokens / max(1, validation_tokens))
    per_epoch = max(1, min(4, affordable)) if steps <= 3 * steps_per_epoch else 1
    spaced = (math.ceil(turn * steps_per_epoch / per_epoch) for turn in range(1, per_epoch * steps + 1))
    return frozenset(step for step in spaced if step <= steps) | {steps}


def scores(logits: NDArray[np.float32], label_ids: NDArray[np.int64]) -> dict[str, float]:
    """`loss` in nats a row and `accuracy` of logits (N, C) against label_ids (N,)."""
    correct = logits.argmax(axis=1) == label_ids
    return {"loss": head.cross_entropy(logits, label_ids), "accuracy": float(correct.mean())}


def _steps(rows: Encoded, steps: int, steps_per_epoch: int, spec: Spec, lanes: int) -> Iterator[list[batches.Indices]]:
    """The micro-batches of `steps` optimizer steps, epoch after epoch, each in another order."""
    tokens_per_batch = spec.tokens_per_batch if isinstance(spec.tokens_per_batch, int) else 4096
    for epoch in range(math.ceil(steps / steps_per_epoch)):
        left = steps - epoch * steps_per_epoch
        yield from batches.training_steps(
            rows.lengths, spec.train_batch_size, tokens_per_batch, seed=spec.seed, epoch=epoch, lanes=lanes
        )[:left]


class Reporter:
    """Tells how the loop goes: events at most twice a second, lines at most every five seconds."""

    def __init__(self, events: EventLog, steps: int, steps_per_epoch: int) -> None:
        self._events, self._steps, self._steps_per_epoch = events, steps, steps_per_epoch
        self._start = self._last_event = self._last_line = time.monotonic()

    def step(self, step: int, fitted: Fitted, learning_rate: float) -> None:
        now = time.monotonic()
        if not fitted.losses or (now - self._last_event < SECONDS_BETWEEN_EVENTS and step < self._steps):
            return
        self._last_event = now
        elapsed = max(now - self._start, 1e-9)
        recent = [loss for _, loss in fitted.losses[-20:]]
        values = {
            "epoch": round(step / self._steps_per_epoch, 4),
            "loss": round(sum(recent) / len(recent), 6),
            "learning_rate": learning_rate,
            "rows_per_s": round(fitted.rows / elapsed, 1),
            "tokens_per_s": round(fitted.tokens / elapsed, 1),
            "eta_s": round(elapsed / step * (self._steps - step), 1),
        }
        self._events.write("step", step=step, steps=self._steps, **values)
        if now - self._last_line >= SECONDS_BETWEEN_LINES or step == self._steps:
            self._last_line = now
            say(
                f"step {step}/{self._steps}  epoch {values['epoch']:.2f}  loss {values['loss']:.4f}"
                f"  lr {learning_rate:.1e}  {values['rows_per_s']:.0f} rows/s  ETA {values['eta_s']:.0f} s"
            )

    def evaluation(self, evaluation: Evaluation, best: bool) -> None:
        self._events.write("eval", **evaluation.to_json())
        say(
            f"step {evaluation.step}/{self._steps}  validation loss {evaluation.loss:.4f}"
            f"  accuracy {evaluation.accuracy:.4f}{'  (best so far)' if best else ''}"
        )
