"""Static checks: what the adapter's file and configuration tell, with the base's shapes where they are at hand.

numpy and json only, so that they run everywhere and in under a second.  What can't be known is `not_checked`.
Names and numbers in a file are anybody's word: nothing is opened but safetensors and JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from jobs import adapter, adapter_contents, explanations
from jobs.adapter_contents import ROOT, Contents, Pair, is_inside_peft, unwrapped, word
from jobs.base_tensors import PACKED, TIED_OUTPUTS, BaseTensors
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
largest update of the healthy ones in docs/trust.md is 0.43 of its weight."""
MOST_COMPARED = 5_000_000
"""Names and patterns of a configuration times tensors: some seconds.  An entry of rank_pattern for each linear layer of
a 70B model makes a million."""
DIRECTIONS = 8
BLOCK_LINES, BLOCK_NUMBERS = 16, 64
"""So much is not the same in two places by chance, even after one step, when all of lora_B are a learning rate or its
negative."""
EMBEDDINGS = (
    "embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "shared", "lm_head", "embed_out", "decoder",
)  # fmt: skip
"""Input and output embeddings: PEFT saves them whole where they are adapted, or were given more rows."""
_EXPERT = re.compile(r"\.experts\.\d+\.")


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
    def reached(self) -> dict[str, Pair]:
        """The pairs without those that training had no use for: experts whom no text was sent to, and a pooler that
        only a classifier asks.  Their update is nothing, as at first."""
        return {m: p for m, p in self.contents.pairs.items() if not self._may_idle(m) or p.b is None or p.b.any()}

    def _may_idle(self, module: str) -> bool:
        task = self.contents.lora.task if self.contents.lora else None
        return bool(_EXPERT.search(module)) or (task != "SEQ_CLS" and ".pooler." in f".{module}")

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
        or _is_embedding(module)
    )


def _is_embedding(module: str) -> bool:
    last = re.sub(r"(\.(base_layer|modules_to_save|original_module|default))+$", "", module).split(".")[-1]
    return last in EMBEDDINGS


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
        if lora.is_on("lora_bias") and "lora_B.bias" not in pair.parts and not pair.is_embedding:
            return "fail", f"{word(module)} has no lora_B.bias"
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
    missing, extra = sorted(expected - present), sorted(subject.reached.keys() - expected)
    if missing:
        return "fail", f"{len(missing)} of {len(expected)} targeted modules are missing, first {word(missing[0])}"
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {word(extra[0])}"
    return "pass", f"exactly the {len(expected)} modules that the configuration targets"


def _targeted(lora: LoraConfiguration, base: BaseTensors, present: set[str]) -> Iterator[str]:
    """The modules of the base that get LoRA."""
    # A language model's own head and other parts that a classifier lacks stand beside the body, not in it.
    roots = {name.split(".")[0] for name in present}
    has_experts = any(map(_EXPERT.search, present))
    for name, shape in base.shapes.items():
        last = name.split(".")[-1]
        beside = name.split(".")[0] not in roots and not (str(lora.task).endswith("_LM") and last in lora.listed)
        # RoBERTa's file has a pooler that its classifier does without; transformers 5 makes one tensor of all experts.
        optional = ".pooler." in f".{name}" or (last == "gate" and lora.selects_all_linear)
        if beside or len(shape) < 2 or (optional and name not in present) or (_EXPERT.search(name) and not has_experts):
            continue
        if lora.selects_all_linear and (len(shape) != 2 or not _is_linear(last)):
            continue
        if lora.targets(name):
            yield name


def _is_linear(last: str) -> bool:
    """Whether a matrix of a base is a linear layer that all-linear takes in, by the last part of its module's name."""
    no_layers = (*EMBEDDINGS, "wpe", "relative_attention_bias", "score", "classifier")
    return last not in no_layers and not re.search(r"^embed_|embed(ding)?s?$", last)


def _modules_without_base(lora: LoraConfiguration, present: set[str]) -> Finding:
    """What the configuration alone tells: enough to fail, never to pass."""
    extra = sorted(name for name in present if not lora.targets(name))
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {word(extra[0])}"
    return "not_checked", "no base to count the modules of", False


def _shapes(subject: _Subject) -> Finding:
    if subject.base is None:
        return "not_checked", "no base to compare with", False
    ways, packed = set(), 0
    for module, pair in subject.reached.items():
        shape = subject.base.shapes.get(module)
        if shape is None:
            return "fail", f"{word(module)} is not in the base"
        packed += shape == PACKED
        if not pair.fits or shape == PACKED:
            continue  # pairs says so, or nobody knows
        adapted = (len(pair.b), pair.a.shape[1])
        plain, turned = _is_shape_of(module, adapted, shape), _is_shape_of(module, adapted[::-1], shape)
        if not turned and (not plain or pair.is_embedding):
            return "fail", f"{word(module)}: {adapted} for a weight of {shape}"
        ways |= {plain} if plain != turned and not pair.is_embedding else set()
    # Where a base has weights of both ways (GPT-2's head is a Linear), the configuration tells that of the last one.
    if ways == {subject.lora.is_on("fan_in_fan_out")}:
        return "fail", "the base's weights lie the other way round than fan_in_fan_out says"
    if odd := _of_other_shapes(subject.contents.others, subject.base):
        return "fail", odd
    if packed:
        return "not_checked", f"{packed} of {len(subject.reached)} are packed by a quantiser; the others fit", False
    return "pass", f"{len(subject.reached)} modules fit the base's weights"


