"""How a model stands the cases of a suite: what passes, the score with its interval, and the failures.

Owns the rules and the `robustness` document of metrics.json, see docs/evaluation.md; knows nothing of where logits
come from, and words no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import BrokenRun, DataError
from jobs.intervals import wilson_interval
from jobs.label import label_of
from jobs.suite import CALM, DIRECTION, INVARIANCE, MINIMUM, NEGATIVE, POSITIVE, Case, Suite, by_category
from jobs.temperature import probabilities

MAY_FALL = 0.2
"""How far a harmless change may lower the probability of the right answer."""
MUST_MOVE = 0.05
"""How far P(positive) may go the wrong way, and has to go the right way where a text was turned around."""
CALM_BELOW = 0.9
"""The confidence that an answer to nothing stays below."""
RESAMPLES = 2000
SEED = 0
DRAWN_AT_ONCE = 4096
MOST_FAILURES = 300
LONGEST_TEXT = 1000
"""Characters of a text in the list of failures; the whole text stands in the suite."""

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Answered:
    """One model's answers to K cases: probabilities (K, C) of the text and of its original (without one, the text).

    expected (K,): the label's column; without a label what the original was answered with.  positive: the column of
    P(positive), None where no label stands for it.
    """

    after: NDArray[np.float64]
    before: NDArray[np.float64]
    expected: NDArray[np.int64]
    positive: int | None

    @property
    def said(self) -> NDArray[np.int64]:
        return np.asarray(self.after.argmax(axis=1), np.int64)

    @property
    def confidence(self) -> NDArray[np.float64]:
        return np.asarray(self.after.max(axis=1))

    @property
    def change(self) -> NDArray[np.float64]:
        """(K,) how much P(positive) moved; where no label stands for positive, P(expected)."""
        if self.positive is None:
            return self.gain
        return np.asarray(self.after[:, self.positive] - self.before[:, self.positive])

    @property
    def gain(self) -> NDArray[np.float64]:
        """(K,) how much P(expected) moved."""
        rows = np.arange(len(self.expected))
        return np.asarray(self.after[rows, self.expected] - self.before[rows, self.expected])


def misfits(suite: Suite, label_names: Sequence[str], answers: Mapping[str, str] | None) -> list[str]:
    """Why a suite can't be asked of a model with these labels, as sentences; none where it can.

    answers: the labels that stand for `positive` and `negative` (see `suite_labels`), None where that is not known.
    """
    known = _columns(label_names, answers)
    unknown = dict.fromkeys(case.label for case in suite.cases if case.label is not None and case.label not in known)
    sentences = [
        f"the model does not know the label {label!r} of the suite {suite.name}" for label in list(unknown)[:5]
    ]
    if answers is None and any(case.test == DIRECTION for case in suite.cases):
        sentences.append("direction tests speak of P(positive), and which label is positive is not known")
    return sentences


def passed(
    suite: Suite,
    logits: NDArray[np.float32],
    label_names: Sequence[str],
    answers: Mapping[str, str] | None,
    temperature: float | None = None,
) -> Booleans:
    """(K,) which cases a model passes; logits (T, C) for `suite.texts`, divided by the temperature where there is one.

    Raises DataError where the suite is not for these labels, BrokenRun where the logits are not of its texts.
    """
    return _verdicts(suite, _answered(suite, logits, label_names, answers, temperature))


def difference(suite: Suite, first: Booleans, second: Booleans) -> dict[str, Any]:
    """`{difference, interval}` of two models' scores in points, first minus second, from what each `passed` (K,).

    Paired: a case is drawn for both at once.  Both values are None for a suite without cases.
    """
    values = first.astype(np.int64) - second.astype(np.int64)
    return {"difference": _score(suite, values), "interval": _interval(suite, values)}


def measure(
    suite: Suite,
    logits: Mapping[str, NDArray[np.float32]],
    label_names: Sequence[str],
    answers: Mapping[str, str] | None,
    temperatures: Mapping[str, float | None],
    titles: Mapping[str, str],
) -> dict[str, Any]:
    """The `robustness` document of the models in `logits`, in their order; see `passed` for the rest.

    Failures are those of `lora`, else of the first model.
    """
    models, failures = [], []
    main = "lora" if "lora" in logits else next(iter(logits), "")
    for key, numbers in logits.items():
        answered = _answered(suite, numbers, label_names, answers, temperatures.get(key), key)
        passes = _verdicts(suite, answered)
        models.append({"key": key, "title": titles[key], **_figures(suite, passes)})
        if key == main:
            failures = _failures(suite, answered, passes, label_names)
    return {
        "suite": suite.name,
        "sha256": suite.sha256,
        "cases": len(suite.cases),
        "answers": None if answers is None else {POSITIVE: answers[POSITIVE], NEGATIVE: answers[NEGATIVE]},
        "models": models,
        "failures": failures,
    }


def _answered(
    suite: Suite,
    logits: NDArray[np.float32],
    label_names: Sequence[str],
    answers: Mapping[str, str] | None,
    temperature: float | None,
    name: str = "the model",
) -> _Answered:
    if problems := misfits(suite, label_names, answers):
        raise DataError(f"robustness: {problems[0]}", hint=f"labels of the model: {', '.join(label_names)}")
    _check(logits, (len(suite.texts), len(label_names)), temperature, name)
    if not suite.cases:
        none = np.zeros((0, len(label_names)))
        return _Answered(none, none, np.zeros(0, np.int64), None)
    answered = probabilities(logits, temperature)
    index = suite.index
    after = answered[[index[case.text] for case in suite.cases]]
    before = answered[[index[case.text if case.original is None else case.original] for case in suite.cases]]
    columns = _columns(label_names, answers)
    expected = np.array([-1 if case.label is None else columns[case.label] for case in suite.cases], np.int64)
    positive = None if answers is None else list(label_names).index(answers[POSITIVE])
    return _Answered(after, before, np.where(expected < 0, before.argmax(axis=1), expected), positive)


def _check(logits: NDArray[np.float32], shape: tuple[int, int], temperature: float | None, name: str) -> None:
    if logits.shape != shape:
        raise BrokenRun(f"robustness: logits of {name} must be of shape {shape}, not {logits.shape}")
    if not np.isfinite(logits).all():
        bad = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise BrokenRun(f"robustness: {name} has NaN or infinite logits (first for text {bad + 1})")
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise BrokenRun(f"robustness: the temperature of {name} must be a number above 0, not {temperature!r}")


def _columns(label_names: Sequence[str], answers: Mapping[str, str] | None) -> dict[str, int]:
    """The logits' column of every label that a case may have: the model's own, and what `answers` names."""
    named = {label: list(label_names).index(name) for label, name in (answers or {}).items()}
    return named | {label_of(name): column for column, name in enumerate(label_names)}


def _verdicts(suite: Suite, answered: _Answered) -> Booleans:
    """(K,) which cases are passed.

    Invariance asks for the right answer, not only for the same: a model that always says the same would pass it all.
    """
    direction = np.array([case.direction for case in suite.cases], np.int64)
    turned = np.array([case.label is not None for case in suite.cases], bool)
    right, moved = answered.said == answered.expected, answered.change * direction
    rules = {
        MINIMUM: right,
        INVARIANCE: right & (answered.gain >= -MAY_FALL),
        DIRECTION: np.where(turned, moved > MUST_MOVE, moved >= -MUST_MOVE),
        CALM: answered.confidence < CALM_BELOW,
    }
    tests = np.array([case.test for case in suite.cases], dtype=object)
    return np.asarray(np.select([tests == test for test in rules], list(rules.values()), False), bool)


def _figures(suite: Suite, passes: Booleans) -> dict[str, Any]:
    """Score, interval and categories of one model."""
    categories = []
    for (category, test), numbers in by_category(suite.cases).items():
        count, hits = len(numbers), int(passes[numbers].sum())
        interval = list(wilson_interval(hits, count))
        entry = {"category": category, "test": test, "cases": count, "passed": hits}
        categories.append(entry | {"rate": hits / count, "interval": interval})
    values = passes.astype(np.int64)
    return {
        "score": _score(suite, values),
        "interval": _interval(suite, values),
        "categories": categories,
        "undefined": {} if suite.cases else {"score": "the suite has no cases"},
    }


def _strata(suite: Suite) -> dict[str, list[list[int]]]:
    """Numbers of the cases by category, those of each test by themselves."""
    strata: dict[str, list[list[int]]] = {}
    for (category, _), numbers in by_category(suite.cases).items():
        strata.setdefault(category, []).append(numbers)
    return strata


def _score(suite: Suite, values: NDArray[np.int64]) -> float | None:
    """100 times the mean over the categories of their mean value; None without cases."""
    means = [float(values[list(chain(*groups))].mean()) for groups in _strata(suite).values()]
    return 100 * math.fsum(means) / len(means) if means else None


def _interval(suite: Suite, values: NDArray[np.int64]) -> list[float] | None:
    """95 % interval of `_score`: percentiles of a seeded bootstrap within each category and test; None without cases.

    values (K,) of -1, 0 and 1.  Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    if not suite.cases:
        return None
    generator = np.random.default_rng(SEED)
    means = []
    for groups in _strata(suite).values():
        total = np.sum([_resampled_sums(values[numbers], generator) for numbers in groups], axis=0)
        means.append(total / sum(map(len, groups)))
    return [float(bound) for bound in np.quantile(100 * np.mean(means, axis=0), (0.025, 0.975))]


