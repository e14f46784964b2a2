"""What an evaluation is computed from: the answers of every model, to the test rows and to the robustness suite.

Owns how a host sends it home and how it is read there, where nothing of it is believed before it was looked at.  The
same evidence gives the same figures everywhere; knows nothing of figures.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import adapter, overlap, predictions, robustness, safetensors_file, suite, suite_labels, threshold
from jobs.errors import BrokenRun, DataError, JobError, SpecError
from jobs.overlap import Overlap
from jobs.predictions import MODEL_TITLES, Predictions
from jobs.run_directory import RunDirectory
from jobs.suite import Suite
from jobs.temperature import checked

ON_HOST, HERE = "inferred on host", "inferred here"
SOURCES = (ON_HOST, HERE)
ROBUSTNESS = "robustness"
"""What the suite's texts are called among the parts of the data."""
LONGEST_GOAL = 100
MOST_ROWS = 10**12


@dataclass(frozen=True)
class Trained:
    """What a training tells that an evaluation needs.

    temperatures: model key -> {value, rows, nll_before, nll_after}.  decision: {goal, threshold, reached, validation}.
    """

    label_names: tuple[str, ...]
    positive_label: str
    temperatures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    decision: Mapping[str, Any] | None = None

    def temperature(self, model: str) -> float | None:
        """What the logits of a model are divided by; None where nothing was fitted."""
        return float(self.temperatures[model]["value"]) if model in self.temperatures else None


@dataclass(frozen=True)
class Robustness:
    """The suite and the logits (T, C) float32 of every model for its texts; or why there is none."""

    suite: Suite | None = None
    logits: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    skipped: str = ""


@dataclass(frozen=True)
class Evidence:
    """One evaluation, before anything is computed.  `rows_in_all` is how many rows there were to choose from."""

    trained: Trained
    predictions: Predictions
    robustness: Robustness
    overlap: Overlap | None
    source: str
    rows_in_all: int

    def save(self, run: RunDirectory) -> None:
        """Write it into the artifacts, all but what the training has written there itself."""
        self.predictions.save(run.predictions)
        if self.overlap is not None:
            self.overlap.save(run.overlap)
        if self.robustness.suite is not None:
            suite.dump(self.robustness.suite, run.suite)
            safetensors_file.write(run.suite_logits, dict(self.robustness.logits))


def load(run: RunDirectory, choice: str) -> Evidence:
    """What a host found out.  `choice` is the spec's, of a suite.  Raises BrokenRun where it can't be read."""
    trained = read_trained(run)
    found = predictions.load(run.predictions)
    if found.label_names != trained.label_names:
        raise BrokenRun(f"{run.predictions}: other labels than the training's")
    return Evidence(
        trained,
        found,
        _robustness(run, trained, found, choice),
        overlap.load(run.overlap, found.rows, found.label_names),
        ON_HOST,
        found.rows,
    )


def suite_of(
    choice: str, label_names: Sequence[str], positive_label: str | None, texts: Sequence[str]
) -> tuple[Suite | None, str]:
    """The built-in suite, or None and why it does not fit; `choice` is the spec's: auto, yes, no.

    texts: of the test split.  Raises DataError where it is asked for and no label stands for its answers.
    """
    if choice == "no":
        return None, "it was not asked for (robustness: no)"
    if choice == "yes":
        if suite_labels.answers(label_names, positive_label or "") is None:
            raise DataError(
                f"robustness: which of the labels {', '.join(label_names)[:200]} means a good review is not known",
                hint="robustness: no, or labels such as positive and negative",
            )
        return suite.built_in(), ""
    reason = suite_labels.applies(label_names, positive_label or "", texts)
    return (None, reason) if reason else (suite.built_in(), "")


