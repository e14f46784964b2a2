"""The same submission once more, from its start."""

from __future__ import annotations

from launcher import again
from launcher.again import Attempt, Wheels
from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import Record


def plan(app: App, old: Record, host: str, *, force: bool = False, wheels: Wheels = ()) -> Attempt:
    """The attempt that does what `old` was asked to do, to be started on `host`.

    Raises LaunchError for a run that goes on, was taken over, succeeded, or whose host can't be asked (`force` goes on
    in the last three cases), and Changed as `again.attempt` does.
    """
    again.require_newest(old, force=force, verb="retry")
    state = again.require_ended(app, old, force=force, verb="retry")
    if state.state == "succeeded" and not force:
        raise LaunchError(
            f"{old.run_id} succeeded", hint=f"launch pull {old.run_id}, or launch retry {old.run_id} --force"
        )
    return again.attempt(old, app.agent(host), host, app.settings.cache, wheels=wheels)
