"""How a training does on the validation split: when it is looked at, its scores, and which weights are the best so far.

Owns the choice; knows nothing of models, and takes its figures from `metrics`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import head, metrics
from jobs.errors import JobError
from jobs.spec import Spec

VALIDATION_SHARE = 0.1
"""At most about this share of the training's time is spent on looking at the validation split between epochs' ends."""


@dataclass(frozen=True)
class Evaluation:
    """The validation split after `step` steps: mean loss in nats, accuracy in [0, 1], `score` by the spec's metric."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    score: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"epoch": round(self.epoch, 4)}


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


def evaluate(
    logits: NDArray[np.float32], label_ids: NDArray[np.int64], step: int, epoch: float, spec: Spec
) -> Evaluation:
    """Scores of logits (N, C) on label_ids (N,).  Raises JobError when the loss is not finite."""
    found = scores(logits, label_ids)
    loss = finite(found["loss"], f"validation loss is not finite at step {step}")
    score = loss if spec.metric_for_best_model == "loss" else METRICS[spec.metric_for_best_model](logits, label_ids)
    return Evaluation(step, epoch, loss, found["accuracy"], score)


def _f1(logits: NDArray[np.float32], label_ids: NDArray[np.int64]) -> float:
    found = metrics.per_class(label_ids, logits.argmax(axis=1), logits.shape[1])
    return metrics.macro(found, "f1").value or 0.0


def _mcc(logits: NDArray[np.float32], label_ids: NDArray[np.int64]) -> float:
    # Where one class is all there is MCC is undefined; as a reason to keep weights that is as good as chance.
    return metrics.matthews_correlation(label_ids, logits.argmax(axis=1)).value or 0.0


def _balanced(logits: NDArray[np.float32], label_ids: NDArray[np.int64]) -> float:
    return metrics.balanced_accuracy(metrics.per_class(label_ids, logits.argmax(axis=1), logits.shape[1]))


METRICS: dict[str, Callable[[NDArray[np.float32], NDArray[np.int64]], float]] = {
    "accuracy": lambda logits, label_ids: scores(logits, label_ids)["accuracy"],
    "balanced_accuracy": _balanced,
    "f1": _f1,
    "mcc": _mcc,
}


def is_better(one: Evaluation, other: Evaluation, metric: str) -> bool:
    """Whether `one` is the one to keep; of equal scores the one with the lower loss."""
    if metric == "loss":
        return one.loss < other.loss
    return (one.score, -one.loss) > (other.score, -other.loss)


def finite(loss: float, otherwise: str) -> float:
    """`loss`, if it is a number.  Raises JobError with the words of `otherwise`."""
    if not math.isfinite(loss):
        raise JobError(otherwise, hint="a lower learning_rate, or bf16: no")
    return loss
