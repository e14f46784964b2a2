"""metrics.json: which figures stand in it, what it warns of, and that the same evidence gives the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import suite
from jobs.errors import BrokenRun, NoData
from jobs.evidence import HERE, Evidence, Robustness, Trained
from jobs.overlap import Overlap, Twin
from jobs.predictions import Predictions
from jobs.summary import summarise

TEMPERATURE = {"value": 2.0, "rows": 100, "nll_before": 0.5, "nll_after": 0.4}


def of(truth: list[int], labels: tuple[str, ...] = ("neg", "pos"), **logits: Any) -> Predictions:
    arrays = {key: np.array(value, np.float32) for key, value in logits.items()}
    return Predictions(labels, tuple(f"row {i}" for i in range(len(truth))), np.array(truth, np.int64), arrays)


def sure(answers: list[int], classes: int = 2) -> np.ndarray:
    """Logits (N, C) of a model that gives these answers."""
    return 4 * np.eye(classes)[np.array(answers)] - 2


def evidence(predictions: Predictions, positive: str = "pos", **more: Any) -> Evidence:
    trained = Trained(predictions.label_names, positive, more.pop("temperatures", {}), more.pop("decision", None))
    usual = {"robustness": Robustness(skipped="it was not asked for"), "overlap": None, "source": HERE}
    return Evidence(trained, predictions, **(usual | {"rows_in_all": predictions.rows} | more))


def summary_of(predictions: Predictions, positive: str = "pos", **more: Any) -> dict[str, Any]:
    return summarise(evidence(predictions, positive, **more), run_id="r-abcdefgh")


def figures(summary: dict[str, Any], key: str) -> dict[str, Any]:
    return next(model["metrics"] for model in summary["models"] if model["key"] == key)


def kinds(summary: dict[str, Any]) -> list[str]:
    return [warning["kind"] for warning in summary["warnings"]]


def test_models_stand_in_display_order_with_their_titles() -> None:
    answers = sure([0, 1, 1, 0])
    summary = summary_of(of([0, 1, 1, 0], lora=answers, tfidf=answers, frozen_head=answers, majority=answers))
    assert [(model["key"], model["title"]) for model in summary["models"]] == [
        ("majority", "Majority class"),
        ("frozen_head", "Frozen base + trained head"),
        ("tfidf", "TF-IDF (char 1-3) + logistic regression"),
        ("lora", "LoRA adapter"),
    ]
    assert (summary["schema"], summary["rows"], summary["rows_in_all"]) == (2, 4, 4)
    assert [one["against"] for one in summary["comparisons"]] == ["majority", "frozen_head", "tfidf"]


def test_one_row_has_an_accuracy_and_says_why_it_has_no_auc() -> None:
    found = figures(summary_of(of([1], lora=sure([1]))), "lora")
    assert found["accuracy"] == 1.0 and found["intervals"]["accuracy"][1] == 1.0
    assert found["auc_roc"] is None and "one class" in found["undefined"]["auc_roc"]
    assert found["specificity"] is None and found["mcc"] is None


def test_precision_of_a_model_that_never_says_positive_is_undefined() -> None:
    found = figures(summary_of(of([0, 1, 1], lora=sure([0, 0, 0]))), "lora")
    assert found["precision"] is None and "predicted" in found["undefined"]["precision"]
    assert found["recall"] == 0.0  # missed both: a real zero, not a missing value


def test_comparison_counts_rows_and_says_what_it_means() -> None:
    truth = [0, 1] * 20
    frozen = sure([0, 0] * 20)
    summary = summary_of(of(truth, lora=sure(truth), frozen_head=frozen))
    (comparison,) = summary["comparisons"]
    assert (comparison["wins"], comparison["losses"], comparison["verdict"]) == (20, 0, "better")
    assert comparison["mcnemar_p"] == pytest.approx(2 / 2**20)
    assert "50.0 points" in comparison["sentence"] and "p < 0.0001" in comparison["sentence"]
    assert "LoRA helped" in summary["headline"][1]
    worse = summary_of(of(truth, lora=frozen, frozen_head=sure(truth)))
    assert worse["comparisons"][0]["verdict"] == "worse" and "LoRA did harm" in worse["headline"][1]
    same = summary_of(of(truth, lora=frozen, frozen_head=frozen))
    assert same["comparisons"][0]["mcnemar_p"] == 1.0 and "no clear difference" in same["headline"][1]


def test_a_model_that_says_one_thing_is_named_with_its_inflated_metric() -> None:
    truth = [0, 1] * 20
    summary = summary_of(of(truth, lora=sure(truth), frozen_head=sure([1] * 40), majority=sure([1] * 40)))
    [warning] = [one for one in summary["warnings"] if one["kind"] == "one_class"]
    assert (warning["model"], warning["inflated"], warning["balanced_accuracy"]) == ("frozen_head", "recall", 0.5)
    sentence = warning["sentence"]
    assert "frozen base" in sentence and "“pos”" in sentence and "recall of “pos” (100.0 %)" in sentence
    assert "balanced accuracy (50.0 %)" in sentence
    summary = summary_of(of(truth, lora=sure([0] * 40)))
    [warning] = [one for one in summary["warnings"] if one["kind"] == "one_class"]
    assert "specificity (100.0 %) is inflated" in warning["sentence"]


def test_one_answer_is_right_where_all_rows_have_one_label() -> None:
    assert "one_class" not in kinds(summary_of(of([1] * 40, lora=sure([1] * 40))))


def test_few_rows_and_a_limit_are_told() -> None:
    assert kinds(summary_of(of([0, 1] * 5, lora=sure([0, 1] * 5)), rows_in_all=300))[:2] == ["limited", "few_rows"]
    truth = [0, 1] * 200
    assert not {"limited", "few_rows"} & set(kinds(summary_of(of(truth, lora=sure(truth)))))


def test_confidence_that_chance_does_not_explain_is_told() -> None:
    truth = [0, 1] * 200
    half_right = [label if row % 4 else 1 - label for row, label in enumerate(truth)]
    summary = summary_of(of(truth, lora=sure(half_right)))  # 98 % sure, right in three of four
    [warning] = [one for one in summary["warnings"] if one["kind"] == "calibration_above_floor"]
    assert warning["ece"] > warning["p95"]
    right = [label if row % 50 else 1 - label for row, label in enumerate(truth)]
    assert "calibration_above_floor" not in kinds(summary_of(of(truth, lora=sure(right))))


def test_the_temperature_is_applied_to_probabilities_and_changes_no_label() -> None:
    truth = [0, 1] * 20
    predictions = of(truth, lora=sure([0, 1, 1, 0] * 10), tfidf=sure(truth))
    summary = summary_of(predictions, temperatures={"lora": TEMPERATURE})
    found = figures(summary, "lora")
    assert summary["temperature"] == TEMPERATURE
    assert found["scaled"]["nll"] < found["raw"]["nll"]
    assert figures(summary, "tfidf")["scaled"] is None
    plain = figures(summary_of(predictions), "lora")
    assert (plain["raw"], plain["accuracy"]) == (found["raw"], found["accuracy"])
    assert summary["errors"]["confident"] == 0 < summary_of(predictions)["errors"]["confident"]


def test_a_threshold_is_measured_on_these_rows() -> None:
    decision = {"goal": "recall>=0.9", "threshold": 0.2, "reached": True, "validation": {"recall": 0.95}}
    logits = [[0, -3.0], [0, -1.0], [0, 1.0], [0, -1.0]]  # P(pos) 0.05, 0.27, 0.73, 0.27
    summary = summary_of(of([0, 0, 1, 1], lora=logits), decision=decision)
    assert summary["decision"]["test"]["recall"] == 1.0
    assert summary["decision"]["test"]["precision"] == pytest.approx(2 / 3)
    assert figures(summary, "lora")["recall"] == 0.5  # by the likeliest label, as for every other model
    assert summary_of(of([0, 1, 2], ("a", "b", "c"), lora=sure([0, 1, 2], 3)), decision=decision)["decision"] is None


def test_robustness_is_scored_for_all_models_and_compared() -> None:
    cases = suite.Suite("own", tuple(
        suite.Case(f"{kind}-{n}", kind, suite.MINIMUM, f"{kind} {n}", "pos") for kind in ("typos", "slang")
        for n in range(20)
    ))  # fmt: skip
    answers = sure([1] * 40).astype(np.float32)
    asked = Robustness(cases, {"lora": answers, "tfidf": answers[:, ::-1].copy()})
    summary = summary_of(of([0, 1], lora=sure([0, 1]), tfidf=sure([0, 1])), robustness=asked)
    assert {model["key"]: model["score"] for model in summary["robustness"]["models"]} == {"tfidf": 0.0, "lora": 100.0}
    assert summary["comparisons"][0]["differences"]["robustness"] == {"difference": 100.0, "interval": [100.0, 100.0]}
    without = summary_of(of([0, 1], lora=sure([0, 1]), tfidf=sure([0, 1])))
    assert without["robustness"] == {"skipped": "it was not asked for"}
    assert without["comparisons"][0]["differences"]["robustness"] is None


def test_errors_name_their_training_twin() -> None:
    summary = summary_of(of([0, 1, 1], lora=sure([0, 1, 0])), overlap=Overlap({2: Twin("row two", "neg")}))
    [row] = summary["errors"]["rows"]
    assert (row["row"], row["said"], row["near_duplicate"]) == (2, "neg", {"text": "row two", "label": "neg"})


def test_many_labels_are_averaged_and_have_no_positive_one() -> None:
    summary = summary_of(of([0, 1, 2, 2], ("好", "坏", "中"), lora=sure([0, 1, 2, 1], 3)), positive="中")
    found = figures(summary, "lora")
    assert summary["positive_label"] is None and summary["averaging"] == "macro"
    assert found["recall"] == pytest.approx(2.5 / 3) and found["predicted_positive_rate"] is None
    assert [one["label"] for one in found["per_class"]] == ["好", "坏", "中"]
    assert found["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    classes, rows = draw(st.integers(2, 4)), draw(st.integers(1, 30))
    truth = draw(st.lists(st.integers(0, classes - 1), min_size=rows, max_size=rows))
    number = st.floats(-60, 60, width=32)
    return truth, np.array(
        draw(st.lists(st.lists(number, min_size=classes, max_size=classes), min_size=rows, max_size=rows)), np.float32
    )


@settings(deadline=None, max_examples=15)
@given(cases())
def test_document_is_plain_json_and_the_same_every_time(case: tuple[list[int], np.ndarray]) -> None:
    truth, logits = case
    predictions = of(truth, tuple("abcd"[: logits.shape[1]]), lora=logits, tfidf=logits[::-1])
    temperatures = {"lora": TEMPERATURE}
    first = summary_of(predictions, "a", temperatures=temperatures)
    text = json.dumps(first, allow_nan=False)
    assert text == json.dumps(summary_of(predictions, "a", temperatures=temperatures), allow_nan=False)
    assert json.loads(text) == first
    for model in first["models"]:
        missing = {name for name, value in model["metrics"].items() if value is None}
        assert missing <= set(model["metrics"]["undefined"])


def test_what_a_summary_refuses() -> None:
    with pytest.raises(NoData):
        summary_of(of([], lora=np.zeros((0, 2))))
    with pytest.raises(BrokenRun, match="positive label"):
        summary_of(of([1], lora=sure([1])), positive="positive")
    with pytest.raises(ValueError, match="source"):
        summary_of(of([1], lora=sure([1])), source="guessed")


DOCS = Path(__file__).resolve().parent.parent / "docs" / "evaluation.md"
SCHEMA = DOCS.read_text("utf-8").split("## metrics.json")[1]


def table(after: str) -> set[str]:
    """The keys in the first column of the first table after these words."""
    rows = SCHEMA.split(after, 1)[1].split("|---|---|\n", 1)[1].split("\n\n")[0].splitlines()
    return {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def braces(first: str) -> set[str]:
    """The keys of the braces that begin with this one; of what is in braces inside, only the name before them."""
    inside = SCHEMA.split("`{" + first, 1)[1].split("}`")[0]
    return set(re.findall(r"\w+", re.sub(r":[^,]*", "", re.sub(r"{[^}]*}?", "", first + inside))))


def test_the_keys_that_are_documented_are_those_that_there_are() -> None:
    cases = suite.built_in()
    known = {key: np.tile(np.float32([[1, 0]]), (len(cases.texts), 1)) for key in ("majority", "lora")}
    decision = {"goal": "f1", "threshold": 0.5, "reached": True, "validation": {"f1": 1.0}}
    found = summary_of(
        of([0, 1] * 10, lora=sure([1, 1] * 10), tfidf=sure([1, 1] * 10), majority=sure([1, 1] * 10)),
        robustness=Robustness(cases, known),
        overlap=Overlap({0: Twin("row", "pos")}),
        temperatures={"lora": TEMPERATURE},
        decision=decision,
    )
    assert table("Schema 2.") == set(found)
    metrics = figures(found, "lora")
    assert table("### `models[].metrics`") == set(metrics)
    assert table("A *probability block*:") == set(metrics["raw"]) == set(metrics["scaled"])
    assert braces("label, support") == set(metrics["per_class"][0])
    assert braces("low, high, count") == set(metrics["raw"]["reliability"][0])
    assert braces("mean, p95") == set(metrics["raw"]["floor"])
    assert braces("value, rows, nll_before") == set(found["temperature"])
    assert braces("goal, threshold") == set(found["decision"])
    assert braces("model: ") == set(found["comparisons"][0])
    assert braces("auc_roc, ece") == set(found["comparisons"][0]["differences"])
    robustness = found["robustness"]
    assert braces("suite, sha256") == set(robustness)
    assert braces("key, title, score") == set(robustness["models"][0])
    assert braces("category, test, cases") == set(robustness["models"][0]["categories"][0])
    assert braces("id, category") == set(robustness["failures"][0])
    errors = found["errors"]
    assert braces("confidence_from") == set(errors)
    assert braces("by, name, rows") == set(errors["groups"][0])
    assert braces("row, label, said") == set(errors["rows"][0])
    assert set(errors["rows"][0]["near_duplicate"] or {"text": "", "label": ""}) == {"text", "label"}
