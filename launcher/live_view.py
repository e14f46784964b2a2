"""A block of two lines below a scrolling log: how far a run is, how it does, what it costs.

It owns the terminal's last lines while it lives.  A log's text goes through `write`, above the block.  The block is as
wide as the terminal at most and never wraps, in a narrow one items are left out; it is drawn in ASCII, as other signs
are twice as wide in some terminals.  All figures come from a host and may be anything.  The cursor is never hidden: so
however the process ends it is there.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import threading
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from launcher.duration import in_words
from launcher.price import Price
from launcher.untrusted import clean

REDRAW_S = 0.25
LEAST_COLUMNS, LEAST_ROWS = 24, 6
BAR_CELLS = (8, 30)
GAP = "  "
LARGEST = 1e15
STATE_CHARACTERS = 12
TRAINING = "running"
STYLES = {"": "", "bold": "\x1b[1m", "dim": "\x1b[2m"}
PLAIN_TERMINALS = ("dumb", "unknown")


class Item(NamedTuple):
    """A piece of a line; those of the highest rank are the first to be left out."""

    text: str
    rank: int


def is_possible(stream: TextIO) -> bool:
    """Whether a block can be drawn there: on a terminal that moves its cursor, and whose person wants it."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in PLAIN_TERMINALS:
        return False
    if os.name == "nt":
        from rich.console import Console

        return not Console(file=stream).legacy_windows
    return "TERM" in os.environ


class Figures:
    """What is known of the run."""

    def __init__(self, price: Price | None = None) -> None:
        self._price = price
        self._state = ""
        self._step: Mapping[str, Any] = {}
        self._step_at = 0.0
        self._eval: Mapping[str, Any] = {}
        self._gpus: list[Mapping[str, Any]] = []
        self._submitted: float | None = None
        self._is_known = False

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing worth a block yet."""
        return not self._is_known

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take an event in; what it does not know it leaves alone."""
        if kind == "step":
            self._step, self._step_at, self._is_known = fields, time.monotonic(), True
        elif kind == "eval":
            self._eval = fields
        elif kind == "state" and isinstance(state := fields.get("state"), str):
            self._state = _word(state)
        elif kind == "gpu" and isinstance(gpus := fields.get("gpus"), list):
            self._gpus = [one for one in gpus[:64] if isinstance(one, dict)]
            self._is_known = True

    def set_age(self, seconds: float) -> None:
        """How long ago the run was submitted."""
        if number(seconds) is not None:
            self._submitted = time.monotonic() - seconds

    def lines(self, columns: int) -> tuple[str, str]:
        """Two lines of at most so many columns."""
        return self._way(columns), _joined(self._health(), columns)

    def _way(self, columns: int) -> str:
        """How far it is, and what that takes."""
        step, steps = number(self._step.get("step")), number(self._step.get("steps"))
        items = [Item(self._state or TRAINING, 4)]
        share = None
        if step is not None and steps:
            share = min(1.0, max(0.0, step / steps))
            items += [Item(f"{whole(step)}/{whole(steps)}", 1), Item(f"{math.floor(100 * share)}%", 0)]
        # It is the training's: what comes after that tells nothing of how long it takes.
        eta_s = number(self._step.get("eta_s")) if self._state in ("", TRAINING) else None
        if eta_s is not None:
            eta_s = max(0.0, eta_s - (time.monotonic() - self._step_at))
            items.append(Item(f"ETA {in_words(eta_s)}", 0))
        if self._submitted is not None:
            elapsed_s = time.monotonic() - self._submitted
            items.append(Item(in_words(elapsed_s), 3))
            if self._price is not None:
                items.append(Item(f"cost {self._price.of(elapsed_s)}", 2))
                if eta_s is not None:
                    items.append(Item(f"of ~{self._price.of(elapsed_s + eta_s)}", 5))
        if share is None:
            return _joined(items, columns)
        room = columns - cells(_joined(items, columns)) - len(GAP) - 2
        if room < BAR_CELLS[0]:
            return _joined(items, columns)
        width = min(room, BAR_CELLS[1])
        done = math.floor(share * width)
        bar = "#" * done + "-" * (width - done)
        return _joined([items[0], Item(f"[{bar}]", 0), *items[1:]], columns)

    def _health(self) -> list[Item]:
        items = []
        step = self._step
        if (loss := number(step.get("loss"))) is not None:
            items.append(Item(f"loss {loss:.4g}", 0))
        if (score := number(self._eval.get("accuracy"))) is not None:
            items.append(Item(f"acc {score:.3f}", 4))
        if (rate := number(step.get("learning_rate"))) is not None:
            items.append(Item(f"lr {rate:.1e}", 5))
        if (speed := number(step.get("tokens_per_s"))) is not None:
            items.append(Item(f"{count(speed)} tok/s", 3))
        elif (speed := number(step.get("rows_per_s"))) is not None:
            items.append(Item(f"{count(speed)} rows/s", 3))
        return items + _gpu_items(self._gpus)


