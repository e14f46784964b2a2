"""What each choice of the recipe brings, alone: head start, learning rate, alpha, dropout.

python benchmarks/ablation.py [--seeds 42,1,2] [--reviews FOLDER] [--train-rows N] [--only random head,alpha 16]

Every row differs from the first in one thing (the last one in all of them) and trains the reviews (examples/reviews) on
the small base for an epoch.  Everything is read off the validation split: the test split is not for choosing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.training import BASE, encoded, load, probed, with_lora  # noqa: E402

RECIPE: dict[str, Any] = {
    "name": "ablation",
    "model_name_or_path": str(BASE),
    "data": "reviews.csv",
    "num_train_epochs": 1,
    "learning_rate": 1.5e-3,
    "lora_alpha": 8,
    "lora_dropout": 0.0,
    "head_start": "probe",
    "max_length": 256,
    "tokens_per_batch": 2048,
}
CHANGES: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "random head": {"head_start": "random"},
    "learning rate 2e-4": {"learning_rate": 2e-4},
    "learning rate 5e-4": {"learning_rate": 5e-4},
    "learning rate 2e-3": {"learning_rate": 2e-3},
    "alpha 16": {"lora_alpha": 16},
    "alpha 32": {"lora_alpha": 32},
    "dropout 0.05": {"lora_dropout": 0.05},
    "random head, 2e-3, alpha 16, dropout 0.05": {
        "head_start": "random", "learning_rate": 2e-3, "lora_alpha": 16, "lora_dropout": 0.05,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="42,1,2")
    parser.add_argument(
        "--reviews", type=Path, required=True, help="folder that examples/reviews/prepare.py has written"
    )
    parser.add_argument("--train-rows", type=int, default=None)
    parser.add_argument("--only", default="", help="comma list of rows")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    splits = load(options)
    print(f"{os.cpu_count()} cores, {len(splits['train'][0])} training rows, seeds {options.seeds}\n")
    print("| | validation loss | accuracy | AUC | s |\n| --- | --- | --- | --- | --- |")
    for name, changes in CHANGES.items():
        if options.only and name not in options.only.split(","):
            continue
        found = [once({**RECIPE, **changes, "seed": seed}, splits) for seed in seeds]
        shown = [in_words([run[key] for run in found]) for key in ("loss", "accuracy", "auc")]
        print(f"| {name} | {' | '.join(shown)} | {statistics.mean(run['seconds'] for run in found):.0f} |", flush=True)


def in_words(values: list[float]) -> str:
    """The mean and all of them."""
    return f"{statistics.mean(values):.4f} ({', '.join(f'{value:.3f}' for value in values)})"


def once(document: dict[str, Any], splits: Any) -> dict[str, Any]:
    """Scores on validation of one training."""
    import numpy as np
    import torch

    from jobs import inference
    from jobs import model as models
    from jobs.events import EventLog
    from jobs.fitting import fit
    from jobs.probabilities import log_odds
    from jobs.ranking import auc_roc
    from jobs.spec import from_mapping

    spec = from_mapping(document)
    model, tokenizer = with_lora(spec)
    train, validation = (encoded(tokenizer, splits[name]) for name in ("train", "validation"))
    if spec.head_start == "probe":
        with torch.no_grad():
            models.head_of(model).weight.copy_(torch.from_numpy(probed(model, train, validation)))
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        fitted = fit(model, train, validation, spec, EventLog(Path(folder) / "events.jsonl"))
    logits = inference.logits(model, validation.token_ids, tokens_per_batch=4096)
    auc = auc_roc(validation.label_ids == 1, log_odds(logits)[:, 1]).value
    assert fitted.best is not None
    assert np.isfinite(logits).all()
    return {"loss": fitted.best.loss, "accuracy": fitted.best.accuracy, "auc": auc, "seconds": fitted.seconds}


if __name__ == "__main__":
    main()
