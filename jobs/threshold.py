"""The P(positive) from which on a row is called positive: what to aim at, the threshold that does it, what it achieves.

numpy only, so that the command line can read a goal.  A threshold is to be chosen on validation rows; that is for the
caller to see to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from jobs.errors import SpecError
from jobs.score import Booleans, Floats, Integers, need_rows

PLAIN_GOALS = ("accuracy", "f1", "balanced_accuracy")
BOUNDED_GOALS = ("precision", "recall")
FIGURES = (
    "accuracy", "balanced_accuracy", "precision", "recall", "f1", "specificity", "predicted_positive_rate",
)  # fmt: skip
ALLOWED = "accuracy, f1, balanced_accuracy, precision>=0.95, recall>=0.95"
DEFAULT = 0.5
DIGITS = 10
"""Decimals of a threshold, as everywhere in metrics.json: probabilities that lie closer can't be parted."""

_BOUNDED = re.compile(r"(precision|recall)\s*>=\s*([0-9]{0,3}\.?[0-9]{1,12})")


@dataclass(frozen=True)
class Goal:
    """The metric to make as large as it can be; for precision and recall, what is to be kept `at_least`."""

    metric: str
    at_least: float | None = None

    def __str__(self) -> str:
        if self.at_least is None:
            return self.metric
        return f"{self.metric}>={self.at_least:.12f}".rstrip("0")


@dataclass(frozen=True)
class Threshold:
    """Rows with P(positive) >= value are called positive; whether the goal is `reached` so, and what is `achieved`."""

    value: float
    reached: bool
    achieved: dict[str, float | None]


@dataclass(frozen=True, eq=False)
class _Outcomes:
    """Rows called positive, and those of them that are, at every threshold (K,), of `positives` and `negatives`."""

    thresholds: Floats
    called: Integers
    hits: Integers
    positives: int
    negatives: int


def parse(text: str) -> Goal:
    """The goal that `text` names: accuracy, f1, balanced_accuracy, precision>=X or recall>=X, 0 < X < 1.

    Raises SpecError.
    """
    plain = text.strip().lower()
    if plain in PLAIN_GOALS:
        return Goal(plain)
    if plain in BOUNDED_GOALS:
        raise _refused(text, f"{plain} alone is best at a useless threshold: say how much, {plain}>=0.95")
    if not (match := _BOUNDED.fullmatch(plain)):
        raise _refused(text, "not a goal")
    at_least = float(match[2])
    if not 0 < at_least < 1:
        raise _refused(text, f"{match[1]} can be asked for between 0 and 1, both not included")
    return Goal(match[1], at_least)


def choose(p_positive: Floats, positive: Booleans, goal: Goal) -> Threshold:
    """The best threshold for `goal` among the midpoints of neighbouring probabilities, 0 and 1 being neighbours, too.

    p_positive (N,) in [0, 1]; positive (N,) bool.  precision>=X has the largest recall with that precision, and
    recall>=X the largest precision; where none has it, the one that comes closest, and `reached` is False.  Of equals
    the one nearest to 0.5.  With rows of one class only there is nothing to choose: 0.5, not reached.
    Raises NoData when N is 0.
    """
    need_rows(positive)
    if positive.all() or not positive.any():
        return Threshold(DEFAULT, False, figures_at(p_positive, positive, DEFAULT))
    outcomes = _outcomes(p_positive.astype(np.float64), positive)
    wanted, reached = _wanted(outcomes, goal)
    nearness = -np.abs(outcomes.thresholds - DEFAULT).round(DIGITS)
    best = np.lexsort((-outcomes.thresholds, nearness, *reversed(wanted)))[-1]
    value = float(outcomes.thresholds[best])
    return Threshold(value, bool(reached[best]), figures_at(p_positive, positive, value))


def figures_at(p_positive: Floats, positive: Booleans, threshold: float) -> dict[str, float | None]:
    """What rows called positive from `threshold` on come to, in [0, 1]; None where a figure has no value.

    Those of `FIGURES`; p_positive (N,), positive (N,) bool.  Raises NoData when N is 0.
    """
    need_rows(positive)
    called = p_positive >= threshold
    hits, said, real = (int(flags.sum()) for flags in (called & positive, called, positive))
    rows, negatives = len(positive), len(positive) - real
    rejected = negatives - (said - hits)
    recall, specificity = _share(hits, real), _share(rejected, negatives)
    recalls = [value for value in (recall, specificity) if value is not None]
    return {
        "accuracy": _share(hits + rejected, rows),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "precision": _share(hits, said),
        "recall": recall,
        "f1": _share(2 * hits, said + real),
        "specificity": specificity,
        "predicted_positive_rate": _share(said, rows),
    }


def _outcomes(probability: Floats, positive: Booleans) -> _Outcomes:
    values = np.unique(np.concatenate([[0.0], probability, [1.0]]))
    middles = ((values[:-1] + values[1:]) / 2).round(DIGITS)
    # Rounded, or between neighbouring floats, a middle may lie on or beyond one of the two that it is to part.
    thresholds = middles[(values[:-1] < middles) & (middles <= values[1:]) & (middles < 1)]
    order = np.argsort(probability, kind="stable")
    below = np.searchsorted(probability[order], thresholds, side="left")
    hits_below = np.concatenate([[0], np.cumsum(positive[order])])[below]
    positives = int(positive.sum())
    return _Outcomes(thresholds, len(positive) - below, positives - hits_below, positives, len(positive) - positives)


def _wanted(at: _Outcomes, goal: Goal) -> tuple[list[Floats], Booleans]:
    """What is to be large, first things first, and where the goal is reached: arrays (K,)."""
    rejected = at.negatives - (at.called - at.hits)
    every = np.ones(len(at.thresholds), bool)
    if goal.metric == "accuracy":
        return [(at.hits + rejected).astype(np.float64)], every
    if goal.metric == "balanced_accuracy":
        # Twice the mean of recall and specificity as a whole number: equals are equal to the last digit.
        return [(at.hits * at.negatives + rejected * at.positives).astype(np.float64)], every
    if goal.metric == "f1":
        return [2 * at.hits / (at.called + at.positives)], every
    recall = at.hits / at.positives
    # Nothing called positive has no precision; it never is what was wanted.
    precision = np.where(at.called > 0, at.hits / np.maximum(at.called, 1), -1.0)
    kept, other = (precision, recall) if goal.metric == "precision" else (recall, precision)
    reached = (kept >= (goal.at_least or 0.0)) & (at.called > 0)
    if not reached.any():
        return [kept, other], reached
    return [reached.astype(np.float64), other, kept], reached


def _share(count: int, of: int) -> float | None:
    return count / of if of else None


def _refused(text: str, problem: str) -> SpecError:
    return SpecError(f"goal {text!r:.60}", [problem], hint=f"goals are {ALLOWED}")
