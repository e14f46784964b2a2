"""`launch host`: the machines a person can train on."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import (
    LOGIN_SETTINGS,
    accept_new_option,
    json_option,
    login_argument,
    login_text,
    replace_key_option,
    yes_option,
)
from launcher.output import Output


@click.group("host")
def command() -> None:
    """Save, show, check and forget the machines you train on.

    Example: launch host add box "ssh -p 39111 root@connect.example.com"
    """


@command.command(context_settings=LOGIN_SETTINGS)
@click.argument("name")
@login_argument
@click.option("--workspace", default="", help="Folder on the host to work in (found by itself otherwise).")
@click.option("--profile", default="", help="What kind of machine it is (recognised by itself otherwise).")
@click.option(
    "--known-hosts", default="", type=click.Path(), help="File of its host key (~/.ssh/known_hosts otherwise)."
)
@click.option("--install-key/--no-install-key", default=None, help="After a password login: put your public key there.")
@accept_new_option
@replace_key_option
@json_option
@click.pass_obj
def add(
    app: App,
    name: str,
    login: tuple[str, ...],
    workspace: str,
    profile: str,
    known_hosts: str,
    install_key: bool | None,
    accept_new: bool,
    replace_key: str,
    as_json: bool,
) -> None:
    """Save a host under NAME, after logging in to it once.

    LOGIN is the console's login line, [user@]host[:port], or an alias of ~/.ssh/config.  A password is asked for, or
    comes from LAUNCH_PASSWORD or `launch --password-stdin`; it is never stored.

    Example: launch host add box "ssh -p 39111 root@connect.example.com"
    """
    from launcher.host_book import SavedHost
    from launcher.introduce import introduce
    from launcher.terminal import Terminal
    from launcher.untrusted import clean

    output = Output(as_json=as_json)
    # Kept whole: the next command may be typed in another folder.
    known_hosts = str(Path(known_hosts).expanduser().absolute()) if known_hosts else ""
    questions = Terminal(accept_new=accept_new, password=app.password)

    def offer(key: Path | None) -> bool:
        if install_key is not None:
            return install_key
        what = f"Put {key}.pub onto {name}" if key else f"Make a key in ~/.ssh and put it onto {name}"
        return questions.agrees(f"{what}, so that it needs no password any more?", default=True)

    asked = SavedHost(name, login_text(name, login), workspace, known_hosts, profile)
    met = introduce(app, asked, questions, offer, replace_key=replace_key)
    output.show(met.to_json(), lambda console: console.print(clean(met.in_words()), soft_wrap=True))


@command.command("list")
@json_option
@click.pass_obj
def list_(app: App, as_json: bool) -> None:
    """The saved hosts.

    Example: launch host list
    """
    from launcher import hosts_table

    hosts = app.hosts.all()
    data = {"hosts": [saved.to_json() for saved in hosts]}
    Output(as_json=as_json).show(data, lambda console: hosts_table.render_list(hosts, console))


@command.command()
@click.argument("name")
@json_option
@click.pass_obj
def show(app: App, name: str, as_json: bool) -> None:
    """What is saved of a host, without asking it anything.

    Example: launch host show box
    """
    from launcher import hosts_table

    saved = app.hosts.find(name)
    data = hosts_table.shown(app, saved)
    Output(as_json=as_json).show(data, lambda console: hosts_table.render_one(data, console))


@command.command()
@click.argument("name")
@click.option("--mirrors", is_flag=True, help="Also test which package and model mirrors it reaches.")
@json_option
@click.pass_obj
def probe(app: App, name: str, mirrors: bool, as_json: bool) -> None:
    """Ask a host what it has: GPUs, limits, disks, Pythons, tools.

    Example: launch host probe box --json
    """
    from launcher import facts_table, preflight

    report = preflight.look(app, name, mirrors=mirrors)
    Output(as_json=as_json).show(report.to_json(), lambda console: facts_table.render(report, console))


@command.command(context_settings=LOGIN_SETTINGS)
@click.argument("name")
@login_argument
@accept_new_option
@replace_key_option
@json_option
@click.pass_obj
def rebind(app: App, name: str, login: tuple[str, ...], accept_new: bool, replace_key: str, as_json: bool) -> None:
    """Move NAME to its box's new address; its runs stay within reach.

    The box is known by a marker on its disk; another one gets no password, and the name stays where it was.

    Example: launch host rebind box "ssh -p 40222 root@connect.example.com"
    """
    from launcher import rebind as moving
    from launcher.terminal import Terminal
    from launcher.untrusted import clean

    output = Output(as_json=as_json)
    questions = Terminal(accept_new=accept_new, password=app.password)
    done = moving.rebind(app, name, login_text(name, login), questions, replace_key=replace_key)
    output.show(done.to_json(), lambda console: console.print(clean(done.in_words()), soft_wrap=True))


@command.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Even while runs, GPU processes or other people's logins are there.")
@yes_option
@json_option
@click.pass_obj
def poweroff(app: App, name: str, force: bool, yes: bool, as_json: bool) -> None:
    """Power a host off, where its provider allows that and stops billing for it.

    Example: launch host poweroff box
    """
    from launcher import power

    output = Output(as_json=as_json)
    plan = power.plan(app, name, force=force)
    if not yes and not click.confirm(plan.question(), err=True):
        raise click.Abort
    done = power.off(app, plan)
    output.show(done.to_json(), lambda console: console.print(done.in_words(), soft_wrap=True))


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
