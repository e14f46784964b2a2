"""`launch exec`: one command on a host."""

from __future__ import annotations

import shlex

import click

from launcher.app import App
from launcher.errors import EXIT_OWN_FAILURE
from launcher.options import json_option
from launcher.output import Output


# Options of ours stand before HOST; all that follows it is the command's, whether or not a "--" stands between.
@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.argument("host")
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARG]...")
@json_option
@click.pass_obj
def command(app: App, host: str, argv: tuple[str, ...], as_json: bool) -> None:
    """Run one command on a host.

    Input (a pipe or a file; the keyboard is for `launch shell`) and output go through, and its exit status comes back;
    255 is a failure of ours.  The words are passed as they are: for pipes and variables, run a shell.

    Example: launch exec box -- sh -c 'nvidia-smi | head'
    """
    from launcher import execute
    from launcher.errors import LaunchError
    from remote import failure
    from remote.errors import RemoteError

    output = Output(as_json=as_json)
    argv = argv[1:] if argv[0] == "--" else argv
    if not argv or not argv[0]:
        raise click.UsageError("there is no command to run")
    try:
        there = app.host(host)
        if as_json:
            done = execute.collected(there, argv)
            output.show(done.to_json(), lambda console: None)
            status = done.exit_status
        else:
            status = execute.passed_through(there, argv)
    except (RemoteError, LaunchError) as error:
        output.error(error.code, error.message, error.hint)
        raise click.exceptions.Exit(EXIT_OWN_FAILURE) from error
    if status == 127 and not as_json and (row := failure.while_running("exit 127")):
        login_shell = shlex.join(["launch", "exec", host, "--", "bash", "-lc", " ".join(argv)])
        app.questions.tell(f"{argv[0]}: {row.meaning}; give its full path, or: {login_shell}")
    raise click.exceptions.Exit(status)
