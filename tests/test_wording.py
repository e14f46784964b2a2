"""A reader of Chinese reads Chinese: what documents say in words of their own is known to `wording`."""

import re

import numpy as np
import pytest

from jobs import evidence, mistakes, robustness, suite, suite_labels, text_traits, wording
from jobs.overlap import Overlap, Twin
from jobs.predictions import Predictions
from jobs.suite import NEGATIVE, POSITIVE, Case, Suite

LABELS = ("差评", "好评")
ANSWERS = {POSITIVE: "好评", NEGATIVE: "差评"}
ENGLISH = re.compile(r"[a-z]{3,}")


def expected(case, logits):
    """What the only case of a suite, which fails, expected; logits of its original (if any) and of its text."""
    asked = Suite("own", (case,))
    document = robustness.measure(
        asked, {"lora": np.array(logits, np.float32)}, LABELS, ANSWERS, {"lora": None}, {"lora": "LoRA"}
    )
    return document["failures"][0]["expected"]


@pytest.mark.parametrize("name", [*text_traits.by_length(["a"]), *text_traits.by_trait(["a"])])
def test_every_group_of_errors_has_a_chinese_name(name):
    assert not ENGLISH.search(wording.term(name, "zh"))


def test_every_category_of_the_suite_has_a_chinese_name():
    for case in suite.built_in().cases:
        assert not ENGLISH.search(wording.term(case.category, "zh") + wording.term(case.test, "zh"))


@pytest.mark.parametrize(
    ("case", "logits", "zh"),
    [
        (Case("1", "c", "minimum functionality", "好", "positive"), [[9, 0]], "判为“好评”。"),
        (
            Case("1", "c", "invariance", "好！", "positive", "好"),
            [[0, 9], [9, 0]],
            "仍判为“好评”，且 P(好评) 最多下降 0.2。",
        ),
        (Case("1", "c", "calm", "……", None), [[9, 0]], "任何答案的置信度都应低于 0.9。"),
        (Case("1", "c", "direction", "不好", "negative", "好", -1), [[0, 9], [0, 9]], "P(正例) 下降超过 0.05。"),
        (Case("1", "c", "direction", "好", "positive", "不好", 1), [[0, 0], [0, 0]], "P(正例) 上升超过 0.05。"),
        (Case("1", "c", "direction", "很坏", None, "坏", -1), [[9, 0], [0, 9]], "P(正例) 最多上升 0.05。"),
        (Case("1", "c", "direction", "很好", None, "好", 1), [[0, 9], [9, 0]], "P(正例) 最多下降 0.05。"),
    ],
)
def test_what_a_case_expected_is_said_in_chinese(case, logits, zh):
    said = expected(case, logits)
    assert wording.sentence(said) == said
    assert wording.sentence(said, "zh") == zh


def test_why_the_suite_was_not_asked_is_said_in_chinese():
    reasons = [
        suite_labels.applies(("a", "b", "c"), "a", ["好"]),
        suite_labels.applies(("x", "y"), "x", ["好"]),
        suite_labels.applies(LABELS, "好评", ["123"]),
        suite_labels.applies(LABELS, "好评", ["only English"]),
        evidence.suite_of("no", LABELS, "好评", ["好"])[1],
    ]
    for reason in reasons:
        assert ENGLISH.search(reason)
        assert not ENGLISH.search(wording.sentence(reason, "zh").replace("robustness: no", ""))


@pytest.mark.parametrize("others", [(), ("tfidf",), ("frozen_head", "tfidf")])
def test_why_a_label_is_doubted_is_short_and_chinese(others):
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1], np.int64)
    logits = np.where(np.eye(2)[truth] > 0, 4, 0).astype(np.float32)
    logits[0] = (0, 6)
    predictions = Predictions(LABELS, tuple("abcdefgh"), truth, dict.fromkeys(("lora", *others), logits))
    overlap = Overlap({0: Twin("a", "好评")})
    [row] = mistakes.errors(predictions, None, overlap)["rows"]
    assert row["likely_wrong_label"]
    short, zh = wording.suspicion(row["why"]), wording.suspicion(row["why"], "zh")
    assert "confidence" not in short and "a training row that is nearly the same" in short
    assert not ENGLISH.search(zh)
    for one in others:
        assert wording.model_title(one, "", "zh") in zh


def test_what_is_not_known_is_said_as_it_is():
    for say in (wording.sentence, wording.suspicion, wording.term):
        assert say("a suite's own word, and so do others", "zh") == "a suite's own word, and so do others"
