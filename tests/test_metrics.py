"""Metrics of labels against scikit-learn or their definition written out slowly, and the summary made of them."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given

from jobs import metrics
from jobs.errors import NoData
from tests.scored import bounded, cases, random_cases, weighted


def predicted_of(logits):
    return logits.argmax(axis=1).astype(np.int64)


@bounded
@given(cases())
def test_counts_equal_scikit_learn(case):
    truth, logits = case
    predicted, classes = predicted_of(logits), logits.shape[1]
    labels = list(range(classes))
    assert metrics.accuracy(truth, predicted) == reference.accuracy_score(truth, predicted)
    brute = [[sum((truth == i) & (predicted == j)) for j in labels] for i in labels]
    assert metrics.confusion_matrix(truth, predicted, classes).tolist() == brute
    for positive in labels:
        expected = sum(predicted == positive) / len(predicted)
        assert metrics.predicted_positive_rate(predicted, positive) == pytest.approx(expected)


@bounded
@given(cases())
def test_class_scores_equal_their_definition(case):
    truth, logits = case
    predicted = predicted_of(logits)
    for c, scores in enumerate(metrics.per_class(truth, predicted, logits.shape[1])):
        hits, said, real = (int(sum(x)) for x in ((truth == c) & (predicted == c), predicted == c, truth == c))
        assert (scores.support, scores.predicted) == (real, said)
        for score, top, bottom in (
            (scores.precision, hits, said),
            (scores.recall, hits, real),
            (scores.f1, 2 * hits, said + real),
        ):
            assert score.value == (pytest.approx(top / bottom) if bottom else None)
            assert bool(score.reason) == (bottom == 0)


@bounded
@given(cases())
def test_macro_averages_equal_scikit_learn_where_they_are_defined(case):
    truth, logits = case
    predicted = predicted_of(logits)
    scores = metrics.per_class(truth, predicted, logits.shape[1])
    functions = {
        "precision": reference.precision_score,
        "recall": reference.recall_score,
        "f1": reference.f1_score,
    }
    for name, function in functions.items():
        found = metrics.macro(scores, name)
        if found.value is None:
            assert set(truth.tolist()) != set(predicted.tolist()) and found.reason
        else:
            assert found.value == pytest.approx(function(truth, predicted, average="macro"))
    recalls = [np.mean(predicted[truth == c] == c) for c in sorted(set(truth.tolist()))]
    assert metrics.balanced_accuracy(scores) == pytest.approx(np.mean(recalls))


@bounded
@given(cases())
def test_matthews_correlation_equals_scikit_learn(case):
    truth, logits = case
    predicted = predicted_of(logits)
    found = metrics.matthews_correlation(truth, predicted)
    if len(set(truth.tolist())) == 1 or len(set(predicted.tolist())) == 1:
        assert found.value is None and found.reason
    else:
        assert found.value == pytest.approx(reference.matthews_corrcoef(truth, predicted))


def test_averages_equal_scikit_learn_on_random_cases():
    defined = 0
    for truth, logits in random_cases():
        predicted, classes = predicted_of(logits), logits.shape[1]
        scores = metrics.per_class(truth, predicted, classes)
        found = metrics.averages(scores, int((truth == predicted).sum()))
        for kind, one in found.items():
            *expected, _ = reference.precision_recall_fscore_support(truth, predicted, average=kind, zero_division=0)
            for score, value in zip((one.precision, one.recall, one.f1), expected, strict=True):
                if score.value is None:
                    assert kind != "micro" and score.reason
                    continue
                defined += 1
                assert score.value == pytest.approx(value, abs=1e-12)
        for c, one in enumerate(scores):
            negatives = truth != c
            expected = float(np.mean(predicted[negatives] != c)) if negatives.any() else None
            assert one.specificity.value == (None if expected is None else pytest.approx(expected, abs=1e-12))
    assert defined > 5_000


def test_metrics_of_weights_are_those_of_the_rows_really_drawn():
    compared = 0
    for number, (truth, logits) in enumerate(random_cases(200, seed=1)):
        predicted, classes = predicted_of(logits), logits.shape[1]
        weights = weighted(3, len(truth), seed=number)
        positive = 1 if classes == 2 else None
        found = metrics.Decisions(truth, predicted, classes, positive)(weights)
        for r, counts in enumerate(weights.astype(int)):
            real, said = np.repeat(truth, counts), np.repeat(predicted, counts)
            scores = metrics.per_class(real, said, classes)
            expected = {"mcc": metrics.matthews_correlation(real, said).value}
            expected["balanced_accuracy"] = metrics.balanced_accuracy(scores)
            if positive is None:
                expected |= {name: metrics.macro(scores, name).value for name in ("precision", "recall", "f1")}
            else:
                expected |= {"f1": scores[1].f1.value, "predicted_positive_rate": float(np.mean(said == 1))}
            assert set(expected) == set(found)
            for name, value in expected.items():
                assert found[name][r] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True)
                compared += value is not None
    assert compared > 1_000


def test_nothing_is_measured_on_no_rows():
    none = np.zeros(0, np.int64)
    for call in (
        lambda: metrics.accuracy(none, none),
        lambda: metrics.confusion_matrix(none, none, 2),
        lambda: metrics.per_class(none, none, 2),
        lambda: metrics.macro([], "f1"),
        lambda: metrics.averages([], 0),
        lambda: metrics.balanced_accuracy([]),
        lambda: metrics.matthews_correlation(none, none),
        lambda: metrics.predicted_positive_rate(none, 1),
        lambda: metrics.Decisions(none, none, 2, 1),
    ):
        with pytest.raises(NoData):
            call()
