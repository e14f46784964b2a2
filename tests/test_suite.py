"""The built-in suite is what it says of itself, a suite's file comes back exactly, and what is none is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.empty_text import is_empty
from jobs.errors import DataError
from jobs.folded_text import folded
from jobs.suite import (
    CALM,
    DIRECTION,
    INVARIANCE,
    LARGEST_BYTES,
    MINIMUM,
    MOST_CASES,
    Case,
    Suite,
    built_in,
    dump,
    load,
)
from jobs.suite_labels import answers, applies

REPOSITORY = Path(__file__).resolve().parent.parent
CATEGORIES = (
    "short positive", "short negative", "irony", "stacked negation", "internet slang", "typos", "mixed long",
    "ultra-long", "emoji", "empty and symbols", "traditional and simplified", "width", "punctuation loss",
)  # fmt: skip
SUITE = built_in()
bounded = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def of(category: str, test: str = "") -> list[Case]:
    return [case for case in SUITE.cases if case.category == category and test in ("", case.test)]


# ---- the built-in suite


def test_it_has_thirteen_categories_of_a_hundred_different_cases() -> None:
    counts = Counter(case.category for case in SUITE.cases)
    assert tuple(counts) == CATEGORIES and min(counts.values()) >= 100 and len(SUITE.cases) >= 1300
    assert len({case.id for case in SUITE.cases}) == len(SUITE.cases)
    assert len({(case.test, folded(case.text)) for case in SUITE.cases if case.test == MINIMUM}) == sum(
        case.test == MINIMUM for case in SUITE.cases
    )
    assert len({(case.original, case.text) for case in SUITE.cases}) == len(SUITE.cases)


def test_no_category_of_two_labels_can_be_won_by_always_saying_the_same() -> None:
    for category in CATEGORIES[2:]:
        labels = Counter(case.label for case in of(category))
        assert category == "empty and symbols" or max(labels.values()) <= 0.62 * sum(labels.values()), category
    assert {case.label for case in of("empty and symbols")} == {None}


def test_it_is_the_same_in_every_process() -> None:
    program = "from jobs.suite import built_in; print(built_in().sha256)"
    for seed in ("0", "77"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)}
        told = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert told.stdout.strip() == SUITE.sha256


def test_it_costs_nothing_until_it_is_asked_for_and_little_then() -> None:
    program = (
        "import sys, jobs.suite; print(sorted(m for m in sys.modules if m.startswith('jobs.suite_') or m == 'numpy'))"
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    started = time.process_time()
    built_in()
    assert time.process_time() - started < 1


def test_no_pattern_is_left_unfilled_and_no_text_is_longer_than_meant() -> None:
    assert not [text for text in SUITE.texts if "{" in text or "}" in text]
    lengths = {category: [len(case.text) for case in of(category)] for category in CATEGORIES}
    assert min(lengths["ultra-long"]) >= 2000
    assert max(lengths["short positive"] + lengths["short negative"]) <= 12
    assert max(max(some) for category, some in lengths.items() if category != "ultra-long") < 300


def test_width_and_punctuation_change_nothing_that_is_read() -> None:
    for case in of("width") + of("punctuation loss"):
        assert case.original is not None and case.text != case.original
        assert folded(case.text).replace(" ", "") == folded(case.original).replace(" ", ""), case


def test_a_typing_mistake_touches_few_characters_and_no_negation() -> None:
    for case in of("typos"):
        assert case.original is not None and case.text != case.original
        assert len(case.original) - len(case.text) in (0, 1)
        left = Counter(case.original)
        left.subtract(case.text)
        assert sum(abs(count) for count in left.values()) <= 8
        for word in "不没无好差":
            assert case.text.count(word) == case.original.count(word), case


def test_traditional_cases_are_written_in_traditional_characters() -> None:
    whole = 0
    for case in of("traditional and simplified", INVARIANCE):
        assert case.original is not None and case.text != case.original and len(case.text) == len(case.original)
        whole += _is_big5(case.text)
        assert not _is_big5(case.original)
    assert whole >= 40


def _is_big5(text: str) -> bool:
    """Whether all of its Chinese characters are of Taiwan's encoding, which has no simplified ones."""
    try:
        "".join(character for character in text if character.isalpha()).encode("big5")
    except UnicodeEncodeError:
        return False
    return True


