"""Evaluates a trained adapter: on the host right after training, and at home on what came back.

Puts inference, baselines and metrics together; the figures themselves stand in `metrics` and `summary`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import adapter, atomic, baselines, data, summary, table
from jobs.errors import BrokenRun, DataError
from jobs.label import in_order, label_of
from jobs.pace import Pace
from jobs.predictions import Predictions, load
from jobs.run_directory import RunDirectory
from jobs.submission import Submission


@dataclass(frozen=True)
class Trained:
    """What training.json says that an evaluation needs.  It may come from a hostile host: shapes are checked."""

    label_names: tuple[str, ...]
    positive_label: str
    max_length: int


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: its metrics.json document, the predictions, and what is worth telling beside them."""

    metrics: dict[str, Any]
    predictions: Predictions
    notes: tuple[str, ...]


def on_host(run: RunDirectory, submission: Submission, base_folder: Path) -> None:
    """Evaluate the test split beside the baselines; writes predictions.csv and metrics.json into the artifacts."""
    trained = read_trained(run)
    splits = data.load_splits(run.root, submission)
    references = baselines.load(run.artifacts / baselines.FILE)
    logits = {model: by_split["test"] for model, by_split in references.items()}
    logits["lora"] = infer(run, base_folder, splits.test.texts, trained, submission.spec.tokens_per_batch)
    predictions = Predictions(trained.label_names, tuple(splits.test.texts), splits.test.label_ids, logits)
    document = _summary(predictions, trained, "inferred on host", run.run_id)
    predictions.save(run.predictions)
    atomic.write_json(run.metrics, document)
    print(f"evaluated: {document['headline'][0]}", flush=True)


def at_home(
    run: RunDirectory,
    *,
    base_folder: Path | None,
    data_file: Path | None,
    submission: Submission,
    keep: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Evaluated:
    """Evaluate what was pulled: anew where the base is at hand, else from the logits that came with the run.

    `data_file` is what to evaluate on, in the project's own form (see `table`), None for the rows that came back.
    Raises DataError where its labels are not the model's.  `keep` and `progress` are as in `infer`.
    """
    trained = read_trained(run)
    pulled = load(run.predictions)
    texts, truth = (pulled.texts, pulled.truth) if data_file is None else _rows(data_file, trained)
    same_rows = tuple(texts) == pulled.texts and np.array_equal(truth, pulled.truth)
    notes = []
    if base_folder is None:
        if not same_rows:
            raise DataError(
                "without the base model only the rows that came with the run can be evaluated",
                hint="name the base: --base FOLDER",
            )
        predictions, source = pulled, "recomputed from pulled logits"
        notes.append("the base model is not on this machine: recomputed from the logits that the host sent")
    else:
        started = time.monotonic()
        inferred = infer(
            run, base_folder, texts, trained, submission.spec.tokens_per_batch, keep=keep, progress=progress
        )
        seconds = time.monotonic() - started
        notes.append(f"{len(texts)} rows inferred here in {seconds:.1f} s ({len(texts) / seconds:.0f} rows/s)")
        others = {key: value for key, value in pulled.logits.items() if key != "lora"} if same_rows else {}
        predictions = Predictions(trained.label_names, tuple(texts), truth, {**others, "lora": inferred})
        source = "inferred here"
        if same_rows and "lora" in pulled.logits:
            gap = float(np.abs(inferred - pulled.logits["lora"]).max())
            notes.append(f"largest difference from the host's logits: {gap:.2g}")
    return Evaluated(_summary(predictions, trained, source, run.run_id), predictions, tuple(notes))


def write_home(run: RunDirectory, folder: Path, evaluated: Evaluated, facts: dict[str, Any]) -> RunDirectory:
    """Write predictions.csv, metrics.json and report.html below `folder`; the paths written."""
    from jobs.report import write_report

    written = RunDirectory(folder)
    evaluated.predictions.save(written.home_predictions)
    atomic.write_json(written.home_metrics, evaluated.metrics)
    write_report(
        written.report,
        evaluated.metrics,
        evaluated.predictions,
        facts=facts,
        verification=_optional_json(run.home_verification) or _optional_json(run.host_verification),
        training=_optional_json(run.training),
    )
    return written


def infer(
    run: RunDirectory,
    base_folder: Path,
    texts: Sequence[str],
    trained: Trained,
    tokens_per_batch: int | str,
    *,
    keep: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> NDArray[np.float32]:
    """(N, C) float32 logits of the adapter on disk, base in float32 on the CPU, as kept on a GPU.

    In the file `keep` they are kept window after window, for an inference that was interrupted to go on.  Without
    `progress` lines of the log tell how far it is.
    """
    from jobs.classifier import Classifier

    classifier = Classifier.open(
        base_folder, run.adapter, label_names=trained.label_names, tokens_per_batch=tokens_per_batch
    )
    return classifier.logits(texts, rows=len(texts), keep=keep, progress=progress or Pace())


def read_trained(run: RunDirectory) -> Trained:
    """training.json of a run.  Raises BrokenRun."""
    document = _optional_json(run.training)
    classifier = _optional_json(run.adapter / adapter.CLASSIFIER)
    match document, classifier:
        case {"label_names": [str(), str(), *_] as names}, {"max_length": int(max_length)} if (
            all(isinstance(name, str) for name in names) and 0 < max_length < 10**6
        ):
            positive = str((document or {}).get("positive_label"))
            return Trained(tuple(names), positive if positive in names else names[-1], max_length)
    raise BrokenRun(f"{run.training}: not a readable record of a training")


def _rows(path: Path, trained: Trained) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    rows = table.read(path)
    # An earlier version kept a label 1.0 as it was written.
    ids = {label_of(name): index for index, name in enumerate(trained.label_names)}
    if unknown := in_order(set(rows.labels) - set(ids)):
        raise DataError(
            f"{path}: the model does not know the label {unknown[0]!r}",
            hint=f"it knows {', '.join(trained.label_names)}",
        )
    return tuple(rows.texts), np.array([ids[label] for label in rows.labels], dtype=np.int64)


def _summary(predictions: Predictions, trained: Trained, source: str, run_id: str) -> dict[str, Any]:
    return summary.summarise(predictions, positive_label=trained.positive_label, source=source, run_id=run_id)


def _optional_json(path: Path) -> dict[str, Any] | None:
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
