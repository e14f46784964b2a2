"""The report's plots as PNG files for slides and papers: English, on white, 200 dpi.

matplotlib has no Chinese font of its own and would read `$…$` as a formula: names from outside are drawn only where
they are plain ASCII words, and numbered otherwise.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import atomic, report_charts
from jobs.chart import STYLES, Boxes, Caption, Chart, Dots, Layer, Line, Panel, Ranges, thinned
from jobs.report_curves import Curves
from jobs.report_html import Words
from jobs.report_models import MAX_MATRIX_CLASSES
from jobs.report_run import curves
from jobs.wording import main_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 200
NAMES = ("roc", "pr", "reliability", "confusion", "risk_coverage", "robustness", "loss")
_WIDTH = 4.8
_WORDS = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,30}\Z")
_MARKERS = {"circle": "o", "square": "s", "diamond": "D", "cross": "x"}
_RC: dict[str, Any] = {
    "font.size": 9,
    "text.parse_math": False,
    "axes.edgecolor": "#c4cbd1",
    "axes.labelcolor": "#3d4650",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "grid.color": "#e3e7ea",
    "grid.linewidth": 0.6,
    "xtick.color": "#c4cbd1",
    "ytick.color": "#c4cbd1",
    "xtick.labelcolor": "#3d4650",
    "ytick.labelcolor": "#3d4650",
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def write(folder: Path, summary: dict[str, Any], counted: Curves, training: dict[str, Any] | None) -> list[Path]:
    """The files written: of roc, pr, reliability, confusion, risk_coverage, robustness and loss those that there are.

    What an earlier evaluation left under one of these names is taken away.  Raises OSError.
    """
    import matplotlib
    from matplotlib.figure import Figure

    words, drawn = Words("en"), {}
    # The user's own matplotlibrc must not change the plots, so everything is set back first.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_RC)
        for name, charts in _charts(summary, counted, training, words).items():
            shown = [chart for chart in charts if chart is not None]
            if shown:
                figure = Figure(figsize=(_WIDTH * len(shown), 1), layout="constrained")
                _charted(figure, shown)
                drawn[name] = _png(figure)
        if len(summary["label_names"]) <= MAX_MATRIX_CLASSES:
            figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
            _confusion(figure, summary)
            drawn["confusion"] = _png(figure)
    written = []
    for name in NAMES:
        path = folder / f"{name}.png"
        if name in drawn:
            atomic.write_bytes(path, drawn[name])
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    return written


def _charts(
    summary: dict[str, Any], counted: Curves, training: dict[str, Any] | None, words: Words
) -> dict[str, list[Chart | None]]:
    figures = main_model(summary)["metrics"]
    blocks = {"As the model says": figures["raw"], "After the temperature": figures["scaled"]}
    classes = len(summary["label_names"])
    return {
        "roc": [report_charts.roc(summary, counted, words)],
        "pr": [report_charts.precision_recall(summary, counted, words)],
        "reliability": [
            report_charts.reliability(block, classes, words, "reliability", f"{title}: ECE {block['ece']:.3f}")
            for title, block in blocks.items()
            if block
        ],
        "risk_coverage": [report_charts.risk_coverage(summary, words)],
        "robustness": [report_charts.robustness(summary["robustness"], words)],
        "loss": [report_charts.loss(*curves(training), words)],
    }


def _charted(figure: Figure, charts: Sequence[Chart]) -> None:
    """Charts side by side, all with the same panels."""
    heights = [panel.height for panel in charts[0].panels]
    figure.set_figheight(_WIDTH * sum(heights) + 0.8 + 0.18 * len(charts[0].legend))
    grid = figure.subplots(len(heights), len(charts), squeeze=False, height_ratios=heights, sharex="col")
    for column, chart in enumerate(charts):
        for row, panel in enumerate(chart.panels):
            _panel(grid[row][column], panel, last=panel is chart.panels[-1])
        top: Any = grid[0][column]
        top.set_title(chart.title)
    _legend(figure, charts[0])


def _legend(figure: Figure, chart: Chart) -> None:
    """Below the chart: the line or the mark, whichever a model has in it."""
    from matplotlib.lines import Line2D

    layers = [layer for panel in chart.panels for layer in panel.layers]
    lined = {layer.style for layer in layers if isinstance(layer, Line)}
    dotted = {layer.style for layer in layers if isinstance(layer, Dots) and not layer.hollow}
    handles = []
    for style, title, value in chart.legend:
        look = STYLES[style]
        marker = _MARKERS[look.marker] if style in dotted or style not in lined else ""
        line: Any = (0, look.dashes or None) if style in lined else "none"
        handles.append(
            Line2D([], [], color=look.light, linewidth=look.width, linestyle=line, marker=marker, markersize=4,
                   label=f"{title}: {value}")
        )  # fmt: skip
    if handles:
        figure.legend(handles=handles, loc="outside lower left")


def _panel(axes: Axes, panel: Panel, *, last: bool) -> None:
    names: list[str] = []
    for layer in panel.layers:
        _layer(axes, layer, names)
    margin_x, margin_y = 0.01 * (panel.x.high - panel.x.low), 0.01 * (panel.y.high - panel.y.low)
    axes.set(
        xlim=(panel.x.low - margin_x, panel.x.high + margin_x),
        ylim=(panel.y.low - margin_y, panel.y.high + margin_y),
        ylabel=panel.y.label,
    )
    axes.set_xticks(panel.x.ticks, [panel.x.shown(tick) for tick in panel.x.ticks])
    axes.set_yticks(panel.y.ticks, [panel.y.shown(tick) for tick in panel.y.ticks])
    if last:
        axes.set_xlabel(panel.x.label)


def _layer(axes: Axes, layer: Layer, names: list[str]) -> None:
    match layer:
        case Line(x, y, style, faint):
            look = STYLES[style]
            axes.plot(*thinned(x, y), color=look.light, linewidth=0.7 if faint else look.width,
                      dashes=look.dashes or (None, None), alpha=0.45 if faint else 1)  # fmt: skip
        case Boxes(x0, y0, x1, y1, style):
            axes.bar(x0, y1 - y0, x1 - x0, y0, align="edge", color=STYLES[style].light, alpha=0.26, edgecolor="white")
        case Dots(x, y, style, hollow):
            look = STYLES[style]
            face = "white" if hollow else look.light
            axes.plot(x, y, linestyle="none", marker=_MARKERS[look.marker], markersize=7 if hollow else 4,
                      color=look.light, markerfacecolor=face, zorder=3)  # fmt: skip
        case Ranges(low, high, y, _):
            axes.hlines(y, low, high, color="#1c2127", linewidth=1)
        case Caption(x, y, words):
            names.append(words)
            axes.text(x, y, safe_name(words, f"category {len(names)}"), va="baseline", color="#1c2127")


def _confusion(figure: Figure, summary: dict[str, Any]) -> None:
    axes, names = figure.subplots(), summary["label_names"]
    matrix = np.array(main_model(summary)["metrics"]["confusion"], np.float64)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.6)
    size = 10 if len(names) <= 4 else 6
    for (row, place), count in np.ndenumerate(matrix):
        text = f"{count:,.0f}\n{100 * shares[row, place]:.1f} %"
        axes.text(place, row, text, ha="center", va="center", fontsize=size, color="#1c2127")
    shown = [safe_name(name, f"label {place + 1}") for place, name in enumerate(names)]
    axes.set_xticks(range(len(names)), shown, rotation=0 if len(names) <= 3 else 45)
    axes.set_yticks(range(len(names)), shown)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    note = "" if shown == list(names) else "\nnumbered in the order of label_names in metrics.json"
    axes.set(xlabel=f"Said{note}", ylabel="True", title="Confusion matrix")


def safe_name(name: str, otherwise: str) -> str:
    """A name from outside as it may be drawn: itself where it is plain ASCII words, else a name of ours."""
    return name if _WORDS.match(name) else otherwise


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()
