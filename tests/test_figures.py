"""The figures of a model: what docs/evaluation.md says there is, plain, and honest where there is no value."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jobs import calibration_error, probabilities, ranking, selective
from jobs.errors import NoData
from jobs.figures import figures
from tests.scored import random_cases

TOP = {
    "accuracy", "balanced_accuracy", "precision", "recall", "f1", "specificity", "mcc", "auc_roc", "auc_pr",
    "predicted_positive_rate", "predicted_counts", "averages", "per_class", "confusion", "raw", "scaled", "intervals",
    "resamples", "undefined",
}  # fmt: skip
BLOCK = {
    "ece", "ece_equal_mass", "ece_class", "ece_artifact", "brier", "nll", "aurc", "coverage_at_1_risk", "floor",
    "reliability", "risk_coverage",
}  # fmt: skip
WITHOUT = {"floor", "reliability", "risk_coverage"}
NAMES = ("坏", "好", "c", "d", "e", "f")


def of(truth, logits, temperature=None):
    classes = logits.shape[1]
    return figures(truth, logits, NAMES[:classes], 1 if classes == 2 else None, temperature)


def lacking(document, path=""):
    """Dotted paths of all that is None."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield from lacking(value, f"{path}{name}.")
        elif value is None:
            yield path + name


def test_the_document_is_plain_complete_and_the_same_every_time():
    for number, (truth, logits) in enumerate(random_cases(60)):
        temperature = [None, 1.7][number % 2]
        found = of(truth, logits, temperature)
        assert set(found) == TOP and set(found["raw"]) == BLOCK
        assert found["scaled"] is None if temperature is None else set(found["scaled"]) == BLOCK
        text = json.dumps(found, allow_nan=False)
        assert json.loads(text) == found and text == json.dumps(of(truth, logits, temperature))
        # Whatever has no value is told of; an interval of what has no value is told of with it.
        reasons = found.pop("undefined")
        per_class = {one["label"]: one for one in found.pop("per_class")}
        missing = set(lacking(found)) | set(lacking({"per_class": per_class}))
        told = {path for path in missing if path in reasons or path.removeprefix("intervals.") in reasons}
        assert missing == told and all(reasons.values())
        assert all(path in missing for path in reasons)
        for name, interval in found["intervals"].items():
            assert interval is None or interval[0] <= interval[1], name


def test_the_figures_are_those_of_the_functions():
    truth, logits = next(case for case in random_cases(50, least=2, most=2) if 0 < case[0].mean() < 1)
    found = of(truth, logits, 2.0)
    p, correct = probabilities.softmax(logits / np.float64(2.0)), logits.argmax(axis=1) == truth
    confidence, certainty = p.max(axis=1), probabilities.certainty(logits / np.float64(2.0))
    block = found["scaled"]
    assert block["ece"] == pytest.approx(calibration_error.expected_calibration_error(confidence, correct))
    assert block["ece_equal_mass"] == pytest.approx(calibration_error.equal_mass_error(confidence, correct))
    assert block["ece_class"] == pytest.approx(calibration_error.class_error(p[:, 1], truth == 1))
    assert block["ece_artifact"] == pytest.approx(calibration_error.artifact_error(p[:, 1], correct))
    assert block["brier"] == pytest.approx(probabilities.brier(truth, p))
    log_p = probabilities.log_softmax(logits / np.float64(2.0))
    assert block["nll"] == pytest.approx(probabilities.negative_log_likelihood(truth, log_p))
    assert block["aurc"] == pytest.approx(selective.aurc(certainty, correct))
    assert block["coverage_at_1_risk"] == selective.coverage_at_1_risk(certainty, correct)
    assert block["risk_coverage"] == selective.risk_coverage(certainty, correct)
    assert block["floor"] == vars(calibration_error.floor(confidence))
    odds = probabilities.log_odds(logits)[:, 1]
    assert found["auc_pr"] == ranking.auc_pr(truth == 1, odds).value
    assert found["raw"]["nll"] != block["nll"]


def test_many_labels_have_classwise_errors_and_macro_areas():
    truth, logits = next(case for case in random_cases(50, least=3, most=3) if set(case[0]) == {0, 1, 2})
    found, p = of(truth, logits), probabilities.softmax(logits)
    assert found["raw"]["ece_class"] == pytest.approx(calibration_error.classwise_error(p, truth))
    assert found["raw"]["ece_artifact"] is found["specificity"] is found["predicted_positive_rate"] is None
    assert (
        found["auc_pr"]
        == ranking.mean_area(ranking.auc_pr, truth[:, None] == np.arange(3), probabilities.log_odds(logits)).value
    )
    assert found["intervals"]["recall"] is not None and "specificity" in found["undefined"]


def test_the_intervals_of_a_share_are_wilsons_and_the_others_hold_their_figure():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 400)
    logits = draw.normal(size=(400, 2)).astype(np.float32)
    logits[np.arange(400), truth] += 2
    found = of(truth, logits, 1.2)
    assert set(found["intervals"]) == {
        "accuracy", "balanced_accuracy", "precision", "recall", "f1", "specificity", "mcc", "auc_roc", "auc_pr",
        "predicted_positive_rate",
        *(f"{block}.{name}" for block in ("raw", "scaled") for name in BLOCK - WITHOUT),
    }  # fmt: skip
    flat = found | {f"{block}.{name}": value for block in ("raw", "scaled") for name, value in found[block].items()}
    for name, (low, high) in found["intervals"].items():
        assert low <= flat[name] <= high
    assert found["resamples"] == 1_000 and found["undefined"] == {}


@pytest.mark.parametrize("truth", [0, 1])
def test_one_row_has_figures_but_few_intervals(truth):
    found = of(np.array([truth]), np.array([[0, 3]], np.float32), 1.0)
    assert found["accuracy"] == float(truth == 1) and found["auc_roc"] is None and found["mcc"] is None
    assert found["intervals"]["accuracy"] is not None and found["intervals"]["raw.nll"] is None
    assert "intervals.raw.nll" in found["undefined"]
    if truth == 0:
        assert found["precision"] == 0.0 and found["recall"] is None  # said so once, wrongly: a real 0


def test_a_model_that_never_says_positive_has_no_precision():
    found = of(np.array([0, 1, 1]), np.tile(np.array([[2, 0]], np.float32), (3, 1)))
    assert found["precision"] is None and "predicted" in found["undefined"]["precision"]
    assert found["intervals"]["precision"] is None and found["intervals"]["recall"] is not None
    assert found["recall"] == 0.0 and found["averages"]["macro"]["precision"] is None


def test_nothing_is_measured_on_no_rows():
    with pytest.raises(NoData):
        of(np.zeros(0, np.int64), np.zeros((0, 2), np.float32))
