"""The hosts a person saved, in a TOML file they can read and edit.  No password is ever in it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import atomic
from launcher.errors import LaunchError, NoSuchHost

if TYPE_CHECKING:
    from remote.host import Host

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
LOCAL = "local"


@dataclass(frozen=True)
class SavedHost:
    """One host: `login` is a login line or an address, `workspace` and `known_hosts` override the defaults."""

    name: str
    login: str
    workspace: str = ""
    known_hosts: str = ""


class HostBook:
    """The saved hosts of one file.  Reads it anew at every question, so that an editor's change counts at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> list[SavedHost]:
        """Every saved host, in the file's order.  Raises LaunchError where the file can't be understood."""
        return [self._entry(name, table) for name, table in self._tables().items()]

    def find(self, name: str) -> SavedHost:
        """The host saved as `name`; an address that can be logged in to is a host too.  Raises NoSuchHost."""
        if name == LOCAL:
            return SavedHost(LOCAL, "")
        tables = self._tables()
        if name in tables:
            return self._entry(name, tables[name])
        if "@" in name or name.startswith("ssh ") or ":" in name:
            return SavedHost(name, name)
        known = ", ".join(tables) or "none yet"
        raise NoSuchHost(
            f"no host {name!r} is saved (saved: {known})", hint=f'launch host add {name} "ssh -p PORT root@HOST"'
        )

    def add(self, host: SavedHost) -> None:
        """Save a host; one of the same name is replaced."""
        import tomlkit

        self.check(host)
        document = tomlkit.parse(self._text())
        table = tomlkit.table()
        for key in ("login", "workspace", "known_hosts"):
            if value := getattr(host, key):
                table[key] = value
        document[host.name] = table
        atomic.write_text(self._path, tomlkit.dumps(document))

    def check(self, host: SavedHost) -> None:
        """Raise LaunchError unless `host` could be saved: its name is one, and the file can be understood."""
        if not NAME.match(host.name) or host.name == LOCAL:
            raise LaunchError(f"{host.name!r} can't be a host's name", code="usage", hint="letters, digits, . _ -")
        self._tables()

    def require(self, name: str) -> None:
        """Raise NoSuchHost unless an entry of that name stands in the file, be it whole or not."""
        if name not in self._tables():
            raise NoSuchHost(f"no host {name!r} is saved", hint="launch host list")

    def remove(self, name: str) -> None:
        """Forget a host.  Raises NoSuchHost."""
        import tomlkit

        self.require(name)
        document = tomlkit.parse(self._text())
        del document[name]
        atomic.write_text(self._path, tomlkit.dumps(document))

    def _text(self) -> str:
        try:
            return self._path.read_text("utf-8-sig")  # an editor on Windows may put a mark in front
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise LaunchError(f"{self._path} can't be read: {error}") from error

    def _tables(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text())
        except tomllib.TOMLDecodeError as error:
            raise LaunchError(f"{self._path} is not TOML: {error}", hint="mend it in an editor") from error

    def _entry(self, name: str, table: Any) -> SavedHost:
        match table:
            case {"login": str(login)}:
                return SavedHost(name, login, str(table.get("workspace", "")), str(table.get("known_hosts", "")))
        raise LaunchError(f"{self._path}: [{name}] needs a login", hint=f"launch host remove {name}")


def connect(saved: SavedHost, *, accept_new: bool = False) -> Host:
    """The host behind an entry; nothing is connected yet.  Raises BadAddress."""
    if saved.name == LOCAL:
        from remote.local_host import LocalHost

        return LocalHost()
    from remote import address
    from remote.ssh_host import SshHost

    known_hosts = Path(saved.known_hosts).expanduser() if saved.known_hosts else None
    return SshHost(saved.name, address.parse(saved.login), known_hosts=known_hosts, accept_new=accept_new)
