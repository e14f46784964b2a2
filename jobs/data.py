"""The data of a run: texts with labels, in train, validation and test; knows nothing of models."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import table
from jobs.errors import DataError
from jobs.label import in_order
from jobs.manifest import sha256_of
from jobs.spec import SPLITS
from jobs.submission import Submission
from jobs.table import Table


@dataclass(frozen=True)
class Split:
    """N texts and label_ids (N,) int64, indices into the label names."""

    texts: list[str]
    label_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Splits:
    """The three parts of the data; `label_names` are in order, and every one of them occurs in train."""

    label_names: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @property
    def positive_label(self) -> str | None:
        """The class that binary metrics call positive, the second of two; None where there are more."""
        return self.label_names[1] if len(self.label_names) == 2 else None

    def named(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}


def load_splits(root: Path, submission: Submission) -> Splits:
    """The data of the run in the folder `root`.

    Raises DataError when a file can't be read or is not the one that was submitted, when train has fewer than two
    classes, and when a split is empty or has a label that train has not.
    """
    rows: dict[str, Table] = {}
    origins: dict[str, str] = {}
    for name, entry in submission.inputs.items():
        path = root / entry.path
        rows[name] = table.read(path, *_input_columns(submission))
        if sha256_of(path) != entry.sha256:
            raise DataError(f"{path}: not the file that was submitted (sha256 differs)", hint="submit the run again")
        origins[name] = path.name
    if "file" in rows:
        origins = {name: f"{origins['file']} ({name} split)" for name in SPLITS}
        rows = split_by_first_rule(rows["file"])
    return with_label_ids(rows, origins)


def _input_columns(submission: Submission) -> tuple[str, str]:
    """The columns of a run's inputs.  With protocol 1 they were the person's own CSV files."""
    if submission.protocol == 1:
        return submission.spec.text_column, submission.spec.label_column
    return table.TEXT, table.LABEL


def split_by_first_rule(rows: Table) -> dict[str, Table]:
    """What protocol 1 made of one `file`: 80/10/10 by sha256 of the text mod 100.  Newer runs: see `hash_split`."""
    parts = {name: Table([], []) for name in SPLITS}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        bucket = int(hashlib.sha256(text.encode("utf-8")).hexdigest(), 16) % 100
        part = parts["train" if bucket < 80 else "validation" if bucket < 90 else "test"]
        part.texts.append(text)
        part.labels.append(label)
    return parts


def with_label_ids(rows: dict[str, Table], origins: dict[str, str]) -> Splits:
    """Labels as indices into the names of train's labels in order.  Raises DataError, calling splits by `origins`."""
    label_names = in_order(rows["train"].labels)
    if len(label_names) < 2:
        only = f"only {label_names[0]!r}" if label_names else "no rows"
        raise DataError(f"{origins['train']}: {only}; training needs at least two classes")
    ids = {label: index for index, label in enumerate(label_names)}
    for name, part in rows.items():
        if not part.texts:
            raise DataError(f"{origins[name]}: no rows", hint="more rows, or a file for each split")
        unseen = Counter(label for label in part.labels if label not in ids)
        if unseen:
            listed = ", ".join(f"{label!r} ({count} rows)" for label, count in unseen.most_common(5))
            raise DataError(
                f"{origins[name]}: labels that train has not: {listed}", hint=f"train has {table.listed(label_names)}"
            )
    splits = {name: Split(part.texts, _indices(part.labels, ids)) for name, part in rows.items()}
    return Splits(label_names, splits["train"], splits["validation"], splits["test"])


def _indices(labels: Iterable[str], ids: dict[str, int]) -> NDArray[np.int64]:
    return np.array([ids[label] for label in labels], dtype=np.int64)
