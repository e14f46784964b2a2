"""What a run leaves of a sound adapter, made of numbers without any training, for tests of what carries it about."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jobs import adapter, atomic, safetensors_file
from jobs.run_directory import RunDirectory

MODULE = "base_model.model.model.layers.0.mlp.up_proj"
FILES = {
    f"adapter/{adapter.WEIGHTS}", f"adapter/{adapter.CONFIG}", f"adapter/{adapter.CLASSIFIER}", "training.json",
    "probes/probes.json",
}  # fmt: skip


def adapter_of(artifacts: Path) -> None:
    """Adapter, the description of its probes and training.json, such that every check of a spec with its usual values
    passes that takes no base."""
    chance, run = np.random.default_rng(0), RunDirectory(artifacts.parent)
    shapes = {
        f"{MODULE}.lora_A.weight": (16, 8),
        f"{MODULE}.lora_B.weight": (16, 16),
        "base_model.model.score.weight": (2, 8),
    }
    before, after = ({key: chance.random(shape, np.float32) for key, shape in shapes.items()} for _ in range(2))
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "r": 16, "lora_alpha": 16, "use_rslora": True,
              "target_modules": ["up_proj"]}  # fmt: skip
    used_with = {"id2label": {"0": "bad", "1": "good"}, "max_length": 256, "padding_side": "right", "pad_token_id": 0}
    safetensors_file.write(run.adapter / adapter.WEIGHTS, after)
    atomic.write_json(run.adapter / adapter.CONFIG, config)
    atomic.write_json(run.adapter / adapter.CLASSIFIER, used_with)
    atomic.write_json(run.probe_texts, used_with | {"texts": ["a"], "token_ids": [[1]]})
    initial = {key: adapter.array_fingerprint(array) for key, array in before.items()}
    atomic.write_json(run.training, {"label_names": ["bad", "good"], "initial": initial})


def empty(run: RunDirectory) -> None:
    """The disaster: every lora_B zero."""
    weights = run.adapter / adapter.WEIGHTS
    held = safetensors_file.read_arrays(safetensors_file.read_header(weights))
    safetensors_file.write(weights, {key: np.zeros_like(a) if "lora_B" in key else a for key, a in held.items()})


def says(run: RunDirectory, **changes: object) -> None:
    """Let the run's result say something else."""
    atomic.write_json(run.result, json.loads(run.result.read_text("utf-8")) | changes)
