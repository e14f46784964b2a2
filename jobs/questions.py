"""What an evaluation at home asks: rows with labels, and the texts of the robustness suite.

Owns which rows those are, what is known of their answers before anything is inferred, and how answers become evidence.
Needs numpy alone, so that the command line can count the texts, or send them to where they are answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import evidence, robustness, suite, suite_labels, table
from jobs.errors import BrokenRun, DataError
from jobs.evidence import ON_HOST, Evidence, Robustness, Trained
from jobs.label import in_order, label_of
from jobs.overlap import Overlap
from jobs.predictions import Predictions
from jobs.run_directory import RunDirectory

LIMIT_SEED = 0

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """What is asked for other than what came with the run.

    data: rows in the project's own form (see `table`).  suite: a file of cases.  limit: at most so many rows, drawn
    with every label's share; 0: all.
    """

    data: Path | None = None
    suite: Path | None = None
    limit: int = 0


@dataclass(frozen=True)
class Questions:
    """Texts of rows with their labels truth (N,), and a robustness suite with what is known of its answers.

    known: logits (N, C) of the rows, by model.  in_all: how many rows there were to choose from.
    """

    trained: Trained
    texts: tuple[str, ...]
    truth: NDArray[np.int64]
    known: Mapping[str, Logits]
    overlap: Overlap | None
    in_all: int
    robustness: Robustness

    @property
    def all_texts(self) -> tuple[str, ...]:
        """Those of the rows (N), then those of the suite (T)."""
        return self.texts + (self.robustness.suite.texts if self.robustness.suite else ())

    def as_pulled(self) -> Evidence:
        """With the answers that came from the host.  Raises DataError where there are none."""
        suite_is_known = self.robustness.suite is None or "lora" in self.robustness.logits
        if "lora" not in self.known or not suite_is_known:
            raise DataError(
                "without the base model only what came with the run can be evaluated: its test rows and its suite",
                hint="name the base: --base FOLDER, or fetch it: --rerun",
            )
        return self._evidence(self.known, self.robustness, ON_HOST)

    def answered(self, logits: Logits, source: str) -> Evidence:
        """With LoRA's answers (N + T, C) to `all_texts`.  Raises BrokenRun where they are not that."""
        shape = (len(self.all_texts), len(self.trained.label_names))
        if logits.shape != shape or not np.isfinite(logits).all():
            raise BrokenRun(f"answers of shape {logits.shape}, not finite ones of shape {shape}")
        rows, asked = np.split(logits.astype(np.float32, copy=False), [len(self.texts)])
        tested = self.robustness
        if tested.suite is not None:
            tested = replace(tested, logits={**tested.logits, "lora": asked})
        return self._evidence({**self.known, "lora": rows}, tested, source)

    def gap(self, answered: Evidence) -> float | None:
        """The largest difference of a row's logits from those that came from the host; None where none did."""
        if "lora" not in self.known:
            return None
        return float(np.abs(answered.predictions.logits["lora"] - self.known["lora"]).max())

    def _evidence(self, logits: Mapping[str, Logits], tested: Robustness, source: str) -> Evidence:
        found = Predictions(self.trained.label_names, self.texts, self.truth, dict(logits))
        return Evidence(self.trained, found, tested, self.overlap, source, self.in_all)


def of_run(run: RunDirectory, choice: str, asked: Asked) -> Questions:
    """What is asked of a pulled run; `choice` is its spec's, of a suite.

    Raises DataError where labels of the data or the suite are not the model's, BrokenRun for what came and is broken.
    """
    pulled = evidence.load(run, choice)
    came, trained = pulled.predictions, pulled.trained
    texts, truth = (came.texts, came.truth) if asked.data is None else _read(asked.data, trained)
    same = texts == came.texts and np.array_equal(truth, came.truth)
    tested = pulled.robustness if asked.suite is None else _own_suite(asked.suite, trained)
    questions = Questions(
        trained, texts, truth, came.logits if same else {}, pulled.overlap if same else None, len(texts), tested
    )
    return _limited(questions, asked.limit) if 0 < asked.limit < len(texts) else questions


def _limited(questions: Questions, limit: int) -> Questions:
    """`limit` rows in their order, drawn from every label by its share (largest remainders); the same every time."""
    random, truth = np.random.default_rng(LIMIT_SEED), questions.truth
    shares = np.bincount(truth) * limit / len(truth)
    taken = np.floor(shares).astype(np.int64)
    taken[np.argsort(taken - shares, kind="stable")[: limit - taken.sum()]] += 1
    drawn = [random.permutation(np.flatnonzero(truth == label))[:count] for label, count in enumerate(taken)]
    rows = np.sort(np.concatenate(drawn))
    return replace(
        questions,
        texts=tuple(questions.texts[row] for row in rows.tolist()),
        truth=truth[rows],
        known={model: logits[rows] for model, logits in questions.known.items()},
        overlap=questions.overlap.of(rows) if questions.overlap else None,
    )


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


def _own_suite(path: Path, trained: Trained) -> Robustness:
    """A suite that fits the model's labels.  Raises DataError."""
    own = suite.load(path)
    answers = suite_labels.answers(trained.label_names, trained.positive_label)
    if misfits := robustness.misfits(own, trained.label_names, answers):
        raise DataError(f"{path}: {'; '.join(misfits)}", hint=f"the model knows {', '.join(trained.label_names)[:200]}")
    return Robustness(own)
