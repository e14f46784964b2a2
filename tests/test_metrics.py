"""Every metric against scikit-learn or its definition written out slowly."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import metrics
from jobs.errors import BrokenRun, NoData
from jobs.predictions import Predictions
from jobs.summary import headline, summarise

bounded = settings(deadline=None, max_examples=50)

# Few different values, so that ties happen; large ones, so that softmax saturates.
_LOGIT = st.sampled_from([-90.0, -3.0, -1.0, -0.5, 0.0, 0.25, 0.5, 2.0, 40.0, 90.0]) | st.floats(-30, 30, width=32)


@st.composite
def cases(draw, least=2, most=4):
    """truth (N,), logits (N, C) float32."""
    width = draw(st.integers(least, most))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, width - 1), st.lists(_LOGIT, min_size=width, max_size=width)),
            min_size=1,
            max_size=25,
        )
    )
    return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.float32)


binary_cases = cases(2, 2)


def predicted_of(logits):
    return logits.argmax(axis=1).astype(np.int64)


@bounded
@given(cases())
def test_probabilities_are_the_exponentials_over_their_sum(case):
    _, logits = case
    found = metrics.softmax(logits)
    for row, given_row in zip(found, logits.tolist(), strict=True):
        exponentials = [math.exp(value - max(given_row)) for value in given_row]
        assert row == pytest.approx([one / sum(exponentials) for one in exponentials], rel=1e-12, abs=0)
    assert np.all(found <= 1)
    assert np.isfinite(metrics.log_softmax(logits)).all()
    assert np.exp(metrics.log_softmax(logits)) == pytest.approx(found, rel=1e-9, abs=1e-300)


@bounded
@given(cases())
def test_log_odds_are_those_of_the_probabilities(case):
    _, logits = case
    probabilities, odds = metrics.softmax(logits), metrics.log_odds(logits)
    inside = (probabilities > 1e-9) & (probabilities < 1 - 1e-9)
    expected = np.log(probabilities[inside] / (1 - probabilities[inside]))
    assert odds[inside] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.isfinite(odds).all()


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


@bounded
@given(binary_cases)
def test_auc_counts_pairs(case):
    truth, logits = case
    odds = metrics.log_odds(logits)[:, 1]
    above, below = odds[truth == 1], odds[truth == 0]
    found = metrics.auc_roc(truth == 1, odds)
    if len(above) == 0 or len(below) == 0:
        assert found == metrics.Score(None, "all rows are of one class")
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(above, below)]
    assert found.value == pytest.approx(np.mean(pairs))
    false_rate, true_rate = metrics.roc_curve(truth == 1, odds)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(found.value)


@bounded
@given(cases(3, 4))
def test_multiclass_auc_equals_scikit_learn(case):
    truth, logits = case
    logits = np.clip(logits, -5, 5)  # scikit-learn takes probabilities, which tie where logits are far apart
    found = metrics.auc_roc_macro(truth, metrics.log_odds(logits))
    if len(set(truth.tolist())) < logits.shape[1]:
        assert found.value is None and found.reason
    else:
        # The rounding that makes ties of a probability and not of its log-odds is taken out of both.
        rounded = np.round(metrics.softmax(logits), 9)
        expected = np.mean([reference.roc_auc_score(truth == c, rounded[:, c]) for c in range(logits.shape[1])])
        ours = metrics.auc_roc_macro(truth, rounded)
        assert ours.value == pytest.approx(expected)
        assert found.value == pytest.approx(expected, abs=0.02)


@bounded
@given(cases())
def test_proper_scores_equal_scikit_learn(case):
    truth, logits = case
    labels, probabilities = list(range(logits.shape[1])), metrics.softmax(logits)
    brier = metrics.brier(truth, probabilities)
    if len(labels) == 2:
        assert brier == pytest.approx(np.mean((probabilities[:, 1] - truth) ** 2))
        assert brier == pytest.approx(reference.brier_score_loss(truth, probabilities[:, 1], labels=labels))
    else:
        assert brier == pytest.approx(reference.brier_score_loss(truth, probabilities, labels=labels))
    likelihood = metrics.negative_log_likelihood(truth, metrics.log_softmax(logits))
    assert math.isfinite(likelihood) and likelihood >= 0
    if probabilities.min() > 1e-12:
        assert likelihood == pytest.approx(reference.log_loss(truth, probabilities, labels=labels))


confidences = st.floats(0, 1) | st.integers(0, 15).map(lambda i: i / 15) | st.just(1.0)


@bounded
@given(st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_equals_equation_3(rows, bins):
    confidence, correct = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    total = 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        inside = [row for row in rows if low < row[0] <= high or (m == 0 and row[0] == 0)]
        if inside:
            gap = sum(right for _, right in inside) / len(inside) - sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(rows) * abs(gap)
    assert metrics.expected_calibration_error(confidence, correct, bins) == pytest.approx(total, abs=1e-12)
    found = metrics.reliability_bins(confidence, correct, bins)
    assert sum(one.count for one in found) == len(rows)
    assert all((one.accuracy is None) == (one.confidence is None) == (one.count == 0) for one in found)


def test_confidence_of_one_is_in_the_last_bin():
    found = metrics.reliability_bins(np.array([1.0, 1.0, 0.95]), np.array([True, False, True]))
    assert [one.count for one in found] == [0] * 14 + [3]
    assert metrics.expected_calibration_error(np.ones(4), np.array([True] * 4)) == 0.0
    assert metrics.expected_calibration_error(np.ones(4), np.array([False] * 4)) == 1.0


def test_calibration_error_is_small_for_a_calibrated_model():
    draw = np.random.default_rng(1)
    confidence = draw.uniform(0.5, 1, 200_000)
    assert metrics.expected_calibration_error(confidence, draw.uniform(size=200_000) < confidence) < 0.01


@bounded
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_solves_its_equation(case):
    correct, rows = case
    low, high = metrics.wilson_interval(correct, rows)
    assert 0 <= low <= correct / rows <= high <= 1
    for bound in (low, high):  # a bound lies z standard errors, taken at the bound, from the share
        if 0 < bound < 1:
            error = math.sqrt(bound * (1 - bound) / rows)
            assert abs(correct / rows - bound) == pytest.approx(1.959963984540054 * error, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("rows", "expected"), [(500, (92.7, 96.6)), (1200, (93.6, 96.1)), (10_000, (94.6, 95.4))])
def test_wilson_interval_of_95_percent(rows, expected):
    low, high = metrics.wilson_interval(round(0.95 * rows), rows)
    assert (round(100 * low, 1), round(100 * high, 1)) == expected


@pytest.mark.parametrize(("difference", "disagree"), [(0.0, 0.2), (0.05, 0.15), (-0.1, 0.1)])
def test_the_interval_of_a_difference_holds_the_true_one_in_95_of_100(difference, disagree):
    rng = np.random.default_rng(0)
    shares = [(disagree + difference) / 2, (disagree - difference) / 2]
    held = 0
    for wins, losses, _ in rng.multinomial(500, [*shares, 1 - sum(shares)], size=2_000):
        low, high = metrics.paired_difference_interval(int(wins), int(losses), 500)
        held += low <= difference <= high
    assert 0.935 <= held / 2_000 <= 0.97


def test_the_interval_of_a_difference_is_about_it_and_within_bounds():
    low, high = metrics.paired_difference_interval(30, 30, 1_000)
    assert low == pytest.approx(-high)
    for wins, losses, rows in [(1, 0, 1), (0, 1, 1), (0, 0, 1), (5, 0, 5)]:
        low, high = metrics.paired_difference_interval(wins, losses, rows)
        assert -1 <= low < high <= 1


@bounded
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_binomial_sum(wins, losses):
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    assert metrics.mcnemar_exact(wins, losses) == pytest.approx(float(min(Fraction(2 * tail, 2**n), Fraction(1))))


def test_nothing_is_measured_on_no_rows():
    none, wide = np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
    empty, flags = np.zeros(0), np.zeros(0, bool)
    for call in (
        lambda: metrics.softmax(wide),
        lambda: metrics.log_softmax(wide),
        lambda: metrics.log_odds(wide),
        lambda: metrics.accuracy(none, none),
        lambda: metrics.confusion_matrix(none, none, 2),
        lambda: metrics.per_class(none, none, 2),
        lambda: metrics.macro([], "f1"),
        lambda: metrics.balanced_accuracy([]),
        lambda: metrics.matthews_correlation(none, none),
        lambda: metrics.predicted_positive_rate(none, 1),
        lambda: metrics.auc_roc(flags, empty),
        lambda: metrics.auc_roc_macro(none, np.zeros((0, 3))),
        lambda: metrics.roc_curve(flags, empty),
        lambda: metrics.expected_calibration_error(empty, flags),
        lambda: metrics.reliability_bins(empty, flags),
        lambda: metrics.negative_log_likelihood(none, np.zeros((0, 2))),
        lambda: metrics.brier(none, np.zeros((0, 2))),
        lambda: metrics.wilson_interval(0, 0),
        lambda: metrics.paired_difference_interval(0, 0, 0),
    ):
        with pytest.raises(NoData):
            call()


def of(truth, labels=("neg", "pos"), **logits):
    truth = np.array(truth, np.int64)
    arrays = {key: np.array(value, np.float32) for key, value in logits.items()}
    return Predictions(labels, tuple(f"row {i}" for i in range(len(truth))), truth, arrays)


def sure(answers, classes=2):
    """Logits (N, C) of a model that gives these answers."""
    return 4 * np.eye(classes)[np.array(answers)] - 2


def summary_of(predictions, positive="pos"):
    return summarise(predictions, positive_label=positive, source="inferred here", run_id="r-abcdefgh")


def figures(summary, key):
    return next(model["metrics"] for model in summary["models"] if model["key"] == key)


def test_models_stand_in_display_order_with_their_titles():
    answers = sure([0, 1, 1, 0])
    summary = summary_of(of([0, 1, 1, 0], lora=answers, tfidf=answers, frozen_head=answers, majority=answers))
    assert [(model["key"], model["title"]) for model in summary["models"]] == [
        ("majority", "Majority class"),
        ("frozen_head", "Frozen base + trained head"),
        ("tfidf", "TF-IDF (char 1-3) + logistic regression"),
        ("lora", "LoRA adapter"),
    ]
    assert summary["schema"] == 1 and summary["rows"] == 4
    assert [one["against"] for one in summary["comparisons"]] == ["majority", "frozen_head", "tfidf"]


def test_one_row_has_an_accuracy_and_says_why_it_has_no_auc():
    found = figures(summary_of(of([1], lora=sure([1]))), "lora")
    assert found["accuracy"] == 1.0 and found["accuracy_interval"][1] == 1.0
    assert found["auc_roc"] is None and found["undefined"]["auc_roc"] == "all rows are of one class"
    assert found["specificity"] is None and found["mcc"] is None


def test_precision_of_a_model_that_never_says_positive_is_undefined():
    found = figures(summary_of(of([0, 1, 1], lora=sure([0, 0, 0]))), "lora")
    assert found["precision"] is None and "predicted" in found["undefined"]["precision"]
    assert found["recall"] == 0.0  # missed both: a real zero, not a missing value


def test_comparison_counts_rows_and_says_what_it_means():
    truth = [0, 1] * 20
    frozen = sure([0, 0] * 20)
    summary = summary_of(of(truth, lora=sure(truth), frozen_head=frozen))
    (comparison,) = summary["comparisons"]
    assert (comparison["wins"], comparison["losses"], comparison["verdict"]) == (20, 0, "better")
    assert comparison["mcnemar_p"] == pytest.approx(2 / 2**20)
    assert "50.0 points" in comparison["sentence"] and "p < 0.0001" in comparison["sentence"]
    assert headline(summary) == summary["headline"] and "LoRA helped" in summary["headline"][1]
    worse = summary_of(of(truth, lora=frozen, frozen_head=sure(truth)))
    assert worse["comparisons"][0]["verdict"] == "worse" and "LoRA did harm" in worse["headline"][1]
    same = summary_of(of(truth, lora=frozen, frozen_head=frozen))
    assert same["comparisons"][0]["mcnemar_p"] == 1.0 and "no clear difference" in same["headline"][1]


def test_a_model_that_says_one_thing_is_named_with_its_inflated_metric():
    truth = [0, 1] * 20
    summary = summary_of(of(truth, lora=sure(truth), frozen_head=sure([1] * 40), majority=sure([1] * 40)))
    (warning,) = summary["warnings"]
    assert "frozen base" in warning and "“pos”" in warning and "recall of “pos” (100.0 %)" in warning
    assert "balanced accuracy (50.0 %)" in warning
    (warning,) = summary_of(of(truth, lora=sure([0] * 40)))["warnings"]
    assert "specificity (100.0 %) is inflated" in warning


def test_many_labels_are_averaged_and_have_no_positive_one():
    truth = [0, 1, 2, 2]
    summary = summary_of(of(truth, ("好", "坏", "中"), lora=sure([0, 1, 2, 1], 3)), positive="")
    found = figures(summary, "lora")
    assert summary["positive_label"] is None and summary["averaging"] == "macro"
    assert found["recall"] == pytest.approx(2.5 / 3) and found["predicted_positive_rate"] is None
    assert [one["label"] for one in found["per_class"]] == ["好", "坏", "中"]
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


@settings(deadline=None, max_examples=15)
@given(cases())
def test_document_is_plain_json_and_the_same_every_time(case):
    truth, logits = case
    labels = tuple("abcd"[: logits.shape[1]])
    predictions = of(truth, labels, lora=logits, tfidf=logits[::-1])
    first = summary_of(predictions, positive="a")
    text = json.dumps(first, allow_nan=False)
    assert text == json.dumps(summary_of(predictions, positive="a"), allow_nan=False)
    assert json.loads(text) == first
    for model in first["models"]:
        missing = {name for name, value in model["metrics"].items() if value is None}
        assert missing - {"predicted_positive_rate"} == set(model["metrics"]["undefined"])


def test_what_a_summary_refuses():
    with pytest.raises(NoData):
        summary_of(of([], lora=np.zeros((0, 2))))
    with pytest.raises(BrokenRun, match="positive label"):
        summary_of(of([1], lora=sure([1])), positive="positive")
    with pytest.raises(ValueError, match="source"):
        summarise(of([1], lora=sure([1])), positive_label="pos", source="guessed", run_id="r")
