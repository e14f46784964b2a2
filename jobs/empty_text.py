"""Texts without anything in them: what counts as one, and the answer they get without asking a model."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from jobs.data import Split

# Letters, marks and symbols by their category, and yet nothing to see: fillers, the blank of Braille.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0\ufe0e\ufe0f")


def is_empty(text: str) -> bool:
    """Whether a text is nothing but whitespace, control and format characters (zero-width ones, byte order marks)."""
    return all(character.isspace() or _is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    # Not all of category C: an emoji that is newer than this Python is "unassigned" there.
    return unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp") or character in _BLANK


def without_empty(split: Split) -> Split:
    """The split without its empty texts: nothing can be learned from them, but to answer like the class shares."""
    kept = [row for row, text in enumerate(split.texts) if not is_empty(text)]
    if len(kept) == len(split):
        return split
    return Split([split.texts[row] for row in kept], split.label_ids[kept])


def empty_text_logits(label_ids: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """(C,) the answer to an empty text: log shares of the classes in train, given its label_ids (N,).

    Every class counts one row more than it has (Laplace), so that none is impossible.
    """
    counts = np.bincount(label_ids, minlength=classes) + 1.0
    shares: NDArray[np.float32] = np.log(counts / counts.sum()).astype(np.float32)
    return shares
