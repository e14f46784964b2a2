"""`launch ps`: the runs and how they stand."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import host_option, json_option
from launcher.output import Output


@click.command("ps")
@click.option("-a", "--all", "every", is_flag=True, help="Also runs that are over and pulled.")
@host_option
@json_option
@click.pass_obj
def command(app: App, every: bool, host: str | None, as_json: bool) -> None:
    """How the runs stand.

    Those of this laptop; with --host every run on that host, whoever started it.

    Example: launch ps --host box
    """
    from launcher.overview import overview, render

    rows = overview(app, host=host, every=every)
    Output(as_json=as_json).show({"runs": [row.to_json() for row in rows]}, lambda console: render(rows, console))
