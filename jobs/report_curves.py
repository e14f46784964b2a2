"""ROC and precision-recall curves of all models, counted once from the logits for whoever draws them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.chart import Floats
from jobs.predictions import Predictions
from jobs.probabilities import log_odds

Curve = tuple[Floats, Floats]
_GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Curves:
    """By model, where it has one: false and true positive rates, and recalls and precisions, both (K,).

    positive_share: of the rows, of two labels; None for more, where a curve is the mean of the labels'.
    """

    roc: dict[str, Curve]
    precision_recall: dict[str, Curve]
    positive_share: float | None


def count(summary: dict[str, Any], predictions: Predictions) -> Curves:
    """The curves of the models whose areas the document has."""
    truth, positive = predictions.truth, summary["positive_label"]
    index = None if positive is None else predictions.label_names.index(positive)
    labels = range(len(predictions.label_names)) if index is None else (index,)
    found = Curves({}, {}, None if index is None else float(np.mean(truth == index)))
    for model in summary["models"]:
        figures, key = model["metrics"], model["key"]
        if figures["auc_roc"] is None and figures["auc_pr"] is None:
            continue
        odds = log_odds(predictions.logits[key])
        counted = [_counted(truth == label, odds[:, label]) for label in labels if (truth == label).any()]
        if figures["auc_roc"] is not None:
            found.roc[key] = _mean([_rates(*one) for one in counted])
        if figures["auc_pr"] is not None:
            found.precision_recall[key] = _mean([_precisions(*one) for one in counted])
    return found


def _counted(positive: npt.NDArray[np.bool_], score: Floats) -> tuple[Floats, Floats]:
    """Positive rows, and all rows, that score at least as much as each different score, the largest first."""
    order = np.argsort(-score)
    ordered = score[order]
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)
    true = np.cumsum(positive[order], dtype=np.float64)
    return true[last_of_equals], np.arange(1.0, len(score) + 1)[last_of_equals]


def _rates(true: Floats, said: Floats) -> Curve:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    false = (said - true) / (said[-1] - true[-1])
    return np.concatenate([[0.0], false]), np.concatenate([[0.0], true / true[-1]])


def _precisions(true: Floats, said: Floats) -> Curve:
    """Recall and precision at every threshold, recall rising to 1."""
    # Before the first positive row there is no recall that a precision could belong to.
    precision = true[true > 0] / said[true > 0]
    return np.concatenate([[0.0], true[true > 0] / true[-1]]), np.concatenate([precision[:1], precision])


def _mean(curves: list[Curve]) -> Curve:
    """Of one curve itself, of several their mean at 201 places along x."""
    if len(curves) == 1:
        return curves[0]
    mean = np.mean([np.interp(_GRID, *curve) for curve in curves], axis=0)
    # Several points lie at 0: the first of them is where a curve begins.
    start = np.mean([curve[1][0] for curve in curves])
    return np.concatenate([[0.0], _GRID]), np.concatenate([[start], mean])
