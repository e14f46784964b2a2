"""predictions.csv: the texts of a test set, their labels, and every model's logits.

Owns the file's form and what may stand in it; knows nothing of how good they are.  The file may come from anybody, so
`load` trusts no byte of it.

Cells that a spreadsheet would read as formulas (`=1+1`, `@cmd`) are stored as they are: a marker in front
would change the text for every other reader, and would protect nobody from a file that a hostile host wrote
without it.  Import the file into a spreadsheet with its columns as text.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import atomic
from jobs.errors import BrokenRun
from jobs.temperature import probabilities

MODEL_TITLES = {
    "majority": "Majority class",
    "frozen_head": "Frozen base + trained head",
    "tfidf": "TF-IDF (char 1-3) + logistic regression",
    "lora": "LoRA adapter",
}
"""Every model that can stand in the file, in the order of display.

Closed, because `logit_<model>_<label>` could otherwise be cut in two places.
"""

MAX_TEXT_CHARS = 16 * 1024 * 1024
FIRST_COLUMNS = ["text", "label", "predicted"]
# float() alone would also take `nan`, `1_000`, spaces and the digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]{1,64}(?:\.[0-9]{1,64})?(?:e[+-]?[0-9]{1,4})?\Z")


@dataclass(frozen=True, eq=False)
class Predictions:
    """N labelled texts and the logits of one model or more.

    truth (N,) int64, index into label_names; logits: model key (of MODEL_TITLES) -> (N, C) float32, finite,
    column c for label_names[c].  Raises BrokenRun where the parts do not fit together.
    """

    label_names: tuple[str, ...]
    texts: tuple[str, ...]
    truth: npt.NDArray[np.int64]
    logits: dict[str, npt.NDArray[np.float32]]

    def __post_init__(self) -> None:
        _check_labels(self.label_names)
        for row, text in enumerate(self.texts):
            _check_text(text, f"text {row + 1}")
        rows, classes = len(self.texts), len(self.label_names)
        if self.truth.dtype != np.int64 or self.truth.shape != (rows,):
            raise BrokenRun(f"predictions: truth must be int64 of shape ({rows},), not {_shape(self.truth)}")
        if rows and not 0 <= self.truth.min() <= self.truth.max() < classes:
            raise BrokenRun(f"predictions: truth must index the {classes} labels")
        if not self.logits or set(self.logits) - set(MODEL_TITLES):
            allowed = ", ".join(MODEL_TITLES)
            raise BrokenRun(f"predictions: models must be of {allowed}, not {_quoted(list(self.logits))}")
        for model, logits in self.logits.items():
            if logits.dtype != np.float32 or logits.shape != (rows, classes):
                expected = f"float32 of shape ({rows}, {classes})"
                raise BrokenRun(f"predictions: logits of {model} must be {expected}, not {_shape(logits)}")
            if not np.isfinite(logits).all():
                bad = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
                raise BrokenRun(f"predictions: {model} has NaN or infinite logits (first in row {bad + 1})")

    @property
    def rows(self) -> int:
        return len(self.texts)

    @property
    def main(self) -> str:
        """The model the file is about: `lora` where it is, else the first."""
        return "lora" if "lora" in self.logits else next(iter(self.logits))

    def predicted(self, model: str) -> npt.NDArray[np.int64]:
        """(N,) index of the largest logit; the first of equals."""
        return np.asarray(self.logits[model].argmax(axis=1), np.int64)

    def probabilities(self, model: str, temperature: float | None = None) -> npt.NDArray[np.float64]:
        """(N, C) float64 after scaling: softmax of the logits divided by `temperature`, None for 1.

        Raises NoData for zero rows.
        """
        return probabilities(self.logits[model], temperature)

    def save(self, path: Path) -> None:
        """Write one CSV: text, label, predicted (by `main`), then logit_<model>_<label>.

        UTF-8, lines end in LF, words always quoted, numbers as %.9g (enough for every fp32 to come back
        exactly).  The same predictions give the same bytes.
        """
        names = [_quote(name) for name in self.label_names]
        numbers = np.concatenate(list(self.logits.values()), axis=1)
        template = ",".join(["%.9g"] * numbers.shape[1])
        rows = zip(self.texts, self.truth.tolist(), self.predicted(self.main).tolist(), numbers, strict=True)
        with atomic.new_file(path) as file:
            header = FIRST_COLUMNS + logit_columns(tuple(self.logits), self.label_names)
            file.write((",".join(_quote(column) for column in header) + "\n").encode())
            for text, truth, predicted, values in rows:
                words = f"{_quote(text)},{names[truth]},{names[predicted]}"
                file.write(f"{words},{template % tuple(values.tolist())}\n".encode())


def load(path: Path) -> Predictions:
    """The predictions in a file from anywhere.  Raises BrokenRun on anything malformed."""
    # The csv module's limit is global to the process; it is only ever raised, so that threads agree.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT_CHARS))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return _parse(csv.reader(file, strict=True), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BrokenRun(f"{path}: not a readable predictions file ({error})") from error


def _parse(reader: Any, origin: str) -> Predictions:
    """Predictions from a csv.reader."""
    header: list[str] = next(reader, [])
    models, labels = split_header(header, origin)
    index = {label: number for number, label in enumerate(labels)}
    texts: list[str] = []
    truth, predicted, numbers = array("q"), array("q"), array("d")
    for row in reader:
        place = f"{origin}, line {reader.line_num}"
        if len(row) != len(header):
            raise BrokenRun(f"{place}: {len(row)} columns, the header has {len(header)}")
        for name in row[1:3]:
            if name not in index:
                raise BrokenRun(f"{place}: unknown label {_quoted(name)}, not of {_quoted(list(labels))}")
        texts.append(_check_text(row[0], place))
        truth.append(index[row[1]])
        predicted.append(index[row[2]])
        numbers.extend(_numbers(row[3:], place))
    logits = _logits(numbers, models, len(labels), origin)
    try:
        loaded = Predictions(labels, tuple(texts), np.array(truth, np.int64), logits)
    except BrokenRun as error:
        raise BrokenRun(f"{origin}: {error.message}") from error
    differing = np.flatnonzero(loaded.predicted(loaded.main) != np.array(predicted, np.int64))
    if differing.size:
        place = f"{origin}, row {differing[0] + 1}"
        raise BrokenRun(f"{place}: `predicted` is not the label of the largest {loaded.main} logit")
    return loaded


def split_header(header: Sequence[str], origin: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The models and the label names that a header speaks of, each in its order.  Raises BrokenRun."""
    if len(set(header)) != len(header):
        twice = next(column for column in header if header.count(column) > 1)
        raise BrokenRun(f"{origin}: two columns named {_quoted(twice)}")
    labels: dict[str, list[str]] = {}
    for column in header[3:]:
        model = next((key for key in MODEL_TITLES if column.startswith(f"logit_{key}_")), "")
        if not model:
            raise BrokenRun(f"{origin}: unknown column {_quoted(column)}")
        labels.setdefault(model, []).append(column.removeprefix(f"logit_{model}_"))
    names = tuple(next(iter(labels.values()), []))
    if not labels or list(header) != FIRST_COLUMNS + logit_columns(tuple(labels), names):
        order = "text, label, predicted, then each model's logits for the same labels in the same order"
        raise BrokenRun(f"{origin}: the columns must be {order}")
    return tuple(labels), names