def test_directions_turn_a_text_around() -> None:
    turned = [case for case in SUITE.cases if case.test == DIRECTION]
    assert {(case.direction, case.label) for case in turned} == {(1, "positive"), (-1, "negative")}
    assert all(case.text != case.original for case in turned)


def test_what_calls_for_calm_has_no_opinion_in_it() -> None:
    cases = of("empty and symbols")
    assert all(case.test == CALM for case in cases)
    assert sum(is_empty(case.text) for case in cases) >= 10
    assert sum(not any(character.isalnum() for character in case.text) for case in cases) >= 60


# ---- what a suite is


def test_texts_are_the_originals_and_the_texts_once_each() -> None:
    suite = Suite("own", (
        Case("a", "x", INVARIANCE, "好!", "positive", "好"),
        Case("b", "x", MINIMUM, "好", "positive"),
        Case("c", "y", CALM, ""),
    ))  # fmt: skip
    assert suite.texts == ("好", "好!", "")
    assert [suite.index[text] for text in suite.texts] == [0, 1, 2]
    assert suite.sha256 == Suite("another name", suite.cases).sha256 != Suite("own", suite.cases[:2]).sha256


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test": "speed"}, "test must be one of"),
        ({"label": None}, "needs a label"),
        ({"original": "坏"}, "has no original"),
        ({"test": INVARIANCE}, "needs an original"),
        ({"test": CALM}, "calm has no label"),
        ({"direction": 1}, "direction is 1 or -1 for the test direction"),
        ({"test": DIRECTION, "original": "坏"}, "direction is 1 or -1"),
        ({"test": DIRECTION, "original": "坏", "direction": 2}, "direction is 1 or -1"),
        ({"text": "a\0b"}, "text: a NUL"),
        ({"text": "\ud83d"}, "half a surrogate pair"),
        ({"category": ""}, "category must have 1 to 200"),
        ({"id": "x" * 201}, "id must have 1 to 200"),
    ],
)
def test_a_case_that_is_none_is_refused(changes: dict[str, object], says: str) -> None:
    fields = {"id": "a", "category": "x", "test": MINIMUM, "text": "好", "label": "positive"} | changes
    with pytest.raises(DataError, match=says):
        Suite("own", (Case(**fields),))  # type: ignore[arg-type]


def test_two_cases_with_one_id_are_refused() -> None:
    with pytest.raises(DataError, match="twice"):
        Suite("own", (Case("a", "x", CALM, ""), Case("a", "x", CALM, " ")))


# ---- its file

_TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('"\\\r\n\t\u2028\ufeff好'), max_size=20
)
_NAME = _TEXT.filter(bool)
# As a label comes back from a file: stripped, and a number as such.
_LABEL = st.sampled_from(["positive", "negative", "1", "0", "-1", "好评", "3.5", "two words"])


@st.composite
def suites(draw: st.DrawFn) -> Suite:
    cases = []
    for name in draw(st.lists(_NAME, min_size=1, max_size=6, unique=True)):
        test = draw(st.sampled_from([MINIMUM, INVARIANCE, DIRECTION, CALM]))
        label = draw(_LABEL) if test == MINIMUM else None if test == CALM else draw(st.none() | _LABEL)
        original = draw(_TEXT) if test in (INVARIANCE, DIRECTION) else None
        direction = draw(st.sampled_from([-1, 1])) if test == DIRECTION else 0
        cases.append(Case(name, draw(_NAME), test, draw(_TEXT), label, original, direction))
    return Suite(draw(_NAME), tuple(cases))


@bounded
@given(suites())
def test_a_suite_comes_back_exactly(tmp_path: Path, suite: Suite) -> None:
    dump(suite, tmp_path / "suite.jsonl")
    back = load(tmp_path / "suite.jsonl")
    assert back == suite and back.sha256 == suite.sha256


