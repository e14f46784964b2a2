"""The verb `stop`: ends a run, and shows that nothing of it is left, be it processes or memory of a GPU.

A descendant may have left the run's process group (setsid, a second fork).  All of them have LAUNCH_RUN in the
environment they began with, and those that were given another are found by their parents.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable, Dict, List, Optional, Set

from . import checkpoints, occupied, process
from .run import START_GRACE_S, Run
from .supervisor import stop_grace_s

POLL_S = 0.05
LOOK_S = 0.5
# What a supervisor takes beyond the grace it gives its job.
ENDING_S = 5.0
# A process in the middle of a write to a dead disk can't be ended by anybody.
SWEEP_S = 5.0
# A driver takes a moment to give a dead process's memory back.
GPU_S = 5.0
VARIABLE = b"LAUNCH_RUN="


def stop(workspace: str, run_id: str) -> Dict[str, Any]:
    """TERM, time to save a checkpoint, KILL; the state after it and the newest `checkpoint`, if there is one.

    `left` are pids of ours that are still there, None where that can't be seen; `gpu_left` those that still hold memory
    of a GPU.  Harmless when the run is over, and when it is asked twice at once.  Raises Refused where there is no such
    run.
    """
    run = Run(workspace, run_id)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whoever asked may leave: it is carried through all the same
    descendants = Descendants(run)
    descendants.alive()
    _end(run, descendants)
    left = _swept(descendants)
    newest = next(iter(checkpoints.of_run(run)), None)
    return {
        "run": run.state(),
        "left": left if os.path.isdir("/proc/self") else None,
        "gpu_left": _on_gpus(descendants),
        "checkpoint": newest,
    }


class Descendants:
    """Everything that a run ever started, as far as it was seen."""

    def __init__(self, run: Run) -> None:
        self._mark = VARIABLE + run.run_id.encode("ascii")
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
        ours |= {pid for pid in table if pid not in ours and self._mark in _environment(pid)}
        ours.discard(os.getpid())
        while True:
            more = {pid for pid, (parent, _) in table.items() if parent in ours and pid not in ours}
            if not more:
                break
            ours |= more
        found = {pid: table[pid][1] for pid in ours if table[pid][1] is not None}
        self._seen.update(found)
        return sorted(found)


def _end(run: Run, descendants: Descendants) -> None:
    """Have the supervisor end the run, or end it without one."""
    plan = run.plan()
    if run.result() is not None or plan["boot"] != process.boot_marker():
        return
    supervisor = _signed_in(run, plan)
    if supervisor is None:
        run.finish("stopped", "asked to, before it started")
    elif process.is_alive(supervisor):
        process.signal_process(supervisor, signal.SIGTERM)
        _wait(lambda: run.result() is None and process.is_alive(supervisor), stop_grace_s(plan) + ENDING_S, descendants)
        if run.result() is None and process.is_alive(supervisor):
            process.signal_process(supervisor, signal.SIGKILL)
            run.finish("stopped", "asked to; the supervisor had to be killed")
    else:
        # Killed earlier, by whom nobody knows; what it left may have a checkpoint to save.
        for pid in descendants.alive():
            _kill(pid, signal.SIGTERM)
        _wait(lambda: bool(descendants.alive()), stop_grace_s(plan), descendants)
    run.state()  # whoever finds a run without supervisor and result writes one
    run.end_orphans()


def _signed_in(run: Run, plan: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The supervisor; waits for one that is only starting."""
    while run.supervisor() is None and time.time() - plan["submitted_at"] < START_GRACE_S:
        time.sleep(POLL_S)
    return run.supervisor()


def _wait(goes_on: Callable[[], bool], seconds: float, descendants: Descendants) -> None:
    deadline, next_look = time.monotonic() + seconds, time.monotonic()
    while goes_on() and time.monotonic() < deadline:
        if time.monotonic() > next_look:
            next_look = time.monotonic() + LOOK_S
            descendants.alive()
        time.sleep(POLL_S)


def _swept(descendants: Descendants) -> List[int]:
    """Kill what is left of the run until nothing is; the pids of what can't be killed."""
    deadline = time.monotonic() + SWEEP_S
    while True:
        left = descendants.alive()
        if not left or time.monotonic() > deadline:
            return left
        for pid in left:
            _kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _on_gpus(descendants: Descendants) -> List[int]:
    """Which of them still hold memory of a GPU, after some seconds at most."""
    deadline = time.monotonic() + GPU_S
    while True:
        left = sorted(descendants.pids.intersection(occupied.gpu_pids(GPU_S) or ()))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)


def _pids() -> List[int]:
    if not os.path.isdir("/proc/self"):
        return []
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: int) -> List[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # gone, or somebody else's
        return []


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
