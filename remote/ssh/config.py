"""`~/.ssh/config` as far as a connection needs it: an address becomes the machines to go through, one after another."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import BadAddress, RemoteError
from remote.ssh import address as addresses
from remote.ssh.address import Address
from remote.ssh.wire import within

if TYPE_CHECKING:
    import paramiko

MOST_HOPS = 8
READ_TIMEOUT_S = 10
MOST_INCLUDES = 16
DEFAULT_PORT = 22
_KEYWORD = re.compile(r"\s*(\w+)\s*[\s=]\s*(.*)")


@dataclass(frozen=True)
class Hop:
    """One machine on the way, with everything that is needed to log in to it.

    `identity_files` are the keys that were named for it; with `identities_only` no other is offered.  0 in
    `connect_timeout_s` and `attempts` means that nothing was said.
    """

    host: str
    port: int
    user: str
    identity_files: tuple[Path, ...] = ()
    identities_only: bool = False
    proxy_command: str = ""
    connect_timeout_s: int = 0
    attempts: int = 0

    def __str__(self) -> str:
        return str(Address(self.host, self.user, self.port))


def default_file() -> Path:
    """The file that `ssh` itself uses."""
    return Path.home() / ".ssh" / "config"


def route(address: Address, path: Path | None = None) -> tuple[Hop, ...]:
    """The machines to go through; the last is the one meant.

    Forwarding of the agent or of X11 is not even read.  Raises RemoteError where the file can't be understood.  May
    run what the file says (`Match exec`), and so take as long as that does.
    """
    path = path or default_file()
    text = "\n".join(_lines(path))
    try:
        return tuple(_route(address, text, (), may_jump=True))
    except BadAddress as error:
        raise RemoteError(f"{path}: ProxyJump: {error.message}", hint=error.hint) from error
    except (ValueError, KeyError, LookupError, OSError) as error:
        raise RemoteError(f"{path} can't be understood: {error}", hint="mend it in an editor") from error


def route_in_time(address: Address, seconds: float = READ_TIMEOUT_S) -> tuple[Hop, ...]:
    """As `route`.  It may run a program (`Match exec`), or ask a name server for this machine's own name."""
    try:
        return within(seconds, lambda: route(address))
    except TimeoutError as error:
        raise RemoteError(
            f"{default_file()}: reading it takes longer than {seconds:g} s", hint="does a `Match exec` in it hang?"
        ) from error


def aliases(path: Path | None = None) -> list[str]:
    """The names that the file gives to hosts, without patterns.  Reads the text only, and never raises."""
    found: dict[str, None] = {}
    try:
        for line in _lines(path or default_file()):
            keyword, value = _split(line)
            if keyword == "host":
                found |= {name: None for name in shlex.split(value) if not set(name) & set("*?!")}
    except (RemoteError, ValueError):
        return list(found)
    return list(found)


def _route(address: Address, text: str, seen: tuple[str, ...], *, may_jump: bool) -> Iterator[Hop]:
    if len(seen) >= MOST_HOPS or address.host in seen:
        raise ValueError(f"ProxyJump leads in a circle: {' -> '.join((*seen, address.host))}")
    options = _looked_up(address, text)
    hop = _hop(address, options)
    jumps = address.jump or _jumps(options.get("proxyjump"))
    # `Host *` with a ProxyJump also matches the machine that is jumped through.
    if jumps and may_jump and jumps[-1].host not in (address.host, hop.host):
        for place, jump in enumerate(jumps):
            yield from _route(jump, text, (*seen, address.host), may_jump=place == 0)
        hop = replace(hop, proxy_command="")
    yield hop


def _looked_up(address: Address, text: str) -> paramiko.SSHConfigDict:
    import paramiko

    # The first value of a keyword counts, so what the address says comes first; `%p` and `%r` then mean it too.
    said = ["Host *"]
    said += [f"Port {address.port}"] if address.port else []
    said += [f"User {address.user}"] if address.user else []
    try:
        return paramiko.SSHConfig.from_text("\n".join([*said, "Host *", text])).lookup(address.host)
    except paramiko.SSHException as error:
        raise ValueError(str(error)) from error


def _hop(address: Address, options: paramiko.SSHConfigDict) -> Hop:
    named = [address.identity_file] if address.identity_file else options.get("identityfile", [])
    only = options.get("identitiesonly", "no").lower() == "yes" or address.identities_only
    return Hop(
        host=options["hostname"],
        port=_number(options, "port", 65535) or DEFAULT_PORT,
        user=address.user or options.get("user") or getpass.getuser(),
        identity_files=tuple(Path(file).expanduser() for file in named if file.lower() != "none"),
        # A key that was named in the login line is the only one offered: others could lock the login out.
        identities_only=only or bool(address.identity_file),
        proxy_command=options.get("proxycommand") or "",
        connect_timeout_s=address.connect_timeout_s or _number(options, "connecttimeout", 3600),
        attempts=_number(options, "connectionattempts", 100),
    )


def _number(options: paramiko.SSHConfigDict, keyword: str, most: int) -> int:
    text = options.get(keyword, "0")
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > most:
        raise ValueError(f"{keyword} {text!r} is not a number up to {most}")
    return int(text)


def _jumps(text: str | None) -> tuple[Address, ...]:
    if not text or text.lower() == "none":
        return ()
    return tuple(addresses.parse(one.strip()) for one in text.split(","))


def _lines(path: Path, depth: int = 0) -> Iterator[str]:
    """The file's lines, those of included files in their place: paramiko does not know `Include`."""
    block = "Host *"
    for line in _text(path).splitlines():
        keyword, value = _split(line)
        if keyword in ("host", "match"):
            block = line
        if keyword != "include":
            yield line
            continue
        if depth >= MOST_INCLUDES:
            raise RemoteError(f"{path}: includes lead in a circle")
        for pattern in shlex.split(value):
            for included in _included(pattern):
                yield from _lines(included, depth + 1)
                yield block  # what an included file begins ends with it


def _included(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    folder = Path(path.anchor) if path.is_absolute() else Path.home() / ".ssh"
    relative = path.relative_to(path.anchor) if path.is_absolute() else path
    return sorted(found for found in folder.glob(str(relative)) if found.is_file())


def _split(line: str) -> tuple[str, str]:
    found = _KEYWORD.match(line)
    return (found[1].lower(), found[2].strip()) if found else ("", "")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig", errors="surrogateescape")  # an editor on Windows may put a mark in front
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise RemoteError(f"{path} can't be read: {error.strerror}") from error
