"""`launch compare` as a person and a script meet it, on runs that lie here as they were pulled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs import atomic, manifest, predictions_parquet, spec, submission
from jobs.predictions import Predictions
from jobs.run_directory import RunDirectory
from tests.conftest import Cli, Ended
from tests.hand_made import adapter_of

Launch = Callable[..., Ended]
ROWS = 60
SMALL, LARGE = "small-aaaaaaaa", "large-bbbbbbbb"


def answers(rows: int = ROWS, *, wrong: int, noise: int = 0) -> Predictions:
    """Every second row is good; the first `wrong` ones are answered wrongly."""
    truth = np.arange(rows, dtype=np.int64) % 2
    odds = np.where(np.arange(rows) < wrong, -1.0, 1.0) * (2 * truth - 1) * (1 + np.arange(rows) % 7 / 7 + noise)
    logits = np.stack([-odds / 2, odds / 2], axis=1).astype(np.float32)
    return Predictions(("bad", "good"), tuple(f"文{row}" for row in range(rows)), truth, {"lora": logits})


def pulled(folder: Path, predictions: Predictions) -> RunDirectory:
    run = RunDirectory(folder)
    adapter_of(run.artifacts)
    predictions.save(run.predictions)
    asked = spec.from_mapping(
        {"name": "x", "model_name_or_path": "org/base", "data": {"train": "a", "validation": "b", "test": "c"}},
        origin="here",
    )
    run_id = run.run_id if submission.RUN_ID.match(run.run_id) else "other-aaaaaaaa"
    atomic.write_json(run.spec, submission.Submission(run_id, asked, {}, (), "0" * 64).to_json())
    atomic.write_text(run.manifest, manifest.dump(manifest.list_files(run.artifacts)))
    vouches = {"state": "succeeded", "reason": "", "manifest_sha256": manifest.sha256_of(run.manifest)}
    atomic.write_json(run.result, {"protocol": 2, "run_id": run_id, **vouches})
    return run


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """One for all tests: the first comparison proves that this Python can do it, which takes it many seconds."""
    return Cli(tmp_path_factory.mktemp("laptop"))


@pytest.fixture
def cli(laptop: Cli, tmp_path: Path) -> Launch:
    """`launch`, typed where the runs lie."""
    return functools.partial(laptop, cwd=tmp_path)


@pytest.fixture
def runs(tmp_path: Path) -> tuple[RunDirectory, RunDirectory]:
    return pulled(tmp_path / SMALL, answers(wrong=20)), pulled(tmp_path / LARGE, answers(wrong=2))


def test_two_runs_side_by_side(cli: Launch, runs: tuple[RunDirectory, RunDirectory]) -> None:
    compared = cli("compare", SMALL, LARGE, "--json")
    assert compared.status == 0, compared
    assert [run["run"] for run in compared.data["runs"]] == [SMALL, LARGE]
    assert [run["source"] for run in compared.data["runs"]] == ["evaluated on its host"] * 2
    [found] = compared.data["comparisons"]
    assert (found["wins"], found["losses"], found["verdict"]) == (18, 0, "better")
    text = cli("compare", SMALL, LARGE)
    assert text.status == 0, text
    assert max(map(len, text.stdout.splitlines()[:3])) <= 80
    assert text.stdout.splitlines()[0].split() == ["60", "rows", "accuracy", "95", "%", "F1", "AUC", "ECE", "robust"]
    # In a pipe a sentence is one line.
    [line] = [line for line in text.stdout.splitlines() if "beats small-aaaaaaaa by 30.0 points of accuracy" in line]
    assert line.startswith("large-bbbbbbbb") and line.endswith(".")
    assert "note: " in text.stdout and "n/a" in text.stdout


def test_evaluations_made_here_are_found_by_the_files_name(
    cli: Launch, runs: tuple[RunDirectory, RunDirectory]
) -> None:
    argv = ("compare", SMALL, LARGE, "--data", "more.csv")
    for run, wrong in zip(runs, (1, 3), strict=True):
        missing = cli(*argv, "--json")
        assert (missing.status, missing.error["code"]) == (4, "not_found")
        assert missing.error["message"] == f"{run.run_id} was not evaluated here on 'more.csv'"
        assert missing.error["hint"] == f"launch evaluate {run.run_id} --data FILE"
        there = RunDirectory(run.evaluations / "more")
        predictions_parquet.save(there.home_predictions, answers(30, wrong=wrong), None)
        atomic.write_json(there.home_metrics, {})
    for name in ("more.csv", "more", "elsewhere/more.csv"):
        compared = cli(*argv[:-1], name, "--json")
        assert compared.data["rows"] == 30
        assert [run["source"] for run in compared.data["runs"]] == ["evaluated here"] * 2
    assert cli(*argv[:-1], "..", "--json").error["code"] == "not_found"


def test_different_rows_are_an_error_that_says_what_to_do(cli: Launch, runs: tuple[RunDirectory, RunDirectory]) -> None:
    predictions_parquet.save(runs[1].home_predictions, answers(50, wrong=2), None)
    refused = cli("compare", SMALL, LARGE, "--json")
    assert (refused.status, refused.error["code"]) == (1, "data_invalid")
    assert "evaluated on different rows: 60 and 50, 50 in both" in refused.error["message"]
    assert "--common" in refused.error["hint"]
    compared = cli("compare", SMALL, LARGE, "--common", "--json")
    assert compared.data["rows"] == 50
    assert [run["source"] for run in compared.data["runs"]] == ["evaluated on its host", "evaluated here"]


def test_what_its_run_does_not_vouch_for_is_not_compared(cli: Launch, runs: tuple[RunDirectory, RunDirectory]) -> None:
    answers(wrong=0).save(runs[1].predictions)
    refused = cli("compare", SMALL, LARGE, "--json")
    assert (refused.status, refused.error["code"]) == (7, "verification_failed")
    assert "large-bbbbbbbb is not compared: manifest: predictions.csv" in refused.error["message"]


def test_a_run_is_not_compared_with_itself(cli: Launch, runs: tuple[RunDirectory, RunDirectory]) -> None:
    refused = cli("compare", SMALL, f"{runs[0].root}/", "--json")
    assert (refused.status, refused.error["code"]) == (2, "usage")
    assert "are the same run" in refused.error["message"]


def test_a_folders_name_reaches_no_terminal_as_it_is(cli: Launch, runs: tuple[RunDirectory, RunDirectory]) -> None:
    hostile = pulled(runs[0].root.parent / "\x1b[31m[bold]evil\u202e", answers(wrong=2))
    text = cli("compare", SMALL, str(hostile.root))
    assert text.status == 0, text
    assert "\x1b" not in text.stdout and "\u202e" not in text.stdout and "[bold]evil" in text.stdout
