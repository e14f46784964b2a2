"""The secrets that this process was given: known by the names in LAUNCH_SECRETS, and kept out of all it writes."""

from __future__ import annotations

import os

NAMES = "LAUNCH_SECRETS"
MASK = "***"
SHORTEST = 4
"""A shorter one would make a mess of every text, and protects nothing."""


def masked(text: str) -> str:
    """`text` with `***` in place of every secret value."""
    values = (os.environ.get(name, "") for name in os.environ.get(NAMES, "").split(",") if name)
    # The longest first: one may be a part of another.
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= SHORTEST:
            text = text.replace(value, MASK)
    return text
