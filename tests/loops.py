"""A training loop around a tiny base, without a run around it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny import toy_rows

from jobs import batches, fitting
from jobs import model as models
from jobs.events import EventLog
from jobs.spec import Spec, from_mapping


def load_base(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return models.load_base(
        folder, label_names=("bad", "good"), pad_token_id=0, dtype=dtype, device=torch.device("cpu")
    )


@dataclasses.dataclass(frozen=True)
class Loop:
    """A model with LoRA, rows and a spec: what `fit` needs."""

    model: Any
    rows: fitting.Encoded
    validation: fitting.Encoded
    spec: Spec
    events: EventLog

    def fit(self, **more: Any) -> fitting.Fitted:
        return fitting.fit(self.model, self.rows, self.validation, self.spec, self.events, **more)

    def weights(self) -> dict[str, torch.Tensor]:
        """Of everything that is trained."""
        return {name: one.detach().clone() for name, one in self.model.named_parameters() if one.requires_grad}


def make_loop(base: Path, folder: Path, *, rows: int = 61, dtype: torch.dtype = torch.float32, **keys: Any) -> Loop:
    document = {"name": "toy", "model_name_or_path": str(base), "data": "toy.csv", "num_train_epochs": 1}
    spec = from_mapping(document | {"train_batch_size": 8, "tokens_per_batch": 64, "learning_rate": 5e-3} | keys)
    tokenizer = models.load_tokenizer(base)
    torch.manual_seed(spec.seed)
    splits = []
    for seed, count in enumerate((rows, 20)):
        made = toy_rows(count, seed)
        token_ids = batches.Tokens(models.encode(tokenizer, [text for text, _ in made], spec.max_length))
        splits.append(fitting.Encoded(token_ids, np.array([label == "good" for _, label in made], np.int64)))
    return Loop(models.with_lora(load_base(base, dtype), spec), *splits, spec, EventLog(folder / "events.jsonl"))
