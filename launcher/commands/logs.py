"""`launch logs`: what a run printed."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option, run_argument
from launcher.output import Output


@click.command("logs")
@run_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the run is over.")
@click.option("-n", "--tail", type=click.IntRange(min=0), help="Only the last N lines.")
@json_option
@click.pass_obj
def command(app: App, run: str | None, following: bool, tail: int | None, as_json: bool) -> None:
    """Print a run's log.  Ctrl-C stops the printing, not the run.

    Example: launch logs reviews-k3x7q2mh -f
    """
    from launcher.follow import follow
    from launcher.log_text import log_text

    record, output = app.ledger.find(run), Output(as_json=as_json)
    if following:
        follow(app, record, output)
        return
    text = log_text(app, record, tail)
    output.show({"run_id": record.run_id, "log": text}, lambda console: click.echo(text, nl=not text.endswith("\n")))
