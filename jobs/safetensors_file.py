"""A safetensors file as numbers: its header checked against its length, its tensors as numpy arrays.

Needs neither torch nor the safetensors package: the light CLI process reads adapters with it, bf16 included,
and it says in words what is wrong with a file where a library only refuses it.  Nothing in a file is ever
executed.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs.errors import AdapterRejected

MAX_HEADER_BYTES = 16 * 2**20
"""An adapter of 20,000 tensors has a header of 3 MB; a larger one is meant to exhaust whoever parses it."""

BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip
FLOATS = ("F32", "F16", "BF16")
"""The dtypes in which adapters are saved, and which can be read here."""


@dataclass(frozen=True)
class Tensor:
    """One entry of a header: bytes `start` to `end` of the data part."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def count(self) -> int:
        """How many numbers; 0 for a tensor that holds nothing."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file says it holds, and what is wrong with that: `problems`, in words."""

    path: Path
    tensors: dict[str, Tensor]
    data_start: int
    problems: tuple[str, ...]

    def require(self) -> Header:
        """Itself.  Raises AdapterRejected where the file is damaged or holds no numbers."""
        empty = [tensor.name for tensor in self.tensors.values() if not tensor.count]
        problems = [*self.problems, *(f"{name}: no numbers in it" for name in empty[:3])]
        if not self.tensors and not problems:
            problems = ["not one tensor in it"]
        if problems:
            raise AdapterRejected(f"{self.path.name}: {'; '.join(problems)}")
        return self


def read_header(path: Path) -> Header:
    """The header of `path`; whatever is wrong with it is in `problems`.  Raises OSError only."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        length = header_length(first, size)
        if isinstance(length, str):
            return Header(path, {}, 0, (length,))
        return parse_header(path, first + file.read(length), size)


def header_length(first: bytes, size: int) -> int | str:
    """Bytes of the JSON that follows the first eight of a file of `size`; in words where that can't be."""
    if len(first) < 8:
        return f"{size} bytes: too short to be a safetensors file"
    length = int(struct.unpack("<Q", first[:8])[0])
    if length > MAX_HEADER_BYTES or length > size - 8:
        where = "more than the file holds" if length > size - 8 else "no adapter needs that"
        return f"the header claims {length:,} bytes: {where}"
    return length


def parse_header(path: Path, start: bytes, size: int) -> Header:
    """The header of a file of `size` bytes from what it starts with: eight bytes, and as much JSON as these say."""
    data_start = len(start)
    try:
        document = json.loads(start[8:].decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        return Header(path, {}, data_start, (f"the header is not JSON ({type(error).__name__})",))
    if not isinstance(document, dict):
        return Header(path, {}, data_start, ("the header is not a JSON object",))
    document.pop("__metadata__", None)
    problems: list[str] = []
    tensors = {name: t for name, value in document.items() if (t := _tensor(name, value, problems))}
    if not problems:
        problems += _layout_problems(tensors, size - data_start)
    return Header(path, tensors, data_start, tuple(problems))


def read_arrays(
    header: Header, *, mapped: bool = False
) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.float16]]:
    """Every floating tensor of a sound file by name; bf16 is widened to float32, which is exact.

    With `mapped` they can't be written to, and take no memory until they are looked at (bf16 does).
    """
    data: npt.NDArray[np.uint8]
    if mapped:
        data = np.memmap(header.path, np.uint8, "r", header.data_start)
    else:
        data = np.fromfile(header.path, np.uint8, offset=header.data_start)
    return {
        name: _array(data[t.start : t.end], t.dtype, t.shape) for name, t in header.tensors.items() if t.dtype in FLOATS
    }


def read_rows(header: Header, tensor: Tensor, most: int) -> npt.NDArray[np.float32]:
    """At most so many rows of one floating tensor of a sound file, evenly spread; no more is read from disk."""
    data = np.memmap(header.path, np.uint8, "r", header.data_start + tensor.start, (tensor.end - tensor.start,))
    count = tensor.shape[0]
    rows = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    chosen = np.ascontiguousarray(data.reshape(count, -1)[rows])
    return np.asarray(_array(chosen.reshape(-1), tensor.dtype, (len(rows), *tensor.shape[1:])), dtype=np.float32)


def write(path: Path, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Write float32 arrays as one safetensors file, whole or not at all."""
    from jobs import atomic

    document, parts, end = {}, [], 0
    for name in sorted(arrays):
        part = np.ascontiguousarray(arrays[name], dtype="<f4")
        start, end = end, end + part.nbytes
        document[name] = {"dtype": "F32", "shape": list(part.shape), "data_offsets": [start, end]}
        parts.append(part.tobytes())
    text = json.dumps(document).encode("utf-8")
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    atomic.write_bytes(path, b"".join([struct.pack("<Q", len(text)), text, *parts]))


def _array(raw: npt.NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> Any:
    if raw.ctypes.data % 4:  # a view needs alignment, which the format does not promise
        raw = raw.copy()
    if dtype == "BF16":
        return np.left_shift(raw.view("<u2"), 16, dtype=np.uint32).view(np.float32).reshape(shape)
    return raw.view("<f4" if dtype == "F32" else "<f2").reshape(shape)


def _tensor(name: str, value: Any, problems: list[str]) -> Tensor | None:
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]}:
            if dtype not in BITS:
                problems.append(f"{name[:200]}: unknown dtype {dtype[:20]!r}")
            elif not all(type(n) is int and 0 <= n < 2**40 for n in shape) or len(shape) > 8:
                problems.append(f"{name[:200]}: impossible shape")
            else:
                return Tensor(name, dtype, tuple(shape), start, end)
        case _:
            problems.append(f"{name[:200]}: the header entry is malformed")
    return None


def _layout_problems(tensors: Mapping[str, Tensor], data_bytes: int) -> list[str]:
    """Where the tensors do not lie one after the other from the first byte of the data to the last."""
    at = 0
    for tensor in sorted(tensors.values(), key=lambda t: (t.start, t.end)):
        if tensor.start != at:
            return [f"{tensor.name[:200]}: starts at byte {tensor.start:,}, the tensor before ends at {at:,}"]
        if (tensor.end - tensor.start) * 8 != tensor.count * BITS[tensor.dtype]:
            return [f"{tensor.name[:200]}: {tensor.end - tensor.start:,} bytes do not fit its shape"]
        at = tensor.end
    if data_bytes < at:
        return [f"truncated: {at - data_bytes:,} bytes of {at:,} are missing"]
    return [f"{data_bytes - at:,} bytes too many at its end"] if data_bytes > at else []


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document
