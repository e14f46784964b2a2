"""`launch merge`: adapter and base as one model, for serving without peft."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, run_or_folder
from launcher.output import Output


@click.command("merge")
@run_or_folder
@click.option(
    "--to", "target", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to make, or empty."
)
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the base model.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="What the weights are saved in; they are merged in float32.",
)
@json_option
@click.pass_obj
def command(app: App, run: str | None, target: Path, base: Path | None, dtype: str, as_json: bool) -> None:
    """Make one plain transformers model of a pulled adapter and its base.

    The adapter is verified first.  The folder is then loaded without peft, and stays only if it gives the trained
    logits again.  Exit status 7 if either is not so.

    Example: launch merge reviews-k3x7q2mh --to reviews-model
    """
    from launcher import home_jobs
    from launcher.merge import merge

    output = Output(as_json=as_json)
    home = home_jobs.find(run, app.ledger, base=base)
    merged = merge(home, target, app.settings.local_workspace, output.observe, dtype=dtype)
    output.show(merged.to_json(), lambda console: console.print(merged.in_words(), soft_wrap=True))
