"""95 % intervals by a seeded, stratified bootstrap: which rows are drawn how often, and what lies between the tails.

Rows are resampled within each true class (or category), so every resample has the classes' real sizes.  A resample is
never built: it is a row of counts, and metrics are taken of counts.  Percentile intervals (Efron 1979, Annals of
Statistics 7(1)).  Knows no metric.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from jobs.score import Floats, Integers, need_rows

SEED = 20_171
MOST, FEWEST = 1_000, 100
WORK = 200_000_000
"""Rows times classes times resamples: 1,000 resamples up to 100,000 rows of two classes, 100 of a million."""
CELLS = 1 << 18
"""Counts that are held at once, 2 MB: what a processor's cache can hold is fastest.  One resample at least."""
MAY_LACK = 0.05
TAILS = (0.025, 0.975)

Interval = tuple[float, float]
Statistic = Callable[[Floats], Mapping[str, Floats]]
"""Weights (R, N) -> values by name, each (R,), NaN where a resample has none."""


def count(rows: int, classes: int = 2) -> int:
    """How many resamples that many rows get: the work is bounded."""
    return max(FEWEST, min(MOST, WORK // (max(1, rows) * max(2, classes))))


def weights(strata: Integers, resamples: int) -> Iterator[Floats]:
    """How often each row is drawn: chunks (R, N) float64, R in all `resamples`.  The same for the same strata (N,).

    Whatever is measured on them is paired by that.  Raises NoData when N is 0.
    """
    need_rows(strata)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    # A stream a stratum, so that the size of the chunks changes nothing.
    streams = [np.random.default_rng([SEED, number]) for number in range(len(members))]
    for start in range(0, resamples, chunk := max(1, CELLS // len(strata))):
        wide = min(chunk, resamples - start)
        drawn = np.empty((wide, len(strata)))
        for rows, stream in zip(members, streams, strict=True):
            picked = stream.integers(0, len(rows), (wide, len(rows)))
            picked += len(rows) * np.arange(wide)[:, None]
            drawn[:, rows] = np.bincount(picked.ravel(), minlength=picked.size).reshape(picked.shape)
        yield drawn


def resampled(strata: Integers, *statistics: Statistic, classes: int = 2) -> dict[str, Floats]:
    """What the statistics come to in every resample within strata (N,): values (R,) by name, R by `count`.

    With one row a stratum all resamples are the sample, and an interval of no width would claim to be sure: all NaN.
    Raises NoData when N is 0.
    """
    found: dict[str, list[Floats]] = defaultdict(list)
    for chunk in weights(strata, count(len(strata), classes)):
        for statistic in statistics:
            for name, values in statistic(chunk).items():
                found[name].append(values)
    nothing_to_draw = np.unique(strata).size == len(strata)
    joined = {name: np.concatenate(parts) for name, parts in found.items()}
    return {name: np.full_like(values, np.nan) if nothing_to_draw else values for name, values in joined.items()}


def between_tails(values: Floats) -> Interval | None:
    """The middle 95 % of values (R,); None where more than 5 % of them are NaN."""
    defined = values[~np.isnan(values)]
    if len(defined) < (1 - MAY_LACK) * len(values):
        return None
    low, high = np.quantile(defined, TAILS)
    return float(low), float(high)
