"""Runs beside each other: which runs are meant, and how their comparison looks in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import home_jobs
from launcher.errors import LaunchError
from launcher.ledger import Ledger
from launcher.progress import Observer
from launcher.scores import WIDE
from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

NONE = "n/a"


def compare(
    runs: Sequence[str], ledger: Ledger, workspace: Path, observer: Observer, *, data: str = "", common: bool = False
) -> dict[str, Any]:
    """The comparison of these runs at home, as `home_jobs.compare`; the first is what the others are held against.

    Raises LaunchError where two of them are the same run.
    """
    homes = [home_jobs.find(run, ledger, needs_base=False) for run in runs]
    folders = [home.run.root.resolve() for home in homes]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise LaunchError(
                f"{runs[folders.index(folder)]} and {runs[number]} are the same run", hint="launch ps -a", code="usage"
            )
    return home_jobs.compare(homes, workspace, observer, data=data, common=common)


def render(compared: dict[str, Any], console: Console) -> None:
    """A row a run, then what can be said about each difference."""
    from rich.table import Table

    if not console.is_terminal:
        console.width = WIDE
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(f"{compared['rows']:,} rows", overflow="fold")
    for title in ("accuracy", "95 %", "F1", "AUC", "ECE", "robust"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in compared["runs"]:
        table.add_row(clean(one["run"]), *_cells(one))
    console.print(table)
    for comparison in compared["comparisons"]:
        console.print()
        for sentence in comparison["sentences"]:
            console.print(clean(sentence))
    if compared["notes"]:
        console.print()
    for note in compared["notes"]:
        console.print(f"note: {clean(note)}")


def _cells(one: dict[str, Any]) -> list[str]:
    figures, robustness = one["figures"], one["robustness"]
    low, high = figures["intervals"]["accuracy"]
    block = figures["scaled"] or figures["raw"]
    known = [_figure(figures["f1"]), _figure(figures["auc_roc"]), _figure(block["ece"])]
    score = NONE if robustness is None else f"{robustness['score']:.1f}"
    return [_figure(figures["accuracy"]), f"{low:.3f}-{high:.3f}", *known, score]


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
