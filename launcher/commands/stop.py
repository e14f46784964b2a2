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

    It gets ten seconds to save a checkpoint.  Exit status 1 where a process of it, or its memory on a GPU, is left.

    Example: launch stop reviews-k3x7q2mh
    """
    from launcher.stop import stop

    record = app.ledger.find(run)
    if run is None and not yes and not click.confirm(f"Stop {record.run_id} on {record.host}?", err=True):
        raise click.Abort
    output = Output(as_json=as_json)
    try:
        ended = stop(app, record)
    except KeyboardInterrupt:
        output.detached(f"nobody waits any more; {record.host} may still be ending it", "launch ps")
    output.show(ended.to_json(), lambda console: console.print(ended.in_words(), soft_wrap=True))
