"""`launch verify`: is the adapter here the one that was trained?"""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, run_or_folder
from launcher.output import Output


@click.command("verify")
@run_or_folder
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the base model.")
@click.option("--static", is_flag=True, help="Only what can be seen without running the model.")
@json_option
@click.pass_obj
def command(app: App, run: str | None, base: Path | None, static: bool, as_json: bool) -> None:
    """Prove that a pulled adapter is the one trained.

    Whole, not empty, and giving the logits of the trained model again.  Exit status 7 if not.

    Example: launch verify reviews-k3x7q2mh
    """
    from launcher import home_jobs
    from launcher.verdict import check, render

    output = Output(as_json=as_json)
    home = home_jobs.find(run, app.ledger, base=base)
    verdict = home_jobs.verify(home, app.settings.local_workspace, output.observe_notes, static=static)
    check(home.run.run_id, verdict)
    output.show(verdict, lambda console: render(home.run.run_id, verdict, console))
