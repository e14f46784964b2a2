"""Several runs beside each other on the same rows, from logits that lie here; never asks a model.

Owns which rows are the same and what is said about the runs; the figures stand in `figures` and `comparison`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import comparison, evidence, figures, predictions_parquet, robustness, suite_labels
from jobs import predictions as predictions_csv
from jobs.errors import BrokenRun, DataError
from jobs.predictions import Predictions
from jobs.run_directory import RunDirectory
from jobs.suite import Suite
from jobs.wording import p_value

HERE, PULLED = "evaluated here", "evaluated on its host"
_DIFFERENCES = {"auc_roc": ("AUC", "{:+.3f}"), "ece": ("ECE", "{:+.3f}"), "robustness": ("Robustness", "{:+.1f}")}
_BETTER = {"auc_roc": 1, "ece": -1, "robustness": 1}


@dataclass(frozen=True)
class Asked:
    """The robustness suite that a run was asked, which of its cases passed, (K,) bool, and the score of that."""

    suite: Suite
    passed: NDArray[np.bool_]
    score: float | None
    interval: list[float] | None


@dataclass(frozen=True)
class Contestant:
    """A run's name, its predictions, its temperature, and how it did on the robustness suite."""

    name: str
    predictions: Predictions
    positive_label: str
    temperature: float | None
    robustness: Asked | None
    source: str

    @property
    def rows(self) -> list[tuple[str, str]]:
        """Text and label of every row."""
        names = self.predictions.label_names
        labels = (names[number] for number in self.predictions.truth.tolist())
        return list(zip(self.predictions.texts, labels, strict=True))


def read(run: RunDirectory, name: str, evaluated_on: str = "") -> Contestant:
    """A run, called `name`: as it was last evaluated here, else as it came; or as evaluated on another file.

    Raises BrokenRun where what lies there can't be read, DataError where nothing does.
    """
    here = RunDirectory(run.evaluations / evaluated_on) if evaluated_on else run
    if here.home_predictions.exists():
        loaded, source = predictions_parquet.load(here.home_predictions), HERE
    elif here.earlier_home_predictions.exists():
        loaded, source = predictions_csv.load(here.earlier_home_predictions), HERE
    elif not evaluated_on:
        loaded, source = predictions_csv.load(run.predictions), PULLED
    else:
        raise DataError(f"{here.root}: no predictions", hint=f"launch evaluate {name} --data FILE")
    trained = evidence.read_trained(run)
    if set(loaded.label_names) != set(trained.label_names):
        raise BrokenRun(f"{here.root}: predictions of {_listed(loaded.label_names)}, trained on "
                        f"{_listed(trained.label_names)}")  # fmt: skip
    return Contestant(
        name,
        loaded,
        trained.positive_label,
        trained.temperature(loaded.main),
        _asked(run, trained),
        source,
    )


def _asked(run: RunDirectory, trained: evidence.Trained) -> Asked | None:
    """How the adapter answered the suite that the run was asked on its host."""
    found = evidence.answers_to_suite(run, trained)
    if found is None or found.suite is None:
        return None
    names, temperature = trained.label_names, trained.temperature("lora")
    answers = suite_labels.answers(names, trained.positive_label)
    logits = found.logits["lora"]
    measured = robustness.measure(found.suite, {"lora": logits}, names, answers, {"lora": temperature}, {"lora": ""})
    [standing] = measured["models"]
    passed = robustness.passed(found.suite, logits, names, answers, temperature)
    return Asked(found.suite, passed, standing["score"], standing["interval"])


def compare(contestants: Sequence[Contestant], *, common: bool = False) -> dict[str, Any]:
    """Figures of every run and each of the others against the first, on the rows that all of them have.

    {rows, label_names, positive_label, runs: [{run, source, rows, temperature, figures, robustness}], comparisons:
    [as in docs/evaluation.md, `model` and `against` are runs, and `sentences`], notes}.  Raises DataError where the
    labels differ, or the rows, and not only the `common` ones were asked for.
    """
    first = contestants[0]
    names = first.predictions.label_names
    for other in contestants[1:]:
        _require_same_labels(first, other)
    selected = _same_rows(contestants, common=common)
    truth = first.predictions.truth[selected[0]]
    positive = names.index(first.positive_label) if len(names) == 2 else None
    logits = [_logits(one, names, rows) for one, rows in zip(contestants, selected, strict=True)]
    notes = _notes(contestants, len(truth))
    comparisons = []
    for other, its_logits in zip(contestants[1:], logits[1:], strict=True):
        found = comparison.compare(truth, its_logits, logits[0], positive, other.temperature, first.temperature)
        scores = _robustness(other, first)
        if isinstance(scores, str):
            notes.append(f"robustness of {other.name} and {first.name} is not compared: {scores}")
        else:
            found["differences"]["robustness"] = scores
        comparisons.append(_named(found, other.name, first.name))
    return {
        "rows": len(truth),
        "label_names": list(names),
        "positive_label": None if positive is None else names[positive],
        "runs": [
            _standing(one, figures.figures(truth, its_logits, names, positive, one.temperature))
            for one, its_logits in zip(contestants, logits, strict=True)
        ],
        "comparisons": comparisons,
        "notes": notes,
    }


def _require_same_labels(one: Contestant, other: Contestant) -> None:
    labels, other_labels = one.predictions.label_names, other.predictions.label_names
    if set(labels) != set(other_labels):
        raise DataError(
            f"{one.name} and {other.name} have different labels: {_listed(labels)}; {_listed(other_labels)}",
            hint="only runs of one task can be compared",
        )


