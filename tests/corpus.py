"""Healthy adapters of every kind, made by plain PEFT on tiny bases and really trained."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tiny import make_base_of
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForPreTraining,
)

from jobs import adapter, base_tensors, safetensors_file
from jobs.static_checks import Told

CLASSES = 3
INITIAL = "initial.safetensors"
"""What an adapter was before the first step, beside its folder."""
KINDS = ("qwen2", "qwen3", "llama", "bert")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "CAUSAL_LM": AutoModelForCausalLM,
}


@dataclass(frozen=True)
class Recipe:
    """A healthy adapter: its base, its task, PEFT's settings, how long it is trained and how its numbers are kept."""

    kind: str
    settings: dict[str, Any] = field(hash=False)
    task: str | None = "SEQ_CLS"
    steps: int = 3
    learning_rate: float = 5e-3
    dtype: str = "fp32"

    @property
    def name(self) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        return f"{self.kind} {self.task} {self.dtype} {self.steps} steps of {self.learning_rate:g}: {settings}"


def recipes() -> Iterator[Recipe]:
    """Over a hundred, from the choices that people make, and those that PEFT's configuration allows."""
    ranks = itertools.cycle((1, 2, 4, 8, 16, 32, 64))
    dtypes = itertools.cycle(DTYPES)
    steps = itertools.cycle(((1, 1e-5), (1, 1e-3), (3, 5e-3), (20, 2e-3)))
    for kind in KINDS:
        decoder = kind != "bert"
        some = ["q_proj", "v_proj"] if decoder else ["query", "value"]
        mlp = "up_proj" if decoder else "intermediate.dense"
        layer = r".*\.layers\.1\..*(q|k)_proj" if decoder else r".*\.layer\.1\..*\.(query|key)"
        choices: list[dict[str, Any]] = [
            {"target_modules": "all-linear"},
            {"target_modules": "all-linear", "use_rslora": True},
            {"target_modules": "all-linear", "use_dora": True},
            {"target_modules": "all-linear", "exclude_modules": [mlp]},
            {"target_modules": "all-linear", "lora_alpha": 1, "init_lora_weights": "gaussian"},
            {"target_modules": some},
            {"target_modules": some, "use_rslora": True, "use_dora": True},
            {"target_modules": some, "layers_to_transform": [1]},
            {"target_modules": some, "layers_to_transform": 0, "layers_pattern": "layers" if decoder else "layer"},
            {"target_modules": [*some, mlp], "rank_pattern": {mlp: 3, f"0.{mlp}" if decoder else mlp: 3}},
            {"target_modules": some, "rank_pattern": {rf".*\.1\..*{some[0]}": 5}, "alpha_pattern": {some[1]: 2}},
            {"target_modules": layer},
            {"target_modules": layer, "use_rslora": True, "lora_alpha": 64},
            {"target_modules": some, "lora_dropout": 0.1, "bias": "lora_only"},
            {"target_modules": some, "bias": "all"},
            {"target_modules": some, "lora_bias": True},
            {"target_modules": [*some, "embed_tokens" if decoder else "word_embeddings"]},
            {"target_modules": some, "init_lora_weights": False},
            {"target_modules": some, "init_lora_weights": "pissa", "r": 4},
            {"target_modules": some, "init_lora_weights": "olora", "r": 4},
        ]
        for settings in choices:
            count, rate = next(steps)
            yield Recipe(kind, {"r": next(ranks)} | settings, steps=count, learning_rate=rate, dtype=next(dtypes))
        for settings in choices[:6] + choices[9:12] + choices[16:17]:
            if decoder:
                yield Recipe(kind, {"r": next(ranks), **settings}, "CAUSAL_LM", dtype=next(dtypes))
        yield Recipe(
            kind, {"r": 4, "target_modules": some, "modules_to_save": ["embed_tokens" if decoder else "pooler"]}
        )
        yield Recipe(kind, {"r": 4, "target_modules": some}, "TOKEN_CLS")
        if decoder:
            yield Recipe(kind, {"r": 2, "target_modules": some, "modules_to_save": ["lm_head"]}, "CAUSAL_LM")
            yield Recipe(kind, {"r": 2, "target_modules": [*some, "lm_head"]}, "CAUSAL_LM")
            yield Recipe(kind, {"r": 2, "target_modules": some, "trainable_token_indices": [3, 4]}, "CAUSAL_LM")
            yield Recipe(kind, {"r": 2, "target_modules": some}, None)


def make(recipe: Recipe, base: Path, folder: Path) -> Path:
    """The adapter of `recipe` on the base in `base`, trained and saved by PEFT, as its users have it."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own are not what is tested here
        return _made(recipe, base, folder)


def _made(recipe: Recipe, base: Path, folder: Path) -> Path:
    model, initial = train(recipe, base)
    folder.mkdir(parents=True)
    save_file(initial, folder.with_name(INITIAL))
    dtype = DTYPES[recipe.dtype]
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    with adapter.quiet_libraries():
        model.save_pretrained(str(folder))
    return folder


def train(recipe: Recipe, base: Path) -> tuple[PeftModel, dict[str, torch.Tensor]]:
    """A PEFT model after the steps of `recipe`, and its tensors from before the first."""
    options = {} if recipe.task in ("CAUSAL_LM", None) else {"num_labels": CLASSES}
    with adapter.quiet_libraries():
        made = AUTO[recipe.task or "CAUSAL_LM"].from_pretrained(str(base), dtype=torch.float32, **options)
        made.config.pad_token_id = 0
        model = get_peft_model(made, LoraConfig(task_type=recipe.task, **recipe.settings))
    initial = {key: value.clone() for key, value in adapter.adapter_tensors(model).items()}
    input_ids = torch.randint(3, 250, (4, 12))
    labels = input_ids if recipe.task in ("CAUSAL_LM", None) else torch.arange(4) % CLASSES
    if recipe.task == "TOKEN_CLS":
        labels = (input_ids % CLASSES).contiguous()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate)
    for _ in range(recipe.steps):
        model(input_ids=input_ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, initial


def told(folder: Path, base: Path) -> Told:
    """What a run of ours would tell of this adapter; its labels are written to where a run has them."""
    document = {"id2label": {str(number): f"class {number}" for number in range(CLASSES)}}
    (folder / adapter.CLASSIFIER).write_text(json.dumps(document))

    def fingerprints(path: Path) -> dict[str, Any]:
        arrays = safetensors_file.read_arrays(safetensors_file.read_header(path))
        return {key: adapter.array_fingerprint(array) for key, array in arrays.items()}

    hashes = base_tensors.of_folder(base).weights_sha256()
    return Told(fingerprints(folder.with_name(INITIAL)), fingerprints(folder / adapter.WEIGHTS), hashes)


@cache
def base_of(kind: str, folder: Path) -> Path:
    """The tiny base of a kind, made once below `folder`; BERT's has its pooler, as those on the Hub do."""
    base = make_base_of(kind, folder / kind)
    if kind == "bert":
        torch.manual_seed(0)
        with adapter.quiet_libraries():
            BertForPreTraining.from_pretrained(base).save_pretrained(base)
    return base
