"""How far probabilities are from the frequencies that they promise: expected calibration error in its kinds.

numpy only.  Zero rows raise NoData everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jobs.bootstrap import Interval, between_tails
from jobs.score import Booleans, Floats, Integers, mean, need_rows
from jobs.tied_order import TiedOrder, ones

BINS = 15
_DRAWS = 20_000_000
"""Simulated rows up to which `floor` draws each of them."""
_SEED = 17_060


@dataclass(frozen=True)
class Bin:
    """The rows with low < confidence <= high; means are None where `count` is 0."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Floor:
    """ECE of simulated models that are perfectly calibrated: its mean, and what 95 % of them stay below."""

    mean: float
    p95: float
    simulations: int


class CalibrationError:
    """Sum over bins of |sum of (outcome - probability)|, by the number of rows: an ECE of weighted rows.

    bins (N,), the bin of each row; probability (N,) in [0, 1]; outcome (N,) bool, what the probability is of.
    A resample keeps the sample's bins.
    """

    def __init__(self, bins: Integers, probability: Floats, outcome: Booleans) -> None:
        need_rows(bins)
        # Small numbers: a model has several of these, of a million rows perhaps.
        self._bins, self._gap = bins.astype(np.int16), outcome - probability
        self._width = int(bins.max()) + 1
        self._sums = self._summed(ones(len(bins)))

    @property
    def of_sample(self) -> float:
        """The error of the rows themselves, in [0, 1]."""
        return float(np.abs(self._sums).sum() / len(self._bins))

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """The error in [0, 1] of weights (R, N), and what `interval` needs beside it: its noise, both (R,).

        Noise is the same sum of the bins' deviations from their gaps in the sample.
        """
        sums, rows = self._summed(weights), weights.sum(axis=1)
        return np.abs(sums).sum(axis=1) / rows, np.abs(sums - self._sums).sum(axis=1) / rows

    def _summed(self, weights: Floats) -> Floats:
        """Weighted gap of every bin, (R, bins)."""
        resamples = len(weights)
        place = (self._bins + self._width * np.arange(resamples)[:, None]).ravel()
        sums = np.bincount(place, (weights * self._gap).ravel(), self._width * resamples)
        return np.asarray(sums, np.float64).reshape(resamples, self._width)


def interval(error: float, errors: Floats, noise: Floats) -> Interval | None:
    """95 % interval of an ECE, from its resamples (R,) and their noise (R,); None where most are NaN.

    Chance adds to an ECE, and resampling adds it again: of a calibrated model every resample is worse than the model.
    So up to what noise alone may come to the lower bound is 0; above, it is as far away as the upper one.  The sum of
    the bins' true gaps lies no further from the sum of the measured ones than the sum of their noise.
    """
    if (tails := between_tails(errors)) is None:
        return None
    high = max(error, tails[1])
    return (0.0 if error <= np.quantile(noise, 0.95) else max(0.0, 2 * error - high)), high


