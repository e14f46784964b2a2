"""The environments of a host, for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.overview import PIPE_COLUMNS, age
from launcher.untrusted import clean
from remote.environments import Environment, Removed

if TYPE_CHECKING:
    from rich.console import Console

MB = 1e6


def render(found: Sequence[Environment], host: str, console: Console) -> None:
    """The table, one line an environment, and what they take together."""
    from rich.table import Table

    if not found:
        console.print(f"no environments on {host}; the first run makes one, or: launch env prepare {host}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("KEY", "STATE", "SIZE", "LAST USED", "USED BY", "PYTHON"):
        table.add_column(column, no_wrap=column != "PYTHON", overflow="fold")
    for one in found:
        state = f"{one.state}, {one.how}" if one.how else one.state
        users = ", ".join(one.used_by) or "nobody"
        table.add_row(
            *map(clean, (one.key, state, f"{one.size_bytes / MB:,.0f} MB", _idle(one.idle_s), users, one.base))
        )
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    console.print(table)
    total = sum(one.size_bytes for one in found)
    console.print(f"{total / MB:,.0f} MB; what nobody used for a week goes with: launch clean {host}")


def in_words(removed: Removed, host: str, keys: Sequence[str]) -> str:
    """What a removal did."""
    said = [f"removed {', '.join(keys)} from {host}, {removed.freed_bytes / MB:,.0f} MB freed", *removed.errors]
    return clean("\n".join(said))


def _idle(seconds: float | None) -> str:
    return f"{age(seconds)} ago" if seconds is not None else "never"
