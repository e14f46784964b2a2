"""The base as a sequence classifier, decoder or encoder, and LoRA around it.

Owns number formats and devices: the base in bf16 where a GPU has it, LoRA and what is trained whole always in float32
(in bf16 most of a head's weights would never move: an update of 1e-5 is below half a bit).  Knows nothing of data or
training, and no architecture by its name.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from jobs import adapter
from jobs.errors import AdapterRejected, DataError, JobError
from jobs.spec import ALL_LINEAR, Spec
from jobs.tokens import cut_otherwise, encode, load_tokenizer

__all__ = ["cut_otherwise", "encode", "load_tokenizer"]  # what else a caller of this module needs

TokenIds = Sequence[Sequence[int]]
"""N rows of token ids, unpadded."""


def best_device() -> torch.device:
    """The GPU, or Apple's, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def base_dtype(bf16: str, device: torch.device) -> torch.dtype:
    """How the frozen base is kept and computed: `bf16` is the spec's yes, no or auto (a CUDA GPU that has it)."""
    if bf16 == "auto":
        capable = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if capable else torch.float32
    return torch.bfloat16 if bf16 == "yes" else torch.float32


def load_base(
    folder: Path,
    *,
    label_names: Sequence[str],
    pad_token_id: int,
    dtype: torch.dtype,
    device: torch.device,
    max_length: int | None = None,
) -> PreTrainedModel:
    """The frozen base with a fresh head of one row per label, in eval mode; what is new is float32 and has gradients.

    Raises DataError where it can't be a classifier, or can't read rows of `max_length` tokens; JobError where no linear
    layer gives its logits.
    """
    try:
        model = adapter.load_base(folder, dtype=dtype, id2label=dict(enumerate(label_names)))
    except AdapterRejected as error:
        raise DataError(error.message, hint=error.hint) from error
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        if "ignore_mismatched_sizes" in reason:
            raise DataError(
                f"{folder}: it is a classifier of other labels, not of {', '.join(label_names)}",
                hint="name the base that it was made from",
            ) from error
        raise DataError(f"{folder}: can't be loaded as a classifier: {reason}") from error
    longest = longest_row(model)
    if max_length is not None and longest is not None and max_length > longest:
        raise DataError(
            f"{folder}: reads at most {longest} tokens, and max_length is {max_length}", hint=f"max_length: {longest}"
        )
    embeddings: Any = model.get_input_embeddings()
    if pad_token_id >= (known := len(embeddings.weight)):
        raise DataError(
            f"{folder}: the tokenizer pads with token {pad_token_id}, and the base knows {known}",
            hint="set pad_token in its tokenizer_config.json to a token that it knows",
        )
    text_config_of(model).pad_token_id = pad_token_id
    head_of(model).requires_grad_(True)
    new = new_modules(model)
    if half := [name for name, p in model.named_parameters() if p.requires_grad and not _is_below(name, new)]:
        raise DataError(f"{folder}: the base lacks {len(half)} weights of modules it has, first {half[0]}")
    for name in new:
        model.get_submodule(name).to(torch.float32)
    moved: PreTrainedModel = model.to(device)  # type: ignore[arg-type]  # transformers hides torch's overloads
    _require_pooling_before_the_head(moved)
    return moved


def longest_row(model: nn.Module) -> int | None:
    """How many tokens a row may have where positions come from a table; None where they are computed."""
    config = text_config_of(model)
    for name, module in body_of(model).named_modules():
        last = name.split(".")[-1]
        if isinstance(module, nn.Embedding) and ("position" in last or last == "wpe"):
            # RoBERTa counts from behind its padding's index.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            most = getattr(config, "max_position_embeddings", module.num_embeddings)  # OPT's table has more rows
            return min(module.num_embeddings, int(most)) - skipped
    return None


def new_modules(base: nn.Module) -> list[str]:
    """The outermost modules of a base, before LoRA, that it brings no weights for: all their parameters have gradients.

    The head, and what stands in front of it: RoBERTa's and DistilBERT's other linear layer, often BERT's pooler.
    """
    names: list[str] = []
    for name, module in base.named_modules():
        parameters = list(module.parameters())
        if name and parameters and all(p.requires_grad for p in parameters) and not _is_below(name, names):
            names.append(name)
    return names


def parts_to_train(base: nn.Module, spec: Spec) -> tuple[list[str], list[str]]:
    """The linear layers that get LoRA, and the modules that are trained whole: the spec's and everything new.

    Raises JobError for names of the spec that stand for nothing in this base.
    """
    whole = _outermost([*new_modules(base), *_named(base, spec.modules_to_save)])
    return _targets(base, spec.target_modules, whole), whole


