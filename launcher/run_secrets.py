"""The secrets that a spec names, looked up on this machine at the moment a run needs them, and kept nowhere."""

from __future__ import annotations

import os
from collections.abc import Sequence

from launcher.errors import LaunchError
from launcher.terminal import Terminal

HUB_TOKEN = "HF_TOKEN"
MOST_CHARACTERS = 64 * 1024


def collect(names: Sequence[str], questions: Terminal) -> dict[str, str]:
    """A value for each name: from the environment, for HF_TOKEN also from the Hub's own login, else from the person.

    Raises LaunchError, which never shows a value, where there is none to be had.
    """
    found = {name: _here(name) or questions.secret(f"{name} for the run") for name in names}
    if missing := [name for name, value in found.items() if not value]:
        raise LaunchError(
            f"the spec names secrets that have no value here: {', '.join(missing)}",
            hint=f"set {missing[0]} in the environment, or take it out of the spec's secrets",
        )
    for name, value in found.items():
        if value and ("\0" in value or len(value) > MOST_CHARACTERS):
            raise LaunchError(f"{name}: the value can't be a variable's: too long, or with NUL in it")
    return {name: value for name, value in found.items() if value}


def lacking(names: Sequence[str]) -> list[str]:
    """Those of the names for which there is no value without asking."""
    return [name for name in names if not _here(name)]


def _here(name: str) -> str:
    value = os.environ.get(name, "")
    if value or name != HUB_TOKEN:
        return value
    from launcher.hub_repository import known_token

    return known_token()
