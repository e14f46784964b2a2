"""TEMPORARY: stands in for `comparison` and `figures`, which are being built elsewhere; goes when they are here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import metrics

RESAMPLES = 50
Logits = NDArray[np.float32]
Interval = tuple[float, float]


def figures(
    truth: NDArray[np.int64],
    logits: Logits,
    label_names: Sequence[str],
    positive: int | None,
    temperature: float | None,
) -> dict[str, Any]:
    """Some keys of `models[].metrics`."""
    said, classes = logits.argmax(axis=1), len(label_names)
    scores = metrics.per_class(truth, said, classes)
    f1 = metrics.macro(scores, "f1") if positive is None else scores[positive].f1
    return {
        "accuracy": metrics.accuracy(truth, said),
        "f1": f1.value,
        "auc_roc": _auc(truth, logits, positive),
        "raw": {"ece": _ece(truth, logits, None)},
        "scaled": None if temperature is None else {"ece": _ece(truth, logits, temperature)},
        "intervals": {"accuracy": list(metrics.wilson_interval(int((said == truth).sum()), len(truth)))},
        "undefined": {},
    }


def compare(
    truth: NDArray[np.int64],
    logits_a: Logits,
    logits_b: Logits,
    positive: int | None,
    temperature_a: float | None,
    temperature_b: float | None,
) -> dict[str, Any]:
    """The keys of `comparisons[]` that need no names."""
    right, other = logits_a.argmax(axis=1) == truth, logits_b.argmax(axis=1) == truth
    wins, losses = int((right & ~other).sum()), int((~right & other).sum())
    p = metrics.mcnemar_exact(wins, losses)

    def auc(rows: NDArray[np.int64]) -> float | None:
        one, two = (_auc(truth[rows], logits[rows], positive) for logits in (logits_a, logits_b))
        return None if one is None or two is None else one - two

    def ece(rows: NDArray[np.int64]) -> float:
        return _ece(truth[rows], logits_a[rows], temperature_a) - _ece(truth[rows], logits_b[rows], temperature_b)

    return {
        "rows": len(truth),
        "wins": wins,
        "losses": losses,
        "both_right": int((right & other).sum()),
        "both_wrong": int((~right & ~other).sum()),
        "accuracy_difference": (wins - losses) / len(truth),
        "difference_interval": list(metrics.paired_difference_interval(wins, losses, len(truth))),
        "mcnemar_p": p,
        "verdict": "no clear difference" if p >= 0.05 else "better" if wins > losses else "worse",
        "differences": {
            "auc_roc": _bootstrap(auc, len(truth)), "ece": _bootstrap(ece, len(truth)), "robustness": None,
        },
    }  # fmt: skip


def paired_difference(
    passed_a: NDArray[np.bool_], passed_b: NDArray[np.bool_], category: NDArray[np.int64]
) -> tuple[float, Interval]:
    """Points of the score, 0 to 100: mean over the categories of the difference of the pass rates."""
    gap = passed_a.astype(np.float64) - passed_b
    kinds = np.unique(category)

    def score(rows: NDArray[np.int64]) -> float:
        return 100 * float(np.mean([gap[rows][category[rows] == kind].mean() for kind in kinds]))

    chance = np.random.default_rng(0)
    parts = [np.flatnonzero(category == kind) for kind in kinds]
    again = [score(np.concatenate([chance.choice(part, len(part)) for part in parts])) for _ in range(RESAMPLES)]
    low, high = np.quantile(again, (0.025, 0.975))
    return score(np.arange(len(gap))), (float(low), float(high))


def _auc(truth: NDArray[np.int64], logits: Logits, positive: int | None) -> float | None:
    odds = metrics.log_odds(logits)
    if positive is None:
        return metrics.auc_roc_macro(truth, odds).value
    return metrics.auc_roc(truth == positive, odds[:, positive]).value


def _ece(truth: NDArray[np.int64], logits: Logits, temperature: float | None) -> float:
    probabilities = metrics.softmax(logits.astype(np.float64) / (temperature or 1.0))
    return metrics.expected_calibration_error(probabilities.max(axis=1), probabilities.argmax(axis=1) == truth)


def _bootstrap(difference: Callable[[NDArray[np.int64]], float | None], rows: int) -> dict[str, Any] | None:
    chance = np.random.default_rng(0)
    drawn = [difference(chance.integers(0, rows, rows)) for _ in range(RESAMPLES)]
    whole, known = difference(np.arange(rows)), [one for one in drawn if one is not None]
    if whole is None or not known:
        return None
    return {"difference": whole, "interval": [float(bound) for bound in np.quantile(known, (0.025, 0.975))]}
