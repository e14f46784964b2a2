"""`launch shell`: log in to a host."""

from __future__ import annotations

import click

from launcher.app import App


@click.command("shell")
@click.argument("host")
@click.pass_obj
def command(app: App, host: str) -> None:
    """Log in to a host with the saved login, in this terminal.

    Example: launch shell box
    """
    from launcher import shell

    raise click.exceptions.Exit(shell.run(app.ssh_host(host)))
