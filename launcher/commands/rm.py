"""`launch rm`: remove runs."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="RUN...")
@click.option("--force", is_flag=True, help="Also a run that succeeded and is not at home: it is lost then.")
@click.option(
    "--only-here", is_flag=True, help="Forget it on this laptop; its host is not asked, for it is gone for ever."
)
@json_option
@click.pass_obj
def command(app: App, names: tuple[str, ...], force: bool, only_here: bool, as_json: bool) -> None:
    """Remove runs that are over from their hosts, and from the memory of this laptop.

    What was pulled stays at home.  A run that is not over has to be stopped first.

    Example: launch rm reviews-k3x7q2mh reviews-p4mfa6wz
    """
    from launcher.remove import remove_several

    output = Output(as_json=as_json)
    several = remove_several(app, [app.ledger.find(name) for name in names], force=force, only_here=only_here)
    output.show(several.to_json(), lambda console: console.print(several.in_words(), soft_wrap=True))
    if several.failed or any(one.errors for one in several.removed):
        raise click.exceptions.Exit(several.exit_status or 1)
