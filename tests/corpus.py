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
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from tiny import make_base_of
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForPreTraining,
)

from jobs import adapter, base_tensors, safetensors_file
from jobs.static_subject import Told

CLASSES = 3
INITIAL = "initial.safetensors"
"""What an adapter was before the first step, beside its folder."""
KINDS = ("qwen2", "qwen3", "llama", "bert")
_SIZES: dict[str, Any] = {"vocab_size": 300, "d_model": 32, "decoder_start_token_id": 0}
_LAYERS = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}
_EXPERTS = {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 32}
_BODY = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MORE_BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "t5": ("T5Config", "T5ForConditionalGeneration", _SIZES | {"d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
    "bart": ("BartConfig", "BartForConditionalGeneration", _SIZES | _LAYERS | {"max_position_embeddings": 64}),
    "qwen2_moe": ("Qwen2MoeConfig", "Qwen2MoeForCausalLM", _BODY | _EXPERTS | {"num_key_value_heads": 2}),
}
"""Bases that no classifier is made of here."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
AUTO = {
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
    "CAUSAL_LM": AutoModelForCausalLM,
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
    "QUESTION_ANS": AutoModelForQuestionAnswering,
    "FEATURE_EXTRACTION": AutoModel,
}


@dataclass(frozen=True)
class Recipe:
    """A healthy adapter: its base, its task, PEFT's settings, how long it is trained and how its numbers are kept.

    `more_tokens` grow the vocabulary, and `rewritten` is what other versions and tools write into the configuration.
    """

    kind: str
    settings: dict[str, Any] = field(hash=False)
    task: str | None = "SEQ_CLS"
    steps: int = 3
    learning_rate: float = 5e-3
    dtype: str = "fp32"
    more_tokens: int = 0
    rewritten: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in self.settings.items())
        more = f", {self.more_tokens} more tokens" if self.more_tokens else ""
        more += f", then {', '.join(self.rewritten)}" if self.rewritten else ""
        return f"{self.kind} {self.task} {self.dtype} {self.steps} steps of {self.learning_rate:g}: {settings}{more}"


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


OLD = dict.fromkeys(("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_pattern", "bias", "lora_bias"))
UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|k_proj|up_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj|up_proj)))"
)
RAW = {"target_modules": "all-linear"}


def others() -> Iterator[Recipe]:
    """What else the world has: of each kind one or two, on bases of other kinds, too."""
    some: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"]}
    whole: dict[str, Any] = {"r": 4, "target_modules": "all-linear"}
    first = [f"model.layers.{number}.self_attn.q_proj" for number in (0, 1)]
    yield Recipe("llama", some | {"target_modules": [*first, "v_proj"], "layers_to_transform": [1]})
    yield Recipe("llama", some | {"target_modules": [*some["target_modules"], "fc1", "query"]})
    yield Recipe("llama", some | {"target_modules": UNSLOTH}, "CAUSAL_LM")
    yield Recipe("llama", whole | {"exclude_modules": r".*layers\.0\..*"})
    yield Recipe("llama", some | {"rank_pattern": {r"^model\.layers\.0\.self_attn\.q_proj$": 2, "v_proj$": 3}})
    yield Recipe("llama", some | {"modules_to_save": ["layernorm", "model.norm", r"layers\.1\.mlp"]})
    yield Recipe("llama", some | {"modules_to_save": ["embed_tokens", "lm_head"]})
    yield Recipe("llama", whole | {"modules_to_save": ["down_proj"]})
    yield Recipe("llama", whole | {"init_lora_weights": "orthogonal"})
    yield Recipe("llama", whole | {"init_lora_weights": "mica"})
    yield Recipe("llama", some | {"trainable_token_indices": [0, 5]}, "CAUSAL_LM")
    yield Recipe("llama", some, "QUESTION_ANS")
    yield Recipe("llama", some, more_tokens=10, dtype="bf16")
    yield Recipe("llama", some, rewritten=OLD | {"enable_lora": None, "some_new_key": {"a": 1}})
    yield Recipe("llama", whole, steps=1, learning_rate=1e-6, rewritten=RAW)
    tied = {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}
    yield Recipe("gemma", some | tied, "CAUSAL_LM")
    yield Recipe("gpt2", some | {"target_modules": ["c_attn", "lm_head"]}, "CAUSAL_LM")
    yield Recipe("gpt2", whole | {"use_dora": True}, rewritten=RAW)
    yield Recipe("gpt_neox", some | {"target_modules": ["query_key_value", "lm_head"]}, "CAUSAL_LM")
    yield Recipe("gpt_neox", some | {"target_modules": ["query_key_value"]}, "CAUSAL_LM", more_tokens=10)
    yield Recipe("bert", some | {"target_modules": ["query"], "modules_to_save": ["word_embeddings"]}, more_tokens=10)
    yield Recipe("bert", whole, "FEATURE_EXTRACTION")
    yield Recipe("roberta", whole)
    yield Recipe("roberta", whole, "FEATURE_EXTRACTION")
    yield Recipe("electra", whole, rewritten=RAW)
    yield Recipe("deberta-v2", some | {"target_modules": ["query_proj", "value_proj"], "bias": "all"})
    yield Recipe("t5", whole, "SEQ_2_SEQ_LM", rewritten=RAW)
    yield Recipe("t5", some | {"target_modules": ["q", "v", "lm_head"]}, "SEQ_2_SEQ_LM", more_tokens=10)
    yield Recipe("bart", whole, "SEQ_2_SEQ_LM", rewritten=RAW)
    yield Recipe("qwen2_moe", whole, rewritten=RAW)
    yield Recipe("qwen2_moe", some | {"target_modules": ["q_proj", "up_proj"]}, "CAUSAL_LM")


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
    document = json.loads((folder / adapter.CONFIG).read_text()) | recipe.rewritten
    (folder / adapter.CONFIG).write_text(json.dumps(document))
    return folder


def train(recipe: Recipe, base: Path) -> tuple[PeftModel, dict[str, torch.Tensor]]:
    """A PEFT model after the steps of `recipe`, and its tensors from before the first."""
    options = {"num_labels": CLASSES} if recipe.task in ("SEQ_CLS", "TOKEN_CLS") else {}
    with adapter.quiet_libraries():
        made = AUTO[recipe.task or "CAUSAL_LM"].from_pretrained(str(base), dtype=torch.float32, **options)
        made.config.pad_token_id = 0
        if recipe.more_tokens:
            made.resize_token_embeddings(made.config.vocab_size + recipe.more_tokens)
        model = get_peft_model(made, LoraConfig(task_type=recipe.task, **recipe.settings))
    initial = {
        key: value.clone(memory_format=torch.contiguous_format) for key, value in adapter.adapter_tensors(model).items()
    }
    input_ids = torch.randint(3, 250, (4, 12))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate)
    for _ in range(recipe.steps):
        _loss(model, recipe.task, input_ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, initial


def _loss(model: PeftModel, task: str | None, input_ids: torch.Tensor) -> torch.Tensor:
    """What a step of that task makes less."""
    numbers = torch.arange(len(input_ids))
    match task:
        case "FEATURE_EXTRACTION":
            loss: torch.Tensor = model(input_ids=input_ids).last_hidden_state.pow(3).mean()
        case "QUESTION_ANS":
            loss = model(input_ids=input_ids, start_positions=numbers, end_positions=numbers + 2).loss
        case "SEQ_CLS" | "TOKEN_CLS":
            labels = numbers if task == "SEQ_CLS" else input_ids
            loss = model(input_ids=input_ids, labels=(labels % CLASSES).contiguous()).loss
        case _:
            loss = model(input_ids=input_ids, labels=input_ids).loss
    return loss


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
    if kind in MORE_BASES:
        config, model, sizes = MORE_BASES[kind]
        torch.manual_seed(0)
        with adapter.quiet_libraries():
            getattr(transformers, model)(getattr(transformers, config)(**sizes)).save_pretrained(folder / kind)
        return folder / kind
    base = make_base_of(kind, folder / kind)
    if kind == "bert":
        torch.manual_seed(0)
        with adapter.quiet_libraries():
            BertForPreTraining.from_pretrained(base).save_pretrained(base)
    return base
