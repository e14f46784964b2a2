"""`launch shell`: log in to a host."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.errors import EXIT_OWN_FAILURE


@click.command("shell")
@click.argument("host")
@click.pass_obj
def command(app: App, host: str) -> None:
    """Log in to a host with the saved login, in this terminal.

    Example: launch shell box
    """
    from launcher import shell

    status = shell.run(app.ssh_host(host))
    if status is None:
        app.questions.tell(f"the connection to {host} was lost; log in again: launch shell {host}")
        status = EXIT_OWN_FAILURE
    raise click.exceptions.Exit(status)
