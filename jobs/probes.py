"""Probes: fixed texts whose logits are stored when training ends, to hold the adapter on disk against.

Stored three times: `as_trained` (the model as it stands, its dtype and attention), `portable` (the base read
again from disk in float32, TF32 off, eager attention: the same numbers on any machine) and `without_lora`
(portable, the trained head on the bare base: what an emptied adapter would give).  Logits are (probes,
classes) float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs import adapter, atomic, safetensors_file
from jobs.errors import AdapterRejected
from jobs.spec import HEAD, LONG_TEXTS, TEXT

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

Logits = npt.NDArray[np.float32]

TENSORS = "probes.safetensors"
DESCRIPTION = "probes.json"
AS_TRAINED, PORTABLE, WITHOUT_LORA = "as_trained", "portable", "without_lora"
PORTABLE_ATTENTION = "eager"
"""Written out in every model and the same on every device; the fused kernels differ between GPUs."""
BATCH_SIZE, BATCH_TOKENS = 16, 2**14
"""Rows of a forward pass, and padded tokens: attention written out takes memory by the square of a row."""
MAX_PROBES, MAX_TOKENS, MAX_CLASSES = 256, 2**20, 2**16
"""Of all probes together; more would only keep the machine at home busy, or fill its memory."""
# transformers takes the name of a Hub repository here, too, and would fetch and run what lies there.
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
DTYPES = ("float32", "bfloat16", "float16")
PRECISIONS = ("highest", "high", "medium")


@dataclass(frozen=True)
class Probes:
    """What probes.json holds.  `dtype` is the base's in training, `padding_side` is left or right."""

    texts: list[str]
    token_ids: list[list[int]]
    max_length: int
    padding_side: str
    pad_token_id: int
    id2label: dict[str, str]
    attention: str
    dtype: str
    device: str
    matmul_precision: str
    libraries: dict[str, str]
    prompt_template: str = TEXT
    long_texts: str = HEAD


@dataclass(frozen=True)
class Outputs:
    """A forward pass over probes: logits (probes, classes) and the head's pooled input (probes, hidden)."""

    logits: Logits
    pooled: npt.NDArray[np.float32]


def record(
    model: PeftModel,
    tokenizer: Any,
    texts: Sequence[str],
    *,
    base_folder: Path,
    max_length: int,
    id2label: Mapping[int, str],
    folder: Path,
    prompt_template: str = TEXT,
    long_texts: str = HEAD,
) -> None:
    """Store the logits of `texts` in `folder`, to be called once the best weights are restored.

    `texts` come from the validation split, 32 to 64 of them; `base_folder` is where the base was loaded from.
    The model comes back as it was.  Raises AdapterRejected when a logit is not finite, or when there is no
    text.
    """
    if not texts:
        raise AdapterRejected("no probe texts: nothing could be reproduced later")
    probes = _describe(model, tokenizer, list(texts), max_length, id2label, prompt_template, long_texts)
    logits = {AS_TRAINED: forward(model, probes).logits}
    with _on_device_or_cpu(_portable_copy(model, base_folder, probes), model.device) as portable:
        logits[PORTABLE] = forward(portable, probes).logits
        with without_lora(portable):
            logits[WITHOUT_LORA] = forward(portable, probes).logits
    broken = [name for name, values in logits.items() if not np.isfinite(values).all()]
    if broken:
        raise AdapterRejected(f"probe logits are not finite ({', '.join(broken)}): the weights are broken")
    safetensors_file.write(folder / TENSORS, logits)
    atomic.write_json(folder / DESCRIPTION, asdict(probes))


