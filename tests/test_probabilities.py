"""Probabilities, log-odds and proper scores against their definitions and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given

from jobs import probabilities
from jobs.errors import NoData
from tests.scored import bounded, cases, random_cases


@bounded
@given(cases())
def test_probabilities_are_the_exponentials_over_their_sum(case):
    _, logits = case
    found = probabilities.softmax(logits)
    for row, given_row in zip(found, logits.tolist(), strict=True):
        exponentials = [math.exp(value - max(given_row)) for value in given_row]
        assert row == pytest.approx([one / sum(exponentials) for one in exponentials], rel=1e-12, abs=0)
    assert np.all(found <= 1)
    assert np.isfinite(probabilities.log_softmax(logits)).all()
    assert np.exp(probabilities.log_softmax(logits)) == pytest.approx(found, rel=1e-9, abs=1e-300)


@bounded
@given(cases())
def test_log_odds_are_those_of_the_probabilities(case):
    _, logits = case
    p, odds = probabilities.softmax(logits), probabilities.log_odds(logits)
    inside = (p > 1e-9) & (p < 1 - 1e-9)
    expected = np.log(p[inside] / (1 - p[inside]))
    assert odds[inside] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.isfinite(odds).all()


@bounded
@given(cases())
def test_certainty_is_the_log_odds_of_what_is_predicted(case):
    _, logits = case
    said = logits.argmax(axis=1)
    found = probabilities.certainty(logits)
    assert found == pytest.approx(probabilities.log_odds(logits)[np.arange(len(said)), said], rel=1e-9, abs=1e-9)
    if logits.shape[1] == 2:  # no rounding at all: ties are ties on every machine
        wide = logits.astype(np.float64)
        assert found.tolist() == np.abs(wide[:, 1] - wide[:, 0]).tolist()


def test_proper_scores_equal_scikit_learn_on_random_cases():
    for truth, logits in random_cases():
        labels, p = list(range(logits.shape[1])), probabilities.softmax(logits)
        shown = p[:, 1] if len(labels) == 2 else p
        expected = reference.brier_score_loss(truth, shown, labels=labels)
        assert probabilities.brier(truth, p) == pytest.approx(expected, abs=1e-12)
        likelihood = probabilities.negative_log_likelihood(truth, probabilities.log_softmax(logits))
        assert math.isfinite(likelihood) and likelihood >= 0
        if p.min() > 1e-12:
            assert likelihood == pytest.approx(reference.log_loss(truth, p, labels=labels))


def test_a_certain_row_costs_nothing_and_a_certain_error_is_finite():
    logits = np.array([[0, 2_000]], np.float32)
    log_p = probabilities.log_softmax(logits)
    assert probabilities.negative_log_likelihood(np.array([1]), log_p) == 0.0
    assert probabilities.negative_log_likelihood(np.array([0]), log_p) == 2_000
    assert probabilities.brier(np.array([0]), probabilities.softmax(logits)) == 1.0


def test_nothing_is_measured_on_no_rows():
    none, wide = np.zeros(0, np.int64), np.zeros((0, 2))
    for call in (
        lambda: probabilities.softmax(wide),
        lambda: probabilities.log_softmax(wide),
        lambda: probabilities.log_odds(wide),
        lambda: probabilities.certainty(wide),
        lambda: probabilities.negative_log_likelihood(none, wide),
        lambda: probabilities.brier(none, wide),
    ):
        with pytest.raises(NoData):
            call()