def test_the_built_in_one_comes_back_exactly(tmp_path: Path) -> None:
    dump(SUITE, tmp_path / "suite.jsonl")
    assert load(tmp_path / "suite.jsonl") == SUITE


_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        key: st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | _TEXT | st.lists(_TEXT, max_size=1)
        | st.sampled_from([MINIMUM, INVARIANCE, DIRECTION, CALM])
        for key in ("id", "category", "test", "text", "label", "original", "direction", "suite", "cases")
    },
)  # fmt: skip


@bounded
@given(
    st.binary(max_size=60) | st.lists(_FIELDS, max_size=4).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())
)
def test_whatever_a_file_holds_is_a_suite_or_an_error_of_ours(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.jsonl"
    path.write_bytes(content)
    try:
        suite = load(path)
    except DataError as error:
        assert str(path) in error.message and error.hint
    else:
        assert suite.cases


def own(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "own.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_three_keys_are_enough_and_the_test_follows_from_the_others(tmp_path: Path) -> None:
    suite = load(own(
        tmp_path,
        '{"text": "好", "label": "positive", "category": "mine"}',
        "",
        '{"text": "", "label": null, "category": "nothing"}\r',
        '{"text": "好！", "label": 1, "category": "marks", "original": "好", "id": 7}',
        '{"text": "不好", "label": "0", "category": "not", "original": "好", "direction": -1, "id": "n"}',
    ))  # fmt: skip
    assert suite.name == "own"
    assert suite.cases == (
        Case("1", "mine", MINIMUM, "好", "positive"),
        Case("3", "nothing", CALM, ""),
        Case("7", "marks", INVARIANCE, "好！", "1", "好"),
        Case("n", "not", DIRECTION, "不好", "0", "好", -1),
    )


GOOD_LINE = '{"text": "好", "label": "positive", "category": "mine"}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "not an object"),
        ('{"text": "好"', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"text": NaN, "label": null, "category": "x"}', "NaN is not JSON"),
        ('{"text": "好", "category": "x"}', "no label"),
        ('{"text": 1, "label": null, "category": "x"}', "text must be a text, not 1"),
        ('{"text": null, "label": null, "category": "x"}', "text must be a text, not None"),
        ('{"text": "好", "label": [], "category": "x"}', "label must be"),
        ('{"text": "好", "label": " ", "category": "x"}', "an empty label"),
        ('{"text": "好", "label": "a", "category": "x", "lable": 1}', "unknown key lable"),
        ('{"text": "好", "label": "a", "category": "x", "direction": true}', "direction must be"),
        ('{"text": "好", "label": "a", "category": "x", "direction": 1}', "direction needs an original"),
        ('{"text": "好", "label": "a", "category": "x", "test": "speed"}', "test must be one of"),
        ('{"text": "好", "label": "a", "category": "x", "id": 1}', "id 1 stands there twice"),
        ('{"text": "好", "label": "a", "category": "x", "id": 1.5}', "id must be a text"),
        ('{"text": "\\ud83d", "label": "a", "category": "x"}', "half a surrogate pair"),
        ('{"text": "\\u0000", "label": "a", "category": "x"}', "a NUL"),
        ('{"suite": "late", "cases": 1}', "unknown key cases"),
    ],
)
def test_a_line_that_is_no_case_is_named(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        load(own(tmp_path, GOOD_LINE, line))
    assert "line 2: " in caught.value.message and says in caught.value.message
    assert '"category"' in caught.value.hint and len(caught.value.message) < 400


def test_the_first_few_problems_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(own(tmp_path, *["[]"] * 3, GOOD_LINE, *["{}"] * 9))
    assert [f"line {number}:" in caught.value.message for number in (1, 2, 3, 4, 5, 6, 7)] == [True] * 3 + [False] + [
        True, True, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ((), "no cases"),
        (('{"suite": "s", "cases": 0}',), "no cases"),
        (('{"suite": "s", "cases": 2}', GOOD_LINE), "1 cases, and its first line says 2: was it cut"),
        (('{"suite": "", "cases": 1}', GOOD_LINE), "line 1: the first line must be"),
        (('{"suite": "s", "cases": true}', GOOD_LINE), "line 1: the first line must be"),
    ],
)
def test_a_file_that_is_cut_or_empty_is_refused(tmp_path: Path, lines: tuple[str, ...], says: str) -> None:
    with pytest.raises(DataError, match=says):
        load(own(tmp_path, *lines))


