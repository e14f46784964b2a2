"""What can be found in the data: one thing that is not as it should be, and whether it stops a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"
UNTRAINABLE = ("no_rows", "one_class", "unknown_label", "labels_unfit")
"""Errors that can't be passed over: a training would end with them."""


@dataclass(frozen=True)
class Example:
    """A row that shows what is meant: its split, its number in it from 1 on, its text (shortened), its label."""

    split: str
    row: int
    text: str
    label: str


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: in how many rows, which for example, and what to do."""

    code: str
    severity: str
    what: str
    todo: str
    count: int
    examples: tuple[Example, ...] = ()

    @property
    def is_error(self) -> bool:
        return self.severity == ERROR


def stopping(findings: Sequence[Finding], *, force: bool = False) -> list[Finding]:
    """The errors that keep a run from being sent; with `force` only those with which no training could go on."""
    return [one for one in findings if one.is_error and (not force or one.code in UNTRAINABLE)]
