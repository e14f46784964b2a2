"""PEFT adapters in folders of this machine, whoever made them: found, and looked into without running anything."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import adapter
from jobs.checks import STATIC
from jobs.errors import JobError
from launcher.errors import LaunchError
from launcher.hub_model import HubModel, is_name
from launcher.progress import Note, Observer

if TYPE_CHECKING:
    from jobs.base_tensors import BaseTensors

MOST_ADAPTERS = 100


def find(folder: Path) -> list[Path]:
    """The adapters in `folder`: itself, and those right below, as PEFT saves several, and the Trainer its checkpoints.

    None where it is no folder.  Raises LaunchError where they are too many to be looked at.
    """
    if not folder.is_dir():
        return []
    found = [path for path in (folder, *sorted(folder.iterdir())) if path.is_dir() and _has_some_of_one(path)]
    if len(found) > MOST_ADAPTERS:
        raise LaunchError(
            f"{folder}: {len(found)} adapters in one folder", hint=f"one by one: launch verify {found[-1]}"
        )
    return found


def _has_some_of_one(folder: Path) -> bool:
    """Whether an adapter lies here, or what a broken save left of one."""
    return (folder / adapter.CONFIG).exists() or any(folder.glob("adapter_model.*"))


def verify(
    folders: Sequence[Path], observer: Observer, *, base: Path | None = None, fetch_base: bool = False
) -> dict[str, Any]:
    """The verdict document on all of them; with several, each check tells its adapter's folder.

    The base is `base`, else the model that an adapter's own configuration names, where this machine's cache has it;
    with `fetch_base` the Hub is asked for that model's shapes.  Raises JobError where it can't tell them.
    """
    from jobs import verification

    verdicts = []
    for folder in folders:
        known: Path | BaseTensors | None = base
        if base is None and (model := _named(folder)):
            known = model.cached()
            if known is not None:
                observer(
                    Note(f"held against {model.repository}, which it names as its base, from this machine's cache")
                )
            elif fetch_base:
                known = model.tensors()
                observer(Note(f"held against the shapes of {model.repository}, which it names as its base"))
            else:
                observer(Note(f"no base at hand: --base FOLDER, or --fetch-base asks the Hub for {model.repository}"))
        elif base is None:
            observer(Note("no base at hand, and the adapter names none of the Hub: --base FOLDER"))
        verdicts.append(verification.verify_adapter_folder(folder, known))
    checks = [
        asdict(check) | ({"adapter": folder.name} if len(folders) > 1 else {})
        for folder, verdict in zip(folders, verdicts, strict=True)
        for check in verdict.checks
    ]
    return {"ok": all(verdict.ok for verdict in verdicts), "level": STATIC, "checks": checks}


def _named(folder: Path) -> HubModel | None:
    """The model of the Hub that an adapter's configuration names; None where it names none."""
    try:
        document = adapter.read_json(folder / adapter.CONFIG)
    except JobError:
        return None
    name, revision = document.get("base_model_name_or_path"), document.get("revision")
    if not isinstance(name, str) or not is_name(name):
        return None
    sound = isinstance(revision, str) and re.fullmatch(r"[\w.-]{1,100}", revision)
    return HubModel(name, (str(revision) if sound else "main",))
