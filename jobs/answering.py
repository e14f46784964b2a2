"""Answers to texts that were sent to a host with an adapter, for an evaluation elsewhere: the verb and its file.

Owns what lies in the folder of such a run.  The texts come without their labels; what they are for is not known here.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import adapter, base_model, safetensors_file
from jobs.errors import BrokenRun, JobError
from jobs.pace import Pace
from jobs.run_directory import RunDirectory
from jobs.submission import Submission

ADAPTER, TEXTS, ANSWERS = "adapter", "texts.jsonl", "answers.safetensors"
"""In the inputs: the adapter's folder, and a JSON object with a `text` a line.  In the artifacts: `logits` (N, C)."""


def answer(run: RunDirectory, submission: Submission) -> None:
    """Answer the texts of a run by the adapter in its inputs.  Raises JobError."""
    from jobs.classifier import Classifier

    folder = run.inputs / ADAPTER
    labels = adapter.read_json(folder / adapter.CLASSIFIER)["id2label"]
    texts = [json.loads(line)["text"] for line in (run.inputs / TEXTS).read_text("utf-8").splitlines()]
    model = Classifier.open(
        base_model.of_run(run, submission),
        folder,
        label_names=[labels[str(number)] for number in range(len(labels))],
        tokens_per_batch=submission.spec.tokens_per_batch,
    )
    logits = model.logits(texts, rows=len(texts), progress=Pace())
    safetensors_file.write(run.artifacts / ANSWERS, {"logits": logits})
    print(f"answered {len(texts):,} texts", flush=True)


def load(path: Path) -> NDArray[np.float32]:
    """The logits (N, C) of a file that a host sent.  Raises BrokenRun."""
    try:
        arrays = safetensors_file.read_arrays(safetensors_file.read_header(path).require())
    except (JobError, OSError) as error:
        raise BrokenRun(f"{path}: no answers: {error}") from error
    if arrays.keys() != {"logits"} or arrays["logits"].ndim != 2:
        raise BrokenRun(f"{path}: holds other things than answers")
    return arrays["logits"].astype(np.float32)
