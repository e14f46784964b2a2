"""When two texts are the same text to a reader: without regard to width, case, spacing and punctuation."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata

_BETWEEN_WORDS = re.compile(r"[\W_]+")


def folded(text: str) -> str:
    """NFKC, casefolded, with one space for every run of whitespace and punctuation; emoji and other symbols stay.

    A text of nothing but punctuation stays as it is, but for its whitespace: ??? is not !!!.
    """
    words = _BETWEEN_WORDS.sub(lambda run: _symbols(run[0]), unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or " ".join(text.split())


def key(text: str) -> int:
    """64 bits that are the same for texts that are folded to the same."""
    return key_of_folded(folded(text))


def key_of_folded(text: str) -> int:
    """As `key`, of a text that is folded already."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


@functools.lru_cache(maxsize=65536)
def _symbols(run: str) -> str:
    return "".join(character for character in run if not _is_between(unicodedata.category(character))) or " "


def _is_between(category: str) -> bool:
    """Punctuation, spaces, control and format characters; what is unassigned may be an emoji newer than this Python."""
    return category[0] in "PZ" or category in ("Cc", "Cf")
