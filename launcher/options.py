"""Options and arguments that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

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
accept_new_option = click.option(
    "--accept-new", is_flag=True, help="Accept the key of a host that was never seen, without asking."
)
replace_key_option = click.option(
    "--replace-key", default="", metavar="SHA256:…", help="Take this very key for the host's new one, after a rebuild."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


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
