"""`launch pull`: bring runs home."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, target_option
from launcher.output import Output


@click.command("pull")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "every", is_flag=True, help="Every finished run that is not home yet.")
@click.option(
    "--include", multiple=True, metavar="GLOB", help="Only artifacts that match, such as 'adapter/*'; may be repeated."
)
@target_option
@json_option
@click.pass_obj
def command(
    app: App, runs: tuple[str, ...], every: bool, include: tuple[str, ...], target: Path, as_json: bool
) -> None:
    """Bring finished runs home, every byte checked; without RUN the latest.

    Nothing stands under its final name before it agrees with the manifest.  A pull that was cut goes on where it was.

    Example: launch pull reviews-k3x7q2mh
    """
    from launcher.bring_home import bring_home, bring_several, chosen

    output = Output(as_json=as_json)
    if not every and len(runs) < 2:
        record = app.ledger.find(runs[0] if runs else None)
        pulled = bring_home(record, app.agent(record.host), app.ledger, target, output.observe, include=include)
        output.show(pulled.to_json(), lambda console: console.print(pulled.in_words(), soft_wrap=True))
        return
    several = bring_several(chosen(app.ledger, runs, every=every), app, target, output.observe, include=include)
    output.show(several.to_json(), lambda console: console.print(several.in_words(), soft_wrap=True))
    if several.failed:
        raise click.exceptions.Exit(several.exit_status)
