"""Validation rows as a training saw them, and the scores it recorded there for the weights it kept.

Whether another process gets these scores from what lies on disk is for `reproduction` to judge.  Owns nothing that a
laptop could ask for: the rows stay on the host.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs import data
from jobs.empty_text import without_empty
from jobs.errors import BrokenRun
from jobs.run_directory import RunDirectory
from jobs.submission import Submission


@dataclass(frozen=True)
class HeldOut:
    """N texts with label_ids (N,), and what training.json says of them: `loss` in nats a row, `accuracy` in [0, 1]."""

    texts: list[str]
    label_ids: NDArray[np.int64]
    loss: float
    accuracy: float
    tokens_per_batch: int | str


def of_run(run: RunDirectory, submission: Submission) -> HeldOut:
    """The validation split of a run that was just trained.  Raises BrokenRun where the record of it can't be read."""
    try:
        best = json.loads(run.training.read_text("utf-8"))["best"]
        loss, accuracy = float(best["loss"]), float(best["accuracy"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenRun(f"{run.training}: no scores of the best weights ({type(error).__name__})") from error
    if not (math.isfinite(loss) and 0 <= accuracy <= 1):
        raise BrokenRun(f"{run.training}: impossible scores of the best weights: {best!r:.100}")
    rows = without_empty(data.load_splits(run.root, submission).validation)
    return HeldOut(rows.texts, rows.label_ids, loss, accuracy, submission.spec.tokens_per_batch)
