"""How much memory this process may have, and how near that it is: the tightest limit around it, of whatever kind.

`/proc/meminfo` shows the machine around a container; the container's own figures stand in its control group, of which
there are two versions.  The cache of files does not count: it fills whatever is there, and the kernel
gives it back when asked.
"""

from __future__ import annotations

import os
from typing import Dict, Iterator, NamedTuple, Optional

ROOT = "/sys/fs/cgroup"
# A limit beyond this is none: version 1 writes the largest number of pages instead.
UNLIMITED = 1 << 60


class Memory(NamedTuple):
    """In bytes; None where that can't be seen.  `oom_kills` is the kernel's count since the group was made."""

    used_bytes: Optional[int] = None
    limit_bytes: Optional[int] = None
    oom_kills: Optional[int] = None


def look() -> Memory:
    """How it is now.  Never raises."""
    found = [one for one in (*_groups(), _machine()) if one.limit_bytes is not None and one.limit_bytes < UNLIMITED]
    return min(found, key=lambda one: one.limit_bytes or 0, default=Memory())


def _groups() -> Iterator[Memory]:
    """This process's group and those around it."""
    for line in _text("/proc/self/cgroup").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers == "":
            mounts, read = [ROOT, os.path.join(ROOT, "unified")], _second
        elif "memory" in controllers.split(","):
            mounts, read = [os.path.join(ROOT, "memory")], _first
        else:
            continue
        # Within a container the path may be that outside; then the mount itself is the container's group.
        parts = [part for part in path.split("/") if part and part != ".."]
        for mount in mounts:
            for count in range(len(parts), -1, -1):
                yield read(os.path.join(mount, *parts[:count]))


def _first(group: str) -> Memory:
    """Version 1."""
    used, limit = _number(group, "memory.usage_in_bytes"), _number(group, "memory.limit_in_bytes")
    cache = _cache(group, "total_active_file", "total_inactive_file")
    return Memory(used and max(0, used - cache), limit, _table(group, "memory.oom_control").get("oom_kill"))


def _second(group: str) -> Memory:
    """Version 2."""
    used, limit = _number(group, "memory.current"), _number(group, "memory.max")
    cache = _cache(group, "active_file", "inactive_file")
    return Memory(used and max(0, used - cache), limit, _table(group, "memory.events").get("oom_kill"))


def _cache(group: str, *names: str) -> int:
    told = _table(group, "memory.stat")
    return sum(told.get(name, 0) for name in names)


def _machine() -> Memory:
    known = _table("/proc", "meminfo")
    total, available = known.get("MemTotal:"), known.get("MemAvailable:")
    if total is None or available is None:
        return Memory()
    # Its count of kills would be that of everybody's processes, of other containers, too.
    return Memory(1024 * (total - available), 1024 * total)


def _number(folder: str, name: str) -> Optional[int]:
    text = _text(os.path.join(folder, name)).strip()
    return int(text) if text.isdigit() else None


def _table(folder: str, name: str) -> Dict[str, int]:
    rows = (line.split() for line in _text(os.path.join(folder, name)).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
