"""Evaluates a trained adapter: on the host right after training, and at home on what came back.

Owns where the answers come from, and what is written; the figures themselves stand in `summary`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import (
    adapter,
    answering,
    atomic,
    baselines,
    data,
    evidence,
    mistakes,
    mistakes_csv,
    overlap,
    predictions_parquet,
    summary,
)
from jobs.evidence import HERE, ON_HOST, ROBUSTNESS, Evidence, Robustness
from jobs.pace import Pace
from jobs.predictions import Predictions
from jobs.questions import Asked, Questions, of_run
from jobs.run_directory import RunDirectory
from jobs.submission import Submission
from jobs.wording import Lang

if TYPE_CHECKING:  # they bring torch along, which nothing but inferring needs
    from jobs.classifier import Classifier
    from jobs.inference import Progress


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: its metrics.json document, the evidence for it, and what is worth telling beside them."""

    metrics: dict[str, Any]
    evidence: Evidence
    notes: tuple[str, ...]


def on_host(run: RunDirectory, submission: Submission, base_folder: Path) -> None:
    """Evaluate the test split beside the baselines, and the robustness suite; the artifacts have it all afterwards."""
    trained = evidence.read_trained(run)
    splits = data.load_splits(run.root, submission)
    test = splits.test
    references = baselines.load(run.baselines)
    chosen, skipped = evidence.suite_of(
        submission.spec.robustness, splits.label_names, splits.positive_label, test.texts
    )
    model = _classifier(run, submission, base_folder, trained.label_names)
    texts = [*test.texts, *(chosen.texts if chosen else ())]
    own, asked = np.split(model.logits(texts, rows=len(texts), progress=Pace()), [len(test)])
    logits = {name: by_part["test"] for name, by_part in references.items()} | {"lora": own}
    robustness = Robustness(skipped=skipped)
    if chosen is not None:
        answers = {name: by_part[ROBUSTNESS] for name, by_part in references.items() if ROBUSTNESS in by_part}
        robustness = Robustness(chosen, answers | {"lora": asked})
    found = Evidence(
        trained,
        Predictions(trained.label_names, tuple(test.texts), test.label_ids, logits),
        robustness,
        overlap.find(splits.train, test.texts, trained.label_names),
        ON_HOST,
        len(test),
    )
    found.save(run)
    document = summary.summarise(found, run_id=submission.run_id)
    atomic.write_json(run.metrics, document)
    print(f"evaluated: {document['headline'][0]}", flush=True)


def at_home(
    run: RunDirectory,
    submission: Submission,
    asked: Asked,
    *,
    base: Path | None = None,
    answers: Path | None = None,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Evaluate what was pulled: with `answers` of a host (see `answering`), with a `base` by inferring here, else from
    the logits that came with the run.

    In the file `keep` an inference that was stopped finds how far it was.  Raises DataError where labels of the data or
    the suite are not the model's, or what is asked for needs the base.
    """
    questions = of_run(run, submission.spec.robustness, asked)
    if answers is not None:
        found = questions.answered(answering.load(answers), ON_HOST)
        notes = [f"{len(questions.all_texts):,} texts were inferred again on a host", *_gap(questions, found)]
    elif base is not None:
        found, notes = _inferred(questions, run, submission, base, keep, progress)
    else:
        found = questions.as_pulled()
        notes = ["nothing was inferred here: every figure is recomputed from the logits that the host sent"]
    return Evaluated(summary.summarise(found, run_id=submission.run_id), found, tuple(notes))


def _inferred(
    questions: Questions,
    run: RunDirectory,
    submission: Submission,
    base: Path,
    keep: Path | None,
    progress: Progress | None,
) -> tuple[Evidence, list[str]]:
    texts = questions.all_texts
    model = _classifier(run, submission, base, questions.trained.label_names)
    started = time.monotonic()
    logits = model.logits(texts, rows=len(texts), keep=keep, progress=progress)
    seconds = max(time.monotonic() - started, 1e-9)
    found = questions.answered(logits, HERE)
    notes = [f"{len(texts):,} texts inferred here in {seconds:.1f} s ({len(texts) / seconds:,.0f} a second)"]
    notes += [adapter.another_base(path) for path in adapter.other_weights(base, run.adapter)]
    return found, notes + _gap(questions, found)


def _classifier(run: RunDirectory, submission: Submission, base: Path, names: Sequence[str]) -> Classifier:
    from jobs.classifier import Classifier

    return Classifier.open(base, run.adapter, label_names=names, tokens_per_batch=submission.spec.tokens_per_batch)


def _gap(questions: Questions, found: Evidence) -> list[str]:
    gap = questions.gap(found)
    return [] if gap is None else [f"largest difference from the host's logits: {gap:.2g}"]


def write_home(
    run: RunDirectory, folder: Path, evaluated: Evaluated, facts: Mapping[str, Mapping[str, Any]], *, lang: Lang = "en"
) -> RunDirectory:
    """Write metrics.json, predictions.parquet, errors.csv, report.html and plots below `folder`; the paths written."""
    from jobs.report import write_report

    written = RunDirectory(folder)
    found, trained = evaluated.evidence, evaluated.evidence.trained
    temperature = trained.temperature(found.predictions.main)
    predictions_parquet.save(written.home_predictions, found.predictions, temperature)
    written.earlier_home_predictions.unlink(missing_ok=True)  # of an evaluation before this one
    wrong = mistakes.errors(found.predictions, temperature, found.overlap, most_rows=None)
    mistakes_csv.save(written.home_errors, wrong["rows"], found.predictions.texts)
    atomic.write_json(written.home_metrics, evaluated.metrics)
    write_report(
        written.report,
        evaluated.metrics,
        found.predictions,
        facts=facts,
        verification=_optional_json(run.home_verification) or _optional_json(run.host_verification),
        training=_optional_json(run.training),
        lang=lang,
        plots_folder=written.plots,
    )
    return written


def _optional_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
