"""The base model of a run: a folder that is here, or a snapshot of a Hugging Face Hub repository.

Owns which files of a repository are wanted (never code, never pickles), when a folder is a model that can be loaded,
and base.json, which pins what was found for everything that comes later in the run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jobs import atomic
from jobs.errors import BrokenRun, DataError, JobError
from jobs.log_line import say
from jobs.manifest import sha256_of
from jobs.run_directory import RunDirectory
from jobs.submission import Submission

WANTED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "*.model",
    "*.tiktoken",
)
UNWANTED = ("*/*", "consolidated*", "*.py")
INDEX = "model.safetensors.index.json"


def fetch(run: RunDirectory, submission: Submission) -> Path:
    """The folder of the run's base, which is whole on this machine and pinned in the run's base.json afterwards.

    A run that has pinned a commit stays with it.  Raises what `locate` does.
    """
    name = submission.spec.model_name_or_path
    folder, commit, known = _found(name, revision(run, submission), _pushed(run, submission))
    files = {
        path.name: {"size_bytes": path.stat().st_size, "sha256": known.get(path.name) or sha256_of(path)}
        for path in _weights(folder)
    }
    atomic.write_json(run.base, {"folder": str(folder.absolute()), "revision": commit, "files": files})
    say(f"base model: {len(files)} file{'s' * (len(files) != 1)} of weights in {folder}")
    return folder


def of_run(run: RunDirectory, submission: Submission) -> Path:
    """The folder of the run's base: what `fetch` pinned, or as `locate` in a run for which nothing was fetched.

    Raises JobError when what was pinned is no longer there as it was.
    """
    pinned = _pinned(run)
    if pinned is None:
        spec = submission.spec
        return locate(spec.model_name_or_path, spec.model_revision, pushed=_pushed(run, submission))
    folder = Path(pinned["folder"])
    for name, file in pinned["files"].items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != file["size_bytes"]:
            raise JobError(
                f"{folder / name}: gone, or changed since it was fetched for this run",
                hint="start the run again with `launch train`; it is fetched anew then",
            )
    return _complete(folder)


def revision(run: RunDirectory, submission: Submission) -> str:
    """The commit of the run's base where it is known, else the revision that was asked for."""
    return str((_pinned(run) or {}).get("revision") or submission.spec.model_revision)


def pinned_weights(run: RunDirectory) -> dict[str, str]:
    """sha256 of the base's safetensors files, by name, as they were fetched; empty where nothing was fetched."""
    return {name: file["sha256"] for name, file in (_pinned(run) or {"files": {}})["files"].items()}


def locate(name_or_path: str, revision: str, *, pushed: Path | None) -> Path:
    """The folder with the base's config, tokenizer and safetensors weights.

    A `pushed` folder wins, then an existing folder, then the Hub (its cache first).  Raises DataError when there is no
    such model, revision or access, JobError when it can't be fetched.
    """
    folder, _, _ = _found(name_or_path, revision, pushed)
    return folder


def weight_files(folder: Path) -> dict[str, str]:
    """sha256 of each of the base's safetensors files, by name: what tells one base from another."""
    return {path.name: sha256_of(path) for path in _weights(folder)}


def _found(name_or_path: str, revision: str, pushed: Path | None) -> tuple[Path, str, dict[str, str]]:
    """As `locate`; also the commit of a Hub's repository, and the sha256 of files that are known already."""
    folder = pushed or Path(name_or_path).expanduser()
    if pushed is not None or folder.is_dir():
        return _complete(folder), "", {}
    from jobs import hub  # the library behind it is only needed here

    snapshot = hub.snapshot(name_or_path, revision, wanted=WANTED, unwanted=UNWANTED)
    return _complete(snapshot.folder), snapshot.commit, snapshot.sha256


def _pushed(run: RunDirectory, submission: Submission) -> Path | None:
    return run.inputs / "base" if submission.base_is_pushed else None


def _pinned(run: RunDirectory) -> dict[str, Any] | None:
    """base.json, None where there is none.  Raises BrokenRun."""
    try:
        pinned: dict[str, Any] = json.loads(run.base.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BrokenRun(f"{run.base}: not readable ({error})") from error
    if not isinstance(pinned, dict) or not {"folder", "revision", "files"} <= pinned.keys():
        raise BrokenRun(f"{run.base}: not what `fetch` writes")
    return pinned


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _complete(folder: Path) -> Path:
    """`folder`, if a model can be loaded from it without running code.  Raises DataError."""
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder}: no config.json, so not a model", hint="model_name_or_path: a Hub id, or a folder")
    if not _weights(folder):
        raise DataError(
            f"{folder}: no safetensors weights; pickled weights are not loaded because loading them can run code",
            hint="choose a model, or a revision of it, that has *.safetensors files",
        )
    if missing := sorted(name for name in _shards(folder) if not (folder / name).is_file()):
        raise DataError(f"{folder}: incomplete, its {INDEX} names {', '.join(missing[:3])}")
    return folder


def _shards(folder: Path) -> set[str]:
    """The files of weights that the index names; none where there is no index.  Raises DataError."""
    index = folder / INDEX
    if not index.is_file():
        return set()
    try:
        return {str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{index}: not an index of weights ({type(error).__name__}: {error})") from error
