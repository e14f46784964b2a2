"""Starts the process that watches over a run from outside, so that it outlives the supervisor, tmux and the login."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from typing import Any, Dict, Mapping, Optional, Sequence

from .descendants import RUN_VARIABLE
from .run import Run

SIGN_IN = "guard.json"
START_S = 10.0


def start(run: Run, targets: Sequence[Dict[str, Any]], variables: Optional[Mapping[str, str]] = None) -> None:
    """Start the guard of a run and wait until it has signed in, or some seconds.

    `variables` (such as a proxy, which may hold a password) and `targets` go to it alone.  Where no process can be
    started the run goes on without; how its fuse stands tells that.
    """
    argv = [sys.executable, "-I", sys.argv[0], "guard", run.workspace, run.run_id]
    env = {**os.environ, **run.plan()["login_env"]}
    env.pop(RUN_VARIABLE, None)  # whoever ends all processes of the run must not end this one
    handed = json.dumps({"targets": list(targets), "variables": dict(variables or {})}).encode("ascii")
    try:
        guard = subprocess.Popen(argv, cwd="/", env=env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, start_new_session=True, close_fds=True)  # fmt: skip
    except OSError:
        return
    assert guard.stdin is not None
    with contextlib.suppress(BrokenPipeError), guard.stdin:
        guard.stdin.write(handed)
    deadline = time.monotonic() + START_S
    while not os.path.exists(run.path(SIGN_IN)) and guard.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
