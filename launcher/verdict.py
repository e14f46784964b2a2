"""A verification's verdict: what it means for the command, and how it looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.errors import VerificationFailed
from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"pass": "green", "warn": "yellow", "fail": "red", "not_checked": "dim"}


def check(run_id: str, verdict: dict[str, Any]) -> None:
    """Raise VerificationFailed, with the failed checks in words, unless the verdict is ok."""
    if verdict["ok"]:
        return
    failed = [one for one in verdict["checks"] if one["required"] and one["status"] != "pass"]
    # What was not checked because another check failed before it is only counted: the cause must not drown.
    told = [one for one in failed if one["status"] == "fail"] or failed
    lines = [f"  - {one['id']}: {one['detail']}. {one['meaning']}" for one in told]
    if silent := len(failed) - len(told):
        lines.append(f"  - {silent} more could not be checked after that")
    raise VerificationFailed(
        f"{run_id}: do not use this adapter\n" + "\n".join(lines),
        hint=next((one["todo"] for one in failed if one["todo"]), "launch pull again, or train again"),
    )


def render(run_id: str, verdict: dict[str, Any], console: Console) -> None:
    """The checks, one line each, and the level."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in verdict["checks"]:
        table.add_row(
            one["status"].replace("_", " "), one["id"], clean(one["detail"]), style=STYLES.get(one["status"], "")
        )
    console.print(table)
    console.print(f"{run_id}: ok ({verdict['level']})", style="bold")
