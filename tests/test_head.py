"""The linear probe: a head without bias that is as good as scikit-learn's pipeline with one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jobs import head
from jobs.errors import JobError


def blobs(rows: int, classes: int, seed: int) -> tuple[head.Floats, head.Integers]:
    """Features (rows, 20) of very different scales around a mean per class, one of them constant, and label ids."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(0, 0.7, (classes, 19))
    label_ids = chance.integers(0, classes, rows)
    features = (centres[label_ids] + chance.normal(0, 1, (rows, 19))) * np.logspace(-3, 3, 19)
    return np.column_stack([features, np.full(rows, 2.0)]).astype(np.float32), label_ids.astype(np.int64)


@pytest.mark.parametrize("classes", [2, 4])
def test_as_good_as_standardised_regression_with_intercept(classes: int) -> None:
    train, train_ids = blobs(2_000, classes, 1)
    validation, validation_ids = blobs(1_000, classes, 2)
    probe = head.fit(train, train_ids, validation, validation_ids, classes)
    assert probe.weight.shape == (classes, 20)
    assert probe.weight.dtype == np.float32
    logits = probe.logits(validation)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=probe.strength)).fit(train, train_ids)
    accuracy = (logits.argmax(axis=1) == validation_ids).mean()
    assert accuracy == pytest.approx(reference.score(validation, validation_ids), abs=0.02)
    assert head.cross_entropy(logits, validation_ids) == pytest.approx(probe.validation_loss)


def test_a_class_without_rows_is_never_the_answer_of_certainty() -> None:
    train, train_ids = blobs(500, 3, 1)
    some = train_ids != 1
    probe = head.fit(train[some], train_ids[some], train, train_ids, 3)
    assert (probe.weight[1] == 0).all()
    assert (probe.weight[[0, 2]] != 0).any()


def test_cross_entropy_of_certainty_and_of_ignorance() -> None:
    label_ids = np.array([0, 1])
    assert head.cross_entropy(np.zeros((2, 2), np.float32), label_ids) == pytest.approx(np.log(2))
    assert head.cross_entropy(np.array([[1e4, 0], [0, 1e4]], np.float32), label_ids) == 0.0


def test_broken_features_are_refused() -> None:
    features, label_ids = blobs(100, 2, 1)
    features[3, 3] = np.nan
    with pytest.raises(JobError, match="not finite"):
        head.fit(features, label_ids, features, label_ids, 2)
