"""Whether a machine that is on is of use to anybody: runs, people, processes on its GPUs."""

from __future__ import annotations

import os
from typing import Any, Dict, List

from . import inventory, occupied, process

# Longer than nvidia-smi takes on any machine that is well; whoever asks waits for it.
GPU_TIMEOUT_S = 4.0


def look(workspace: str) -> Dict[str, Any]:
    """`live` ids of runs, `logins` and `gpu_pids` as `occupied` has them, and `uptime_s`; None for what can't be seen.

    The GPUs are only looked at where nothing else says that the machine is in use: it is the slowest question.
    """
    live = _live(workspace)
    logins = occupied.logins()
    gpu_pids = None if live or logins else occupied.gpu_pids(GPU_TIMEOUT_S)
    return {"live": live, "logins": logins, "gpu_pids": gpu_pids, "uptime_s": _uptime_s()}


def _live(workspace: str) -> List[str]:
    # Of runs that are over there may be thousands: only what has no result is looked at in full.
    names = inventory.names(workspace, "runs")
    open_ones = [name for name in names if not os.path.exists(os.path.join(workspace, "runs", name, "result.json"))]
    return [name for name in open_ones if inventory.is_live(workspace, name)]


def _uptime_s() -> Any:
    """How long this machine or container has been on: the age of its first process."""
    started = process.started(1)
    if started is None or not started.isdigit():
        return None
    return max(0.0, process.clock() - int(started) / os.sysconf("SC_CLK_TCK"))
