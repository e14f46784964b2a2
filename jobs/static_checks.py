"""Static checks: what the adapter's file and configuration tell, with the base's shapes where they are at hand.

numpy and json only, so that they run everywhere and in under a second.  What can't be known is `not_checked`.
Names and numbers in a file are anybody's word: nothing is opened but safetensors and JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jobs import adapter, adapter_contents, explanations
from jobs.adapter_contents import ROOT, Contents, Pair, unwrapped, word
from jobs.base_tensors import BaseTensors
from jobs.checks import Check
from jobs.errors import AdapterRejected
from jobs.lora_configuration import LoraConfiguration
from jobs.safetensors_file import Tensor

PAGE_BYTES = 4096
TAIL_BYTES = 64
"""A run of 16 float32 zeros at the end is nothing that training leaves."""
SHARD_SHARE = 0.25
"""World sizes from 2 up leave at least half of the rows zero; a trained lora_B has next to none."""
LEAST_UPDATE, MOST_UPDATE = 1e-9, 10.0
"""Of the weight that it is added to, by root mean square.  Below 6e-8 float32 rounds the sum to the weight itself; the
largest update of the healthy ones in docs/trust.md is 0.2 of its weight."""
MOST_COMPARED = 5_000_000
"""Names and patterns of a configuration times tensors: some seconds.  An entry of rank_pattern for each linear layer of
a 70B model makes a million."""
DIRECTIONS = 8
EMBEDDINGS = ("embed_tokens", "lm_head")
"""What PEFT saves whole where it is adapted, or was given more rows."""
_EMBEDDING = re.compile(r"(embed\w*|wte|lm_head)(\.base_layer)?\.weight\Z")


@dataclass(frozen=True)
class Told:
    """What a run of ours tells of its training: `adapter.fingerprints` from before the first step and from when the
    weights were saved, and the sha256 of each file of the base's weights.  From a host, so of any type."""

    initial: Any = None
    saved: Any = None
    base_sha256: Any = None


@dataclass(frozen=True)
class _Subject:
    """What the questions are put to: an adapter, its base where that is at hand, `told` where it is a run of ours."""

    contents: Contents
    base: BaseTensors | None
    told: Told | None

    @property
    def ours(self) -> bool:
        return self.told is not None

    @property
    def lora(self) -> LoraConfiguration:
        assert self.contents.lora is not None
        return self.contents.lora

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of each tensor's values as float32, as in `adapter.fingerprints`."""
        arrays = self.contents.arrays.items()
        return {unwrapped(key): adapter.array_fingerprint(array)["sha256"] for key, array in arrays}


Finding = tuple[str, str] | tuple[str, str, bool]
"""Status, detail and, where it is not the usual one, whether the check is required."""


def check_adapter(folder: Path, *, base: BaseTensors | None = None, told: Told | None = None) -> list[Check]:
    """Every static check of an adapter's folder, in a fixed order of ids.

    `told` says that the adapter comes from a run of this project, which always leaves fingerprints and
    `classifier.json`.  Never raises for what is in the folder.
    """
    found: dict[str, Finding] = {}
    try:
        contents, first = adapter_contents.read(folder, tasks=("SEQ_CLS",) if told else ())
        found |= first
        tensors = len(contents.arrays) + len(base.shapes if base else ())
        names = contents.lora.names if contents.lora else 0
        if tensors * names > MOST_COMPARED:
            detail = f"{names:,} names and patterns, to be compared with {tensors:,} tensors"
            raise adapter_contents.Unreadable("config", detail, first)
        named = base.named_like(contents.pairs) if base else None
        subject = _Subject(contents, named, told)
        if contents.lora:
            found |= {name: _answer(question, subject) for name, question in QUESTIONS.items()}
        else:
            found |= {name: _answer(QUESTIONS[name], subject) for name in OF_ANY_KIND}
    except adapter_contents.Unreadable as error:
        found |= error.found
    missing = "the checks before it failed" if _failed(found) else "no LoRA as it is known here"
    return [_check(name, found.get(name, ("not_checked", missing))) for name in explanations.STATIC]


