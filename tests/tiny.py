"""A tiny Qwen2 with random weights, a toy task it can learn, and a run directory to learn it in."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers, processors
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from jobs import adapter, atomic, manifest, spec, submission, table
from jobs.run_directory import RunDirectory, new_run_id

# Two threads that wait for each other take many times longer than one where the cores are shared.
torch.set_num_threads(1)

GOOD, BAD, NEUTRAL = "好美佳", "差坏慢", "的了我房间店"


def make_base(folder: Path) -> Path:
    """A causal language model as it comes from the Hub: 2 layers of 32, a vocabulary of bytes, `<s> text </s>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    special: dict[str, Any] = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": None}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], padding_side="right", **special)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    with adapter.quiet_libraries():
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def toy_rows(count: int, seed: int) -> list[tuple[str, str]]:
    """(text, label): good where most of the telling characters are; neutral ones are strewn in."""
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        label = chance.choice(["bad", "good"])
        telling = [chance.choice(GOOD if label == "good" else BAD) for _ in range(chance.randint(1, 3))]
        characters = telling + [chance.choice(NEUTRAL) for _ in range(chance.randint(0, 8))]
        chance.shuffle(characters)
        rows.append(("".join(characters), label))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def make_run(runs: Path, base: Path, *, rows: int = 200, **keys: Any) -> RunDirectory:
    """A submitted run of the toy task that finds its base in the folder `base`; `keys` go over the spec."""
    run = RunDirectory(runs / new_run_id("toy"))
    for seed, (name, count) in enumerate({"train": rows, "validation": 40, "test": 40}.items()):
        texts, labels = zip(*toy_rows(count, seed), strict=True)
        atomic.write_bytes(run.inputs / f"{name}.jsonl", b"".join(table.lines(table.Table([*texts], [*labels]))))
    entries = {
        name: manifest.Entry(f"inputs/{name}.jsonl", path.stat().st_size, manifest.sha256_of(path))
        for name in ("train", "validation", "test")
        for path in [run.inputs / f"{name}.jsonl"]
    }
    document = {
        "name": "toy",
        "model_name_or_path": str(base),
        "data": {name: entry.path for name, entry in entries.items()},
        "num_train_epochs": 2,
        "learning_rate": 5e-3,
        "lora_r": 4,
        "train_batch_size": 8,
        "tokens_per_batch": 128,
        "max_length": 48,
    }
    frozen = submission.Submission(run.run_id, spec.from_mapping(document | keys), entries, (), "0" * 64)
    run.spec.write_text(json.dumps(frozen.to_json()), "utf-8")
    return run