def test_files_without_end_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(DataError, match="larger than 64 MiB"):
        load(path)
    path.write_bytes(b'{"text":"","label":null,"category":"x"}\n' * (MOST_CASES + 1))
    with pytest.raises(DataError, match="more than 200,000 cases"):
        load(path)
    path.write_text("\n".join(f'{{"text":"","label":null,"category":"{n}"}}' for n in range(1001)), "utf-8")
    with pytest.raises(DataError, match="1,000 categories"):
        load(path)


def test_a_file_that_is_missing_or_not_utf_8_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: can't be read"):
        load(tmp_path / "none.jsonl")
    path = tmp_path / "gbk.jsonl"
    path.write_bytes(b"\n" + GOOD_LINE.encode("gbk"))
    with pytest.raises(DataError, match="line 2: not UTF-8"):
        load(path)


# ---- labels


@pytest.mark.parametrize(
    ("names", "positive_label", "praise"),
    [
        (("negative", "positive"), "positive", "positive"),
        (("POS", "neg"), "neg", "POS"),
        (("差评", "好评"), "好评", "好评"),
        (("正面", "负面"), "负面", "正面"),
        (("消极", "积极"), "积极", "积极"),
        (("Good", "Bad"), "Bad", "Good"),
        (("dislike", "like"), "like", "like"),
        (("0", "1"), "1", "1"),
        (("1", "0"), "1", "1"),
        (("-1", "1"), "1", "1"),
        (("1.0", "0.0"), "1.0", "1.0"),
        (("1", "5"), "5", "5"),
        (("ＰＯＳＩＴＩＶＥ", "NEGATIVE "), "NEGATIVE ", "ＰＯＳＩＴＩＶＥ"),
    ],
)
def test_labels_that_are_known(names: tuple[str, str], positive_label: str, praise: str) -> None:
    (blame,) = set(names) - {praise}
    assert answers(names, positive_label) == {"positive": praise, "negative": blame}


@pytest.mark.parametrize(
    ("names", "positive_label"),
    [
        (("0", "1"), "0"),  # whoever calls the 0 positive has given the numbers another meaning
        (("spam", "ham"), "spam"),
        (("positive", "neutral"), "positive"),
        (("positive", "good"), "good"),
        (("LABEL_0", "LABEL_1"), "LABEL_1"),
        (("negative", "neutral", "positive"), "positive"),
        (("2", "3"), "3"),
    ],
)
def test_labels_whose_meaning_is_not_known_are_not_guessed(names: tuple[str, ...], positive_label: str) -> None:
    assert answers(names, positive_label) is None


def test_the_built_in_suite_is_for_chinese_reviews_with_two_labels() -> None:
    chinese, english = ["房间很干净，WiFi也快", "不会再来"], ["a clean room", "never again 再见"]
    two = ("negative", "positive")
    assert applies(two, "positive", chinese) == ""
    assert applies(two, "positive", chinese * 5000) == ""
    assert applies(two, "positive", english) == (
        "the built-in suite is for Chinese; 9% of the data's letters are Chinese characters"
    )
    assert "no letters" in applies(two, "positive", ["", "123 !"])
    assert "no letters" in applies(two, "positive", [])
    assert "which of “spam” and “ham” praises is not known" in applies(("spam", "ham"), "spam", chinese)
    assert "two labels; the model has 3" in applies(("a", "b", "c"), "a", chinese)
    assert applies(two, "positive", ["とてもよかったです、ありがとう", "また来たいです"]) != ""


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cases.jsonl")
    with pytest.raises(DataError, match="not a file"):
        load(tmp_path / "cases.jsonl")
