"""Answers to texts as lines: columns within a terminal's width, or fields between tabs for a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from launcher.predict import Predicted
from launcher.untrusted import clean

MOST_LABEL = 20
GAP = "  "


def lines(predicted: Predicted, width: int | None) -> Iterator[str]:
    """A header and a line for each text; with a file of answers where it is, and how many got which label."""
    if predicted.out is not None:
        yield from _summary(predicted)
        return
    decides = predicted.told["threshold"] is not None
    titles = ["LABEL", "CONF", *(["DECISION"] if decides else []), "TEXT"]
    if width is None:
        yield "\t".join(titles)
        for answer in predicted.answers():
            yield "\t".join([*_cells(answer, decides), _one_line(answer["text"])])
        return
    names = [_one_line(name) for name in predicted.told["labels"]]
    label = max(len("LABEL"), min(MOST_LABEL, max(map(_width, names))))
    pads = [label, 5, *([max(label, len("DECISION"))] if decides else [])]
    room = max(10, width - sum(pads) - len(GAP) * len(pads))
    yield GAP.join([*map(_fitted, titles[:-1], pads), titles[-1]])
    for answer in predicted.answers():
        yield GAP.join([*map(_fitted, _cells(answer, decides), pads), _cut(_one_line(answer["text"]), room)])


def _summary(predicted: Predicted) -> Iterator[str]:
    told = predicted.told
    rate = told["rows"] / max(told["seconds"], 1e-3)
    yield f"{told['rows']:,} texts answered in {told['seconds']:.1f} s ({rate:,.0f} a second) by {predicted.run_id}"
    counts = told["decisions"] or told["labels"]
    yield ", ".join(f"{_one_line(name)} {count:,}" for name, count in counts.items())
    yield str(predicted.out)


def _cells(answer: dict[str, Any], decides: bool) -> list[str]:
    cells = [_one_line(answer["label"]), f"{answer['confidence']:.3f}"]
    return [*cells, _one_line(answer["decision"])] if decides else cells


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, room: int) -> str:
    """`text` in `room` columns, what is left out as an ellipsis."""
    from rich.cells import set_cell_size

    text = text[: room + 1]
    return text if _width(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"


def _fitted(text: str, room: int) -> str:
    cut = _cut(text, room)
    return cut + " " * (room - _width(cut))
