"""What lies in an adapter's folder, read without trusting it: its configuration, and its tensors by what they are.

json and numpy only.  Opens the safetensors file, adapter_config.json and classifier.json, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs import adapter, lora_configuration, safetensors_file
from jobs.errors import AdapterRejected
from jobs.lora_configuration import LoraConfiguration

PREFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "module.")
"""What torch.compile, FSDP and DDP put before names."""
ROOT = "base_model.model."
MOST_BYTES = 8 * 2**30
"""The adapter of rank 64 on every layer of a 70B model has 3.3 GB."""
MUST_BE_WRITTEN = 2**28
"""Bytes from which on a file with holes is refused before it is read."""
_MATRIX = re.compile(r"base_model\.model\.(.+)\.(lora_[AB])\.weight")
_EMBEDDING = re.compile(r"base_model\.model\.(.+)\.(lora_embedding_[AB])")
_MAGNITUDE = re.compile(r"base_model\.model\.(.+)\.(lora_magnitude_vector)(?:\.weight)?")
_BIAS = re.compile(r"base_model\.model\.(.+)\.(lora_B\.bias)")


@dataclass(frozen=True)
class Pair:
    """The tensors of one module, by PEFT's names for them: lora_A, lora_B, and what may stand beside."""

    parts: dict[str, Any] = field(default_factory=dict)

    @property
    def is_embedding(self) -> bool:
        return "lora_embedding_A" in self.parts or "lora_embedding_B" in self.parts

    @property
    def a(self) -> Any:
        """(r, in); None where it is missing."""
        return self.parts.get("lora_embedding_A", self.parts.get("lora_A"))

    @property
    def b(self) -> Any:
        """(out, r); None where it is missing."""
        return self.parts.get("lora_embedding_B", self.parts.get("lora_B"))

    @property
    def fits(self) -> bool:
        """Whether B times A is a product of matrices."""
        a, b = self.a, self.b
        return a is not None and b is not None and a.ndim == b.ndim == 2 and len(a) == b.shape[1]


@dataclass(frozen=True)
class Contents:
    """A folder of which header, configuration and tensors could be read.

    `lora` is None for what is no LoRA or a variant of it, which is not looked into.  `arrays` is by the file's keys,
    `pairs` by module and `others` by the key below PEFT's root, both past any wrapper's prefix.
    """

    header: safetensors_file.Header
    lora: LoraConfiguration | None
    arrays: Mapping[str, Any]
    pairs: Mapping[str, Pair]
    others: Mapping[str, Any]
    classes: int | None

    @property
    def head(self) -> Any:
        """The weight of the head's last linear layer (RoBERTa has two), told by its rows; None where there is none."""
        heads = self.lora.heads if self.lora else ()
        weights = {k: array for k, array in self.others.items() if k.endswith("weight") and not is_inside_peft(k)}
        fit = [key for key, array in weights.items() if array.ndim == 2 and len(array) == self.classes]
        names = [key for key in weights if key.split(".")[0] in heads]
        last = [name for name in names if name in fit] or names or fit
        return weights[sorted(last)[-1]] if last else None


class Unreadable(Exception):
    """What keeps a folder from being looked into: the check that fails, and why; `found` are those before it."""

    def __init__(self, check: str, detail: str, found: dict[str, tuple[str, str]]) -> None:
        super().__init__(detail)
        self.found = found | {check: ("fail", detail)}


def read(folder: Path, *, tasks: tuple[str, ...]) -> tuple[Contents, dict[str, tuple[str, str]]]:
    """The contents, and a status and detail for each of the checks files, header, config, tensors and dtypes.

    `tasks` are the task types that are expected; with none every one will do.  Raises Unreadable.
    """
    found: dict[str, tuple[str, str]] = {}
    header = _header(folder, found)
    lora = _configuration(folder, tasks, found)
    arrays = _tensors(header, found)
    pairs: dict[str, Pair] = {}
    others: dict[str, Any] = {}
    for key, array in arrays.items():
        name = unwrapped(key)
        match = next((m for form in (_MATRIX, _EMBEDDING, _MAGNITUDE, _BIAS) if (m := form.fullmatch(name))), None)
        if match:
            pairs.setdefault(match[1], Pair()).parts[match[2]] = array
        else:
            others[name.removeprefix(ROOT)] = array
    return Contents(header, lora, arrays, pairs, others, _class_count(folder)), found