def _answer(question: Callable[[_Subject], Finding], subject: _Subject) -> Finding:
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are one question's finding, and no other's
            return question(subject)
    except AdapterRejected as error:  # a pattern
        return "fail", error.message


def _failed(found: Mapping[str, Finding]) -> bool:
    return any(finding[0] == "fail" for finding in found.values())


# --- questions
# ----------------------------------------------------------------------------------------------------


def _alpha(subject: _Subject) -> Finding:
    document = subject.lora.document
    alpha = document.get("lora_alpha")
    for value in (alpha, *(document.get("alpha_pattern") or {}).values()):
        if type(value) not in (int, float) or not 0 < value < math.inf:
            return "fail", f"lora_alpha {word(value)}"
    return "pass", f"lora_alpha {alpha:g}"


def _prefixes(subject: _Subject) -> Finding:
    arrays = subject.contents.arrays
    wrapped = [name for name in arrays if unwrapped(name) != name]
    if wrapped:
        return "fail", f"{len(wrapped)} of {len(arrays)} keys, first {word(wrapped[0])}"
    return "pass", "no wrapper's prefix"


def _keys(subject: _Subject) -> Finding:
    lora, contents = subject.lora, subject.contents
    odd = [key for key in contents.others if not _is_written_by_peft(key, lora)]
    odd += [name for name in contents.arrays if not unwrapped(name).startswith(ROOT) and name not in odd]
    switches = {"lora_B.bias": "lora_bias", "lora_magnitude_vector": "use_dora"}
    for module, pair in contents.pairs.items():
        odd += [f"{module}.{part}" for part, key in switches.items() if part in pair.parts and not lora.is_on(key)]
    if odd:
        return "fail", f"{len(odd)} keys that PEFT does not write, first {word(odd[0])}"
    return "pass", f"{len(contents.arrays)} keys, all of PEFT's form"


def _is_written_by_peft(key: str, lora: LoraConfiguration) -> bool:
    """Whether a tensor that is no LoRA matrix has a place in a file of this configuration."""
    module = key.removesuffix(".weight").removesuffix(".bias")
    return (
        adapter.is_saved(key, lora.saved_whole)
        or lora.saves_whole(module)
        or (key.endswith(".bias") and lora.document.get("bias", "none") != "none")
        or (lora.is_on("trainable_token_indices") and "trainable_tokens" in key)
        or module.removesuffix(".base_layer").split(".")[-1] in EMBEDDINGS
    )


def _pairs(subject: _Subject) -> Finding:
    lora, pairs = subject.lora, subject.contents.pairs
    if not pairs:
        return "fail", "no LoRA matrices in the file"
    for module, pair in pairs.items():
        if pair.a is None or pair.b is None:
            return "fail", f"{word(module)} has no lora_{'A' if pair.a is None else 'B'}"
        if pair.a.ndim != 2 or pair.b.ndim != 2:
            return "fail", f"{word(module)}: matrices are needed, not {pair.a.ndim} and {pair.b.ndim} dimensions"
        if not pair.fits:
            return "fail", f"{word(module)}: ranks {len(pair.a)} and {pair.b.shape[1]}"
        if (rank := lora.rank_of(module)) != len(pair.a):
            return "fail", f"{word(module)}: rank {len(pair.a)}, the configuration says {rank}"
        if lora.is_on("use_dora"):
            magnitude = pair.parts.get("lora_magnitude_vector")
            if magnitude is None or magnitude.size not in (len(pair.b), pair.a.shape[1]):
                return "fail", f"{word(module)}: no lora_magnitude_vector of its size, which DoRA needs"
            if not (magnitude > 0).all() and np.isfinite(magnitude).all():
                return "fail", f"{word(module)}: a lora_magnitude_vector that is not above zero"
    ranks = sorted({len(pair.a) for pair in pairs.values()})
    return "pass", f"{len(pairs)} pairs of rank {' to '.join(map(str, [*ranks[:1], *ranks[1:][-1:]]))}"


