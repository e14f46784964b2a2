"""Answers to texts that have no labels: what a trained adapter says of each, how sure it is, and the file of that.

Owns how logits become a label, a confidence and a decision, and the file's form.  Knows no metrics, and of the texts'
origin only the form that the command line brings them into: a JSON object a line, with a `text`.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import adapter, atomic, evidence
from jobs.errors import AdapterRejected, DataError
from jobs.inference import Progress
from jobs.log_line import say
from jobs.run_directory import RunDirectory
from jobs.temperature import probabilities

SUFFIXES = (".csv", ".jsonl")
"""Of the file of answers."""


@dataclass(frozen=True)
class Answer:
    """What is said of a text.  `confidence` is the label's probability; `decision` is None without a threshold."""

    label: str
    confidence: float
    decision: str | None


@dataclass(frozen=True)
class Rule:
    """How logits are read: divided by the temperature, and of two labels the positive one from the threshold on."""

    label_names: tuple[str, ...]
    positive_label: str
    temperature: float | None
    threshold: float | None

    @classmethod
    def of_run(cls, run: RunDirectory) -> Rule:
        """As training left it.  Raises AdapterRejected and BrokenRun."""
        trained = evidence.read_trained(run)
        threshold = adapter.threshold(run.adapter) if len(trained.label_names) == 2 else None
        return cls(trained.label_names, trained.positive_label, adapter.temperature(run.adapter), threshold)

    def read(self, logits: NDArray[np.float32]) -> Iterator[Answer]:
        """The answers to N texts, from logits (N, C).  Raises AdapterRejected where one is not finite."""
        if not np.isfinite(logits).all():
            raise AdapterRejected("the model answers with NaN or infinity", hint="launch verify")
        shares = probabilities(logits, self.temperature)  # (N, C)
        positive = self.label_names.index(self.positive_label)
        for row, best in zip(shares, logits.argmax(axis=1), strict=True):
            decision = None
            if self.threshold is not None:
                decision = self.label_names[positive if row[positive] >= self.threshold else 1 - positive]
            yield Answer(self.label_names[best], float(row[best]), decision)


def answer(
    run: RunDirectory,
    base_folder: Path,
    texts_file: Path,
    out: Path,
    *,
    tokens_per_batch: int | str,
    keep: Path,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write what the run's adapter says of every text to `out`, whole or not at all; the figures of it.

    Whatever the number of texts, memory holds a window of them.  In the file `keep` the logits are kept until all of
    them are there, for an interrupted answer to go on; it is gone afterwards.
    """
    from jobs.classifier import Classifier

    rule = Rule.of_run(run)
    for path in adapter.other_weights(base_folder, run.adapter):
        say(f"warning: {adapter.another_base(path)}")
    classifier = Classifier.open(
        base_folder, run.adapter, label_names=rule.label_names, tokens_per_batch=tokens_per_batch
    )
    count = _rows(texts_file)
    labels, decisions = Counter[str](), Counter[str]()
    started = time.monotonic()
    form = FORMS[out.suffix.lower()]
    for _ in classifier.answers(_texts(texts_file), rows=count, keep=keep, progress=progress):
        pass  # the file is begun when nothing is left to wait for: whoever is killed leaves no half of it
    asked, written = itertools.tee(_texts(texts_file))
    with atomic.new_file(out) as file:
        if out.suffix.lower() == ".csv":
            file.write(
                _csv_line(["text", "label", "confidence", *(["decision"] if rule.threshold is not None else [])])
            )
        for logits in classifier.answers(asked, keep=keep):
            for said, text in zip(rule.read(logits), itertools.islice(written, len(logits)), strict=True):
                file.write(form(text, said))
                labels[said.label] += 1
                decisions[said.decision or said.label] += 1
    keep.unlink(missing_ok=True)
    return {
        "rows": count,
        "seconds": round(time.monotonic() - started, 3),
        "temperature": rule.temperature,
        "threshold": rule.threshold,
        "positive_label": rule.positive_label if len(rule.label_names) == 2 else None,
        "labels": {name: labels[name] for name in rule.label_names},
        "decisions": None if rule.threshold is None else {name: decisions[name] for name in rule.label_names},
    }


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def _rows(path: Path) -> int:
    with path.open("rb") as file:
        rows = sum(1 for _ in file)
    if not rows:
        raise DataError(f"{path}: no texts")
    return rows


def _json_line(text: str, said: Answer) -> bytes:
    told: dict[str, Any] = {"text": text, "label": said.label, "confidence": round(said.confidence, 6)}
    told |= {} if said.decision is None else {"decision": said.decision}
    return (json.dumps(told, ensure_ascii=False) + "\n").encode()


def _csv_row(text: str, said: Answer) -> bytes:
    cells = [text, said.label, f"{said.confidence:.6f}"]
    return _csv_line(cells if said.decision is None else [*cells, said.decision])


def _csv_line(cells: Sequence[str]) -> bytes:
    """As in the predictions of an evaluation, words always in quotes; nothing in them is changed."""
    return (",".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\n").encode()


FORMS: dict[str, Callable[[str, Answer], bytes]] = {".csv": _csv_row, ".jsonl": _json_line}