def unwrapped(key: str) -> str:
    """A key without the wrappers' prefixes, so that all else can be seen past them."""
    for prefix in PREFIXES:
        key = re.sub(rf"(^|\.){re.escape(prefix)}", r"\1", key)
    return key


def is_inside_peft(key: str) -> bool:
    """Whether a key is that of PEFT's memory, which it reads from no file; it writes some, biases say, beside the plain
    ones."""
    return not {"modules_to_save", "original_module"}.isdisjoint(key.split("."))


def word(value: Any) -> str:
    """An untrusted value for a sentence: printable ASCII, not too long."""
    return ascii(value)[:160]


def _header(folder: Path, found: dict[str, tuple[str, str]]) -> safetensors_file.Header:
    weights = folder / adapter.WEIGHTS
    if not weights.is_file():
        pickles = adapter.pickled_weights(folder)
        reason = f"; {word(pickles[0])} is a pickle and is never opened, loading it can run code" if pickles else ""
        raise Unreadable("files", f"no {adapter.WEIGHTS}{reason}", found)
    if not (folder / adapter.CONFIG).is_file():
        raise Unreadable("files", f"no {adapter.CONFIG}", found)
    found["files"] = ("pass", "both there")
    status = weights.stat()
    size, written = status.st_size, getattr(status, "st_blocks", 0) * 512  # 0: the system does not tell
    if size > MOST_BYTES:
        raise Unreadable("header", f"{size:,} bytes: no adapter is that large", found)
    if size > MUST_BE_WRITTEN and 0 < written < size // 4:  # a hole takes no room on a disk, and gigabytes in memory
        raise Unreadable("header", f"{size:,} bytes, of which no more than {written:,} were ever written", found)
    header = safetensors_file.read_header(weights)
    if header.problems:
        raise Unreadable("header", word("; ".join(header.problems))[1:-1], found)
    found["header"] = ("pass", f"{len(header.tensors)} tensors, {size:,} bytes, no gap")
    return header


def _configuration(folder: Path, tasks: tuple[str, ...], found: dict[str, tuple[str, str]]) -> LoraConfiguration | None:
    try:
        document = adapter.read_json(folder / adapter.CONFIG)
        kind = document.get("peft_type")
        if not isinstance(kind, str) or not re.fullmatch("[A-Z0-9_]{2,40}", kind):
            raise AdapterRejected(f"peft_type {word(kind)}")
        if kind != "LORA" and tasks:
            raise AdapterRejected(f"peft_type {kind}, not LORA")
        if kind != "LORA":
            found["config"] = ("not_checked", f"peft_type {kind}: only LORA is looked into")
            return None
        if variant := next((key for key in lora_configuration.VARIANTS if document.get(key)), None):
            found["config"] = ("not_checked", f"{variant}: a variant of LoRA that is not looked into")
            return None
        lora = lora_configuration.parse(document)
        if tasks and lora.task not in tasks:
            raise AdapterRejected(f"task_type {lora.task}, not {' or '.join(tasks)}")
    except AdapterRejected as error:
        raise Unreadable("config", error.message, found) from error
    form = "".join(f", {name}" for name in ("use_rslora", "use_dora") if lora.is_on(name))
    found["config"] = ("pass", f"{kind}, {lora.task or 'no task'}, r {lora.rank}{form}")
    return lora


def _tensors(header: safetensors_file.Header, found: dict[str, tuple[str, str]]) -> dict[str, Any]:
    tensors = header.tensors.values()
    if not tensors:
        raise Unreadable("tensors", "not one tensor in the file", found)
    if empty := [tensor.name for tensor in tensors if not tensor.count]:
        detail = f"{len(empty)} of {len(tensors)} hold no number, first {word(empty[0])}"
        raise Unreadable("tensors", detail, found)
    found["tensors"] = ("pass", f"{len(tensors)} tensors, none empty")
    if odd := [f"{word(t.name)} {t.dtype}" for t in tensors if t.dtype not in safetensors_file.FLOATS]:
        detail = f"{len(odd)} not in {', '.join(safetensors_file.FLOATS)}, first {odd[0]}"
        raise Unreadable("dtypes", detail, found)
    found["dtypes"] = ("pass", ", ".join(sorted({tensor.dtype for tensor in tensors})))
    return dict(safetensors_file.read_arrays(header, mapped=True))


def _class_count(folder: Path) -> int | None:
    """How many labels classifier.json names; None where there is no such file."""
    try:
        labels = adapter.read_json(folder / adapter.CLASSIFIER).get("id2label")
    except AdapterRejected:
        return None
    return len(labels) if isinstance(labels, dict) else None