def _modules(subject: _Subject) -> Finding:
    """Both directions: every module that the configuration targets is in the file, and no other."""
    present = set(subject.contents.pairs)
    if subject.base is None:
        return _modules_without_base(subject.lora, present)
    expected = set(_targeted(subject.lora, subject.base, present))
    missing, extra = sorted(expected - present), sorted(present - expected)
    if missing:
        return "fail", f"{len(missing)} of {len(expected)} targeted modules are missing, first {word(missing[0])}"
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {word(extra[0])}"
    return "pass", f"exactly the {len(expected)} modules that the configuration targets"


def _targeted(lora: LoraConfiguration, base: BaseTensors, present: set[str]) -> Iterator[str]:
    """The modules of the base that get LoRA."""
    # A language model's own head and other parts that a classifier lacks stand beside the body, not in it.
    roots = {name.split(".")[0] for name in present}
    for name, shape in base.shapes.items():
        last = name.split(".")[-1]
        beside = name.split(".")[0] not in roots and not (lora.task == "CAUSAL_LM" and last in lora.listed)
        # RoBERTa's file has a pooler that its classifier does without.
        if beside or len(shape) < 2 or (".pooler." in name and name not in present):
            continue
        if lora.selects_all_linear and (len(shape) != 2 or not _is_linear(last)):
            continue
        if lora.targets(name):
            yield name


def _is_linear(last: str) -> bool:
    """Whether a matrix of a base is a linear layer that all-linear takes in, by the last part of its module's name."""
    return "embed" not in last and last not in ("lm_head", "wte", "wpe", "score", "classifier")


def _modules_without_base(lora: LoraConfiguration, present: set[str]) -> Finding:
    """What the configuration alone tells: enough to fail, never to pass."""
    extra = sorted(name for name in present if not lora.targets(name))
    unused = [t for t in lora.listed if not any(name == t or name.endswith(f".{t}") for name in present)]
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {word(extra[0])}"
    if unused and not lora.document.get("exclude_modules"):
        return "fail", f"{len(unused)} targets have no module in the file, first {word(unused[0])}"
    return "not_checked", "no base to count the modules of", False


def _shapes(subject: _Subject) -> Finding:
    if subject.base is None:
        return "not_checked", "no base to compare with", False
    for module, pair in subject.contents.pairs.items():
        shape = subject.base.shapes.get(module)
        if shape is None:
            return "fail", f"{word(module)} is not in the base"
        if not pair.fits:
            continue  # pairs says so
        adapted = (len(pair.b), pair.a.shape[1])
        if subject.lora.is_on("fan_in_fan_out") or pair.is_embedding:
            adapted = adapted[::-1]
        if adapted != shape:
            return "fail", f"{word(module)}: {adapted} for a weight of {shape}"
    return "pass", f"{len(subject.contents.pairs)} modules fit the base's weights"


def _head(subject: _Subject) -> Finding:
    lora, weight = subject.lora, subject.contents.head
    if absent := _absent(subject):
        return "fail", f"{word(absent[0])} was trained whole and is not in the file"
    if not lora.heads:
        return "not_checked", f"a model for {lora.task or 'no task'} has no classification head", False
    if weight is None:
        return "fail", f"none of {', '.join(lora.heads)} is in the file"
    if weight.ndim != 2 or not weight.any():
        return "fail", f"shape {weight.shape}" if weight.ndim != 2 else "all zero"
    if subject.base is not None and not any(shape[:1] == weight.shape[1:] for shape in subject.base.shapes.values()):
        return "fail", f"shape {weight.shape}, and no layer of the base has {weight.shape[1]} outputs"
    return "pass", f"shape {weight.shape}"


