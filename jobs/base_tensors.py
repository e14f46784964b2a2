"""The tensors of a base model by the modules they belong to: their shapes, and how large their numbers are.

Read from the headers of its safetensors files, in a folder or, by ranged requests, on the Hub; never loaded as a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from jobs import manifest, safetensors_file
from jobs.errors import AdapterRejected

SAMPLED_ROWS = 64
"""Rows of a matrix whose mean square stands for all of them; they differ by a few percent."""
TIED_OUTPUTS = ("lm_head", "embed_out")
PACKED = (-1, -1)
"""The shape of a matrix whose numbers a quantiser packed: its sides are not in the file."""
_ENDINGS = (".weight", ".qweight", ".weight_packed")
"""What weights are called: plain or by bitsandbytes, by GPTQ and AWQ, by compressed-tensors."""
_EMBEDDING = re.compile(r"(^|\.)(embed_tokens|wte|embed_in|shared)$")
_AS_LONG = (*safetensors_file.FLOATS, "F64", "F8_E4M3", "F8_E5M2", "I8")
"""The dtypes of which each number is one of the matrix."""


@dataclass(frozen=True)
class BaseTensors:
    """Shape of the weight of each module, by its name in the model, and the files they lie in (none on the Hub).

    A quantised weight has its own shape, or PACKED.  `weights_sha256` gives the sha256 of each file of weights; it may
    have to read them all.
    """

    shapes: Mapping[str, tuple[int, ...]]
    weights_sha256: Callable[[], dict[str, str]]
    files: Mapping[str, tuple[safetensors_file.Header, str]]  # module -> its file and its tensor's name there
    biased: frozenset[str]  # the modules that have a bias

    def named_like(self, modules: Collection[str]) -> BaseTensors:
        """The same under the names that an adapter has for its modules.

        A base saved from the bare body lacks the classifier's prefix (`layers.0` for `model.layers.0`), an adapter made
        on the bare body lacks the prefix that the base has, and models for question answering have their own.
        """
        roots = (name.split(".")[0] for name in modules)
        first = next((root for root in roots if root not in TIED_OUTPUTS), "")
        choices = [
            {name: name for name in self.shapes},
            {name: name if name in TIED_OUTPUTS else f"{first}.{name}" for name in self.shapes},
            {name: name.partition(".")[2] or name for name in self.shapes},
            {name: f"{first}.{rest}" if (rest := name.partition(".")[2]) else name for name in self.shapes},
        ]
        names = max(choices, key=lambda choice: len(set(choice.values()) & set(modules)))
        return replace(
            self,
            shapes={names[name]: shape for name, shape in self.shapes.items()},
            files={names[name]: place for name, place in self.files.items()},
            biased=frozenset(names[name] for name in self.biased),
        )

    def rms(self, module: str) -> float | None:
        """Root mean square of a module's weight, from some of its rows; None where its numbers are not at hand."""
        if module not in self.files:
            return None
        header, name = self.files[module]
        tensor = header.tensors[name]
        if tensor.dtype not in safetensors_file.FLOATS or not tensor.count or not tensor.shape:
            return None
        rows = safetensors_file.read_rows(header, tensor, SAMPLED_ROWS)
        return float(np.sqrt(np.vdot(rows, rows) / rows.size))


def of_folder(folder: Path) -> BaseTensors:
    """The tensors of a base in `folder`.  Raises AdapterRejected where there is none, or a header can't be read."""
    places: dict[str, tuple[safetensors_file.Header, str]] = {}
    paths = sorted(folder.glob("*.safetensors"))
    for path in paths:
        header = safetensors_file.read_header(path)
        if header.problems:
            raise AdapterRejected(f"{path}: {header.problems[0]}", hint="fetch the base again")
        for name in header.tensors:
            places[name] = (header, name)
    if not places:
        raise AdapterRejected(f"{folder}: no base model in safetensors files here", hint="--base FOLDER")
    files = {module: places[name] for module, name in _weights(places)}
    shapes = {module: _shape(header.tensors[name]) for module, (header, name) in files.items()}
    return BaseTensors(
        _with_tied(shapes), lambda: {path.name: _sha256(path) for path in paths}, files, _biased(places, shapes)
    )


def of_hub(repository: str, revision: str, *, token: str | bool) -> BaseTensors:
    """The tensors of a repository of the Hub: shapes and hashes, no numbers.  Raises what `hub.weights` does."""
    from jobs import hub  # the library behind it is only needed here

    weights = hub.weights(repository, revision, token=token)
    shapes: dict[str, tuple[int, ...]] = {}
    for header in weights.headers:
        if header.problems:
            raise AdapterRejected(f"{repository}: {header.path}: {header.problems[0]}")
        shapes |= {module: _shape(header.tensors[name]) for module, name in _weights(header.tensors)}
    names = [name for header in weights.headers for name in header.tensors]
    return BaseTensors(_with_tied(shapes), lambda: weights.sha256, {}, _biased(names, shapes))


def _weights(names: Iterable[str]) -> list[tuple[str, str]]:
    """Module and tensor of everything that is a module's weight."""
    return [(name.removesuffix(end), name) for name in names for end in _ENDINGS if name.endswith(end)]


def _biased(names: Iterable[str], modules: Collection[str]) -> frozenset[str]:
    return frozenset(name.removesuffix(".bias") for name in names if name.endswith(".bias")) & set(modules)


def _shape(tensor: safetensors_file.Tensor) -> tuple[int, ...]:
    return tensor.shape if tensor.dtype in _AS_LONG else PACKED


def _with_tied(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """An output layer that shares the embedding's weight is in no file, but a module that can be adapted.

    One that is there goes by both names: GPT-NeoX's has one in the file, and the other in the model.
    """
    outputs = {shapes[name] for name in TIED_OUTPUTS if name in shapes}
    found = outputs or {shape for name, shape in shapes.items() if _EMBEDDING.search(name)}
    return dict.fromkeys(TIED_OUTPUTS, found.pop()) | shapes if len(found) == 1 else shapes


def _sha256(path: Path) -> str:
    """The Hub's cache names its blobs of weights by their sha256, which it has compared."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else manifest.sha256_of(path)
