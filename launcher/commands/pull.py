"""`launch pull`: bring a run home."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, run_argument, target_option
from launcher.output import Output


@click.command("pull")
@run_argument
@target_option
@json_option
@click.pass_obj
def command(app: App, run: str | None, target: Path, as_json: bool) -> None:
    """Bring a finished run home, every byte checked.

    Nothing stands under its final name before it agrees with the manifest.

    Example: launch pull reviews-k3x7q2mh
    """
    from launcher.bring_home import bring_home

    record, output = app.ledger.find(run), Output(as_json=as_json)
    pulled = bring_home(record, app.agent(record.host), app.ledger, target, output.observe)
    output.show(pulled.to_json(), lambda console: console.print(pulled.in_words(), soft_wrap=True))
