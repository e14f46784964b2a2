"""`launch sync`: make a folder or file on one side like that on the other."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("sync")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option("--delete", is_flag=True, help="Remove what only the destination has.")
@click.option("--checksum", is_flag=True, help="Read every file on both sides; size and time prove nothing.")
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("-v", "--verbose", is_flag=True, help="Name every file, also those left out.")
@json_option
@click.pass_obj
def command(
    app: App, source: str, destination: str, delete: bool, checksum: bool, dry_run: bool, verbose: bool, as_json: bool
) -> None:
    """Bring a folder or file to a host, or home from it; one side is HOST:PATH.

    Only what differs is sent, a cut transfer goes on where it was, and a file has its old content or its new one, never
    a mixture.  As with rsync, SRC/ means what is in the folder, SRC the folder itself.  What .launchignore (else
    .gitignore) names stays here.

    Example: launch sync data/ box:/root/autodl-tmp/data/
    """
    from launcher.sync import route, sync_paths

    output = Output(as_json=as_json)
    done = sync_paths(
        app, route(source, destination), delete=delete, checksum=checksum, dry_run=dry_run, observer=output.observe
    )
    output.show(done.to_json(), lambda console: console.print(done.in_words(verbose=verbose), soft_wrap=True))
