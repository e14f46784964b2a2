"""Changes that leave a Chinese review's meaning alone: typing mistakes, character width, lost punctuation, emoji.

Every function takes a text and a `Draw` and gives the changed text, or the text itself where it finds nothing to change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from jobs.suite_traditional import traditional

T = TypeVar("T")

_HOMOPHONES = {
    "的": "地", "得": "的", "在": "再", "再": "在", "是": "事", "已": "以", "做": "作", "座": "坐", "那": "哪", "像": "象",
    "非常": "飞常", "服务": "福务", "房间": "房键", "味道": "位道", "老师": "老湿", "屏幕": "平幕", "推荐": "推见",
    "孩子": "孩纸", "客服": "客付", "快递": "快弟", "酒店": "九店", "早餐": "早参", "尺码": "齿码",
    "剧情": "剧晴", "演员": "眼员", "门票": "门漂", "导游": "导由", "包装": "包庄", "作业": "做业", "电池": "电迟",
    "同事": "同是", "总之": "总只", "价位": "价味", "下次": "下词", "这个": "这各", "时候": "时后", "需要": "须要",
    "以后": "已后", "质地": "质的", "瓶子": "平子", "结尾": "结围", "吸收": "吸手", "果肉": "果揉", "朋友": "盆友",
    "妈妈": "麻麻", "什么": "神马", "这样": "酱紫", "喜欢": "稀饭", "同学": "童鞋", "电影": "电映", "文字": "文子",
}  # fmt: skip
_LOOK_ALIKES = {
    "未": "末", "己": "已", "已": "己", "人": "入", "入": "人", "土": "士", "日": "曰", "住": "往", "酒": "洒", "干": "千",
    "味": "昧", "拿": "掌", "货": "贷", "晚": "晓", "早": "旱", "很": "狠", "今": "令", "名": "各", "天": "夭",
    "间": "问", "季": "李", "师": "帅", "找": "我", "午": "牛", "侍": "待", "幕": "墓", "清": "请", "睛": "晴", "拆": "折",
    "全": "金", "班": "斑", "贴": "帖", "准": "淮", "免": "兔", "戴": "载", "课": "棵", "脸": "险",
    "送": "迭", "料": "科", "换": "唤", "景": "影", "票": "栗", "孩": "该", "肉": "内", "洗": "冼",
}  # fmt: skip
# A mistake in one of these, or beside it, may change what is said.
_CARRIES_MEANING = frozenset(
    "不没无非未别勿难好坏差烂爱恨值亏赞推荐满失望悔美丑假真香臭甜酸快慢贵惠净脏谁都绝最太再佳优劣坑骗垃圾喜欢厌恶烦糟棒上当雷五一零星"
)
_MARKS = re.compile(r"[，。！？；：、～“”（）…—]+")
_CLAUSE = re.compile(r"[^，。！？；：…]+[，。！？；：…]*")
_END_MARKS = re.compile(r"[。！？]+")
# Full-width forms of ASCII lie 0xFEE0 above it; the full stop of Chinese and its brackets have forms of their own.
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_HALF_WIDTH = str.maketrans({"，": ",", "。": ".", "！": "!", "？": "?", "；": ";", "：": ":", "～": "~", "（": "(", "）": ")",
                             "“": '"', "”": '"', "、": ","})  # fmt: skip


class Draw:
    """Choices from a seed, the same on every machine and Python: of `random`, only random() promises that."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, end: int) -> int:
        """A whole number from 0 to end - 1."""
        return int(self._random.random() * end)

    def one(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different ones, in an order of chance."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(count)]


Noise = Callable[[str, Draw], str]


def homophone(text: str, draw: Draw) -> str:
    """One or two words as an input method might offer them: of the same sound, or nearly."""
    return _substituted(_substituted(text, _HOMOPHONES, draw), _HOMOPHONES, draw)


def look_alike(text: str, draw: Draw) -> str:
    """One or two characters of nearly the same shape, as optical recognition reads them."""
    return _substituted(_substituted(text, _LOOK_ALIKES, draw), _LOOK_ALIKES, draw)


def swapped(text: str, draw: Draw) -> str:
    """Two neighbours in the wrong order."""
    places = [i for i in range(len(text) - 1) if text[i] != text[i + 1] and _harmless(text[i : i + 2])]
    if not places:
        return text
    i = draw.one(places)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def dropped(text: str, draw: Draw) -> str:
    """One character less."""
    places = [i for i in range(len(text)) if _harmless(text[i])]
    if not places:
        return text
    i = draw.one(places)
    return text[:i] + text[i + 1 :]


def full_width(text: str, draw: Draw) -> str:
    """Letters, digits and marks of ASCII in the width of Chinese characters."""
    return text.translate(_FULL_WIDTH)


def half_width(text: str, draw: Draw) -> str:
    """Chinese punctuation as its ASCII counterpart."""
    return text.translate(_HALF_WIDTH)


def full_and_spaced(text: str, draw: Draw) -> str:
    """As `full_width`, and ideographic spaces after every mark."""
    return _MARKS.sub(lambda mark: mark[0] + "\u3000", text).strip().translate(_FULL_WIDTH)


def without_marks(text: str, draw: Draw) -> str:
    """No punctuation at all."""
    return _MARKS.sub("", text)


def marks_to_spaces(text: str, draw: Draw) -> str:
    """A space where punctuation was."""
    return _MARKS.sub(" ", text).strip()


def marks_to_lines(text: str, draw: Draw) -> str:
    """A line end where punctuation was."""
    return _MARKS.sub("\n", text).strip()


def commas_only(text: str, draw: Draw) -> str:
    """Commas throughout, nothing at the end."""
    return _MARKS.sub("，", text).strip("，")


def doubled_marks(text: str, draw: Draw) -> str:
    """Every mark two to five times."""
    return _MARKS.sub(lambda mark: mark[0][0] * (2 + draw.below(4)), text)


def ends_only(text: str, draw: Draw) -> str:
    """No marks but those that end a sentence."""
    return _MARKS.sub(lambda mark: mark[0] if _END_MARKS.fullmatch(mark[0]) else "", text)


def in_traditional(text: str, draw: Draw) -> str:
    """Traditional characters."""
    return traditional(text)


def in_traditional_by_halves(text: str, draw: Draw) -> str:
    """As people write who learnt both: one clause so, the next one so."""
    pieces = _CLAUSE.findall(text)
    first = draw.below(2)
    return "".join(traditional(one) if place % 2 == first else one for place, one in enumerate(pieces))


def emoji_for_marks(text: str, draw: Draw, emoji: Sequence[str]) -> str:
    """Emoji where sentences end, in place of the marks."""
    return _END_MARKS.sub(lambda mark: draw.one(emoji), text)


def emoji_between(text: str, draw: Draw, emoji: Sequence[str]) -> str:
    """An emoji before every second mark or so."""
    return _MARKS.sub(lambda mark: draw.one(("", draw.one(emoji))) + mark[0], text)


def emoji_at_the_end(text: str, draw: Draw, emoji: Sequence[str]) -> str:
    """Two to five more of one kind."""
    return text + draw.one(emoji) * (2 + draw.below(4))


def _substituted(text: str, table: dict[str, str], draw: Draw) -> str:
    """One entry of the table that occurs, once, away from what carries meaning."""
    places = [
        (i, word)
        for word in table
        for i in range(len(text))
        if text.startswith(word, i) and not _CARRIES_MEANING & set(word)
    ]
    if not places:
        return text
    i, word = draw.one(places)
    return text[:i] + table[word] + text[i + len(word) :]


def _harmless(piece: str) -> bool:
    return piece.isalpha() and not _CARRIES_MEANING & set(piece)
