"""The verb `stop`: ends a run, and shows that nothing of it is left, be it processes or memory of a GPU."""

from __future__ import annotations

import os
import signal
import time
from typing import Any, Callable, Dict, List, Optional

from . import checkpoints, occupied, process
from .descendants import Descendants
from .run import START_GRACE_S, Run, run_age_s
from .supervisor import stop_grace_s

POLL_S = 0.05
LOOK_S = 0.5
# What a supervisor takes beyond the grace it gives its job.
ENDING_S = 5.0
# A driver takes a moment to give a dead process's memory back.
GPU_S = 5.0


def stop(workspace: str, run_id: str) -> Dict[str, Any]:
    """TERM, time to save a checkpoint, KILL; the state after it and the newest `checkpoint`, if there is one.

    `left` are pids of ours that are still there, None where that can't be seen; `gpu_left` those that still hold memory
    of a GPU.  Harmless when the run is over, and when it is asked twice at once.  Raises Refused where there is no such
    run.
    """
    run = Run(workspace, run_id)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whoever asked may leave: it is carried through all the same
    descendants = Descendants(run.run_id)
    descendants.alive()
    _end(run, descendants)
    left = descendants.sweep()
    newest = next(iter(checkpoints.of_run(run)), None)
    return {
        "run": run.state(),
        "left": left if os.path.isdir("/proc/self") else None,
        "gpu_left": _on_gpus(descendants),
        "checkpoint": newest,
    }


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
        descendants.end(stop_grace_s(plan))
    run.state()  # whoever finds a run without supervisor and result writes one
    run.end_orphans()


def _signed_in(run: Run, plan: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The supervisor; waits for one that is only starting."""
    while run.supervisor() is None and run_age_s(plan) < START_GRACE_S:
        time.sleep(POLL_S)
    return run.supervisor()


def _wait(goes_on: Callable[[], bool], seconds: float, descendants: Descendants) -> None:
    deadline, next_look = time.monotonic() + seconds, time.monotonic()
    while goes_on() and time.monotonic() < deadline:
        if time.monotonic() > next_look:
            next_look = time.monotonic() + LOOK_S
            descendants.alive()
        time.sleep(POLL_S)


def _on_gpus(descendants: Descendants) -> List[int]:
    """Which of them still hold memory of a GPU, after some seconds at most."""
    deadline = time.monotonic() + GPU_S
    while True:
        left = sorted(descendants.pids.intersection(occupied.gpu_pids(GPU_S) or ()))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)
