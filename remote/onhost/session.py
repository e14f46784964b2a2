"""Starts a supervisor so that it outlives the connection: in a tmux session, else detached with setsid."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from typing import List, NamedTuple, Optional

from . import process
from .refused import Refused
from .run import Run
from .tmux import Found

START_TIMEOUT_S = 15
COMPLAINT_BYTES = 240


class Started(NamedTuple):
    """`how` is tmux or setsid, and `why` what there is to say about that."""

    how: str
    why: str


def start(run: Run, tmux: Found) -> Started:
    """Start the run's supervisor and wait until it has signed in.  Raises Refused."""
    argv = [sys.executable, "-I", sys.argv[0], "supervise", run.workspace, run.run_id]
    started = Started("setsid", tmux.why)
    if tmux.path:
        complaint = _in_tmux(tmux.path, name(run.run_id), run.root, argv)
        started = Started("tmux", tmux.why) if complaint is None else Started("setsid", f"tmux failed: {complaint}")
    if started.how == "setsid":
        _detached(run, argv)
    deadline = time.monotonic() + START_TIMEOUT_S
    while run.supervisor() is None:
        if time.monotonic() > deadline:
            _give_up(run)
            raise Refused("supervisor_not_started", f"the supervisor of {run.run_id} did not start ({started.how})")
        time.sleep(0.01)
    return started


def _give_up(run: Run) -> None:
    """Nobody is to train, and bill, what whoever asked was told did not start: one that comes late finds a result."""
    run.finish("failed", "the supervisor did not start in time")
    process.signal_process(run.supervisor() or {}, signal.SIGTERM)


def name(run_id: str) -> str:
    """The tmux session of a run."""
    return "launch-" + run_id


def _in_tmux(tmux: str, session: str, folder: str, argv: List[str]) -> Optional[str]:
    """None, or what tmux said when it failed."""
    # A file: of a pipe the server would hold the other end for as long as it lives.
    with tempfile.TemporaryFile(dir=folder) as said:
        started = subprocess.run(
            # tmux joins its words for a shell when there is one, and runs several as they are: no quoting needed.
            [tmux, "new-session", "-d", "-s", session, "-c", folder, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            check=False,
        )
        said.seek(0)
        complaint = said.read(COMPLAINT_BYTES).decode("utf-8", "replace").strip()
    return None if started.returncode == 0 else complaint or f"status {started.returncode}"


def _detached(run: Run, argv: List[str]) -> None:
    with open(run.path("supervisor.log"), "ab") as log:
        subprocess.Popen(
            argv, cwd=run.root, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
