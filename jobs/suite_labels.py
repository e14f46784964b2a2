"""Which of a model's two labels praises, and whether the built-in suite says anything about a model.

Owns the words that labels are known by; a pair that is not known is never guessed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from jobs.label import label_of
from jobs.suite import NEGATIVE, POSITIVE


def _words(block: str) -> frozenset[str]:
    return frozenset(block.split())


_PRAISE = _words("""
positive pos good like liked recommend recommended satisfied happy favorable favourable 好评 好評 好 正面 正向 正
积极 積極 肯定 推荐 推薦 喜欢 喜歡 满意 滿意 褒义 褒義 赞 讚 正面评价 积极评价
""")
_BLAME = _words("""
negative neg bad dislike disliked unsatisfied dissatisfied unhappy unfavorable unfavourable 差评 差評 差 坏 壞
负面 負面 负向 負向 负 負 消极 消極 否定 不推荐 不推薦 不喜欢 不喜歡 不满意 不滿意 贬义 貶義 踩 负面评价 消极评价
""")
# The larger praises: 1 of 0 and 1, and the ends of a scale of stars.
_NUMBERS = (("1", "0"), ("1", "-1"), ("5", "1"))
SAMPLED_TEXTS, SAMPLED_CHARS = 500, 500
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))


def answers(label_names: Sequence[str], positive_label: str) -> dict[str, str] | None:
    """The labels that stand for `positive` and `negative`, or None where that is not known.

    Words are told by themselves, in any case and width.  Numbers praise with the larger one, but only if it is also
    `positive_label`: who calls the 0 positive has given the numbers another meaning.
    """
    if len(label_names) != 2:
        return None
    for praise, blame in (tuple(label_names), tuple(reversed(label_names))):
        pair = _folded(praise), _folded(blame)
        if (pair[0] in _PRAISE and pair[1] in _BLAME) or (pair in _NUMBERS and praise == positive_label):
            return {POSITIVE: praise, NEGATIVE: blame}
    return None


def applies(label_names: Sequence[str], positive_label: str, texts: Sequence[str]) -> str:
    """Why the built-in suite does not suit a model with these labels and data, in words; "" where it does.

    texts: the data's; a sample of them is looked at.
    """
    if len(label_names) != 2:
        return f"the built-in suite is for two labels; the model has {len(label_names)}"
    if answers(label_names, positive_label) is None:
        named = " and ".join(f"“{name}”" for name in label_names)
        return f"the built-in suite is for praise and complaint; which of {named} praises is not known"
    share = _han_share(texts)
    if share is None:
        return "the built-in suite is for Chinese; the data have no letters"
    if share <= 0.5:
        return f"the built-in suite is for Chinese; {share:.0%} of the data's letters are Chinese characters"
    return ""


def _han_share(texts: Sequence[str]) -> float | None:
    """Share in [0, 1] of the letters of a sample, evenly spread, that are Chinese characters; None without letters."""
    step = max(1, -(-len(texts) // SAMPLED_TEXTS))
    letters = [character for text in texts[::step] for character in text[:SAMPLED_CHARS] if character.isalpha()]
    return sum(map(_is_han, letters)) / len(letters) if letters else None


def _is_han(character: str) -> bool:
    return any(low <= ord(character) <= high for low, high in _HAN)


def _folded(name: str) -> str:
    return label_of(unicodedata.normalize("NFKC", name)).casefold()