# --- The same rows


def _same_rows(contestants: Sequence[Contestant], *, common: bool) -> list[NDArray[np.int64]]:
    """For each run the numbers of the rows that all have, in one order for all; equal rows stand for each other."""
    rows = [one.rows for one in contestants]
    counts = [Counter(one) for one in rows]
    shared = counts[0]
    for one in counts[1:]:
        shared = shared & one
    if not common:
        for contestant, one in zip(contestants[1:], counts[1:], strict=True):
            if one != counts[0]:
                raise _different(contestants[0], contestant, counts[0], one)
    if not shared:
        raise DataError("the runs have no row in common", hint=_on_one_file(contestants[0].name, contestants[1].name))
    return [_taken(one, shared) for one in rows]


def _taken(rows: list[tuple[str, str]], shared: Counter[tuple[str, str]]) -> NDArray[np.int64]:
    left, taken = Counter(shared), []
    for number, row in enumerate(rows):
        if left[row]:
            left[row] -= 1
            taken.append(number)
    return np.array(sorted(taken, key=rows.__getitem__), np.int64)


def _different(one: Contestant, other: Contestant, rows: Counter[Any], other_rows: Counter[Any]) -> DataError:
    shared = (rows & other_rows).total()
    texts, other_texts = (Counter(text for text, _ in counted.elements()) for counted in (rows, other_rows))
    relabelled = (texts & other_texts).total() - shared
    return DataError(
        f"{one.name} and {other.name} were evaluated on different rows: {rows.total():,} and {other_rows.total():,}, "
        f"{shared:,} in both" + (f"; {relabelled:,} more have other labels" if relabelled else ""),
        hint=_on_one_file(one.name, other.name) + "; --common compares on the rows that all have",
    )


def _on_one_file(one: str, other: str) -> str:
    return (
        f"launch evaluate {one} --data FILE; launch evaluate {other} --data FILE; "
        f"launch compare {one} {other} --data FILE"
    )


def _logits(one: Contestant, names: Sequence[str], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, C) of the run's model, with the labels in the order of `names`."""
    columns = [one.predictions.label_names.index(name) for name in names]
    return one.predictions.logits[one.predictions.main][rows][:, columns]


# --- Words and documents


def _notes(contestants: Sequence[Contestant], rows: int) -> list[str]:
    """What whoever reads the figures must know."""
    notes = []
    if any(one.predictions.rows != rows for one in contestants):
        counts = ", ".join(f"{one.predictions.rows:,} of {one.name}" for one in contestants)
        notes.append(f"compared on the {rows:,} rows that all have, of {counts}")
    if unscaled := [one.name for one in contestants if one.temperature is None]:
        notes.append(f"no temperature is known of {' and '.join(unscaled)}: ECE is of the probabilities as they are")
    return notes


def _standing(one: Contestant, known: dict[str, Any]) -> dict[str, Any]:
    asked = one.robustness
    return {
        "run": one.name,
        "source": one.source,
        "rows": one.predictions.rows,
        "temperature": one.temperature,
        "figures": known,
        "robustness": asked and {"sha256": asked.suite.sha256, "score": asked.score, "interval": asked.interval},
    }


def _robustness(one: Contestant, other: Contestant) -> dict[str, Any] | str:
    """The paired difference of the scores, or why there is none."""
    if one.robustness is None or other.robustness is None:
        missing = [contestant.name for contestant in (one, other) if contestant.robustness is None]
        return f"none is known of {' and '.join(missing)}"
    if one.robustness.suite.sha256 != other.robustness.suite.sha256:
        return "the suites differ"
    return robustness.difference(one.robustness.suite, one.robustness.passed, other.robustness.passed)


def _named(found: dict[str, Any], model: str, against: str) -> dict[str, Any]:
    low, high = found["difference_interval"]
    points = f"{100 * abs(found['accuracy_difference']):.1f} points"
    says = {
        "better": f"{model} beats {against} by {points} of accuracy",
        "worse": f"{model} is {points} of accuracy below {against}",
    }.get(found["verdict"], f"{model} and {against} can't be told apart by accuracy")
    sentence = (
        f"{says} (95 % interval of the difference {100 * low:+.1f} to {100 * high:+.1f} points; right alone on "
        f"{found['wins']:,} rows, wrong alone on {found['losses']:,}; McNemar {p_value(found['mcnemar_p'])})."
    )
    others = [
        _difference(key, value, model, against)
        for key, value in found["differences"].items()
        if value and value["difference"] is not None
    ]
    return {**found, "model": model, "against": against, "title": against, "sentence": sentence,
            "sentences": [sentence, *others]}  # fmt: skip


def _difference(key: str, value: dict[str, Any], model: str, against: str) -> str:
    name, form = _DIFFERENCES[key]
    less = f"{name} of {model} less that of {against}: {form.format(value['difference'])}"
    if value["interval"] is None:
        return f"{less} (the rows are too few for an interval)."
    low, high = value["interval"]
    sign = _BETTER[key] * ((low > 0) - (high < 0))
    verdict = {1: f"better for {model}", -1: f"worse for {model}"}.get(sign, "no clear difference")
    return f"{less} (95 % interval {form.format(low)} to {form.format(high)}); {verdict}."


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return shown + (", …" if len(names) > 8 else "")
