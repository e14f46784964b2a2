"""`launch compare`: which of these is better, and is that more than chance?"""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("compare")
@click.argument("runs", nargs=-1, metavar="RUN|DIR RUN|DIR...")
@click.option("--data", default="", metavar="NAME", help="Evaluations made with `launch evaluate --data NAME`.")
@click.option("--common", is_flag=True, help="Compare on the rows that all of them have, where the rows differ.")
@json_option
@click.pass_obj
def command(app: App, runs: tuple[str, ...], data: str, common: bool, as_json: bool) -> None:
    """Compare pulled runs on the same rows: each of the others against the first.

    Goes by the logits of the last evaluation here, else by those that came with the run; no model is run.

    Example: launch compare reviews-k3x7q2mh reviews-large-b2d4f6h7
    """
    from launcher.compare import compare, render

    if len(runs) < 2:
        raise click.UsageError("two runs or more are compared: launch compare RUN RUN")
    output = Output(as_json=as_json)
    compared = compare(runs, app.ledger, app.settings.local_workspace, output.observe, data=data, common=common)
    output.show(compared, lambda console: render(compared, console))
