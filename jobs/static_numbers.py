"""Static questions about numbers: are they finite, whole, trained, of a sane size, and those that training held?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from jobs.adapter_contents import ROOT, Contents, Pair, unwrapped, word
from jobs.safetensors_file import Tensor
from jobs.static_subject import Finding, Subject, is_embedding, module_of

PAGE_BYTES = 4096
TAIL_BYTES = 64
"""A run of 16 float32 zeros at the end is nothing that training leaves."""
SHARD_SHARE = 0.25
"""World sizes from 2 up leave at least half of the rows zero; a trained lora_B has next to none."""
LEAST_UPDATE, MOST_UPDATE = 1e-9, 10.0
"""Of the weight that it is added to, by root mean square.  Below 6e-8 float32 rounds the sum to the weight itself; the
largest update of the healthy ones in docs/trust.md is 0.43 of its weight."""
DIRECTIONS = 8
BLOCK_LINES, BLOCK_NUMBERS = 16, 64
"""So much is not the same in two places by chance, even after one step, when all of lora_B are a learning rate or its
negative."""


def finite(subject: Subject) -> Finding:
    arrays = subject.contents.arrays
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        count = int((~np.isfinite(arrays[broken[0]])).sum())
        return "fail", f"{len(broken)} tensors, first {word(broken[0])} with {count} values"
    return "pass", f"{sum(array.size for array in arrays.values()):,} numbers"


def lora_a(subject: Subject) -> Finding:
    # An embedding's A starts at zero, and its B at random.
    return _not_zero({m: pair.b if pair.is_embedding else pair.a for m, pair in subject.contents.pairs.items()})


def lora_b(subject: Subject) -> Finding:
    pairs = subject.reached or subject.contents.pairs
    return _not_zero({m: pair.a if pair.is_embedding else pair.b for m, pair in pairs.items()})


def _not_zero(matrices: dict[str, Any]) -> Finding:
    there = {module: matrix for module, matrix in matrices.items() if matrix is not None}
    zero = [module for module, matrix in there.items() if not matrix.any()]
    if zero or not there:
        first = word(zero[0]) if zero else "none there"
        return "fail", f"{len(zero)} of {len(there)} are all zero, first {first}"
    return "pass", f"none of {len(there)} is all zero"


def shards(subject: Subject) -> Finding:
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


def copies(subject: Subject) -> Finding:
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


def zero_tail(subject: Subject) -> Finding:
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


def _may_be_zero(subject: Subject, tensor: Tensor) -> Iterator[tuple[int, int]]:
    """The bytes of a tensor, from which to which, that training may well leave zero.

    Those of padding and of tokens that never came, for which LoRA has a column and an embedding a row, and the lora_B
    of experts that no text reached.
    """
    array, module = subject.contents.arrays[tensor.name], module_of(tensor.name)
    below = unwrapped(module).removeprefix(ROOT)
    unreached = below.endswith(".lora_B") and below.removesuffix(".lora_B") not in subject.reached
    if unreached or tensor.name.endswith(("lora_embedding_A", "_tokens_delta")):
        yield tensor.start, tensor.end
    elif array.ndim == 2 and is_embedding(module):
        row_bytes = (tensor.end - tensor.start) // len(array)
        for row in np.flatnonzero(~array.any(axis=1)).tolist():
            yield tensor.start + row * row_bytes, tensor.start + (row + 1) * row_bytes


def update_size(subject: Subject) -> Finding:
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


def moved(subject: Subject) -> Finding:
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


def saved(subject: Subject) -> Finding:
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
