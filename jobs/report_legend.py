"""The legend that stands above a chart."""

from __future__ import annotations

from jobs import chart_svg
from jobs.chart import Chart
from jobs.report_html import Html, text


def legend(chart: Chart, *, dots: bool = False) -> Html:
    """Each model's line (or, with `dots`, its mark), title and figure."""
    lines = "".join(
        f"<li>{chart_svg.key(style, dot=dots)}<span>{text(title)}</span><b>{text(figure)}</b></li>"
        for style, title, figure in chart.legend
    )
    return Html(f'<ul class="legend">{lines}</ul>')
