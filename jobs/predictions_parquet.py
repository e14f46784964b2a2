"""predictions.parquet: the predictions at home, for a data frame: texts, labels, probabilities and every logit.

Owns the file's form; what may stand in predictions is `predictions`' own.  Written and read in row groups.  The
probabilities are there for readers; `load` goes by the logits, which come back to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import atomic
from jobs.errors import BrokenRun
from jobs.predictions import FIRST_COLUMNS, Predictions, logit_columns, split_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS = 16_384
CHARACTERS = 16 * 1024 * 1024
"""A row group ends where it has so many of either."""
MOST_ROWS = 20_000_000
MOST_COLUMNS = 100_000


def save(path: Path, predictions: Predictions, temperature: float | None) -> None:
    """Write text, label, predicted, confidence, probability_<label>..., logit_<model>_<label>...

    Predicted, confidence and probabilities (float64) are the main model's, after scaling by `temperature`, None for 1;
    logits are float32.  Raises OSError, NoData for zero rows.
    """
    import pyarrow as arrow
    import pyarrow.parquet

    schema, numbers = _schema(predictions), _numbers(predictions, temperature)
    names = arrow.array(predictions.label_names)
    labels = [predictions.truth, predictions.predicted(predictions.main)]
    with (
        atomic.new_file(path) as file,
        # Floats without a dictionary, which might take 0.0 and -0.0 for one.
        arrow.parquet.ParquetWriter(
            file, schema, compression="zstd", use_dictionary=["label", "predicted"], write_page_checksum=True
        ) as writer,
    ):
        for rows in _row_groups(predictions.texts):
            columns = [
                arrow.array(predictions.texts[rows], arrow.string()),
                *(names.take(arrow.array(ids[rows])) for ids in labels),
                *(arrow.array(column[rows]) for column in numbers),
            ]
            writer.write_batch(arrow.record_batch(columns, schema=schema), row_group_size=ROWS)


def load(path: Path) -> Predictions:
    """The predictions in a file.  Raises BrokenRun on anything malformed.

    Hosts send none: whoever hands on a run's folder could only fill the memory of who reads it.
    """
    import pyarrow as arrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            if file.metadata.num_rows > MOST_ROWS or file.metadata.num_columns > MOST_COLUMNS:
                raise BrokenRun(f"{path}: {file.metadata.num_rows:,} rows of {file.metadata.num_columns:,} columns")
            return _read(file, str(path))
    except (arrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise BrokenRun(f"{path}: not a readable predictions file ({said})") from error


def _schema(predictions: Predictions) -> Any:
    import pyarrow as arrow

    labels = predictions.label_names
    probabilities = ["confidence", *(f"probability_{name}" for name in labels)]
    return arrow.schema(
        [
            *((name, arrow.string()) for name in FIRST_COLUMNS),
            *((name, arrow.float64()) for name in probabilities),
            *((name, arrow.float32()) for name in logit_columns(tuple(predictions.logits), labels)),
        ]
    )


def _row_groups(texts: tuple[str, ...]) -> Iterator[slice]:
    first = characters = 0
    for row, text in enumerate(texts):
        if row > first and (row - first == ROWS or characters + len(text) > CHARACTERS):
            yield slice(first, row)
            first, characters = row, 0
        characters += len(text)
    yield slice(first, len(texts))


def _numbers(predictions: Predictions, temperature: float | None) -> list[NDArray[Any]]:
    """The columns (N,) after the words: confidence, probabilities, logits."""
    probabilities = predictions.probabilities(predictions.main, temperature)
    logits = np.concatenate(list(predictions.logits.values()), axis=1)
    return [probabilities.max(axis=1), *probabilities.T.copy(), *logits.T.copy()]


def _read(file: Any, origin: str) -> Predictions:
    import pyarrow as arrow

    columns = [name for name in file.schema_arrow.names if not name.startswith(("confidence", "probability_"))]
    models, labels = split_header(columns, origin)
    for name in columns:
        kind = file.schema_arrow.field(name).type
        if kind != (arrow.string() if name in FIRST_COLUMNS else arrow.float32()):
            raise BrokenRun(f"{origin}: column {ascii(name)[:80]} holds {kind}")
    index = {name: number for number, name in enumerate(labels)}
    texts: list[str] = []
    truth, numbers = [], []
    for batch in file.iter_batches(batch_size=ROWS, columns=columns):
        if any(column.null_count for column in batch.columns):
            raise BrokenRun(f"{origin}: a cell is empty in the rows from {len(texts) + 1}")
        texts += batch.column("text").to_pylist()
        truth.append(_indices(batch.column("label").to_pylist(), index, origin))
        numbers.append(np.stack([batch.column(name).to_numpy() for name in columns[len(FIRST_COLUMNS) :]], axis=1))
    if len(texts) != file.metadata.num_rows:
        raise BrokenRun(f"{origin}: {len(texts):,} rows where {file.metadata.num_rows:,} are announced")
    classes = len(labels)
    together = np.concatenate(numbers) if numbers else np.zeros((0, len(models) * classes), np.float32)
    logits = {model: together[:, i * classes : (i + 1) * classes].copy() for i, model in enumerate(models)}
    try:
        return Predictions(labels, tuple(texts), np.concatenate(truth) if truth else np.zeros(0, np.int64), logits)
    except BrokenRun as error:
        raise BrokenRun(f"{origin}: {error.message}") from error


def _indices(names: list[str], index: dict[str, int], origin: str) -> NDArray[np.int64]:
    try:
        return np.array([index[name] for name in names], np.int64)
    except KeyError as error:
        raise BrokenRun(f"{origin}: unknown label {ascii(error.args[0])[:80]}") from error
