"""Several processes train one adapter: the one that a single process would have trained, whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_base, make_run

from jobs import ranks, safetensors_file
from jobs.errors import JobError
from jobs.run_directory import RunDirectory
from jobs.stopping import EXIT_STATUS

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


def environment() -> dict[str, str]:
    # gloo asks the host name for its address otherwise, which need not be one of this machine's.
    here = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **here, "PYTHONUNBUFFERED": "1"}


START = """
import sys
from pathlib import Path
from jobs import ranks
from jobs.stopping import EXIT_STATUS, Stopped
try:
    sys.exit(ranks.start(int(sys.argv[1]), Path(sys.argv[2])))
except Stopped:
    sys.exit(EXIT_STATUS)
"""


def started(run: RunDirectory, count: int) -> list[str]:
    """What `python -m jobs train` does where there are so many GPUs."""
    return [sys.executable, "-P", "-c", START, str(count), str(run.root)]


def train(run: RunDirectory, count: int) -> str:
    argv = started(run, count) if count > 1 else [sys.executable, "-P", "-m", "jobs", "train", str(run.root)]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def tensors(run: RunDirectory) -> dict[str, Any]:
    return safetensors_file.read_arrays(safetensors_file.read_header(run.adapter / "adapter_model.safetensors"))


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(base: Path, tmp_path: Path) -> None:
    # Few steps at a small rate: sums in another order are amplified by every step.
    keys: dict[str, Any] = {"num_train_epochs": 1, "learning_rate": 1e-3, "train_batch_size": 32, "rows": 201}
    runs = [make_run(tmp_path, base, **keys) for _ in range(2)]
    said = [train(run, count) for run, count in zip(runs, (1, 2), strict=True)]
    alone, together = (json.loads(run.training.read_text("utf-8")) for run in runs)
    assert "cpu x 2" in said[1]
    assert said[1].count("base: ") == 1  # one of them speaks
    for one, other in zip(alone["losses"], together["losses"], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert together["rows_trained"] == alone["rows_trained"] == 201
    lora = [name for name in alone["initial"] if "lora_" in name]
    assert {name: together["initial"][name] for name in lora} == {name: alone["initial"][name] for name in lora}
    assert together["baselines"]["frozen_head"]["loss"] == pytest.approx(alone["baselines"]["frozen_head"]["loss"])
    found, expected = tensors(runs[1]), tensors(runs[0])
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert np.abs(array - expected[name]).max() < 1e-2 * np.abs(expected[name]).max() + 1e-5, name
        if ".lora_B." in name:  # no rank's share: every row has moved
            assert (np.abs(array).sum(axis=1) > 0).all(), name


@pytest.mark.slow
def test_two_processes_go_on_from_where_they_were_asked_to_stop(base: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"num_train_epochs": 12, "train_batch_size": 32, "lora_dropout": 0.1, "save_steps": 1000}
    whole, broken = (make_run(tmp_path, base, **keys) for _ in range(2))
    train(whole, 2)
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            started(broken, 2), env=environment(), stdout=file, stderr=file, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while not (broken.events.is_file() and '"type": "step"' in broken.events.read_text("utf-8")):
            assert process.poll() is None, log.read_text("utf-8")
            assert time.monotonic() < deadline, log.read_text("utf-8")
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(timeout=60) == EXIT_STATUS
    assert "checkpoint after step" in log.read_text("utf-8")
    assert not broken.result.exists()
    said = train(broken, 2)
    assert "going on from the checkpoint" in said
    one, other = (json.loads(run.training.read_text("utf-8")) for run in (whole, broken))
    assert other["losses"] == one["losses"]
    assert other["evaluations"] == one["evaluations"]
    weights = [(run.adapter / "adapter_model.safetensors").read_bytes() for run in (whole, broken)]
    assert weights[0] == weights[1]


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.wanted("auto") >= 1
    assert ranks.wanted(1) == 1
    assert not ranks.is_one_of_several()


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert ranks.wanted("auto") == 2
    with pytest.raises(JobError, match="gpus: 3, but this machine has 2"):
        ranks.wanted(3)


def test_alone_everything_is_as_it_is() -> None:
    one = ranks.Ranks()
    rows = one.rows(3, lambda places: np.stack([places, places], axis=1).astype(np.float32))
    assert rows.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert one.is_first
