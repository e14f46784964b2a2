"""`launch train`: check, push, start, watch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from launcher.app import App
from launcher.options import sending_options, spec_and_host, terms_options
from launcher.output import Output


@click.command("train")
@spec_and_host
@click.option("-d", "--detach", is_flag=True, help="Start it and come back at once.")
@click.option("--dry-run", is_flag=True, help="Check everything, here and there, and print the plan; nothing is sent.")
@click.option("--force", is_flag=True, help="Go on in spite of what was found in the data or on the host.")
@terms_options
@sending_options
@click.pass_obj
def command(
    app: App,
    /,
    spec: Path,
    host: str,
    detach: bool,
    dry_run: bool,
    force: bool,
    max_hours: float | None,
    on_finish: str | None,
    keep_on_failure: bool,
    notify: tuple[str, ...],
    push_model: bool,
    offline_wheels: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train a LoRA classifier on a host.  Ctrl-C only stops watching: the run needs nobody.

    The data (see `launch check`) and the host are looked at before anything is sent: what would go wrong is said, and
    what is fatal stops it.

    Example: launch train reviews.yaml --host box --num-train-epochs 2
    """
    from jobs.spec import load
    from launcher import checked_data, forecast, preflight, run_secrets, submit, wheelhouse
    from launcher.follow import follow
    from launcher.price import of_spec
    from launcher.progress import Note
    from launcher.room import needed
    from launcher.terms import Terms
    from launcher.untrusted import clean

    terms = Terms(max_hours, on_finish, keep_on_failure, notify)
    asked = load(spec, {key: value for key, value in flags.items() if value is not None})
    output = Output(as_json=as_json, price=of_spec(asked.price))
    plan = submit.plan(asked, spec.absolute().parent, app.settings.cache, push_model=push_model)
    if not dry_run:
        checked_data.require(plan.findings, output.observe, force=force)
    agent = app.agent(host)
    recipe = submit.recipe_for(agent, asked.report_to)
    if offline_wheels:
        plan = plan.with_wheels(wheelhouse.collect(agent, recipe, app.settings.cache, output.observe))
    room = partial(needed, agent, recipe, plan)
    report = preflight.look(app, host, send_bytes=plan.size_bytes, send_files=len(plan.files), room=room)
    expected = forecast.forecast(plan, report.facts)
    if expected is not None:
        report = replace(report, findings=(*report.findings, *forecast.findings(expected, plan.submission.spec)))
        output.observe(Note(clean(expected.in_words(plan.submission.spec))))
    if dry_run:
        terms.for_host(report.profile, agent)  # raises where the host could not keep them
        if lacking := run_secrets.lacking(asked.secrets):
            report = replace(report, findings=(*report.findings, preflight.no_secrets(lacking)))
        data = plan.to_json() | {"findings": [one.to_json() for one in report.findings]}
        data |= {"forecast": expected.to_json() if expected else None}
        output.show(data, lambda console: console.print(preflight.in_words(report, plan), soft_wrap=True))
        stops = (report.is_fatal and not force) or plan.is_unfit(force=force)
        raise click.exceptions.Exit(1 if stops else 0)
    preflight.check(report, output.observe, force=force)
    secrets = run_secrets.collect(asked.secrets, app.questions) | terms.secrets(app.questions)
    record, started = submit.submit(
        plan, agent, host, app.ledger, output.observe, terms=terms.for_host(report.profile, agent), secrets=secrets
    )
    if detach:
        data = submit.told(record, started)
        output.show(data, lambda console: console.print(f"{record.run_id}\nlaunch logs {record.run_id} -f"))
        return
    follow(app, record, output)
