"""Everything a run ever started, wherever it went: another group, another session, another parent.

All of it has LAUNCH_RUN in the environment it began with, and what was given another is found by its parents.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Dict, List, Optional, Set

from . import process

RUN_VARIABLE = "LAUNCH_RUN"
"""Variable that every process of a run has, with the run's id."""
POLL_S = 0.05
# A process in the middle of a write to a dead disk can't be ended by anybody.
SWEEP_S = 5.0


class Descendants:
    """The processes of one run, as far as they were seen.  None are where there is no /proc."""

    def __init__(self, run_id: str) -> None:
        self._mark = f"{RUN_VARIABLE}={run_id}".encode("ascii")
        self._seen: Dict[int, Optional[str]] = {}

    @property
    def pids(self) -> Set[int]:
        """Also of those that are gone."""
        return set(self._seen)

    def alive(self) -> List[int]:
        """The pids of those that run now, sorted."""
        table = {pid: (_parent(pid), process.started(pid)) for pid in _pids()}
        # Known from an earlier look: it may have cleared its environment, and lost its parent.
        ours = {pid for pid, (_, started) in table.items() if started is not None and self._seen.get(pid) == started}
        ours |= {pid for pid in table if pid not in ours and self._mark in environment(pid)}
        ours.discard(os.getpid())
        while True:
            more = {pid for pid, (parent, _) in table.items() if parent in ours and pid not in ours}
            if not more:
                break
            ours |= more
        found = {pid: table[pid][1] for pid in ours if table[pid][1] is not None}
        self._seen.update(found)
        return sorted(found)

    def end(self, grace_s: float) -> None:
        """TERM, and KILL after `grace_s` seconds to what is left then."""
        for pid in self.alive():
            _kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.sweep()

    def sweep(self) -> List[int]:
        """KILL until nothing is left; the pids of what can't be killed."""
        deadline = time.monotonic() + SWEEP_S
        while True:
            left = self.alive()
            if not left or time.monotonic() > deadline:
                return left
            for pid in left:
                _kill(pid, signal.SIGKILL)
            time.sleep(POLL_S)


def environment(pid: int) -> List[bytes]:
    """The variables that a process began with; none of one that is gone, or somebody else's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _pids() -> List[int]:
    if not os.path.isdir("/proc/self"):
        return []
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass
