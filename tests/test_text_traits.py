"""What is seen in a text, in both languages, and what only looks like it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import text_traits


def traits(text: str) -> set[str]:
    return {name for name, members in text_traits.by_trait([text]).items() if members[0]}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("房间不错，服务很好", {"negation"}),
        ("没有热水的酒店房间", {"negation"}),
        ("别买这个牌子的手机", {"negation"}),
        ("这里非常干净特别舒服", {text_traits.NONE}),
        ("别墅区别很大性别无论", {text_traits.NONE}),
        ("I do not like the room", {"negation"}),
        ("It doesn’t work at all", {"negation"}),
        ("Another notable nook", {text_traits.NONE}),
        ("位置好但是房间太小了", {"contrast"}),
        ("位置好，不过房间太小", {"contrast"}),
        ("Good, BUT too small", {"contrast"}),
        ("butter and butterflies", {text_traits.NONE}),
        ("这个房间还可以退吗？", {"question"}),
        ("Is this all there is?", {"question"}),
        ("服务态度真的太好了！", {"exclamation mark"}),
        ("服务态度真的太好了😀", {"emoji"}),
        ("住了 3 天感觉很舒服", {"digits"}),
        ("住了３天感觉还算舒服", {"digits"}),
        ("酒店的 WiFi 信号很强", {"Latin letters in Chinese"}),
        ("A quiet and clean room", {text_traits.NONE}),
        ("房間很大，服務也好", {"traditional characters"}),
        ("房间很大哈哈哈真好", {"a character three times"}),
        ("价格 1000 元的房间", {"digits"}),
        ("还行", {"very short"}),
        ("", {"very short"}),
        ("不好！！！", {"negation", "exclamation mark", "a character three times"}),
    ],
)
def test_what_is_seen(text: str, seen: set[str]) -> None:
    assert traits(text) == seen


@pytest.mark.parametrize(
    ("length", "name"),
    [
        (0, "0"), (1, "1-15"), (15, "1-15"), (16, "16-50"), (50, "16-50"), (51, "51-150"), (150, "51-150"),
        (151, "151-500"), (500, "151-500"), (501, "501+"), (9999, "501+"),
    ],
)  # fmt: skip
def test_lengths_fall_where_their_names_say(length: int, name: str) -> None:
    groups = text_traits.by_length(["好" * length])
    assert [group for group, members in groups.items() if members[0]] == [f"{name} characters"]


@given(st.lists(st.text(max_size=40), max_size=5))
def test_every_text_has_one_length_and_a_trait_or_none(texts: list[str]) -> None:
    lengths, seen = text_traits.by_length(texts), text_traits.by_trait(texts)
    assert all(len(members) == len(texts) for members in (lengths | seen).values())
    assert np.all(np.sum(list(lengths.values()), axis=0) == 1)
    some = np.any([members for name, members in seen.items() if name != text_traits.NONE], axis=0)
    assert np.all(some != seen[text_traits.NONE])


def test_no_character_of_simplified_chinese_counts_as_traditional() -> None:
    """GB 2312 is the set of simplified characters: it has none of the traditional forms."""
    for character in text_traits.TRADITIONAL:
        assert "traditional characters" in traits(character)
        with pytest.raises(UnicodeEncodeError):
            character.encode("gb2312")
