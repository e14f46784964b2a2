"""Options and arguments that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from launcher import duration, price

F = TypeVar("F", bound=Callable[..., Any])


class _Read(click.ParamType[Any]):
    """A value that `read` makes of a text; what it raises, in words, is a usage error."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Read("duration", duration.parse)
"""Seconds, from `10m` or `1h30m`."""
PRICE = _Read("price", price.parse)

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout; all else on stderr.")
run_argument = click.argument("run", required=False)
"""A run by id, unique prefix or name; the latest where it is left out."""
run_or_folder = click.argument("run", required=False, metavar="[RUN|DIR]")
host_option = click.option("--host", help="A saved host, an address, or `local`.")
target_option = click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder to put the run's folder into.",
)
login_argument = click.argument("login", nargs=-1, type=click.UNPROCESSED, metavar="LOGIN")
"""A login line, in quotes or not; `login_text` makes one text of it.  For commands that ignore unknown options."""
LOGIN_SETTINGS = {"ignore_unknown_options": True}


def login_text(name: str, words: tuple[str, ...]) -> str:
    """The login line that was typed.  Raises UsageError where the name was left out."""
    if not words:
        raise click.UsageError(
            'a name comes first: NAME "ssh -p PORT root@HOST"' if " " in name else "LOGIN is missing"
        )
    return words[0] if len(words) == 1 else shlex.join(words)


accept_new_option = click.option(
    "--accept-new", is_flag=True, help="Accept the key of a host that was never seen, without asking."
)
replace_key_option = click.option(
    "--replace-key", default="", metavar="SHA256:…", help="Take this very key for the host's new one, after a rebuild."
)
offline_wheels_option = click.option(
    "--offline-wheels", is_flag=True, help="Fetch the packages here and send them: for a host without a package index."
)
push_model_option = click.option(
    "--push-model", is_flag=True, help="Send the base model from this machine's cache instead of fetching it there."
)
price_option = click.option(
    "--price", type=PRICE, metavar="PRICE", help="What the machine costs an hour, such as 1.98/h: shown while it runs."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def spec_and_host(command: F) -> F:
    """What is sent, and where to."""
    command = click.option("--host", required=True, help="A saved host, an address, or `local`.")(command)
    return click.argument("spec", type=click.Path(path_type=Path))(command)


def sending_options(command: F) -> F:
    """How what the host lacks comes there, every key of the spec, and --json."""
    for option in (json_option, spec_options, offline_wheels_option, push_model_option):
        command = option(command)
    return command


def terms_options(command: F) -> F:
    """How long a run may take, and what its host does when it is over."""
    for option in (
        click.option(
            "--max-hours",
            type=click.FloatRange(min=0, min_open=True, max=10_000),
            help="Stop it, with a checkpoint, this long after it was submitted.",
        ),
        click.option(
            "--on-finish",
            type=click.Choice(["poweroff"]),
            help="Power the host off when it is over; needs --max-hours.",
        ),
        click.option(
            "--keep-on-failure",
            is_flag=True,
            help="With --on-finish: after a failure leave the host on, up to --max-hours.",
        ),
        click.option(
            "--notify",
            multiple=True,
            metavar="URL|wechat",
            help="Where the host tells how it ended: a JSON webhook, or AutoDL's WeChat message; may be repeated.",
        ),
    ):
        command = option(command)
    return command


def attempt_options(force: str) -> Callable[[F], F]:
    """What a new attempt of a run is started with; `force` says what it does not stop at."""

    def decorate(command: F) -> F:
        for option in (json_option, yes_option, offline_wheels_option):
            command = option(command)
        command = terms_options(command)
        for option in (
            click.option("--force", is_flag=True, help=force),
            click.option("-d", "--detach", is_flag=True, help="Start it and come back at once."),
            click.option("--host", help="Another host to start it on; its own where this is left out."),
            run_argument,
        ):
            command = option(command)
        return command

    return decorate


def spec_options(command: F) -> F:
    """A flag for every key of the spec."""
    from jobs.spec import option_fields

    for field in reversed(option_fields()):
        flag = "--" + field.name.replace("_", "-")
        command = click.option(
            flag,
            field.name,
            default=None,
            type=bool if field.type == "bool" else str,  # the spec reads numbers in text, but no booleans
            metavar="VALUE",
            help=f"Spec: {field.metadata['help']}.",
        )(command)
    return command
