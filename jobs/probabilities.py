"""What logits say of the classes: probabilities, their logarithms and odds, and proper scores of them.

numpy only.  Zero rows raise NoData everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.score import Floats, Integers, need_rows


def softmax(logits: npt.NDArray[Any]) -> Floats:
    """Probabilities (N, C) float64 of logits (N, C): rows sum to 1.  Raises NoData when N is 0."""
    need_rows(logits)
    exponentials = np.exp(below_largest(logits))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def log_softmax(logits: npt.NDArray[Any]) -> Floats:
    """Natural logarithm of `softmax`, finite also where the probability is too small for a float."""
    need_rows(logits)
    shifted = below_largest(logits)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_odds(logits: npt.NDArray[Any]) -> Floats:
    """log(p / (1 - p)) of every class, (N, C) float64: orders rows as p does, without its ties near 0 and 1.

    logits (N, C), C >= 2.  Of two classes it is a difference of logits, to the bit the same on every machine.
    Raises NoData when N is 0.
    """
    need_rows(logits)
    wide = logits.astype(np.float64)
    odds = np.empty_like(wide)
    for column in range(wide.shape[1]):
        odds[:, column] = wide[:, column] - _log_sum(np.delete(wide, column, axis=1))
    return odds


def certainty(logits: npt.NDArray[Any]) -> Floats:
    """`log_odds` of the predicted class alone, (N,): orders rows as confidence does, without its ties near 1."""
    need_rows(logits)
    others = below_largest(logits)
    # The largest is 0 now; without it, what is left is how far the others lie below.
    others[np.arange(len(others)), logits.argmax(axis=1)] = -np.inf
    return -_log_sum(others)


def negative_log_likelihood(truth: Integers, log_probabilities: Floats) -> float:
    """Mean of -ln p(true class) in nats; truth (N,), log_probabilities (N, C).  Raises NoData when N is 0."""
    need_rows(truth)
    return float(surprise(truth, log_probabilities).mean())


def brier(truth: Integers, probabilities: Floats) -> float:
    """Mean squared distance of probabilities (N, C) from truth (N,): [0, 1] for two classes, [0, 2] for more.

    Summed over classes, halved for two, as scikit-learn's brier_score_loss does.  Raises NoData when N is 0.
    Brier 1950, Monthly Weather Review 78(1).
    """
    need_rows(truth)
    return float(squared_distance(truth, probabilities).mean())


def surprise(truth: Integers, log_probabilities: Floats) -> Floats:
    """-ln p(true class) in nats of every row, (N,): what `negative_log_likelihood` is the mean of."""
    # 0 where the true class is certain, not -0, which would be written so.
    return np.abs(log_probabilities[np.arange(len(truth)), truth])


def squared_distance(truth: Integers, probabilities: Floats) -> Floats:
    """The rows' contributions to `brier`, (N,)."""
    distance = probabilities.copy()
    distance[np.arange(len(truth)), truth] -= 1
    return np.asarray((distance**2).sum(axis=1) / (2 if probabilities.shape[1] == 2 else 1))


def below_largest(logits: npt.NDArray[Any]) -> Floats:
    """Logits (N, C) float64 less the largest of their row, so that exponentials stay within floats."""
    wide = logits.astype(np.float64)
    return np.asarray(wide - wide.max(axis=1, keepdims=True))


def _log_sum(values: Floats) -> Floats:
    """ln of the sum of exponentials of every row (N, K), K >= 1; of one value exactly that value."""
    return np.asarray(np.logaddexp.reduce(values, axis=1))
