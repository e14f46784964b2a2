"""How far an inference is, how fast it goes and when it will be over: lines of a log, or figures for a program.

Owns the clock and the words; what is counted is the caller's.
"""

from __future__ import annotations

import time

from jobs.log_line import say

EVERY_S = 5.0
EVERY_MARKED_S = 0.2


class Pace:
    """Called with the rows done and the rows in all (None: nobody knows), says so now and then.

    For people that is a line every few seconds, and none of what is over before; with a `marker` it is a line
    `MARKER DONE TOTAL` for whoever started this process, `-` for a total that is not known.
    """

    def __init__(self, marker: str = "") -> None:
        self._marker = marker
        self._started: tuple[float, int] | None = None
        self._told = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started, self._told = (now, done), now
            if not self._marker:
                return
        elif now - self._told < (EVERY_MARKED_S if self._marker else EVERY_S) and (done != total or not self._marker):
            return
        self._told = now
        say(f"{self._marker} {done} {'-' if total is None else total}" if self._marker else self._in_words(done, total))

    def _in_words(self, done: int, total: int | None) -> str:
        assert self._started is not None
        since, before = self._started
        rate = (done - before) / max(time.monotonic() - since, 1e-9)
        if total is None or rate <= 0:
            return f"inferred {done:,} rows, {rate:,.0f} a second"
        left = (total - done) / rate
        shown = f"{left:,.0f} s" if left < 120 else f"{left / 60:,.0f} min" if left < 7200 else f"{left / 3600:.1f} h"
        return f"inferred {done:,} of {total:,} rows, {_per_second(rate)}, {shown} to go"


def _per_second(rate: float) -> str:
    return f"{rate:,.0f} a second" if rate >= 10 else f"{rate:.2g} a second"
