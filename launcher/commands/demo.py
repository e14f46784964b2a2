"""`launch demo`: the whole way, once."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, target_option
from launcher.output import Output


@click.command("demo")
@click.option("--host", help="Run it on this saved host instead of one inside this process.")
@click.option("--seed", type=click.IntRange(0), help="Of everything random, instead of the spec's.")
@target_option
@json_option
@click.pass_obj
def command(app: App, host: str | None, seed: int | None, target: Path, as_json: bool) -> None:
    """The whole way, once: a few minutes, no GPU.

    Trains on real Chinese reviews over SSH, pulls, verifies, evaluates, writes a report.

    Example: launch demo
    """
    from launcher.demo import demo
    from launcher.scores import render

    output = Output(as_json=as_json)
    evaluated = demo(app, output, target, host, seed=seed)
    output.show(evaluated, lambda console: render(evaluated, console))
