"""Removes what `launch` left on a host, seen from the laptop: what was asked for, and what the host says it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from remote.agent import Agent
from remote.errors import BadReply

KINDS = ("run", "environment", "python", "downloads", "object", "quarantined", "leftover", "program", "trash", "other")
TIMEOUT_S = 3600
MOST_BYTES = 1 << 62


@dataclass(frozen=True)
class Asked:
    """What is to go: what nothing needs, or everything.

    pulled     ids of runs that are at home: of the others none goes, or, of everything, none that succeeded (`force`)
    keys       this machine's public keys in base64; lines of authorized_keys with one of them and the word `mark` go
    young_s    objects of the store that are younger stay: a push may be under way
    wait_s     how long to wait for others who work there
    """

    everything: bool = False
    force: bool = False
    pulled: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    mark: str = ""
    young_s: float = 3600
    wait_s: float = 10


@dataclass(frozen=True)
class Item:
    """One thing that goes; `path` below `<workspace>/launch`, `size_bytes` what that frees on the disk."""

    kind: str
    path: str
    size_bytes: int


@dataclass(frozen=True)
class Total:
    """All that goes of one kind."""

    kind: str
    count: int
    size_bytes: int


@dataclass(frozen=True)
class Kept:
    """What stays of one kind for one reason; the first few names."""

    kind: str
    reason: str
    count: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Cleaned:
    """What went, or would go.  `items` may be only the first of many: `totals` count them all.

    never_pulled   runs that go although they never came home
    key_lines      lines of authorized_keys
    errors         what could not be removed, and why; the first of `error_count`
    """

    items: tuple[Item, ...]
    totals: tuple[Total, ...]
    kept: tuple[Kept, ...]
    never_pulled: tuple[str, ...]
    key_lines: int
    freed_bytes: int
    errors: tuple[str, ...]
    error_count: int


def clean(agent: Agent, asked: Asked, *, dry_run: bool) -> Cleaned:
    """Do it, or with `dry_run` only find out what would go.

    Raises RemoteError where a run is in the way of everything going (runs_live, runs_not_pulled), where a folder of
    ours is a link, and where others work with the store (workspace_busy).
    """
    reply = agent.call("clean", {**asdict(asked), "dry_run": dry_run}, timeout_s=TIMEOUT_S)
    try:
        return Cleaned(
            items=tuple(
                Item(_kind(row), _text(row, "path"), _count(row, "size_bytes")) for row in _rows(reply, "items")
            ),
            totals=tuple(
                Total(_kind(row), _count(row, "count"), _count(row, "size_bytes")) for row in _rows(reply, "totals")
            ),
            kept=tuple(
                Kept(_kind(row), _text(row, "reason"), _count(row, "count"), _texts(row, "names"))
                for row in _rows(reply, "kept")
            ),
            never_pulled=_texts(reply, "never_pulled"),
            key_lines=_count(reply, "key_lines"),
            freed_bytes=_count(reply, "freed_bytes"),
            errors=_texts(reply, "errors"),
            error_count=_count(reply, "error_count"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadReply(f"{agent.host.name}: what it says about cleaning has the wrong shape") from error


def _rows(reply: dict[str, Any], name: str) -> Sequence[dict[str, Any]]:
    rows = reply[name]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{name}: not a list of objects")
    return rows


def _kind(row: dict[str, Any]) -> str:
    if row["kind"] not in KINDS:
        raise ValueError("kind: not one that is known")
    return str(row["kind"])


def _text(row: dict[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(f"{name}: not a text")
    return str(row[name])


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = row[name]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name}: not a list of texts")
    return tuple(texts)


def _count(row: dict[str, Any], name: str) -> int:
    number = row[name]
    if type(number) is not int or not 0 <= number <= MOST_BYTES:
        raise ValueError(f"{name}: not a number of things")
    return number
