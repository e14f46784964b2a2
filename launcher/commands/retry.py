"""`launch retry`: do the same once more."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option, offline_wheels_option, terms_options, yes_option
from launcher.output import Output


@click.command("retry")
@click.argument("run", required=False)
@click.option("--host", help="Another host to start it on; its own where this is left out.")
@click.option("-d", "--detach", is_flag=True, help="Start it and come back at once.")
@click.option("--force", is_flag=True, help="Even where the old attempt may still go on, was taken over, or succeeded.")
@terms_options
@offline_wheels_option
@yes_option
@json_option
@click.pass_obj
def command(
    app: App,
    run: str | None,
    host: str | None,
    detach: bool,
    force: bool,
    max_hours: float | None,
    on_finish: str | None,
    keep_on_failure: bool,
    notify: tuple[str, ...],
    offline_wheels: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Start a new attempt of the same submission from its start, on its own host or on another.

    The old attempt is taken over, unless it succeeded: only the new one comes home.  Ctrl-C only stops watching.

    Example: launch retry reviews-k3x7q2mh
    """
    from launcher import again, retry
    from launcher.follow import follow
    from launcher.price import of_spec
    from launcher.terms import Terms

    terms = Terms(max_hours, on_finish, keep_on_failure, notify)
    old = app.ledger.find(run)
    output = Output(as_json=as_json, price=of_spec(old.submission.spec.price))
    there = host or old.host
    wheels = again.wheels(app, old, there, output.observe) if offline_wheels else ()
    attempt = retry.plan(app, old, there, force=force, wheels=wheels)
    if run is None and not yes and not click.confirm(f"Retry {old.run_id} on {there}?", err=True):
        raise click.Abort
    started = again.start(app, old, attempt, app.agent(there), output.observe, terms, force=force)
    record = attempt.record
    if detach:
        data = again.to_json(record, old, started)
        output.show(data, lambda console: console.print(f"{record.run_id}\nlaunch logs {record.run_id} -f"))
        return
    follow(app, record, output)
