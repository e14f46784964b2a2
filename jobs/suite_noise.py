"""Changes that leave alone what a Chinese review says: typing mistakes, width, punctuation, script, emoji.

Every change takes a text and a `Draw` and gives the changed text, or the same one where it finds nothing to change.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from jobs.suite_traditional import traditional

T = TypeVar("T")


def _pairs(block: str) -> dict[str, str]:
    """What each word is written as: both stand there without a space, and are equally long."""
    return {pair[: len(pair) // 2]: pair[len(pair) // 2 :] for pair in block.split()}


_HOMOPHONES = _pairs("""
的地 得的 在再 再在 是事 已以 做作 座坐 那哪 像象 非常飞常 服务福务 房间房键
味道位道 老师老湿 屏幕平幕 孩子孩纸 客服客付 快递快弟 酒店九店 早餐早参
尺码齿码 剧情剧晴 演员眼员 门票门漂 导游导由 包装包庄 作业做业 电池电迟 同事同是
总之总只 价位价味 下次下词 这个这各 时候时后 需要须要 以后已后 质地质的 瓶子平子
结尾结围 吸收吸手 果肉果揉 朋友盆友 妈妈麻麻 什么神马 这样酱紫 同学童鞋
电影电映 文字文子
""")
_LOOK_ALIKES = _pairs("""
未末 己已 已己 人入 入人 土士 日曰 住往 酒洒 干千 味昧 拿掌 货贷 晚晓 早旱 很狠
今令 名各 天夭 间问 季李 师帅 找我 午牛 侍待 幕墓 清请 睛晴 拆折 全金 班斑 贴帖
准淮 免兔 戴载 课棵 脸险 送迭 料科 换唤 景影 票栗 孩该 肉内 洗冼
""")
# A mistake in one of these may change what is said.
_CARRIES_MEANING = frozenset(
    "不没无非未别勿难好坏差烂爱恨值亏赞推荐满失望悔美丑假真香臭甜酸快"
    "慢贵惠净脏谁都绝最太再佳优劣坑骗垃圾喜欢厌恶烦糟棒上当雷五一零星退白避光"
)
_MARKS = re.compile(r"[，。！？；：、～“”（）…—]+")
_CLAUSE = re.compile(r"[^，。！？；：…]+[，。！？；：…]*")
_END_MARKS = re.compile(r"[。！？]+")
# Full-width forms of ASCII lie 0xFEE0 above it; the full stop of Chinese and its brackets have forms of their own.
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}
_HALF_WIDTH = str.maketrans("，。！？；：～（）“”、", ',.!?;:~()"",')


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
