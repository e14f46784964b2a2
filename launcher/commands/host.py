"""`launch host`: the machines a person can train on."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, yes_option
from launcher.output import Output


@click.group("host")
def command() -> None:
    """Save, show and forget the machines you train on.

    Example: launch host add box "ssh -p 39111 root@connect.example.com"
    """


@command.command()
@click.argument("name")
@click.argument("login")
@click.option("--workspace", default="", help="Folder on the host to work in (found by itself otherwise).")
@click.option(
    "--known-hosts",
    default="",
    type=click.Path(),
    help="Host keys of this host (~/.ssh/known_hosts otherwise).",
)
@click.option("--accept-new", is_flag=True, help="Accept the key of a host that was never seen, without asking.")
@json_option
@click.pass_obj
def add(app: App, name: str, login: str, workspace: str, known_hosts: str, accept_new: bool, as_json: bool) -> None:
    """Save a host under NAME, after logging in to it once.

    LOGIN is the console's login line, or [user@]host[:port].

    Example: launch host add box "ssh -p 39111 root@connect.example.com"
    """
    from launcher.host_book import SavedHost
    from launcher.introduce import introduce
    from launcher.untrusted import clean

    output = Output(as_json=as_json)
    # Kept whole: the next command may be typed in another folder.
    known_hosts = str(Path(known_hosts).expanduser().absolute()) if known_hosts else ""

    def trust(question: str) -> bool:
        return accept_new or (not as_json and click.confirm(question, err=True))

    met = introduce(app.hosts, SavedHost(name, login, workspace, known_hosts), trust)
    said = clean(f"saved {name}: {met.login}, Python {met.python}, {met.workspace}")
    output.show(met.to_json(), lambda console: console.print(said, soft_wrap=True))


@command.command("list")
@json_option
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """The saved hosts.

    Example: launch host list
    """
    hosts = app.hosts.all()

    def render(console: object) -> None:
        for saved in hosts or ():
            click.echo(f"{saved.name:<16} {saved.login}")
        if not hosts:
            click.echo('none yet: launch host add NAME "ssh -p PORT root@HOST"')

    Output(as_json=as_json).show({"hosts": [{"name": saved.name, "login": saved.login} for saved in hosts]}, render)


@command.command()
@click.argument("name")
@yes_option
@json_option
@click.pass_obj
def remove(app: App, name: str, yes: bool, as_json: bool) -> None:
    """Forget a host; nothing on it is touched.

    Example: launch host remove box
    """
    app.hosts.require(name)
    if not yes and not click.confirm(f"Forget {name}?", err=True):
        raise click.Abort
    app.hosts.remove(name)
    Output(as_json=as_json).show({"removed": name}, lambda console: console.print(f"forgot {name}"))
