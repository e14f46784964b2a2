"""How to log in: from a console's login line or `[user@]host[:port]`.

What is pasted may hold a password, so no error repeats it: options are named, words are counted.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from remote.errors import BadAddress

EXAMPLE = 'for example "ssh -p 39111 root@connect.example.com", or root@connect.example.com:39111'
MOST_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Address:
    """Where a host listens and who logs in.  What is empty or 0 means: as `~/.ssh/config` says, else ssh's default.

    `identity_file` is as typed, with its `~`; `jump` are the hosts to go through, in order, each no more than
    user, host and port.
    """

    host: str
    user: str = ""
    port: int = 0
    identity_file: str = ""
    identities_only: bool = False
    jump: tuple[Address, ...] = ()
    connect_timeout_s: int = 0

    def __str__(self) -> str:
        """`[user@]host[:port]`, for people: without the rest."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + shown + (f":{self.port}" if self.port else "")

    @property
    def login_line(self) -> str:
        """The text that `parse` turns into an equal address."""
        words = ["-i", self.identity_file] if self.identity_file else []
        words += ["-o", "IdentitiesOnly=yes"] if self.identities_only else []
        words += ["-o", f"ConnectTimeout={self.connect_timeout_s}"] if self.connect_timeout_s else []
        words += ["-J", ",".join(map(str, self.jump))] if self.jump else []
        if not words and str(self) != "ssh":
            return str(self)
        port = ["-p", str(self.port)] if self.port else []
        return shlex.join(["ssh", *port, *words, f"{self.user}@{self.host}" if self.user else self.host])


def parse(text: str) -> Address:
    """The address in a pasted login line, or in `[user@]host[:port]`.  Raises BadAddress naming what it can't use."""
    words = _words(text)
    if words[:1] in (["$"], [">"]):  # the prompt was copied along
        del words[0]
    if not words:
        raise _refusal("nothing is there")
    if words[0] == "ssh":
        return _login_line(words[1:])
    if words[0] == "sshpass":
        raise _refusal("a password is not part of it", hint=f"begin at its ssh: {EXAMPLE}")
    if len(words) > 1:
        raise _refusal("there are several words, and the first is not ssh")
    return _address(_target(words[0]))


# What stands between the blanks of a login line.  Outside of quotes a backslash is one, as Windows' paths need it,
# unless a blank or a quote follows; before the end of a line it is sh's way to go on in the next.
_PART = re.compile(
    r"""(?P<gap>(?:\s|\\\r?\n)+)|'(?P<single>[^']*)'|"(?P<double>[^"]*)"|\\(?P<escaped>[\s'"])|(?P<plain>.)""",
    re.DOTALL,
)


def _words(text: str) -> list[str]:
    words: list[str] = []
    inside = False
    for part in _PART.finditer(text):
        if part.lastgroup == "gap":
            inside = False
            continue
        if part["plain"] in ("'", '"'):
            raise _refusal("a quote is not closed")
        if not inside:
            words.append("")
            inside = True
        words[-1] += part[part.lastgroup or 0]
    return words


# ssh's own flags: those before a value, and those without.
_VALUED = "BDEFIJLOPQRSWbceilmopw"
_BARE = "1246ACGKMNTVXYafgknqstvxy"
# The flags that say the same as an option does.
_MEANS = {"-i": "identityfile", "-J": "proxyjump", "-l": "user", "-p": "port"}
_UNDERSTOOD = {*_MEANS.values(), "identitiesonly", "hostname", "connecttimeout"}
# Nothing here changes with these: keys of hosts are always checked, connections kept alive and never shared.
_WITHOUT_EFFECT = {
    "stricthostkeychecking", "serveraliveinterval", "serveralivecountmax", "tcpkeepalive", "loglevel", "controlmaster",
    "controlpath", "controlpersist", "-q", "-v", "-t", "-T",
}  # fmt: skip
_TUNNELS = {"-L", "-D", "-R", "-o localforward", "-o dynamicforward", "-o remoteforward"}
# What chat programs make of a "-": hyphens, dashes, the minus sign, and the full-width ones.
_LONG_DASHES = tuple("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d")


def _login_line(words: list[str]) -> Address:
    said: dict[str, str] = {}  # by ssh's names of options, and `host`; the first word on each counts, as in ssh
    unusable: list[str] = []
    more = 0
    rest = iter(words)
    for word in rest:
        if word.startswith(_LONG_DASHES):
            raise _refusal(
                "an option begins with a long dash, which a chat or a text program puts in the place of a -",
                hint="type its - again",
            )
        if len(word) > 1 and word.startswith("-"):
            for shown, keyword, value in _options(word, rest):
                if keyword == "identityfile" and keyword in said:
                    raise _refusal("it names more than one key file", hint="leave all but one out")
                if keyword == "proxyjump" and value.lower() == "none":
                    unusable.append(shown)  # it would have to override what ~/.ssh/config says
                elif keyword in _UNDERSTOOD:
                    said.setdefault(keyword, value)
                elif keyword not in _WITHOUT_EFFECT:
                    unusable.append(shown)
        elif "host" in said:
            more = 1 + sum(1 for _ in rest)
        else:
            said = {**_target(word), **said}
    _refuse(list(dict.fromkeys(unusable)), more)
    if "host" not in said:
        raise _refusal("no host is in it")
    return _address(said)


