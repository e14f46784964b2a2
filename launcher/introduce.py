"""Meets a host for the first time: its key, a login, a Python and a workspace; saved only if all is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from launcher.host_book import HostBook, SavedHost, connect
from remote.agent import Agent
from remote.errors import UnknownHostKey


@dataclass(frozen=True)
class Met:
    """A host that was logged in to, and what was found there."""

    name: str
    login: str
    python: str
    workspace: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def introduce(book: HostBook, saved: SavedHost, trust: Callable[[str], bool]) -> Met:
    """Log in, look for a Python and a workspace, save.  `trust(question)` decides about a key never seen before.

    Raises UnknownHostKey when it is not trusted; nothing is saved then.
    """
    book.check(saved)  # before anybody is asked about a key, or one is put on record
    try:
        place = _look(saved, accept_new=False)
    except UnknownHostKey as unknown:
        if not trust(f"{unknown.message}\nIs that the host's key?"):
            raise
        place = _look(saved, accept_new=True)
    book.add(saved)
    return Met(saved.name, saved.login, place.python, place.workspace)


def _look(saved: SavedHost, *, accept_new: bool) -> Any:
    with connect(saved, accept_new=accept_new) as host:
        return Agent(host, workspace=saved.workspace).place
