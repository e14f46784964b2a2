"""`launch prepare`: everything that a run needs, before it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.app import App
from launcher.options import sending_options, spec_and_host
from launcher.output import Output


@click.command("prepare")
@spec_and_host
@sending_options
@click.pass_obj
def command(
    app: App, /, spec: Path, host: str, push_model: bool, offline_wheels: bool, as_json: bool, **flags: Any
) -> None:
    """Send data, build the environment and fetch the base model; no GPU is needed, nor paid for.

    It goes on in a session on the host: closing the laptop harms nothing.  What is ready is not done again.

    Example: launch prepare reviews.yaml --host box
    """
    from jobs.spec import load
    from launcher import checked_data, submit
    from launcher.prepare import prepare

    output = Output(as_json=as_json)
    asked = load(spec, {key: value for key, value in flags.items() if value is not None})
    plan = submit.plan(asked, spec.absolute().parent, app.settings.cache, only_prepare=True, push_model=push_model)
    checked_data.require(plan.findings, output.observe, force=True)  # whether it is worth a training is asked then
    prepared = prepare(app, host, plan, output.observe, offline_wheels=offline_wheels)
    output.show(prepared.to_json(), lambda console: console.print(prepared.in_words(), soft_wrap=True))
