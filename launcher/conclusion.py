"""Shows how a run ended, and what to do about it."""

from __future__ import annotations

import math

from launcher import rejected
from launcher.app import App
from launcher.errors import LaunchError, RunFailed, VerificationFailed
from launcher.ledger import Record
from launcher.log_text import log_text
from launcher.output import Output
from launcher.watch import Part
from remote import failure
from remote.errors import RemoteError
from remote.runs import State

# The end of a log is where a failure is told; further up stands what was survived.
TAIL_LINES = 40
TAIL_CHARACTERS = 1_000_000


def conclude(app: App, record: Record, state: State, output: Output) -> None:
    """Show how a run ended.

    Raises VerificationFailed where its adapter is not to be used, RunFailed where it did not succeed otherwise, with
    what its log's end means, if that is known.
    """
    if rejected.by_host(state):
        reason = f"{record.run_id} {state.state}: {state.reason}: do not use its adapter"
        raise VerificationFailed(reason, hint=f"launch pull {record.run_id} tells what that means")
    if state.state != "succeeded":
        said = f"{record.run_id} {state.state}" + (f": {state.reason}" if state.reason else "")
        hint = f"launch logs {record.run_id} -n 50"
        if state.state != "stopped" and (row := _explained(app, record, state)):
            said += f"\nThat means: {row.meaning}"
            hint = f"{row.next_command(host=record.host, run=record.run_id)} ({hint} shows more)"
        raise RunFailed(said, hint=hint)
    seconds = round(state.run_age_s, 1) if math.isfinite(state.run_age_s) else None  # infinity is not JSON
    data = {"run_id": record.run_id, "host": record.host, "state": state.state, "seconds": seconds}
    output.show(data, lambda console: console.print(f"{record.run_id} succeeded\nlaunch pull {record.run_id}"))


def _explained(app: App, record: Record, state: State) -> failure.Failure | None:
    """The log's end tells more than a status does."""
    try:
        tail = log_text(app, record, Part(tail=TAIL_LINES), TAIL_CHARACTERS)
    except (RemoteError, LaunchError):
        tail = ""
    return failure.while_running(tail) or failure.while_running(state.reason)
