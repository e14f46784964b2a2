"""`launch wait`: come back when a run is over."""

from __future__ import annotations

import math

import click

from launcher.app import App
from launcher.errors import LaunchError
from launcher.options import json_option, run_argument
from launcher.output import Output


@click.command("wait")
@run_argument
@json_option
@click.pass_obj
def command(app: App, run: str | None, as_json: bool) -> None:
    """Wait until a run is over.

    Exit status 0 if it succeeded, 6 if not, 7 if its adapter failed verification.

    Example: launch wait reviews-k3x7q2mh && launch pull reviews-k3x7q2mh
    """
    from launcher.conclusion import conclude
    from launcher.watch import Part, watch
    from remote.errors import RemoteError
    from remote.runs import State

    record, output = app.ledger.find(run), Output(as_json=as_json)
    nothing = Part(tail=0)  # of the log: nobody reads it
    try:
        state = watch(record, app.agent(record.host), app.ledger, output.observe_notes, part=nothing)
    except (RemoteError, LaunchError):
        if not record.is_over or record.state == "gone":
            raise
        state = State(record.run_id, record.state, record.reason, run_age_s=math.nan)  # how it ended does not change
    except KeyboardInterrupt:
        output.detached("nobody waits any more; the run goes on", f"launch wait {record.run_id}")
    conclude(app, record, state, output)
