"""What a model gets wrong if it answers only the rows that it is most confident of.

El-Yaniv & Wiener 2010, JMLR 11; Geifman & El-Yaniv 2017, arXiv:1705.08500.  Rows of equal confidence are answered
together or not at all, so the order of the rows can't matter.  Zero rows raise NoData everywhere.
"""

from __future__ import annotations

import numpy as np

from jobs.score import Booleans, Floats, need_rows
from jobs.tied_order import TiedOrder, ones, steps

PERCENT_AT_RISK = 1


class Selective:
    """Area under the risk-coverage curve, and coverage at 1 % risk, of weighted rows.

    confidence (N,), any increasing function of the probability of what is answered; correct (N,) bool.
    """

    def __init__(self, confidence: Floats, correct: Booleans) -> None:
        need_rows(confidence)
        self._order, self._wrong = TiedOrder.of(confidence), ~correct

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """`aurc` and `coverage_at_1_risk`, both (R,), of weights (R, N)."""
        answered = self._order.cumulated(weights)
        errors = self._order.cumulated(weights, self._wrong)
        rows = answered[:, -1]
        risk = errors / np.maximum(answered, 1)  # no row of the resample lies that high: no step, and no error
        # Whole numbers, so that 1 % is 1 % on every machine.
        few = np.where(100 * errors <= PERCENT_AT_RISK * answered, answered, 0)
        return {
            "aurc": (steps(answered) * risk).sum(axis=1) / rows,
            "coverage_at_1_risk": few.max(axis=1) / rows,
        }

    def curve(self) -> tuple[Floats, Floats]:
        """Coverage and risk, both (K,), at the end of every block of equals; coverage rises to 1."""
        one = ones(len(self._wrong))
        answered, errors = self._order.cumulated(one)[0], self._order.cumulated(one, self._wrong)[0]
        return answered / answered[-1], errors / answered


def aurc(confidence: Floats, correct: Booleans) -> float:
    """Area under the risk-coverage curve in [0, 1]: mean over k = 1..N of the risk at coverage k/N; lower is better.

    Risk is the share of errors in the k most confident rows.  A k that would cut a block of equals has the risk at the
    block's end.  confidence (N,), correct (N,) bool.  Raises NoData when N is 0.
    """
    return float(Selective(confidence, correct)(ones(len(correct)))["aurc"][0])


def coverage_at_1_risk(confidence: Floats, correct: Booleans) -> float:
    """Largest share of the rows, most confident first, in which at most 1 % are wrong; in [0, 1].

    0 says that not even the most confident block has so few errors.  As `aurc`.
    """
    return float(Selective(confidence, correct)(ones(len(correct)))["coverage_at_1_risk"][0])


def risk_coverage(confidence: Floats, correct: Booleans, points: int = 200) -> list[list[float]]:
    """At most `points` points [coverage, risk] of the curve, evenly picked, its first and last among them."""
    coverage, risk = Selective(confidence, correct).curve()
    picked = np.unique(np.linspace(0, len(coverage) - 1, points).round().astype(np.int64))
    return [[float(coverage[point]), float(risk[point])] for point in picked]
