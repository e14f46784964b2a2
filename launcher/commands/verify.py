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
@click.option(
    "--fetch-base", is_flag=True, help="Fetch a base that is not here from the Hub (static: only its shapes)."
)
@json_option
@click.pass_obj
def command(app: App, run: str | None, base: Path | None, static: bool, fetch_base: bool, as_json: bool) -> None:
    """Prove that a pulled adapter is the one trained; or look into any PEFT adapter's folder.

    Whole, not empty, and giving the logits of the trained model again.  Exit status 7 if not.  Of a folder made
    elsewhere only what can be seen without running the model is checked.

    \b
    Example: launch verify reviews-k3x7q2mh
             launch verify ~/Downloads/some-lora --base ~/models/Qwen2.5-0.5B
    """
    from launcher import adapter_folder, home_jobs
    from launcher.verdict import check, render

    output = Output(as_json=as_json)
    if folders := adapter_folder.find(Path(run)) if run else []:
        name = str(run)
        verdict = adapter_folder.verify(folders, output.observe_notes, base=base, fetch_base=fetch_base)
    else:
        home = home_jobs.find(run, app.ledger, base=base)
        name, workspace = home.run.run_id, app.settings.local_workspace
        verdict = home_jobs.verify(home, workspace, output.observe_notes, static=static, fetch_base=fetch_base)
    check(name, verdict)
    output.show(verdict, lambda console: render(name, verdict, console))
