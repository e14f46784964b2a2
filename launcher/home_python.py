"""The Python of this machine that verifies and evaluates: the one that runs us where it can, else one made for it.

Whatever is broken in a person's own Python, what is made here lies apart from it and is never touched by it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher import recipe
from launcher.errors import LaunchError
from launcher.progress import Note, Observer
from remote.onhost import environment, interpreter, narrated

# What takes part in a forward pass and has no build for each platform: it can be the same as in the training.
THE_SAME = ("transformers", "peft", "safetensors")
VERSION = re.compile(r"[0-9]{1,4}(\.[0-9]{1,6}){1,3}\Z")
# A GPU is not needed at home, so it is not asked for when the machine starts anew.
NO_BOOT = ""


def find(workspace: Path, trained_with: Mapping[str, Any], observer: Observer) -> str:
    """Path of a Python that can verify and evaluate.  `trained_with` are versions, by library, as a run tells them.

    Raises LaunchError where there is none and none can be made.
    """
    asked = _recipe(trained_with, observer)
    try:
        python = _prepared(workspace, asked, observer)
    except narrated.Failed as failed:
        if asked == _recipe({}, observer):
            raise LaunchError(
                f"no Python here can verify or evaluate, and none could be made: {failed}",
                hint="launch verify --static looks without running the model; launch doctor",
                code="no_environment",
            ) from failed
        observer(Note(f"what it was trained with can't be had here ({failed}); with tested versions instead"))
        return find(workspace, {"torch": trained_with.get("torch")}, observer)
    _tell_torch(python, trained_with, observer)
    return python


def _prepared(workspace: Path, asked: dict[str, Any], observer: Observer) -> str:
    known = environment.ready(str(workspace), asked, NO_BOOT)
    if known is None:
        observer(Note("looking for a Python here that can verify and evaluate"))
        known = environment.prepare(str(workspace), asked, NO_BOOT, lambda text: observer(Note(text)))
    environment.note_use(str(workspace), known)
    return known.python


def forget(workspace: Path, trained_with: Mapping[str, Any]) -> None:
    """Look and prove anew the next time."""
    environment.forget(str(workspace), _recipe(trained_with, lambda event: None))


def _recipe(trained_with: Mapping[str, Any], observer: Observer) -> dict[str, Any]:
    exactly = {}
    for name in THE_SAME:
        version = trained_with.get(name)
        if version is None:
            continue
        # It comes from a host: no more than a version, and none that we were not written against.
        if isinstance(version, str) and VERSION.match(version) and recipe.allows(name, version):
            exactly[name] = version
        else:
            observer(Note(f"trained with {name} {str(version)[:40]!r}, which is not taken over here"))
    return recipe.recipe(at_home=True, exactly=exactly, candidates=[sys.executable])


def _tell_torch(python: str, trained_with: Mapping[str, Any], observer: Observer) -> None:
    there = trained_with.get("torch")
    found = interpreter.look(python, ["torch"]) if isinstance(there, str) else None
    here = found.packages["torch"].version if found and "torch" in found.packages else ""
    if here and here != there:
        observer(Note(f"trained with torch {str(there)[:40]}, here is {here}"))
