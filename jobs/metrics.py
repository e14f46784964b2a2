"""Metrics of a classifier as pure functions on arrays; knows nothing of files, models or screens.

A metric that has no value (no row predicted positive, one class only) is a Score whose value is None and
whose reason says why; it is never 0.  Zero rows raise NoData everywhere.  scikit-learn and SciPy are imported
where they are used, so that importing this module costs numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.errors import NoData

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


class Score(NamedTuple):
    """A metric's value, or None and the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest: rows that are of it, rows predicted to be, and its scores in [0, 1]."""

    support: int
    predicted: int
    precision: Score
    recall: Score
    f1: Score


@dataclass(frozen=True)
class Bin:
    """The rows with low < confidence <= high; means are None where `count` is 0."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities (N, C) float64 of logits (N, C): rows sum to 1.  Raises NoData when N is 0."""
    _need_rows(logits)
    exponentials = np.exp(_shifted(logits))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def log_softmax(logits: npt.NDArray[Any]) -> Floats:
    """Natural logarithm of `softmax`, finite also where the probability is too small for a float."""
    _need_rows(logits)
    shifted = _shifted(logits)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_odds(logits: npt.NDArray[Any]) -> Floats:
    """log(p / (1 - p)) of every class, (N, C) float64: orders rows as p does, without its ties near 0 and 1.

    logits (N, C), C >= 2.  Raises NoData when N is 0.
    """
    _need_rows(logits)
    wide = logits.astype(np.float64)
    others = [np.delete(wide, column, axis=1) for column in range(wide.shape[1])]
    return np.stack([wide[:, c] - np.logaddexp.reduce(rest, axis=1) for c, rest in enumerate(others)], axis=1)


def accuracy(truth: Integers, predicted: Integers) -> float:
    """Share of rows in [0, 1] where both (N,) agree.  Raises NoData when N is 0."""
    _need_rows(truth)
    return float(np.mean(truth == predicted))


def confusion_matrix(truth: Integers, predicted: Integers, classes: int) -> Integers:
    """Rows counted, (C, C) int64: [true class, predicted class].  Raises NoData when N is 0."""
    from sklearn.metrics import confusion_matrix as counted

    _need_rows(truth)
    return np.asarray(counted(truth, predicted, labels=range(classes)), np.int64)


def per_class(truth: Integers, predicted: Integers, classes: int) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 of every class 0..classes-1 against the rest.  Raises NoData when N is 0.

    Precision is undefined for a class never predicted, recall for a class without rows, F1 where both hold.
    """
    from sklearn.metrics import precision_recall_fscore_support

    _need_rows(truth)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, predicted, labels=range(classes), zero_division=np.nan
    )
    return tuple(
        ClassScores(
            support=int(support[c]),
            predicted=int(np.count_nonzero(predicted == c)),
            precision=_score(precision[c], "no row was predicted to be of this class"),
            recall=_score(recall[c], "no row is of this class"),
            f1=_score(f1[c], "no row is, or was predicted to be, of this class"),
        )
        for c in range(classes)
    )


def macro(scores: Sequence[ClassScores], metric: str) -> Score:
    """Unweighted mean of precision, recall or f1 over the classes that occur in truth or predictions.

    None where one of them has no value: leaving it out would reward a model for never naming a hard class.
    """
    values = [getattr(one, metric) for one in scores if one.support or one.predicted]
    if not values:
        raise NoData(f"macro {metric}: no rows")
    for one in values:
        if one.value is None:
            return Score(None, f"for one class, {one.reason}")
    return Score(_mean([one.value for one in values]))


def balanced_accuracy(scores: Sequence[ClassScores]) -> float:
    """Mean recall in [0, 1] over the classes that have rows; 0.5 if a binary model always says the same."""
    recalls = [one.recall.value for one in scores if one.recall.value is not None]
    if not recalls:
        raise NoData("balanced accuracy: no rows")
    return _mean(recalls)


def matthews_correlation(truth: Integers, predicted: Integers) -> Score:
    """MCC in [-1, 1]; undefined where truth or predictions (N,) name one class only (scikit-learn says 0)."""
    from sklearn.metrics import matthews_corrcoef

    _need_rows(truth)
    if np.all(truth == truth[0]):
        return Score(None, "all rows are of one class")
    if np.all(predicted == predicted[0]):
        return Score(None, "one class was predicted for every row")
    return Score(float(matthews_corrcoef(truth, predicted)))


def predicted_positive_rate(predicted: Integers, positive: int) -> float:
    """Share of rows in [0, 1] that were predicted to be of class `positive`.  Raises NoData when N is 0."""
    _need_rows(predicted)
    return float(np.mean(predicted == positive))


def auc_roc(positive: Booleans, score: npt.NDArray[Any]) -> Score:
    """Area under the ROC curve in [0, 1]: how often a positive row scores above a negative one, ties half.

    positive (N,) bool; score (N,), any increasing function of the probability.  Undefined with one class
    only.  Raises NoData when N is 0.
    """
    from sklearn.metrics import roc_auc_score

    _need_rows(positive)
    if positive.all() or not positive.any():
        return Score(None, "all rows are of one class")
    return Score(float(roc_auc_score(positive, score)))


def auc_roc_macro(truth: Integers, scores: npt.NDArray[Any]) -> Score:
    """Mean over the classes of `auc_roc` of each against the rest; truth (N,), scores (N, C).

    Undefined when a class has no rows, or all of them.
    """
    values = [auc_roc(truth == c, scores[:, c]) for c in range(scores.shape[1])]
    if any(one.value is None for one in values):
        return Score(None, "a class has no rows, or all of them")
    return Score(_mean([one.value for one in values]))


def roc_curve(positive: Booleans, score: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """False and true positive rates, both (K,), rising from 0 to 1.

    As `auc_roc`, but raises NoData with one class only.
    """
    from sklearn.metrics import roc_curve as curve

    if positive.all() or not positive.any():
        raise NoData("ROC curve: rows of both classes are needed")
    false_rate, true_rate, _ = curve(positive, score)
    return np.asarray(false_rate, np.float64), np.asarray(true_rate, np.float64)


def expected_calibration_error(confidence: Floats, correct: Booleans, bins: int = 15) -> float:
    """Top-label ECE in [0, 1]: mean |accuracy - confidence| over equal-width bins, weighted by their size.

    confidence (N,) float in [0, 1]; correct (N,) bool.  Raises NoData when N is 0.
    Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    filled = [one for one in reliability_bins(confidence, correct, bins) if one.count]
    gaps = [one.count * abs((one.accuracy or 0.0) - (one.confidence or 0.0)) for one in filled]
    return math.fsum(gaps) / len(confidence)


