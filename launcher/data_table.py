"""What was found in the data, on the screen: classes by split, lengths, findings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.data_finding import ERROR, WARNING, Example, Finding
from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

    from jobs.data_check import Lengths, Report

PIPE_COLUMNS = 10_000
MOST_CLASSES = 12
BAR = 24
STYLES = {ERROR: "red", WARNING: "yellow"}


def render(report: Report, how_split: str, console: Console) -> None:
    """A table of the classes, a histogram of the lengths, and each finding with rows that show it."""
    from rich.table import Table

    if not console.is_terminal:
        console.width = PIPE_COLUMNS  # a pipe has no edge
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("CLASS", overflow="ellipsis", no_wrap=True)
    for split in report.rows:
        table.add_column(split.upper(), justify="right")
    for name, counts in _classes(report):
        table.add_row(_line(name), *(f"{count:,}" for count in counts))
    table.add_row("all", *(f"{sum(counts.values()):,}" for counts in report.rows.values()), style="bold")
    console.print(table)
    console.print(f"\n{how_split}", soft_wrap=True)
    if report.lengths is not None:
        _render_lengths(report.lengths, console)
    for finding in report.findings:
        console.print()
        console.print(_line(f"{finding.severity}: {finding.what}"), style=STYLES.get(finding.severity, ""))
        for example in finding.examples:
            console.print(f"  {_shown(example)}", style="dim", no_wrap=True, overflow="ellipsis")
        console.print(_line(f"hint: {finding.todo}"))
    console.print(f"\n{_verdict(report)}")


def in_a_line(finding: Finding) -> str:
    """A finding and what to do about it, in one line."""
    return _line(f"{finding.severity}: {finding.what}; {finding.todo}")


def _classes(report: Report) -> Iterator[tuple[str, list[int]]]:
    names = list(next(iter(report.rows.values())))
    rows = [(name, [counts[name] for counts in report.rows.values()]) for name in names]
    if len(rows) <= MOST_CLASSES:
        yield from rows
        return
    rows.sort(key=lambda row: -row[1][0])
    yield from rows[: MOST_CLASSES - 1]
    rest = rows[MOST_CLASSES - 1 :]
    yield f"{len(rest)} more", [sum(column) for column in zip(*(counts for _, counts in rest), strict=True)]


def _render_lengths(lengths: Lengths, console: Console) -> None:
    console.print(
        f"\ntokens of a text of train ({lengths.how}): median {lengths.median:,}, "
        f"95 % up to {lengths.p95:,}, longest {lengths.longest:,}; max_length {lengths.limit:,}"
    )
    highest = max(count for _, _, count in lengths.histogram)
    width = len(f"{lengths.longest:,}") + 1
    for low, high, count in lengths.histogram:
        bar = "#" * -(-BAR * count // highest)
        cut = "  cut" if low > lengths.limit else ""
        console.print(f"  {low:>{width},} - {high:<{width},} {bar:<{BAR}} {count:>9,}{cut}".rstrip())


def _shown(example: Example) -> str:
    return _line(f"{example.split} row {example.row:,} ({example.label}): {example.text}")


def _verdict(report: Report) -> str:
    errors = sum(finding.is_error for finding in report.findings)
    warnings = sum(finding.severity == WARNING for finding in report.findings)
    if not report.findings:
        return "nothing was found that is wrong with this data"
    counted = [f"{count} {word}{'s' * (count != 1)}" for count, word in ((errors, "error"), (warnings, "warning"))]
    return f"{' and '.join(counted)}; " + ("not fit to train on" if errors else "fit to train on")


def _line(text: str) -> str:
    """Data are somebody's texts: they may hold escape sequences."""
    return " ".join(clean(text).split())
