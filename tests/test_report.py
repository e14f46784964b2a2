"""The report as a file: complete in both languages, the same every time, and text from outside stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluated import evaluated, made_up_robustness
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_curve, roc_curve

from jobs import chart, plots, report_curves, wording
from jobs.evidence import HERE, Evidence, Robustness, Trained
from jobs.predictions import MODEL_TITLES, Predictions
from jobs.report import write_report
from jobs.report_html import fitting, text
from jobs.report_robustness import changes
from jobs.summary import summarise

HOSTILE = "</td></table><script>alert('x')</script><img src=x onerror=alert(1)>&amp;\"'\0\x1b[31m{title}"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on a tag that closes nothing."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = self.script = ""
        self.pieces: list[str] = []
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
        if "script" in self._open:
            self.script += data
        elif "style" not in self._open:
            self.text += data
            self.pieces.append(data)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


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
TRAINING = {
    "losses": [{"step": step, "loss": 1 / step} for step in range(1, 60)],
    "evaluations": [{"step": step, "loss": 0.5, "accuracy": 0.8} for step in (20, 40, 59)],
}
FACTS = {"spec": {"base": "Qwen", "rows": {"train": 3}}, "versions": {"torch": "2.13.0"}}


def report(path, predictions=None, *, facts=FACTS, verification=VERDICT, training=TRAINING, lang="en", **asked):
    """The report's source; `asked` goes to the document."""
    predictions = predictions or example()
    summary = evaluated(predictions, **asked)
    write_report(path, summary, predictions, facts=facts, verification=verification, training=training, lang=lang)
    return path.read_text("utf-8")


def test_everything_a_reader_needs_is_there(tmp_path):
    page = Page(report(tmp_path / "r.html"))
    for words in (
        "The LoRA adapter labels 75.0\xa0% of 4 test rows correctly",
        "LoRA made no clear difference",
        "Of 1,000 such texts it gets about 750 right",
        "TF-IDF (char 1-3) + logistic regression",
        "inferred here",
        "reproduced on host",
        "✓ pass",
        "– not checked",
        "Which ECE is this?",
        "Not a calibration error",
        "Goal: precision&gt;=0.9.".replace("&gt;", ">"),
        "1,300 cases of the suite chinese-reviews in 13 categories",
        "One by one",
        "Perhaps a wrong label",
        "Nearly the same in training",
        '{"train": 3}',
    ):
        assert words in page.text
    drawn = [value for value in page.all("class") if value.startswith("plot plot-")]
    assert [value.removeprefix("plot plot-") for value in drawn] == [
        "roc", "pr", "risk_coverage", "reliability_raw", "reliability_scaled", "robustness", "loss",
    ]  # fmt: skip
    assert 'class="confusion"' in (tmp_path / "r.html").read_text("utf-8")
    sections = page.all("id")
    assert [value.removeprefix("#") for value in page.all("href")][: len(sections)] == sections


def test_chinese_is_chinese_throughout(tmp_path):
    predictions = example(labels=("差评", "好评"))
    few = {"kind": "few_rows", "rows": 4}
    source = report(tmp_path / "r.html", predictions, lang="zh", facts={}, warnings=(few,))
    page = Page(source)
    assert 'lang="zh-CN"' in source
    for words in (
        "判对了 75.0%",
        "没有带来明显差别",
        "通俗地说",
        "这是哪一种 ECE？",
        "测试集只有 4 行",
        "已在主机上复现",
        "可能标错",
    ):
        assert words in page.text
    # What is left of English: names of methods, and what the documents say in their own words.
    known = "LoRA ECE AUC ROC PR MCC NLL Brier AURC TF IDF McNemar F P F1 p Guo logits launch verify json metrics"
    known += " predictions errors csv parquet"
    theirs = "reviews k3x7q2mh chinese precision manifest files base no unproven the answer a confidence below"
    theirs += " every other model says same"
    found = set(re.findall(r"[A-Za-z][A-Za-z0-9]*", " ".join(page.pieces))) - set(known.split()) - set(theirs.split())
    assert found == set()
    assert not re.search(r"\d ?\u00a0?%[a-z]|\d\u00a0%", page.text)


