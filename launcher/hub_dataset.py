"""Texts with labels out of a dataset of the Hugging Face Hub, by the `datasets` library, which runs no code from there.

HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME and a token that lies there are honoured by that library.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import parquet, table
from jobs.errors import DataError
from jobs.provenance import COMMIT
from jobs.table import Table

SPLIT_NAMES = {"train": "train", "test": "test", "validation": "validation", "valid": "validation",
               "val": "validation", "dev": "validation"}  # fmt: skip


@dataclass(frozen=True)
class HubDataset:
    """Tables by train, validation and test, or as `file` where the dataset has one part only; `ignored` are others."""

    tables: dict[str, Table]
    commit: str
    ignored: tuple[str, ...]


def load(name: str, config: str, revision: str, text_column: str, label_column: str) -> HubDataset:
    """The dataset, fetched or from the cache of this machine.  Raises DataError."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(f"{name}: a dataset of the Hub takes `datasets` ({error})", hint=parquet.MISSING) from error
    if Path(name).exists():  # that library would take it for the dataset
        raise DataError(f"{name}: a dataset of the Hub, and a path here", hint="call launch from another folder")
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        builder = datasets.load_dataset_builder(name, config or None, revision=revision or None)
        builder.download_and_prepare()
        parts: Any = builder.as_dataset()
    except Exception as error:  # whatever that library and those below it raise
        said = " ".join(str(error).split())[:500] or type(error).__name__
        raise DataError(
            f"the dataset {name} of the Hub can't be loaded: {said}",
            hint=f"hf download --repo-type dataset {name}; or name a file: data: FILE",
        ) from error
    tables: dict[str, Table] = {}
    ignored: list[str] = []
    for split, rows in parts.items():
        known = "file" if len(parts) == 1 else SPLIT_NAMES.get(str(split))
        if known is None or known in tables or _hides_labels(rows, label_column):
            ignored.append(str(split))
        else:
            tables[known] = _table(f"{name}, split {split}", rows, text_column, label_column)
    if not {"file", "train"} & tables.keys():
        raise DataError(
            f"the dataset {name} has no train split with labels, but {', '.join(map(str, parts))}", hint="data: FILE"
        )
    return HubDataset(tables, builder.hash if COMMIT.match(builder.hash or "") else "", tuple(ignored))


def _table(origin: str, rows: Any, text_column: str, label_column: str) -> Table:
    for column in (text_column, label_column):
        table.position(origin, rows.column_names, column)
    feature = rows.features[label_column]
    names = getattr(feature, "names", None) or ()
    batches = rows.select_columns([text_column, label_column]).with_format("arrow").iter(parquet.BATCH_ROWS)
    return parquet.rows_of(origin, batches, text_column, label_column, names)


def _hides_labels(rows: Any, label_column: str) -> bool:
    """Whether this is the test split of a contest, where every label is -1."""
    if label_column not in rows.column_names or getattr(rows.features[label_column], "names", None) is None:
        return False
    return set(rows.unique(label_column)) == {-1}
