"""Metrics of what a classifier said against what is true, each row by its label; knows nothing of probabilities.

A metric that has no value (no row predicted positive, one class only) is a Score whose value is None and
whose reason says why; it is never 0.  Zero rows raise NoData everywhere.  scikit-learn is imported where it is used,
so that importing this module costs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jobs.errors import NoData
from jobs.score import Floats, Integers, Score, mean, need_rows


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest: rows that are of it, rows predicted to be, and its scores in [0, 1]."""

    support: int
    predicted: int
    precision: Score
    recall: Score
    f1: Score
    specificity: Score


@dataclass(frozen=True)
class Averages:
    """Precision, recall and F1 over the classes: `macro`, `micro` or `weighted`."""

    precision: Score
    recall: Score
    f1: Score


def accuracy(truth: Integers, predicted: Integers) -> float:
    """Share of rows in [0, 1] where both (N,) agree.  Raises NoData when N is 0."""
    need_rows(truth)
    return float(np.mean(truth == predicted))


def confusion_matrix(truth: Integers, predicted: Integers, classes: int) -> Integers:
    """Rows counted, (C, C) int64: [true class, predicted class].  Raises NoData when N is 0."""
    from sklearn.metrics import confusion_matrix as counted

    need_rows(truth)
    return np.asarray(counted(truth, predicted, labels=range(classes)), np.int64)


def per_class(truth: Integers, predicted: Integers, classes: int) -> tuple[ClassScores, ...]:
    """Scores of every class 0..classes-1 against the rest.  Raises NoData when N is 0.

    Precision is undefined for a class never predicted, recall for a class without rows, F1 where both hold,
    specificity for a class that all rows are of.
    """
    from sklearn.metrics import precision_recall_fscore_support

    need_rows(truth)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(classes), zero_division=np.nan
    )
    said = np.bincount(predicted, minlength=classes)
    right = np.bincount(truth[truth == predicted], minlength=classes)
    others = len(truth) - support
    with np.errstate(invalid="ignore"):
        specificity = (others - (said - right)) / others
    return tuple(
        ClassScores(
            support=int(support[c]),
            predicted=int(said[c]),
            precision=_score(precision[c], "no row was predicted to be of this class"),
            recall=_score(recall[c], "no row is of this class"),
            f1=_score(f1[c], "no row is, or was predicted to be, of this class"),
            specificity=_score(specificity[c], "all rows are of this class"),
        )
        for c in range(classes)
    )


def macro(scores: Sequence[ClassScores], metric: str) -> Score:
    """Unweighted mean of precision, recall or f1 over the classes that occur in truth or predictions.

    None where one of them has no value: leaving it out would reward a model for never naming a hard class.
    """
    return _averaged(scores, metric, [1 if one.support or one.predicted else 0 for one in scores])


def averages(scores: Sequence[ClassScores], correct: int) -> dict[str, Averages]:
    """`macro` (see there), `micro` (over rows) and `weighted` (by the rows of each class) precision, recall and F1.

    correct: rows whose label was right.  Micro averages are all the accuracy, as every row has one label and gets one.
    Raises NoData without rows.
    """
    supports = [one.support for one in scores]
    if not sum(supports):
        raise NoData("averages: no rows")
    names, right = ("precision", "recall", "f1"), Score(correct / sum(supports))
    return {
        "macro": Averages(*(macro(scores, name) for name in names)),
        "micro": Averages(right, right, right),
        "weighted": Averages(*(_averaged(scores, name, supports) for name in names)),
    }


def balanced_accuracy(scores: Sequence[ClassScores]) -> float:
    """Mean recall in [0, 1] over the classes that have rows; 0.5 if a binary model always says the same."""
    recalls = [one.recall.value for one in scores if one.recall.value is not None]
    if not recalls:
        raise NoData("balanced accuracy: no rows")
    return mean(recalls)


def matthews_correlation(truth: Integers, predicted: Integers) -> Score:
    """MCC in [-1, 1]; undefined where truth or predictions (N,) name one class only (scikit-learn says 0)."""
    from sklearn.metrics import matthews_corrcoef

    need_rows(truth)
    if np.all(truth == truth[0]):
        return Score(None, "all rows are of one class")
    if np.all(predicted == predicted[0]):
        return Score(None, "one class was predicted for every row")
    return Score(float(matthews_corrcoef(truth, predicted)))


def predicted_positive_rate(predicted: Integers, positive: int) -> float:
    """Share of rows in [0, 1] that were predicted to be of class `positive`.  Raises NoData when N is 0."""
    need_rows(predicted)
    return float(np.mean(predicted == positive))


class Decisions:
    """The metrics of weighted rows, for the bootstrap, NaN where a resample leaves one undefined.

    Of two classes precision, recall and F1 are those of `positive`; None stands for macro averages.
    """

    def __init__(self, truth: Integers, predicted: Integers, classes: int, positive: int | None) -> None:
        need_rows(truth)
        self._truth, self._predicted, self._classes, self._positive = truth, predicted, classes, positive

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """Values (R,) by name, of weights (R, N)."""
        rows = weights.sum(axis=1)
        support, said = self._counted(self._truth, weights), self._counted(self._predicted, weights)
        right = self._counted(self._truth, weights * (self._truth == self._predicted))
        with np.errstate(invalid="ignore"):
            recall, precision, f1 = right / support, right / said, 2 * right / (support + said)
            mcc = _correlation(right.sum(axis=1), support, said, rows)
        found = {"balanced_accuracy": np.nanmean(recall, axis=1), "mcc": mcc}
        per_class = {"precision": precision, "recall": recall, "f1": f1}
        if self._positive is None:
            occurs = (support > 0) | (said > 0)
            return found | {
                name: np.where(occurs, values, 0).sum(axis=1) / occurs.sum(axis=1) for name, values in per_class.items()
            }
        rate = said[:, self._positive] / rows
        return found | {"predicted_positive_rate": rate, "f1": f1[:, self._positive]}

    def _counted(self, labels: Integers, weights: Floats) -> Floats:
        """Weight of every class, (R, C)."""
        resamples = len(weights)
        place = (labels + self._classes * np.arange(resamples)[:, None]).ravel()
        sums = np.bincount(place, weights.ravel(), self._classes * resamples)
        return np.asarray(sums, np.float64).reshape(resamples, self._classes)


def _correlation(right: Floats, support: Floats, said: Floats, rows: Floats) -> Floats:
    """MCC (R,) of right (R,), support and said (R, C): Gorodkin 2004, Computational Biology and Chemistry 28."""
    spread = (rows**2 - (support**2).sum(axis=1)) * (rows**2 - (said**2).sum(axis=1))
    return np.asarray((right * rows - (support * said).sum(axis=1)) / np.where(spread > 0, np.sqrt(spread), np.nan))


def _averaged(scores: Sequence[ClassScores], metric: str, weights: Sequence[int]) -> Score:
    if not any(weights):
        raise NoData(f"average {metric}: no rows")
    parts = []
    for one, weight in zip(scores, weights, strict=True):
        score: Score = getattr(one, metric)
        if weight and score.value is None:
            return Score(None, f"for one class, {score.reason}")
        if weight and score.value is not None:
            parts.append(weight * score.value)
    return Score(math.fsum(parts) / sum(weights))


def _score(value: float, reason: str) -> Score:
    return Score(None, reason) if math.isnan(value) else Score(float(value))
