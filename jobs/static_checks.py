"""Static checks: what the adapter's file and configuration tell, with the base's shapes where it is at hand.

numpy and json only, so that they run everywhere and in under a second.  What can't be known is `not_checked`.
Names and numbers in a file are the host's word: nothing is opened but safetensors and JSON, no pattern is
evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jobs import adapter, explanations, safetensors_file
from jobs.checks import Check
from jobs.errors import AdapterRejected

PREFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "module.")
HEADS = adapter.HEADS
ROOT = "base_model.model."
PAGE_BYTES = 4096
TAIL_BYTES = 64
"""A run of 16 float32 zeros at the end is nothing that training leaves."""
SHARD_SHARE = 0.25
"""World sizes from 2 up leave at least half of the rows zero; a trained lora_B has next to none."""


@dataclass
class _Folder:
    """Everything that the checks look at; filled in as far as the folder can be read."""

    path: Path
    ours: bool
    config: dict[str, Any] = field(default_factory=dict)
    header: safetensors_file.Header | None = None
    arrays: dict[str, Any] = field(default_factory=dict)  # key without a wrapper's prefix -> array
    loras: dict[str, dict[str, Any]] = field(default_factory=dict)  # module -> {"lora_A": array, ...}
    others: dict[str, Any] = field(default_factory=dict)  # key below ROOT -> array: the head
    base: dict[str, tuple[int, ...]] | None = None  # module -> shape of its weight
    initial: Mapping[str, Any] | None = None
    classes: int | None = None


Finding = tuple[str, str] | tuple[str, str, bool]
"""Status, detail and, where it is not the usual one, whether the check is required."""


def check_adapter(
    folder: Path,
    *,
    base_folder: Path | None = None,
    initial: Mapping[str, Any] | None = None,
    ours: bool = False,
) -> list[Check]:
    """Every static check of an adapter's folder, in a fixed order of ids.

    `initial` are `adapter.fingerprints` from before the first step; `ours` says that the adapter comes from a
    run of this project, which always leaves them and `classifier.json`.  Never raises for what is in the
    folder.
    """
    subject = _Folder(folder, ours, initial=initial)
    found: dict[str, Finding] = {}
    for step in (_read_files, _read_config, _read_tensors):
        found |= step(subject)
        if any(finding[0] == "fail" for finding in found.values()):
            break
    else:
        subject.classes = _class_count(folder)
        if base_folder is not None:
            subject.base = base_shapes(base_folder, list(subject.loras))
        found |= {name: question(subject) for name, question in QUESTIONS.items()}
    missing: Finding = ("not_checked", "the checks before it failed")
    return [_check(name, found.get(name, missing)) for name in explanations.STATIC]


def base_shapes(folder: Path, modules: list[str]) -> dict[str, tuple[int, ...]]:
    """Module name to shape of its weight, from the headers of a base's safetensors files.

    Names are as in the classifier: a base saved without the classifier's prefix (`layers.0…` for
    `model.layers.0…`) gets the one that `modules`, the adapter's, have.  Raises AdapterRejected where a
    header can't be read.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        header = safetensors_file.read_header(path)
        if header.problems:
            raise AdapterRejected(f"{path}: {header.problems[0]}", hint="fetch the base again")
        for tensor in header.tensors.values():
            if tensor.name.endswith(".weight"):
                shapes[tensor.name.removesuffix(".weight")] = tensor.shape
    if not shapes:
        raise AdapterRejected(f"{folder}: no base model in safetensors files here")
    prefix = modules[0].split(".")[0] + "." if modules else ""
    prefixed = {prefix + name: shape for name, shape in shapes.items()}
    return max(shapes, prefixed, key=lambda names: len(names.keys() & set(modules)))


# --- reading
# ------------------------------------------------------------------------------------------------------


def _read_files(subject: _Folder) -> dict[str, Finding]:
    weights, config = subject.path / adapter.WEIGHTS, subject.path / adapter.CONFIG
    if not weights.is_file():
        pickles = adapter.pickled_weights(subject.path)
        reason = f"; {pickles[0]} is a pickle and is never opened, loading it can run code" if pickles else ""
        return {"files": ("fail", f"no {adapter.WEIGHTS}{reason}")}
    if not config.is_file():
        return {"files": ("fail", f"no {adapter.CONFIG}")}
    subject.header = safetensors_file.read_header(weights)
    if subject.header.problems:
        return {"files": ("pass", "both there"), "header": ("fail", "; ".join(subject.header.problems)[:500])}
    size, count = weights.stat().st_size, len(subject.header.tensors)
    return {"files": ("pass", "both there"), "header": ("pass", f"{count} tensors, {size:,} bytes, no gap")}