def reliability_bins(confidence: Floats, correct: Booleans, bins: int = 15) -> tuple[Bin, ...]:
    """Equal-width bins of (0, 1], open below and closed above (Guo et al.): 1.0 falls into the last one.

    confidence (N,) float in [0, 1] (0 goes to the first bin); correct (N,) bool.  Raises NoData when N is 0.
    """
    _need_rows(confidence)
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    members = [place == number for number in range(bins)]
    return tuple(
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            count=int(inside.sum()),
            confidence=float(confidence[inside].mean()) if inside.any() else None,
            accuracy=float(correct[inside].mean()) if inside.any() else None,
        )
        for number, inside in enumerate(members)
    )


def negative_log_likelihood(truth: Integers, log_probabilities: Floats) -> float:
    """Mean of -ln p(true class) in nats; truth (N,), log_probabilities (N, C).  Raises NoData when N is 0."""
    _need_rows(truth)
    return -float(log_probabilities[np.arange(len(truth)), truth].mean())


def brier(truth: Integers, probabilities: Floats) -> float:
    """Mean squared distance of probabilities (N, C) from truth (N,): [0, 1] for two classes, [0, 2] for more.

    Summed over classes, halved for two, as scikit-learn's brier_score_loss does.  Raises NoData when N is 0.
    Brier 1950, Monthly Weather Review 78(1).
    """
    _need_rows(truth)
    classes = probabilities.shape[1]
    squares = ((probabilities - np.eye(classes)[truth]) ** 2).sum(axis=1)
    return float(squares.mean()) / (2 if classes == 2 else 1)


def wilson_interval(correct: int, rows: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Lower and upper bound in [0, 1] of the share of `correct` in `rows`; 95 % by default.

    Raises NoData for 0 rows.  Wilson 1927, JASA 22(158).
    """
    if rows == 0:
        raise NoData("Wilson interval: no rows")
    share, spread = correct / rows, z * z / rows
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # The share itself is a bound when nothing, or everything, is correct; rounding would miss it by a digit.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def paired_difference_interval(wins: int, losses: int, rows: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Lower and upper bound in [-1, 1] of the difference of two models' accuracies on the same rows; 95 % by default.

    wins, losses: rows where only the first, only the second model is right.  Raises NoData for 0 rows.
    Agresti & Min 2005, Statistics in Medicine 24(5): Wald's interval with half a row added to each cell.
    """
    if rows == 0:
        raise NoData("interval of a difference: no rows")
    count, discordant = rows + 2, wins + losses + 1
    difference = (wins - losses) / count
    half = z * math.sqrt(max(0.0, discordant - count * difference**2)) / count
    return max(-1.0, difference - half), min(1.0, difference + half)


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided p of so uneven a split, were both models equally good; 1 where they never differ.

    wins, losses: rows where only the first, only the second model is right.
    McNemar 1947, Psychometrika 12(2), in its exact (binomial) form.
    """
    from scipy.stats import binomtest

    return float(binomtest(min(wins, losses), wins + losses).pvalue) if wins + losses else 1.0


def _need_rows(values: npt.NDArray[Any]) -> None:
    if len(values) == 0:
        raise NoData("no rows to measure", hint="the test split is empty: look at the data files of the spec")


def _shifted(logits: npt.NDArray[Any]) -> Floats:
    wide = logits.astype(np.float64)
    return np.asarray(wide - wide.max(axis=1, keepdims=True))


def _score(value: float, reason: str) -> Score:
    return Score(None, reason) if math.isnan(value) else Score(float(value))


def _mean(values: Sequence[float | None]) -> float:
    return math.fsum(value for value in values if value is not None) / len(values)
