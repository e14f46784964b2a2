"""Durations as a person types them: `30s`, `10m`, `4h`, `2d`, and several together from large to small, `1h30m`."""

from __future__ import annotations

import math
import re

UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
LONGEST_S = 100 * 365 * 86_400
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([a-z]+)\s*")
FORM = "a number and its unit: 30s, 10m, 4h, 2d, or 1h30m"


def parse(text: str) -> float:
    """The seconds.  Raises ValueError, in words: each unit at most once, the larger before the smaller."""
    rest = text.strip().lower()
    if not rest:
        raise ValueError(f"a duration is {FORM}")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", rest):
        raise ValueError(f"{text.strip()} of what? A duration is {FORM}")
    total, smallest = 0.0, math.inf
    while rest:
        part = _PART.match(rest)
        if part is None or part[2] not in UNITS_S:
            raise ValueError(f"{text.strip()!r} is no duration; one is {FORM}")
        unit_s = UNITS_S[part[2]]
        if unit_s >= smallest:
            raise ValueError(f"{text.strip()!r}: each unit once, the larger before the smaller, as in 1h30m")
        total, smallest, rest = total + float(part[1]) * unit_s, unit_s, rest[part.end() :]
    if total > LONGEST_S:
        raise ValueError(f"{text.strip()!r} is longer than a hundred years")
    return total


def in_words(seconds: float) -> str:
    """The two largest units, `1h30m`, `45s`; `parse` reads it.  Of what is no duration `?`."""
    if not math.isfinite(seconds) or not 0 <= seconds <= LONGEST_S:
        return "?"
    left = round(seconds)
    if left >= UNITS_S["d"]:  # nobody asks for the seconds of a day
        left = round(left / 60) * 60
    parts: list[tuple[int, str]] = []
    for unit, unit_s in UNITS_S.items():
        count, left = divmod(left, unit_s)
        if count or parts:
            parts.append((count, unit))
    (first, unit), *rest = parts or [(0, "s")]
    return f"{first}{unit}" + "".join(f"{count:02d}{unit}" for count, unit in rest[:1])
