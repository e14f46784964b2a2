"""Two models on the same rows: who is right where, and whether the difference could be chance.

numpy only.  Puts nothing into sentences.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import bootstrap
from jobs.calibration_error import CalibrationError, equal_width
from jobs.errors import NoData
from jobs.intervals import paired_difference_interval
from jobs.probabilities import log_odds, softmax
from jobs.ranking import Ranking
from jobs.score import Booleans, Floats, Integers, need_rows
from jobs.temperature import scale
from jobs.tied_order import ones

SIGNIFICANT = 0.05


def compare(
    truth: Integers,
    logits_a: npt.NDArray[Any],
    logits_b: npt.NDArray[Any],
    positive: int | None,
    temperature_a: float | None,
    temperature_b: float | None,
) -> dict[str, Any]:
    """The figures of one of `comparisons` in metrics.json, a less b, unrounded; `differences.robustness` is None.

    truth (N,), logits (N, C); positive: of two classes the one that AUC speaks of, None for a macro average.
    Raises NoData when N is 0.
    """
    need_rows(truth)
    right_a, right_b = logits_a.argmax(axis=1) == truth, logits_b.argmax(axis=1) == truth
    wins, losses = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    p = mcnemar_exact(wins, losses)
    return {
        "rows": len(truth),
        "wins": wins,
        "losses": losses,
        "both_right": int((right_a & right_b).sum()),
        "both_wrong": int((~right_a & ~right_b).sum()),
        "accuracy_difference": (wins - losses) / len(truth),
        "difference_interval": list(paired_difference_interval(wins, losses, len(truth))),
        "mcnemar_p": p,
        "verdict": "no clear difference" if p >= SIGNIFICANT else "better" if wins > losses else "worse",
        "differences": _differences(
            truth,
            _Compared(truth, logits_a, positive, temperature_a),
            _Compared(truth, logits_b, positive, temperature_b),
            logits_a.shape[1],
        )
        | {"robustness": None},
    }


def paired_difference(passed_a: Booleans, passed_b: Booleans, category: Integers) -> tuple[float, bootstrap.Interval]:
    """Difference of two robustness scores in points, a less b, and its 95 % interval, by a paired bootstrap.

    A score is 100 times the mean of the categories' pass rates.  passed (K,) bool and category (K,) int, of the same
    cases; cases are resampled within their category.  Raises NoData when K is 0.
    """
    need_rows(category)
    _, place, sizes = np.unique(category, return_inverse=True, return_counts=True)
    points = 100 * (passed_a.astype(np.float64) - passed_b) / sizes[place] / len(sizes)
    chunks = bootstrap.weights(category, bootstrap.count(len(category)))
    interval = bootstrap.between_tails(np.concatenate([chunk @ points for chunk in chunks]))
    if interval is None:
        raise NoData("difference of robustness scores: no case has a result")
    return float(points.sum()), interval


def mcnemar_exact(wins: int, losses: int) -> float:
    """Two-sided p of so uneven a split, were both models equally good; 1 where they never differ.

    wins, losses: rows where only the first, only the second model is right.
    McNemar 1947, Psychometrika 12(2), in its exact (binomial) form.
    """
    rows, fewer = wins + losses, min(wins, losses)
    if rows == 0:
        return 1.0
    # Binomial coefficients from the middle down, the middle one taken as 1: each is its neighbour's by a ratio.
    # Forty standard deviations away they are 0 to a float.
    middle = rows // 2
    k = np.arange(middle, max(0, middle - 20 * int(rows**0.5) - 40), -1, dtype=np.float64)
    coefficients = np.cumprod(np.concatenate([[1.0], k / (rows - k + 1)]))
    tail = float(coefficients[middle - fewer :].sum())
    both = 2 * float(coefficients.sum()) - (1.0 if rows % 2 == 0 else 0.0)
    return min(1.0, 2 * tail / both)


class _Compared:
    """AUC and ECE of one model, of weighted rows; ECE after the temperature where there is one."""

    def __init__(
        self, truth: Integers, logits: npt.NDArray[Any], positive: int | None, temperature: float | None
    ) -> None:
        columns = range(logits.shape[1]) if positive is None else [positive]
        positives = np.stack([truth == c for c in columns], axis=1)
        self._ranking = Ranking(positives, log_odds(logits)[:, list(columns)])
        confidence = softmax(logits if temperature is None else scale(logits, temperature)).max(axis=1)
        self._error = CalibrationError(equal_width(confidence), confidence, logits.argmax(axis=1) == truth)

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        return {"auc_roc": self._ranking(weights)["auc_roc"], "ece": self._error(weights)}


def _differences(truth: Integers, one: _Compared, other: _Compared, classes: int) -> dict[str, Any]:
    """`{difference, interval}` by name, None where the difference has no value; interval None where it has none."""

    def difference(weights: Floats) -> dict[str, Floats]:
        first, second = one(weights), other(weights)
        return {name: first[name] - second[name] for name in first}

    sample = {name: float(values[0]) for name, values in difference(ones(len(truth))).items()}
    found = bootstrap.bootstrap(truth, difference, classes=classes).intervals
    return {
        name: None
        if np.isnan(value)
        else {"difference": value, "interval": list(interval) if (interval := found[name]) else None}
        for name, value in sample.items()
    }
