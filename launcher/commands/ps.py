"""`launch ps`: the runs and how they stand."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import host_option, json_option
from launcher.output import Output


@click.command("ps")
@click.option("-a", "--all", "every", is_flag=True, help="Also runs that are over and pulled, or taken over.")
@host_option
@json_option
@click.pass_obj
def command(app: App, every: bool, host: str | None, as_json: bool) -> None:
    """How the runs stand.

    Those of this laptop; with --host every run on that host, whoever started it.  All hosts are asked at once, for some
    seconds at most; what can't be asked is `unknown`, which says nothing about the run.

    Example: launch ps --host box
    """
    from launcher import runs_table
    from launcher.overview import overview

    output = Output(as_json=as_json)
    with output.changing_text(runs_table.lines) as show:
        seen = overview(app, host=host, every=every, observer=show)
    output.show_text(seen.to_json(), lambda width: [*runs_table.lines(seen, width), *runs_table.notes(seen, width)])