def test_a_label_keeps_its_own_language(tmp_path):
    source = report(tmp_path / "r.html", example(labels=("none", "better")), lang="zh")
    assert '<option value="0">none</option><option value="1">better</option>' in source
    groups = source[source.index('class="groups') : source.index('class="filters')]
    assert "<bdi>better</bdi>" in groups and "<bdi>none</bdi>" in groups and "<bdi>无</bdi>" in groups


@pytest.mark.parametrize("lang", wording.LANGUAGES)
def test_the_same_arguments_give_the_same_bytes(tmp_path, lang):
    assert report(tmp_path / "a.html", lang=lang) == report(tmp_path / "b.html", lang=lang)


def test_the_page_needs_nothing_from_anywhere(tmp_path):
    source = report(tmp_path / "r.html", facts={})
    page = Page(source)
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|url\((?!#)", source)
    assert not {"img", "link", "iframe", "object", "form", "base"} & set(page.tags)
    references = [value for name in ("href", "xlink:href", "src") for value in page.all(name)]
    assert all(value.startswith("#") for value in references)
    identifiers = page.all("id")
    assert len(set(identifiers)) == len(identifiers)
    assert {value[1:] for value in references} <= set(identifiers)


def test_the_policy_allows_the_one_script_and_nothing_else(tmp_path):
    page = Page(report(tmp_path / "r.html"))
    policy = next(value for value in page.all("content") if "default-src" in value)
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in policy
    assert page.tags.count("script") == 1


def check_calm(source: str) -> None:
    """No element, attribute or control character came in with a text."""
    page = Page(source)
    assert not {"img", "b-evil", "iframe"} & set(page.tags) and page.tags.count("script") == 1
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", source)


def hostile_robustness(words: str) -> dict:
    document = made_up_robustness(["tfidf", "lora"], [words, words])
    document["suite"] = words
    for model in document["models"]:
        for one in model["categories"]:
            one["category"] = one["test"] = words
    kind = dict.fromkeys(("id", "category", "test", "text", "original", "expected", "said"), words)
    document["failures"] = [kind | {"confidence": 0.9, "change": 0.1, "original": f"{words}!"}]
    return document


@pytest.mark.parametrize("lang", wording.LANGUAGES)
def test_hostile_words_stay_text_wherever_they_come_from(tmp_path, lang):
    no_nul = HOSTILE.replace("\0", "")
    predictions = example(texts=[no_nul] * 4, labels=(no_nul, no_nul + "2"), wrong=(0, 1, 2, 3))
    check = dict.fromkeys(("id", "status", "detail", "meaning", "todo"), HOSTILE)
    verification = {"ok": HOSTILE, "level": HOSTILE, "checks": [check, {"id": "\ud800", "status": "fail"}]}
    facts = {HOSTILE: {HOSTILE: HOSTILE}, "list": [HOSTILE, {"a": HOSTILE}], "half": "\udc00"}
    one_class = {"kind": "one_class", "model": "lora", "answer": HOSTILE, "share": 1.0, "inflated": "recall",
                 "inflated_value": None, "balanced_accuracy": 0.5}  # fmt: skip
    summary = evaluated(
        predictions,
        goal=HOSTILE,
        run_id=HOSTILE,
        robustness=hostile_robustness(HOSTILE),
        warnings=(one_class, {"kind": HOSTILE, "sentence": HOSTILE}),
    )
    for group in summary["errors"]["groups"]:
        group["by"] = group["name"] = HOSTILE
    for row in summary["errors"]["rows"]:
        row |= {"why": HOSTILE, "groups": [HOSTILE], "likely_wrong_label": True}
        row["near_duplicate"] = {"text": HOSTILE, "label": HOSTILE}
    path = tmp_path / "r.html"
    write_report(path, summary, predictions, facts=facts, verification=verification, training=None, lang=lang)
    source = path.read_text("utf-8")
    check_calm(source)
    assert Page(source).text.count("<script>alert('x')</script>") > 30


ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.one_of(ANY, ANY.map(lambda words: f"<b-evil {words}>")), fact=st.text(max_size=20))
def test_any_text_stays_text(tmp_path, words, fact):
    predictions = example(texts=[words] * 4, labels=(words, words + "2"), wrong=(0, 1))
    check_calm(report(tmp_path / "r.html", predictions, facts={"fact": fact, words: {fact: words}}, training=None))


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
    page = Page(report(tmp_path / "r.html", verification=verification)).text
    assert words in page and unlike not in page


@pytest.mark.parametrize(
    ("training", "drawn"),
    [
        (None, False),
        ({}, False),
        ({"losses": "no", "evaluations": {}}, False),
        ({"losses": [1, {"step": "1", "loss": 2}, {"step": 1}, {"step": 1, "loss": float("nan")}]}, False),
        ({"losses": [{"step": 1, "loss": 1e300}]}, False),
        ({"losses": [{"step": 10**400, "loss": 1}]}, False),
        ({"losses": [{"step": 1, "loss": 0.5}]}, True),
        ({"losses": [{"step": 2, "loss": 0.5}, {"step": 1, "loss": 1}, {"step": 1, "loss": 1}]}, True),
        ({"losses": [{"step": -5, "loss": -9e8}, {"step": 9e8, "loss": 9e8}]}, True),
        ({"evaluations": [{"step": 1, "loss": 0.5}]}, True),
    ],
)
def test_the_loss_is_drawn_where_there_is_one(tmp_path, training, drawn):
    assert ("Training loss" in report(tmp_path / "r.html", training=training)) == drawn


def test_one_class_has_no_curves_and_no_errors_are_said_so(tmp_path):
    page = Page(report(tmp_path / "r.html", example(truth=(1, 1, 1, 1), wrong=()))).text
    assert page.count("There is none: all rows are of one class") == 2
    assert "There are none: every row is labelled correctly." in page


def test_many_labels(tmp_path):
    labels = tuple("好坏中ABCDEFGHIJ")
    predictions = example([f"text {i}" for i in range(26)], labels, tuple(range(13)) * 2, (3, 5))
    page = Page(report(tmp_path / "r.html", predictions, temperature=None)).text
    assert "Label by label" in page and "13 labels are too many to draw" in page
    assert "The adapter has no temperature" in page and "Decision threshold" not in page and "Specificity" in page
    page = Page(report(tmp_path / "r.html", example(labels=("a", "b", "c"), truth=(0, 1, 2, 2)))).text
    assert "Each label against the rest" in page and "P(positive label) against being right" not in page


def test_a_model_that_stands_alone_is_compared_with_nothing(tmp_path):
    predictions = example()
    alone = Predictions(
        predictions.label_names, predictions.texts, predictions.truth, {"lora": predictions.logits["lora"]}
    )
    page = Page(report(tmp_path / "r.html", alone)).text
    assert "There is nothing to compare" in page and "Did LoRA help?" not in page and "majority" not in page


def test_a_skipped_suite_says_why(tmp_path):
    source = report(tmp_path / "r.html", robustness={"skipped": "the labels <are> no sentiments"})
    assert "The suite was not run: the labels <are> no sentiments." in Page(source).text


def test_what_has_no_value_is_a_dash_and_never_zero(tmp_path):
    summary = evaluated(predictions := example())
    for model in summary["models"]:
        block = model["metrics"]["raw"] | {"coverage_at_1_risk": None}
        model["metrics"] |= dict.fromkeys(("precision", "recall", "f1", "auc_roc", "auc_pr", "mcc", "specificity"))
        model["metrics"] |= {"intervals": {}, "raw": block, "scaled": None}
        model["metrics"]["undefined"] = {"mcc": "one class was predicted for every row"}
    summary["decision"] |= {"threshold": None, "reached": False, "test": {"precision": None, "recall": None}}
    for comparison in summary["comparisons"]:
        comparison["differences"] = None
    for model in summary["robustness"]["models"]:
        model |= {"score": None, "interval": None}
        model["categories"][0] |= {"rate": None, "interval": None, "cases": 0, "passed": 0}
    for group in summary["errors"]["groups"]:
        group |= {"error_rate": None, "interval": None}
    for lang in wording.LANGUAGES:
        path = tmp_path / f"{lang}.html"
        folder = tmp_path / "plots"
        write_report(
            path, summary, predictions, facts={}, verification=None, training=None, lang=lang, plots_folder=folder
        )
        source = path.read_text("utf-8")
        assert "nan" not in Page(source).text.lower() and "None" not in Page(source).text
        row = re.search(r"<tr><th scope=\"row\">MCC.*?</tr>", source)
        assert row is not None and row[0].count(">–<") == 4
    assert "It was not reached" in Page((tmp_path / "en.html").read_text("utf-8")).text


@pytest.mark.parametrize("lang", wording.LANGUAGES)
@pytest.mark.parametrize(
    ("warning", "figures"),
    [
        ({"kind": "few_rows", "rows": 1234}, ["1,234"]),
        ({"kind": "temperature_at_bound", "value": 20.0}, ["20"]),
        ({"kind": "calibration_above_floor", "ece": 0.0712, "p95": 0.0213}, ["0.071", "0.021"]),
        ({"kind": "limited", "rows": 100, "rows_in_all": 5000}, ["100", "5,000"]),
        (
            {"kind": "one_class", "model": "frozen_head", "answer": "好评", "share": 0.971, "inflated": "recall",
             "inflated_value": 0.99, "balanced_accuracy": 0.52},
            ["97.1", "好评", "99.0", "52.0"],
        ),
        ({"kind": "of tomorrow", "sentence": "It is new."}, ["It is new."]),
        ({"kind": "of tomorrow"}, ["of tomorrow"]),
    ],
)  # fmt: skip
def test_a_warning_names_its_figures_in_both_languages(warning, figures, lang):
    sentence = wording.warning_sentence(warning, lang)
    assert all(figure in sentence for figure in figures)
    assert (
        "tomorrow" in sentence or "new" in sentence or bool(re.search("[\u4e00-\u9fff]{4}", sentence)) == (lang == "zh")
    )


def test_the_headline_and_the_comparisons_in_chinese():
    summary = evaluated(example())
    assert wording.headline(summary, "zh")[0] == "LoRA 适配器在 4 行测试数据中判对了 75.0%（95% 区间 30.1% 到 95.4%）。"
    comparison = summary["comparisons"][0] | {"verdict": "worse", "accuracy_difference": -0.25, "mcnemar_p": 0.01}
    sentence = wording.comparison_sentence(comparison, "zh")
    assert sentence.startswith("LoRA 适配器的准确率比多数类低 25.0 个百分点") and "McNemar p = 0.01" in sentence
    assert wording.reason("for one class, no row is of this class", "zh") == "有一类：没有任何行属于该类"


def many(rows: int, words: str) -> Predictions:
    """Every row is wrong, the last ones with the highest confidence."""
    logits = np.stack([np.zeros(rows), np.linspace(0.1, 5, rows)], axis=1).astype(np.float32)
    return Predictions(
        ("neg", "pos"), tuple(words.format(row) for row in range(rows)), np.zeros(rows, np.int64), {"lora": logits}
    )


def test_errors_are_the_most_confident_first_and_at_most_500(tmp_path):
    source = report(tmp_path / "r.html", many(600, "[row {}]"))
    table = source[source.index('class="errors') :]
    found = re.findall(r'class="text"><bdi>\[row (\d+)\]', table)
    assert [int(row) for row in found] == list(range(599, 99, -1))
    assert "500 of 600 errors" in Page(source).text


def test_the_page_stays_small_whatever_it_is_given(tmp_path):
    long = '"<' * 8000
    failures = [
        dict.fromkeys(("text", "expected", "said"), long)
        | {
            "id": "x",
            "category": f"c{number % 50}",
            "test": "t",
            "original": long + "!",
            "confidence": 0.5,
            "change": 0.1,
        }
        for number in range(300)
    ]
    robustness = made_up_robustness(["lora"], ["neg", "pos"]) | {"failures": failures}
    checks = [{"id": long, "status": "fail", "detail": long, "meaning": long, "todo": long}] * 1000
    facts = {f"part {number}": {f"{long}{name}": long for name in range(50)} for number in range(50)}
    training = {"losses": [{"step": step, "loss": step % 7} for step in range(100_000)]}
    predictions = many(600, long + "{}")
    summary = evaluated(predictions, robustness=robustness)
    for row in summary["errors"]["rows"]:
        row |= {"why": long, "groups": [long] * 40, "near_duplicate": {"text": long, "label": long}}
    path = tmp_path / "r.html"
    write_report(path, summary, predictions, facts=facts, verification={"checks": checks}, training=training)
    assert path.stat().st_size < 1_500_000


def test_a_limit_is_found_below_which_texts_fit():
    texts = ["很" * 1000, "<" * 1000]
    assert fitting(texts, 400, 10_000) == 400
    limit = fitting(texts, 400, 1000)
    assert limit < 400 and sum(len(text(one, limit).encode()) for one in texts) <= 1000


def test_long_texts_are_cut(tmp_path):
    source = report(tmp_path / "r.html", example(texts=["很" * 5000] * 4), facts={"x": "y" * 10_000})
    assert "很" * 398 in source and "很" * 400 not in source and "y" * 601 not in source


@settings(max_examples=200, deadline=None)
@given(old=st.text(st.sampled_from("ab不好"), max_size=30), new=st.text(st.sampled_from("ab不好"), max_size=30))
def test_a_change_is_shown_whole(old, new):
    pieces = changes(old, new)
    assert "".join(piece for _, piece, _ in pieces) == old and "".join(piece for _, _, piece in pieces) == new
    assert all((kind == "equal") == (before == after) for kind, before, after in pieces)


def test_a_change_is_marked_where_it_is():
    assert changes("这家店值得再来", "这家店不值得再来") == [
        ("equal", "这家店", "这家店"),
        ("insert", "", "不"),
        ("equal", "值得再来", "值得再来"),
    ]
    long = "x" * 500
    assert changes(f"a{long}b", f"a{'y' * 400}b")[1] == ("replace", long, "y" * 400)


def test_curves_are_scikit_learns():
    draw = np.random.default_rng(7)
    for rows in (20, 300):
        truth = draw.integers(0, 2, rows)
        logits = np.stack([np.zeros(rows), (2 * truth - 1 + draw.normal(size=rows)).round(1)], axis=1).astype(
            np.float32
        )
        predictions = Predictions(("neg", "pos"), ("",) * rows, truth.astype(np.int64), {"lora": logits})
        summary = evaluated(predictions)
        curves = report_curves.count(summary, predictions)
        false, true, _ = roc_curve(truth, logits[:, 1], drop_intermediate=False)
        np.testing.assert_allclose(curves.roc["lora"], (false, true))
        precision, recall, _ = precision_recall_curve(truth, logits[:, 1])
        expected = [(r, p) for p, r in zip(precision, recall, strict=True) if r > 0][::-1]
        np.testing.assert_allclose(list(zip(*curves.precision_recall["lora"], strict=True))[1:], expected)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=900))
