"""The commands `launch` and `evaluate`: one group, and the one place where errors end."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from launcher import __version__
from launcher.app import App
from launcher.commands import (
    adopt,
    attach,
    check,
    clean,
    compare,
    demo,
    doctor,
    env,
    evaluate,
    exec,
    fuse,
    host,
    logs,
    merge,
    predict,
    prepare,
    ps,
    publish,
    pull,
    resume,
    retry,
    rm,
    shell,
    stop,
    sync,
    train,
    tunnel,
    verify,
    wait,
)
from launcher.errors import EXIT_DETACHED, EXIT_USAGE, exit_status

ANSWER = "answer on the command line: --yes (host add: --accept-new)"


class InOrder(click.Group):
    """Lists its commands in the order of use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="launch")
@click.option("--password-stdin", is_flag=True, help="Read the host's password from the first line of stdin.")
@click.pass_obj
def launch(app: App, password_stdin: bool) -> None:
    """Rent a GPU, train a LoRA text classifier on it over SSH, bring home only an adapter that is proven to work.

    \b
    Example: launch host add box "ssh -p 39111 root@connect.example.com"
             launch train reviews.yaml --host box
             launch pull && launch verify && launch evaluate
    """
    if password_stdin:
        app.password = _first_line() or None


def _first_line() -> str:
    """Byte by byte: what follows is for the command, and must not lie in a buffer of ours."""
    line = b""
    while (byte := os.read(sys.stdin.fileno(), 1)) not in (b"", b"\n"):
        line += byte
    return line.decode("utf-8", "surrogateescape").rstrip("\r")


for _module in (
    demo, host, check, prepare, train, ps, logs, attach, wait, stop, resume, retry, adopt, fuse, pull, verify, evaluate,
    predict, compare, merge, publish, rm, sync, exec, shell, tunnel, env, clean, doctor,
):  # fmt: skip
    launch.add_command(_module.command)


def main(argv: list[str] | None = None) -> None:
    """The `launch` command."""
    _leave(_run(launch, sys.argv[1:] if argv is None else argv), at_once=argv is None)


def evaluate_main(argv: list[str] | None = None) -> None:
    """The `evaluate` command: `launch evaluate` under a name of its own."""
    _leave(_run(evaluate.command, sys.argv[1:] if argv is None else argv), at_once=argv is None)


def _leave(status: int, *, at_once: bool) -> None:
    """End the process; `at_once` without tearing down every module first, which takes longer than some commands."""
    if not at_once:
        sys.exit(status)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)


def _run(command: click.Command, argv: list[str]) -> int:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (for as long as we live)
    for stream in (sys.stdout, sys.stderr):
        # A terminal of cp936 or a pipe in ASCII shows a question mark instead of ending the program.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app = App()
    try:
        status = command.main(argv, standalone_mode=False, obj=app)
    except click.exceptions.Exit as stopped:
        status = stopped.exit_code
    except click.Abort as stopped:
        # The end of the input is nobody there to answer a question, not a Ctrl-C.
        nobody = isinstance(stopped.__cause__, EOFError) or isinstance(stopped.__context__, EOFError)
        status = _fail(argv, "usage", "nobody is there to answer", ANSWER) if nobody else _interrupted(argv)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = EXIT_USAGE
    except click.ClickException as error:
        status = _usage(argv, error)
    except KeyboardInterrupt:
        status = _interrupted(argv)
    except _known_errors() as error:
        status = _fail(argv, error.code, error.message, error.hint, getattr(error, "data", None))
    except OSError as error:  # a full disk, a folder that may not be written to, a name too long
        status = _fail(argv, "error", str(error), "")
    finally:
        with contextlib.suppress(KeyboardInterrupt):  # whoever is in such a hurry gets the prompt back
            app.close()
    return _last_words(status if isinstance(status, int) else 0)


def _last_words(status: int) -> int:
    """The exit status, once what we said is out: the interpreter's own last flush would end in a traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # whoever read our output is gone, as with `| head`, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return status or 1
    return status


def _known_errors() -> tuple[type[Any], ...]:
    from jobs.errors import JobError
    from launcher.errors import LaunchError
    from remote.errors import RemoteError

    return (JobError, LaunchError, RemoteError)


def _usage(argv: list[str], error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "launch --help"
    _fail(argv, "usage", error.format_message(), hint)
    return EXIT_USAGE


def _interrupted(argv: list[str]) -> int:
    return _fail(argv, "interrupted", "interrupted", "")


def _fail(argv: list[str], code: str, message: str, hint: str, data: Any = None) -> int:
    from launcher.output import Output

    with contextlib.suppress(OSError):  # nobody reads it any more; the status still tells
        # What follows "--" belongs to a host's command.
        ours = argv[: argv.index("--")] if "--" in argv else argv
        Output(as_json="--json" in ours).error(code, message, hint, data)
    return EXIT_DETACHED if code == "interrupted" else exit_status(code)


if __name__ == "__main__":
    main()
