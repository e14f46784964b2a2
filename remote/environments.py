"""The environments on a host, seen from the laptop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remote.agent import Agent
from remote.errors import BadReply

STATES = ("ready", "building", "unfinished")
# Thousands of files are counted and removed.
TIMEOUT_S = 600
MOST_BYTES, MOST_S = 1 << 62, 1e10


@dataclass(frozen=True)
class Ready:
    """A Python that is ready: `how` it came (image, reused, built), its `key`, and what it was `proven_on`."""

    python: str
    how: str
    key: str
    proven_on: str


@dataclass(frozen=True)
class Wanted:
    """What a host lacks: what comes beside the library that it keeps, or all, with `requirement` for that library."""

    requirement: str
    python: tuple[int, int]
    machine: str
    glibc: tuple[int, int]


@dataclass(frozen=True)
class Environment:
    """One environment; `idle_s` since it was used last, None where that is not known; `used_by` runs not over."""

    key: str
    state: str
    how: str
    base: str
    size_bytes: int
    idle_s: float | None
    used_by: tuple[str, ...]


@dataclass(frozen=True)
class Removed:
    """What is left after a removal, the bytes that it freed, and what could not be removed."""

    left: tuple[Environment, ...]
    freed_bytes: int
    errors: tuple[str, ...]


def ready(agent: Agent, recipe: dict[str, Any]) -> Ready | None:
    """What a run of this recipe would get, in one round trip; None where something is still to be done."""
    known = agent.call("ready", {"recipe": recipe}).get("ready")
    if known is None:
        return None
    try:
        return Ready(*(str(known[name]) for name in ("python", "how", "key", "proven_on")))
    except (KeyError, TypeError) as error:
        raise BadReply(f"{agent.host.name}: an environment has the wrong shape") from error


def lacks(agent: Agent, recipe: dict[str, Any]) -> str:
    """What would have to be installed there: "" for nothing, `beside` the library that it keeps, or `all`."""
    told = agent.call("ready", {"recipe": recipe, "lacks": True}, timeout_s=TIMEOUT_S).get("lacks")
    if told not in ("", "beside", "all"):
        raise BadReply(f"{agent.host.name}: what an environment lacks is {str(told)[:80]!r}")
    return str(told)


def wanted(agent: Agent, recipe: dict[str, Any]) -> Wanted | None:
    """What an environment there lacks, for somebody who brings it; None where it lacks nothing.

    Raises RemoteError where none could be made there.
    """
    told = agent.call("ready", {"recipe": recipe, "wanted": True}, timeout_s=TIMEOUT_S).get("wanted")
    if told is None:
        return None
    try:
        libc = re.fullmatch(r"glibc (\d{1,2})\.(\d{1,3})", str(told["libc"]))
        version, machine = tuple(told["python"])[:2], str(told["platform"]).removeprefix("linux-")
        if [*map(type, version)] != [int, int] or not all(0 <= part < 100 for part in version):
            raise ValueError(f"{version!r:.100}")
        if not re.fullmatch(r"[a-z0-9_]{2,20}", machine) or libc is None:
            raise BadReply(f"{agent.host.name}: wheels can't be chosen for {str(told)[:200]!r}")
        kept, asked = recipe["kept"], str(told["requirement"])
        # Nobody there chooses what is fetched here.
        if asked not in ("", kept["plain"], *(row for _, row in kept["rows"])):
            raise BadReply(f"{agent.host.name}: asks for {asked[:80]!r}, which no recipe names")
        return Wanted(asked, (version[0], version[1]), machine, (int(libc[1]), int(libc[2])))
    except (KeyError, TypeError, ValueError) as error:
        raise BadReply(f"{agent.host.name}: what an environment lacks has the wrong shape") from error


def listed(agent: Agent) -> tuple[Environment, ...]:
    """Every environment there."""
    return _parsed(agent, agent.call("environments", {}, timeout_s=TIMEOUT_S))


def remove(agent: Agent, keys: Sequence[str]) -> Removed:
    """Remove environments.  Raises RemoteError where one is not there or in use; then all stay."""
    reply = agent.call("environments", {"remove": list(keys)}, timeout_s=TIMEOUT_S)
    freed, errors = reply.get("freed_bytes"), reply.get("errors")
    if type(freed) is not int or not 0 <= freed < MOST_BYTES or not isinstance(errors, list):
        raise BadReply(f"{agent.host.name}: what was removed has the wrong shape")
    return Removed(_parsed(agent, reply), freed, tuple(map(str, errors)))


def _parsed(agent: Agent, reply: dict[str, Any]) -> tuple[Environment, ...]:
    try:
        return tuple(map(_environment, reply["environments"]))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadReply(f"{agent.host.name}: the list of environments has the wrong shape") from error


def _environment(row: Any) -> Environment:
    size, state = row["size_bytes"], str(row["state"])
    idle_s = None if row["idle_s"] is None else float(row["idle_s"])
    if type(size) is not int or not 0 <= size < MOST_BYTES or state not in STATES or not 0 <= (idle_s or 0) < MOST_S:
        raise ValueError(f"{row!r:.100}")
    return Environment(
        str(row["key"]), state, str(row["how"]), str(row["base"]), size, idle_s, tuple(map(str, row["used_by"]))
    )