def _read_config(subject: _Folder) -> dict[str, Finding]:
    try:
        subject.config = adapter.read_json(subject.path / adapter.CONFIG)
    except AdapterRejected as error:
        return {"config": ("fail", error.message)}
    config = subject.config
    kind, task, rank = config.get("peft_type"), config.get("task_type"), config.get("r")
    tasks = ("SEQ_CLS",) if subject.ours else ("SEQ_CLS", "CAUSAL_LM")
    wrong = []
    if kind != "LORA":
        wrong.append(f"peft_type {_word(kind)}, not LORA")
    if task not in tasks:
        wrong.append(f"task_type {_word(task)}, not {' or '.join(tasks)}")
    if type(rank) is not int or not 0 < rank <= 65536:
        wrong.append(f"r {_word(rank)}")
    if wrong:
        return {"config": ("fail", "; ".join(wrong))}
    return {"config": ("pass", f"{kind}, {task}, r {rank}")}


def _read_tensors(subject: _Folder) -> dict[str, Finding]:
    header = subject.header
    assert header is not None
    empty = [name for name, tensor in header.tensors.items() if not tensor.count]
    if not header.tensors:
        return {"tensors": ("fail", "not one tensor in the file")}
    if empty:
        return {
            "tensors": (
                "fail",
                f"{len(empty)} of {len(header.tensors)} hold no number, first {_word(empty[0])}",
            )
        }
    odd = [f"{_word(t.name)} {t.dtype}" for t in header.tensors.values() if t.dtype not in safetensors_file.FLOATS]
    found: dict[str, Finding] = {"tensors": ("pass", f"{len(header.tensors)} tensors, none empty")}
    if odd:
        return found | {"dtypes": ("fail", f"{len(odd)} not in {', '.join(safetensors_file.FLOATS)}, first {odd[0]}")}
    kinds = sorted({tensor.dtype for tensor in header.tensors.values()})
    for name, array in safetensors_file.read_arrays(header).items():
        subject.arrays[name] = array
        _sort_in(subject, _unwrapped(name), array)
    return found | {"dtypes": ("pass", ", ".join(kinds))}


def _sort_in(subject: _Folder, name: str, array: Any) -> None:
    match = re.fullmatch(r"base_model\.model\.(.+)\.(lora_[AB])\.weight", name)
    match = match or re.fullmatch(r"base_model\.model\.(.+)\.(lora_magnitude_vector)(?:\.weight)?", name)
    if match:
        subject.loras.setdefault(match[1], {})[match[2]] = array
    else:
        subject.others[name.removeprefix(ROOT)] = array


def _unwrapped(name: str) -> str:
    """The key without the wrappers' prefixes, so that the other checks see past them."""
    for prefix in PREFIXES:
        name = re.sub(rf"(^|\.){re.escape(prefix)}", r"\1", name)
    return name


def _class_count(folder: Path) -> int | None:
    """How many labels classifier.json names; None where there is no such file."""
    try:
        labels = adapter.read_json(folder / adapter.CLASSIFIER).get("id2label")
    except AdapterRejected:
        return None
    return len(labels) if isinstance(labels, dict) else None


# --- questions
# ----------------------------------------------------------------------------------------------------


def _alpha(subject: _Folder) -> Finding:
    pattern = subject.config.get("alpha_pattern") or {}
    values = [
        subject.config.get("lora_alpha"),
        *(pattern.values() if isinstance(pattern, dict) else [pattern]),
    ]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            return "fail", f"lora_alpha {_word(value)}"
    return "pass", f"lora_alpha {values[0]:g}"


def _prefixes(subject: _Folder) -> Finding:
    wrapped = [name for name in subject.arrays if _unwrapped(name) != name]
    if wrapped:
        return "fail", f"{len(wrapped)} of {len(subject.arrays)} keys, first {_word(wrapped[0])}"
    return "pass", "no wrapper's prefix"


