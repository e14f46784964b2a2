"""Tiny bases with random weights, a toy task they can learn, and a run directory to learn it in."""

from __future__ import annotations

import csv
import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from jobs import adapter, atomic, manifest, provenance, spec, submission, table
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


_SIZES: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "initializer_range": 0.2,
}  # fmt: skip
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_DECODER: dict[str, Any] = _SIZES | _SPECIAL | {"num_key_value_heads": 2, "head_dim": 8}
_ENCODER: dict[str, Any] = _SIZES | _SPECIAL
_ROBERTA: dict[str, Any] = _ENCODER | {"pad_token_id": 1, "bos_token_id": 0, "max_position_embeddings": 66}
_GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
_OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32, "init_std": 0.2, "pad_token_id": 1, "bos_token_id": 2}
_DISTILBERT = {"dim": 32, "hidden_dim": 64}  # the rest by its usual names
DECODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _DECODER),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _DECODER),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _DECODER | {"pad_token_id": None}),
    "mistral": ("MistralConfig", "MistralForCausalLM", _DECODER | {"pad_token_id": None, "sliding_window": 8}),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _DECODER),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _DECODER | {"sliding_window": 8}),
    "gemma3_text": ("Gemma3TextConfig", "Gemma3ForCausalLM", _DECODER | {"sliding_window": 8}),
    "phi3": ("Phi3Config", "Phi3ForCausalLM", _DECODER),
    "smollm3": ("SmolLM3Config", "SmolLM3ForCausalLM", _DECODER),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2 | {"bos_token_id": 2, "eos_token_id": 2}),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _ENCODER),
    "opt": ("OPTConfig", "OPTForCausalLM", _SIZES | _OPT),
}
ENCODERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("BertConfig", "BertForMaskedLM", _ENCODER),
    "roberta": ("RobertaConfig", "RobertaForMaskedLM", _ROBERTA),
    "xlm-roberta": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", _ROBERTA),
    "distilbert": ("DistilBertConfig", "DistilBertForMaskedLM", _SIZES | _DISTILBERT | {"pad_token_id": 0}),
    "electra": ("ElectraConfig", "ElectraForMaskedLM", _ENCODER | {"embedding_size": 16}),
    "deberta-v2": ("DebertaV2Config", "DebertaV2ForMaskedLM", _ENCODER | {"relative_attention": True}),
    "modernbert": ("ModernBertConfig", "ModernBertForMaskedLM", _ENCODER | {"cls_token_id": 1, "sep_token_id": 2}),
}


def make_base_of(kind: str, folder: Path, *, dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
    """A causal or masked language model of any of `DECODERS` and `ENCODERS`, with a tokenizer of bytes.

    Special tokens are placed as that family places them: a start for Llama's and Gemma's kin, none for Qwen and GPT-2,
    start and end for encoders.
    """
    config, model, sizes = (DECODERS | ENCODERS)[kind]
    torch.manual_seed(0)
    with adapter.quiet_libraries():
        made = getattr(transformers, model)(getattr(transformers, config)(**(sizes | settings)))
        made.to(dtype).save_pretrained(folder)
    first = ["<s>", "<pad>", "</s>"] if sizes.get("pad_token_id") == 1 else ["<pad>", "<s>", "</s>"]
    vocabulary = {token: index for index, token in enumerate([*first, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    starts = kind in ENCODERS or kind.startswith(("llama", "mistral", "gemma", "opt"))
    around = f"{'<s> ' * starts}$A{' </s>' * (kind in ENCODERS)}"
    marks = [(mark, vocabulary[mark]) for mark in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=marks)
    special = {"gpt2": {"eos_token": "</s>", "bos_token": "</s>"}, "qwen2": {"eos_token": "</s>", "pad_token": "<pad>"}}
    names = special.get(kind, {"bos_token": "<s>", "eos_token": "</s>"})
    if kind not in ("gpt2", "qwen2", "llama", "mistral"):
        names = names | {"pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
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


def make_run(
    runs: Path,
    base: Path,
    *,
    rows: int = 200,
    data: dict[str, list[tuple[str, str]]] | None = None,
    pushed: bool = False,
    **keys: Any,
) -> RunDirectory:
    """A submitted run of the toy task, or on `data` by split, that finds its base in the folder `base`.

    With `pushed` it has a copy of the base in its inputs instead.  `keys` go over the spec.
    """
    run = RunDirectory(runs / new_run_id("toy"))
    counts = {"train": rows, "validation": 40, "test": 40}
    for name, given in (
        data or {name: toy_rows(count, seed) for seed, (name, count) in enumerate(counts.items())}
    ).items():
        texts, labels = zip(*given, strict=True)
        atomic.write_bytes(run.inputs / f"{name}.jsonl", b"".join(table.lines(table.Table([*texts], [*labels]))))
    entries = {
        name: manifest.Entry(f"inputs/{name}.jsonl", path.stat().st_size, manifest.sha256_of(path))
        for name in ("train", "validation", "test")
        for path in [run.inputs / f"{name}.jsonl"]
    }
    if pushed:
        shutil.copytree(base, run.inputs / "base")
    base_files = manifest.list_files(run.inputs / "base") if pushed else []
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
        "robustness": "no",  # two thousand texts more a training
    }
    code = provenance.code_sha256(manifest.sha256_of(path) for path in provenance.PACKAGE.glob("*.py"))
    sent = tuple(replace(entry, path=f"inputs/base/{entry.path}") for entry in base_files)
    frozen = submission.Submission(run.run_id, spec.from_mapping(document | keys), entries, sent, code)
    run.spec.write_text(json.dumps(frozen.to_json()), "utf-8")
    return run
