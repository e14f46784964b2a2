"""The tmux session of a run, over this terminal, until the person detaches from it."""

from __future__ import annotations

import os
import subprocess

from launcher import shell
from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import Line
from launcher.untrusted import clean
from remote import runs
from remote.ssh.host import SshHost

# Terminals that a host without their description would not know are close enough to this one.
USUAL = "xterm-256color"
KNOWN = ("xterm", "xterm-256color", "screen", "screen-256color", "tmux", "tmux-256color", "linux", "vt100")


def attach(app: App, line: Line) -> int | None:
    """Exit status of tmux, None where the connection broke.  The run does not notice.

    Raises LaunchError without a terminal, for a run that is over, and for one that runs without tmux.
    """
    instead = f"launch logs {line.run_id} -f"
    shell.require_terminal(instead)
    agent = app.agent(line.host)
    state, argv = runs.session(agent, line.run_id)
    if state.state != "unknown":
        app.ledger.note_state(line.run_id, state.state, state.reason)
    if state.is_over:
        told = f"{line.run_id} is over ({clean(state.state)})"
        raise LaunchError(told, hint=f"launch logs {line.run_id}")
    if not argv:
        raise LaunchError(f"{line.run_id} runs on {line.host} without a tmux session to attach to", hint=instead)
    term = os.environ.get("TERM", "")
    argv = ["env", f"TERM={term if term in KNOWN else USUAL}", *argv]
    if isinstance(agent.host, SshHost):
        return shell.run(agent.host, argv)
    env = {name: value for name, value in os.environ.items() if name != "TMUX"}  # else tmux refuses to nest
    return subprocess.run(argv, env=env, check=False).returncode
