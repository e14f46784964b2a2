"""`launch predict`: what does the adapter say of these texts?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("predict")
@click.argument("run", metavar="RUN|DIR")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    help="CSV, TSV, JSONL, Parquet or .txt (a text a line), or a folder of these; needs no labels.",
)
@click.option("--text-column", default="", help="Column of the texts in that file; as in the run's spec if left out.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write, .csv or .jsonl.")
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the base model.")
@click.option("--fetch-base", is_flag=True, help="Fetch a base that is not here from the Hub.")
@json_option
@click.pass_obj
def command(
    app: App,
    run: str,
    texts: tuple[str, ...],
    file: Path | None,
    text_column: str,
    out: Path | None,
    base: Path | None,
    fetch_base: bool,
    as_json: bool,
) -> None:
    """Let a pulled run's adapter answer texts: label, confidence and, with a threshold, the decision.

    Texts come from the command line, from a file, or a line each from standard input (-). A file of answers is whole
    or not there; interrupted, the same command goes on where it was.

    \b
    Example: launch predict reviews-k3x7q2mh "房间很干净"
             launch predict reviews-k3x7q2mh --file new.csv --out answers.csv
             launch predict reviews-k3x7q2mh - < texts.txt
    """
    from launcher import home_jobs
    from launcher.answers_table import lines
    from launcher.predict import EXAMPLE, MOST_IN_A_DOCUMENT, Source, predict

    output = Output(as_json=as_json, log_on_stderr=True)
    from_stdin = texts == ("-",) or (not texts and file is None and not sys.stdin.isatty())
    if file is not None and texts:
        raise click.UsageError("texts or --file, not both")
    if not texts and file is None and not from_stdin:
        raise click.UsageError(f"no texts: {EXAMPLE}")
    source = Source(() if from_stdin else texts, file, text_column, sys.stdin.buffer if from_stdin else None)
    home = home_jobs.find(run, app.ledger, base=base)
    most = MOST_IN_A_DOCUMENT if as_json else None
    with predict(home, app.settings, source, output.observe, out=out, fetch_base=fetch_base, most=most) as predicted:
        if as_json:
            output.show(predicted.to_json(), lambda console: None)
        else:
            output.show_text(None, lambda width: lines(predicted, width))
