"""Answering only the surest rows: against definitions written out slowly, and of weights against rows really drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import selective
from jobs.errors import NoData
from jobs.probabilities import certainty
from jobs.selective import Selective
from tests.scored import bounded, random_cases, weighted

rows = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40)


def slow(confidence, correct):
    """AURC and coverage at 1 % risk: for every k, all rows that are at least as sure as the k-th, looked at anew."""
    size = len(confidence)
    risks, coverage = [], 0.0
    for k in range(1, size + 1):
        bound = sorted(confidence, reverse=True)[k - 1]
        answered = [right for value, right in zip(confidence, correct, strict=True) if value >= bound]
        risks.append(answered.count(False) / len(answered))
        if answered.count(False) * 100 <= len(answered):
            coverage = max(coverage, len(answered) / size)
    return sum(risks) / size, coverage


def test_areas_equal_the_slow_definition_on_random_cases():
    for truth, logits in random_cases(rows=30):
        sure, correct = certainty(logits), logits.argmax(axis=1) == truth
        area, coverage = slow(sure.tolist(), correct.tolist())
        assert selective.aurc(sure, correct) == pytest.approx(area, abs=1e-12)
        assert selective.coverage_at_1_risk(sure, correct) == pytest.approx(coverage, abs=1e-12)


def test_without_ties_the_area_is_the_mean_of_running_error_rates():
    draw = np.random.default_rng(0)
    for size in draw.integers(1, 400, 1_000):
        confidence, correct = draw.permutation(int(size)).astype(float), draw.random(int(size)) < 0.8
        errors = np.cumsum(~correct[np.argsort(-confidence)])
        expected = np.mean(errors / np.arange(1, size + 1))
        assert selective.aurc(confidence, correct) == pytest.approx(expected)


@bounded
@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(found, random):
    mixed = random.sample(found, len(found))
    one, other = (
        (np.array([value for value, _ in order], float), np.array([right for _, right in order]))
        for order in (found, mixed)
    )
    assert selective.aurc(*one) == pytest.approx(selective.aurc(*other), abs=1e-12)
    assert selective.coverage_at_1_risk(*one) == selective.coverage_at_1_risk(*other)
    assert selective.risk_coverage(*one) == selective.risk_coverage(*other)


def test_areas_of_weights_are_those_of_the_rows_really_drawn():
    for number, (truth, logits) in enumerate(random_cases(300, seed=1)):
        sure, correct = certainty(logits), logits.argmax(axis=1) == truth
        weights = weighted(3, len(truth), seed=number)
        found = Selective(sure, correct)(weights)
        for r, counts in enumerate(weights.astype(int)):
            drawn, right = np.repeat(sure, counts), np.repeat(correct, counts)
            assert found["aurc"][r] == pytest.approx(selective.aurc(drawn, right), abs=1e-12)
            assert found["coverage_at_1_risk"][r] == pytest.approx(selective.coverage_at_1_risk(drawn, right))


def test_one_in_a_hundred_is_one_percent():
    confidence = np.arange(200, 0, -1.0)
    correct = np.arange(200) != 99
    assert selective.coverage_at_1_risk(confidence, correct) == 1.0
    correct[[100, 101]] = False
    assert selective.coverage_at_1_risk(confidence, correct) == 0.5
    assert selective.coverage_at_1_risk(np.ones(5), np.array([True, True, True, True, False])) == 0.0
    assert selective.aurc(np.ones(5), np.array([True, True, True, True, False])) == pytest.approx(0.2)
    assert selective.aurc(np.ones(1), np.array([True])) == 0.0


@pytest.mark.parametrize("size", [1, 2, 199, 200, 201, 5_000])
def test_the_curve_is_thinned_and_ends_at_all_rows(size):
    draw = np.random.default_rng(0)
    correct = draw.random(size) < 0.7
    points = selective.risk_coverage(draw.permutation(size).astype(float), correct)
    assert len(points) == min(size, 200)
    assert points[0][0] == pytest.approx(1 / size) and points[-1] == [1.0, pytest.approx(1 - correct.mean())]
    assert all(a[0] < b[0] for a, b in zip(points, points[1:], strict=False))


def test_nothing_is_measured_on_no_rows():
    for call in (selective.aurc, selective.coverage_at_1_risk, selective.risk_coverage):
        with pytest.raises(NoData):
            call(np.zeros(0), np.zeros(0, bool))
