"""Resamples: as many of each class as there are, the same every time, and intervals that hold what they should."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from jobs import bootstrap
from jobs.errors import NoData
from jobs.ranking import Ranking
from tests.scored import random_cases


def test_every_resample_has_the_sizes_of_the_classes():
    for truth, _ in random_cases(100):
        drawn = np.concatenate(list(bootstrap.weights(truth, 7)))
        assert drawn.shape == (7, len(truth))
        for c in np.unique(truth):
            assert (drawn[:, truth == c].sum(axis=1) == (truth == c).sum()).all()


def test_rows_are_drawn_as_often_as_chance_draws_them():
    truth = np.array([0] * 30 + [1] * 10)
    drawn = np.concatenate(list(bootstrap.weights(truth, 20_000)))
    assert drawn.mean(axis=0) == pytest.approx(np.ones(40), abs=0.05)
    assert drawn[:, :30].var() == pytest.approx(29 / 30, rel=0.02)  # multinomial
    assert drawn[:, 30:].var() == pytest.approx(9 / 10, rel=0.02)


def test_the_same_rows_give_the_same_bytes_however_they_are_cut():
    truth = np.random.default_rng(0).integers(0, 3, 5_000)
    several = list(bootstrap.weights(truth, 120))
    assert len(several) > 1 and sum(map(len, several)) == 120
    first = np.concatenate(list(bootstrap.weights(truth, len(several[0]))))
    assert first.tobytes() == several[0].tobytes()
    # What metrics.json promises on every machine: the stream itself must never change.
    digest = hashlib.sha256(np.concatenate(several).astype(np.uint8).tobytes()).hexdigest()
    assert digest[:16] == "76dfc5877abd5ba5"


@pytest.mark.parametrize(
    ("rows", "classes", "expected"),
    [(1, 2, 1_000), (100_000, 2, 1_000), (200_000, 2, 500), (1_000_000, 2, 100), (10**8, 2, 100), (50_000, 20, 200)],
)
def test_the_work_is_bounded(rows, classes, expected):
    assert bootstrap.count(rows, classes) == expected


def test_an_interval_is_between_the_tails_of_what_has_a_value():
    values = np.arange(1_001, dtype=float)
    assert bootstrap.between_tails(values) == (25.0, 975.0)
    values[:50] = np.nan
    assert bootstrap.between_tails(values) == pytest.approx((73.75, 976.25))
    values[:51] = np.nan
    assert bootstrap.between_tails(values) is None
    assert bootstrap.between_tails(np.full(10, np.nan)) is None


def test_the_interval_of_an_auc_holds_the_true_one_in_95_of_100():
    draw = np.random.default_rng(0)
    true, held = 0.7602499389065233, 0  # of normal scores that are one apart: Phi(1 / sqrt(2))
    truth = np.repeat([0, 1], 100)
    for _ in range(300):
        scores = draw.normal(truth.astype(float))
        ranking = Ranking((truth == 1)[:, None], scores[:, None])
        low, high = bootstrap.between_tails(bootstrap.resampled(truth, ranking)["auc_roc"])
        held += low <= true <= high
    assert 0.91 <= held / 300 <= 0.98


def test_one_row_a_class_leaves_nothing_to_draw():
    found = bootstrap.resampled(np.array([0, 1]), lambda weights: {"rows": weights.sum(axis=1)})
    assert bootstrap.between_tails(found["rows"]) is None


def test_nothing_is_drawn_of_no_rows():
    with pytest.raises(NoData):
        list(bootstrap.weights(np.zeros(0, np.int64), 10))
    with pytest.raises(NoData):
        bootstrap.resampled(np.zeros(0, np.int64))
