"""All that one set of probabilities is measured by: a *probability block* of metrics.json, and its resamples.

Made once of the logits as they are and once of the logits after the temperature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import calibration_error, selective
from jobs.bootstrap import Interval, between_tails
from jobs.calibration_error import CalibrationError, equal_mass, equal_width
from jobs.probabilities import certainty, log_softmax, softmax, squared_distance, surprise
from jobs.score import Floats, Integers, mean, need_rows
from jobs.selective import Selective
from jobs.tied_order import ones


class ProbabilityBlock:
    """truth (N,), logits (N, C); positive: of two classes the positive one, None for more.  Raises NoData if N is 0."""

    def __init__(self, truth: Integers, logits: npt.NDArray[Any], positive: int | None) -> None:
        need_rows(truth)
        probabilities = softmax(logits)
        self._confidence = probabilities.max(axis=1)
        # The largest logit says what was said: probabilities tie where logits do not.
        self._correct, self._certainty = logits.argmax(axis=1) == truth, certainty(logits)
        width = equal_width(self._confidence)
        self._errors = {
            "ece": [CalibrationError(width, self._confidence, self._correct)],
            "ece_equal_mass": [CalibrationError(equal_mass(self._confidence), self._confidence, self._correct)],
            "ece_class": [
                CalibrationError(equal_width(probabilities[:, c]), probabilities[:, c], truth == c)
                for c in (range(probabilities.shape[1]) if positive is None else [positive])
            ],
        }
        if positive is not None:
            of_positive = probabilities[:, positive]
            artifact = CalibrationError(equal_width(of_positive), of_positive, self._correct)
            self._errors["ece_artifact"] = [artifact]
        self._per_row = {
            "brier": squared_distance(truth, probabilities),
            "nll": surprise(truth, log_softmax(logits)),
        }
        self._selective = Selective(self._certainty, self._correct)

    def __call__(self, weights: Floats) -> dict[str, Floats]:
        """What `intervals` are made of, (R,), of weights (R, N): every figure that has one, and the noise of ECEs."""
        rows, found = weights.sum(axis=1), self._selective(weights)
        for name, values in self._per_row.items():
            found[name] = (weights * values).sum(axis=1) / rows
        for name, errors in self._errors.items():
            pairs = [error(weights) for error in errors]
            found[name] = np.mean([error for error, _ in pairs], axis=0)
            found[f"noise of {name}"] = np.mean([noise for _, noise in pairs], axis=0)
        return found

    def intervals(self, resampled: Mapping[str, Floats]) -> dict[str, Interval | None]:
        """95 % intervals by name, of what this gave for each resample."""
        found = {name: between_tails(resampled[name]) for name in (*self._per_row, "aurc", "coverage_at_1_risk")}
        for name, error in self._calibration_errors().items():
            found[name] = calibration_error.interval(error, resampled[name], resampled[f"noise of {name}"])
        return found

    def figures(self) -> dict[str, Any]:
        """The block as metrics.json has it, unrounded; `ece_artifact` is None for more than two classes."""
        return {
            "ece_artifact": None,
            **self._calibration_errors(),
            **{name: float(values.mean()) for name, values in self._per_row.items()},
            **{name: float(values[0]) for name, values in self._selective(ones(len(self._correct))).items()},
            "floor": asdict(calibration_error.floor(self._confidence)),
            "reliability": [asdict(one) for one in calibration_error.reliability_bins(self._confidence, self._correct)],
            "risk_coverage": selective.risk_coverage(self._certainty, self._correct),
        }

    def _calibration_errors(self) -> dict[str, float]:
        return {name: mean([error.of_sample for error in errors]) for name, errors in self._errors.items()}