class LiveView:
    """The block on a terminal.  Threads may use it at once."""

    def __init__(self, stream: TextIO, price: Price | None = None) -> None:
        self._stream = stream
        self._figures = Figures(price)
        self._pending = ""  # a line of the log that is not complete yet; it is shown as the block's first
        self._drawn: list[int] = []  # cells of each line of the block that stands there
        self._is_stale = False
        self._drawn_at = 0.0
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        self._thread.start()

    def take(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Take an event in; it is shown soon."""
        with self._lock:
            self._figures.take(kind, fields)
            self._is_stale = True

    def set_age(self, seconds: float) -> None:
        """How long ago the run was submitted."""
        with self._lock:
            self._figures.set_age(seconds)

    def write(self, text: str) -> None:
        """Show text of the log, cleaned, above the block."""
        with self._lock:
            text = self._pending + text
            end = text.rfind("\n") + 1
            self._pending = text[end:]
            self._draw(text[:end])

    def line(self, text: str, style: str) -> None:
        """Show a line that is not of the log, above a line of the log that is not complete."""
        with self._lock:
            self._draw(f"{STYLES[style]}{text}\x1b[0m\n")

    def close(self) -> None:
        """Take the block away; what the log's last line is so far stays."""
        self._over.set()
        with self._lock:
            pending, self._pending = self._pending, ""
            self._draw(pending + "\n" if pending else "", block=False)
        if threading.current_thread() is not self._thread:
            self._thread.join(1)

    def _refresh(self) -> None:
        """Keeps time and figures going while the log is quiet."""
        while not self._over.wait(REDRAW_S):
            with self._lock:
                if self._over.is_set() or self._figures.is_empty:
                    continue
                if self._is_stale or time.monotonic() - self._drawn_at >= 1:
                    try:
                        self._draw("")
                    except (OSError, ValueError):  # the terminal is gone; who writes next finds out
                        return

    def _draw(self, text: str, *, block: bool = True) -> None:
        """Replace the block by `text` and the block anew, in one write."""
        columns, rows = shutil.get_terminal_size()
        lines = []
        if block and columns >= LEAST_COLUMNS and rows >= LEAST_ROWS:
            # The last column stays free: some terminals wrap when it is filled.
            lines = [_cut(self._pending.expandtabs(8), columns - 1)] if self._pending else []
            if not self._figures.is_empty:
                first, second = self._figures.lines(columns - 1)
                lines += [first, second]
        elif block and self._pending:
            lines = [_cut(self._pending.expandtabs(8), max(1, columns - 1))]
        self._stream.write(self._erasure(columns) + text + "\n".join(lines))
        self._stream.flush()
        self._drawn = [cells(line) for line in lines]
        self._is_stale, self._drawn_at = False, time.monotonic()

    def _erasure(self, columns: int) -> str:
        """What takes the block away; a terminal made narrower since has wrapped its lines."""
        if not self._drawn:
            return ""
        up = sum(max(1, math.ceil(length / columns)) for length in self._drawn) - 1
        return "\r" + (f"\x1b[{up}A" if up else "") + "\x1b[J"


def number(value: Any) -> float | None:
    """A figure that can be shown, None for anything else: what is no number, infinite, absurd."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -LARGEST < value < LARGEST else None


def count(value: float) -> str:
    """`950`, `12.3k`, `1.2M`."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.1f}{unit}"
    return f"{value:.0f}"


def whole(value: float) -> str:
    """`1,234`; from ten millions on as `count`."""
    return f"{value:,.0f}" if abs(value) < 1e7 else count(value)


def cells(text: str) -> int:
    """How many columns a text takes at most."""
    return len(text) if text.isascii() else sum(map(_cell, text))


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WFA" else 1


def _cut(text: str, columns: int) -> str:
    """The end of a text that fits: of a prompt and of a counter that is what matters."""
    if cells(text) <= columns:
        return text
    kept, room = len(text), columns
    while kept and room >= _cell(text[kept - 1]):
        kept -= 1
        room -= _cell(text[kept])
    return text[kept:]


def _word(text: str) -> str:
    word = clean(text).replace("\n", " ").replace("\t", " ")[:STATE_CHARACTERS]
    return word if word.isascii() else ""


def _joined(items: Sequence[Item], columns: int) -> str:
    """The items side by side; those of the highest rank are left out until it fits."""
    left = list(items)
    while left and cells(GAP.join(item.text for item in left)) > columns:
        left.remove(max(left, key=lambda item: item.rank))
    return GAP.join(item.text for item in left)


def _gpu_items(gpus: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Of several GPUs the mean use, all memory, and the hottest."""

    def all_of(name: str) -> list[float]:
        return [value for gpu in gpus if (value := number(gpu.get(name))) is not None]

    items = []
    if use := all_of("use_percent"):
        many = f"{len(use)} " if len(use) > 1 else ""
        items.append(Item(f"{many}GPU {sum(use) / len(use):.0f}%", 1))
    used, total = sum(all_of("memory_used_mb")), sum(all_of("memory_total_mb"))
    if total > 0:
        items.append(Item(f"{used / 1024:.1f}/{total / 1024:.0f} GB", 2))
    if heat := all_of("temperature_c"):
        items.append(Item(f"{max(heat):.0f} C", 4))
    return items


def on_stdout(price: Price | None) -> LiveView | None:
    """A live view on this process's terminal, None where none can be drawn."""
    return LiveView(sys.stdout, price) if is_possible(sys.stdout) else None