def read_trained(run: RunDirectory) -> Trained:
    """training.json and classifier.json of a run.  Raises BrokenRun."""
    document = _json(run.training)
    names = document.get("label_names")
    match names:
        case [str(), str(), *_] if all(isinstance(name, str) for name in names):
            pass
        case _:
            raise BrokenRun(f"{run.training}: not a readable record of a training")
    try:
        own, cut = adapter.temperature(run.adapter), adapter.threshold(run.adapter)
    except JobError as error:
        raise BrokenRun(error.message, hint=error.hint) from error
    temperatures = _temperatures(document.get("temperatures"), run.training)
    # The adapter's own is what it is used with; the rest is said of it.
    if own != (temperatures["lora"]["value"] if "lora" in temperatures else None):
        raise BrokenRun(f"{run.training}: another temperature than the adapter's")
    decision = _decision(document.get("decision"), run.training)
    if cut != (decision["threshold"] if decision else None):
        raise BrokenRun(f"{run.training}: another threshold than the adapter's")
    positive = document.get("positive_label")
    positive = positive if isinstance(positive, str) and positive in names else names[-1]
    return Trained(tuple(names), positive, temperatures, decision)


def answers_to_suite(run: RunDirectory, trained: Trained) -> Robustness | None:
    """The suite that a run was asked, and the answers; None where it was not asked one.  Raises BrokenRun."""
    if not run.suite.exists():
        return None
    try:
        cases = suite.load(run.suite)
        header = safetensors_file.read_header(run.suite_logits).require()
        shape = (len(cases.texts), len(trained.label_names))
        for name, tensor in header.tensors.items():  # before memory is taken for what a header claims
            if name not in MODEL_TITLES or tensor.shape != shape:
                raise BrokenRun(f"{run.suite_logits}: {ascii(name)[:80]} is no model, or not of shape {shape}")
        logits = {name: array.astype(np.float32) for name, array in safetensors_file.read_arrays(header).items()}
    except JobError as error:
        raise BrokenRun(f"the robustness suite of the run: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise BrokenRun(f"the robustness suite of the run: {error.filename}: {error.strerror}") from error
    for name, array in logits.items():
        if not np.isfinite(array).all():
            raise BrokenRun(f"{run.suite_logits}: {name} is not finite")
    if "lora" not in logits:
        raise BrokenRun(f"{run.suite_logits}: without the adapter's answers")
    known = suite_labels.answers(trained.label_names, trained.positive_label)
    if misfits := robustness.misfits(cases, trained.label_names, known):
        raise BrokenRun(f"{run.suite}: {misfits[0]}")
    return Robustness(cases, logits)


def _robustness(run: RunDirectory, trained: Trained, found: Predictions, choice: str) -> Robustness:
    """Answers to the suite, or why there are none."""
    if came := answers_to_suite(run, trained):
        return came
    fitting, reason = suite_of(choice, trained.label_names, trained.positive_label, found.texts)
    return Robustness(skipped=reason if fitting is None else "the run has no answers to it")


def _temperatures(listed: Any, path: Path) -> dict[str, dict[str, Any]]:
    """What was fitted for each model; an older training has none."""
    found: dict[str, dict[str, Any]] = {}
    for model, one in (listed or {}).items() if isinstance(listed, dict | None) else [("", None)]:
        match one:
            case {"value": float() as value, "rows": int(rows), "nll_before": float() as before,
                  "nll_after": float() as after} if model in MODEL_TITLES:  # fmt: skip
                if 0 < rows < MOST_ROWS and math.isfinite(before + after):
                    checked(value, str(path))
                    found[model] = {"value": value, "rows": rows, "nll_before": before, "nll_after": after}
                    continue
        raise BrokenRun(f"{path}: not the temperature of a model: {one!r:.200}")
    return found


def _decision(decision: Any, path: Path) -> dict[str, Any] | None:
    match decision:
        case None:
            return None
        case {"goal": str(goal), "threshold": float() as cut, "reached": bool(reached), "validation": dict(achieved)}:
            if 0 <= cut <= 1 and _is_goal(goal) and all(map(_is_figure, achieved.items())):
                return {"goal": goal, "threshold": cut, "reached": reached, "validation": achieved}
    raise BrokenRun(f"{path}: not a threshold: {decision!r:.200}")


def _is_goal(text: str) -> bool:
    try:
        return len(text) <= LONGEST_GOAL and bool(threshold.parse(text))
    except SpecError:
        return False


def _is_figure(item: tuple[str, Any]) -> bool:
    """Whether it is one of `threshold.figures_at`."""
    name, value = item
    return name in threshold.FIGURES and (value is None or (type(value) in (int, float) and 0 <= value <= 1))


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenRun(f"{path}: not a readable record of a training ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise BrokenRun(f"{path}: not a readable record of a training")
    return document
