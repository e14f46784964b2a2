"""Calibration errors against their definitions and torchmetrics, their intervals and their floor by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from jobs import bootstrap, calibration_error
from jobs.calibration_error import CalibrationError, equal_mass, equal_width
from jobs.errors import NoData
from jobs.probabilities import softmax
from tests.scored import bounded, random_cases, weighted

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
    assert calibration_error.expected_calibration_error(confidence, correct, bins) == pytest.approx(total, abs=1e-12)
    found = calibration_error.reliability_bins(confidence, correct, bins)
    assert sum(one.count for one in found) == len(rows)
    assert all((one.accuracy is None) == (one.confidence is None) == (one.count == 0) for one in found)


def test_confidence_of_one_is_in_the_last_bin():
    found = calibration_error.reliability_bins(np.array([1.0, 1.0, 0.95]), np.array([True, False, True]))
    assert [one.count for one in found] == [0] * 14 + [3]
    assert calibration_error.expected_calibration_error(np.ones(4), np.array([True] * 4)) == 0.0
    assert calibration_error.expected_calibration_error(np.ones(4), np.array([False] * 4)) == 1.0


def test_calibration_error_is_small_for_a_calibrated_model():
    draw = np.random.default_rng(1)
    confidence = draw.uniform(0.5, 1, 200_000)
    assert calibration_error.expected_calibration_error(confidence, draw.uniform(size=200_000) < confidence) < 0.01


def away_from_edges(values):
    """Whether no value is at a bin's edge, where torchmetrics closes bins at the other side, or at 1."""
    return np.abs(values * 15 - np.round(values * 15)).min() > 1e-9


def test_the_errors_equal_torchmetrics_away_from_edges_on_random_cases():
    # At exactly 1.0 torchmetrics has a bin of its own (its issue 2519); that 1.0 lies in the last one is tested above.
    draw, compared = np.random.default_rng(0), 0
    for truth, logits in random_cases():
        logits = logits + draw.normal(size=logits.shape) * 1e-3
        p, classes = softmax(logits), logits.shape[1]
        confidence, correct = p.max(axis=1), logits.argmax(axis=1) == truth
        if not (away_from_edges(p) and p.max() < 1):
            continue
        compared += 1
        theirs = multiclass_calibration_error(torch.tensor(p), torch.tensor(truth), classes, n_bins=15)
        ours = calibration_error.expected_calibration_error(confidence, correct)
        assert ours == pytest.approx(float(theirs), abs=1e-6)
        by_class = [
            float(binary_calibration_error(torch.tensor(p[:, c]), torch.tensor((truth == c).astype(int)), n_bins=15))
            for c in range(classes)
        ]
        assert calibration_error.class_error(p[:, 1], truth == 1) == pytest.approx(by_class[1], abs=1e-6)
        assert calibration_error.classwise_error(p, truth) == pytest.approx(np.mean(by_class), abs=1e-6)
    assert compared > 700


def slow_equal_mass(confidence, correct, bins):
    """By its definition: sorted, cut where the middle of each block of equals passes a multiple of N / bins."""
    order = sorted(range(len(confidence)), key=lambda row: confidence[row])
    gaps = [0.0] * bins
    for value in sorted(set(confidence.tolist())):
        places = [place for place, row in enumerate(order) if confidence[row] == value]
        middle = (places[0] + places[-1] + 1) / 2
        for place in places:
            gaps[int(bins * middle / len(order) + 1e-9)] += correct[order[place]] - value
    return math.fsum(map(abs, gaps)) / len(order)


def test_bins_of_equal_mass_equal_their_definition_whatever_the_order_of_rows():
    draw = np.random.default_rng(0)
    for truth, logits in random_cases():
        confidence, correct = softmax(logits).max(axis=1), logits.argmax(axis=1) == truth
        found = calibration_error.equal_mass_error(confidence, correct)
        assert found == pytest.approx(slow_equal_mass(confidence, correct, 15), abs=1e-12)
        mixed = draw.permutation(len(truth))
        assert calibration_error.equal_mass_error(confidence[mixed], correct[mixed]) == pytest.approx(found, abs=1e-12)


@bounded
@given(st.integers(1, 200), st.integers(1, 20))
def test_bins_of_equal_mass_differ_by_one_row_at_most_without_ties(rows, bins):
    counts = np.bincount(equal_mass(np.random.default_rng(0).permutation(rows) / rows, bins), minlength=bins)
    assert counts.sum() == rows and counts.max() - counts.min() <= 1


