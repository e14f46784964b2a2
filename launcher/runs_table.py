"""The runs as text for a terminal of any width, or for a pipe: columns where they fit, else a few lines a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from launcher.overview import Overview, Row, age, in_words

HEADER = ("RUN", "HOST", "STATE", "SINCE", "PULLED")
GAP = "  "
SILENT_S = 60
# Below this columns would be a few letters wide.
NARROW = 60
STATE_COLUMNS = 24
HOST_COLUMNS = 16
# In a pipe a long reason must not push away what stands behind it in other lines.
PIPE_PAD = 60
MOST_LINES = 4
NOTHING = "no runs; every finished one is pulled (launch ps -a shows all)"


def lines(seen: Overview, width: int | None) -> list[str]:
    """The header and the rows within `width` columns of a terminal; whole lines without one."""
    if not seen.rows:
        return [NOTHING]
    if width is not None and width < NARROW:
        return [line for row in seen.rows for line in _stacked(row, width)]
    cells = [HEADER, *(_cells(row) for row in seen.rows)]
    if width is None:
        pads = [min(one, PIPE_PAD) for one in _natural(cells)]
        return [GAP.join(map(_padded, row, pads)).rstrip() for row in cells]
    widths = _fitted(cells, width)
    return [line for row in cells for line in _folded(row, widths, width)]


def notes(seen: Overview, width: int | None) -> list[str]:
    """What there is to say below the table, a sentence each."""
    return [line for note in seen.notes for line in (_wrapped(note.text, width) if width else [note.text])]


def in_a_cell(row: Row) -> str:
    """The state, why, and what else a person has to know about it."""
    text = row.state
    if row.state == "queued" and row.position > 0:
        text += f" ({_ordinal(row.position)})"
    if row.reason:
        text += f": {row.reason}"
    if row.was:
        text += f" (was {row.was}" + (f" {in_words(row.was_s)} ago)" if row.was_s is not None else ")")
    if row.silent_s is not None and row.silent_s > SILENT_S:
        text += f" (no sign for {in_words(row.silent_s)})"
    if row.fuse_left_s is not None:
        text += f", off in <= {in_words(max(0.0, row.fuse_left_s))}"
    if row.superseded_by:
        text += f"; superseded by {row.superseded_by}"
    return text + (", asking ..." if row.asking else "")


def _cells(row: Row) -> tuple[str, ...]:
    pulled = "" if not row.is_known else "yes" if row.pulled_to else "no"
    return (row.run_id, row.host, " ".join(in_a_cell(row).split()), age(row.age_s), pulled)


def _stacked(row: Row, width: int) -> Iterator[str]:
    run_id, host, state, since, pulled = _cells(row)
    yield from _wrapped(run_id, width)
    told = ", ".join(filter(None, (state, since, "pulled" if pulled == "yes" else "")))
    yield from (f"  {line}" for line in _wrapped(f"{host}: {told}", width - 2)[: 2 * MOST_LINES])


def _fitted(cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """The widths of the columns: the state gives way first, then the host's name.

    An id that would have to be cut stands in a line of its own: it is there to be copied.
    """
    ids, (_, host, state, since, pulled) = [_width(row[0]) for row in cells], _natural(cells)
    host = min(host, HOST_COLUMNS)
    room = width - host - since - pulled - len(GAP) * (len(HEADER) - 1)
    most = max(room - min(state, STATE_COLUMNS), room // 3)
    run = max(one for one in ids if one <= max(most, _width(HEADER[0])))
    return [run, host, max(1, min(state, room - run)), since, pulled]


def _natural(cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_width, column)) for column in zip(*cells, strict=True)]


def _folded(cells: Sequence[str], widths: Sequence[int], width: int) -> Iterator[str]:
    run_id, *rest = cells
    if _width(run_id) > widths[0]:
        yield from _wrapped(run_id, width)
        run_id = ""
    folded = [_wrapped(cell, one)[:MOST_LINES] for cell, one in zip((run_id, *rest), widths, strict=True)]
    for number in range(max(map(len, folded))):
        parts = [part[number] if number < len(part) else "" for part in folded]
        yield GAP.join(map(_padded, parts, widths)).rstrip()


def _wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` columns, broken between words where that can be."""
    found, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if _width(joined) <= width:
            line = joined
            continue
        if line and (_width(word) <= width or _width(line) > width // 2):
            found.append(line)
            line = word
        else:
            line = joined
        while _width(line) > width:
            head = _head(line, width)
            found.append(head)
            line = line[len(head) :]
    return [*found, line]


def _head(text: str, width: int) -> str:
    """The longest beginning that fits; one character at least."""
    taken = 0
    for number, character in enumerate(text):
        taken += _width(character)
        if taken > width:
            return text[: max(1, number)]
    return text


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def _width(text: str) -> int:
    """Columns on a terminal: a Chinese character takes two."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
