"""95 % intervals that have a formula: of a share, and of the difference of two figures of the same rows."""

from __future__ import annotations

import math

from jobs.errors import NoData

Z = 1.959963984540054


def wilson_interval(correct: int, rows: int, z: float = Z) -> tuple[float, float]:
    """Lower and upper bound in [0, 1] of the share of `correct` in `rows`; 95 % by default.

    Raises NoData for 0 rows.  Wilson 1927, JASA 22(158).
    """
    if rows == 0:
        raise NoData("Wilson interval: no rows")
    share, spread = correct / rows, z * z / rows
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    # The share itself is a bound when nothing, or everything, is correct; rounding would miss it by a digit.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def paired_difference_interval(wins: int, losses: int, rows: int, z: float = Z) -> tuple[float, float]:
    """Lower and upper bound in [-1, 1] of the difference of two models' accuracies on the same rows; 95 % by default.

    wins, losses: rows where only the first, only the second model is right.  Raises NoData for 0 rows.
    Agresti & Min 2005, Statistics in Medicine 24(5): Wald's interval with half a row added to each cell.
    """
    if rows == 0:
        raise NoData("interval of a difference: no rows")
    count, discordant = rows + 2, wins + losses + 1
    difference = (wins - losses) / count
    half = z * math.sqrt(max(0.0, discordant - count * difference**2)) / count
    return max(-1.0, difference - half), min(1.0, difference + half)


def difference_interval(
    first: float,
    first_interval: tuple[float, float],
    second: float,
    second_interval: tuple[float, float],
    correlation: float,
) -> tuple[float, float]:
    """Lower and upper bound of first - second, of each one's own interval and the correlation of their errors.

    For figures whose intervals are lopsided, as that of an ECE near 0.  Zou & Donner 2008, Statistics in Medicine
    27(10).
    """

    def distance(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))

    difference = first - second
    return (
        difference - distance(first - first_interval[0], second_interval[1] - second),
        difference + distance(first_interval[1] - first, second - second_interval[0]),
    )