def _resampled_sums(values: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
    """(RESAMPLES,) sums of as many values, of -1, 0 and 1, as there are, drawn with replacement.

    Whole numbers only: a binomial distribution is quicker to draw from, but its logarithms may differ between machines.
    """
    rows, losses, wins = len(values), int((values < 0).sum()), int((values > 0).sum())
    sums = np.zeros(RESAMPLES, np.int64)
    for start in range(0, rows, DRAWN_AT_ONCE):
        drawn = generator.integers(rows, size=(RESAMPLES, min(DRAWN_AT_ONCE, rows - start)), dtype=np.uint32)
        sums += (drawn >= rows - wins).sum(axis=1) - (drawn < losses).sum(axis=1)
    return sums


def _failures(suite: Suite, answered: _Answered, passes: Booleans, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """The worst failure of each test of every category, then each second-worst, and so on, MOST_FAILURES at most."""
    badness = _badness(suite, answered)
    ranked = []
    for numbers in by_category(suite.cases).values():
        failed = [number for number in numbers if not passes[number]]
        ranked.append(sorted(failed, key=lambda number: -badness[number]))
    in_turn = [number for round_ in zip_longest(*ranked) for number in round_ if number is not None]
    return [_failure(suite.cases[number], number, answered, label_names) for number in in_turn[:MOST_FAILURES]]


def _badness(suite: Suite, answered: _Answered) -> NDArray[np.float64]:
    """(K,) in [0, 1], for failed cases: the confidence of what is wrong, how far it fell, how far off it moved."""
    direction = np.array([case.direction for case in suite.cases], np.int64)
    fell = (answered.said == answered.expected) & np.array([case.test == INVARIANCE for case in suite.cases], bool)
    sure = np.where(fell, -answered.gain, answered.confidence)
    return np.asarray(np.where(direction != 0, (1 - answered.change * direction) / 2, sure))


def _failure(case: Case, number: int, answered: _Answered, label_names: Sequence[str]) -> dict[str, Any]:
    return {
        "id": case.id,
        "category": case.category,
        "test": case.test,
        "text": _shortened(case.text),
        "original": None if case.original is None else _shortened(case.original),
        "expected": _expected(case, label_names[answered.expected[number]]),
        "said": label_names[answered.said[number]],
        "confidence": float(answered.confidence[number]),
        "change": None if case.original is None else float(answered.change[number]),
    }


def _expected(case: Case, label: str) -> str:
    """What would have passed, as a sentence."""
    if case.test == MINIMUM:
        return f"The answer “{label}”."
    if case.test == INVARIANCE:
        return f"Still “{label}”, and P({label}) at most {MAY_FALL} lower than before the change."
    if case.test == CALM:
        return f"No answer with a confidence of {CALM_BELOW} or more."
    way, other = ("higher", "lower") if case.direction > 0 else ("lower", "higher")
    if case.label is None:
        return f"P(positive) at most {MUST_MOVE} {other} than before the change."
    return f"P(positive) more than {MUST_MOVE} {way} than before the change."


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
