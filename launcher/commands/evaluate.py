"""`launch evaluate` (also `evaluate`): how good is it?"""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, run_or_folder
from launcher.output import Output


@click.command("evaluate")
@run_or_folder
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="CSV, TSV, JSONL or Parquet, or a folder of these, instead of the test split.",
)
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the base model.")
@json_option
@click.pass_obj
def command(app: App, run: str | None, data: Path | None, base: Path | None, as_json: bool) -> None:
    """Evaluate a pulled run here; writes report.html.

    Example: launch evaluate reviews-k3x7q2mh --data more.csv
    """
    from launcher import home_jobs
    from launcher.scores import render

    output = Output(as_json=as_json)
    home = home_jobs.find(run, app.ledger, base=base)
    evaluated = home_jobs.evaluate(home, app.settings, output.observe, data=data)
    output.show(evaluated, lambda console: render(evaluated, console))
