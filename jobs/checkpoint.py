"""Checkpoints: all that a training needs to go on as if it had never stopped.

A folder `step-<n>` with the numbers in safetensors and the rest in JSON: whole or not there, vouched for by a hash,
nothing of it ever unpickled.  Owns the files; what stands in them is the training's.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import atomic
from jobs.errors import JobError
from jobs.manifest import sha256_of

TENSORS, STATE = "state.safetensors", "state.json"
KEPT = 2
"""The one before the newest is kept, in case the newest is damaged."""

_NAME = re.compile(r"step-(\d{8})\Z")


@dataclass(frozen=True)
class Checkpoint:
    """The state after `step` optimizer steps: arrays by name, and what is JSON."""

    step: int
    arrays: Mapping[str, NDArray[Any]]
    state: Mapping[str, Any]


class Checkpoints:
    """The checkpoints of one training in `folder`.  `identity` names what is trained on what; others are refused."""

    def __init__(self, folder: Path, identity: str) -> None:
        self._folder = folder
        self._identity = identity

    def save(self, checkpoint: Checkpoint) -> None:
        """Put it on the disk, flushed, and drop all but the newest ones.  Raises OSError, and leaves what was there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"step-{checkpoint.step:08d}"
        new = self._folder / f".{name}.{secrets.token_hex(6)}.part"
        try:
            new.mkdir()
            _write(new / TENSORS, checkpoint.arrays)
            document = {
                "step": checkpoint.step,
                "identity": self._identity,
                "sha256": sha256_of(new / TENSORS),
                "state": dict(checkpoint.state),
            }
            atomic.write_json(new / STATE, document)
            for path in (new / TENSORS, new):
                atomic.flush(path)
            if (self._folder / name).exists():  # a damaged one, or the training went on from an older one
                (self._folder / name).rename(new.with_suffix(".old"))
            new.rename(self._folder / name)
            atomic.flush(self._folder)
        finally:
            self._tidy()

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest whole one, and in words what was wrong with newer ones.

        Raises JobError where it belongs to another training: going on from it would give neither the one nor the other.
        """
        problems: list[str] = []
        for path in reversed(self._all()):
            try:
                document = json.loads((path / STATE).read_text("utf-8"))
                step, identity, state = int(document["step"]), document["identity"], dict(document["state"])
                if identity != self._identity:
                    raise JobError(
                        f"{path}: a checkpoint of another training (its spec, data or base differ)",
                        hint=f"to start over: rm -r {path.parent}",
                    )
                if sha256_of(path / TENSORS) != document["sha256"]:
                    raise ValueError("its numbers are damaged")
                return Checkpoint(step, _read(path / TENSORS), state), problems
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                problems.append(f"{path.name}: {error}")
        return None, problems

    def _all(self) -> list[Path]:
        """Oldest first."""
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if _NAME.match(path.name) and path.is_dir())

    def _tidy(self) -> None:
        for path in self._folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._all()[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


def damage(folder: Path) -> str:
    """What is wrong with the files of a checkpoint, "" if nothing is; whose it is stays open."""
    try:
        document = json.loads((folder / STATE).read_text("utf-8"))
        return "" if sha256_of(folder / TENSORS) == document["sha256"] else "its numbers are damaged"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        return f"{type(error).__name__}: {error}"


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, path)
    except SafetensorError as error:  # a full disk, among others
        raise OSError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(os.fspath(path))
    except SafetensorError as error:
        raise ValueError(f"its numbers can't be read: {error}") from error
