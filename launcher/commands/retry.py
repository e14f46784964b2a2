"""`launch retry`: do the same once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from launcher.app import App
from launcher.options import attempt_options
from launcher.output import Output

if TYPE_CHECKING:
    from launcher.again import Attempt, Wheels
    from launcher.ledger import Record
    from launcher.progress import Observer


@click.command("retry")
@attempt_options("Even where the old attempt may still go on, was taken over, or succeeded.")
@click.pass_obj
def command(app: App, /, force: bool, **asked: Any) -> None:
    """Start a new attempt of the same submission from its start, on its own host or on another.

    The old attempt is taken over, unless it succeeded: only the new one comes home.  Ctrl-C only stops watching.

    Example: launch retry reviews-k3x7q2mh
    """
    from launcher import retry

    def plan(old: Record, there: str, observer: Observer, wheels: Wheels) -> Attempt:
        return retry.plan(app, old, there, force=force, wheels=wheels)

    begin(app, "Retry", plan, force=force, **asked)


def begin(
    app: App,
    verb: str,
    plan: Callable[[Record, str, Observer, Wheels], Attempt],
    *,
    run: str | None,
    host: str | None,
    detach: bool,
    force: bool,
    offline_wheels: bool,
    yes: bool,
    as_json: bool,
    **terms: Any,
) -> None:
    """Start the attempt that `plan` makes of a run for a host, and watch it unless it is to be left alone."""
    from launcher import again
    from launcher.follow import follow
    from launcher.price import of_spec
    from launcher.terms import Terms

    asked = Terms(**terms)
    old = app.ledger.find(run)
    output = Output(as_json=as_json, price=of_spec(old.submission.spec.price))
    there = host or old.host
    wheels = again.wheels(app, old, there, output.observe) if offline_wheels else ()
    attempt = plan(old, there, output.observe, wheels)
    if run is None and not yes and not click.confirm(f"{verb} {old.run_id} on {there}?", err=True):
        raise click.Abort
    started = again.start(app, old, attempt, app.agent(there), output.observe, asked, force=force)
    record = attempt.record
    if detach:
        data = again.to_json(record, old, started)
        output.show(data, lambda console: console.print(f"{record.run_id}\nlaunch logs {record.run_id} -f"))
        return
    follow(app, record, output)
