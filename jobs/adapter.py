"""The adapter on disk: how it is saved, what its folder holds, and how it is loaded without trusting it.

The folder is PEFT's own, so `PeftModel.from_pretrained` of plain peft reads it; `classifier.json` beside it
holds what PEFT does not keep.  The base is always the folder the caller names, never what a file in the
adapter's folder says.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from jobs import atomic, lora_configuration, manifest, safetensors_file
from jobs.errors import AdapterRejected
from jobs.spec import HEAD, LONG_TEXTS, TEXT

if TYPE_CHECKING:
    import torch
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
CLASSIFIER = "classifier.json"
HEADS = lora_configuration.HEADS["SEQ_CLS"]
"""What PEFT trains and saves whole in every classifier, whether its configuration says so or not."""
MAX_TEMPLATE = 65536
"""Characters of a prompt template; the spec allows no more."""
LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers")

# What a LoRA configuration may say here.  Every other key PEFT knows must have its default: some of them
# import a module by name (megatron_core) or start a computation, and none is needed by an adapter that this
# project makes.
_PLAIN_KEYS = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora", "use_dora", "bias",
    "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern",
    "fan_in_fan_out",
)  # fmt: skip
_NAMES = ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_pattern")
"""Of those that name modules."""
_IGNORED_KEYS = (
    "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "peft_type", "peft_version", "task_type",
    "megatron_core", "qalora_group_size",
)  # fmt: skip


def save(
    model: PeftModel,
    tokenizer: Any,
    folder: Path,
    *,
    base_name: str,
    revision: str,
    id2label: Mapping[int, str],
    max_length: int,
    prompt_template: str = TEXT,
    long_texts: str = HEAD,
    empty_text_logits: Sequence[float] = (),
    temperature: float | None = None,
    threshold: float | None = None,
    sha256: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, str]:
    """Put the adapter, its tokenizer and `classifier.json` at `folder`, whole or not at all; sha256 of each by name.

    `base_name` and `revision` say which base it belongs to; of an absolute path only the last part is kept.
    `sha256` of the data and of the base's files, by name, is what the folder alone can be traced back by.
    Logits are divided by `temperature`; of two labels the positive one is said from `threshold` on.
    Raises AdapterRejected, leaving what was at `folder`, when the file PEFT wrote has no tensor or an empty
    one.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # In the same parent, because a rename is atomic only within one filesystem.
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        with quiet_libraries():
            model.save_pretrained(str(new), safe_serialization=True, save_embedding_layers=False)
            tokenizer.save_pretrained(str(new))
        # PEFT's card is a form of "More Information Needed" that names the training host's path of the base.
        (new / "README.md").unlink(missing_ok=True)
        identity = {"base_model_name_or_path": portable_name(base_name), "revision": revision}
        config = read_json(new / CONFIG) | identity
        # PEFT keeps a set, whose order changes from process to process; sorted, equal adapters are equal
        # files.
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        # It adds the heads' names once more at every turn.
        config["modules_to_save"] = list(dict.fromkeys(config["modules_to_save"]))
        atomic.write_json(new / CONFIG, config)
        classifier = _classifier(model, tokenizer, id2label, max_length)
        classifier |= {"prompt_template": prompt_template, "long_texts": long_texts}
        classifier |= {"empty_text_logits": list(empty_text_logits), "temperature": temperature, "threshold": threshold}
        classifier |= {"sha256": sha256} if sha256 else {}
        atomic.write_json(new / CLASSIFIER, classifier | identity)
        safetensors_file.read_header(new / WEIGHTS).require()
        os.chmod(new, 0o755)  # mkdtemp makes it private; an artifact is not
        _flush(new)
        written = {entry.path: entry.sha256 for entry in manifest.list_files(new)}
        _put_in_place(new, folder)
        return written
    finally:
        shutil.rmtree(new, ignore_errors=True)


