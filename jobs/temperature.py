"""The one number that logits are divided by so that confidences are right on average: fitted, checked and applied.

numpy only: the spec's and the command line's side may import it.  It is to be fitted on validation rows, never on test
rows; that is for the caller to see to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from jobs.errors import BrokenRun
from jobs.probabilities import below_largest, log_softmax, negative_log_likelihood, softmax
from jobs.score import Floats, Integers

LOWEST, HIGHEST = 0.05, 20.0
FEWEST_ROWS = 20
_HALVINGS = 60


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature, `rows` it was fitted on, and their mean NLL in nats without and with it."""

    value: float
    rows: int
    nll_before: float
    nll_after: float


class Fit(NamedTuple):
    """A temperature, or None; `note` says why there is none, or that it stands at a bound."""

    temperature: Temperature | None
    note: str = ""


def fit(logits: npt.NDArray[Any], truth: Integers) -> Fit:
    """The temperature in [0.05, 20] with the lowest mean NLL on logits (N, C), truth (N,), to ten digits.

    NLL is that of the true label with 1 row of N + 2 taken from it, as in Platt 1999: where all of few rows are right,
    the plain one falls until every confidence is 1.  None with fewer than 20 rows, with logits that are not finite, or
    all equal within their rows; where it still falls towards a bound it is the bound, and the note says so.
    Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    rows = len(truth)
    if rows < FEWEST_ROWS:
        return Fit(None, f"{rows} rows are too few to fit a temperature; it takes {FEWEST_ROWS}")
    if not np.isfinite(logits).all():
        return Fit(None, "a logit is not a finite number")
    below = below_largest(logits)
    if not below.any():
        return Fit(None, "in every row all logits are equal: a temperature changes nothing")
    value, note = _best(below, truth)
    before = negative_log_likelihood(truth, log_softmax(below))
    after = negative_log_likelihood(truth, log_softmax(scale(below, value)))
    return Fit(Temperature(value, rows, before, after), note)


def scale(logits: npt.NDArray[Any], temperature: float) -> Floats:
    """Logits (N, C) / temperature, float64: the order within a row stays, so no label changes."""
    return np.asarray(logits.astype(np.float64) / temperature)


def probabilities(logits: npt.NDArray[Any], temperature: float | None) -> Floats:
    """Probabilities (N, C) of logits (N, C) / temperature, None for 1.  Raises NoData when N is 0."""
    return softmax(logits if temperature is None else scale(logits, temperature))


def checked(value: object, origin: str) -> float:
    """`value`, from outside, if it is a number in [0.05, 20].  Raises BrokenRun that names `origin`."""
    if isinstance(value, int | float) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST:
        return float(value)
    raise BrokenRun(f"{origin}: a temperature is a number from {LOWEST} to {HIGHEST:g}, not {value!r:.40}")


def _best(below: Floats, truth: Integers) -> tuple[float, str]:
    """The best temperature, rounded to ten digits, and a note where it is a bound.

    NLL is convex in 1/T, so its slope changes sign once; halving is done in log T.  A sign is found to the last digits,
    a minimum itself only to half of them, and would differ between machines.
    """
    true = below[np.arange(len(truth)), truth]  # (N,)
    others = (below.sum(axis=1) - true) / (below.shape[1] - 1)
    taken = 1 / (len(truth) + 2)
    said = float(((1 - taken) * true + taken * others).mean())
    if _slope(below, said, LOWEST) <= 0:
        return LOWEST, f"the temperature stands at its lower bound {LOWEST}: sharper would fit better still"
    if _slope(below, said, HIGHEST) >= 0:
        return HIGHEST, f"the temperature stands at its upper bound {HIGHEST:g}: flatter would fit better still"
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(below, said, math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return float(f"{math.exp(low):.10g}"), ""


def _slope(below: Floats, said: float, temperature: float) -> float:
    """Derivative of mean NLL by 1/T: the mean logit that the model expects, less `said`, the mean one of the labels."""
    exponentials = np.exp(below / temperature)
    expected = (exponentials * below).sum(axis=1) / exponentials.sum(axis=1)
    return float(expected.mean() - said)
