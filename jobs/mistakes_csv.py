"""errors.csv: every row that a model got wrong, for a spreadsheet; made to be looked at, not to be read back.

UTF-8 with a byte order mark, without which Excel takes Chinese for another encoding.  A cell that a spreadsheet would
read as a formula (it begins with = + - @, behind whitespace or as full-width characters, too, and is no number) gets a
leading apostrophe; texts are cut to what a cell of Excel holds.  Texts as they are stand in predictions.parquet.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs import atomic

COLUMNS = (
    "row", "label", "said", "confidence", "groups", "likely_wrong_label", "why", "near_duplicate",
    "near_duplicate_label", "text",
)  # fmt: skip
MAX_CELL_CHARS = 32_000
"""Excel cuts a cell at 32,767 and goes on in the next row."""
_FORMULA = re.compile(r"[\s\ufeff\u200b]*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?\Z")


def save(path: Path, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> None:
    """Write the `rows` of `mistakes.errors`, in their order; `texts` are those of all rows.  Raises OSError."""
    with atomic.new_file(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        writer = csv.writer(lines, lineterminator="\r\n")
        writer.writerow(COLUMNS)
        for row in rows:
            twin = row["near_duplicate"] or {"text": "", "label": ""}
            words = (row["why"] or "", twin["text"], twin["label"], texts[row["row"]])
            labels = (_cell(row["label"]), _cell(row["said"]))
            suspect = "yes" if row["likely_wrong_label"] else ""
            known = (row["row"], *labels, f"{row['confidence']:.4f}", "; ".join(row["groups"]), suspect)
            writer.writerow((*known, *map(_cell, words)))
        lines.detach()  # flushed, and open for whoever made it


def _cell(text: str) -> str:
    if _FORMULA.match(text) and not _NUMBER.match(text):
        text = "'" + text
    return text if len(text) <= MAX_CELL_CHARS else text[: MAX_CELL_CHARS - 1] + "…"
