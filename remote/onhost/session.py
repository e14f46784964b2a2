"""Starts a supervisor so that it outlives the connection: in a tmux session, else detached with setsid."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import List

from .refused import Refused
from .run import Run

START_TIMEOUT_S = 15


def start(run: Run) -> str:
    """Start the run's supervisor and wait until it has signed in; `tmux` or `setsid`.  Raises Refused."""
    argv = [sys.executable, "-I", sys.argv[0], "supervise", os.path.dirname(os.path.dirname(run.root)), run.run_id]
    session = name(run.run_id)
    how = "tmux" if _in_tmux(session, run.root, argv) else "setsid"
    if how == "setsid":
        _detached(run, argv)
    deadline = time.monotonic() + START_TIMEOUT_S
    while run.supervisor() is None:
        if time.monotonic() > deadline:
            raise Refused("supervisor_not_started", f"the supervisor of {run.run_id} did not start ({how})")
        time.sleep(0.01)
    return how


def name(run_id: str) -> str:
    """The tmux session of a run."""
    return "launch-" + run_id


def _in_tmux(session: str, folder: str, argv: List[str]) -> bool:
    tmux = shutil.which("tmux")
    if tmux is None:
        return False
    started = subprocess.run(
        # tmux joins its words for a shell when there is one, and runs several as they are: no quoting needed.
        [tmux, "new-session", "-d", "-s", session, "-c", folder, *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return started.returncode == 0


def _detached(run: Run, argv: List[str]) -> None:
    with open(run.path("supervisor.log"), "ab") as log:
        subprocess.Popen(
            argv, cwd=run.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
