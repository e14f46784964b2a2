"""Merges a run's adapter into its base: only what is proven, only where it fits, in its place whole or not at all.

What is written and how it is proven there stands in `jobs.merging`, which a process of its own carries out.
"""

from __future__ import annotations

import contextlib
import glob
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs import atomic, safetensors_file
from jobs.spec import TEXT
from launcher import home_jobs, verdict
from launcher.errors import LaunchError
from launcher.home_jobs import HomeRun
from launcher.progress import Note, Observer
from launcher.untrusted import clean
from remote.onhost.target import try_lock

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Of a weight, by the name of its type."""


@dataclass(frozen=True)
class Merged:
    """A model's folder, in place.  `tolerances` is how far its logits are from the trained ones, in what is allowed."""

    run_id: str
    folder: Path
    dtype: str
    parameters: int
    size_bytes: int
    miss: float
    tolerances: float
    max_length: int
    prompt_template: str

    def in_words(self) -> str:
        """For a person, with how to use it."""
        lines = [
            f"{self.run_id} and its base are one model, {self.parameters:,} weights in {self.dtype} "
            f"({self.size_bytes / 1e6:.1f} MB)",
            f"plain transformers gives the trained logits; off by {self.miss:.2g}, {self.tolerances:.2g} tolerances",
            f"a text has at most {self.max_length} tokens" + self._template_in_words(),
            f'AutoModelForSequenceClassification.from_pretrained("{self.folder}")',
        ]
        return "\n".join(lines)

    def _template_in_words(self) -> str:
        return "" if self.prompt_template == TEXT else f", inside of {clean(self.prompt_template)!r}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "prompt_template": clean(self.prompt_template)}


def merge(home: HomeRun, target: Path, workspace: Path, observer: Observer, *, dtype: str) -> Merged:
    """Verify the run here, and put it, merged into its base, at `target`, an empty folder or none.

    Raises VerificationFailed where the adapter is not reproduced here, and LaunchError where the target is taken, the
    base is not on this machine, or the disk is too small; nothing is left at or beside the target then.
    """
    target = target.resolve()
    _require_free(target, home)
    if home.base is None:
        raise LaunchError(
            f"{home.run.run_id}: the base model is not on this machine, and merging takes it", hint="--base FOLDER"
        )
    _require_room(target, _needed_bytes(home, home.base, dtype))
    found = home_jobs.verify(home, workspace, observer)
    verdict.check(home.run.run_id, found)  # with a base, ok means that the logits were reproduced here
    target.parent.mkdir(parents=True, exist_ok=True)
    with _hidden(target, observer) as folder:
        observer(Note(f"merging in float32, saving in {dtype}"))
        told = home_jobs.merge(home, workspace, folder, dtype, observer)
        if target.exists():
            target.rmdir()  # Windows renames nothing to a name that is taken
        folder.rename(target)
        atomic.flush(target.parent)
    return Merged(home.run.run_id, target, **told)


def _require_free(target: Path, home: HomeRun) -> None:
    if target.is_relative_to(home.run.root.resolve()):
        raise LaunchError(f"{target}: inside of the run, whose files are listed", hint="another folder: --to")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise LaunchError(f"{target}: there is something already", hint="another folder, or an empty one: --to")


def _needed_bytes(home: HomeRun, base: Path, dtype: str) -> int:
    """The base's weights in `dtype`, and everything of the adapter's folder, which has the tokenizer and the head."""
    headers = [safetensors_file.read_header(path) for path in base.glob("*.safetensors")]
    weights = sum(tensor.count for header in headers for tensor in header.tensors.values())
    return weights * BYTES[dtype] + sum(path.stat().st_size for path in home.run.adapter.glob("*"))


def _require_room(target: Path, needed: int) -> None:
    disk = next(folder for folder in target.parents if folder.is_dir())
    free = shutil.disk_usage(disk).free
    if free < needed:
        raise LaunchError(
            f"{disk}: {free / 1e9:.2f} GB free, and the model takes {needed / 1e9:.2f} GB",
            hint="another disk: --to; half as much: --dtype bfloat16",
        )


@contextlib.contextmanager
def _hidden(target: Path, observer: Observer) -> Iterator[Path]:
    """A folder beside `target` for what is not proven yet, gone afterwards unless it was renamed.

    Who was killed leaves it there, to the next merge to the same target: its owner is known to be dead by a lock that
    the system forgets with a process.
    """
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.merging"):
        if _is_dead(left / "owner"):
            shutil.rmtree(left, ignore_errors=True)
            observer(Note(f"removed what a merge that was killed has left: {left}"))
    own = target.with_name(f".{target.name}.{secrets.token_hex(4)}.merging")
    folder = own / "model"
    try:
        folder.mkdir(parents=True)
        with (own / "owner").open("wb") as owner:
            try_lock(owner.fileno())
            yield folder
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _is_dead(owner: Path) -> bool:
    try:
        with owner.open("rb") as file:
            free = try_lock(file.fileno())
        if free:
            owner.unlink()  # Windows has no such locks, and refuses while it is open
        return free
    except OSError:  # just being made, or in use on Windows
        return False
