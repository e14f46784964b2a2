"""Follows a run on the screen and ends as the run ended; Ctrl-C leaves the run alone."""

from __future__ import annotations

from launcher.app import App
from launcher.conclusion import conclude
from launcher.ledger import Record
from launcher.log_text import kept_log
from launcher.output import Output
from launcher.progress import Note
from launcher.watch import WHOLE, Part, watch
from remote.errors import RemoteError


def follow(app: App, record: Record, output: Output, part: Part = WHOLE) -> None:
    """Show log and events until the run is over.

    Raises as `conclude` does, and what keeps us from the host; Ctrl-C ends
    the process with 130.
    """
    kept = kept_log(app, record)
    try:
        state = watch(record, app.agent(record.host), app.ledger, output.observe, part=part, kept=kept)
    except KeyboardInterrupt:
        output.detached("detached; the run goes on", f"launch logs {record.run_id} -f")
    except RemoteError:
        if kept.standing():
            output.observe(Note(f"launch logs {record.run_id} shows what is known of the log without the host"))
        raise
    conclude(app, record, state, output)
