"""Two models on the same rows: McNemar against statsmodels and SciPy, paired differences against slow bootstraps."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar

from jobs import bootstrap, comparison
from jobs.calibration_error import expected_calibration_error
from jobs.errors import NoData
from jobs.probabilities import log_odds, softmax
from jobs.ranking import auc_roc
from tests.scored import bounded, random_cases


@bounded
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_sum(wins, losses):
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    assert comparison.mcnemar_exact(wins, losses) == pytest.approx(float(min(Fraction(2 * tail, 2**n), Fraction(1))))


def test_mcnemar_equals_statsmodels_on_random_cases():
    draw = np.random.default_rng(0)
    for _ in range(1_000):
        wins, losses = (int(draw.integers(0, 10 ** draw.integers(1, 5))) for _ in range(2))
        expected = float(mcnemar([[3, wins], [losses, 5]], exact=True).pvalue) if wins + losses else 1.0
        assert comparison.mcnemar_exact(wins, losses) == pytest.approx(expected, rel=1e-9, abs=1e-200)


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 0), (1, 0), (500_000, 499_000), (1_000_001, 1_000_000), (3_000_000, 2_990_000), (5_000, 1)]
)
def test_mcnemar_of_large_counts_equals_scipy(wins, losses):
    expected = binomtest(min(wins, losses), wins + losses).pvalue if wins + losses else 1.0
    assert comparison.mcnemar_exact(wins, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def two_models(rows=300, classes=2, seed=0):
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, classes, rows)
    logits = draw.normal(size=(rows, classes)).astype(np.float32)
    logits[np.arange(rows), truth] += 1.5
    return truth, logits, (logits + draw.normal(size=logits.shape)).astype(np.float32)


def test_a_comparison_counts_rows_and_is_plain():
    truth, one, other = two_models()
    found = comparison.compare(truth, one, other, 1, 1.5, None)
    right, also = one.argmax(1) == truth, other.argmax(1) == truth
    assert found["wins"] == sum(right & ~also) and found["losses"] == sum(~right & also)
    assert found["both_right"] + found["both_wrong"] + found["wins"] + found["losses"] == found["rows"] == 300
    assert found["accuracy_difference"] == pytest.approx(right.mean() - also.mean())
    low, high = found["difference_interval"]
    assert low < found["accuracy_difference"] < high
    assert found["verdict"] == ("better" if found["mcnemar_p"] < 0.05 else "no clear difference")
    assert found["differences"]["robustness"] is None
    text = json.dumps(found, allow_nan=False)
    assert text == json.dumps(comparison.compare(truth, one, other, 1, 1.5, None), allow_nan=False)


def test_differences_are_those_of_each_model_after_its_temperature():
    truth, one, other = two_models()
    found = comparison.compare(truth, one, other, 1, 1.5, None)["differences"]
    areas = [auc_roc(truth == 1, log_odds(logits)[:, 1]).value for logits in (one, other)]
    assert found["auc_roc"]["difference"] == pytest.approx(areas[0] - areas[1])
    errors = [
        expected_calibration_error(softmax(logits).max(axis=1), logits.argmax(axis=1) == truth)
        for logits in (one / np.float64(1.5), other)
    ]
    assert found["ece"]["difference"] == pytest.approx(errors[0] - errors[1])
    for one_of in (found["auc_roc"], found["ece"]):
        assert one_of["interval"][0] <= one_of["difference"] <= one_of["interval"][1]


def test_the_interval_of_the_auc_difference_is_of_the_same_rows_drawn_for_both():
    truth, *both = two_models(rows=60)
    found = comparison.compare(truth, *both, 1, None, None)["differences"]["auc_roc"]["interval"]
    odds, differences = [log_odds(logits)[:, 1] for logits in both], []
    for counts in np.concatenate(list(bootstrap.weights(truth, bootstrap.count(60)))).astype(int):
        drawn = np.repeat(np.arange(60), counts)
        above, below = drawn[truth[drawn] == 1], drawn[truth[drawn] == 0]
        gaps = [score[above][:, None] - score[below] for score in odds]
        areas = [np.mean((gap > 0) + (gap == 0) / 2) for gap in gaps]
        differences.append(areas[0] - areas[1])
    assert found == pytest.approx(np.quantile(differences, [0.025, 0.975]), abs=1e-9)


def test_equal_models_do_not_differ():
    truth, one, _ = two_models()
    found = comparison.compare(truth, one, one, 1, None, None)
    assert (found["wins"], found["losses"], found["mcnemar_p"]) == (0, 0, 1.0)
    assert found["differences"]["auc_roc"] == {"difference": 0.0, "interval": [0.0, 0.0]}
    assert found["differences"]["ece"]["difference"] == 0.0
    assert found["verdict"] == "no clear difference"


def test_the_interval_of_an_ece_difference_holds_the_true_one_also_of_a_calibrated_model():
    def drawn(rows, draw):
        logits = draw.normal(size=(rows, 2)) * 2
        p = softmax(logits)[:, 1]
        return (draw.random(rows) < p).astype(np.int64), logits

    draw = np.random.default_rng(0)
    truth, logits = drawn(500_000, draw)
    true = -expected_calibration_error(softmax(2 * logits).max(axis=1), logits.argmax(axis=1) == truth)
    held = 0
    for _ in range(60):
        truth, logits = drawn(800, draw)
        low, high = comparison.compare(truth, logits, 2 * logits, 1, None, None)["differences"]["ece"]["interval"]
        held += low <= true <= high
    assert held >= 0.85 * 60


def test_one_class_has_no_auc_to_compare_and_one_row_no_intervals():
    truth, one, other = two_models()
    assert comparison.compare(truth * 0, one, other, 1, None, None)["differences"]["auc_roc"] is None
    found = comparison.compare(truth[:1], one[:1], other[:1], 1, None, None)
    assert found["differences"]["auc_roc"] is None and found["differences"]["ece"]["interval"] is None
    assert found["rows"] == 1
    with pytest.raises(NoData):
        comparison.compare(truth[:0], one[:0], other[:0], 1, None, None)


def test_a_comparison_of_anything_is_finite():
    for truth, logits in random_cases(40):
        positive = 1 if logits.shape[1] == 2 else None
        found = comparison.compare(truth, logits, logits[::-1], positive, 2.0, 0.5)
        json.dumps(found, allow_nan=False)
