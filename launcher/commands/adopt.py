"""`launch adopt`: take over a run that another laptop started."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("adopt")
@click.argument("run")
@click.option("--host", help="The host it lies on; without it all saved hosts are searched.")
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of the base model here, where the run's was sent from a folder.",
)
@json_option
@click.pass_obj
def command(app: App, run: str, host: str | None, base: Path | None, as_json: bool) -> None:
    """Take a run over that another laptop started: `logs`, `wait`, `pull` and `verify` work with it from then on.

    What was asked for is known from its host alone then; `launch verify` says so.

    Example: launch adopt reviews-k3x7q2mh --host box
    """
    from launcher.adopt import adopt

    output = Output(as_json=as_json)
    adopted = adopt(app, run, host, output.observe_notes, base=base)
    output.show(adopted.to_json(), lambda console: console.print(adopted.in_words(), soft_wrap=True))