def _keys(subject: _Folder) -> Finding:
    saved = _saved(subject)
    odd = [key for key in subject.others if not adapter.is_saved(key, saved)]
    odd += [name for name in subject.arrays if not _unwrapped(name).startswith(ROOT) and name not in odd]
    if odd:
        return "fail", f"{len(odd)} keys that PEFT does not write, first {_word(odd[0])}"
    return "pass", f"{len(subject.arrays)} keys, all of PEFT's form"


def _pairs(subject: _Folder) -> Finding:
    if not subject.loras:
        return "fail", "no LoRA matrices in the file"
    pattern = subject.config.get("rank_pattern") or {}
    for module, parts in subject.loras.items():
        a, b = parts.get("lora_A"), parts.get("lora_B")
        if a is None or b is None:
            return "fail", f"{_word(module)} has no lora_{'A' if a is None else 'B'}"
        if a.ndim != 2 or b.ndim != 2:
            return "fail", f"{_word(module)}: matrices are needed, not {a.ndim} and {b.ndim} dimensions"
        if a.shape[0] != b.shape[1]:
            return "fail", f"{_word(module)}: ranks {a.shape[0]} and {b.shape[1]}"
        if not pattern and a.shape[0] != subject.config["r"]:
            return "fail", f"{_word(module)}: rank {a.shape[0]}, the configuration says {subject.config['r']}"
    if pattern:
        return "not_checked", f"{len(subject.loras)} pairs; rank_pattern is not evaluated", subject.ours
    return "pass", f"{len(subject.loras)} pairs of rank {subject.config['r']}"


def _modules(subject: _Folder) -> Finding:
    """Both directions: every module that the configuration targets is in the file, and no other."""
    targets = subject.config.get("target_modules")
    patterns = (
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "layer_replication",
        "target_parameters",
    )
    used = [key for key in patterns if subject.config.get(key)]
    if used or not (targets == "all-linear" or isinstance(targets, list)):
        return "not_checked", f"the configuration selects by {', '.join(used) or 'a pattern'}", subject.ours
    present = set(subject.loras)
    if subject.base is None:
        return _modules_without_base(present, targets)
    # A language model's own head and other parts that a classifier lacks stand beside the body, not in it.
    roots = {name.split(".")[0] for name in present}
    body = {name: shape for name, shape in subject.base.items() if name.split(".")[0] in roots}
    saved = _saved(subject)
    matrices = {name for name, shape in body.items() if len(shape) == 2 and not adapter.is_saved(f"{name}.", saved)}
    if targets == "all-linear":
        expected = {name for name in matrices if _is_linear(name)}
    else:
        expected = {name for name in matrices if _is_target(name, targets)}
    # RoBERTa's file has a pooler that its classifier does without.
    expected = {name for name in expected if ".pooler." not in name or name in present}
    missing, extra = sorted(expected - present), sorted(present - expected)
    if missing:
        return (
            "fail",
            f"{len(missing)} of {len(expected)} targeted modules are missing, first {_word(missing[0])}",
        )
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {_word(extra[0])}"
    return "pass", f"exactly the {len(expected)} modules that the configuration targets"


def _modules_without_base(present: set[str], targets: Any) -> Finding:
    """What the configuration alone tells: enough to fail, never to pass."""
    if isinstance(targets, list):
        extra = sorted(name for name in present if not _is_target(name, targets))
        unused = sorted(str(t) for t in targets if not any(_is_target(name, [t]) for name in present))
        if extra:
            return "fail", f"{len(extra)} modules in the file are not targeted, first {_word(extra[0])}"
        if unused:
            return "fail", f"{len(unused)} targets have no module in the file, first {_word(unused[0])}"
    return "not_checked", "no base to count the modules of", False


def _shapes(subject: _Folder) -> Finding:
    if subject.base is None:
        return "not_checked", "no base to compare with", False
    for module, parts in subject.loras.items():
        shape = subject.base.get(module)
        if shape is None:
            return "fail", f"{_word(module)} is not in the base"
        if "lora_A" not in parts or "lora_B" not in parts or parts["lora_A"].ndim != 2 or parts["lora_B"].ndim != 2:
            continue  # pairs says so
        adapted = (parts["lora_B"].shape[0], parts["lora_A"].shape[1])
        if subject.config.get("fan_in_fan_out"):
            adapted = adapted[::-1]
        if adapted != shape:
            return "fail", f"{_word(module)}: {adapted} for a weight of {shape}"
    return "pass", f"{len(subject.loras)} modules fit the base's weights"


