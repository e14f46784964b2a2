"""`launch env`: the environments that runs work in."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.options import json_option, offline_wheels_option, yes_option
from launcher.output import Output


@click.group("env")
def command() -> None:
    """List, make and remove the Python environments of a host (or of this machine: `local`).

    Example: launch env prepare box
    """


@command.command("list")
@click.argument("host")
@json_option
@click.pass_obj
def list_(app: App, host: str, as_json: bool) -> None:
    """Show the environments of a host: what they are, how large, and which ones nobody uses.

    Example: launch env list box
    """
    from dataclasses import asdict

    from launcher.environments_table import render
    from remote import environments

    output = Output(as_json=as_json)
    found = environments.listed(app.agent(host))
    output.show([asdict(one) for one in found], lambda console: render(found, host, console))


@command.command()
@click.argument("host")
@offline_wheels_option
@json_option
@click.pass_obj
def prepare(app: App, host: str, offline_wheels: bool, as_json: bool) -> None:
    """Build a host's environment now; nothing is done where it is ready.

    Example: launch env prepare box
    """
    from launcher.prepare import prepare as prepare_host

    output = Output(as_json=as_json)
    prepared = prepare_host(app, host, None, output.observe, offline_wheels=offline_wheels)
    output.show(prepared.to_json(), lambda console: console.print(prepared.in_words(), soft_wrap=True))


@command.command()
@click.argument("host")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@yes_option
@json_option
@click.pass_obj
def remove(app: App, host: str, keys: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Remove environments that no run uses; the next run that needs one builds it again.

    Example: launch env remove box 3f2a9c0d1e4b5a67
    """
    from dataclasses import asdict

    from launcher.environments_table import in_words
    from remote import environments

    output = Output(as_json=as_json)
    agent = app.agent(host)
    if not yes:
        agent.host.connect()
        if not click.confirm(f"Remove {', '.join(keys)} from {host}?", err=True):
            raise click.Abort
    removed = environments.remove(agent, keys)
    output.show(asdict(removed), lambda console: console.print(in_words(removed, host, keys), soft_wrap=True))
    if removed.errors:
        raise click.exceptions.Exit(1)