def load(folder: Path) -> tuple[Probes, dict[str, Logits]]:
    """What `record` stored.  Raises AdapterRejected where it is damaged or inconsistent."""
    document = adapter.read_json(folder / DESCRIPTION)
    try:
        probes = Probes(**document)
        count, classes = len(probes.token_ids), len(probes.id2label)
        sane = _sane(probes)
        header = safetensors_file.read_header(folder / TENSORS).require()
    except (TypeError, ValueError, AttributeError, OSError) as error:
        raise AdapterRejected(f"{folder}: probes are damaged ({type(error).__name__})") from error
    wanted = {AS_TRAINED, PORTABLE, WITHOUT_LORA}
    if not sane or header.tensors.keys() != wanted:
        raise AdapterRejected(f"{folder}: probes are damaged")
    arrays = safetensors_file.read_arrays(header)
    if any(array.shape != (count, classes) or not np.isfinite(array).all() for array in arrays.values()):
        raise AdapterRejected(f"{folder}: probe logits are not finite, or of another shape than described")
    return probes, {name: array.astype(np.float32) for name, array in arrays.items()}


def _sane(probes: Probes) -> bool:
    """Whether a description from anywhere holds what `record` writes.  Raises TypeError on odd types."""
    if not (
        isinstance(probes.texts, list) and isinstance(probes.token_ids, list) and isinstance(probes.id2label, dict)
    ):
        return False
    ids = [token for tokens in probes.token_ids for token in [*tokens, probes.pad_token_id]]
    return (
        0 < len(probes.token_ids) == len(probes.texts) <= MAX_PROBES
        and len(ids) <= MAX_TOKENS
        and type(probes.max_length) is int
        and all(0 < len(tokens) <= probes.max_length for tokens in probes.token_ids)
        and all(type(token) is int and 0 <= token < 2**31 for token in ids)
        and all(isinstance(text, str) for text in probes.texts)
        and 0 < len(probes.id2label) <= MAX_CLASSES
        and list(probes.id2label) == [str(number) for number in range(len(probes.id2label))]
        and all(isinstance(name, str) for name in probes.id2label.values())
        and probes.padding_side in ("left", "right")
        and probes.attention in ATTENTIONS
        and probes.dtype in DTYPES
        and probes.matmul_precision in PRECISIONS
        and adapter.is_template(probes.prompt_template)
        and probes.long_texts in LONG_TEXTS
    )


def forward(model: PeftModel, probes: Probes, *, batch_size: int = BATCH_SIZE, rows: range | None = None) -> Outputs:
    """The model's answers to the probes (or to `rows` of them), in their order, in padded batches.

    The model is called as a whole and with an attention mask, as in anybody's plain code.
    """
    import torch

    from jobs import model as models

    pooled: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    head = models.head_of(model)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in _batches(probes.token_ids, rows, batch_size):
                ids, mask = _padded(batch, probes, model.device)
                hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
                with models.precision(model):
                    answers = model(input_ids=ids, attention_mask=mask).logits
                hook.remove()
                features = _pooled(seen.pop(), ids, probes.pad_token_id).float()
                # autocast rounds: in bf16 the steps are 0.03 at 4, and half the tolerance would be gone
                exact = answers if answers.dtype == torch.float32 else head(features)
                logits.append(exact.cpu())
                pooled.append(features.cpu())
    finally:
        model.train(was_training)
    return Outputs(torch.cat(logits).numpy(), torch.cat(pooled).numpy())


def plain_logits(model: PreTrainedModel, probes: Probes) -> Logits:
    """Logits of the probes as plain transformers gives them: in the model's own dtype, whatever that rounds."""
    import torch

    with torch.no_grad():
        batches = [_padded(batch, probes, model.device) for batch in _batches(probes.token_ids, None, BATCH_SIZE)]
        answers = [model(input_ids=ids, attention_mask=mask).logits.float().cpu() for ids, mask in batches]
    logits: Logits = torch.cat(answers).numpy()
    return logits


