"""The end of the report: how the training went, and the facts of the run.  Both may be a host's words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jobs import chart_svg, wording
from jobs.report_charts import loss, running_mean
from jobs.report_html import Section, Words, figure, fitting, foreign, heading, row_head, section, table
from jobs.report_legend import legend

MAX_POINTS = 1_000_000
MAX_FACTS = 200
MAX_BYTES = 120_000


def training_section(training: dict[str, Any] | None, words: Words) -> Section | None:
    """The loss over the steps; None where none is known."""
    points, validation = curves(training)
    chart = loss(points, validation, words)
    if chart is None:
        return None
    shown = points or validation
    losses = np.array([value for _, value in shown])
    smooth = running_mean(losses) if points else losses
    caption = words(
        "From {first} to {last} in {steps} steps. A falling loss does not prove the adapter: the verification does.",
        "{steps} 步内由 {first} 变为 {last}。损失下降并不能证明适配器有效，验证才能。",
        first=f"{smooth[0]:.3g}",
        last=f"{smooth[-1]:.3g}",
        steps=f"{shown[-1][0]:,.0f}",
    )
    drawing = figure(chart.title, legend(chart) + chart_svg.draw(chart), caption)
    return section("training", words("Training", "训练"), f'<div class="plots">{drawing}</div>')


def curves(training: dict[str, Any] | None) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
    """(step, loss) of training and of validation, in the order of steps."""
    return _points((training or {}).get("losses")), _points((training or {}).get("evaluations"))


def facts_section(facts: Mapping[str, Any], words: Words) -> Section | None:
    """What the run was made of; a mapping is a part of its own.  None where there are no facts."""
    listed = list(_flat(facts))[:MAX_FACTS]
    if not listed:
        return None
    limit = fitting((part for _, name, value in listed for part in (name, _fact(value))), 600, MAX_BYTES)
    parts: dict[str, list[list[str]]] = {}
    for part, name, value in listed:
        title = wording.term(name.replace("_", " "), words.lang)
        fact = wording.sentence(_fact(value), words.lang)
        cells = [row_head(foreign(title, min(120, limit))), f"<td>{foreign(fact, limit)}</td>"]
        parts.setdefault(part, []).append(cells)
    shown = "".join(
        f"<div>{heading(foreign(wording.term(part, words.lang), 80)) if part else ''}{table('facts', [], rows)}</div>"
        for part, rows in parts.items()
    )
    return section("run", words("The run", "运行信息"), f'<div class="parts">{shown}</div>')


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(part, name, value): facts that stand by themselves first."""
    yield from (("", str(name), value) for name, value in facts.items() if not isinstance(value, Mapping))
    for part, values in facts.items():
        if isinstance(values, Mapping):
            yield from ((str(part), str(name), value) for name, value in values.items())


def _fact(value: Any) -> str:
    if value is None or value == "":
        return wording.NONE
    if isinstance(value, Mapping | list | tuple):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, TypeError, RecursionError):
            return str(type(value).__name__)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _points(listed: Any) -> list[tuple[float, float]]:
    """What is no sensible number is passed over: it may be a host's."""
    found = []
    for one in listed[:MAX_POINTS] if isinstance(listed, list) else []:
        match one:
            case {"step": int() | float() as step, "loss": int() | float() as value}:
                # Not NaN either: no comparison with it is true.
                if abs(step) < 1e9 and abs(value) < 1e9:
                    found.append((float(step), float(value)))
    return sorted(found)
