"""What a reader sees in a text at a glance, in Chinese and English: the categories that errors are grouped by.

A trait is about the text's surface: 不错 counts as negated although it praises.  Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

LENGTHS = (("0", 0), ("1-15", 1), ("16-50", 16), ("51-150", 51), ("151-500", 151), ("501+", 501))
"""Names, and from how many characters on."""
VERY_SHORT = 4
NONE = "none of these"

# Words that only look like a negation: 非常 very, 不过 but, 无论 whatever, 别墅 villa, 特别 especially, 未来 future.
_NEGATION = re.compile(
    r"不(?!过)|没|无(?!论|线)|(?<![特区级差个类识辨告离性])别(?![墅人的致])|非(?!常|洲)|未(?!来)|勿"
    r"|(?<![a-z])(?:not?|never|none|nobody|nothing|neither|nor|without|cannot)(?![a-z])|n['’]t(?![a-z])"
)
_CONTRAST = re.compile(
    r"但(?!愿)|可是|不过|然而|虽然|尽管|(?<![a-z])(?:but|however|although|though|yet|despite)(?![a-z])"
)
_QUESTION = re.compile(r"[?？]|吗(?![\u4e00-\u9fff])|难道|为什么|(?<![a-z])(?:why|how come)(?![a-z])")
_EXCLAMATION = re.compile(r"[!！]")
_EMOJI = re.compile(r"[\u2600-\u27bf\u2b50\u2b55\U0001f000-\U0001faff]")
_DIGIT = re.compile(r"[0-9０-９]")
_LATIN = re.compile(r"[a-zａ-ｚ]")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
TRADITIONAL = (
    "這個們來時說對會過還開關見點頭麼樣為與從國學長門問間話誰讓請謝買賣錢東車電實現發覺聽書寫讀愛歡樂質價"
    "務裡貨單壞舊輕鬆難貴網絡業員場機構選擇終應該變種類號萬給經紙線總結兩邊進運遠達適視覽設計試認識課論證"
    "記許訂評語氣滿減溫熱煩營養藥醫療體驗顏題願飯飲館馬驚魚鳥麗麥黃龍"
)
"""Frequent characters that simplified Chinese writes otherwise."""
_TRADITIONAL = re.compile(f"[{TRADITIONAL}]")
_REPEATED = re.compile(r"([^\d\s])\1\1")

_Sees = Callable[[str], object]
_TRAITS: dict[str, _Sees] = {
    "negation": _NEGATION.search,
    "contrast": _CONTRAST.search,
    "question": _QUESTION.search,
    "exclamation mark": _EXCLAMATION.search,
    "emoji": _EMOJI.search,
    "digits": _DIGIT.search,
    # In an English text they are no trait.
    "Latin letters in Chinese": lambda text: _LATIN.search(text) and _HAN.search(text),
    "traditional characters": _TRADITIONAL.search,
    "a character three times": _REPEATED.search,
    "very short": lambda text: len(text) <= VERY_SHORT,
}

Members = dict[str, NDArray[np.bool_]]
"""Rows (N,) by the name of the group they are in."""


def by_length(texts: Sequence[str]) -> Members:
    """Rows by their number of characters, one group a row: `16-50 characters`."""
    lengths = np.array([len(text) for text in texts], np.int64)
    place = np.searchsorted([start for _, start in LENGTHS], lengths, "right") - 1
    return {f"{name} characters": place == number for number, (name, _) in enumerate(LENGTHS)}


def by_trait(texts: Sequence[str]) -> Members:
    """Rows by what is seen in them, any number of groups a row; NONE has those of no other."""
    small = [text.lower() for text in texts]
    seen = {name: np.fromiter(_seen(sees, small), np.bool_, len(small)) for name, sees in _TRAITS.items()}
    return seen | {NONE: ~np.any(list(seen.values()), axis=0)}


def _seen(sees: _Sees, texts: list[str]) -> Iterator[bool]:
    return (bool(sees(text)) for text in texts)