def logit_columns(models: tuple[str, ...], labels: tuple[str, ...]) -> list[str]:
    """The names of the columns of logits: every label of the first model, then of the next."""
    return [f"logit_{model}_{label}" for model in models for label in labels]


def _numbers(fields: Sequence[str], place: str) -> Iterator[float]:
    for field in fields:
        if not _NUMBER.match(field):
            raise BrokenRun(f"{place}: not a finite number: {_quoted(field)}")
        yield float(field)


def _logits(
    numbers: array[float], models: tuple[str, ...], classes: int, origin: str
) -> dict[str, npt.NDArray[np.float32]]:
    with np.errstate(over="ignore"):
        values = np.array(numbers, np.float64).astype(np.float32).reshape(-1, len(models) * classes)
    if not np.isfinite(values).all():
        raise BrokenRun(f"{origin}: a number is too large for fp32")
    return {model: values[:, i * classes : (i + 1) * classes].copy() for i, model in enumerate(models)}


def _check_labels(names: tuple[str, ...]) -> None:
    if len(names) < 2 or len(set(names)) != len(names) or "" in names:
        raise BrokenRun(f"predictions: at least two different labels are needed, not {_quoted(list(names))}")
    for name in names:
        _check_text(name, "label name")


def _check_text(text: str, place: str) -> str:
    if "\0" in text or len(text) > MAX_TEXT_CHARS:
        raise BrokenRun(f"{place}: a NUL character, or longer than {MAX_TEXT_CHARS:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BrokenRun(f"{place}: half a surrogate pair, which UTF-8 can't hold") from error
    return text


def _quote(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _quoted(value: object) -> str:
    """`value` for a message: control characters escaped, never longer than a line."""
    shown = ascii(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _shape(values: npt.NDArray[Any]) -> str:
    return f"{values.dtype} of shape {values.shape}"
