"""`launch doctor`: what is wrong here, and on the hosts?"""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("doctor")
@click.argument("hosts", nargs=-1)
@click.option("--no-hosts", is_flag=True, help="Only this machine.")
@json_option
@click.pass_obj
def command(app: App, hosts: tuple[str, ...], no_hosts: bool, as_json: bool) -> None:
    """Check this machine and every saved host (or those named).

    Nobody is asked for a password.  Exit status 1 if something failed.

    Example: launch doctor box
    """
    from launcher import doctor

    checks = doctor.examine(app, () if no_hosts else hosts or None)
    data = {"checks": [one.to_json() for one in checks]}
    Output(as_json=as_json).show(data, lambda console: doctor.render(checks, console))
    if any(one.status == doctor.FAIL for one in checks):
        raise click.exceptions.Exit(1)
