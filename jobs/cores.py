"""How many CPU cores this process may keep busy: what the container's control group and its affinity leave of them.

`os.cpu_count()` and /proc show the machine around a container.  Threads beyond the quota gain nothing: the kernel stops
all of them for the rest of each period, and those that wait for each other wait through it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

THREADS = "OMP_NUM_THREADS"


def set_threads(environment: MutableMapping[str, str], *, system: Path = Path("/")) -> None:
    """Have torch, once it is loaded, start no more threads than there are cores for.

    A positive number that somebody has set stays; AutoDL's 0 is none.  Without a quota torch finds a number itself.
    """
    asked = environment.get(THREADS, "").strip()
    if asked.isdecimal() and int(asked) > 0:
        return
    environment.pop(THREADS, None)
    if (most := quota(system)) is not None and most < available():
        environment[THREADS] = str(most)


def available() -> int:
    """Cores that this process may run on, whatever its quota."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(system: Path = Path("/")) -> int | None:
    """Whole cores, at least 1, that the tightest control group around this process allows; None without a limit."""
    found = [limit for limit in _limits(system) if limit > 0]
    return max(1, math.floor(min(found))) if found else None


def _limits(system: Path) -> Iterator[float]:
    """In cores, of this process's group and those around it."""
    mount = system / "sys/fs/cgroup"
    for line in _text(system / "proc/self/cgroup").splitlines():
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        # Within a container the path may be that outside; then the mount itself is the container's group.
        parts = [part for part in path.split("/") if part not in ("", "..")]
        groups = ["/".join(parts[:count]) for count in range(len(parts), -1, -1)]
        if not controllers:
            for group in groups:
                yield _cores(_text(mount / group / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for group in groups:
                folder = mount / "cpu" / group
                yield _cores([_text(folder / f"cpu.cfs_{what}_us").strip() for what in ("quota", "period")])


def _cores(words: list[str]) -> float:
    """Quota by period; 0 where there is none (`max`, -1, no file)."""
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return 0.0
    return int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", errors="replace")
    except OSError:
        return ""
