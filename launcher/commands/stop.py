"""`launch stop`: end a run."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option, yes_option
from launcher.output import Output


@click.command("stop")
@click.argument("run", required=False)
@yes_option
@json_option
@click.pass_obj
def command(app: App, run: str | None, yes: bool, as_json: bool) -> None:
    """End a run on its host.  Without RUN it asks before ending the latest.

    Example: launch stop reviews-k3x7q2mh
    """
    from launcher.untrusted import clean
    from remote import runs

    record = app.ledger.find(run)
    if run is None and not yes and not click.confirm(f"Stop {record.run_id} on {record.host}?", err=True):
        raise click.Abort
    state = runs.stop(app.agent(record.host), record.run_id)
    app.ledger.note_state(record.run_id, state.state, state.reason)
    data = {"run_id": record.run_id, "state": state.state, "reason": clean(state.reason)}
    Output(as_json=as_json).show(data, lambda console: console.print(f"{record.run_id} {state.state}"))
