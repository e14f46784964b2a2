"""A linear probe: the classification head fitted on the frozen base's features, before LoRA moves anything.

It is the frozen baseline, and where the trained head starts: a random head would first pull the features out of shape
(Kumar et al. 2022, arXiv:2202.10054).  Owns the fit; knows features and labels only, neither model nor tokens.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.errors import JobError

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Inverse regularisation (scikit-learn's C), from stiff to loose; the fit stops where validation gets worse."""

MAX_ROWS = 50_000
"""More rows than this hardly move a few thousand weights."""


@dataclass(frozen=True)
class Probe:
    """`weight` (C, H) float32; what was chosen, and how well it does.

    Without bias, as decoders' SEQ_CLS heads are; an encoder's starts at zero.
    """

    weight: Floats
    strength: float
    validation_loss: float

    def logits(self, features: Floats) -> Floats:
        """(N, C) float32 from features (N, H)."""
        return np.asarray(features @ self.weight.T, dtype=np.float32)


def fit(features: Floats, label_ids: Integers, validation: Floats, validation_ids: Integers, classes: int) -> Probe:
    """Multinomial logistic regression on features (N, H), its strength chosen by the loss on validation (M, H).

    Features are scaled to unit deviation for the fit and the scale is folded into the weights.  They are not centred
    and there is no intercept, because the head has no bias to fold one into; a constant is nearly linear in them.
    Raises JobError when features are not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if not np.isfinite(features).all() or not np.isfinite(validation).all():
        raise JobError("the frozen base gives features that are not finite", hint="try bf16: no, or another base")
    deviation = features.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(deviation > 1e-12, deviation, 1.0)  # (H,)
    scaled = features * scale  # (N, H) float64
    regression = LogisticRegression(fit_intercept=False, max_iter=300, warm_start=True)
    best: Probe | None = None
    for strength in STRENGTHS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the validation loss says what the fit is worth
            regression.set_params(C=strength).fit(scaled, label_ids)
        weight = _one_row_a_class(regression.coef_ * scale, regression.classes_, classes)
        loss = cross_entropy(validation @ weight.T, validation_ids)
        if best is not None and loss >= best.validation_loss:
            break
        best = Probe(weight, strength, loss)
    assert best is not None
    return best


def cross_entropy(logits: Floats, label_ids: Integers) -> float:
    """Mean negative log-likelihood in nats of label_ids (N,) under logits (N, C)."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)  # (N, C)
    log_normaliser = np.log(np.exp(shifted).sum(axis=1))  # (N,)
    return float((log_normaliser - shifted[np.arange(len(label_ids)), label_ids]).mean())


def _one_row_a_class(coefficients: NDArray[np.float64], present: Integers, classes: int) -> Floats:
    """(C, H) from scikit-learn's coef_: two classes have one row there, the log odds of the second."""
    rows = np.concatenate([-coefficients, coefficients]) / 2 if len(present) == 2 else coefficients
    weight = np.zeros((classes, coefficients.shape[1]), dtype=np.float32)
    weight[present] = rows
    return weight
