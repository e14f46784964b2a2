"""Texts with labels from CSV files, split in train, validation and test.

Owns what a readable data file is and says where one is not, by file, line and column; knows nothing of models.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.errors import DataError
from jobs.manifest import sha256_of
from jobs.submission import Submission

LARGEST_FIELD = 2**31 - 1
"""Characters in one field; the csv module's own limit of 131,072 is shorter than some documents."""


@dataclass(frozen=True)
class Rows:
    """One data file as read: N texts and their N labels, in the order of the file."""

    texts: list[str]
    labels: list[str]


@dataclass(frozen=True)
class Split:
    """N texts and label_ids (N,) int64, indices into the label names."""

    texts: list[str]
    label_ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Splits:
    """The three parts of the data; `label_names` are sorted, and every one of them occurs in train."""

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
    rows: dict[str, Rows] = {}
    origins: dict[str, str] = {}
    for name, entry in submission.inputs.items():
        path = root / entry.path
        rows[name] = read_rows(path, submission.spec.text_column, submission.spec.label_column)
        if sha256_of(path) != entry.sha256:
            raise DataError(f"{path}: not the file that was submitted (sha256 differs)", hint="submit the run again")
        origins[name] = path.name
    if "file" in rows:
        origins = {name: f"{origins['file']} ({name} split)" for name in ("train", "validation", "test")}
        rows = split_by_hash(rows["file"])
    return with_label_ids(rows, origins)


def read_rows(path: Path, text_column: str, label_column: str) -> Rows:
    """Texts and labels of one CSV file with a header: UTF-8 (a BOM is allowed), comma-separated, quoted as RFC 4180.

    Labels and column names are stripped, texts are kept as they are and may be empty.  Raises DataError.
    """
    csv.field_size_limit(LARGEST_FIELD)
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    texts: list[str] = []
    labels: list[str] = []
    try:
        header = [column.strip() for column in next(reader, [])]
        text_at = _position(path, header, text_column)
        label_at = _position(path, header, label_column)
        line = reader.line_num + 1  # a quoted field may hold line ends, so a row begins where the last one ended
        for row in reader:
            if row and len(row) != len(header):
                raise DataError(
                    f"{path}: line {line}: {len(row)} fields, the header has {len(header)}",
                    hint='put a field that holds a comma or a line end in "double quotes"',
                )
            if row:  # the csv module gives [] for a blank line
                texts.append(row[text_at])
                labels.append(row[label_at].strip())
                if not labels[-1]:
                    raise DataError(f"{path}: line {line}: column {label_column!r} is empty", hint="label or drop it")
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV: {error}", hint='is a " left open?') from error
    if not texts:
        raise DataError(f"{path}: no rows below the header")
    return Rows(texts, labels)


def split_by_hash(rows: Rows) -> dict[str, Rows]:
    """80/10/10 by sha256 of the text mod 100: a text never changes sides, and equal texts lie on the same side."""
    parts: dict[str, Rows] = {name: Rows([], []) for name in ("train", "validation", "test")}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        bucket = int(hashlib.sha256(text.encode("utf-8")).hexdigest(), 16) % 100
        part = parts["train" if bucket < 80 else "validation" if bucket < 90 else "test"]
        part.texts.append(text)
        part.labels.append(label)
    return parts


def with_label_ids(rows: dict[str, Rows], origins: dict[str, str]) -> Splits:
    """Labels as indices into the sorted names of train's labels.  Raises DataError, calling splits by `origins`."""
    label_names = tuple(sorted(set(rows["train"].labels)))
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
                f"{origins[name]}: labels that train has not: {listed}", hint=f"train has {_listed(label_names)}"
            )
    splits = {name: Split(part.texts, _indices(part.labels, ids)) for name, part in rows.items()}
    return Splits(label_names, splits["train"], splits["validation"], splits["test"])


def _indices(labels: Iterable[str], ids: dict[str, int]) -> NDArray[np.int64]:
    return np.array([ids[label] for label in labels], dtype=np.int64)


def _decoded(path: Path) -> str:
    """The file's text without BOM.  Raises DataError naming the line of the first bad byte."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: line {line}: byte 0x{content[error.start]:02x} is not UTF-8",
            hint="save the file as UTF-8 (in Excel: 'CSV UTF-8')",
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line}: a NUL character", hint="is this UTF-16, or a damaged file?")
    return text


def _position(path: Path, header: Sequence[str], column: str) -> int:
    """Where `column` stands in the header.  Raises DataError with the columns there are."""
    found = [index for index, name in enumerate(header) if name == column]
    if len(found) == 1:
        return found[0]
    what = f"no column {column!r}" if not found else f"column {column!r} stands there {len(found)} times"
    raise DataError(
        f"{path}: line 1: {what}; columns: {_listed(header) or 'none'}",
        hint="set text_column and label_column in the spec; fields are separated by commas",
    )


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