def expected_calibration_error(confidence: Floats, correct: Booleans, bins: int = BINS) -> float:
    """Top-label ECE in [0, 1]: mean |accuracy - confidence| over equal-width bins, weighted by their size.

    confidence (N,) float in [0, 1]; correct (N,) bool.  Raises NoData when N is 0.
    Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    return CalibrationError(equal_width(confidence, bins), confidence, correct).of_sample


def equal_mass_error(confidence: Floats, correct: Booleans, bins: int = BINS) -> float:
    """Top-label ECE in [0, 1] over bins of equally many rows, which follow where the confidences lie.

    As `expected_calibration_error`.  Nixon et al. 2019, arXiv:1904.01685.
    """
    return CalibrationError(equal_mass(confidence, bins), confidence, correct).of_sample


def class_error(probability: Floats, positive: Booleans, bins: int = BINS) -> float:
    """ECE in [0, 1] of P(positive) against the frequency of positive rows, over equal-width bins.

    probability (N,), of the positive class; positive (N,) bool.  What torchmetrics calls a binary calibration error.
    """
    return expected_calibration_error(probability, positive, bins)


def classwise_error(probabilities: Floats, truth: Integers, bins: int = BINS) -> float:
    """Mean over the classes of `class_error` of each against the rest; probabilities (N, C), truth (N,).

    Kull et al. 2019, arXiv:1910.12656, eq. 3.
    """
    need_rows(truth)
    return mean([class_error(probabilities[:, c], truth == c, bins) for c in range(probabilities.shape[1])])


def artifact_error(probability: Floats, correct: Booleans, bins: int = BINS) -> float:
    """P(positive), (N,), against being correct, (N,) bool, as if it were a confidence.  Not a calibration error.

    A row that is rightly and surely negative counts as wrong by nearly 1, so a perfectly calibrated model with half of
    its rows positive gets about 0.5.  Only for recognising figures that were computed so.
    """
    return expected_calibration_error(probability, correct, bins)


def equal_width(confidence: Floats, bins: int = BINS) -> Integers:
    """Bin (N,) of each row, of equal-width bins of (0, 1], open below and closed above (Guo et al.).

    1.0 falls into the last one, 0 into the first.  Raises NoData when N is 0.
    """
    need_rows(confidence)
    return np.clip(np.searchsorted(_edges(bins), confidence, side="left") - 1, 0, bins - 1)


def equal_mass(confidence: Floats, bins: int = BINS) -> Integers:
    """Bin (N,) of each row, of bins with equally many rows, but equal confidences share the bin of their middle.

    Fewer rows than bins leave bins empty.  Raises NoData when N is 0.
    """
    need_rows(confidence)
    order = TiedOrder.of(-confidence)
    ends = order.ends + 1
    starts = np.concatenate([[0], ends[:-1]])
    found = np.empty(len(confidence), np.int64)
    found[order.order] = np.repeat(bins * (starts + ends) // (2 * len(confidence)), ends - starts)
    return found


def reliability_bins(confidence: Floats, correct: Booleans, bins: int = BINS) -> tuple[Bin, ...]:
    """The bins of `equal_width` with what is in them: `expected_calibration_error` as a picture.

    confidence (N,) float in [0, 1]; correct (N,) bool.  Raises NoData when N is 0.
    """
    place = equal_width(confidence, bins)
    edges = _edges(bins)
    members = [place == number for number in range(bins)]
    return tuple(
        Bin(
            low=float(edges[number]),
            high=float(edges[number + 1]),
            count=int(inside.sum()),
            confidence=float(confidence[inside].mean()) if inside.any() else None,
            accuracy=float(correct[inside].mean()) if inside.any() else None,
        )
        for number, inside in enumerate(members)
    )


def floor(confidence: Floats, bins: int = BINS, simulations: int = 2_000) -> Floor:
    """The top-label ECE that chance alone gives a perfectly calibrated model with confidence (N,): simulated, seeded.

    Each row is correct with the probability of its confidence.  Rows are drawn one by one while that is cheap; beyond
    20 million draws each bin's sum is drawn from the normal distribution with its variance.  Raises NoData when N is 0.
    Vaicenavicius et al. 2019, arXiv:1902.06977 (consistency resampling).
    """
    place = equal_width(confidence, bins)
    draw = np.random.default_rng(_SEED)
    if len(confidence) * simulations <= _DRAWS:
        errors = _drawn_errors(place, confidence, simulations, draw)
    else:
        spread = np.sqrt(np.bincount(place, confidence * (1 - confidence), bins))
        errors = np.abs(draw.standard_normal((simulations, bins)) * spread).sum(axis=1) / len(confidence)
    return Floor(float(errors.mean()), float(np.quantile(errors, 0.95)), simulations)


def _drawn_errors(place: Integers, confidence: Floats, simulations: int, draw: np.random.Generator) -> Floats:
    """ECE (simulations,) of rows that are drawn as correct with the probability of their confidence."""
    order = np.argsort(place, kind="stable")
    starts = np.flatnonzero(np.diff(place[order], prepend=-1))
    promised = np.add.reduceat(confidence[order], starts)
    errors = []
    for first in range(0, simulations, chunk := max(1, 1_000_000 // len(order))):
        correct = draw.random((min(chunk, simulations - first), len(order))) < confidence[order]
        gaps = np.add.reduceat(correct, starts, axis=1, dtype=np.float64) - promised
        errors.append(np.abs(gaps).sum(axis=1) / len(order))
    return np.concatenate(errors)


def _edges(bins: int) -> Floats:
    return np.arange(bins + 1) / bins
