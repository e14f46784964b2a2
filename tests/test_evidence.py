"""What a host sends home of an evaluation: read back as it was, the same figures to the byte, and no lie believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import adapter_of

from jobs import adapter, evaluation, evidence, safetensors_file, submission, suite, summary
from jobs import spec as specs
from jobs.errors import BrokenRun, DataError
from jobs.evidence import ON_HOST, Evidence, Robustness
from jobs.overlap import Overlap, Twin
from jobs.predictions import Predictions
from jobs.questions import Asked
from jobs.run_directory import RunDirectory

CASES = suite.Suite("own", tuple(
    suite.Case(f"c{n}", "typos" if n % 2 else "slang", suite.MINIMUM, f"text {n}", "good" if n % 3 else "bad")
    for n in range(60)
))  # fmt: skip
TEMPERATURE = {"value": 1.5, "rows": 40, "nll_before": 0.5, "nll_after": 0.45}
DECISION = {"goal": "f1", "threshold": 0.4, "reached": True, "validation": {"f1": 0.9, "precision": None}}
SUBMITTED = submission.Submission(
    "toy-abcdefgh", specs.from_mapping({"name": "toy", "model_name_or_path": "x", "data": "x.csv"}), {}, (), ""
)


def changed(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """As a host left it: 90 rows, three models, a suite, a temperature and a threshold."""
    run = RunDirectory(tmp_path / "toy-abcdefgh")
    adapter_of(run.artifacts)
    changed(run.training, positive_label="good", temperatures={"lora": TEMPERATURE}, decision=DECISION)
    changed(run.adapter / adapter.CLASSIFIER, temperature=1.5, threshold=0.4)
    chance = np.random.default_rng(0)
    truth = chance.integers(0, 2, 90)
    logits = {
        key: chance.normal(size=(90, 2)).astype(np.float32) + np.eye(2, dtype=np.float32)[truth]
        for key in ("majority", "tfidf", "lora")
    }
    asked = {key: chance.normal(size=(len(CASES.texts), 2)).astype(np.float32) for key in ("lora", "tfidf")}
    Evidence(
        evidence.read_trained(run),
        Predictions(("bad", "good"), tuple(f"文 {n}\n" for n in range(90)), truth, logits),
        Robustness(CASES, asked),
        Overlap({3: Twin("文 3", "bad")}),
        ON_HOST,
        90,
    ).save(run)
    return run


def test_what_was_sent_is_what_is_read(run: RunDirectory) -> None:
    found = evidence.load(run, "auto")
    assert (found.predictions.rows, found.source, found.rows_in_all) == (90, ON_HOST, 90)
    assert found.robustness.suite and found.robustness.suite.sha256 == CASES.sha256
    assert found.robustness.logits.keys() == {"lora", "tfidf"}
    assert found.overlap and found.overlap.twins[3].label == "bad"
    assert (found.trained.temperature("lora"), found.trained.temperature("tfidf")) == (1.5, None)
    assert found.trained.decision == DECISION


def test_home_gets_the_hosts_document_to_the_byte(run: RunDirectory, tmp_path: Path) -> None:
    there = summary.summarise(evidence.load(run, "auto"), run_id=run.run_id)
    evaluated = evaluation.at_home(run, SUBMITTED, Asked())
    assert json.dumps(evaluated.metrics) == json.dumps(there)
    assert "nothing was inferred here" in evaluated.notes[0]
    written = evaluation.write_home(run, tmp_path / "home", evaluated, {}, lang="zh")
    assert json.loads(written.home_metrics.read_text("utf-8")) == there
    assert written.report.read_text("utf-8").startswith("<!doctype html>")
    assert {path.suffix for path in written.plots.iterdir()} == {".png"}
    assert written.home_predictions.stat().st_size and written.home_errors.stat().st_size


def test_a_limit_draws_every_label_by_its_share(run: RunDirectory) -> None:
    whole, some = (evaluation.at_home(run, SUBMITTED, Asked(limit=limit)).metrics for limit in (0, 30))
    assert (some["rows"], some["rows_in_all"]) == (30, 90)
    for label, count in whole["class_counts"].items():
        assert abs(some["class_counts"][label] - count / 3) <= 1
    assert some == evaluation.at_home(run, SUBMITTED, Asked(limit=30)).metrics
    assert evaluation.at_home(run, SUBMITTED, Asked(limit=10**9)).metrics == whole
    drawn = evaluation.at_home(run, SUBMITTED, Asked(limit=30)).evidence
    pulled = evidence.load(run, "auto").predictions
    for row, text in enumerate(drawn.predictions.texts):
        before = pulled.texts.index(text)
        assert drawn.predictions.logits["lora"][row].tolist() == pulled.logits["lora"][before].tolist()
    assert drawn.overlap and {drawn.predictions.texts[row] for row in drawn.overlap.twins} <= {"文 3\n"}


def test_what_takes_the_base_says_so(run: RunDirectory, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"text": "a", "label": "good", "category": "x"}\n')
    with pytest.raises(DataError, match="without the base model only what came with the run"):
        evaluation.at_home(run, SUBMITTED, Asked(suite=own))
    own.write_text('{"text": "a", "label": "neutral", "category": "x"}\n')
    with pytest.raises(DataError, match="does not know the label 'neutral'"):
        evaluation.at_home(run, SUBMITTED, Asked(suite=own))
    more = tmp_path / "more.jsonl"
    more.write_text('{"text": "a", "label": "good"}\n')
    with pytest.raises(DataError, match="without the base"):
        evaluation.at_home(run, SUBMITTED, Asked(data=more))


def test_a_run_of_an_earlier_version_has_less(run: RunDirectory) -> None:
    for path in (run.suite, run.suite_logits, run.overlap):
        path.unlink()
    document = json.loads(run.training.read_text())
    run.training.write_text(json.dumps({k: v for k, v in document.items() if k not in ("temperatures", "decision")}))
    (run.adapter / adapter.CLASSIFIER).write_text(json.dumps({"max_length": 256}))
    found = summary.summarise(evidence.load(run, "auto"), run_id=run.run_id)
    assert found["temperature"] is None and found["decision"] is None
    assert found["robustness"] == {"skipped": "the run has no answers to it"}


def to_logits(change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> Callable[[RunDirectory], None]:
    def apply(run: RunDirectory) -> None:
        held = safetensors_file.read_arrays(safetensors_file.read_header(run.suite_logits))
        safetensors_file.write(run.suite_logits, change(held))

    return apply


def claimed(path: Path, rows: int) -> None:
    """A file of so many rows for the adapter, all of them zero and none of them on the disk."""
    shape = {"dtype": "F32", "shape": [rows, 2], "data_offsets": [0, rows * 8]}
    header = json.dumps({"lora": shape}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + rows * 8)


LIES: dict[str, Callable[[RunDirectory], None]] = {
    "another temperature": lambda run: changed(run.training, temperatures={"lora": TEMPERATURE | {"value": 1.4}}),
    "no temperature": lambda run: changed(run.training, temperatures={}),
    "a temperature of nothing": lambda run: changed(run.training, temperatures={"dream": TEMPERATURE}),
    "a list": lambda run: changed(run.training, temperatures=[TEMPERATURE]),
    "infinite": lambda run: changed(run.training, temperatures={"lora": TEMPERATURE | {"nll_after": float("inf")}}),
    "too cold": lambda run: [changed(run.training, temperatures={"lora": TEMPERATURE | {"value": 1e-9}}),
                             changed(run.adapter / adapter.CLASSIFIER, temperature=1e-9)],
    "another threshold": lambda run: changed(run.training, decision=DECISION | {"threshold": 0.5}),
    "a threshold above one": lambda run: [changed(run.training, decision=DECISION | {"threshold": 1.5}),
                                          changed(run.adapter / adapter.CLASSIFIER, threshold=1.5)],
    "words for figures": lambda run: changed(run.training, decision=DECISION | {"validation": {"f1": "high"}}),
    "an unknown figure": lambda run: changed(run.training, decision=DECISION | {"validation": {"\ud800": 0.5}}),
    "an infinite figure": lambda run: changed(run.training, decision=DECISION | {"validation": {"f1": float("inf")}}),
    "a figure beyond floats": lambda run: changed(run.training, decision=DECISION | {"validation": {"f1": 10**400}}),
    "no goal": lambda run: changed(run.training, decision=DECISION | {"goal": "\ud800"}),
    "rows beyond all data": lambda run: changed(run.training, temperatures={"lora": TEMPERATURE | {"rows": 10**400}}),
    "more numbers than memory": lambda run: claimed(run.suite_logits, 10**10),
    "labels": lambda run: changed(run.training, label_names=["bad", "great"]),
    "no labels": lambda run: changed(run.training, label_names=None),
    "not a suite": lambda run: run.suite.write_text("{}\n"),
    "a cut suite": lambda run: run.suite.write_bytes(run.suite.read_bytes()[:-40]),
    "another suite": lambda run: suite.dump(suite.Suite("own", CASES.cases[:50]), run.suite),
    "no answers": lambda run: run.suite_logits.unlink(),
    "NaN": to_logits(lambda held: held | {"lora": np.full_like(held["lora"], np.nan)}),
    "a stranger": to_logits(lambda held: held | {"stranger": held["lora"]}),
    "not the adapter's": to_logits(lambda held: {"tfidf": held["tfidf"]}),
    "a suite of other labels": lambda run: suite.dump(suite.Suite("own", tuple(
        suite.Case(case.id, case.category, case.test, case.text, "elsewhere") for case in CASES.cases)), run.suite),
    "a twin beyond the rows": lambda run: run.overlap.write_text('{"row": 90, "text": "x", "label": "bad"}\n'),
    "no predictions": lambda run: run.predictions.unlink(),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_a_lie_is_refused_in_words(run: RunDirectory, lie: str) -> None:
    LIES[lie](run)
    with pytest.raises(BrokenRun) as refused:
        evidence.load(run, "auto")
    assert len(refused.value.message) < 600


# --- Answers of another host


def answers_file(path: Path, **tensors: np.ndarray) -> Path:
    safetensors_file.write(path, tensors)
    return path


def test_answers_of_a_host_take_the_place_of_those_that_came(run: RunDirectory, tmp_path: Path) -> None:
    texts = 90 + len(CASES.texts)
    sent = answers_file(tmp_path / "a", logits=np.tile(np.array([[0, 3]], np.float32), (texts, 1)))
    evaluated = evaluation.at_home(run, SUBMITTED, Asked(), answers=sent)
    [lora] = [model["metrics"] for model in evaluated.metrics["models"] if model["key"] == "lora"]
    assert (lora["predicted_counts"], evaluated.metrics["source"]) == ({"bad": 0, "good": 90}, ON_HOST)
    assert evaluated.notes[1].startswith("largest difference from the host's logits: ")
    cases = evaluated.metrics["robustness"]["models"]
    assert [model["score"] for model in cases if model["key"] == "lora"] == [pytest.approx(200 / 3, abs=0.1)]


NOT_ANSWERS = {
    "one too many": {"logits": np.zeros((151, 2), np.float32)},
    "of another model": {"logits": np.zeros((150, 3), np.float32)},
    "infinite": {"logits": np.full((150, 2), np.inf, np.float32)},
    "flat": {"logits": np.zeros(300, np.float32)},
    "of another name": {"others": np.zeros((150, 2), np.float32)},
    "and more": {"logits": np.zeros((150, 2), np.float32), "more": np.zeros(1, np.float32)},
}


@pytest.mark.parametrize("tensors", NOT_ANSWERS.values(), ids=NOT_ANSWERS)
def test_answers_that_are_none_are_refused(run: RunDirectory, tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(BrokenRun):
        evaluation.at_home(run, SUBMITTED, Asked(), answers=answers_file(tmp_path / "a", **tensors))
    (tmp_path / "b").write_bytes(b"no answers")
    for absent in (tmp_path / "b", tmp_path / "c"):
        with pytest.raises(BrokenRun, match="no answers"):
            evaluation.at_home(run, SUBMITTED, Asked(), answers=absent)
