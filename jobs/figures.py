"""The figures of one model on one set of rows: `models[].metrics` of metrics.json, unrounded, in plain Python values.

Chooses which metrics there are and what they are called; what they are stands in the files that it calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import bootstrap, metrics, ranking
from jobs.intervals import wilson_interval
from jobs.metrics import ClassScores, Decisions
from jobs.probabilities import log_odds
from jobs.probability_block import ProbabilityBlock
from jobs.ranking import Ranking
from jobs.score import Integers, Score, need_rows
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
    said = np.asarray(logits.argmax(axis=1), np.int64)
    correct = int((said == truth).sum())
    scores = metrics.per_class(truth, said, len(label_names))
    named = _scores(truth, logits, said, scores, positive)
    averages = metrics.averages(scores, correct)
    blocks = {"raw": ProbabilityBlock(truth, logits, positive)}
    if temperature is not None:
        blocks["scaled"] = ProbabilityBlock(truth, scale(logits, temperature), positive)
    of_blocks = {name: block.figures() for name, block in blocks.items()}
    undefined = _reasons(named, averages, scores, label_names)
    if positive is None:
        undefined |= {f"{name}.ece_artifact": _MORE_LABELS for name in blocks}
    if temperature is None:
        undefined["scaled"] = "the model has no temperature"
    intervals, resamples = _intervals(truth, logits, said, scores, named, blocks, positive)
    undefined |= {
        f"intervals.{name}": "no value in more than 5 % of the resamples, or one row of every label"
        for name, interval in intervals.items()
        if interval is None and name not in undefined
    }
    return {
        "accuracy": metrics.accuracy(truth, said),
        "balanced_accuracy": metrics.balanced_accuracy(scores),
        **{name: score.value for name, score in named.items()},
        "predicted_counts": {name: scores[c].predicted for c, name in enumerate(label_names)},
        "averages": {kind: {name: score.value for name, score in vars(one).items()} for kind, one in averages.items()},
        "per_class": [_class_figures(name, one) for name, one in zip(label_names, scores, strict=True)],
        "confusion": metrics.confusion_matrix(truth, said, len(label_names)).tolist(),
        "raw": of_blocks["raw"],
        "scaled": of_blocks.get("scaled"),
        "intervals": {name: list(interval) if interval else None for name, interval in intervals.items()},
        "resamples": resamples,
        "undefined": undefined,
    }


def _scores(
    truth: Integers, logits: npt.NDArray[Any], said: Integers, scores: Sequence[ClassScores], positive: int | None
) -> dict[str, Score]:
    """The metrics that may lack a value, by name."""
    odds, mcc = log_odds(logits), metrics.matthews_correlation(truth, said)
    if positive is None:
        return {name: metrics.macro(scores, name) for name in ("precision", "recall", "f1")} | {
            "specificity": Score(None, _MORE_LABELS),
            "mcc": mcc,
            "auc_roc": ranking.auc_roc_macro(truth, odds),
            "auc_pr": ranking.auc_pr_macro(truth, odds),
            "predicted_positive_rate": Score(None, _MORE_LABELS),
        }
    return {name: getattr(scores[positive], name) for name in _BY_CLASS} | {
        "mcc": mcc,
        "auc_roc": ranking.auc_roc(truth == positive, odds[:, positive]),
        "auc_pr": ranking.auc_pr(truth == positive, odds[:, positive]),
        "predicted_positive_rate": Score(metrics.predicted_positive_rate(said, positive)),
    }


def _intervals(
    truth: Integers,
    logits: npt.NDArray[Any],
    said: Integers,
    scores: Sequence[ClassScores],
    named: dict[str, Score],
    blocks: dict[str, ProbabilityBlock],
    positive: int | None,
) -> tuple[dict[str, bootstrap.Interval | None], int]:
    """95 % intervals by name, None where a metric has no value, and the number of resamples."""
    classes = len(scores)
    columns = list(range(classes)) if positive is None else [positive]
    positives = np.stack([truth == c for c in columns], axis=1)
    found = bootstrap.bootstrap(
        truth,
        Decisions(truth, said, classes, positive),
        Ranking(positives, log_odds(logits)[:, columns]),
        *(_prefixed(name, block) for name, block in blocks.items()),
        classes=classes,
    )
    right = [round(one.support * one.recall.value) if one.recall.value is not None else 0 for one in scores]
    intervals = {"accuracy": wilson_interval(sum(right), len(truth))} | found.intervals
    if positive is not None:
        of, other = scores[positive], scores[1 - positive]
        shares = {
            "precision": (right[positive], of.predicted),
            "recall": (right[positive], of.support),
            "specificity": (right[1 - positive], other.support),
        }
        intervals |= {name: wilson_interval(hits, rows) if rows else None for name, (hits, rows) in shares.items()}
    lacking: dict[str, bootstrap.Interval | None] = {name: None for name, one in named.items() if one.value is None}
    return intervals | lacking, found.resamples


def _prefixed(prefix: str, block: ProbabilityBlock) -> bootstrap.Statistic:
    return lambda weights: {f"{prefix}.{name}": values for name, values in block(weights).items()}


def _reasons(
    named: dict[str, Score],
    averages: dict[str, metrics.Averages],
    scores: Sequence[ClassScores],
    label_names: Sequence[str],
) -> dict[str, str]:
    """Why a metric has no value, by its path in the document."""
    paths = dict(named)
    paths |= {f"averages.{kind}.{name}": score for kind, one in averages.items() for name, score in vars(one).items()}
    paths |= {
        f"per_class.{label}.{name}": getattr(one, name)
        for label, one in zip(label_names, scores, strict=True)
        for name in _BY_CLASS
    }
    return {path: score.reason for path, score in paths.items() if score.value is None}


def _class_figures(label: str, one: ClassScores) -> dict[str, Any]:
    counts = {"label": label, "support": one.support, "predicted": one.predicted}
    return counts | {name: getattr(one, name).value for name in _BY_CLASS}
