"""Asks the person at the terminal what a connection needs: passwords, passphrases, whether a new key is the host's.

A script answers with LAUNCH_PASSWORD or `--password-stdin`.  Neither is kept where a child process could see it.
"""

from __future__ import annotations

import os
import sys

import click

from launcher.untrusted import clean
from remote.errors import UnknownHostKey
from remote.ssh.questions import Questions


class Terminal(Questions):
    """The questions of one invocation.  `accept_new` answers for new keys."""

    def __init__(self, *, accept_new: bool = False, password: str | None = None) -> None:
        self._accept_new = accept_new
        self._given = password

    def password(self, who: str, *, again: bool, is_target: bool) -> str | None:
        if self._given is not None:
            # The one password that was given is for the host that was named, not for those on the way.
            return self._given if is_target and not again else None
        return self._secret(f"{who}'s password", again, "Permission denied, please try again.")

    def passphrase(self, path: str, *, again: bool) -> str | None:
        return self._secret(f"Passphrase of {path} (Enter goes on without it)", again, "That does not unlock it.")

    def secret(self, what: str) -> str | None:
        """What the person types, unseen; None where nobody is there."""
        return self._secret(what, False, "")

    def trust(self, unknown: UnknownHostKey) -> bool:
        if self._accept_new:
            return True
        if not _is_terminal():
            return False
        kind, _, digits = clean(unknown.fingerprint).partition(" ")
        click.echo(f"The first login to {clean(unknown.at)}. Its host key is\n  {kind}\n  {digits}", err=True)
        click.echo(
            "Compare it, if the console shows one; if not: did you just rent it, and paste its login line?", err=True
        )
        return _agreed("Trust it?", default=False)

    def agrees(self, question: str, *, default: bool) -> bool:
        """The answer to a question that is not about safety; no where nobody is there."""
        return _is_terminal() and _agreed(clean(question), default=default)

    def tell(self, text: str) -> None:
        click.echo(f"launch: {clean(text)}", err=True)

    def _secret(self, question: str, again: bool, refused: str) -> str | None:
        if not _can_ask():
            return None
        if again:
            click.echo(refused, err=True)
        try:
            answer: str = click.prompt(clean(question), hide_input=True, err=True, default="", show_default=False)
        except click.Abort as abort:
            raise KeyboardInterrupt from abort
        return answer or None


def _agreed(question: str, *, default: bool) -> bool:
    try:
        return click.confirm(question, default=default, err=True)
    except click.Abort as abort:
        # An exception like any other would be taken for a failure of the connection that is being made.
        raise KeyboardInterrupt from abort


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _can_ask() -> bool:
    """A secret is asked for on the terminal itself, even where stdin is a pipe."""
    if _is_terminal() or os.name == "nt":
        return _is_terminal()
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
