"""The base as a sequence classifier, its tokenizer, and LoRA around it.

Owns number formats and devices: the base in bf16 where a GPU has it, LoRA and the head always in float32 (in bf16 most
of the head's weights would never move: an update of 1e-5 is below half a bit).  Knows nothing of data or training.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from jobs.adapter import quiet_libraries
from jobs.errors import DataError, JobError
from jobs.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer, padding and cutting on the right.  Raises DataError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no tokenizer that can be loaded: {_first_line(error)}") from error
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    if tokenizer.pad_token_id is None:
        # A classifier reads the last token that is not padding, so an end-of-text token that is also the padding would
        # be passed over: any other special token is better, if the tokenizer has one.
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token or tokenizer.bos_token
    if tokenizer.pad_token_id is None:
        raise DataError(f"{folder}: the tokenizer has no special token to pad with")
    return tokenizer


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> list[list[int]]:
    """Token ids of each text, cut at `max_length`, not padded.  A text without any token becomes one padding token."""
    if not texts:
        return []
    rows = tokenizer(list(texts), truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
    nothing = [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id]
    return [row or nothing for row in rows]


def cut_otherwise(tokenizer: PreTrainedTokenizerBase, folder: Path, texts: Sequence[str], max_length: int) -> int:
    """How many of `texts` get other tokens from `tokenizer` than from the folder's tokenizer.json read as it is.

    transformers 5.23 builds the tokenizer of a known model type (qwen2 among them) anew from vocabulary and merges, and
    drops the file's own normalisation and splitting without a word: a base that learnt other tokens is then crippled.
    """
    from tokenizers import Tokenizer

    if not (folder / "tokenizer.json").is_file():
        return 0
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.no_padding()
    stored.enable_truncation(max_length)
    expected = [encoding.ids for encoding in stored.encode_batch(list(texts))]
    found = encode(tokenizer, texts, max_length)
    return sum(one != other for one, other in zip(expected, found, strict=True) if one)


def load_base(
    folder: Path, *, label_names: Sequence[str], pad_token_id: int, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """The frozen base with a fresh float32 head of one row per label, in eval mode.  Raises DataError, JobError."""
    try:
        with quiet_libraries():
            model = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=len(label_names),
                id2label=dict(enumerate(label_names)),
                label2id={name: index for index, name in enumerate(label_names)},
                pad_token_id=pad_token_id,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
            )
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: can't be loaded as a classifier: {_first_line(error)}") from error
    model.requires_grad_(False)
    head_of(model).to(torch.float32)
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def with_lora(base: PreTrainedModel, spec: Spec) -> PeftModel:
    """`base` with LoRA on every linear layer and a trainable copy of the head; only those two have gradients."""
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        target_modules="all-linear",
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,  # type: ignore[arg-type]  # PEFT says int and takes any number
        lora_dropout=spec.lora_dropout,
        use_rslora=spec.use_rslora,
    )
    with quiet_libraries():
        model = get_peft_model(base, config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    assert isinstance(model, PeftModel)
    return model


def head_of(model: nn.Module) -> nn.Linear:
    """The linear layer (C, H) that turns pooled features into logits; in a PEFT model the trainable copy.

    Raises JobError for architectures whose head is something else.
    """
    head = getattr(classifier_of(model), "score", None)
    copies: Any = getattr(head, "modules_to_save", None)
    head = copies["default"] if copies is not None else head
    if not isinstance(head, nn.Linear):
        raise JobError(
            f"{type(classifier_of(model)).__name__}: not a decoder with a linear head called `score`",
            hint="use a causal base: Qwen, Llama, SmolLM, Gemma, Mistral",
        )
    return head


def classifier_of(model: nn.Module) -> nn.Module:
    """The transformers model inside, where `model` is PEFT's wrapper."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def pooled(model: nn.Module, input_ids: Tensor) -> Tensor:
    """What the head reads: the last hidden state of each row's last token that is not padding, (B, H) float32.

    input_ids (B, T), padded on the right.  A decoder's tokens never see what comes later, so padding on the right needs
    no mask; without one, attention takes its fast causal path.  The same place as transformers' own SEQ_CLS forward.
    """
    decoder: Any = classifier_of(model).base_model
    rows = torch.arange(len(input_ids), device=input_ids.device)  # (B,)
    places = pooling_positions(input_ids, pad_id_of(model))  # (B,)
    with _last_layer_only_at(decoder, rows, places):
        hidden: Tensor = decoder(input_ids=input_ids, use_cache=False).last_hidden_state  # (B, T, H)
    return hidden[rows, places].float()


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
    config: Any = classifier_of(model).config
    return int(config.get_text_config().pad_token_id)


def draws_random_numbers(model: nn.Module) -> bool:
    """True where training has dropout, in LoRA or in the base."""
    config: Any = classifier_of(model).config
    modules = any(isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules())
    return modules or bool(getattr(config.get_text_config(), "attention_dropout", 0.0))


def precision(model: nn.Module) -> torch.autocast:
    """The context in which to run `model`: autocast to bf16 where the base is bf16, else plain float32."""
    parameter = next(parameter for parameter in classifier_of(model).parameters() if not parameter.requires_grad)
    bf16 = parameter.dtype == torch.bfloat16
    return torch.autocast(parameter.device.type, dtype=torch.bfloat16, enabled=bf16)


def logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    """(B, C) float32 from input_ids (B, T); the head is computed in float32 whatever the base is in."""
    with precision(model):
        features = pooled(model, input_ids)  # (B, H)
    return nn.functional.linear(features, head_of(model).weight, head_of(model).bias)  # (B, C)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
