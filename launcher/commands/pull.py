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
@click.option("--force", is_flag=True, help="Also an adapter that failed verification, into a folder RUN.rejected.")
@target_option
@json_option
@click.pass_obj
def command(
    app: App, runs: tuple[str, ...], every: bool, include: tuple[str, ...], force: bool, target: Path, as_json: bool
) -> None:
    """Bring finished runs home, every byte checked; without RUN the latest.

    Nothing stands under its final name before it agrees with the manifest and its adapter looks like a trained one.  A
    pull that was cut goes on where it was.  Exit status 7 where the adapter is not to be used.

    Example: launch pull reviews-k3x7q2mh
    """
    from launcher.bring_home import bring_home
    from launcher.bring_several import bring_several, chosen

    output = Output(as_json=as_json)
    if not every and len(runs) < 2:
        record = app.ledger.find(runs[0] if runs else None)
        agent = app.agent(record.host)
        pulled = bring_home(record, agent, app.ledger, target, output.observe, include=include, force=force)
        output.show(pulled.to_json(), lambda console: console.print(pulled.in_words(), soft_wrap=True))
        return
    records = chosen(app.ledger, runs, every=every)
    several = bring_several(records, app, target, output.observe, include=include, force=force)
    output.show(several.to_json(), lambda console: console.print(several.in_words(), soft_wrap=True))
    if several.failed:
        raise click.exceptions.Exit(several.exit_status)
