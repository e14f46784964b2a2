"""The report's plots as SVG text that goes into an HTML page and takes its colours from it.

matplotlib draws in sentinel colours that stand for the page's CSS variables: one drawing serves both themes.
No text from outside gets in: matplotlib would read `$…$` in it as a formula, and has no Chinese font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.metrics import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT, PAPER = "#010203", "#010204", "#010205", "#010206", "#010207"
_VARIABLES = {INK: "--ink", MUTED: "--muted", LINE: "--line", ACCENT: "--accent", PAPER: "--paper"}
MAX_POINTS = 400
"""Of one line: more can't be seen, and would make the page heavy."""

_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class LineStyle:
    """How a model's line looks, in the plot and in the legend beside it."""

    colour: str
    width: float
    dashes: tuple[float, ...]


LINE_STYLES = {
    "lora": LineStyle(ACCENT, 2.2, ()),
    "frozen_head": LineStyle(INK, 1.3, (5.0, 2.0)),
    "tfidf": LineStyle(MUTED, 1.3, ()),
    "majority": LineStyle(MUTED, 1.3, (1.0, 2.0)),
}


def css_colour(sentinel: str) -> str:
    """The CSS that one of this module's colours stands for: `var(--accent)`."""
    return f"var({_VARIABLES[sentinel]})"


def roc(curves: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]], label: str) -> str:
    """SVG of ROC curves: model key -> false and true positive rates, both (K,).

    label: what a screen reader says.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=LINE, linewidth=1)
        # LoRA last, so that it lies on top.
        for key in sorted(curves, key=lambda key: key == "lora"):
            style = LINE_STYLES[key]
            dashes = (0, style.dashes) if style.dashes else "solid"
            axes.plot(*_thinned(*curves[key]), color=style.colour, linewidth=style.width, linestyle=dashes)
        _unit_square(axes, "False positive rate", "True positive rate")

    return _svg("roc", label, draw)


def reliability(bins: Sequence[Bin], classes: int, label: str) -> str:
    """SVG of accuracy against confidence, with the share of rows in each bin below it.

    The top one of `classes` labels can't have less than 1 / classes, so the axis begins at the bin of that.
    """

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        rows = sum(one.count for one in bins)
        filled = [one for one in bins if one.count]
        start = next((one.low for one in bins if one.high >= 1 / classes), 0.0)
        for axes, heights in ((upper, [one.accuracy or 0.0 for one in filled]),
                              (lower, [one.count / rows for one in filled])):  # fmt: skip
            lefts, widths = [one.low for one in filled], [one.high - one.low for one in filled]
            axes.bar(lefts, heights, widths, align="edge", color=ACCENT, alpha=0.28, edgecolor=PAPER)
        upper.plot([start, 1], [start, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        means = [one.confidence or 0.0 for one in filled], [one.accuracy or 0.0 for one in filled]
        upper.plot(*means, color=ACCENT, marker="o", markersize=4, linewidth=1.6)
        upper.set(xlim=(start, 1.005), ylim=(0, 1.02), ylabel="Accuracy")
        lower.set(xlabel="Confidence", ylabel="Rows", ylim=(0, None))
        lower.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        lower.locator_params(axis="y", nbins=2)
        lower.grid(visible=False)

    return _svg("reliability", label, draw)


def loss(steps: npt.NDArray[Any], losses: npt.NDArray[Any], label: str) -> str:
    """SVG of the training loss (S,) over the steps (S,), with its running mean; S >= 1."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(*_thinned(steps, losses), color=MUTED, alpha=0.45, linewidth=0.9)
        axes.plot(*_thinned(steps, _running_mean(losses)), color=ACCENT, linewidth=2.2)
        if len(steps) == 1:
            axes.plot(steps, losses, color=ACCENT, marker="o")
        axes.set(xlabel="Step", ylabel="Loss")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True, nbins=6)

    return _svg("loss", label, draw)


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")
    axes.locator_params(nbins=5)


def _thinned(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """At most MAX_POINTS of the points, first and last among them."""
    if len(x) <= MAX_POINTS:
        return x, y
    kept = np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int)
    return x[kept], y[kept]


def _running_mean(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Mean over a centred window of a tenth of the values, shorter at the ends; as long as `values`."""
    reach = len(values) // 20
    totals = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return np.asarray((totals[high] - totals[low]) / (high - low))


def _svg(name: str, label: str, draw: Callable[[Figure], None]) -> str:
    """What `draw` puts on a figure, as an <svg> element whose ids begin with `name`.

    label must not come from outside: it is put into an attribute as it is.
    """
    import matplotlib
    from matplotlib.figure import Figure

    # The user's own matplotlibrc must not change the report, so everything is set back first.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_RC | {"svg.hashsalt": name})
        figure = Figure(figsize=(4.6, 3.7), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _for_a_page(buffer.getvalue(), name, label)


def _for_a_page(svg: str, name: str, label: str) -> str:
    """matplotlib's SVG document as an element of a page."""
    body = svg[svg.index("<svg") :]
    opening, body = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    body = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL
    )
    # Ids are the page's, not the drawing's, once three drawings stand in one page.
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", body)
    # The page's font, its size as drawn.
    body = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;?", "", body)
    for sentinel, variable in _VARIABLES.items():
        body = body.replace(sentinel, f"var({variable})")
    return f'<svg class="plot" role="img" aria-label="{label}" {box.group() if box else ""}>{body.strip()}'
