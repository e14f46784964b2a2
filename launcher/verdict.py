"""A verification's verdict: what it means for the command, and how it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.errors import VerificationFailed
from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

MOST_REASONS = 20
LONGEST_REASON = 1000
STYLES = {"pass": "green", "warn": "yellow", "fail": "red", "not_checked": "dim"}


def check(run_id: str, verdict: dict[str, Any]) -> None:
    """Raise VerificationFailed, with the failed checks in words, unless the verdict is ok."""
    if verdict["ok"]:
        return
    todo = next((one["todo"] for one in _unmet(verdict["checks"]) if one["todo"]), "launch pull again, or train again")
    message = "\n".join([f"{run_id}: do not use this adapter", *reasons(verdict["checks"])])
    raise VerificationFailed(message, hint=todo, data=verdict)


def reasons(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each check that spoils the verdict; the checks may be a host's."""
    unmet = _unmet(checks)
    # What was not checked because another check failed before it is only counted: the cause must not drown.
    told = [one for one in unmet if one["status"] == "fail"][:MOST_REASONS] or unmet[:MOST_REASONS]
    lines = ["  - " + _one_line(f"{_place(one)}{one['id']}: {one['detail']}. {one['meaning']}") for one in told]
    if silent := len(unmet) - len(told):
        lines.append(f"  - {silent} more could not be checked after that")
    return lines


def _unmet(checks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in checks if one["required"] and one["status"] != "pass"]


def _place(check: Mapping[str, Any]) -> str:
    """Which of several adapters a check is of."""
    return f"{clean(check['adapter'])}: " if "adapter" in check else ""


def _one_line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_REASON]


def render(run_id: str, verdict: dict[str, Any], console: Console) -> None:
    """The checks, one line each, and the level."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in verdict["checks"]:
        table.add_row(
            one["status"].replace("_", " "),
            _place(one) + one["id"],
            clean(one["detail"]),
            style=STYLES.get(one["status"], ""),
        )
    console.print(table)
    statuses = [one["status"] for one in verdict["checks"]]
    unknown = f", {silent} not checked" if (silent := statuses.count("not_checked")) else ""
    console.print(f"{run_id}: ok ({verdict['level']}; {statuses.count('pass')} passed{unknown})", style="bold")
