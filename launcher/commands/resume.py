"""`launch resume`: go on from the newest checkpoint of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from launcher.app import App
from launcher.commands.retry import begin
from launcher.options import attempt_options

if TYPE_CHECKING:
    from launcher.again import Attempt, Wheels
    from launcher.ledger import Record
    from launcher.progress import Observer


@click.command("resume")
@attempt_options("Even where the old attempt may still go on, or was taken over.")
@click.pass_obj
def command(app: App, /, force: bool, **asked: Any) -> None:
    """Start a new attempt that goes on where a run stopped, on its own host or on another.

    It says first from which checkpoint.  The old attempt is taken over: only the new one comes home.  Ctrl-C only stops
    watching.

    Example: launch resume reviews-k3x7q2mh --host other-box
    """
    from launcher import resume

    def plan(old: Record, there: str, observer: Observer, wheels: Wheels) -> Attempt:
        return resume.plan(app, old, there, observer, force=force, wheels=wheels)

    begin(app, "Resume", plan, force=force, **asked)
