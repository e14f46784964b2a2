"""What a metric returns where it may have no value, and the arrays that metrics are taken of; knows no metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def need_rows(values: npt.NDArray[Any]) -> None:
    """Raise NoData when there is no row: there is no honest number to return."""
    if len(values) == 0:
        raise NoData("no rows to measure", hint="the split is empty: look at the data files of the spec")


def mean(values: Sequence[float]) -> float:
    """Mean of one value or more, rounded once, so that their order can't matter."""
    return math.fsum(values) / len(values)
