"""The name of a class: one word for what CSV, JSON, Parquet and pandas write differently, and the order of names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# A column of whole numbers with a gap is written as 1.0 and 0.0 by pandas.
_WHOLE = re.compile(r"-?\d{1,15}\.0+\Z")
_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?\Z")
_NO_LABEL = {"nan", "NaN", "<NA>"}
INVISIBLE = "\ufeff\u200b"
"""What stands before the first word of a file that others were appended to, and can't be seen."""


def label_of(value: Any) -> str:
    """The label in a cell, "" where there is none (empty, null, NaN).  Raises TypeError for what is no label.

    Whole numbers are written as such (1.0 is 1), booleans as True and False, as pandas writes them into a CSV.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        name = value.strip().strip(INVISIBLE).strip()
        if _WHOLE.match(name):
            return str(int(float(name)))
        return "" if name in _NO_LABEL else name
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    raise TypeError(f"a {type(value).__name__} is no label")


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """The names without repeats: numbers first, by their value (2 before 10), then words."""
    return tuple(sorted(set(names), key=_order))


def _order(name: str) -> tuple[bool, float, str]:
    is_number = _NUMBER.match(name) is not None
    return (not is_number, float(name) if is_number else 0.0, name)
