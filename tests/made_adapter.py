"""An adapter of random numbers on a tiny base: as good as a trained one for whoever only has to answer with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs import adapter
from jobs import model as models
from jobs.spec import from_mapping

LABELS = ("bad", "good")


def make_adapter(base: Path, folder: Path, *, max_length: int = 24, saved: Any = None, **keys: Any) -> Path:
    """A saved adapter; `keys` go over the spec, `saved` over what `adapter.save` is told."""
    document = {"name": "made", "model_name_or_path": "tiny", "data": "none.csv", "lora_r": 4, "lora_alpha": 8}
    spec = from_mapping(document | {"max_length": max_length} | keys)
    torch.manual_seed(1)
    tokenizer = models.load_tokenizer(base)
    options: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}
    plain = models.load_base(base, label_names=LABELS, pad_token_id=tokenizer.pad_token_id, **options)
    model = models.with_lora(plain, spec).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_B" in name or "modules_to_save" in name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapter.save(
        model, tokenizer, folder, base_name="tiny/base", revision="main", id2label=dict(enumerate(LABELS)),
        max_length=spec.max_length, prompt_template=spec.prompt_template, long_texts=spec.long_texts, **(saved or {}),
    )  # fmt: skip
    return folder


def one_by_one(base: Path, folder: Path, rows: list[list[int]]) -> NDArray[np.float32]:
    """(N, C) as plain transformers and peft answer each row alone, LoRA beside the base."""
    model = adapter.load(base, folder, dtype=torch.float32, id2label=dict(enumerate(LABELS)))
    with torch.inference_mode():
        answers = [model(input_ids=torch.tensor([row])).logits for row in rows]
    together: NDArray[np.float32] = torch.cat(answers).numpy()
    return together
