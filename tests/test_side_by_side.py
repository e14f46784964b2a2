"""Runs beside each other: the same rows whatever their order, and a sentence where they are not the same."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import adapter, predictions_parquet, safetensors_file, side_by_side, suite
from jobs.errors import BrokenRun, DataError
from jobs.predictions import Predictions
from jobs.run_directory import RunDirectory
from jobs.side_by_side import Asked, Contestant, compare
from tests.hand_made import adapter_of

ROWS = [("不好", "bad"), ("很好", "good"), ("很好", "good"), ("还行", "good"), ("还行", "bad"), ("差", "bad")]
LOG_ODDS = [-2.0, 3.0, 2.5, -0.5, -1.0, 0.5]


def contestant(
    name: str,
    rows: list[tuple[str, str]] = ROWS,
    log_odds: list[float] = LOG_ODDS,
    names: tuple[str, str] = ("bad", "good"),
    **more: Any,
) -> Contestant:
    """A run whose log odds of `good` over the rows are given, with the labels in any order."""
    half = np.array(log_odds)[:, None] / 2
    columns = {"bad": -half, "good": half}
    logits = np.hstack([columns[label] for label in names]).astype(np.float32)
    truth = np.array([names.index(label) for _, label in rows], np.int64)
    predictions = Predictions(names, tuple(text for text, _ in rows), truth, {"lora": logits})
    usual = {"positive_label": "good", "temperature": None, "robustness": None, "source": side_by_side.HERE}
    return Contestant(name, predictions, **(usual | more))


def test_each_is_held_against_the_first() -> None:
    better = contestant("b", log_odds=[-2, 3, 2.5, 0.5, -1, 0.5])
    compared = compare([contestant("a"), better, contestant("c")])
    assert [run["run"] for run in compared["runs"]] == ["a", "b", "c"]
    assert [run["figures"]["accuracy"] for run in compared["runs"]] == pytest.approx([4 / 6, 5 / 6, 4 / 6])
    one, other = compared["comparisons"]
    assert (one["model"], one["against"], one["wins"], one["losses"], one["rows"]) == ("b", "a", 1, 0, 6)
    assert one["verdict"] == "no clear difference" and "b and a can't be told apart" in one["sentence"]
    assert (other["wins"], other["losses"], other["mcnemar_p"]) == (0, 0, 1.0)
    assert one["sentences"][0] == one["sentence"]
    assert (compared["rows"], compared["positive_label"]) == (6, "good")


def test_many_rows_tell_two_runs_apart() -> None:
    rows = [(str(number), "good" if number % 2 else "bad") for number in range(400)]
    right = [1.0 if number % 2 else -1.0 for number in range(400)]
    worse = [-odds if number < 40 else odds for number, odds in enumerate(right)]
    compared = compare([contestant("a", rows, worse), contestant("b", rows, right)])
    [one] = compared["comparisons"]
    assert one["verdict"] == "better" and one["sentence"].startswith("b beats a by 10.0 points of accuracy (95 %")
    assert any(sentence.startswith("AUC of b less that of a: +0.1") for sentence in one["sentences"])
    assert any(sentence.startswith("ECE of b less") for sentence in one["sentences"])
    [back] = compare([contestant("b", rows, right), contestant("a", rows, worse)])["comparisons"]
    assert back["verdict"] == "worse" and "a is 10.0 points of accuracy below b" in back["sentence"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_neither_the_order_of_rows_nor_of_labels_matters(seed: int) -> None:
    """Equal rows stand for each other, so that only rows that differ are shuffled."""
    rows = [(str(number), label) for number, (_, label) in enumerate(ROWS)]
    other = [-1.0, 1.5, -2.0, 0.5, 1.0, -3.0]
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    shuffled = contestant("b", [rows[i] for i in order], [other[i] for i in order], ("good", "bad"))
    first = contestant("a", rows)
    assert compare([first, shuffled]) == compare([first, contestant("b", rows, other)])


def test_different_rows_are_counted_and_refused_with_a_way_out() -> None:
    fewer = contestant("b", [*ROWS[:4], ("差", "good")], LOG_ODDS[:5])
    with pytest.raises(
        DataError, match=r"a and b were evaluated on different rows: 6 and 5, 4 in both; 1 more have"
    ) as error:
        compare([contestant("a"), fewer])
    assert "launch evaluate a --data FILE; launch evaluate b --data FILE" in error.value.hint
    assert "--common" in error.value.hint
    twice = contestant("b", [ROWS[0], ROWS[0], *ROWS[1:]], [0.0, *LOG_ODDS])
    with pytest.raises(DataError, match=r"6 and 7, 6 in both$"):
        compare([contestant("a"), twice])


def test_common_rows_are_counted_with_multiplicity() -> None:
    fewer = contestant("b", [ROWS[1], ROWS[5], ("new", "bad")], [1.0, 1.0, 1.0])
    compared = compare([contestant("a"), fewer], common=True)
    assert compared["rows"] == 2
    assert compared["notes"][0] == "compared on the 2 rows that all have, of 6 of a, 3 of b"
    assert [run["rows"] for run in compared["runs"]] == [6, 3]
    with pytest.raises(DataError, match="no row in common"):
        compare([contestant("a"), contestant("b", [("x", "bad")], [1.0])], common=True)
    assert "rows that all have" not in " ".join(compare([contestant("a"), contestant("b")], common=True)["notes"])


def test_other_labels_are_refused() -> None:
    other = Predictions(("bad", "fine"), ("x",), np.zeros(1, np.int64), {"lora": np.ones((1, 2), np.float32)})
    stranger = Contestant("b", other, "fine", None, None, side_by_side.HERE)
    with pytest.raises(DataError, match="a and b have different labels: 'bad', 'good'; 'bad', 'fine'"):
        compare([contestant("a"), stranger])


def test_what_has_no_temperature_is_not_scaled() -> None:
    compared = compare([contestant("a"), contestant("b", temperature=2.0)])
    assert [run["figures"]["scaled"] is None for run in compared["runs"]] == [True, False]
    assert "no temperature is known of a: ECE is of the probabilities as they are" in compared["notes"]


# --- Robustness


CASES = suite.Suite(
    "own",
    tuple(suite.Case(f"{kind}-{n}", kind, suite.MINIMUM, f"{kind} {n}", "good") for kind in ("typos", "emoji")
          for n in range(10)),
)  # fmt: skip


def asked(failed: dict[str, int], cases: suite.Suite = CASES) -> Asked:
    """The suite, of which so many of each category failed."""
    passed = np.array([int(case.id.split("-")[1]) >= failed.get(case.category, 0) for case in cases.cases])
    return Asked(cases, passed, 100 * float(passed.mean()), [0.0, 100.0])


def test_robustness_is_compared_case_by_case() -> None:
    one, other = asked({"typos": 3}), asked({"typos": 1, "emoji": 1})
    compared = compare([contestant("a", robustness=one), contestant("b", robustness=other)])
    [found] = compared["comparisons"]
    # 20 points of typos, less 10 of emoji, halved.
    assert found["differences"]["robustness"]["difference"] == pytest.approx(5.0)
    assert any(sentence.startswith("Robustness of b less that of a: +5.0 (95 %") for sentence in found["sentences"])
    assert compared["runs"][0]["robustness"]["score"] == 85.0


@pytest.mark.parametrize(
    ("other", "says"),
    [(None, "none is known of b"), (asked({}, suite.Suite("own", CASES.cases[:15])), "the suites differ")],
)
def test_where_robustness_cant_be_compared_the_note_says_why(other: Asked | None, says: str) -> None:
    compared = compare([contestant("a", robustness=asked({})), contestant("b", robustness=other)])
    assert compared["comparisons"][0]["differences"]["robustness"] is None
    assert any(note.startswith(f"robustness of b and a is not compared: {says}") for note in compared["notes"])


# --- What is read


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """As it was pulled."""
    run = RunDirectory(tmp_path / "a-aaaaaaaa")
    adapter_of(run.artifacts)
    contestant("a").predictions.save(run.predictions)
    return run


def test_the_last_evaluation_here_comes_before_what_was_pulled(run: RunDirectory) -> None:
    pulled = side_by_side.read(run, "a")
    assert (pulled.source, pulled.temperature, pulled.positive_label) == (side_by_side.PULLED, None, "good")
    earlier = contestant("a", log_odds=[1.0] * 6).predictions
    earlier.save(run.earlier_home_predictions)
    assert side_by_side.read(run, "a").predictions.logits["lora"][0, 1] == 0.5
    predictions_parquet.save(run.home_predictions, contestant("a", log_odds=[4.0] * 6).predictions, 2.0)
    here = side_by_side.read(run, "a")
    assert here.predictions.logits["lora"][0, 1] == 2.0
    assert (here.source, here.robustness) == (side_by_side.HERE, None)


def test_temperature_and_suite_are_those_of_the_run(run: RunDirectory) -> None:
    fitted = {"value": 2.0, "rows": 40, "nll_before": 0.5, "nll_after": 0.4}
    changed(run.training, temperatures={"lora": fitted})
    changed(run.adapter / adapter.CLASSIFIER, temperature=2.0)
    suite.dump(CASES, run.suite)
    answers = np.array([[0.0, 1.0 if "emoji" in text else -1.0] for text in CASES.texts], np.float32)
    safetensors_file.write(run.suite_logits, {"lora": answers})
    found = side_by_side.read(run, "a")
    assert found.temperature == 2.0
    assert found.robustness and (found.robustness.score, int(found.robustness.passed.sum())) == (50.0, 10)


def test_another_evaluation_is_read_by_its_name(run: RunDirectory) -> None:
    with pytest.raises(DataError, match="no predictions"):
        side_by_side.read(run, "a", "more")
    predictions_parquet.save(run.evaluations / "more" / "predictions.parquet", contestant("a").predictions, None)
    assert side_by_side.read(run, "a", "more").source == side_by_side.HERE


def changed(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_predictions_of_other_labels_than_the_training_are_refused(run: RunDirectory) -> None:
    Predictions(("bad", "evil"), ("x",), np.zeros(1, np.int64), {"lora": np.ones((1, 2), np.float32)}).save(
        run.predictions
    )
    with pytest.raises(BrokenRun, match="predictions of 'bad', 'evil', trained on 'bad', 'good'"):
        side_by_side.read(run, "a")
