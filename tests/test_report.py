"""The report as a file: complete, the same every time, and text from outside stays text."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import plots
from jobs.metrics import reliability_bins
from jobs.predictions import Predictions
from jobs.report import write_report
from jobs.summary import summarise

HOSTILE = "</td></table><script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"'\0\x1b[31m{title}"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on a tag that closes nothing."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data


def example(texts=("好", "坏", "很好", "不好"), labels=("neg", "pos"), truth=(1, 0, 1, 0), wrong=(0,)):
    """Predictions in which LoRA errs on the rows of `wrong`, TF-IDF on the first two."""
    truth = np.array(truth, np.int64)

    def logits(errors):
        said = truth.copy()
        said[list(errors)] = (said[list(errors)] + 1) % len(labels)
        return (3 * np.eye(len(labels))[said] + np.arange(len(truth))[:, None] * 0.1).astype(np.float32)

    models = {"lora": logits(wrong), "tfidf": logits([0, 1]), "frozen_head": logits([])}
    models["majority"] = np.tile(np.array([0.3] + [0.1] * (len(labels) - 1), np.float32), (len(truth), 1))
    return Predictions(tuple(labels), tuple(texts), truth, models)


CHECKS = [
    {"id": "manifest", "status": "pass", "detail": "14 files", "meaning": "", "todo": "", "required": True},
    {"id": "base", "status": "not_checked", "detail": "no base", "meaning": "unproven", "required": False},
]
VERDICT = {"ok": True, "level": "reproduced on host", "checks": CHECKS}
LOSSES = {"losses": [{"step": step, "loss": 1 / step} for step in range(1, 60)]}


def report(path, predictions=None, *, facts=None, verification=VERDICT, training=LOSSES):
    """The report's source."""
    predictions = predictions or example()
    summary = summarise(
        predictions,
        positive_label=predictions.label_names[1],
        source="inferred here",
        run_id="reviews-k3x7q2mh",
    )
    given_facts = facts if facts is not None else {"base": "Qwen", "rows": {"train": 3}}
    write_report(path, summary, predictions, facts=given_facts, verification=verification, training=training)
    return path.read_text("utf-8")


def test_everything_a_reader_needs_is_there(tmp_path):
    page = Page(report(tmp_path / "r.html"))
    for words in (
        "The LoRA adapter labels 75.0\xa0% of 4 test rows correctly",
        "LoRA made no clear difference",
        "TF-IDF (char 1-3) + logistic regression",
        "inferred here",
        "reproduced on host",
        "✓ pass",
        "– not checked",
        "Most confident errors",
        "Qwen",
        '{"train": 3}',
    ):
        assert words in page.text
    plots_shown = [value for name, value in page.attributes if name == "class" and value == "plot"]
    assert len(plots_shown) == 3
    assert len([value for name, value in page.attributes if name == "aria-label" and value]) == 3
    assert 'class="confusion"' in (tmp_path / "r.html").read_text("utf-8")


def test_the_same_arguments_give_the_same_bytes(tmp_path):
    assert report(tmp_path / "a.html") == report(tmp_path / "b.html")


def test_the_page_needs_nothing_from_anywhere(tmp_path):
    source = report(tmp_path / "r.html", facts={})
    page = Page(source)
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\((?!#)", source)
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert "default-src 'none'" in policy and "script" not in policy
    assert not {"script", "img", "link", "iframe", "object", "a", "form", "base"} & set(page.tags)
    references = [value for name, value in page.attributes if name in ("href", "xlink:href", "src")]
    assert all(value.startswith("#") for value in references)
    identifiers = [value for name, value in page.attributes if name == "id"]
    assert len(set(identifiers)) == len(identifiers)
    assert {value[1:] for value in references} <= set(identifiers)


def check_calm(source: str) -> None:
    """No element, attribute or control character came in with a text."""
    page = Page(source)
    assert not {"script", "img", "b-evil", "iframe"} & set(page.tags)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", source)


def test_hostile_words_stay_text_wherever_they_come_from(tmp_path):
    no_nul = HOSTILE.replace("\0", "")
    predictions = example(texts=[no_nul] * 4, labels=(no_nul, no_nul + "2"), wrong=(0, 1, 2, 3))
    check = dict.fromkeys(("id", "status", "detail", "meaning", "todo"), HOSTILE)
    verification = {"ok": HOSTILE, "level": HOSTILE, "checks": [check, {"id": "\ud800", "status": "fail"}]}
    facts = {HOSTILE: HOSTILE, "list": [HOSTILE, {"a": HOSTILE}], "half": "\udc00"}
    source = report(tmp_path / "r.html", predictions, facts=facts, verification=verification)
    check_calm(source)
    assert Page(source).text.count("<script>alert('x')</script>") > 10
    assert "{title}" in Page(source).text


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("<>&\"'/\r"), min_size=1),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)),
)
def test_any_text_and_any_fact_gives_a_sound_page(tmp_path, text, fact):
    predictions = example(texts=[text] * 4, labels=(text, text + "!"), wrong=(0, 1))
    facts = {"fact": fact, text: fact}
    check_calm(report(tmp_path / "r.html", predictions, facts=facts, training=None))