def _options(word: str, rest: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """Each option of a word as how to show it, its keyword and its value, which may be the next word."""
    for place, letter in enumerate(word[1:], 2):
        flag = f"-{letter}"
        if letter not in _VALUED:
            known = letter in _BARE
            yield flag if known else "something that is no option of ssh", flag if known else "", ""
            if known:
                continue
            return
        value = word[place:] or next(rest, "")
        if not value:
            raise _refusal(f"{flag} says nothing")
        if letter != "o":
            yield flag, _MEANS.get(flag, flag), value
            return
        named = re.fullmatch(r"\s*([A-Za-z][A-Za-z0-9]*)(?:\s*=\s*|\s+)(\"[^\"]+\"|\S.*?)\s*", value, re.DOTALL)
        if not named:
            raise _refusal("a -o is not NAME=VALUE")
        yield f"-o {named[1]}", named[1].lower(), re.sub(r'\A"([^"]*)"\Z', r"\1", named[2])
        return


def _refuse(unusable: list[str], more: int) -> None:
    """Raise BadAddress if there is anything of which it would be wrong to act as if it weren't there."""
    reasons, hints = [], []
    lowered = {shown.lower() if shown.startswith("-o ") else shown for shown in unusable}
    if unusable:
        reasons.append(f"it says {', '.join(unusable)}, which is not understood here")
        hints.append("leave it out, or put it into ~/.ssh/config")
    if "-o proxycommand" in lowered:
        reasons.append("a text that was pasted must not run programs here")
    if lowered & _TUNNELS:
        hints.append("`launch tunnel HOST PORT` makes a tunnel")
    if more:
        reasons.append(
            f"{more} more word{'s' * (more > 1)} after the host: a command, or a password, is not part of a login line"
        )
        hints.append("end it after the host; a password is asked for when it is needed")
    if reasons:
        raise _refusal("; ".join(reasons), hint="; ".join(hints))


def _target(text: str) -> dict[str, str]:
    """What `[user@]host[:port]` says, unchecked."""
    if "://" in text:
        raise _refusal("it is a URL")
    user, at, host = text.rpartition("@")
    said = {"user": user} if at else {}
    if bracketed := re.fullmatch(r"\[([^]]+)](?::(.*))?", host, re.DOTALL):
        host, port = bracketed[1], bracketed[2]
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    else:
        port = None
    return {**said, **({} if port is None else {"port": port}), "host": host}


_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*\Z")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?\Z")
_SCOPE = re.compile(r"[A-Za-z0-9_.-]+\Z")
_SWITCH = {"yes": True, "true": True, "no": False, "false": False}


def _address(said: dict[str, str]) -> Address:
    host, user = said.get("hostname", said["host"]), said.get("user")
    if user is not None and not _USER.match(user):
        password = ": a password is not part of it" if ":" in user else ""
        raise _refusal(f"what stands before the @ is not a user's name{password}")
    if not (_NAME.match(host) or _is_ipv6(host)):
        raise _refusal("what stands for the host is neither a name nor an IP address")
    identity = said.get("identityfile", "")
    if re.search(r"[\x00-\x1f\x7f]", identity):
        raise _refusal("the key file's name holds characters that can't be shown")
    only = said.get("identitiesonly", "no").lower()
    if only not in _SWITCH:
        raise _refusal("IdentitiesOnly is neither yes nor no")
    jump = said.get("proxyjump", "")
    return Address(
        host,
        user or "",
        _number(said, "port", "the port is not a number", 65535),
        identity,
        _SWITCH[only],
        () if not jump else tuple(_address(_target(one.strip())) for one in jump.split(",")),
        _number(said, "connecttimeout", "ConnectTimeout is not a number of seconds", MOST_TIMEOUT_S),
    )


def _is_ipv6(text: str) -> bool:
    address, percent, scope = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or bool(_SCOPE.match(scope))


def _number(said: dict[str, str], keyword: str, otherwise: str, most: int) -> int:
    text = said.get(keyword)
    if text is None:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) <= most:
        raise _refusal(f"{otherwise} (1-{most})")
    return int(text)


def _refusal(reason: str, hint: str = EXAMPLE) -> BadAddress:
    return BadAddress(f"this login line can't be used: {reason}", hint=hint)
