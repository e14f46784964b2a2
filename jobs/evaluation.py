"""Evaluates a trained adapter: on the host right after training, and at home on what came back.

Owns where the answers come from, and what is written; the figures themselves stand in `summary`.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import (
    adapter,
    atomic,
    baselines,
    data,
    evidence,
    mistakes,
    mistakes_csv,
    overlap,
    predictions_parquet,
    suite_labels,
    summary,
    table,
)
from jobs import robustness as scoring
from jobs import suite as suites
from jobs.errors import DataError
from jobs.evidence import HERE, ON_HOST, ROBUSTNESS, Evidence, Robustness, Trained
from jobs.inference import Progress
from jobs.label import in_order, label_of
from jobs.overlap import Overlap
from jobs.pace import Pace
from jobs.predictions import Predictions
from jobs.run_directory import RunDirectory
from jobs.submission import Submission
from jobs.wording import Lang

LIMIT_SEED = 0


@dataclass(frozen=True)
class Asked:
    """What to evaluate at home, and on what.

    base: its folder; None: nothing is inferred, every figure comes from the pulled logits.  data: rows in the project's
    own form (see `table`) instead of those that came back; suite: a file of cases instead of the suite that the run was
    asked.  limit: at most so many rows, drawn with every label's share; 0: all.  keep: folder for answers to go on from
    after a break.
    """

    base: Path | None = None
    data: Path | None = None
    suite: Path | None = None
    limit: int = 0
    keep: Path | None = None


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
    from jobs.classifier import Classifier

    model = Classifier.open(
        base_folder, run.adapter, label_names=trained.label_names, tokens_per_batch=submission.spec.tokens_per_batch
    )
    logits = {name: by_part["test"] for name, by_part in references.items()}
    logits["lora"] = model.logits(test.texts, rows=len(test), progress=Pace())
    robustness = Robustness(skipped=skipped)
    if chosen is not None:
        answers = {name: by_part[ROBUSTNESS] for name, by_part in references.items() if ROBUSTNESS in by_part}
        answers["lora"] = model.logits(chosen.texts, rows=len(chosen.texts), progress=Pace())
        robustness = Robustness(chosen, answers)
    found = Evidence(
        trained,
        Predictions(trained.label_names, tuple(test.texts), test.label_ids, logits),
        robustness,
        overlap.find(splits.train, test.texts, trained.label_names),
        ON_HOST,
        len(test),
    )
    found.save(run)
    document = summary.summarise(found, run_id=run.run_id)
    atomic.write_json(run.metrics, document)
    print(f"evaluated: {document['headline'][0]}", flush=True)


def at_home(run: RunDirectory, submission: Submission, asked: Asked, progress: Progress | None = None) -> Evaluated:
    """Evaluate what was pulled: anew where a base is given, else from the logits that came with the run.

    Raises DataError where labels of the data or the suite are not the model's, or what is asked for needs the base.
    """
    pulled = evidence.load(run, submission.spec.robustness)
    rows = _rows(pulled, asked)
    robustness = pulled.robustness if asked.suite is None else _own_suite(asked.suite, pulled.trained)
    if asked.base is None:
        if "lora" not in rows.known or asked.suite is not None:
            raise DataError(
                "without the base model only what came with the run can be evaluated: its test rows and its suite",
                hint="name the base: --base FOLDER, or fetch it: --rerun",
            )
        notes = ["nothing was inferred here: every figure is recomputed from the logits that the host sent"]
        found = rows.evidence(pulled.trained, rows.known, robustness, ON_HOST)
        return Evaluated(summary.summarise(found, run_id=run.run_id), found, tuple(notes))
    from jobs.classifier import Classifier

    model = Classifier.open(
        asked.base,
        run.adapter,
        label_names=pulled.trained.label_names,
        tokens_per_batch=submission.spec.tokens_per_batch,
    )
    keep, started = asked.keep, time.monotonic()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    own = model.logits(rows.texts, rows=len(rows.texts), keep=keep and keep / "rows", progress=progress)
    cases = robustness.suite
    if cases is not None:
        inferred = model.logits(cases.texts, rows=len(cases.texts), keep=keep and keep / "suite", progress=progress)
        robustness = dataclasses.replace(robustness, logits={**robustness.logits, "lora": inferred})
    seconds = time.monotonic() - started
    texts = len(rows.texts) + (len(cases.texts) if cases else 0)
    notes = [f"{texts:,} texts inferred here in {seconds:.1f} s ({texts / max(seconds, 1e-9):,.0f} a second)"]
    notes += [adapter.another_base(path) for path in adapter.other_weights(asked.base, run.adapter)]
    if "lora" in rows.known:
        gap = float(np.abs(own - rows.known["lora"]).max())
        notes.append(f"largest difference from the host's logits: {gap:.2g}")
    found = rows.evidence(pulled.trained, {**rows.known, "lora": own}, robustness, HERE)
    return Evaluated(summary.summarise(found, run_id=run.run_id), found, tuple(notes))


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


@dataclass(frozen=True)
class _Rows:
    """Texts to be evaluated, their labels truth (N,), logits `known` already, by model, and out of how many."""

    texts: tuple[str, ...]
    truth: NDArray[np.int64]
    known: Mapping[str, NDArray[np.float32]]
    overlap: Overlap | None
    in_all: int

    def evidence(
        self, trained: Trained, logits: Mapping[str, NDArray[np.float32]], robustness: Robustness, source: str
    ) -> Evidence:
        found = Predictions(trained.label_names, self.texts, self.truth, dict(logits))
        return Evidence(trained, found, robustness, self.overlap, source, self.in_all)


def _rows(pulled: Evidence, asked: Asked) -> _Rows:
    """The rows that came back, or those of a file; with a limit some of them."""
    came = pulled.predictions
    texts, truth = (came.texts, came.truth) if asked.data is None else _read(asked.data, pulled.trained)
    same = texts == came.texts and np.array_equal(truth, came.truth)
    rows = _Rows(texts, truth, came.logits if same else {}, pulled.overlap if same else None, len(texts))
    if not 0 < asked.limit < len(texts):
        return rows
    chosen = _drawn(truth, asked.limit)
    return _Rows(
        tuple(texts[row] for row in chosen.tolist()),
        truth[chosen],
        {model: logits[chosen] for model, logits in rows.known.items()},
        rows.overlap.of(chosen) if rows.overlap else None,
        len(texts),
    )


def _own_suite(path: Path, trained: Trained) -> Robustness:
    """A suite that fits the model's labels.  Raises DataError."""
    suite = suites.load(path)
    answers = suite_labels.answers(trained.label_names, trained.positive_label)
    if misfits := scoring.misfits(suite, trained.label_names, answers):
        raise DataError(f"{path}: {'; '.join(misfits)}", hint=f"the model knows {', '.join(trained.label_names)[:200]}")
    return Robustness(suite)


def _drawn(truth: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """(limit,) rows in their order, drawn from every label by its share (largest remainders); the same every time."""
    random = np.random.default_rng(LIMIT_SEED)
    counts = np.bincount(truth)
    shares = counts * limit / len(truth)
    taken = np.floor(shares).astype(np.int64)
    taken[np.argsort(taken - shares, kind="stable")[: limit - taken.sum()]] += 1
    chosen = [random.permutation(np.flatnonzero(truth == label))[:count] for label, count in enumerate(taken)]
    return np.sort(np.concatenate(chosen))


def _read(path: Path, trained: Trained) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    rows = table.read(path)
    # An earlier version kept a label 1.0 as it was written.
    ids = {label_of(name): index for index, name in enumerate(trained.label_names)}
    if unknown := in_order(set(rows.labels) - set(ids)):
        raise DataError(
            f"{path}: the model does not know the label {unknown[0]!r}",
            hint=f"it knows {', '.join(trained.label_names)}",
        )
    return tuple(rows.texts), np.array([ids[label] for label in rows.labels], dtype=np.int64)


def _optional_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
