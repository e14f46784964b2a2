"""Lines of a run's log, for people."""

from __future__ import annotations

from typing import Any


def say(line: str) -> None:
    """One line of the run's log."""
    print(line, flush=True)


def in_words(values: dict[str, Any]) -> str:
    """`rows 1,000, loss 0.3500`."""
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4f}" for name, value in values.items()
    )
