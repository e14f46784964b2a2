"""What long operations tell while they go on: frozen events, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Note:
    """Something a person may want to know, in a sentence."""

    text: str


@dataclass(frozen=True)
class LogPiece:
    """A piece of a run's log, untrusted, not necessarily whole lines."""

    text: str


@dataclass(frozen=True)
class RunNews:
    """A typed event of a run: `kind` is state, step, eval, warning, ...; the fields are untrusted."""

    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Transfer:
    """How far a transfer is, in bytes of content."""

    done_bytes: int
    total_bytes: int
    files: int


@dataclass(frozen=True)
class RunAge:
    """How many seconds ago the run was submitted, by its host's clock."""

    seconds: float


@dataclass(frozen=True)
class Inferring:
    """How many texts a model has answered, of how many (None: nobody knows); `what` names the model's run."""

    done: int
    total: int | None
    what: str


Progress = Note | LogPiece | RunNews | Transfer | RunAge | Inferring
Observer = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """The observer that does not look."""