@pytest.mark.parametrize(
    ("verification", "words", "unlike"),
    [
        (None, "not verified", "reproduced"),
        ({}, "not proven", "is verified"),
        ({"ok": "yes", "checks": []}, "not proven", "reproduced"),
        ({"ok": False, "checks": [CHECKS[0] | {"status": "fail"}]}, "1 of 1 checks failed", "reproduced"),
        # A host that says ok over a failed, or a missing, check is not believed.
        ({"ok": True, "checks": [CHECKS[0] | {"status": "fail"}]}, "1 of 1 checks failed", "reproduced"),
        ({"ok": True, "checks": [CHECKS[0] | {"status": "fine"}]}, "not proven", "reproduced"),
        ({"ok": True, "level": "reproduced here", "checks": "all"}, "0 of 0 required", "reproduced"),
        ({"ok": True, "level": "static", "checks": [CHECKS[0]]}, "verified (static)", "reproduced"),
    ],
)
def test_the_verdict_is_said_as_it_is(tmp_path, verification, words, unlike):
    text = Page(report(tmp_path / "r.html", verification=verification)).text
    assert words in text and unlike not in text


@pytest.mark.parametrize(
    ("training", "drawn"),
    [
        (None, False),
        ({}, False),
        ({"losses": "no"}, False),
        ({"losses": [1, {"step": "1", "loss": 2}, {"step": 1}, {"step": 1, "loss": float("nan")}]}, False),
        ({"losses": [{"step": 1, "loss": 1e300}]}, False),
        ({"losses": [{"step": 10**400, "loss": 1}]}, False),
        ({"losses": [{"step": 1, "loss": 0.5}]}, True),
        ({"losses": [{"step": 2, "loss": 0.5}, {"step": 1, "loss": 1}, {"step": 1, "loss": 1}]}, True),
    ],
)
def test_the_loss_is_drawn_where_there_is_one(tmp_path, training, drawn):
    assert ("Training loss" in report(tmp_path / "r.html", training=training)) == drawn


def test_one_class_has_no_roc_curve_and_no_errors_are_said_so(tmp_path):
    text = Page(report(tmp_path / "r.html", example(truth=(1, 1, 1, 1), wrong=()))).text
    assert "There is none: all rows are of one class" in text
    assert "There are none: every row is labelled correctly." in text


def test_many_labels(tmp_path):
    labels = tuple("好坏中ABCDEFGHIJ")
    predictions = example([f"text {i}" for i in range(26)], labels, tuple(range(13)) * 2, (3, 5))
    text = Page(report(tmp_path / "r.html", predictions)).text
    assert "Label by label" in text and "13 labels are too many to draw" in text
    text = Page(report(tmp_path / "r.html", example(labels=("a", "b", "c"), truth=(0, 1, 2, 2)))).text
    assert "Each label against the rest" in text


def test_errors_are_the_most_confident_first_and_at_most_twenty(tmp_path):
    rows = 60
    truth = np.zeros(rows, np.int64)
    margins = np.linspace(0.1, 5, rows)
    logits = np.stack([np.zeros(rows), margins], axis=1).astype(np.float32)
    texts = tuple(f"[row {row}]" for row in range(rows))
    predictions = Predictions(("neg", "pos"), texts, truth, {"lora": logits})
    found = re.findall(r"\[row (\d+)\]", Page(report(tmp_path / "r.html", predictions)).text)
    assert [int(row) for row in found] == list(range(59, 39, -1))


def test_long_texts_are_cut(tmp_path):
    source = report(tmp_path / "r.html", example(texts=["很" * 5000] * 4), facts={"x": "y" * 10_000})
    assert "很" * 398 in source and "很" * 400 not in source and "y" * 2001 not in source


def test_a_plot_takes_its_colours_from_the_page_and_stays_small():
    draw = np.random.default_rng(0)
    many = np.sort(draw.uniform(size=(2, 200_000)), axis=1)
    bins = reliability_bins(many[0], many[1] > 0.5)
    drawings = [
        plots.roc({"lora": (many[0], many[1]), "tfidf": (many[1], many[0])}, "ROC"),
        plots.reliability(bins, 2, "reliability"),
        plots.loss(np.arange(200_000), draw.uniform(size=200_000), "loss"),
    ]
    for drawing in drawings:
        assert "var(--accent)" in drawing and "#0102" not in drawing
        assert "font-family" not in drawing and "DejaVu" not in drawing
        assert len(drawing) < 100_000


def test_plots_leave_matplotlib_as_it_was():
    import matplotlib

    def settings_now():  # asking for the backend would choose one
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    with matplotlib.rc_context({"font.size": 31}):
        before = settings_now()
        drawing = plots.loss(np.array([1.0]), np.array([0.5]), "loss")
        assert settings_now() == before
    assert drawing == plots.loss(np.array([1.0]), np.array([0.5]), "loss")
