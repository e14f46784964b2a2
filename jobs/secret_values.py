"""The secrets that this process was given: known by the names in LAUNCH_SECRETS, and kept out of all it writes."""

from __future__ import annotations

import functools
import json
import os
from typing import Any
from urllib.parse import quote, quote_plus

NAMES = "LAUNCH_SECRETS"
MASK = "***"
SHORTEST = 4
"""A shorter one would make a mess of every text, and protects nothing."""
SHORTEST_LINE = 6
"""The same of a line of one that has several."""


def masked(text: str) -> str:
    """`text` with `***` in place of every secret value, also as it stands in JSON, by repr, or in an address."""
    for form in _forms(tuple(os.environ.get(name, "") for name in os.environ.get(NAMES, "").split(",") if name)):
        text = text.replace(form, MASK)
    return text


def masked_fields(value: Any) -> Any:
    """A JSON value with all its texts masked; not the keys, by which others find them."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_fields(one) for key, one in value.items()}
    return [masked_fields(one) for one in value] if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=1)
def _forms(values: tuple[str, ...]) -> tuple[str, ...]:
    """The longest first: one may be a part of another."""
    whole = {value.strip() for value in values if len(value.strip()) >= SHORTEST}
    lines = {line.strip() for value in whole if "\n" in value for line in value.splitlines()}
    whole |= {line for line in lines if len(line) >= SHORTEST_LINE}
    found = set()
    for value in whole:
        content = value.encode("utf-8", "surrogateescape")
        found |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1],
                  quote(content), quote(content, safe=""), quote_plus(content)}  # fmt: skip
    return tuple(sorted(found, key=len, reverse=True))
