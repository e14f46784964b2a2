"""Metrics of labels against scikit-learn or their definition written out slowly, and the summary made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings

from jobs import metrics
from jobs.errors import BrokenRun, NoData
from jobs.predictions import Predictions
from jobs.summary import headline, summarise
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
