"""Texts with labels out of Parquet, and out of any other columns that Arrow holds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs.errors import DataError
from jobs.table import Rows, Table, position

MISSING = 'pip install "lora-launch[data]"'
BATCH_ROWS = 16_384


def read(path: Path, text_column: str, label_column: str) -> Table:
    """The rows of one file.  Raises DataError, also where pyarrow is missing."""
    with _opened(path) as file:
        schema = file.schema_arrow
        for column in (text_column, label_column):
            position(path, schema.names, column)
        batches = file.iter_batches(batch_size=BATCH_ROWS, columns=[text_column, label_column])
        names = class_names(schema.metadata or {}, label_column)
        return rows_of(str(path), batches, text_column, label_column, names)


def texts(path: Path, text_column: str) -> Iterator[Any]:
    """What stands in the column of one file, as it is read.  Raises DataError, also where pyarrow is missing."""
    with _opened(path) as file:
        position(path, file.schema_arrow.names, text_column, "name the column of the texts: --text-column")
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[text_column]):
            column = batch.column(text_column)
            _require_texts(str(path), text_column, column)
            yield from column.to_pylist()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet takes pyarrow ({error})", hint=MISSING) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not readable as Parquet: {said}", hint="is the file whole?") from error


def _require_texts(origin: str, text_column: str, texts: Any) -> None:
    if str(texts.type).startswith(("int", "uint", "float", "double", "decimal", "timestamp")):
        raise DataError(f"{origin}: column {text_column!r} holds {texts.type}, not text", hint="set text_column")


def rows_of(
    origin: str, batches: Iterable[Any], text_column: str, label_column: str, names: Sequence[str] = ()
) -> Table:
    """The rows of Arrow batches; labels that are numbers of classes with `names` become these.  Raises DataError."""
    rows = Rows(origin, text_column, label_column, "row")
    for batch in batches:
        texts, labels = batch.column(text_column), batch.column(label_column)
        if not rows.texts:
            _require_texts(origin, text_column, texts)
        for text, label in zip(texts.to_pylist(), labels.to_pylist(), strict=True):
            number = len(rows.texts) + 1
            if names and isinstance(label, int):
                if not 0 <= label < len(names):
                    raise rows.fault(number, f"column {label_column!r} is {label}, of {len(names)} classes", "drop it")
                label = names[label]
            rows.add(number, text, label)
    return rows.table()


def class_names(metadata: Mapping[bytes, bytes], label_column: str) -> Sequence[str]:
    """Names of the classes, as `datasets` notes them in the files it writes; empty where nobody did."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label_column]
        names = feature["names"] if feature["_type"] == "ClassLabel" else []
    except (KeyError, TypeError, ValueError):
        return ()
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()