def _absent(subject: _Subject) -> list[str]:
    """Modules that are trained whole and have no tensor in the file: by the configuration, and of the base's."""
    lora, others = subject.lora, subject.contents.others
    named = [name for name in lora.saved_whole if name not in ("score", "classifier", *lora.heads)]
    absent = [name for name in named if not any(lora.is_in(_module(key), name) for key in others)]
    roots = {name.split(".")[0] for name in subject.contents.pairs}
    modules = subject.base.shapes if subject.base else ()
    of_base = [module for module in modules if any(lora.is_in(module, name) for name in named)]
    return absent + [name for name in of_base if name.split(".")[0] in roots and f"{name}.weight" not in others]


def _module(key: str) -> str:
    return key.rpartition(".")[0]


def _classes(subject: _Subject) -> Finding:
    weight, classes = subject.contents.head, subject.contents.classes
    if classes is None or weight is None:
        return "not_checked", f"no {adapter.CLASSIFIER}, or no head", subject.ours
    if weight.shape[0] != classes:
        return "fail", f"{weight.shape[0]} rows for {classes} labels"
    return "pass", f"{classes} labels"


def _finite(subject: _Subject) -> Finding:
    arrays = subject.contents.arrays
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        count = int((~np.isfinite(arrays[broken[0]])).sum())
        return "fail", f"{len(broken)} tensors, first {word(broken[0])} with {count} values"
    return "pass", f"{sum(array.size for array in arrays.values()):,} numbers"


def _lora_a(subject: _Subject) -> Finding:
    # An embedding's A starts at zero, and its B at random.
    return _not_zero({m: pair.b if pair.is_embedding else pair.a for m, pair in subject.contents.pairs.items()})


def _lora_b(subject: _Subject) -> Finding:
    return _not_zero({m: pair.a if pair.is_embedding else pair.b for m, pair in subject.contents.pairs.items()})


def _not_zero(matrices: dict[str, Any]) -> Finding:
    there = {module: matrix for module, matrix in matrices.items() if matrix is not None}
    zero = [module for module, matrix in there.items() if not matrix.any()]
    if zero or not there:
        first = word(zero[0]) if zero else "none there"
        return "fail", f"{len(zero)} of {len(there)} are all zero, first {first}"
    return "pass", f"none of {len(there)} is all zero"


def _shards(subject: _Subject) -> Finding:
    for module, pair in subject.contents.pairs.items():
        for part, share in (("lora_A", 0.0), ("lora_B", SHARD_SHARE)):
            matrix = pair.parts.get(part)
            if matrix is None or matrix.ndim != 2 or not matrix.any():
                continue  # another check's finding
            empty = _rows_at_the_ends(matrix) if part == "lora_B" else int((~matrix.any(axis=1)).sum())
            if empty and empty >= share * len(matrix):
                return "fail", f"{word(module)}: {empty} of {len(matrix)} rows of {part} are all zero"
            if part == "lora_B" and (unused := _zero_columns(matrix)):
                return "fail", f"{word(module)}: {unused} of {matrix.shape[1]} columns of lora_B are all zero"
    return "pass", "no block of zero rows"


def _zero_columns(matrix: Any) -> int:
    """Parts of the rank that were not trained."""
    suspects = np.flatnonzero(matrix[0] == 0)  # next to none: much quicker than to look at all
    return int((~matrix[:, suspects].any(axis=0)).sum())


def _rows_at_the_ends(matrix: Any) -> int:
    """Zero rows before the first other one and after the last.  A shard is one block; rows that are strewn in belong to
    units that a ReLU never lets through, which OPT has in thousands."""
    others = np.flatnonzero(matrix.any(axis=1))
    return len(matrix) - int(others[-1] - others[0] + 1)


