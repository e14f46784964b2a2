"""An adapter merged into its base: one plain transformers folder, for serving without peft.

Owns what is in the folder, and the proof that plain transformers answers from it as the trained model did.  That the
adapter itself is to be trusted, and where the folder lies in the end, is the caller's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs import adapter, atomic, probes, reproduction
from jobs.errors import AdapterRejected, JobError
from jobs.probes import Probes
from jobs.run_directory import RunDirectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Merged:
    """What was written, and how texts go into it.  `miss` is the largest difference of a logit from the stored portable
    probes, `tolerances` the same in tolerances."""

    dtype: str
    parameters: int
    size_bytes: int
    miss: float
    tolerances: float
    max_length: int
    prompt_template: str


def merge(run: RunDirectory, base_folder: Path, folder: Path, dtype: str) -> Merged:
    """Write the run's adapter merged into its base to the empty `folder`, and prove it there.

    Merged in float32, and rounded to `dtype` once, at the end.  Raises AdapterRejected where plain transformers gives
    other logits than the stored ones, JobError where the disk refuses; `folder` then holds rubbish.
    """
    from safetensors import SafetensorError

    from jobs import memory

    stored, logits = probes.load(run.probes)
    tolerance = reproduction.TOLERANCE * reproduction.distance(logits)
    model = _in_float32(run.adapter, base_folder, stored)
    parameters = int(model.num_parameters())
    try:
        _save(model, run.adapter, folder, stored, dtype)
        for path in folder.iterdir():
            path.chmod(0o644)  # safetensors makes files that only their owner can read
            atomic.flush(path)
        atomic.flush(folder)
    except (OSError, SafetensorError) as error:
        raise JobError(
            f"{folder}: can't be written: {error}", hint="room on the disk, or another folder: --to"
        ) from error
    del model
    memory.give_back()
    _require_same_tokens(folder, stored)
    miss = float(np.abs(probes.plain_logits(_plain(folder), stored) - logits[probes.PORTABLE]).max())
    if not miss <= tolerance:  # NaN is no answer
        raise AdapterRejected(
            f"saved in {dtype} its logits are off by {miss:.3g}, {miss / tolerance:.1f} times what is allowed",
            hint="--dtype float32" if dtype != "float32" else "serve it with peft, unmerged",
        )
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return Merged(
        dtype, parameters, size_bytes, miss, miss / tolerance, stored.max_length, stored.prompt_template
    )  # fmt: skip


def _in_float32(adapter_folder: Path, base_folder: Path, stored: Probes) -> PreTrainedModel:
    """The base with the adapter in its weights, and the trained head."""
    import torch

    labels = {int(number): name for number, name in stored.id2label.items()}
    loaded = adapter.load(base_folder, adapter_folder, dtype=torch.float32, id2label=labels)
    tuner: Any = loaded.base_model
    with adapter.quiet_libraries(), adapter.peft_problems_as_errors(adapter_folder):
        model: PreTrainedModel = tuner.merge_and_unload(safe_merge=True)
    if hasattr(model.config, "auto_map"):
        del model.config.auto_map  # names code that is not run here, and that the folder does not have
    return model


def _save(model: PreTrainedModel, adapter_folder: Path, folder: Path, stored: Probes, dtype: str) -> None:
    """Weights, configuration, tokenizer, and in classifier.json what no file of transformers' has a place for."""
    import torch

    about = adapter.read_json(adapter_folder / adapter.CLASSIFIER)
    if about.get("id2label") != stored.id2label or about.get("max_length") != stored.max_length:
        raise AdapterRejected(f"{adapter_folder / adapter.CLASSIFIER}: not what the probes were made with")
    tokenizer = adapter.load_tokenizer(adapter_folder)
    tokenizer.model_max_length = stored.max_length  # `truncation=True` then cuts where training did
    with adapter.quiet_libraries():
        model.to(getattr(torch, dtype)).save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    told = {
        "id2label": stored.id2label,
        "max_length": stored.max_length,
        "padding_side": stored.padding_side,
        "pad_token_id": stored.pad_token_id,
        "prompt_template": stored.prompt_template,
        "long_texts": stored.long_texts,
        "temperature": adapter.temperature(adapter_folder),
        "threshold": adapter.threshold(adapter_folder),
        "empty_text_logits": adapter.empty_text_logits(adapter_folder, len(stored.id2label)) or [],
    }
    base = {key: str(about.get(key, ""))[:200] for key in ("base_model_name_or_path", "revision")}
    atomic.write_json(folder / adapter.CLASSIFIER, told | base)


def _plain(folder: Path) -> PreTrainedModel:
    """The classifier of a folder as anybody loads it, in the dtype it was saved in."""
    import torch
    from transformers import AutoModelForSequenceClassification

    with adapter.quiet_libraries():
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation=probes.PORTABLE_ATTENTION,
        )
    if wrong := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
        raise AdapterRejected(f"plain transformers does not find the merged weights, first {wrong[0]}")
    on_device: PreTrainedModel = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return on_device


def _require_same_tokens(folder: Path, stored: Probes) -> None:
    from jobs import model as models

    tokenizer = adapter.load_tokenizer(folder)
    tokens = models.encode(tokenizer, stored.texts, stored.max_length, stored.prompt_template, stored.long_texts)
    if tokens != stored.token_ids:
        raise AdapterRejected("the tokenizer in the merged folder gives other tokens than the trained one")