def load(
    base_folder: Path,
    adapter_folder: Path,
    *,
    dtype: torch.dtype,
    id2label: Mapping[int, str],
    attention: str | None = None,
) -> PeftModel:
    """Base and adapter from disk on the CPU, in eval mode: the base in `dtype`, what was trained in float32.

    Raises AdapterRejected unless the file's tensors are exactly those the model needs, and arrive in it
    unchanged. Contacts no Hub, unpickles nothing, runs no code from either folder, and asks only
    `base_folder` for the base.
    """
    from peft import PeftModel

    header = require_weights(adapter_folder)
    config = lora_config(adapter_folder)
    model = load_base(base_folder, dtype=dtype, id2label=id2label, attention=attention)
    set_pad_token(model, adapter_folder)
    saved = (*HEADS, *(config.modules_to_save or ()))
    unknown = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and not is_saved(name, saved)
    ]
    if unknown:
        raise AdapterRejected(
            f"{adapter_folder}: neither it nor the base has {len(unknown)} weights, first {unknown[0]}"
        )
    # PEFT copies these from the base's, in the base's dtype; bf16 would round the trained ones.
    for name, parameter in model.named_parameters():
        if is_saved(name, saved):
            parameter.data = parameter.data.float()
    with quiet_libraries(), peft_problems_as_errors(adapter_folder):
        loaded = PeftModel.from_pretrained(model, str(adapter_folder), config=config, torch_device="cpu")
    _require_same_tensors(loaded, header)
    for parameter in loaded.parameters():
        parameter.requires_grad_(False)
    return loaded.eval()