def _of_other_shapes(others: Mapping[str, Any], base: BaseTensors) -> str:
    """Which module that is saved whole has another shape than the base's."""
    for key, array in others.items():
        module = key.removesuffix(".weight").removesuffix(".base_layer")
        shape = base.shapes.get(module, PACKED) if key.endswith(".weight") else PACKED
        is_head = module.split(".")[0] in adapter.HEADS  # the base's own may be for other labels
        if shape != PACKED and not is_head and not _is_shape_of(module, array.shape, shape):
            return f"{word(module)}: {array.shape} for a weight of {shape}"
    return ""


def _is_shape_of(module: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether it is the weight's shape; an embedding may have been given other tokens, but not less than half."""
    return shape == weight or (_is_embedding(module) and shape[1:] == weight[1:] and 2 * shape[0] > weight[0])


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
    if len(weight) > 1 and (weight == weight[0]).all():
        return "fail", "each class has the same row"
    if subject.base is not None and not any(shape[:1] == weight.shape[1:] for shape in subject.base.shapes.values()):
        return "fail", f"shape {weight.shape}, and no layer of the base has {weight.shape[1]} outputs"
    return "pass", f"shape {weight.shape}"


def _absent(subject: _Subject) -> list[str]:
    """Modules that are trained whole and have no tensor in the file: by the configuration, and of the base's."""
    lora, others = subject.lora, [key for key in subject.contents.others if not is_inside_peft(key)]
    # PEFT finds these by how names end, so that no pattern is ever found; a classifier has no output embedding.
    none = ("score", "classifier", *lora.heads, *(TIED_OUTPUTS if lora.heads else ()))
    named = [name for name in lora.saved_whole if name not in none and re.fullmatch(r"[\w.]+", name)]
    absent = [name for name in named if not any(adapter.is_saved(key, (name,)) for key in others)]
    roots = {name.split(".")[0] for name in subject.contents.pairs}
    modules = subject.base.shapes if subject.base else ()
    of_base = [module for module in modules if adapter.is_saved(f"{module}.", named)]
    if lora.is_on("trainable_token_indices") and not any("trainable_tokens" in key for key in others):
        absent.append("trainable_tokens")
    there = [name for name in of_base if name.split(".")[0] in roots]
    absent += [name for name in there if f"{name}.weight" not in others]
    biased = subject.base.biased if subject.base else frozenset()
    if lora.document.get("bias", "none") != "none":
        absent += [f"{m}.bias" for m in biased & subject.contents.pairs.keys() if f"{m}.base_layer.bias" not in others]
    return absent + [f"{name}.bias" for name in there if name in biased and f"{name}.bias" not in others]


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
    pairs = subject.reached or subject.contents.pairs
    return _not_zero({m: pair.a if pair.is_embedding else pair.b for m, pair in pairs.items()})


def _not_zero(matrices: dict[str, Any]) -> Finding:
    there = {module: matrix for module, matrix in matrices.items() if matrix is not None}
    zero = [module for module, matrix in there.items() if not matrix.any()]
    if zero or not there:
        first = word(zero[0]) if zero else "none there"
        return "fail", f"{len(zero)} of {len(there)} are all zero, first {first}"
    return "pass", f"none of {len(there)} is all zero"


def _shards(subject: _Subject) -> Finding:
    for name, matrix in _matrices(subject.contents):
        if empty := next((text for axis in (0, 1) if (text := _shard(name, matrix, axis))), ""):
            return "fail", f"{word(name)}: {empty} are all zero"
    return "pass", "no block of zero rows or columns"


def _matrices(contents: Contents) -> Iterator[tuple[str, Any]]:
    """Every matrix of which no part is zero where it was trained, with the module and LoRA's name for it."""
    for module, pair in contents.pairs.items():
        yield from ((f"{module}.{part}", pair.parts.get(part)) for part in ("lora_A", "lora_B"))
    yield from ((key, array) for key, array in contents.others.items() if key.endswith(".weight"))


def _shard(name: str, matrix: Any, axis: int) -> str:
    """How many rows (axis 0) or columns are zero where that is a shard; empty where it is none, or another's finding.

    A shard is one block; rows that are strewn in belong to units that a ReLU never lets through, which OPT has in
    thousands.  Of lora_A's rows and lora_B's columns, the parts of the rank, not one is zero.
    """
    if matrix is None or matrix.ndim != 2:
        return ""
    lines = matrix if axis == 0 else matrix.T
    count, eighth = len(lines), -(-len(lines) // 8)
    if (name.endswith("lora_A") and axis == 0) or (name.endswith("lora_B") and axis == 1):
        suspects = lines[lines[:, 0] == 0]  # next to none: much quicker than to look at all
        empty, least = int((~suspects.any(axis=1)).sum()), 1.0
    elif lines[:eighth, 0].any() and lines[-eighth:, 0].any():
        return ""  # a quarter at both ends is at least an eighth at one
    else:
        full = np.flatnonzero(lines.any(axis=1))
        empty, least = count - int(full[-1] - full[0] + 1) if len(full) else count, SHARD_SHARE * count
    return f"{empty} of {count} {'rows' if axis == 0 else 'columns'}" if least <= empty < count else ""


def _copies(subject: _Subject) -> Finding:
    """Numbers that stand in two places: what every process held of its own was taken for the whole, or layers were
    saved under others' names."""
    known: dict[Any, str] = {}
    for module, pair in subject.contents.pairs.items():
        if not pair.fits or not pair.b.any():
            continue  # other checks' findings
        for part, lines in (("lora_A", pair.a.T), ("lora_B", pair.b)):
            if _is_doubled(lines):
                return "fail", f"{word(module)}: the second half of {part} is its first half"
        start = (pair.a.shape, pair.b.shape, pair.a[:, 0].tobytes(), pair.b[0].tobytes())
        other = subject.contents.pairs[first := known.setdefault(start, module)]
        if first != module and _are_equal(pair.a, other.a) and _are_equal(pair.b, other.b):
            return "fail", f"{word(module)} has the very numbers of {word(first)}"
    return "pass", "no block of numbers stands twice"


def _is_doubled(lines: Any) -> bool:
    half, rest = divmod(len(lines), 2)
    large = half >= BLOCK_LINES and half * lines.shape[1] >= BLOCK_NUMBERS
    return large and not rest and _are_equal(lines[:half], lines[half:])


def _are_equal(one: Any, other: Any) -> bool:
    return bool((one[0] == other[0]).all() and (one == other).all())


def _zero_tail(subject: _Subject) -> Finding:
    """Blocks that a file system never wrote read as zeros: at the end, or page by page."""
    header = subject.contents.header
    data = np.memmap(header.path, np.uint8, "r")
    may_be_zero = np.zeros(len(data) // PAGE_BYTES, dtype=bool)
    last = header.data_start
    for tensor in header.tensors.values():
        end = tensor.start
        for start, end in _may_be_zero(subject, tensor):
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


def _may_be_zero(subject: _Subject, tensor: Tensor) -> Iterator[tuple[int, int]]:
    """The bytes of a tensor, from which to which, that training may well leave zero.

    Those of padding and of tokens that never came, for which LoRA has a column and an embedding a row, and the lora_B
    of experts that no text reached.
    """
    array, module = subject.contents.arrays[tensor.name], _module(tensor.name)
    below = unwrapped(module).removeprefix(ROOT)
    unreached = below.endswith(".lora_B") and below.removesuffix(".lora_B") not in subject.reached
    if unreached or tensor.name.endswith(("lora_embedding_A", "_tokens_delta")):
        yield tensor.start, tensor.end
    elif array.ndim == 2 and _is_embedding(module):
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
    for module, pair in subject.reached.items():
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
    shrunk = np.asarray(pair.a, dtype=np.float32) @ _directions(pair.a.shape[1])
    product = np.asarray(pair.b, dtype=np.float32) @ shrunk
    return float(np.sqrt(np.mean(np.square(product, dtype=np.float64)) / pair.a.shape[1]))


@lru_cache(maxsize=4)  # layers have few widths, and drawing them takes longer than using them
def _directions(width: int) -> Any:
    return np.random.default_rng(0).standard_normal((width, DIRECTIONS), dtype=np.float32)


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
    "lora_b": _lora_b, "shards": _shards, "copies": _copies, "zero_tail": _zero_tail,
    "update_size": _update_size, "moved": _moved, "saved": _saved, "base": _base,
}  # fmt: skip
OF_ANY_KIND = ("prefixes", "finite", "zero_tail")
"""What can be asked of an adapter that is no LoRA."""


def _check(name: str, finding: Finding) -> Check:
    status, detail, *rest = finding
    meaning, todo = ("", "") if status == "pass" else explanations.STATIC[name]
    if status == "not_checked":
        meaning, todo = "nothing is known about this", "name the base with --base" if "no base" in detail else ""
    return Check(name, status, detail, meaning, todo, required=rest[0] if rest else True)  # type: ignore[arg-type]
