"""What only a GPU can show: training in bf16, the same bits after a break, no waiting, and that a CPU reproduces it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import Loop, make_loop
from test_fitting import Breaks, BreaksAfterSaving
from tiny import make_base, make_run

from jobs import training
from jobs.__main__ import main
from jobs.checkpoint import Checkpoints

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


def on_gpu(base: Path, folder: Path, **keys: Any) -> Loop:
    loop = make_loop(base, folder, **keys)
    loop.model.to("cuda")
    return loop


def test_a_gpu_trains_what_a_cpu_trains(base: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"learning_rate": 1e-3, "lora_r": 4}
    there, here = on_gpu(base, tmp_path, **keys).fit(), make_loop(base, tmp_path, **keys).fit()
    assert [loss for _, loss in there.losses] == pytest.approx([loss for _, loss in here.losses], rel=1e-2)


def test_bf16_is_about_the_same(base: Path, tmp_path: Path) -> None:
    exact, rounded = on_gpu(base, tmp_path).fit(), on_gpu(base, tmp_path, dtype=torch.bfloat16).fit()
    assert rounded.losses[0][1] == pytest.approx(exact.losses[0][1], rel=0.05)


def test_going_on_from_a_checkpoint_is_bitwise_the_same(base: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"lora_dropout": 0.1, "num_train_epochs": 2}
    whole = on_gpu(base, tmp_path, **keys)
    expected = whole.fit()
    with pytest.raises(Breaks):
        on_gpu(base, tmp_path, save_steps=5, **keys).fit(checkpoints=BreaksAfterSaving(tmp_path / "c", "toy"))
    again = on_gpu(base, tmp_path, **keys)
    torch.cuda.manual_seed(999)
    found, _ = Checkpoints(tmp_path / "c", "toy").latest()
    assert again.fit(found=found).losses == expected.losses
    for name, weight in again.weights().items():
        assert torch.equal(weight, whole.weights()[name]), name


def test_no_step_waits_for_the_gpu(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch raises where an operation would; the sentinels' looks at steps 1 and 20 and the evaluations may."""
    loop = on_gpu(base, tmp_path, num_train_epochs=5, tokens_per_batch=4096)
    seen: list[int] = []
    real = loop.events.write

    def write(kind: str, **fields: Any) -> None:
        real(kind, **fields)
        if kind == "calibration":  # after step 20: from here to the next evaluation nothing waits
            torch.cuda.set_sync_debug_mode("error")
        elif kind == "step":
            seen.append(fields["step"])

    monkeypatch.setattr(loop.events, "write", write)
    loop.model.register_forward_pre_hook(
        lambda module, _: torch.cuda.set_sync_debug_mode(0) if not module.training else None
    )
    try:
        loop.fit()
    finally:
        torch.cuda.set_sync_debug_mode(0)
    assert seen


@pytest.mark.parametrize("bf16", ["yes", "no"])
def test_what_a_gpu_trained_is_reproduced_there_and_on_a_cpu(base: Path, tmp_path: Path, bf16: str) -> None:
    run = make_run(tmp_path, base, bf16=bf16)
    training.train(run.root)
    assert main(["finish", str(run.root)]) == 0
    hidden = {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    argv = [sys.executable, "-m", "jobs.reproduction", run.adapter, run.probes, base, "--where", "home", "--out", "out"]
    subprocess.run([str(word) for word in argv], cwd=tmp_path, env=os.environ | hidden, check=True)
    assert {one["id"] for one in json.loads((tmp_path / "out").read_text()) if one["status"] != "pass"} <= {
        "degenerate"
    }