@contextlib.contextmanager
def without_lora(model: PeftModel) -> Iterator[None]:
    """Switch LoRA off and keep the trained head; `disable_adapter()` would swap in the random one, too."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for name, parameter in model.named_parameters():  # enable_adapters turns gradients on and off as well
            parameter.requires_grad_(trainable[name])


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Matrix products in full float32: no TF32, no bf16 passes."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _describe(
    model: PeftModel,
    tokenizer: Any,
    texts: list[str],
    max_length: int,
    id2label: Mapping[int, str],
    template: str,
    long_texts: str,
) -> Probes:
    import torch

    from jobs import model as models

    token_ids = models.encode(tokenizer, texts, max_length, template, long_texts)
    if len(set(texts)) > 1 and len(set(map(tuple, token_ids))) == 1:
        raise AdapterRejected("the tokenizer gives the same tokens for every probe text: it is not this base's")
    pad = model.config.get_text_config().pad_token_id
    if pad is None:
        raise AdapterRejected("the model has no pad token: it can't pool a padded batch")
    return Probes(
        texts=texts,
        token_ids=token_ids,
        max_length=max_length,
        padding_side=tokenizer.padding_side,
        pad_token_id=pad,
        id2label={str(k): v for k, v in sorted(id2label.items())},
        attention=str(model.config._attn_implementation),
        dtype="bfloat16" if models.is_bf16(model) else "float32",
        device=torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
        matmul_precision=torch.get_float32_matmul_precision(),
        libraries=adapter.library_versions(),
        prompt_template=template,
        long_texts=long_texts,
    )


def _portable_copy(model: PeftModel, base_folder: Path, probes: Probes) -> PeftModel:
    """The trained tensors on a base read again from disk, so that a base changed in memory shows."""
    import copy

    import torch
    from peft import get_peft_model, set_peft_model_state_dict

    labels = {int(k): v for k, v in probes.id2label.items()}
    base = adapter.load_base(base_folder, dtype=torch.float32, id2label=labels, attention=PORTABLE_ATTENTION)
    base.config.get_text_config().pad_token_id = probes.pad_token_id
    config = copy.deepcopy(model.peft_config[model.active_adapter])
    config.inference_mode = True
    with adapter.quiet_libraries():
        portable = get_peft_model(base, config)
        tensors = {key: tensor.detach().float().cpu() for key, tensor in adapter.adapter_tensors(model).items()}
        set_peft_model_state_dict(portable, tensors)
    return portable.eval()


@contextlib.contextmanager
def _on_device_or_cpu(model: PeftModel, device: torch.device) -> Iterator[PeftModel]:
    """The float32 copy on the training's device where it fits beside the model, else on the CPU."""
    import torch

    try:
        model = model.to(device)
    except torch.OutOfMemoryError:
        model = model.to("cpu")
    with exact_float32():
        yield model


def _batches(token_ids: list[list[int]], rows: range | None, size: int) -> Iterator[list[list[int]]]:
    """In their order, `size` rows each, fewer where they are long."""
    batch: list[list[int]] = []
    for row in token_ids if rows is None else [token_ids[row] for row in rows]:
        longest = max(map(len, [*batch, row]))
        if batch and (len(batch) == size or longest * (len(batch) + 1) > BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _padded(batch: list[list[int]], probes: Probes, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, (rows, longest) int64."""
    import torch

    longest = max(map(len, batch))
    ids = np.full((len(batch), longest), probes.pad_token_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(batch):
        start = 0 if probes.padding_side == "right" else longest - len(tokens)
        ids[row, start : start + len(tokens)], mask[row, start : start + len(tokens)] = tokens, 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _pooled(head_input: torch.Tensor, ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """(rows, hidden) of the head's input, at the rightmost token that is not the pad token."""
    import torch

    if head_input.dim() == 2:  # BERT-like: pooled before the head
        return head_input
    positions = torch.arange(ids.shape[1], device=ids.device)
    last = (positions * (ids != pad_token_id)).argmax(-1)
    return head_input[torch.arange(ids.shape[0], device=ids.device), last]