def load_base(
    base_folder: Path, *, dtype: torch.dtype, id2label: Mapping[int, str], attention: str | None = None
) -> PreTrainedModel:
    """The base of a folder with a fresh head of len(id2label) classes, on the CPU, in eval mode.

    Only what an adapter has to bring has gradients: the head, and what the folder has no weights for.  `attention` is
    transformers' attn_implementation.  Raises AdapterRejected when the folder lacks a weight of the body itself.
    """
    from transformers import AutoModelForSequenceClassification

    # transformers would load that adapter, too, and take the base from its configuration.
    if (base_folder / CONFIG).exists():
        raise AdapterRejected(f"{base_folder}: this is an adapter, not a base model")
    options: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    with quiet_libraries():
        model, info = AutoModelForSequenceClassification.from_pretrained(
            str(base_folder),
            num_labels=len(id2label),
            id2label={int(k): v for k, v in id2label.items()},
            label2id={v: int(k) for k, v in id2label.items()},
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    missing = set(info["missing_keys"])
    # A body is never new but for BERT's pooler, which the language model that the base was made as has no use for.
    body = f"{model.base_model_prefix}."
    lacking = [key for key in missing if key.startswith(body) and not key.startswith(f"{body}pooler.")]
    if lacking:
        raise AdapterRejected(f"{base_folder}: the base lacks {len(lacking)} weights, first {min(lacking)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in missing or name.split(".")[0] in HEADS)
    checked: PreTrainedModel = model.eval()
    return checked


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder; no Hub, no code of the folder's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def fingerprints(model: PeftModel) -> dict[str, dict[str, Any]]:
    """`{key: {"sha256", "norm"}}` of every tensor that `save` would write, by its key in the file.

    sha256 is of the values as little-endian float32; norm is the Euclidean one.
    """
    import numpy as np

    return {
        key: array_fingerprint(tensor.detach().float().cpu().numpy().astype(np.float32, copy=False))
        for key, tensor in adapter_tensors(model).items()
    }


def array_fingerprint(array: Any) -> dict[str, Any]:
    """`{"sha256", "norm"}` of a numpy array, as in `fingerprints`."""
    import numpy as np

    values = np.ascontiguousarray(array, dtype="<f4")
    # In float64, because the sum of a million squares loses digits in float32.
    norm = float(np.sqrt(np.sum(np.square(values, dtype=np.float64))))
    return {"sha256": hashlib.sha256(values.tobytes()).hexdigest(), "norm": norm}


def adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """The tensors that make the adapter, LoRA and head, under the keys of the saved file."""
    from peft import get_peft_model_state_dict

    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors


def require_weights(folder: Path) -> safetensors_file.Header:
    """The header of a folder's weights.  Raises AdapterRejected: absent, damaged or a pickle."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = pickled_weights(folder)
        reason = f"only {pickled[0]}, a pickle, which is never opened" if pickled else f"no {WEIGHTS}"
        raise AdapterRejected(f"{folder}: {reason}", hint="save it again with safe_serialization=True")
    return safetensors_file.read_header(path).require()


def pickled_weights(folder: Path) -> list[str]:
    """Names of weights in a form that runs code when it is opened, so never is."""
    return sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl"))


def lora_config(folder: Path) -> LoraConfig:
    """PEFT's configuration from the plain keys of adapter_config.json.  Raises AdapterRejected on others."""
    from peft import LoraConfig

    document = read_json(folder / CONFIG)
    if document.get("peft_type") != "LORA" or document.get("task_type") != "SEQ_CLS":
        kind = f"{document.get('peft_type')!s:.40} for {document.get('task_type')!s:.40}"
        raise AdapterRejected(f"{folder / CONFIG}: {kind}; only LORA for SEQ_CLS is loaded")
    default = vars(LoraConfig())
    strange = [
        key
        for key, value in document.items()
        if key not in _PLAIN_KEYS + _IGNORED_KEYS and value and value != default.get(key)
    ]
    if strange:
        raise AdapterRejected(f"{folder / CONFIG}: not supported: {', '.join(sorted(strange))[:200]}")
    lora_configuration.parse(document)
    for key in _NAMES:
        names = document.get(key) or []
        # PEFT takes patterns, and waits for ever for some.
        if not all(re.fullmatch(r"[\w.-]+", name) for name in ([names] if isinstance(names, str) else names)):
            raise AdapterRejected(f"{folder / CONFIG}: {key} is not a list of modules")
    try:
        plain = {key: document[key] for key in _PLAIN_KEYS if key in document}
        return LoraConfig(task_type="SEQ_CLS", inference_mode=True, **plain)
    except (TypeError, ValueError) as error:
        raise AdapterRejected(f"{folder / CONFIG}: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of at most 64 MiB.  Raises AdapterRejected."""
    try:
        if not path.is_file():  # a pipe would keep us waiting for ever
            raise AdapterRejected(f"{path}: no such file")
        if path.stat().st_size > 64 * 2**20:
            raise AdapterRejected(f"{path}: too large to be read")
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRejected(f"{path}: not readable ({type(error).__name__})") from error
    if not isinstance(document, dict):
        raise AdapterRejected(f"{path}: not a JSON object")
    return document


def is_saved(name: str, modules_to_save: Iterable[str]) -> bool:
    """Whether a tensor, named as in the base's classifier, belongs to a module that is saved whole.

    PEFT's rule: the name of a module that it is in ends in one of these.
    """
    return any(f"{module}." in name for module in modules_to_save)


def prompt_template(folder: Path) -> str:
    """The template that an adapter was trained with; folders that do not tell have the bare text.

    Raises AdapterRejected where classifier.json, which may come from anywhere, holds something else.
    """
    template = read_json(folder / CLASSIFIER).get("prompt_template", TEXT)
    if not is_template(template):
        raise AdapterRejected(f"{folder / CLASSIFIER}: not a prompt template: {template!r:.100}")
    return str(template)


def long_texts(folder: Path) -> str:
    """What an adapter reads of a text beyond its length, one of `spec.LONG_TEXTS`; folders that do not tell: the head.

    Raises AdapterRejected where classifier.json holds something else.
    """
    way = read_json(folder / CLASSIFIER).get("long_texts", HEAD)
    if way not in LONG_TEXTS:
        raise AdapterRejected(f"{folder / CLASSIFIER}: not a way to read long texts: {way!r:.100}")
    return str(way)


def temperature(folder: Path) -> float | None:
    """What logits are divided by before they become probabilities, 0.05 to 20; None in folders that do not tell.

    Raises AdapterRejected where classifier.json holds something else.
    """
    return _number(folder, "temperature", 0.05, 20.0)


def threshold(folder: Path) -> float | None:
    """The probability in [0, 1] from which on the positive label of two is said; None in folders that do not tell.

    Raises AdapterRejected where classifier.json holds something else.
    """
    return _number(folder, "threshold", 0.0, 1.0)


def empty_text_logits(folder: Path, classes: int) -> list[float] | None:
    """The answer to a text without anything in it, one number a class; None in folders that do not tell.

    Raises AdapterRejected where classifier.json holds something else.
    """
    logits = read_json(folder / CLASSIFIER).get("empty_text_logits")
    if not logits:
        return None
    sane = isinstance(logits, list) and len(logits) == classes
    if not sane or not all(type(one) is float and abs(one) < 1e6 for one in logits):
        raise AdapterRejected(f"{folder / CLASSIFIER}: not an answer to empty texts: {logits!r:.100}")
    return [float(one) for one in logits]


def _number(folder: Path, key: str, low: float, high: float) -> float | None:
    value = read_json(folder / CLASSIFIER).get(key)
    if value is None:
        return None
    if type(value) not in (int, float) or not low <= value <= high:  # NaN is in no interval
        raise AdapterRejected(f"{folder / CLASSIFIER}: {key} is no number from {low:g} to {high:g}: {value!r:.100}")
    return float(value)


def is_template(value: Any) -> bool:
    """Whether `value` is a text of some size with {text} in it once."""
    return isinstance(value, str) and value.count(TEXT) == 1 and len(value) <= MAX_TEMPLATE


def other_weights(base_folder: Path, adapter_folder: Path) -> list[Path]:
    """The base's files of weights that are others than those trained on, as far as the adapter's folder tells.

    They may hold the same numbers.
    """
    told = read_json(adapter_folder / CLASSIFIER).get("sha256")
    base = told.get("base") if isinstance(told, dict) else None
    pairs = (
        [(base_folder / Path(str(name)).name, digest) for name, digest in base.items()]
        if isinstance(base, dict)
        else []
    )
    return [
        path
        for path, digest in pairs
        if path.suffix == ".safetensors" and path.is_file() and manifest.sha256_of(path) != digest
    ]


def another_base(path: Path) -> str:
    """What is to be told of a file of `other_weights`."""
    return f"{path} is not the file that was trained on; launch verify --base tells whether it will do"


def set_pad_token(model: Any, adapter_folder: Path) -> None:
    """Give the base the pad token of training, which pooling looks for, instead of its own."""
    text_config = model.config.get_text_config()
    if (adapter_folder / CLASSIFIER).is_file():
        pad = read_json(adapter_folder / CLASSIFIER).get("pad_token_id")
        if not isinstance(pad, int) or not 0 <= pad < text_config.vocab_size:
            raise AdapterRejected(f"{adapter_folder / CLASSIFIER}: impossible pad_token_id {pad!r:.40}")
        text_config.pad_token_id = pad


def portable_name(base_name: str) -> str:
    """`base_name`; of an absolute path only the last part, as the host's folders mean nothing elsewhere."""
    for flavour in (PurePosixPath, PureWindowsPath):
        if flavour(base_name).is_absolute():
            return flavour(base_name).name
    return base_name


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that take part in a forward pass."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hold back what transformers and PEFT say on every load and nobody can act on."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    # The load report names the fresh head as missing, which is meant to be.
    logging.set_verbosity(40)  # ERROR
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 reads a property that transformers 5.23 renamed.
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _classifier(model: Any, tokenizer: Any, id2label: Mapping[int, str], max_length: int) -> dict[str, Any]:
    return {
        "id2label": {str(k): v for k, v in sorted(id2label.items())},
        "max_length": max_length,
        "padding_side": tokenizer.padding_side,
        "pad_token_id": model.config.get_text_config().pad_token_id,
        "libraries": library_versions(),
    }


@contextlib.contextmanager
def peft_problems_as_errors(folder: Path) -> Iterator[None]:
    """Turn PEFT's warnings (missing keys, odd shapes) and its many exceptions into AdapterRejected."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", category=UserWarning)
            yield
    except (KeyError, ValueError, RuntimeError, TypeError, AttributeError, UserWarning) as error:
        first_line = next(iter(str(error).splitlines()), "")[:300]
        raise AdapterRejected(f"{folder}: PEFT can't load it: {type(error).__name__}: {first_line}") from error


def _require_same_tensors(model: PeftModel, header: safetensors_file.Header) -> None:
    """PEFT is silent about a missing head and modules it has no use for; so every number is compared."""
    import torch

    held, stored = adapter_tensors(model), safetensors_file.read_arrays(header)
    missing, unexpected = sorted(held.keys() - stored.keys()), sorted(header.tensors.keys() - held.keys())
    if missing or unexpected:
        first = f"missing, first {missing[0]}" if missing else f"unexpected, first {unexpected[0][:200]}"
        raise AdapterRejected(f"{header.path.name}: {len(missing) or len(unexpected)} tensors {first}")
    for key, tensor in held.items():
        # equal_nan: a NaN is static_checks' finding, not a difference
        if not torch.allclose(tensor.float(), torch.from_numpy(stored[key]).float(), rtol=0, atol=0, equal_nan=True):
            raise AdapterRejected(f"{header.path.name}: {key} is another in the loaded model than in the file")


def _flush(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        atomic.flush(path)


def _put_in_place(new: Path, folder: Path) -> None:
    """Rename `new` to `folder`; what was there before is gone afterwards, and is put back if that fails."""
    if not folder.exists():
        new.rename(folder)
        atomic.flush(folder.parent)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    try:
        folder.rename(old / folder.name)  # no system replaces a full folder in one step
        try:
            new.rename(folder)
        except BaseException:
            (old / folder.name).rename(folder)
            raise
        atomic.flush(folder.parent)
    finally:
        shutil.rmtree(old, ignore_errors=True)
