"""Trackers get what the events have, offline, and never fail a run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from tiny import make_base, make_run

from jobs import trackers, training
from jobs.run_directory import RunDirectory
from jobs.trackers import Trackers


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read: Any = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(one.step, one.value) for one in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_training(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    monkeypatch.setattr(trackers, "TILE", tmp_path / "tf-logs")
    run = make_run(tmp_path, base, report_to=["tensorboard"], num_train_epochs=1)
    training.train(run.root)
    found = scalars(run.root / "tensorboard" / run.run_id)
    assert found.keys() >= {"train/loss", "train/learning_rate", "train/tokens_per_s", "eval/loss", "eval/accuracy"}
    assert found["train/loss"][-1][0] == 25
    # Where the tile of a rented box looks, if there is such a place; and where the standard variable says, before that.
    (tmp_path / "tf-logs").mkdir()
    for variable, place in (("", tmp_path / "tf-logs"), (str(tmp_path / "own"), tmp_path / "own")):
        if variable:
            monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", variable)
        one = Trackers(("tensorboard",), "a-run", tmp_path, {"lr": 1})
        one.log(3, {"train/loss": 0.5})
        one.close()
        assert scalars(place / "a-run") == {"train/loss": [(3, 0.5)]}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_without_a_key_writes_here_and_says_how_to_send_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    one = Trackers(("wandb",), "toy-aaaaaaaa", tmp_path, {"seed": 1})
    one.log(1, {"train/loss": 0.5})
    one.log(2, {"train/loss": 0.25})
    one.close()
    said = capsys.readouterr().out
    assert "offline; to send it: wandb sync" in said
    [folder] = (tmp_path / "wandb").glob("offline-run-*toy-aaaaaaaa")
    # wandb writes in a process of its own, which may be behind on a busy machine.
    limit = time.monotonic() + 30
    while (size := next(folder.glob("*.wandb")).stat().st_size) <= 100 and time.monotonic() < limit:
        time.sleep(0.1)
    assert size > 100


def test_what_does_not_work_is_left_out_and_said(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a file").write_text("", "utf-8")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "a file"))
    run: RunDirectory = make_run(tmp_path, base, report_to=["tensorboard"], num_train_epochs=1, rows=40)
    training.train(run.root)
    assert run.adapter.is_dir()
    assert "warning: tensorboard is left out: " in capsys.readouterr().out


def test_one_that_breaks_in_the_middle_ends_alone(capsys: pytest.CaptureFixture[str]) -> None:
    one, told = Trackers(), []

    def broken(step: int, values: Any) -> None:
        raise RuntimeError("the other side hung up")

    one._open = {"wandb": (broken, lambda: None), "tensorboard": (lambda step, values: told.append(step), lambda: None)}
    one.log(1, {})
    one.log(2, {})
    one.close()
    assert told == [1, 2]
    assert capsys.readouterr().out.count("the other side hung up") == 1
