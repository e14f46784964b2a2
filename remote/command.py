"""Turns an argv into the text a remote shell gets: the only place in the project that quotes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def render(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """Shell text that runs exactly `argv`, in `cwd`, with `env` added, whatever the login shell is.

    A name without a slash may be a command of the shell's own (`printf`, `exec`), as everywhere in `sh`.
    The text ends with `exit $?`, so that a command killed by a signal is reported as 128 + signal: without it the
    shell would be replaced by the command, and its death looks like a lost connection.  Raises ValueError on NUL,
    an empty argv or an impossible variable name.
    """
    check(argv, env=env, cwd=cwd)
    words = [f"{name}={shlex.quote(value)}" for name, value in (env or {}).items()]
    # The program is always quoted: `if` and `a=b` would otherwise be a keyword and an assignment.
    words += [_quoted(argv[0]), *map(shlex.quote, argv[1:])]
    command = " ".join(words)
    if cwd is not None:
        # "./" keeps a folder named "-" from meaning "the previous one".
        folder = cwd if cwd.startswith("/") else f"./{cwd}"
        command = f"cd {shlex.quote(folder)} && {command}"
    return f"sh -c {_quoted(command + '; exit $?')}"


def check(argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> None:
    """Raises ValueError on what no host can run: NUL, an empty argv, an impossible variable name."""
    if not argv or not argv[0]:
        raise ValueError("a command needs a program")
    for word in (*argv, *(env or {}).values(), cwd or ""):
        if "\0" in word:
            raise ValueError("NUL can't be part of a command")
    for name in env or {}:
        if not _NAME.match(name):
            raise ValueError(f"not a variable name: {name!r}")


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"
