"""Intervals that have a formula, against statsmodels and by what share of simulations they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from jobs import intervals
from jobs.errors import NoData
from tests.scored import bounded


@bounded
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(case):
    correct, rows = case
    low, high = intervals.wilson_interval(correct, rows)
    assert 0 <= low <= correct / rows <= high <= 1
    for bound in (low, high):  # a bound lies z standard errors, taken at the bound, from the share
        if 0 < bound < 1:
            error = math.sqrt(bound * (1 - bound) / rows)
            assert abs(correct / rows - bound) == pytest.approx(1.959963984540054 * error, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("rows", "expected"), [(500, (92.7, 96.6)), (1200, (93.6, 96.1)), (10_000, (94.6, 95.4))])
def test_wilson_interval_of_95_percent(rows, expected):
    low, high = intervals.wilson_interval(round(0.95 * rows), rows)
    assert (round(100 * low, 1), round(100 * high, 1)) == expected


@pytest.mark.parametrize(("difference", "disagree"), [(0.0, 0.2), (0.05, 0.15), (-0.1, 0.1)])
def test_the_interval_of_a_difference_holds_the_true_one_in_95_of_100(difference, disagree):
    rng = np.random.default_rng(0)
    shares = [(disagree + difference) / 2, (disagree - difference) / 2]
    held = 0
    for wins, losses, _ in rng.multinomial(500, [*shares, 1 - sum(shares)], size=2_000):
        low, high = intervals.paired_difference_interval(int(wins), int(losses), 500)
        held += low <= difference <= high
    assert 0.935 <= held / 2_000 <= 0.97


def test_the_interval_of_a_difference_is_about_it_and_within_bounds():
    low, high = intervals.paired_difference_interval(30, 30, 1_000)
    assert low == pytest.approx(-high)
    for wins, losses, rows in [(1, 0, 1), (0, 1, 1), (0, 0, 1), (5, 0, 5)]:
        low, high = intervals.paired_difference_interval(wins, losses, rows)
        assert -1 <= low < high <= 1


def test_wilson_interval_equals_statsmodels_on_random_cases():
    draw = np.random.default_rng(0)
    for _ in range(1_000):
        rows = int(draw.integers(1, 10 ** draw.integers(1, 7)))
        correct = int(draw.choice([0, rows, draw.integers(0, rows + 1)]))
        expected = proportion_confint(correct, rows, method="wilson")
        assert intervals.wilson_interval(correct, rows) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_a_difference_of_figures_uses_the_side_that_faces_the_other():
    alone = intervals.difference_interval(0.5, (0.4, 0.7), 0.2, (0.2, 0.3), 0.0)
    assert alone == pytest.approx((0.3 - math.hypot(0.1, 0.1), 0.3 + 0.2))
    low, high = intervals.difference_interval(0.5, (0.4, 0.6), 0.2, (0.1, 0.3), 1.0)
    assert (low, high) == pytest.approx((0.3, 0.3))  # they err alike: the difference does not err


def test_nothing_is_measured_on_no_rows():
    with pytest.raises(NoData):
        intervals.wilson_interval(0, 0)
    with pytest.raises(NoData):
        intervals.paired_difference_interval(0, 0, 0)
