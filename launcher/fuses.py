"""The fuses of runs, as their hosts tell them: how each stands, and how to disarm one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import chosen
from launcher.untrusted import clean
from remote import runs

NONE = "no fuse"
WORDS = {
    "armed": "powers off when it is over",
    "waiting": "over; powers off once nobody needs the host",
    "kept": "kept on after the failure, until the limit",
    "failed": "the power-off did not work",
    "fired": "powers off now",
    "off": "disarmed, the host stays on",
    "void": "will not power off",
    "dead": "will not power off",
}


@dataclass(frozen=True)
class Place:
    """A run and the host it is on."""

    run_id: str
    host: str


@dataclass(frozen=True)
class Fuse:
    """`state` is armed, waiting, kept, failed, fired, off, void or dead, empty without a fuse; `why` in words.

    `left_s` is how long it takes at most until the host is off, None where it will not be.
    """

    run_id: str
    host: str
    state: str
    why: str
    left_s: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """One line."""
        said = WORDS.get(self.state, self.state or NONE) + (f" ({self.why})" if self.why else "")
        left = "" if self.left_s is None else f"; off in {self.left_s / 3600:.1f} h at the latest"
        return f"{self.run_id} on {self.host}: {said}{left}"


def find(app: App, run: str | None, host: str | None) -> Place:
    """The run that is meant; on a host that is named also one that this laptop does not know."""
    if host is not None and run is not None:
        named = [state for state in runs.states(app.agent(host)) if run in (state.run_id, state.name)]
        if named:
            return Place(min(named, key=lambda one: one.run_age_s).run_id, host)
        raise LaunchError(f"no run {run!r} on {host}", code="run_not_found", hint=f"launch ps --host {host}")
    line = chosen([line for line in app.ledger.lines() if host in (None, line.host)], run)
    return Place(line.run_id, line.host)


def look(app: App, run: str | None, host: str | None) -> list[Fuse]:
    """The fuse of a run, or every one of a host that can still fire or should have."""
    if host is not None and run is None:
        return [_fuse(state, host) for state in runs.states(app.agent(host)) if state.fuse]
    place = find(app, run, host)
    return [_fuse(runs.fuse(app.agent(place.host), place.run_id), place.host)]


def off(app: App, place: Place) -> Fuse:
    """Disarm it.  Raises LaunchError where it fired already, or there was none."""
    fuse = _fuse(runs.fuse(app.agent(place.host), place.run_id, off=True), place.host)
    if fuse.state != "off":
        raise LaunchError(
            f"{fuse.in_words()}: there is nothing to disarm", hint=f"launch fuse show --host {place.host}"
        )
    return fuse


def in_words(shown: Sequence[Fuse]) -> str:
    """For a person, one line each."""
    return "\n".join(fuse.in_words() for fuse in shown) or NONE


def _fuse(state: runs.State, host: str) -> Fuse:
    word, _, why = clean(state.fuse).partition(": ")
    left = state.fuse_left_s
    return Fuse(clean(state.run_id), host, word, why, left if left is not None and math.isfinite(left) else None)