def _head(subject: _Folder) -> Finding:
    if subject.config.get("task_type") == "CAUSAL_LM":
        return "not_checked", "a language model has no classification head", False
    weight = _head_weight(subject)
    if weight is None:
        return "fail", f"none of {', '.join(HEADS)} is in the file"
    if absent := _absent(subject):
        return "fail", f"{_word(absent[0])} was trained whole and is not in the file"
    if weight.ndim != 2 or not weight.any():
        return "fail", f"shape {weight.shape}" if weight.ndim != 2 else "all zero"
    if subject.base is not None and not any(shape[:1] == weight.shape[1:] for shape in subject.base.values()):
        return "fail", f"shape {weight.shape}, and no layer of the base has {weight.shape[1]} outputs"
    return "pass", f"shape {weight.shape}"


def _classes(subject: _Folder) -> Finding:
    weight = _head_weight(subject)
    if subject.classes is None or weight is None:
        return "not_checked", f"no {adapter.CLASSIFIER}, or no head", subject.ours
    if weight.shape[0] != subject.classes:
        return "fail", f"{weight.shape[0]} rows for {subject.classes} labels"
    return "pass", f"{subject.classes} labels"


def _finite(subject: _Folder) -> Finding:
    broken = [name for name, array in subject.arrays.items() if not np.isfinite(array).all()]
    if broken:
        count = int((~np.isfinite(subject.arrays[broken[0]])).sum())
        return "fail", f"{len(broken)} tensors, first {_word(broken[0])} with {count} values"
    return "pass", f"{sum(array.size for array in subject.arrays.values()):,} numbers"


def _lora_a(subject: _Folder) -> Finding:
    return _not_zero(subject, "lora_A")


def _lora_b(subject: _Folder) -> Finding:
    return _not_zero(subject, "lora_B")


def _not_zero(subject: _Folder, part: str) -> Finding:
    matrices = {module: parts[part] for module, parts in subject.loras.items() if part in parts}
    zero = [module for module, matrix in matrices.items() if not matrix.any()]
    if zero or not matrices:
        return (
            "fail",
            f"{len(zero)} of {len(matrices)} are all zero, first {_word(zero[0]) if zero else 'none there'}",
        )
    return "pass", f"none of {len(matrices)} is all zero"


def _shards(subject: _Folder) -> Finding:
    for module, parts in subject.loras.items():
        for part, share in (("lora_A", 0.0), ("lora_B", SHARD_SHARE)):
            matrix = parts.get(part)
            if matrix is None or matrix.ndim != 2 or not matrix.any():
                continue  # another check's finding
            empty = _rows_at_the_ends(matrix) if part == "lora_B" else int((~matrix.any(axis=1)).sum())
            if empty and empty >= share * len(matrix):
                return "fail", f"{_word(module)}: {empty} of {len(matrix)} rows of {part} are all zero"
    return "pass", "no block of zero rows"


def _rows_at_the_ends(matrix: Any) -> int:
    """Zero rows before the first other one and after the last.  A shard is one block; rows that are strewn in belong to
    units that a ReLU never lets through, which OPT has in thousands."""
    others = np.flatnonzero(matrix.any(axis=1))
    return len(matrix) - int(others[-1] - others[0] + 1)