def test_the_artifact_is_near_a_half_for_a_calibrated_model_with_half_its_rows_positive():
    draw = np.random.default_rng(0)
    positive = draw.random(100_000) < 0.5
    log_odds = draw.normal(np.where(positive, 6.0, -6.0), np.sqrt(12.0))  # log-odds of what they say they are
    p = 1 / (1 + np.exp(-log_odds))
    assert calibration_error.class_error(p, positive) < 0.01
    correct = (p >= 0.5) == positive
    assert calibration_error.expected_calibration_error(np.maximum(p, 1 - p), correct) < 0.01
    assert 0.43 < calibration_error.artifact_error(p, correct) < 0.55


def test_errors_of_weights_are_those_of_the_rows_really_drawn_in_the_same_bins():
    for number, (truth, logits) in enumerate(random_cases(300, seed=1)):
        confidence, correct = softmax(logits).max(axis=1), logits.argmax(axis=1) == truth
        weights = weighted(3, len(truth), seed=number)
        found, noise = CalibrationError(equal_width(confidence), confidence, correct)(weights)
        bins = equal_mass(confidence)
        by_mass, _ = CalibrationError(bins, confidence, correct)(weights)
        for r, counts in enumerate(weights.astype(int)):
            drawn, right = np.repeat(confidence, counts), np.repeat(correct, counts)
            assert found[r] == pytest.approx(calibration_error.expected_calibration_error(drawn, right), abs=1e-12)
            again = CalibrationError(np.repeat(bins, counts), drawn, right).of_sample
            assert by_mass[r] == pytest.approx(again, abs=1e-12)
        sample = calibration_error.expected_calibration_error(confidence, correct)
        assert np.all(noise >= np.abs(found - sample) - 1e-12)


@pytest.mark.parametrize("temperature", [1.0, 1.3, 2.0])
def test_the_interval_of_an_error_holds_the_true_one_also_of_a_calibrated_model(temperature):
    def drawn(rows, draw):
        log_odds = draw.normal(size=rows) * 2
        positive = draw.random(rows) < 1 / (1 + np.exp(-log_odds))
        confidence = 1 / (1 + np.exp(-np.abs(log_odds) * temperature))
        return positive.astype(np.int64), confidence, (log_odds > 0) == positive

    draw = np.random.default_rng(0)
    _, confidence, correct = drawn(1_000_000, draw)
    true = 0.0 if temperature == 1 else calibration_error.expected_calibration_error(confidence, correct)
    held = 0
    for _ in range(200):
        truth, confidence, correct = drawn(400, draw)
        error = CalibrationError(equal_width(confidence), confidence, correct)
        errors, noise = (
            np.concatenate(parts) for parts in zip(*map(error, bootstrap.weights(truth, 300)), strict=True)
        )
        low, high = calibration_error.interval(error.of_sample, errors, noise)
        assert 0 <= low <= error.of_sample <= high
        held += low <= true <= high
    assert held >= 0.9 * 200


def test_the_floor_is_what_calibrated_models_get():
    draw = np.random.default_rng(3)
    confidence = draw.uniform(0.5, 1, 500)
    errors = [
        calibration_error.expected_calibration_error(confidence, draw.random(500) < confidence) for _ in range(400)
    ]
    floor = calibration_error.floor(confidence)
    assert floor.mean == pytest.approx(np.mean(errors), rel=0.05)
    assert 0.92 <= np.mean(np.array(errors) <= floor.p95) <= 0.98
    assert floor == calibration_error.floor(confidence) and floor.simulations == 2_000
    assert calibration_error.floor(np.ones(5)) == calibration_error.Floor(0.0, 0.0, 2_000)


def test_the_floor_of_many_rows_is_drawn_by_bins_and_agrees():
    confidence = np.random.default_rng(0).uniform(0.5, 1, 8_000)
    exact = calibration_error.floor(confidence, simulations=2_000)  # 16 million draws
    by_bins = calibration_error.floor(confidence, simulations=3_000)  # 24 million would be
    assert by_bins.mean == pytest.approx(exact.mean, rel=0.03)
    assert by_bins.p95 == pytest.approx(exact.p95, rel=0.05)


def test_nothing_is_measured_on_no_rows():
    empty, flags = np.zeros(0), np.zeros(0, bool)
    for call in (
        lambda: calibration_error.expected_calibration_error(empty, flags),
        lambda: calibration_error.equal_mass_error(empty, flags),
        lambda: calibration_error.classwise_error(np.zeros((0, 3)), np.zeros(0, np.int64)),
        lambda: calibration_error.reliability_bins(empty, flags),
        lambda: calibration_error.floor(empty),
    ):
        with pytest.raises(NoData):
            call()
