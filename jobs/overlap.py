"""overlap.jsonl: the test rows that are nearly a training row, with that row's text and label.

Found on the host, where the training rows are, and sent home.  Owns the file's form; what an overlap says about a
model stands in `mistakes`.  The file may come from anybody, so `load` trusts no byte of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import atomic, near_duplicates
from jobs.data import Split
from jobs.errors import BrokenRun

MAX_TEXT_CHARS = 1000
"""Of a training text; what is longer ends in an ellipsis."""
_KEYS = {"row", "text", "label"}


@dataclass(frozen=True)
class Twin:
    """A training row that is nearly a test row; the text is cut to MAX_TEXT_CHARS."""

    text: str
    label: str


@dataclass(frozen=True)
class Overlap:
    """The twin of every test row that has one, by the row's number from 0, in order."""

    twins: Mapping[int, Twin]

    def of(self, rows: NDArray[np.int64]) -> Overlap:
        """The overlap of a part of the rows, (M,) numbers of them, counted anew."""
        chosen = enumerate(rows.tolist())
        return Overlap({place: self.twins[row] for place, row in chosen if row in self.twins})

    def save(self, path: Path) -> None:
        """One JSON object a line: {row, text, label}; no line where no row has a twin.  Raises OSError."""
        with atomic.new_file(path) as file:
            for row, twin in self.twins.items():
                line = {"row": row, "text": twin.text, "label": twin.label}
                file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())


def find(train: Split, test_texts: Sequence[str], label_names: Sequence[str]) -> Overlap:
    """The twins of the test texts: a row that is the same when folded, else one that is nearly the same.

    Of several that are the same when folded the label is the most frequent one.  Near duplicates are those of
    `near_duplicates`, so that short texts have none, and where half of the texts are one template some are missed.
    """
    of_train, of_test = near_duplicates.signatures(train.texts), near_duplicates.signatures(test_texts)
    found = _same(of_test.keys, of_train.keys, train.label_ids)
    found |= dict(near_duplicates.pairs(test_texts, of_test, train.texts, of_train))
    return Overlap(
        {row: Twin(_cut(train.texts[found[row]]), label_names[train.label_ids[found[row]]]) for row in sorted(found)}
    )


def load(path: Path, rows: int, label_names: Sequence[str]) -> Overlap | None:
    """The overlap of `rows` test rows, None where the run has no such file (an earlier version trained it).

    Raises BrokenRun on anything malformed.
    """
    if not path.exists():
        return None
    twins: dict[int, Twin] = {}
    names = frozenset(label_names)
    # A character takes at most six bytes, as \u001f.
    longest = 6 * (MAX_TEXT_CHARS + max(map(len, names), default=0)) + 200
    try:
        with path.open("rb") as file:
            while line := file.readline(longest + 1):
                place = f"{path}, line {len(twins) + 1}"
                if len(line) > longest:
                    raise BrokenRun(f"{place}: longer than {longest:,} bytes")
                row, twin = _parsed(line, names, place)
                if not (next(reversed(twins), -1) < row < rows):
                    raise BrokenRun(f"{place}: row {row} of {rows:,}; rows must rise from 0")
                twins[row] = twin
    except OSError as error:
        raise BrokenRun(f"{path}: not readable ({error})") from error
    return Overlap(twins)


def _same(keys: NDArray[np.uint64], train_keys: NDArray[np.uint64], label_ids: NDArray[np.int64]) -> dict[int, int]:
    """(test row: training row) of those with equal keys; of several the first with the most frequent label."""
    labels = int(label_ids.max()) + 1
    distinct, of_row = np.unique(train_keys, return_inverse=True)
    pairs, first, counts = np.unique(of_row * labels + label_ids, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts, pairs // labels))
    chosen = first[order[np.unique(pairs[order] // labels, return_index=True)[1]]]  # a training row of every key
    place = np.minimum(np.searchsorted(distinct, keys), len(distinct) - 1)
    return {int(row): int(chosen[place[row]]) for row in np.flatnonzero(distinct[place] == keys)}


def _parsed(line: bytes, names: frozenset[str], place: str) -> tuple[int, Twin]:
    try:
        document: Any = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BrokenRun(f"{place}: not JSON in UTF-8 ({type(error).__name__})") from error
    match document:
        case {"row": int(row), "text": str(text), "label": str(label)} if (
            document.keys() == _KEYS and not isinstance(row, bool) and label in names
        ):
            if len(text) <= MAX_TEXT_CHARS and "\0" not in text and not _has_half_characters(text):
                return row, Twin(text, label)
    raise BrokenRun(f"{place}: not the row, text and label of a training row")


def _has_half_characters(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