def with_lora(base: PreTrainedModel, spec: Spec) -> PeftModel:
    """`base` with LoRA on the spec's linear layers, and trainable copies of the modules that are trained whole."""
    targets, whole = parts_to_train(base, spec)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        target_modules=targets,
        modules_to_save=[name for name in whole if name not in adapter.HEADS],  # PEFT adds those itself
        fan_in_fan_out=isinstance(base.get_submodule(targets[0]), Conv1D),
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,  # type: ignore[arg-type]  # PEFT says int and takes any number
        lora_dropout=spec.lora_dropout,
        use_rslora=spec.use_rslora,
    )
    with adapter.quiet_libraries():
        model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    assert isinstance(model, PeftModel)
    return model


def _targets(base: nn.Module, names: Sequence[str], whole: Sequence[str]) -> list[str]:
    """The linear layers that `names` (or all-linear) stand for, but for those in modules that are trained whole."""
    linear = [
        name
        for name, module in base.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not _is_below(name, whole)
    ]
    if ALL_LINEAR not in names:
        if unknown := [name for name in names if not any(_is_named(layer, name) for layer in linear)]:
            there = ", ".join(dict.fromkeys(layer.split(".")[-1] for layer in linear))
            raise JobError(f"target_modules: no linear layer is called {', '.join(unknown)}", hint=f"there are {there}")
        linear = [layer for layer in linear if any(_is_named(layer, name) for name in names)]
    if not linear:
        raise JobError("target_modules: no layer at all is left for LoRA", hint=f"target_modules: {ALL_LINEAR}")
    return linear


def _named(base: nn.Module, names: Sequence[str]) -> list[str]:
    """The modules with parameters that `names` (whole, or their last parts) stand for, by their whole names."""
    modules = [name for name, module in base.named_modules() if name and any(True for _ in module.parameters())]
    if unknown := [name for name in names if not any(_is_named(module, name) for module in modules)]:
        there = dict.fromkeys(part for module in modules for part in module.split(".") if not part.isdigit())
        raise JobError(
            f"modules_to_save: no module is called {', '.join(unknown)}", hint=f"there are {', '.join(there)}"
        )
    return [module for module in modules if any(_is_named(module, name) for name in names)]


def _outermost(names: Sequence[str]) -> list[str]:
    """`names` without repeats and without those below another."""
    return [name for name in dict.fromkeys(names) if not _is_below(name, [other for other in names if other != name])]


