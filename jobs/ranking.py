"""How well a score puts positive rows above the others, whatever the threshold; knows nothing of probabilities.

scikit-learn is imported where it is used.  Zero rows raise NoData everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.score import Booleans, Floats, Score, mean, need_rows
from jobs.tied_order import TiedOrder, steps

_ONE_CLASS = "all rows are of one class"


def auc_roc(positive: Booleans, score: npt.NDArray[Any]) -> Score:
    """Area under the ROC curve in [0, 1]: how often a positive row scores above a negative one, ties half.

    positive (N,) bool; score (N,), any increasing function of the probability.  Undefined with one class
    only.  Raises NoData when N is 0.
    """
    from sklearn.metrics import roc_auc_score

    return _of_two_classes(positive, score, roc_auc_score)


def auc_pr(positive: Booleans, score: npt.NDArray[Any]) -> Score:
    """Average precision in [0, 1]: the precision at every positive row, equal scores counted together, averaged.

    Not interpolated (Davis & Goadrich 2006).  As `auc_roc` otherwise; a random score gets the share of positives.
    """
    from sklearn.metrics import average_precision_score

    return _of_two_classes(positive, score, average_precision_score)


def mean_area(
    area: Callable[[Booleans, npt.NDArray[Any]], Score], positives: Booleans, scores: npt.NDArray[Any]
) -> Score:
    """Mean over the columns of positives and scores (N, K), a class against the rest each, of `auc_roc` or `auc_pr`.

    Undefined when one of them is.  Raises NoData when N is 0.
    """
    need_rows(positives)
    found = [area(positives[:, c], scores[:, c]) for c in range(positives.shape[1])]
    values = [one.value for one in found if one.value is not None]
    if len(values) == len(found):
        return Score(mean(values))
    return found[0] if len(found) == 1 else Score(None, "a class has no rows, or all of them")


class Ranking:
    """`auc_roc` and `auc_pr` of weighted rows, for the bootstrap: means over the classes in `positives`."""

    def __init__(self, positives: Booleans, scores: npt.NDArray[Any]) -> None:
        """positives, scores (N, K): a column for each class against the rest."""
        columns = range(positives.shape[1])
        self._columns = [(TiedOrder.of(scores[:, c]), positives[:, c]) for c in columns]

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        areas = [_areas(order, positive, weights) for order, positive in self._columns]
        return {
            "auc_roc": np.mean([roc for roc, _ in areas], axis=0),
            "auc_pr": np.mean([precision for _, precision in areas], axis=0),
        }


def _areas(order: TiedOrder, positive: Booleans, weights: Floats) -> tuple[Floats, Floats]:
    """AUC-ROC and average precision (R,) of weights (R, N); NaN where a resample has one class only."""
    hits = order.cumulated(weights, positive)
    misses = order.cumulated(weights) - hits
    gained = steps(hits)
    precision = hits / np.maximum(hits + misses, 1)  # nothing is gained where nothing was drawn yet
    with np.errstate(invalid="ignore"):
        found = (gained * precision).sum(axis=1) / hits[:, -1]
        # A step of the curve is a trapezoid: half of the block's own positives lie above its negatives.
        area = (steps(misses) * (hits - gained / 2)).sum(axis=1) / (hits[:, -1] * misses[:, -1])
    both = (hits[:, -1] > 0) & (misses[:, -1] > 0)
    return np.where(both, area, np.nan), np.where(both, found, np.nan)


def _of_two_classes(positive: Booleans, score: npt.NDArray[Any], metric: Callable[..., float]) -> Score:
    need_rows(positive)
    if positive.all() or not positive.any():
        return Score(None, _ONE_CLASS)
    return Score(float(metric(positive, score)))
