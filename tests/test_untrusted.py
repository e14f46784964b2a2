"""Text from a host: nothing of it moves the cursor, recolours, or hides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.untrusted import HELD_CHARACTERS, Cleaner, clean


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain 中文 text\twith\ttabs\n", "plain 中文 text\twith\ttabs\n"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGk=\x07", ""),
        ("\x1bP1;2q payload\x1b\\after", "after"),
        ("\x1b[2J\x1b[H\x1bc", ""),
        ("\x9b31mred", "red"),
        ("10%\r20%\r\n", "10%\n20%\n"),
        ("a\x00\x08\x7fb", "ab"),
        ("user\u202egpj.exe", "usergpj.exe"),
        ("[bold]markup[/bold] stays text", "[bold]markup[/bold] stays text"),
        ("\x1b", ""),
    ],
)
def test_examples(said: str, shown: str) -> None:
    assert clean(said) == shown


@given(st.text(alphabet=st.sampled_from("\x1b[]0;mHP^_X\\\x07\x9babc\n\r\x00\u202e中")))
def test_no_control_character_survives_and_cleaning_twice_changes_nothing(text: str) -> None:
    shown = clean(text)
    assert not any(ord(character) < 32 and character not in "\n\t" for character in shown)
    assert "\x7f" not in shown
    assert "\x9b" not in shown
    assert clean(shown) == shown


@given(
    st.text(alphabet=st.sampled_from("\x1b[]0;mHP^_X\\\x07\x9babc\n\r\x00\u202e中 "), max_size=40),
    st.lists(st.integers(0, 40), max_size=5),
)
def test_in_pieces_it_is_the_same(text: str, cuts: list[int]) -> None:
    cleaner = Cleaner()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(cleaner.clean(text[start:end]) for start, end in zip(places, places[1:], strict=False))
    assert shown + cleaner.rest() == clean(text)


def test_a_sequence_without_end_hides_only_so_much() -> None:
    cleaner = Cleaner()
    shown = cleaner.clean("before\x1b]0;") + "".join(cleaner.clean("x" * 100) for _ in range(HELD_CHARACTERS // 50))
    assert shown.startswith("before")
    assert len(shown) > HELD_CHARACTERS // 2
