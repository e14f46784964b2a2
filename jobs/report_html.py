"""HTML of the report: text from anywhere made harmless, tables, sections, and words in the report's language.

Everything that is put into the page goes through `text`, which leaves only `Html` as it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jobs import wording
from jobs.wording import Lang

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# What orders text from right to left has no business where no <bdi> can hold it.
_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Html(str):
    """Text that is HTML already, made by this package's functions from harmless parts."""

    __slots__ = ()


@dataclass(frozen=True)
class Words:
    """The report's language: picks words and writes numbers."""

    lang: Lang

    def __call__(self, en: str, zh: str, **values: object) -> Html:
        """Of two templates the one in this language, with `values` made harmless; a number and its % stay together."""
        template = self.sentence(zh if self.lang == "zh" else en)
        return Html(template.format(**{name: text(value) for name, value in values.items()}))

    def plain(self, en: str, zh: str, **values: object) -> str:
        """As a call, but plain text: for charts."""
        return (zh if self.lang == "zh" else en).format(**values)

    def sentence(self, plain: str) -> Html:
        """A sentence of `wording`."""
        return Html(text(plain).replace(" %", "&nbsp;%"))

    def percent(self, share: float | None) -> Html:
        return self.sentence(wording.percent(share, self.lang))

    def span(self, interval: Sequence[float] | None, share: bool = False) -> str:
        """`0.812–0.843`, as shares `81.2–84.3`; a dash where there is none."""
        if interval is None:
            return wording.NONE
        low, high = interval
        return f"{100 * low:.1f}–{100 * high:.1f}" if share else f"{low:.3f}–{high:.3f}"

    def model(self, model: dict[str, str]) -> Html:
        return text(wording.model_title(model["key"], model["title"], self.lang))


def text(value: object, limit: int = 2000) -> Html:
    """`value` as HTML text of at most `limit` characters; controls and half surrogates become U+FFFD."""
    if isinstance(value, Html):
        return value
    words = value if isinstance(value, str) else wording.number(value) if isinstance(value, float) else str(value)
    if len(words) > limit:
        words = words[: limit - 1] + "…"
    return Html(html.escape(_CONTROLS.sub("\ufffd", words), quote=True))


def foreign(value: object, limit: int = 2000) -> Html:
    """As `text`, and what writes from right to left, or orders it, stays inside."""
    return Html(f"<bdi>{text(value, limit)}</bdi>")


def plain(value: object, limit: int = 60) -> Html:
    """As `text`, without what orders directions: for attributes, options and drawings, which hold no <bdi>."""
    return text(_DIRECTIONS.sub("", str(value)), limit)


def fitting(texts: Iterable[str], most: int, size_bytes: int) -> int:
    """The largest limit in characters, at most `most`, at which all these texts together stay below `size_bytes`."""
    listed = [one[:most] for one in texts]
    for limit in (most, most // 2, most // 4, most // 8, most // 16):
        if sum(len(text(one, limit).encode()) for one in listed) <= size_bytes:
            return limit
    return max(1, most // 32)


class Section(NamedTuple):
    """A part of the report that the table of contents leads to; `name` is its id."""

    name: str
    title: Html
    html: Html


def section(name: str, title: Html, *parts: str) -> Section:
    return Section(name, title, Html(f'<section id="{name}"><h2>{title}</h2>\n{"".join(parts)}\n</section>'))


def paragraph(words: str, css: str = "") -> Html:
    return Html(f'<p class="{css}">{words}</p>' if css else f"<p>{words}</p>")


def heading(words: str) -> Html:
    return Html(f"<h3>{words}</h3>")


def figure(title: str, drawing: str, caption: str) -> Html:
    return Html(f"<figure><h3>{title}</h3>{drawing}<figcaption>{caption}</figcaption></figure>")


def folded(title: str, *parts: str) -> Html:
    """Parts that are opened by a click; open on paper."""
    return Html(f"<details><summary>{title}</summary>\n{''.join(parts)}\n</details>")


def table(css: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """A scrolling table of ready-made cells; header and rows are lists of <th>/<td> elements."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    cells = "".join(header)
    head = f"<thead><tr>{cells}</tr></thead>\n" if cells else ""
    return Html(f'<div class="scroll"><table class="{css}">{head}<tbody>{body}</tbody></table></div>')


def column(words: str, css: str = "") -> Html:
    return Html(f'<th scope="col" class="{css}">{words}</th>' if css else f'<th scope="col">{words}</th>')


def row_head(words: str) -> Html:
    return Html(f'<th scope="row">{words}</th>')


def cell(words: str, name: str = "", css: str = "") -> Html:
    """A cell; on narrow screens `name` stands beside it, as its column's head does on wide ones."""
    named = f' data-name="{name}"' if name else ""
    styled = f' class="{css}"' if css else ""
    return Html(f"<td{named}{styled}>{words}</td>")
