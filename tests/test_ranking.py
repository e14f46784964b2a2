"""Areas against scikit-learn, against counted pairs, and of weights against the rows really drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given

from jobs import probabilities, ranking
from jobs.errors import NoData
from jobs.ranking import Ranking
from jobs.score import Score
from jobs.tied_order import ones
from tests.scored import bounded, cases, random_cases, weighted


def macro(truth, scores):
    return ranking.mean_area(ranking.auc_roc, truth[:, None] == np.arange(scores.shape[1]), scores)


@bounded
@given(cases(2, 2))
def test_auc_counts_pairs(case):
    truth, logits = case
    odds = probabilities.log_odds(logits)[:, 1]
    above, below = odds[truth == 1], odds[truth == 0]
    found = ranking.auc_roc(truth == 1, odds)
    if len(above) == 0 or len(below) == 0:
        assert found == Score(None, "all rows are of one class")
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(above, below)]
    assert found.value == pytest.approx(np.mean(pairs))


@bounded
@given(cases(3, 4))
def test_multiclass_auc_equals_scikit_learn(case):
    truth, logits = case
    logits = np.clip(logits, -5, 5)  # scikit-learn takes probabilities, which tie where logits are far apart
    found = macro(truth, probabilities.log_odds(logits))
    if len(set(truth.tolist())) < logits.shape[1]:
        assert found.value is None and found.reason
    else:
        # The rounding that makes ties of a probability and not of its log-odds is taken out of both.
        rounded = np.round(probabilities.softmax(logits), 9)
        expected = np.mean([reference.roc_auc_score(truth == c, rounded[:, c]) for c in range(logits.shape[1])])
        ours = macro(truth, rounded)
        assert ours.value == pytest.approx(expected)
        assert found.value == pytest.approx(expected, abs=0.02)


def test_areas_equal_scikit_learn_on_random_cases():
    defined = 0
    for number, (truth, logits) in enumerate(random_cases()):
        positive, score = truth == 1, np.round(logits[:, 1], number % 3)
        roc, precision = ranking.auc_roc(positive, score), ranking.auc_pr(positive, score)
        found = Ranking(positive[:, None], score[:, None])(ones(len(truth)))
        if positive.all() or not positive.any():
            assert roc == precision == Score(None, "all rows are of one class")
            assert np.isnan(found["auc_roc"]).all() and np.isnan(found["auc_pr"]).all()
            continue
        defined += 1
        assert roc.value == pytest.approx(reference.roc_auc_score(positive, score))
        assert found["auc_roc"][0] == pytest.approx(roc.value)
        assert precision.value == pytest.approx(reference.average_precision_score(positive, score))
        assert found["auc_pr"][0] == pytest.approx(precision.value)
    assert defined > 500


def test_areas_of_weights_are_those_of_the_rows_really_drawn():
    compared = 0
    for number, (truth, logits) in enumerate(random_cases(80, seed=1)):
        weights = weighted(3, len(truth), seed=number)
        classes = logits.shape[1]
        positives = truth[:, None] == np.arange(classes)
        found = Ranking(positives, logits)(weights)
        for r, counts in enumerate(weights.astype(int)):
            drawn, scores = np.repeat(positives, counts, axis=0), np.repeat(logits, counts, axis=0)
            for name, area in (("auc_roc", ranking.auc_roc), ("auc_pr", ranking.auc_pr)):
                expected = ranking.mean_area(area, drawn, scores).value
                assert found[name][r] == pytest.approx(np.nan if expected is None else expected, nan_ok=True)
                compared += expected is not None
    assert compared > 50


def test_the_macro_average_of_two_columns_lacks_a_value_where_one_does():
    truth = np.array([0, 0, 1])
    scores = np.array([[2.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert macro(truth, scores[:, :2]).value == 1.0
    missing = macro(truth, scores)
    assert missing.value is None and "no rows" in missing.reason


def test_nothing_is_measured_on_no_rows():
    flags, empty = np.zeros(0, bool), np.zeros(0)
    for call in (
        lambda: ranking.auc_roc(flags, empty),
        lambda: ranking.auc_pr(flags, empty),
        lambda: macro(np.zeros(0, np.int64), np.zeros((0, 3))),
    ):
        with pytest.raises(NoData):
            call()