def test_a_thinned_line_keeps_its_ends_and_is_short(values):
    x, y = np.arange(len(values), dtype=np.float64), np.array(values)
    kept_x, kept_y = chart.thinned(x, y)
    assert len(kept_x) == len(kept_y) <= chart.MAX_POINTS + 2
    assert (kept_x[0], kept_y[0], kept_x[-1], kept_y[-1]) == (x[0], y[0], x[-1], y[-1])
    assert set(zip(kept_x, kept_y, strict=True)) <= set(zip(x, y, strict=True))


@given(low=st.floats(-1e6, 1e6), reach=st.floats(1e-3, 1e6), most=st.integers(2, 8))
def test_ticks_are_few_and_inside(low, reach, most):
    found = chart.ticks(low, low + reach, most)
    assert len(found) <= most + 1
    assert all(low - 1e-6 * reach <= tick <= low + reach * (1 + 1e-6) for tick in found)


# --- Plots as PNG


def write_plots(folder, summary, predictions, training):
    return plots.write(folder, summary, report_curves.count(summary, predictions), training)


def png_size(content: bytes) -> tuple[int, int, float]:
    """Width, height and dots per inch."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    place = content.index(b"pHYs") + 4
    return width, height, struct.unpack(">I", content[place : place + 4])[0] * 0.0254


def test_plots_are_written_and_what_there_is_none_of_is_taken_away(tmp_path):
    names = {"roc", "pr", "reliability", "confusion", "risk_coverage", "robustness", "loss"}
    predictions = example(labels=("$\\frac{1}{", "好评"))
    robustness = hostile_robustness("$x^$ 好")
    summary = evaluated(predictions, robustness=robustness)
    written = write_plots(tmp_path, summary, predictions, TRAINING)
    assert (
        {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in names} == {one.name for one in written}
    )
    for path in tmp_path.iterdir():
        width, height, dpi = png_size(path.read_bytes())
        assert width >= 900 and height >= 600 and abs(dpi - plots.DPI) < 1
    before = (tmp_path / "roc.png").read_bytes()
    summary["robustness"] = {"skipped": "no sentiments"}
    write_plots(tmp_path, summary, predictions, None)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.png" for name in names - {"robustness", "loss"}}
    assert (tmp_path / "roc.png").read_bytes() == before


def test_only_plain_words_are_drawn():
    assert plots.safe_name("very good", "label 1") == "very good"
    for name in ("好评", "$x$", "", "a\nb", "x" * 40, "é", "-a"):
        assert plots.safe_name(name, "label 1") == "label 1"


def test_plots_leave_matplotlib_as_it_was(tmp_path):
    import matplotlib

    def settings_now():  # asking for the backend would choose one
        return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

    predictions = example()
    with matplotlib.rc_context({"font.size": 31}):
        before = settings_now()
        write_plots(tmp_path, evaluated(predictions), predictions, None)
        assert settings_now() == before
    large = (tmp_path / "roc.png").read_bytes()
    write_plots(tmp_path, evaluated(predictions), predictions, None)
    assert (tmp_path / "roc.png").read_bytes() == large


def test_the_document_of_the_tests_is_json():
    assert json.loads(json.dumps(evaluated(example()), allow_nan=False))["schema"] == 2


def test_what_no_row_shows_needs_no_reason(tmp_path):
    made = example(labels=("a", "b", "c"), truth=(0, 1, 2, 2))
    trained = Trained(made.label_names, "a", {}, None)
    found = Evidence(trained, made, Robustness(skipped="not asked"), None, HERE, made.rows)
    summary = summarise(found, run_id="r-abcdefgh")
    write_report(tmp_path / "r.html", summary, made, facts={}, verification=None, training=None)
    page = Page((tmp_path / "r.html").read_text("utf-8")).text
    assert "one class was predicted for every row" in page and "more than two labels" not in page


def test_a_category_of_two_kinds_of_tests_counts_once_and_each_bar_says_which(tmp_path):
    document = made_up_robustness(list(MODEL_TITLES), ["neg", "pos"])
    for model in document["models"]:
        first, *_ = model["categories"]
        model["categories"] = [first | {"test": "invariance"}, first | {"test": "direction"}]
    page = Page(report(tmp_path / "r.html", robustness=document))
    assert "in 1 categories" in page.text
    for test in ("invariance", "direction"):
        assert f"{first['category']} / {test}" in page.text


def test_failed_cases_are_counted_even_where_some_are_not_listed(tmp_path):
    document = made_up_robustness(list(MODEL_TITLES), ["neg", "pos"])
    failed = sum(one["cases"] - one["passed"] for one in document["models"][-1]["categories"])
    assert document["models"][-1]["key"] == "lora"
    assert failed > len(document["failures"])
    page = Page(report(tmp_path / "r.html", robustness=document))
    assert f"{len(document['failures'])} of the {failed} cases that failed" in page.text


def test_the_number_of_an_error_is_its_row_in_the_files(tmp_path):
    assert "#2" in Page(report(tmp_path / "r.html", example(wrong=(2,)))).pieces


def test_the_legend_of_the_loss_says_what_the_drawn_line_ends_at(tmp_path):
    jagged = [{"step": step, "loss": 2.0 if step % 2 else 1.0} for step in range(1, 201)]
    page = Page(report(tmp_path / "r.html", training={"losses": jagged, "evaluations": []}))
    assert "From 1.55 to 1.45 in 200 steps" in page.text
    assert "1.45" in page.pieces


def test_a_few_rows_prove_no_calibration(tmp_path):
    few = example(texts=("好", "坏"), truth=(1, 0), wrong=())
    assert "This test is too small to tell: with as few rows (2)" in Page(report(tmp_path / "r.html", few)).text


def test_what_did_not_pass_stands_above_what_did(tmp_path):
    source = report(tmp_path / "r.html")
    place = source.index('id="verification"')
    assert source.index("no base", place) < source.index("Checks that passed", place) < source.index("14 files", place)
