"""Every rule of the robustness score on hand-made answers, and what models that know nothing get."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from jobs.errors import BrokenRun, DataError
from jobs.robustness import MOST_FAILURES, difference, measure, misfits, passed
from jobs.suite import CALM, DIRECTION, INVARIANCE, MINIMUM, Case, Suite, built_in

NAMES = ("negative", "positive")
ANSWERS = {"positive": "positive", "negative": "negative"}
SUITE = built_in()
DOCS = Path(__file__).resolve().parent.parent / "docs" / "evaluation.md"

PRAISE = (
    *(
        "好",
        "满意",
        "喜欢",
        "推荐",
        "值",
        "棒",
        "赞",
        "舒服",
        "干净",
        "新鲜",
        "甜",
        "爱",
        "惊喜",
        "完美",
        "超出预期",
        "快",
    ),
    *("热情", "方便", "精彩", "👍", "😍", "放心", "感谢", "回购", "yyds", "绝"),
)
BLAME = (
    *(
        "差",
        "失望",
        "后悔",
        "不",
        "没",
        "烂",
        "脏",
        "贵",
        "坑",
        "骗",
        "垃圾",
        "难",
        "坏",
        "臭",
        "慢",
        "退",
        "糟",
        "亏",
        "雷",
    ),
    *("气", "假", "👎", "😡", "无语", "智商税", "浪费"),
)


def from_probabilities(suite: Suite, positive: dict[str, float]) -> NDArray[np.float32]:
    """(T, 2) logits that give each text its P(positive)."""
    p = np.array([positive[text] for text in suite.texts])
    return np.stack([np.zeros(len(p)), np.log(p / (1 - p))], axis=1).astype(np.float32)


def by_words(text: str) -> int:
    return sum(map(text.count, PRAISE)) - sum(map(text.count, BLAME))


def knowing_nothing() -> dict[str, NDArray[np.float32]]:
    texts = len(SUITE.texts)
    score = np.array([by_words(text) for text in SUITE.texts], np.float32)
    lot = np.array([hashlib.sha256(text.encode()).digest()[0] / 32 - 4 for text in SUITE.texts], np.float32)
    return {
        "always positive": np.tile(np.array([-3, 3], np.float32), (texts, 1)),
        "always negative": np.tile(np.array([3, -3], np.float32), (texts, 1)),
        "always undecided": np.zeros((texts, 2), np.float32),
        "drawn by lot": np.stack([-lot, lot], axis=1),
        "counting words": np.stack([-score, score], axis=1),
    }


# ---- the rules


@pytest.mark.parametrize(
    ("test", "label", "direction", "before", "after", "passes"),
    [
        (MINIMUM, "positive", 0, None, 0.51, True),
        (MINIMUM, "positive", 0, None, 0.49, False),
        (MINIMUM, "negative", 0, None, 0.49, True),
        (INVARIANCE, "positive", 0, 0.9, 0.71, True),
        (INVARIANCE, "positive", 0, 0.9, 0.69, False),  # still right, but shaken
        (INVARIANCE, "positive", 0, 0.6, 0.99, True),  # surer of what is right is no harm
        (INVARIANCE, "positive", 0, 0.1, 0.1, False),  # the same, and wrong: a constant would pass
        (INVARIANCE, "positive", 0, 0.1, 0.6, True),  # right after all
        (INVARIANCE, "negative", 0, 0.1, 0.29, True),
        (INVARIANCE, "negative", 0, 0.1, 0.31, False),
        (INVARIANCE, None, 0, 0.9, 0.71, True),  # nothing is known but that it must stay
        (INVARIANCE, None, 0, 0.1, 0.1, True),
        (INVARIANCE, None, 0, 0.55, 0.45, False),
        (DIRECTION, "negative", -1, 0.9, 0.84, True),  # moved, if not far enough to be right
        (DIRECTION, "negative", -1, 0.9, 0.86, False),
        (DIRECTION, "negative", -1, 0.1, 0.1, False),  # right without reading what was inserted
        (DIRECTION, "positive", 1, 0.1, 0.16, True),
        (DIRECTION, "positive", 1, 0.1, 0.04, False),
        (DIRECTION, None, 1, 0.9, 0.86, True),
        (DIRECTION, None, 1, 0.9, 0.84, False),
        (DIRECTION, None, -1, 0.1, 0.16, False),
        (CALM, None, 0, None, 0.89, True),
        (CALM, None, 0, None, 0.91, False),
        (CALM, None, 0, None, 0.09, False),
    ],
)  # fmt: skip
def test_what_passes(
    test: str, label: str | None, direction: int, before: float | None, after: float, passes: bool
) -> None:
    suite = Suite("own", (Case("1", "x", test, "after", label, None if before is None else "before", direction),))
    logits = from_probabilities(suite, {"after": after, "before": before or 0.5})
    assert passed(suite, logits, NAMES, ANSWERS).tolist() == [passes]
    # The order of the labels, and what they are called, has no part in it.
    reversed_names = {"positive": "1", "negative": "0"}
    assert passed(suite, logits[:, ::-1], ("1", "0"), reversed_names).tolist() == [passes]
    failures = measure(suite, {"lora": logits}, NAMES, ANSWERS, {}, {"lora": "LoRA"})["failures"]
    assert len(failures) == (not passes)


def test_probabilities_are_those_after_the_temperature() -> None:
    suite = Suite("own", (Case("1", "x", CALM, "..."),))
    logits = from_probabilities(suite, {"...": 0.95})
    assert not passed(suite, logits, NAMES, ANSWERS)[0]
    assert passed(suite, logits, NAMES, ANSWERS, 2.0)[0]
    document = measure(suite, {"lora": logits, "tfidf": logits}, NAMES, ANSWERS, {"lora": 2.0, "tfidf": None}, TITLES)
    assert [model["score"] for model in document["models"]] == [100, 0]


def test_labels_of_a_model_with_many_are_tested_by_their_own_names() -> None:
    suite = Suite("own", (
        Case("1", "topic", MINIMUM, "goal!", "sport"),
        Case("2", "topic", INVARIANCE, "GOAL!", "sport", "goal!"),
        Case("3", "topic", INVARIANCE, "?", None, "!"),
    ))  # fmt: skip
    logits = np.array([[0, 3, 0], [0, 0, 3], [3, 0, 0], [0, 0, 3]], np.float32)
    assert misfits(Suite("own", (Case("1", "x", MINIMUM, "a", "1"),)), ("1.0", "2.0", "3.0"), None) == []
    assert suite.texts == ("goal!", "GOAL!", "!", "?")
    assert passed(suite, logits, ("news", "sport", "art"), None).tolist() == [True, False, False]
    failures = measure(suite, {"lora": logits}, ("news", "sport", "art"), None, {}, TITLES)["failures"]
    assert [(one["expected"][:13], one["said"]) for one in failures] == [
        ("Still “sport”", "art"),
        ("Still “news”,", "art"),
    ]
    assert failures[0]["change"] < -0.8


# ---- the document

TITLES = {"lora": "LoRA adapter", "tfidf": "TF-IDF", "frozen_head": "Frozen"}


def right() -> NDArray[np.float32]:
    """Logits of a model that passes every case of the built-in suite: unsure of nothing but calm."""
    positive = dict.fromkeys(SUITE.texts, 0.5)
    for case in SUITE.cases:
        if case.label is not None:
            positive[case.text] = {"positive": 0.99, "negative": 0.01}[case.label]
            if case.original is not None:
                same = case.test == INVARIANCE
                positive[case.original] = positive[case.text] if same else 1 - positive[case.text]
    return from_probabilities(SUITE, positive)


def test_who_answers_everything_rightly_gets_a_hundred() -> None:
    document = measure(SUITE, {"lora": right()}, NAMES, ANSWERS, {"lora": None}, TITLES)
    (model,) = document.pop("models")
    assert document == {
        "suite": "chinese-reviews", "sha256": SUITE.sha256, "cases": len(SUITE.cases), "answers": ANSWERS,
        "failures": [],
    }  # fmt: skip
    assert (model["key"], model["title"], model["score"], model["interval"]) == (
        "lora",
        "LoRA adapter",
        100,
        [100, 100],
    )
    assert sum(one["cases"] for one in model["categories"]) == len(SUITE.cases) and model["undefined"] == {}
    assert {one["rate"] for one in model["categories"]} == {1.0}
    assert all(one["interval"][0] < 0.99 and one["interval"][1] == 1 for one in model["categories"])


def test_the_score_is_the_mean_of_the_categories_rates() -> None:
    document = measure(SUITE, {"lora": knowing_nothing()["counting words"]}, NAMES, ANSWERS, {}, TITLES)
    (model,) = document["models"]
    totals: dict[str, list[int]] = {}
    for one in model["categories"]:
        total = totals.setdefault(one["category"], [0, 0])
        total[0] += one["passed"]
        total[1] += one["cases"]
        assert one["interval"][0] < one["rate"] < one["interval"][1] or one["rate"] in (0, 1)
    assert len(totals) == 13
    assert model["score"] == pytest.approx(100 * np.mean([hits / cases for hits, cases in totals.values()]))
    assert model["interval"][0] < model["score"] < model["interval"][1]
    again = measure(SUITE, {"lora": knowing_nothing()["counting words"]}, NAMES, ANSWERS, {}, TITLES)
    assert json.dumps(again, allow_nan=False) == json.dumps(document, allow_nan=False)


def test_the_interval_is_that_of_drawing_cases_one_by_one() -> None:
    passes = passed(SUITE, knowing_nothing()["counting words"], NAMES, ANSWERS)
    nobody = np.zeros(len(passes), bool)
    generator = np.random.default_rng(5)
    strata: dict[str, dict[str, list[int]]] = {}
    for number, case in enumerate(SUITE.cases):
        strata.setdefault(case.category, {}).setdefault(case.test, []).append(number)
    scores = []
    for _ in range(1000):
        rates = []
        for tests in strata.values():
            drawn = np.concatenate([generator.choice(numbers, len(numbers)) for numbers in tests.values()])
            rates.append(passes[drawn].mean())
        scores.append(100 * np.mean(rates))
    low, high = difference(SUITE, passes, nobody)["interval"]
    assert (low, high) == pytest.approx(np.quantile(scores, (0.025, 0.975)), abs=0.4)


def test_two_models_are_compared_case_by_case() -> None:
    words = passed(SUITE, knowing_nothing()["counting words"], NAMES, ANSWERS)
    constant = passed(SUITE, knowing_nothing()["always negative"], NAMES, ANSWERS)
    same = difference(SUITE, words, words)
    assert same == {"difference": 0, "interval": [0, 0]}
    there, back = difference(SUITE, words, constant), difference(SUITE, constant, words)
    assert there["difference"] == pytest.approx(-back["difference"])
    assert 10 < there["interval"][0] < there["difference"] < there["interval"][1]


def test_a_suite_without_cases_has_no_score() -> None:
    empty, logits = Suite("own", ()), np.zeros((0, 2), np.float32)
    (model,) = measure(empty, {"lora": logits}, NAMES, ANSWERS, {}, TITLES)["models"]
    assert model["score"] is None and model["interval"] is None and model["categories"] == []
    assert model["undefined"] == {"score": "the suite has no cases"}
    nobody = np.zeros(0, bool)
    assert difference(empty, nobody, nobody) == {"difference": None, "interval": None}


def test_failures_are_of_every_test_the_worst_first_and_not_too_many() -> None:
    always = knowing_nothing()["always positive"]
    document = measure(SUITE, {"tfidf": right(), "lora": always}, NAMES, ANSWERS, {}, TITLES)
    failures = document["failures"]
    assert len(failures) == MOST_FAILURES and len({one["id"] for one in failures}) == MOST_FAILURES
    kinds = {(case.category, case.test) for case in SUITE.cases} - {("short positive", MINIMUM)}
    assert {(one["category"], one["test"]) for one in failures[: len(kinds)]} == kinds
    failed = {
        case.id for case, passes in zip(SUITE.cases, passed(SUITE, always, NAMES, ANSWERS), strict=True) if not passes
    }
    assert {one["id"] for one in failures} <= failed
    assert all(len(one["text"]) <= 1000 for one in failures)
    json.dumps(document, allow_nan=False)


def test_failures_say_what_was_expected() -> None:
    suite = Suite("own", (
        Case("m", "x", MINIMUM, "好评给不了一点", "negative"),
        Case("m2", "x", MINIMUM, "踩雷", "negative"),
        Case("i", "x", INVARIANCE, "很好！！", "positive", "很好"),
        Case("d", "x", DIRECTION, "不很好", "negative", "很好", -1),
        Case("n", "x", DIRECTION, "很好，强烈推荐", None, "很好", 1),
        Case("c", "x", CALM, "……"),
    ))  # fmt: skip
    logits = from_probabilities(suite, {
        "好评给不了一点": 0.7, "踩雷": 0.8, "很好": 0.9, "很好！！": 0.6, "不很好": 0.95, "很好，强烈推荐": 0.5,
        "……": 0.05,
    })  # fmt: skip
    failures = {one["id"]: one for one in measure(suite, {"x": logits}, NAMES, ANSWERS, {}, {"x": "X"})["failures"]}
    assert list(failures) == ["m2", "i", "n", "c", "m", "d"]
    assert {key: one["expected"] for key, one in failures.items()} == {
        "m": "The answer “negative”.",
        "m2": "The answer “negative”.",
        "i": "Still “positive”, and P(positive) at most 0.2 lower than before the change.",
        "d": "P(positive) more than 0.05 lower than before the change.",
        "n": "P(positive) at most 0.05 lower than before the change.",
        "c": "No answer with a confidence of 0.9 or more.",
    }
    assert failures["m"]["said"] == "positive" and failures["m"]["original"] is None and failures["m"]["change"] is None
    assert failures["m"]["confidence"] == pytest.approx(0.7)
    assert failures["i"]["original"] == "很好" and failures["i"]["change"] == pytest.approx(-0.3)
    assert failures["c"]["said"] == "negative"


# ---- what is refused


def test_a_suite_for_other_labels_is_refused_in_words() -> None:
    suite = Suite("own", (Case("1", "x", MINIMUM, "a", "sport"), Case("2", "x", DIRECTION, "b", None, "a", 1)))
    assert misfits(suite, ("sport", "art"), {"positive": "sport", "negative": "art"}) == []
    assert len(misfits(suite, NAMES, None)) == 2
    with pytest.raises(DataError, match="does not know the label 'sport'"):
        passed(suite, np.zeros((2, 2), np.float32), NAMES, ANSWERS)
    with pytest.raises(DataError, match="which label is positive is not known"):
        measure(suite, {"lora": np.zeros((2, 2), np.float32)}, ("sport", "art"), None, {}, TITLES)
    assert (
        misfits(SUITE, ("a", "b"), None) != [] and misfits(SUITE, ("a", "b"), {"positive": "a", "negative": "b"}) == []
    )


@pytest.mark.parametrize(
    ("logits", "temperature", "says"),
    [
        ([[0.0, 1.0]], None, "must be of shape (2, 2), not (1, 2)"),
        ([[0.0, 1.0, 2.0]] * 2, None, "must be of shape"),
        ([[0.0, 1.0], [float("nan"), 0.0]], None, "lora has NaN or infinite logits (first for text 2)"),
        ([[float("inf"), 1.0], [0.0, 0.0]], None, "first for text 1"),
        ([[0.0, 1.0]] * 2, 0.0, "temperature of lora"),
        ([[0.0, 1.0]] * 2, float("nan"), "temperature of lora"),
    ],
)
def test_logits_that_are_none_are_refused(logits: Any, temperature: float | None, says: str) -> None:
    suite = Suite("own", (Case("1", "x", CALM, "a"), Case("2", "x", CALM, "b")))
    with pytest.raises(BrokenRun, match=re.escape(says)):
        measure(suite, {"lora": np.array(logits, np.float32)}, NAMES, ANSWERS, {"lora": temperature}, TITLES)


_FINITE = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(_FINITE, _FINITE), min_size=3, max_size=3))
def test_any_finite_logits_give_a_document_of_plain_json(numbers: list[tuple[float, float]]) -> None:
    suite = Suite("own", (Case("1", "x", CALM, "a"), Case("2", "y", DIRECTION, "b", "positive", "c", 1)))
    document = measure(suite, {"lora": np.array(numbers, np.float32)}, NAMES, ANSWERS, {}, TITLES)
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert 0 <= document["models"][0]["score"] <= 100


# ---- what the built-in suite is worth


def test_the_figures_of_models_that_know_nothing_are_those_in_the_documentation() -> None:
    logits = knowing_nothing()
    document = measure(SUITE, logits, NAMES, ANSWERS, {}, {key: key for key in logits})
    scores = {model["title"]: model["score"] for model in document["models"]}
    assert f"{len(SUITE.cases):,} cases in 13 categories" in DOCS.read_text("utf-8")
    told = dict(re.findall(r"^\| (\w+ (?:\w+ )?\w+) \| (\d+\.\d) \|", DOCS.read_text("utf-8"), re.M))
    assert told == {title: f"{score:.1f}" for title, score in scores.items()}
    assert max(scores[title] for title in scores if title != "counting words") < 55 < 60 < scores["counting words"] < 75
