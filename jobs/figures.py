"""The figures of one model on one set of rows: `models[].metrics` of metrics.json, unrounded, in plain Python values.

Chooses which metrics there are and what they are called; what they are stands in the files that it calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import bootstrap, metrics, ranking
from jobs.bootstrap import Interval, between_tails
from jobs.intervals import wilson_interval
from jobs.metrics import Averages, ClassScores, Decisions
from jobs.probabilities import log_odds
from jobs.probability_block import ProbabilityBlock
from jobs.ranking import Ranking
from jobs.score import Booleans, Floats, Integers, Score, need_rows
from jobs.temperature import scale

_MORE_LABELS = "there are more than two labels"
_BY_CLASS = ("precision", "recall", "f1", "specificity")


def figures(
    truth: Integers,
    logits: npt.NDArray[Any],
    label_names: Sequence[str],
    positive: int | None,
    temperature: float | None,
) -> dict[str, Any]:
    """Every metric of a model, as docs/evaluation.md describes it; None, and a reason in `undefined`, without a value.

    truth (N,) int64, logits (N, C) float32, C = len(label_names); positive: of two labels the positive one's index,
    None for more; temperature: what `scaled` divides logits by, None for no `scaled`.  Raises NoData when N is 0.
    """
    need_rows(truth)
    classes = len(label_names)
    said = np.asarray(logits.argmax(axis=1), np.int64)
    confusion = metrics.confusion_matrix(truth, said, classes)
    scores = metrics.per_class(truth, said, classes)
    averages = metrics.averages(scores, int(confusion.trace()))
    columns = list(range(classes)) if positive is None else [positive]
    positives, odds = np.stack([truth == c for c in columns], axis=1), log_odds(logits)[:, columns]
    named = _decided(scores, truth, said, positive) | _ranked(positives, odds)
    resampled = bootstrap.resampled(
        truth, Decisions(truth, said, classes, positive), Ranking(positives, odds), classes=classes
    )
    intervals = {name: between_tails(values) for name, values in resampled.items()} | _wilson(confusion, positive)
    intervals |= {name: None for name, one in named.items() if one.value is None}
    blocks: dict[str, dict[str, Any] | None] = {"raw": None, "scaled": None}
    scalings = {"raw": logits} | ({} if temperature is None else {"scaled": scale(logits, temperature)})
    for prefix, scaled in scalings.items():
        blocks[prefix], of_block = _block(truth, scaled, positive)
        intervals |= {f"{prefix}.{name}": interval for name, interval in of_block.items()}
    return {
        "accuracy": metrics.accuracy(truth, said),
        "balanced_accuracy": metrics.balanced_accuracy(scores),
        **{name: score.value for name, score in named.items()},
        "predicted_counts": {name: scores[c].predicted for c, name in enumerate(label_names)},
        "averages": {kind: {name: score.value for name, score in vars(one).items()} for kind, one in averages.items()},
        "per_class": [_class_figures(name, one) for name, one in zip(label_names, scores, strict=True)],
        "confusion": confusion.tolist(),
        **blocks,
        "intervals": {name: None if interval is None else list(interval) for name, interval in intervals.items()},
        "resamples": bootstrap.count(len(truth), classes),
        "undefined": _reasons(named, averages, scores, label_names)
        | _reasons_of_blocks(tuple(scalings), positive)
        | _reasons_of_intervals(intervals, named),
    }


def _block(
    truth: Integers, logits: npt.NDArray[Any], positive: int | None
) -> tuple[dict[str, Any], dict[str, Interval | None]]:
    """A probability block and its intervals.  By itself, as it holds ninety bytes a row; the draws are the same."""
    block = ProbabilityBlock(truth, logits, positive)
    return block.figures(), block.intervals(bootstrap.resampled(truth, block, classes=logits.shape[1]))


def _decided(scores: Sequence[ClassScores], truth: Integers, said: Integers, positive: int | None) -> dict[str, Score]:
    """The metrics by what was said, by name: of the positive class, or macro averages."""
    if positive is None:
        found = {name: metrics.macro(scores, name) for name in ("precision", "recall", "f1")}
        rest = dict.fromkeys(("specificity", "predicted_positive_rate"), Score(None, _MORE_LABELS))
    else:
        found = {name: getattr(scores[positive], name) for name in _BY_CLASS}
        rest = {"predicted_positive_rate": Score(metrics.predicted_positive_rate(said, positive))}
    return found | rest | {"mcc": metrics.matthews_correlation(truth, said)}


def _ranked(positives: Booleans, odds: Floats) -> dict[str, Score]:
    """Areas under the curves, by name: means over the columns of positives and odds (N, K)."""
    return {
        "auc_roc": ranking.mean_area(ranking.auc_roc, positives, odds),
        "auc_pr": ranking.mean_area(ranking.auc_pr, positives, odds),
    }


def _wilson(confusion: Integers, positive: int | None) -> dict[str, Interval | None]:
    """Intervals of what is a share of rows: accuracy, and for two classes precision, recall and specificity."""
    shares = {"accuracy": (int(confusion.trace()), int(confusion.sum()))}
    if positive is not None:
        hits, rejected = int(confusion[positive, positive]), int(confusion[1 - positive, 1 - positive])
        shares["precision"] = (hits, int(confusion[:, positive].sum()))
        shares["recall"] = (hits, int(confusion[positive].sum()))
        shares["specificity"] = (rejected, int(confusion[1 - positive].sum()))
    return {name: wilson_interval(right, rows) if rows else None for name, (right, rows) in shares.items()}


def _reasons(
    named: dict[str, Score],
    averages: dict[str, Averages],
    scores: Sequence[ClassScores],
    label_names: Sequence[str],
) -> dict[str, str]:
    """Why a metric has no value, by its path in the document."""
    paths = dict(named)
    paths |= {f"averages.{kind}.{name}": score for kind, one in averages.items() for name, score in vars(one).items()}
    for label, one in zip(label_names, scores, strict=True):
        paths |= {f"per_class.{label}.{name}": getattr(one, name) for name in _BY_CLASS}
    return {path: score.reason for path, score in paths.items() if score.value is None}


def _reasons_of_blocks(blocks: tuple[str, ...], positive: int | None) -> dict[str, str]:
    found = {f"{block}.ece_artifact": _MORE_LABELS for block in blocks if positive is None}
    return found if "scaled" in blocks else found | {"scaled": "the model has no temperature"}


def _reasons_of_intervals(intervals: dict[str, Interval | None], named: dict[str, Score]) -> dict[str, str]:
    """Why a metric that has a value has no interval."""
    lacking = [name for name, interval in intervals.items() if interval is None]
    return {
        f"intervals.{name}": "each label has one row at most, or more than 5 % of the resamples have no value"
        for name in lacking
        if name not in named or named[name].value is not None
    }


def _class_figures(label: str, one: ClassScores) -> dict[str, Any]:
    counts = {"label": label, "support": one.support, "predicted": one.predicted}
    return counts | {name: getattr(one, name).value for name in _BY_CLASS}
