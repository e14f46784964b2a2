"""Test rows that are nearly a training row: which are found, and what is taken for a record of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import overlap
from jobs.data import Split
from jobs.errors import BrokenRun
from jobs.overlap import MAX_TEXT_CHARS, Overlap, Twin

bounded = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = ("neg", "pos")
REVIEW = "这家酒店的房间很干净，早餐也很丰富，下次来这个城市还会住这里，前台的服务态度也非常好"


def found(train: list[tuple[str, int]], *texts: str) -> dict[int, Twin]:
    split = Split([text for text, _ in train], np.array([label for _, label in train], np.int64))
    return dict(overlap.find(split, texts, NAMES).twins)


def test_the_same_text_is_found_whatever_its_punctuation_and_however_short() -> None:
    twins = found([("很差", 0), ("很好！", 1)], "一般", " 很好 。", "很差")
    assert twins == {1: Twin("很好！", "pos"), 2: Twin("很差", "neg")}


def test_a_long_text_that_differs_by_a_word_is_found_and_another_one_is_not() -> None:
    twins = found([(REVIEW, 1), ("物流太慢了，包装也破了", 0)], REVIEW.replace("非常", "特别"), REVIEW[:12])
    assert twins == {0: Twin(REVIEW, "pos")}


def test_of_the_same_text_with_two_labels_the_more_frequent_one_counts() -> None:
    assert found([("还行", 1), ("还行。", 0), ("还行！", 0)], "还行") == {0: Twin("还行。", "neg")}
    assert found([("还行", 1), ("还行。", 0)], "还行") == {0: Twin("还行", "pos")}


def test_a_long_training_text_is_cut(tmp_path: Path) -> None:
    twins = found([("好" * 5000, 1)], "好" * 5000)
    assert twins[0].text == "好" * (MAX_TEXT_CHARS - 1) + "…"
    Overlap(twins).save(tmp_path / "o.jsonl")
    assert overlap.load(tmp_path / "o.jsonl", 1, NAMES) == Overlap(twins)


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=MAX_TEXT_CHARS)


@bounded
@given(st.dictionaries(st.integers(0, 99), st.builds(Twin, _TEXT, st.sampled_from(NAMES)), max_size=5))
def test_it_comes_back_as_it_was_saved(tmp_path: Path, twins: dict[int, Twin]) -> None:
    saved = Overlap(dict(sorted(twins.items())))
    saved.save(tmp_path / "overlap.jsonl")
    assert overlap.load(tmp_path / "overlap.jsonl", 100, NAMES) == saved


def test_a_run_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    assert overlap.load(tmp_path / "overlap.jsonl", 3, NAMES) is None


GOOD = {"row": 1, "text": "好", "label": "pos"}


@pytest.mark.parametrize(
    "lines",
    [
        [GOOD | {"row": 3}],
        [GOOD | {"row": -1}],
        [GOOD | {"row": True}],
        [GOOD | {"row": 1.0}],
        [GOOD, GOOD],
        [GOOD, GOOD | {"row": 0}],
        [GOOD | {"label": "other"}],
        [GOOD | {"label": ["pos"]}],
        [GOOD | {"text": None}],
        [GOOD | {"text": "a\0b"}],
        [GOOD | {"text": "\ud800"}],
        [GOOD | {"text": "x" * (MAX_TEXT_CHARS + 1)}],
        [GOOD | {"text": "\x1f" * 100_000}],
        [GOOD | {"more": 1}],
        [{"row": 1, "text": "好"}],
        [[GOOD]],
        [None],
    ],
    ids=lambda lines: str(lines)[:60],
)
def test_what_no_host_of_ours_writes_is_refused(tmp_path: Path, lines: list[object]) -> None:
    path = tmp_path / "overlap.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    with pytest.raises(BrokenRun, match=rf"{path}, line {len(lines)}: "):
        overlap.load(path, 3, NAMES)


@bounded
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_are_an_overlap_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "overlap.jsonl"
    path.write_bytes(content)
    try:
        assert overlap.load(path, 3, NAMES) == Overlap({})
    except BrokenRun as error:
        assert str(path) in error.message
    path.write_bytes(b"[" * 5000 + b"\n")
    with pytest.raises(BrokenRun):
        overlap.load(path, 3, NAMES)
