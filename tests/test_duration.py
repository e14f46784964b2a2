"""Durations and prices as a person types them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher import duration, price
from launcher.price import Price


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("30s", 30), ("10m", 600), ("4h", 14_400), ("2d", 172_800), ("1h30m", 5400), ("1d 12h", 129_600),
        ("1.5h", 5400), (" 10M ", 600), ("0s", 0), ("1d2h3m4s", 93_784), ("90m", 5400),
    ],
)  # fmt: skip
def test_durations(typed: str, seconds: float) -> None:
    assert duration.parse(typed) == seconds


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("", "30s, 10m"), ("10", "10 of what?"), ("m", "'m' is no duration"), ("10x", "'10x' is no duration"),
        ("-5m", "no duration"), ("5m5m", "each unit once"), ("30m1h", "the larger before"), ("1e3s", "no duration"),
        ("101d400000000h", "hundred years"), ("1,5h", "no duration"), ("1h30", "no duration"), ("nan", "no duration"),
        ("٣m", "no duration"), ("9" * 400 + "s", "no duration"),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_said_in_words(typed: str, says: str) -> None:
    with pytest.raises(ValueError, match=".*") as refused:
        duration.parse(typed)
    assert says in str(refused.value)


@given(st.text(alphabet="0123456789dhms. x", max_size=12))
def test_any_text_is_a_duration_or_refused(typed: str) -> None:
    try:
        seconds = duration.parse(typed)
    except ValueError as refused:
        assert "30s" in str(refused) or "each unit" in str(refused) or "hundred" in str(refused)
    else:
        assert 0 <= seconds <= duration.LONGEST_S


@given(st.floats(0, duration.LONGEST_S))
def test_what_is_said_of_a_time_can_be_typed(seconds: float) -> None:
    again = duration.parse(duration.in_words(seconds))
    assert abs(again - seconds) <= (0.5 if seconds < 3599 else 60 if seconds < 86_400 else 3600)
    assert len(duration.in_words(seconds)) <= 9


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 1e300])
def test_a_time_that_is_none(value: float) -> None:
    assert duration.in_words(value) == "?"


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("1.98/h", Price(1.98)), ("¥1.98/h", Price(1.98, "¥")), ("$0.5", Price(0.5, "$")), ("￥2", Price(2, "￥")),
        (" € 3.10 / hour ", Price(3.1, "€")), ("CNY 1.98/h", Price(1.98, "CNY")), (".5", Price(0.5)), ("0", Price(0)),
    ],
)  # fmt: skip
def test_prices(typed: str, read: Price) -> None:
    assert price.parse(typed) == read


@pytest.mark.parametrize(
    "typed", ["", "free", "-1", "1,98", "1.98/day", "1e3", "nan", "inf", "9999999", "$", "\x1b1", "1.9.8"]
)
def test_what_is_no_price_is_said_in_words(typed: str) -> None:
    with pytest.raises(ValueError, match=r"\$0\.5"):
        price.parse(typed)


def test_what_hours_cost() -> None:
    assert Price(1.98, "¥").of(3600) == "¥1.98"
    assert Price(2, "CNY").of(900) == "CNY 0.50"
    assert Price(2).of(math.nan) == Price(2).of(-5) == Price(2).of(1e300) == "?"
