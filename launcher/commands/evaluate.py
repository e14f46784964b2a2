"""`launch evaluate` (also `evaluate`): how good is it?"""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, run_or_folder, yes_option
from launcher.output import Output

FILE = click.Path(path_type=Path, exists=True)


@click.command("evaluate")
@run_or_folder
@click.option("--data", type=FILE, help="CSV, TSV, JSONL or Parquet, or a folder of these, instead of the test split.")
@click.option(
    "--suite", type=FILE, metavar="FILE.jsonl", help="Cases (text, label, category) instead of the built-in suite."
)
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the base model.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows, of every label its share.")
@click.option("--pulled", is_flag=True, help="Infer nothing: recompute every figure from the logits that were pulled.")
@click.option("--rerun", is_flag=True, help="Fetch a base that is not here, and infer again; size and time come first.")
@click.option("--on", "host", metavar="HOST|local", help="With --rerun: where to infer.  [default: local]")
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", show_default=True, help="Of the report.")
@yes_option
@json_option
@click.pass_obj
def command(
    app: App,
    run: str | None,
    data: Path | None,
    suite: Path | None,
    base: Path | None,
    limit: int | None,
    pulled: bool,
    rerun: bool,
    host: str | None,
    lang: str,
    yes: bool,
    as_json: bool,
) -> None:
    """Evaluate a pulled run here; writes report.html.

    Infers again where the base is at hand (and goes on where it was stopped), else recomputes every figure from the
    logits that the run brought home.

    \b
    Example: launch evaluate reviews-k3x7q2mh --data more.csv
             launch evaluate --lang zh
    """
    from launcher import home_jobs
    from launcher.progress import Note
    from launcher.scores import render

    if pulled and (rerun or base or data or suite):
        raise click.UsageError("--pulled infers nothing: it goes with none of --rerun, --base, --data, --suite")
    if host and not rerun:
        raise click.UsageError("--on says where to infer again: it goes with --rerun")
    output = Output(as_json=as_json)
    home = home_jobs.find(run, app.ledger, base=base)
    asked = home_jobs.Evaluation(data, suite, limit or 0, pulled, rerun, lang=lang)

    def agreed(plan: str) -> None:
        output.observe(Note(plan))
        if not yes and not click.confirm("Go on?", err=True):
            raise click.Abort

    if rerun:
        from launcher import rerun as reruns  # brings SSH along

    if rerun and host not in (None, "local"):
        evaluated = reruns.on_host(app, home, asked, host, output.observe, agreed)
    else:
        if rerun and (planned := reruns.plan(home, app.settings, asked)):
            agreed(planned.in_words())
        evaluated = home_jobs.evaluate(home, app.settings, output.observe, asked)
    output.show(evaluated, lambda console: render(evaluated, console))
