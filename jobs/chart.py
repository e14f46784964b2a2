"""A chart as data: panels with two axes, and lines, boxes, dots and words in them.

What it looks like is for whoever draws it: `chart_svg` in the page's colours, `plots` as a PNG.  Knows no metrics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
MAX_POINTS = 300
"""Of one line: more can't be seen, and would make the page heavy."""


@dataclass(frozen=True)
class Style:
    """How a model, or what is drawn beside the models, looks wherever it is drawn: never by colour alone.

    light and dark are colours on white and on black paper; dashes and width are in the unit of a thin line.
    """

    light: str
    dark: str
    width: float
    dashes: tuple[float, ...]
    marker: str


STYLES = {
    "lora": Style("#0b6b7d", "#5cc4d6", 2.2, (), "circle"),
    "tfidf": Style("#b4530a", "#f2a765", 1.5, (6, 2.5), "square"),
    "frozen_head": Style("#6d4bb8", "#bda6f7", 1.5, (7, 2.5, 1.5, 2.5), "diamond"),
    "majority": Style("#6b7280", "#9aa5af", 1.3, (1, 2.5), "cross"),
    "guide": Style("#5b6570", "#9aa5af", 1.0, (4, 3), "circle"),
}
"""Of the four models (of `predictions.MODEL_TITLES`), and of lines to compare with.  Hues that stay apart to those who
see no red or no green."""


@dataclass(frozen=True)
class Axis:
    """One direction of a panel; `percent` where it has shares that are written in per cent."""

    low: float
    high: float
    ticks: tuple[float, ...]
    label: str = ""
    percent: bool = False

    def shown(self, tick: float) -> str:
        return f"{100 * tick:.4g}" if self.percent else f"{tick:,.6g}"


@dataclass(frozen=True)
class Line:
    x: Floats
    y: Floats
    style: str
    faint: bool = False


@dataclass(frozen=True)
class Boxes:
    """Rectangles between (x0, y0) and (x1, y1), all (K,)."""

    x0: Floats
    y0: Floats
    x1: Floats
    y1: Floats
    style: str


@dataclass(frozen=True)
class Dots:
    x: Floats
    y: Floats
    style: str
    hollow: bool = False


@dataclass(frozen=True)
class Ranges:
    """Intervals along x, at heights y, all (K,)."""

    low: Floats
    high: Floats
    y: Floats
    style: str


@dataclass(frozen=True)
class Caption:
    """Words in a panel that begin at (x, y); they may come from outside."""

    x: float
    y: float
    words: str


Layer = Line | Boxes | Dots | Ranges | Caption


@dataclass(frozen=True)
class Panel:
    """`height` in the unit of a chart's width."""

    x: Axis
    y: Axis
    layers: tuple[Layer, ...]
    height: float


@dataclass(frozen=True)
class Chart:
    """Panels one below the other, which share their x; `name` is a file name, `says` what a screen reader says."""

    name: str
    title: str
    says: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, str, str], ...] = ()
    """(style, title, figure) for each line that has one."""


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most MAX_POINTS of the points, evenly along the way that the line takes; first and last among them."""
    if len(x) <= MAX_POINTS:
        return x, y
    reach_x, reach_y = float(np.ptp(x)) or 1.0, float(np.ptp(y)) or 1.0
    steps = np.abs(np.diff(x)) / reach_x + np.abs(np.diff(y)) / reach_y
    way = np.concatenate([[0.0], np.cumsum(steps)])
    kept = np.unique(np.searchsorted(way, np.linspace(0, way[-1], MAX_POINTS)).clip(0, len(x) - 1))
    kept = np.union1d(kept, [0, len(x) - 1])
    return x[kept], y[kept]


def ticks(low: float, high: float, most: int = 6) -> tuple[float, ...]:
    """At most `most` + 1 round numbers in [low, high]: multiples of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return (low,)
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough), 10 * power))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return tuple(float(f"{number * step:.12g}") for number in range(first, last + 1))
