"""How to log in: from a console's login line or `[user@]host[:port]`."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from remote.errors import BadAddress

_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?\Z|[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\Z")
EXAMPLE = 'for example "ssh -p 39111 root@connect.example.com", or root@connect.example.com:39111'


@dataclass(frozen=True)
class Address:
    """Where a host listens and who logs in; empty `user` and `identity_file` mean: as `~/.ssh/config` says."""

    host: str
    user: str = ""
    port: int = 0
    identity_file: str = ""

    def __str__(self) -> str:
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + shown + (f":{self.port}" if self.port else "")


def parse(text: str) -> Address:
    """The address in a pasted login line, or in `[user@]host[:port]`.  Raises BadAddress naming what it can't use."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadAddress(f"{text!r} is not a login line: {error}", hint=EXAMPLE) from error
    if words and words[0] == "ssh":
        return _login_line(text, words[1:])
    if len(words) != 1:
        raise BadAddress(f"{text!r} is not a login line", hint=EXAMPLE)
    return _checked(text, words[0], {})


def _login_line(text: str, words: list[str]) -> Address:
    options: dict[str, str] = {}
    target = ""
    rest = iter(words)
    for word in rest:
        if word[:2] in ("-p", "-i", "-l", "-o"):
            value = word[2:] or next(rest, "")
            if not value:
                raise BadAddress(f"{text!r}: {word} says nothing", hint=EXAMPLE)
            if word[:2] == "-o":
                name, _, value = value.replace(" ", "=", 1).partition("=")
                options[_O_OPTIONS.get(name.lower(), f"-o {name}")] = value
            else:
                options[word[:2]] = value
        elif word.startswith("-"):
            options[word] = ""
        elif target:
            raise BadAddress(f"{text!r}: a command after the host is not part of a login line", hint=EXAMPLE)
        else:
            target = word
    options.pop("", None)
    return _checked(text, target, options)


# What `-o NAME=value` says in the words of a flag.  Host keys are always checked, so an option about that is no news.
_O_OPTIONS = {"port": "-p", "user": "-l", "identityfile": "-i", "stricthostkeychecking": "", "serveraliveinterval": ""}


def _checked(text: str, target: str, options: dict[str, str]) -> Address:
    unknown = sorted(set(options) - {"-p", "-i", "-l"})
    if unknown:
        raise BadAddress(f"{text!r}: can't use {', '.join(unknown)}", hint="leave it out, or put it into ~/.ssh/config")
    before, at, host = target.rpartition("@")
    user = options.get("-l", before if at else None)
    own_port = None
    if bracketed := re.fullmatch(r"\[([^]]+)](?::(.*))?", host):
        host, own_port = bracketed[1], bracketed[2]
    elif host.count(":") == 1:
        host, _, own_port = host.partition(":")
    if not _HOST.match(host) or (user is not None and not _USER.match(user)):
        raise BadAddress(f"{text!r} is not a login line", hint=EXAMPLE)
    port = options.get("-p", own_port)
    if port is not None and not (re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise BadAddress(f"{text!r}: {port!r} is not a port (1-65535)", hint=EXAMPLE)
    return Address(host, user or "", int(port or 0), options.get("-i", ""))