def _zero_tail(subject: _Subject) -> Finding:
    """Blocks that a file system never wrote read as zeros: at the end, or page by page."""
    header = subject.contents.header
    data = np.memmap(header.path, np.uint8, "r")
    may_be_zero = np.zeros(len(data) // PAGE_BYTES, dtype=bool)
    last = header.data_start
    for tensor in header.tensors.values():
        end = tensor.start
        for start, end in _of_unseen_tokens(tensor, subject.contents.arrays[tensor.name]):
            first, after = header.data_start + start, header.data_start + end
            may_be_zero[first // PAGE_BYTES : after // PAGE_BYTES + 1] = True
        if end < tensor.end:
            last = max(last, header.data_start + tensor.end)
    tail = data[max(header.data_start, last - TAIL_BYTES) : last]
    if len(tail) and not tail.any():
        return "fail", f"the last {len(tail)} bytes are all zero"
    pages = data[: len(data) // PAGE_BYTES * PAGE_BYTES].view(np.uint64).reshape(-1, PAGE_BYTES // 8)
    blank = int((~pages.any(axis=1) & ~may_be_zero).sum())
    if blank:
        return "fail", f"{blank} of {len(pages)} pages of {PAGE_BYTES} bytes are all zero"
    return "pass", "no blank page"


def _of_unseen_tokens(tensor: Tensor, array: Any) -> Iterator[tuple[int, int]]:
    """The bytes, from which to which, that may well be zero: LoRA has a column for each token, an embedding a row, and
    those of padding and of tokens that never came are."""
    if tensor.name.endswith("lora_embedding_A"):
        yield tensor.start, tensor.end
    elif array.ndim == 2 and _EMBEDDING.search(tensor.name):
        row_bytes = (tensor.end - tensor.start) // len(array)
        for row in np.flatnonzero(~array.any(axis=1)).tolist():
            yield tensor.start + row * row_bytes, tensor.start + (row + 1) * row_bytes


def _update_size(subject: _Subject) -> Finding:
    """What is added to each weight, against the weight: about ‖s·B·A‖ / ‖W‖ (Frobenius)."""
    if subject.base is None:
        return "not_checked", "no base to measure it by", False
    if not subject.lora.starts_plainly:
        return "not_checked", "by its init_lora_weights the update is not nothing at first", False
    shares: dict[str, float] = {}
    for module, pair in subject.contents.pairs.items():
        rms = subject.base.rms(module) if pair.fits else None
        if rms:
            shares[module] = abs(subject.lora.scaling_of(module)) * _update_rms(pair) / rms
    if not shares:
        return "not_checked", "the base's numbers are not at hand", False
    largest, smallest = max(shares, key=lambda m: shares[m]), min(shares, key=lambda m: shares[m])
    detail = f"{shares[smallest]:.2g} to {shares[largest]:.2g} of the weights they are added to"
    if not shares[largest] <= MOST_UPDATE:
        return "fail", f"{detail}; at most {MOST_UPDATE:g}, and {word(largest)} has the largest"
    if shares[smallest] < LEAST_UPDATE:
        return "fail", f"{detail}; at least {LEAST_UPDATE:g} makes a difference, and {word(smallest)} has the smallest"
    return "pass", detail


def _update_rms(pair: Pair) -> float:
    """Root mean square of B·A, (out, r) times (r, in), from what it does to some random directions.

    The mean over standard normal z of ‖B·A·z‖² is ‖B·A‖² (Hutchinson 1990); it is a small part of the work of A·Aᵀ.
    """
    directions = np.random.default_rng(0).standard_normal((pair.a.shape[1], DIRECTIONS), dtype=np.float32)
    product = np.asarray(pair.b, dtype=np.float32) @ (np.asarray(pair.a, dtype=np.float32) @ directions)
    return float(np.sqrt(np.mean(np.square(product, dtype=np.float64)) / pair.a.shape[1]))


def _moved(subject: _Subject) -> Finding:
    """Since step 0: every lora_B and the head; of lora_A, which has no gradient at first, all or none."""
    initial = subject.told.initial if subject.told else None
    if not isinstance(initial, Mapping):
        return "not_checked", "no fingerprint from before the first step", subject.ours
    now = subject.digests
    if now.keys() != initial.keys():
        strangers = sorted(now.keys() ^ initial.keys())
        return "fail", f"{len(strangers)} tensors are not in both the file and step 0, first {word(strangers[0])}"
    if unknown := sorted(name for name in now if not isinstance(_digest(initial[name]), str)):
        return "fail", f"{len(unknown)} tensors have no fingerprint from step 0, first {word(unknown[0])}"
    still = {name for name in now if now[name] == _digest(initial[name])}
    all_a = {name for name in now if name.endswith(".lora_A.weight")}
    stuck = sorted(still - all_a)
    if stuck:
        return "fail", f"{len(stuck)} of {len(now)} tensors did not move, first {word(stuck[0])}"
    if still and still != all_a:
        return "fail", f"{len(still)} of {len(all_a)} lora_A did not move, first {word(sorted(still)[0])}"
    note = "; no lora_A did, as after a single step" if still else ""
    return "pass", f"{len(now) - len(still)} of {len(now)} tensors moved{note}"


def _saved(subject: _Subject) -> Finding:
    """Bit for bit what training held when it saved: any flipped bit, and any two tensors that changed places."""
    saved = subject.told.saved if subject.told else None
    if not isinstance(saved, Mapping):
        return "not_checked", "no fingerprint from when the weights were saved", False
    now = subject.digests
    others = sorted(name for name in now.keys() | saved.keys() if now.get(name) != _digest(saved.get(name)))
    if others:
        return "fail", f"{len(others)} of {len(now)} tensors are others than training held, first {word(others[0])}"
    return "pass", f"{len(now)} tensors, each bit as training held it"


def _digest(fingerprint: Any) -> Any:
    return fingerprint.get("sha256") if isinstance(fingerprint, Mapping) else None


def _base(subject: _Subject) -> Finding:
    """Whether the base at hand has the very weights that were trained on."""
    told = subject.told.base_sha256 if subject.told else None
    if subject.base is None:
        return "not_checked", "no base to compare with", False
    if not isinstance(told, Mapping) or not told:
        return "not_checked", "nothing tells the hashes of the base it was trained on", False
    here = subject.base.weights_sha256()
    if sorted(here.values()) != sorted(map(str, told.values())):
        others = sorted(name for name in here if here[name] not in told.values()) or sorted(map(str, told))
        return "fail", f"{len(others)} of its files are others than in training, first {word(others[0])}"
    return "pass", f"{len(here)} file{'s' * (len(here) != 1)} of weights, sha256 of each"


QUESTIONS: dict[str, Callable[[_Subject], Finding]] = {
    "alpha": _alpha, "prefixes": _prefixes, "keys": _keys, "pairs": _pairs, "modules": _modules,
    "shapes": _shapes, "head": _head, "classes": _classes, "finite": _finite, "lora_a": _lora_a,
    "lora_b": _lora_b, "shards": _shards, "zero_tail": _zero_tail, "update_size": _update_size, "moved": _moved,
    "saved": _saved, "base": _base,
}  # fmt: skip
OF_ANY_KIND = ("prefixes", "finite", "zero_tail")
"""What can be asked of an adapter that is no LoRA."""


def _check(name: str, finding: Finding) -> Check:
    status, detail, *rest = finding
    meaning, todo = ("", "") if status == "pass" else explanations.STATIC[name]
    if status == "not_checked":
        meaning, todo = "nothing is known about this", "name the base with --base" if "no base" in detail else ""
    return Check(name, status, detail, meaning, todo, required=rest[0] if rest else True)  # type: ignore[arg-type]
