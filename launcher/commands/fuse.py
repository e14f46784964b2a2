"""`launch fuse`: the power-off that waits for the end of a run."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import host_option, json_option, run_argument, yes_option
from launcher.output import Output


@click.group("fuse")
def command() -> None:
    """Show or disarm the power-off that `launch train --on-finish poweroff` armed.

    Example: launch fuse show reviews-k3x7q2mh
    """


@command.command()
@run_argument
@host_option
@json_option
@click.pass_obj
def show(app: App, run: str | None, host: str | None, as_json: bool) -> None:
    """How the fuse of a run stands: armed, waiting (for whom), kept after a failure, off, or not there.

    With --host every armed fuse of that host, whoever's run it is; of a RUN there, only its own.

    Example: launch fuse show --host box
    """
    from launcher import fuses

    shown = fuses.look(app, run, host)
    Output(as_json=as_json).show(
        {"fuses": [one.to_json() for one in shown]},
        lambda console: console.print(fuses.in_words(shown), soft_wrap=True),
    )


@command.command()
@run_argument
@host_option
@yes_option
@json_option
@click.pass_obj
def off(app: App, run: str | None, host: str | None, yes: bool, as_json: bool) -> None:
    """Disarm the fuse of a run: its host stays on.  Without RUN it asks before doing that to the latest.

    Example: launch fuse off reviews-k3x7q2mh
    """
    from launcher import fuses

    place = fuses.find(app, run, host)
    if run is None and not yes and not click.confirm(f"Disarm {place.run_id} on {place.host}?", err=True):
        raise click.Abort
    disarmed = fuses.off(app, place)
    Output(as_json=as_json).show(
        disarmed.to_json(), lambda console: console.print(fuses.in_words([disarmed]), soft_wrap=True)
    )
