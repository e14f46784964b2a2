"""`launch clean`: take away what `launch` left on a host."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option, yes_option
from launcher.output import Output


@click.command("clean")
@click.argument("host")
@click.option(
    "--unused/--all",
    "unused",
    default=True,
    help="What nothing needs any more (the default), or everything of ours, our key in authorized_keys included.",
)
@click.option("--force", is_flag=True, help="With --all: even where a run succeeded and was never pulled.")
@click.option("--dry-run", is_flag=True, help="Show what would go; nothing is removed.")
@yes_option
@json_option
@click.pass_obj
def command(app: App, host: str, unused: bool, force: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove what `launch` left on a host.

    Runs that are over and pulled go, files that no run uses, environments that nobody used for a week.  Runs that are
    not over, or were never pulled, stay.  With --all everything goes, unless a run is not over.

    Example: launch clean box --dry-run
    """
    from launcher.clean import clean_host

    if force and unused:
        raise click.UsageError("--force goes with --all")
    output = Output(as_json=as_json)
    report = clean_host(app, host, everything=not unused, force=force, dry_run=dry_run or not yes)
    if not (dry_run or yes or report.is_empty):
        if not click.confirm(report.question(), err=True):
            raise click.Abort
        report = clean_host(app, host, everything=not unused, force=force, dry_run=False)
    output.show(report.to_json(), lambda console: console.print(report.in_words(), soft_wrap=True))
    if report.cleaned.error_count:
        raise click.exceptions.Exit(1)