def _is_named(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")


def _is_below(module: str, names: Sequence[str]) -> bool:
    """Whether `module` is one of `names` or inside of one."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def head_of(model: nn.Module) -> nn.Linear:
    """The linear layer (C, H) that gives the logits; in a PEFT model the trainable copy.

    The last one of C rows beside the base's body.  Raises JobError where there is none.
    """
    classifier: Any = classifier_of(model)
    classes = int(classifier.config.num_labels)
    found: nn.Linear | None = None
    for child in classifier.children():
        if child is body_of(model):
            continue  # hundreds of modules, at every call
        for name, module in child.named_modules():
            ours = not {"original_module", "lora_A", "lora_B"} & set(name.split("."))
            if isinstance(module, nn.Linear) and module.out_features == classes and ours:
                found = module
    if found is None:
        raise JobError(
            f"{type(classifier).__name__}: no linear layer gives its logits", hint="use a base such as Qwen or BERT"
        )
    return found


def classifier_of(model: nn.Module) -> nn.Module:
    """The transformers model inside, where `model` is PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def text_config_of(model: nn.Module) -> Any:
    """transformers' configuration, of a base that reads more than text the part that does."""
    classifier: Any = classifier_of(model)
    return classifier.config.get_text_config()


def body_of(model: nn.Module) -> nn.Module:
    """The transformer without its classification head."""
    body: nn.Module = classifier_of(model).base_model  # type: ignore[assignment]
    return body


def pooled(model: nn.Module, input_ids: Tensor) -> Tensor:
    """What the head reads of each row, (B, H) float32, as in transformers' own SEQ_CLS forward.

    input_ids (B, T), padded on the right, no row ending in the padding token.  Of a decoder it is the last hidden state
    of the last token.
    """
    places = pooling_positions(input_ids, pad_id_of(model))  # (B,)
    if not _reads_last_token_only(model):
        return _head_input(model, input_ids, places)[0].float()
    decoder: Any = body_of(model)
    rows = torch.arange(len(input_ids), device=input_ids.device)  # (B,)
    # What comes later is never seen, so padding on the right needs no mask; without one, attention takes its fast
    # causal path.
    with _last_layer_only_at(decoder, rows, places):
        hidden: Tensor = decoder(input_ids=input_ids, use_cache=False).last_hidden_state  # (B, T, H)
    return hidden[rows, places].float()


def _reads_last_token_only(model: nn.Module) -> bool:
    """Whether it is a causal decoder with the linear head `score` on its last hidden state.

    transformers gives that name to the heads of those that pool the last token that is not padding.  Positions have to
    be rotations: GPT-2 and its kin, which add them from a table, want a mask and say so in the log.
    """
    config = text_config_of(model)
    causal = getattr(config, "is_causal", True) and not getattr(config, "use_bidirectional_attention", None)
    return causal and hasattr(classifier_of(model), "score") and hasattr(body_of(model), "rotary_emb")


def _require_pooling_before_the_head(model: nn.Module) -> None:
    """Raise JobError for a classifier that means its logits over all tokens, as EuroBERT's does by default."""
    if _reads_last_token_only(model):
        return
    tokens = [token for token in range(4) if token != pad_id_of(model)][:3]
    input_ids = torch.tensor([tokens], device=head_of(model).weight.device)
    with torch.no_grad(), precision(model):
        features, expected = _head_input(model, input_ids, torch.full_like(input_ids[:, 0], len(tokens) - 1))
        found = head_of(model)(features)
    if not torch.allclose(found.float(), expected.float(), rtol=0.05, atol=1e-3):
        raise JobError(
            f"{type(classifier_of(model)).__name__}: its logits are not what its head makes of one vector a text",
            hint="in the base's config.json, another classifier_pooling",
        )


def _head_input(model: nn.Module, input_ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """What the head's last layer is given in the whole classifier's forward under a mask, (B, H), and its logits."""
    thread = threading.get_ident()
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if threading.get_ident() == thread:
            seen.append(inputs[0])  # (B, H), or (B, T, H) where pooling comes after the head

    mask = torch.arange(input_ids.shape[1], device=input_ids.device) <= places.unsqueeze(1)  # (B, T)
    hook = head_of(model).register_forward_pre_hook(keep)
    try:
        logits: Tensor = classifier_of(model)(input_ids=input_ids, attention_mask=mask.long()).logits  # (B, C)
    finally:
        hook.remove()
    features = seen[-1]
    if features.dim() == 3:
        features = features[torch.arange(len(features), device=features.device), places]
    return features, logits


@contextlib.contextmanager
def _last_layer_only_at(decoder: nn.Module, rows: Tensor, places: Tensor) -> Iterator[None]:
    """Let the last layer's output projection and MLP see one token of each row, (B, T, K) -> (B, 1, K).

    Nothing else of their output is read.  The residual connection broadcasts (B, 1, H) over (B, T, H): right at
    `places`, never read elsewhere.  Of a model of L layers this saves about 0.7 / L of the work.
    """

    thread = threading.get_ident()

    def one_token(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if threading.get_ident() != thread:
            return None  # another thread's batch, with places of its own
        return (inputs[0][rows, places].unsqueeze(1), *inputs[1:])

    layers = getattr(decoder, "layers", None)
    last = layers[-1] if isinstance(layers, nn.ModuleList) and len(layers) else None
    parts = (getattr(getattr(last, "self_attn", None), "o_proj", None), getattr(last, "mlp", None))
    hooks = [part.register_forward_pre_hook(one_token) for part in parts if isinstance(part, nn.Module)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pooling_positions(input_ids: Tensor, pad_token_id: int) -> Tensor:
    """Index (B,) of the last token that is not padding, 0 where all are."""
    places = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
    return (places * (input_ids != pad_token_id)).argmax(dim=1)


def pad_id_of(model: nn.Module) -> int:
    """The padding token that the model's configuration names."""
    return int(text_config_of(model).pad_token_id)


def draws_random_numbers(model: nn.Module) -> bool:
    """True where training has dropout, in LoRA or in the base."""
    modules = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    settings = text_config_of(model).to_dict().items()  # OPT's and others' dropout is no module
    return modules or any("drop" in name and isinstance(rate, float) and rate > 0 for name, rate in settings)


def is_bf16(model: nn.Module) -> bool:
    """Whether the base is kept in bf16.  Its first weight, the embedding, is never LoRA's; asked at every batch."""
    return next(body_of(model).parameters()).dtype == torch.bfloat16


def precision(model: nn.Module) -> torch.autocast:
    """The context in which to run `model`: autocast to bf16 where the base is bf16, else plain float32."""
    first = next(body_of(model).parameters())  # at every batch: the head would have to be looked for
    return torch.autocast(first.device.type, dtype=torch.bfloat16, enabled=is_bf16(model))


def logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    """(B, C) float32 from input_ids (B, T); the head is computed in float32 whatever the base is in."""
    with precision(model):
        features = pooled(model, input_ids)  # (B, H)
    head = head_of(model)
    return nn.functional.linear(features, head.weight, head.bias)  # (B, C)
