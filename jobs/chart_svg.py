"""A chart as an <svg> element for the report's page: real text in the page's fonts, colours by the page's classes."""

from __future__ import annotations

from collections.abc import Callable
from unicodedata import east_asian_width

from jobs.chart import STYLES, Axis, Boxes, Caption, Chart, Dots, Floats, Layer, Line, Panel, Ranges, thinned
from jobs.report_html import Html, plain

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BETWEEN, _TICKS, _LABEL = 40, 14, 6, 10, 17, 17
_NAME_WIDTH = 54
_MARK = 3.2
# A line that leaves what can be drawn at all would be an endless number in the page.
_FAR = 1e5

Scale = Callable[[float], float]


def draw(chart: Chart) -> Html:
    """The chart, WIDTH units wide, which is about a telephone's pixels."""
    parts, top = [], float(_TOP)
    for panel in chart.panels:
        last = panel is chart.panels[-1]
        height = panel.height * WIDTH
        parts.append(_panel(panel, top, height, last))
        top += height + _BETWEEN
    bottom = top - _BETWEEN + _TICKS + (_LABEL if chart.panels[-1].x.label else 0)
    box = f'viewBox="0 0 {WIDTH} {bottom:.0f}"'
    says = f'role="img" aria-label="{plain(chart.says, 400)}"'
    return Html(f'<svg class="plot plot-{chart.name}" {says} {box}>{"".join(parts)}</svg>')


def key(style: str, *, dot: bool = False) -> Html:
    """The sample of a line, or of a dot, that stands in a legend."""
    sample = _mark(style, 14, 6) if dot else f'<path class="line s-{style}" d="M1 6h26"/>'
    return Html(f'<svg class="key" viewBox="0 0 28 12" aria-hidden="true">{sample}</svg>')


def styles(theme: str) -> str:
    """CSS variables with the colours of all styles on `light` or `dark` paper."""
    return " ".join(f"--c-{name}: {getattr(style, theme)};" for name, style in STYLES.items())


def rules() -> str:
    """CSS that gives every style its stroke."""
    found = []
    for name, style in STYLES.items():
        dashes = " ".join(f"{dash:g}" for dash in style.dashes) or "none"
        found.append(f".s-{name} {{ --c: var(--c-{name}); stroke-width: {style.width}; stroke-dasharray: {dashes}; }}")
    return "\n".join(found)


def _panel(panel: Panel, top: float, height: float, last: bool) -> str:
    left, right, bottom = float(_LEFT if panel.y.ticks else 8), float(WIDTH - _RIGHT), top + height
    across, up = _scale(panel.x, left, right), _scale(panel.y, bottom, top)
    parts = []
    for tick in panel.x.ticks:
        x = across(tick)
        parts.append(f'<path class="grid" d="M{x:.1f} {top:.1f}V{bottom:.1f}"/>')
        if last:
            parts.append(_word(panel.x.shown(tick), x, bottom + 14, "middle"))
    for tick in panel.y.ticks:
        y = up(tick)
        parts.append(f'<path class="grid" d="M{left:.0f} {y:.1f}H{right:.1f}"/>')
        parts.append(_word(panel.y.shown(tick), left - 5, y + 3.6, "end"))
    parts += [_layer(layer, across, up) for layer in panel.layers]
    if last and panel.x.label:
        parts.append(_word(plain(panel.x.label), (left + right) / 2, bottom + 30, "middle"))
    if panel.y.label:
        at = f"translate(10 {(top + bottom) / 2:.1f}) rotate(-90)"
        parts.append(f'<text transform="{at}" text-anchor="middle">{plain(panel.y.label)}</text>')
    return "".join(parts)


def _word(words: str, x: float, y: float, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _scale(axis: Axis, start: float, end: float) -> Scale:
    reach = (axis.high - axis.low) or 1.0
    return lambda value: max(-_FAR, min(_FAR, start + (value - axis.low) / reach * (end - start)))


def _layer(layer: Layer, across: Scale, up: Scale) -> str:
    match layer:
        case Line(x, y, style, faint):
            css = f"line s-{style} faint" if faint else f"line s-{style}"
            return f'<path class="{css}" d="M{_points(*thinned(x, y), across, up)}"/>'
        case Boxes(x0, y0, x1, y1, style):
            return "".join(
                f'<rect class="box s-{style}" x="{across(left):.1f}" y="{up(high):.1f}" '
                f'width="{across(right) - across(left):.1f}" height="{up(low) - up(high):.1f}"/>'
                for left, low, right, high in zip(x0, y0, x1, y1, strict=True)
            )
        case Dots(x, y, style, hollow):
            return "".join(_mark(style, across(a), up(b), hollow) for a, b in zip(x, y, strict=True))
        case Ranges(low, high, y, style):
            return "".join(
                f'<path class="range s-{style}" d="M{across(a):.1f} {up(at) - 3:.1f}v6m0 -3H{across(b):.1f}m0 -3v6"/>'
                for a, b, at in zip(low, high, y, strict=True)
            )
        case Caption(at_x, at_y, words):
            return f'<text class="name" x="{across(at_x):.1f}" y="{up(at_y):.1f}">{plain(_cut(words))}</text>'


def _cut(words: str) -> str:
    """As much of a name as fits beside nothing else; Chinese characters take twice the room."""
    used = 0
    for place, character in enumerate(words):
        used += 2 if east_asian_width(character) in "WF" else 1
        if used > _NAME_WIDTH:
            return words[:place] + "…"
    return words


def _points(x: Floats, y: Floats, across: Scale, up: Scale) -> str:
    return "L".join(f"{across(a):.1f} {up(b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _mark(style: str, x: float, y: float, hollow: bool = False) -> str:
    css, r = (f"mark s-{style} hollow", 1.5 * _MARK) if hollow else (f"mark s-{style}", _MARK)
    at = f"M{x:.1f} {y:.1f}"
    match STYLES[style].marker:
        case "square":
            shape = f"{at}m{-r:.1f} {-r:.1f}h{2 * r:.1f}v{2 * r:.1f}h{-2 * r:.1f}z"
        case "diamond":
            a, b = 1.2 * r, 1.5 * r
            shape = f"{at}m0 {-b:.1f}l{a:.1f} {b:.1f} {-a:.1f} {b:.1f} {-a:.1f} {-b:.1f}z"
        case "cross":
            shape = f"{at}m{-r:.1f} {-r:.1f}l{2 * r:.1f} {2 * r:.1f}m0 {-2 * r:.1f}l{-2 * r:.1f} {2 * r:.1f}"
        case _:
            return f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
    return f'<path class="{css}" d="{shape}"/>'
