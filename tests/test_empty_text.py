"""What counts as an empty text, and its answer."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.data import Split
from jobs.empty_text import empty_text_logits, is_empty, without_empty


@pytest.mark.parametrize(
    "text", ["", " \t\r\n\u3000", "\u200b\ufeff\u200d\u2060", "\x00\x1b\x7f\x85", "\u3164\u2800\ufe0f"]
)
def test_nothing_to_see_is_empty(text: str) -> None:
    assert is_empty(text)


@pytest.mark.parametrize("text", ["a", " 。 ", "!", "👍", "\u200b好", "0", "❤\ufe0f", "\U0001fbfe", "\ue000"])
def test_anything_to_see_is_not(text: str) -> None:
    assert not is_empty(text)


def test_empty_texts_are_left_out_and_nothing_else() -> None:
    split = Split(["a", " ", "b", ""], np.array([0, 1, 1, 0]))
    kept = without_empty(split)
    assert (kept.texts, kept.label_ids.tolist()) == (["a", "b"], [0, 1])
    assert without_empty(kept) is kept
    assert len(without_empty(Split([""], np.array([0])))) == 0


def test_the_answer_is_the_shares_of_the_classes_and_none_is_impossible() -> None:
    logits = empty_text_logits(np.array([0, 0, 0, 1]), 3)
    assert logits.dtype == np.float32
    assert np.exp(logits) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
