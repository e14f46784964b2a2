"""How an evaluation looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = (
    ("accuracy", "acc"), ("precision", "prec"), ("recall", "recall"), ("f1", "F1"), ("auc_roc", "AUC"), ("ece", "ECE"),
)  # fmt: skip


def render(evaluated: dict[str, Any], console: Console) -> None:
    """The table of all models, the headline, the notes, and where the report lies."""
    from rich.table import Table

    metrics = evaluated["metrics"]
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(f"{metrics['rows']} rows", overflow="fold")
    for _, title in COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for model in metrics["models"]:
        cells = [_figure(model["metrics"].get(key)) for key, _ in COLUMNS]
        table.add_row(clean(model["title"]), *cells, style="bold" if model["key"] == "lora" else "")
    console.print(table)
    for sentence in (*metrics["headline"], *metrics["warnings"], *evaluated["notes"]):
        console.print(clean(sentence))
    console.print(f"report: {evaluated['report']}", soft_wrap=True)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