def _zero_tail(subject: _Folder) -> Finding:
    """Blocks that a file system never wrote read as zeros: at the end, or page by page."""
    header = subject.header
    assert header is not None
    data = np.fromfile(header.path, dtype=np.uint8)
    tail = data[max(header.data_start, len(data) - TAIL_BYTES) :]
    if not tail.any():
        return "fail", f"the last {len(tail)} bytes are all zero"
    pages = data[: len(data) // PAGE_BYTES * PAGE_BYTES].view(np.uint64).reshape(-1, PAGE_BYTES // 8)
    blank = int((~pages.any(axis=1)).sum())
    if blank:
        return "fail", f"{blank} of {len(pages)} pages of {PAGE_BYTES} bytes are all zero"
    return "pass", "no blank page"


def _moved(subject: _Folder) -> Finding:
    """Since step 0: every lora_B and the head; of lora_A, which has no gradient at first, all or none."""
    if not isinstance(subject.initial, Mapping):
        return "not_checked", "no fingerprint from before the first step", subject.ours
    now = {_unwrapped(name): array for name, array in subject.arrays.items()}
    if now.keys() != subject.initial.keys():
        strangers = sorted(now.keys() ^ subject.initial.keys())
        return (
            "fail",
            f"{len(strangers)} tensors are not in both the file and step 0, first {_word(strangers[0])}",
        )
    still = {name for name, array in now.items() if _same(array, subject.initial[name])}
    all_a = {name for name in now if name.endswith(".lora_A.weight")}
    stuck = sorted(still - all_a)
    if stuck:
        return "fail", f"{len(stuck)} of {len(now)} tensors did not move, first {_word(stuck[0])}"
    if still and still != all_a:
        return "fail", f"{len(still)} of {len(all_a)} lora_A did not move, first {_word(sorted(still)[0])}"
    note = "; no lora_A did, as after a single step" if still else ""
    return "pass", f"{len(now) - len(still)} of {len(now)} tensors moved{note}"


QUESTIONS: dict[str, Callable[[_Folder], Finding]] = {
    "alpha": _alpha, "prefixes": _prefixes, "keys": _keys, "pairs": _pairs, "modules": _modules,
    "shapes": _shapes, "head": _head, "classes": _classes, "finite": _finite, "lora_a": _lora_a,
    "lora_b": _lora_b, "shards": _shards, "zero_tail": _zero_tail, "moved": _moved,
}  # fmt: skip


def _same(array: Any, fingerprint: Any) -> bool:
    digest = fingerprint.get("sha256") if isinstance(fingerprint, Mapping) else None
    return bool(adapter.array_fingerprint(array)["sha256"] == digest)


def _head_weight(subject: _Folder) -> Any:
    """The last linear layer of the head (RoBERTa's has two), told by its rows; None where there is none."""
    weights = {key: array for key, array in subject.others.items() if key.endswith("weight")}
    fit = [key for key, array in weights.items() if array.ndim == 2 and len(array) == subject.classes]
    names = [key for key in weights if key.split(".")[0] in HEADS]
    last = [name for name in names if name in fit] or names or fit
    return weights[sorted(last)[-1]] if last else None


def _saved(subject: _Folder) -> list[str]:
    """The modules that the file should hold whole; which of the heads' names a model has is not known here."""
    names = subject.config.get("modules_to_save")
    return [*HEADS, *(name for name in (names if isinstance(names, list) else []) if name and isinstance(name, str))]


def _absent(subject: _Folder) -> list[str]:
    """Modules that are trained whole and have no tensor in the file: by the configuration, and of the base's."""
    others = [name for name in _saved(subject) if name not in HEADS]
    absent = [name for name in others if not any(adapter.is_saved(key, [name]) for key in subject.others)]
    roots = {name.split(".")[0] for name in subject.loras}
    of_base = [name for name in subject.base or {} if adapter.is_saved(f"{name}.", others)]
    return absent + [name for name in of_base if name.split(".")[0] in roots and f"{name}.weight" not in subject.others]


def _is_target(name: str, targets: list[Any]) -> bool:
    """PEFT's rule for a list: the whole name, or its end after a dot."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _is_linear(name: str) -> bool:
    """Whether a two-dimensional weight of a base is a linear layer of the classifier made from it."""
    last = name.split(".")[-1]
    return "embed" not in last and last not in ("lm_head", "wte", "wpe", *HEADS)


def _word(value: Any) -> str:
    """An untrusted value for a sentence: printable ASCII, not too long."""
    return ascii(value)[:160]


def _check(name: str, finding: Finding) -> Check:
    status, detail, *rest = finding
    meaning, todo = ("", "") if status == "pass" else explanations.STATIC[name]
    if status == "not_checked":
        meaning, todo = "nothing is known about this", "name the base with --base" if "base" in detail else ""
    return Check(name, status, detail, meaning, todo, required=rest[0] if rest else True)  # type: ignore[arg-type]
