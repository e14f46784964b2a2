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


@dataclass(frozen=True)
class BaseTensors:
    """Shape of the weight of each module, by its name in the model, and the files they lie in (none on the Hub).

    `weights_sha256` gives the sha256 of each file of weights; it may have to read them all.
    """

    shapes: Mapping[str, tuple[int, ...]]
    weights_sha256: Callable[[], dict[str, str]]
    files: Mapping[str, tuple[safetensors_file.Header, str]]  # module -> its file and its tensor's name there

    def named_like(self, modules: Collection[str]) -> BaseTensors:
        """The same under the names that an adapter has for its modules.

        A base saved from the bare body lacks the classifier's prefix (`layers.0` for `model.layers.0`), and an adapter
        made on the bare body lacks the prefix that the base has.
        """
        first = next(iter(modules), "").split(".")[0]
        choices = [
            {name: name for name in self.shapes},
            {name: name if name in TIED_OUTPUTS else f"{first}.{name}" for name in self.shapes},
            {name: name.partition(".")[2] or name for name in self.shapes},
        ]
        names = max(choices, key=lambda choice: len(set(choice.values()) & set(modules)))
        return replace(
            self,
            shapes={names[name]: shape for name, shape in self.shapes.items()},
            files={names[name]: place for name, place in self.files.items()},
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
        return float(np.sqrt(np.mean(np.square(rows, dtype=np.float64))))


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
    shapes = {module: header.tensors[name].shape for module, (header, name) in files.items()}
    return BaseTensors(_with_tied(shapes), lambda: {path.name: _sha256(path) for path in paths}, files)


def of_hub(repository: str, revision: str, *, token: str | bool) -> BaseTensors:
    """The tensors of a repository of the Hub: shapes and hashes, no numbers.  Raises what `hub.weights` does."""
    from jobs import hub  # the library behind it is only needed here

    weights = hub.weights(repository, revision, token=token)
    shapes: dict[str, tuple[int, ...]] = {}
    for header in weights.headers:
        if header.problems:
            raise AdapterRejected(f"{repository}: {header.path}: {header.problems[0]}")
        shapes |= {module: header.tensors[name].shape for module, name in _weights(header.tensors)}
    return BaseTensors(_with_tied(shapes), lambda: weights.sha256, {})


def _weights(names: Iterable[str]) -> list[tuple[str, str]]:
    """Module and tensor of everything that is a module's weight."""
    return [(name.removesuffix(".weight"), name) for name in names if name.endswith(".weight")]


def _with_tied(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """An output layer that shares the embedding's weight is in no file, but a module that can be adapted."""
    embeddings = [shape for name, shape in shapes.items() if re.search(r"(^|\.)(embed_tokens|wte|embed_in)$", name)]
    if len(embeddings) != 1 or any(name in shapes for name in TIED_OUTPUTS):
        return shapes
    return shapes | dict.fromkeys(TIED_OUTPUTS, embeddings[0])


def _sha256(path: Path) -> str:
    """The Hub's cache names its blobs of weights by their sha256, which it has compared."""
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else manifest.sha256_of(path)
