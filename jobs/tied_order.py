"""Rows in falling order of a score, with equal scores as one block, so that the order of the rows can't matter.

Counts go in as weights (R, N), a resample a row (see `bootstrap`); one row of ones is the sample itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.score import Floats, Integers


@dataclass(frozen=True, eq=False)
class TiedOrder:
    """order (N,): rows, highest score first; ends (K,): where in `order` each block of equals ends, rising."""

    order: Integers
    ends: Integers

    @staticmethod
    def of(score: npt.NDArray[Any]) -> TiedOrder:
        """The order of score (N,), N >= 1."""
        order = np.argsort(-score, kind="stable")
        falling = score[order]
        return TiedOrder(order, np.flatnonzero(np.append(falling[1:] != falling[:-1], True)))

    def cumulated(self, weights: Floats, flags: npt.NDArray[np.bool_] | None = None) -> Floats:
        """Weight of the rows (all, or the flagged (N,)) down to the end of every block, (R, K)."""
        taken = weights[:, self.order]
        if flags is not None:
            taken *= flags[self.order]
        np.cumsum(taken, axis=1, out=taken)
        return taken if len(self.ends) == len(self.order) else taken[:, self.ends]


def ones(rows: int) -> Floats:
    """Weights (1, N) that take every row once."""
    return np.ones((1, rows))


def steps(cumulated: Floats) -> Floats:
    """What each block adds to cumulated (R, K), (R, K)."""
    return np.diff(cumulated, axis=1, prepend=0.0)
