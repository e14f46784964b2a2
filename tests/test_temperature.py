"""The temperature: the lowest loss there is, the same every time, and words for what can't be fitted."""

from __future__ import annotations

import numpy as np
import pytest

from jobs import temperature
from jobs.errors import BrokenRun
from jobs.probabilities import log_softmax, negative_log_likelihood
from tests.scored import random_cases


def loss(logits, truth, value):
    return negative_log_likelihood(truth, log_softmax(temperature.scale(logits, value)))


def fitted_loss(logits, truth, value):
    """With one row of N + 2 taken from the true label and given to the others."""
    logs = log_softmax(temperature.scale(logits, value))
    taken = 1 / (len(truth) + 2)
    others = (logs.sum(axis=1) - logs[np.arange(len(truth)), truth]) / (logs.shape[1] - 1)
    return (1 - taken) * negative_log_likelihood(truth, logs) - taken * others.mean()


def test_no_other_temperature_fits_better_on_random_cases():
    inside = 0
    for truth, logits in random_cases(rows=200):
        found, note = temperature.fit(logits, truth)
        if found is None:
            assert note
            continue
        assert temperature.LOWEST <= found.value <= temperature.HIGHEST
        assert found.rows == len(truth)
        assert found.nll_after == pytest.approx(loss(logits, truth, found.value))
        assert found.nll_before == pytest.approx(loss(logits, truth, 1.0))
        for other in [*np.geomspace(0.05, 20, 40), found.value * 0.999, found.value * 1.001]:
            if temperature.LOWEST <= other <= temperature.HIGHEST:
                assert fitted_loss(logits, truth, found.value) <= fitted_loss(logits, truth, other) + 1e-12
        assert bool(note) == (found.value in (temperature.LOWEST, temperature.HIGHEST))
        inside += not note
    assert inside > 100


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_the_temperature_that_logits_were_made_with_is_found(true):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(50_000, 3)) * 2
    noise = draw.gumbel(size=logits.shape)
    truth = (logits + noise).argmax(axis=1)  # a draw from the softmax of the logits
    found, note = temperature.fit(logits * true, truth)
    assert found.value == pytest.approx(true, rel=0.03) and not note


def test_the_order_of_rows_changes_no_digit():
    truth, logits = next(case for case in random_cases(50, seed=2, rows=200) if len(case[0]) > 150)
    found, _ = temperature.fit(logits, truth)
    for seed in range(20):
        mixed = np.random.default_rng(seed).permutation(len(truth))
        assert temperature.fit(logits[mixed], truth[mixed])[0].value == found.value
    assert float(f"{found.value:.10g}") == found.value


def sure_rows(rows, right):
    logits = np.tile(np.array([[0, 3]], np.float32), (rows, 1))
    return logits, np.full(rows, int(right))


def test_few_rows_that_are_all_right_make_no_one_certain():
    logits, truth = sure_rows(30, True)
    found, note = temperature.fit(logits, truth)
    confidence = np.exp(log_softmax(temperature.scale(logits, found.value)))[:, 1]
    assert not note and confidence == pytest.approx(31 / 32, abs=1e-6)


def test_where_all_rows_are_wrong_or_hardly_differ_it_stands_at_a_bound_and_says_so():
    found, note = temperature.fit(*sure_rows(30, False))
    assert found.value == temperature.HIGHEST and "upper bound" in note and found.nll_after < found.nll_before
    logits, truth = sure_rows(30, True)
    found, note = temperature.fit(logits / 1000, truth)
    assert found.value == temperature.LOWEST and "lower bound" in note


def test_what_can_not_be_fitted_is_none_with_a_reason():
    logits, truth = sure_rows(30, True)
    for rows in (0, 1, 19):
        found, note = temperature.fit(logits[:rows], truth[:rows])
        assert found is None and "too few" in note
    assert temperature.fit(np.ones((30, 2), np.float32), truth)[0] is None
    logits[3, 0] = np.nan
    assert temperature.fit(logits, truth) == (None, "a logit is not a finite number")


def test_extreme_logits_are_no_trouble():
    draw = np.random.default_rng(0)
    logits = np.where(draw.random((100, 2)) < 0.5, 3e38, -3e38).astype(np.float32)
    found, _ = temperature.fit(logits, draw.integers(0, 2, 100))
    assert found is not None and np.isfinite([found.value, found.nll_before, found.nll_after]).all()


def test_a_label_stays_what_it_is():
    for _, logits in random_cases(50):
        assert (temperature.scale(logits, 3.7).argmax(axis=1) == logits.argmax(axis=1)).all()


@pytest.mark.parametrize("value", [0.05, 1, 1.5, 20.0])
def test_a_temperature_from_outside_is_taken(value):
    assert temperature.checked(value, "classifier.json") == value


@pytest.mark.parametrize("value", [0, 0.049, 20.1, -1, float("nan"), float("inf"), True, None, "1", [1], 10**400])
def test_what_is_no_temperature_is_refused_by_name(value):
    with pytest.raises(BrokenRun, match=r"classifier.json: a temperature is a number from 0.05 to 20"):
        temperature.checked(value, "classifier.json")
