"""What a metrics.json says of an adapter's robustness, read so that two of them can be paired case by case.

Owns the reading of a document that may come from anybody; knows nothing of the suite's cases but their ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_CASES = 1_000_000


@dataclass(frozen=True)
class Category:
    """Cases of one kind, how many of them passed, and the ids of those that failed and are listed."""

    cases: int
    passed: int
    failed: frozenset[str]

    @property
    def is_whole(self) -> bool:
        """Whether every failure is listed: then it is known of each case whether it passed."""
        return len(self.failed) == self.cases - self.passed


@dataclass(frozen=True)
class RobustnessRecord:
    """The score, 0 to 100, with its interval, on the suite of that sha256, and what happened by category."""

    sha256: str
    score: float
    interval: tuple[float, float]
    categories: Mapping[str, Category]


def of(metrics: Mapping[str, Any]) -> RobustnessRecord | None:
    """The record of the adapter (`lora`); None where there is none, or none that can be read."""
    try:
        document = metrics["robustness"]
        [model] = [one for one in document["models"] if one["key"] == "lora"]
        listed: dict[str, set[str]] = {}
        for failure in document["failures"]:
            listed.setdefault(failure["category"], set()).add(str(failure["id"]))
        categories = {
            str(one["category"]): Category(
                _count(one["cases"]), _count(one["passed"]), frozenset(listed.get(one["category"], ()))
            )
            for one in model["categories"]
        }
        low, high = map(_score, model["interval"])
        record = RobustnessRecord(str(document["sha256"]), _score(model["score"]), (low, high), categories)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    kinds = categories.values()
    sound = all(len(kind.failed) <= kind.cases - kind.passed for kind in kinds)
    return record if sound and kinds and sum(kind.cases for kind in kinds) <= MOST_CASES else None


def paired(
    one: RobustnessRecord, other: RobustnessRecord
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64]] | str:
    """Whether each case passed for the first and for the second, (K,) each, and its category's number; or why not.

    Which case is which does not matter, only which failures are the same one.
    """
    if one.sha256 != other.sha256:
        return "the suites differ"
    if {name: kind.cases for name, kind in one.categories.items()} != {
        name: kind.cases for name, kind in other.categories.items()
    }:
        return "the categories differ"
    if not all(kind.is_whole for record in (one, other) for kind in record.categories.values()):
        return "more cases failed than are listed"
    passed: tuple[list[NDArray[np.bool_]], ...] = ([], [])
    for name, kind in one.categories.items():
        failed = sorted(kind.failed | other.categories[name].failed)
        if len(failed) > kind.cases:
            return "more different cases failed than there are"
        for into, record in zip(passed, (one, other), strict=True):
            missed = record.categories[name].failed
            into.append(
                np.array([case not in missed for case in failed] + [True] * (kind.cases - len(failed)), np.bool_)
            )
    number = np.repeat(np.arange(len(passed[0])), [len(part) for part in passed[0]])
    return np.concatenate(passed[0]), np.concatenate(passed[1]), number


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_CASES:
        raise ValueError("not a number of cases")
    return value


def _score(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError("not a score")
    return float(value)
