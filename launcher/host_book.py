"""The hosts a person saved, in a TOML file they can read and edit.  No password is ever in it."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jobs import atomic
from launcher.errors import LaunchError, NoSuchHost
from remote.identity import Identity

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
LOCAL = "local"
# Longer than any change of the file takes.
LOCK_KEPT_S = 5.0


@dataclass(frozen=True)
class SavedHost:
    """One host.

    `login` is a login line, an address, or an alias of ~/.ssh/config; the other texts override what is found by itself,
    and `identity` is which machine it was when it was added.
    """

    name: str
    login: str
    workspace: str = ""
    known_hosts: str = ""
    profile: str = ""
    identity_file: str = ""
    identity: Identity = Identity()

    @property
    def known_hosts_file(self) -> Path | None:
        """Where its host key stands; None for the usual files."""
        return Path(self.known_hosts).expanduser() if self.known_hosts else None

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        texts = {key: getattr(self, key) for key in ("name", *TEXTS)}
        return {**texts, "identity": {field.name: getattr(self.identity, field.name) for field in fields(Identity)}}


TEXTS = ("login", "workspace", "known_hosts", "profile", "identity_file")


class HostBook:
    """The saved hosts of one file.  Reads it anew at every question, so that an editor's change counts at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[SavedHost]:
        """Every saved host, in the file's order.  Raises LaunchError where the file can't be understood."""
        return [self._entry(name, table) for name, table in self._tables().items()]

    def find(self, name: str) -> SavedHost:
        """The host saved as `name`; an address or an alias of ~/.ssh/config is a host too.  Raises NoSuchHost."""
        if name == LOCAL:
            return SavedHost(LOCAL, "")
        tables = self._tables()
        if name in tables:
            return self._entry(name, tables[name])
        # A word without a dot may be a host name too, but far more often it is a slip of the finger.
        if set(name) & set("@:. "):
            return SavedHost(name, name)
        from remote.ssh import config as ssh_config

        aliases = ssh_config.aliases()
        if name in aliases:
            return SavedHost(name, name)
        known = ", ".join([*tables, *(alias for alias in aliases if alias not in tables)]) or "none yet"
        raise NoSuchHost(
            f"no host {name!r} is saved (known: {known})", hint=f'launch host add {name} "ssh -p PORT root@HOST"'
        )

    def saved(self, name: str) -> SavedHost | None:
        """The entry of that name."""
        table = self._tables().get(name)
        return None if table is None else self._entry(name, table)

    def add(self, host: SavedHost) -> None:
        """Save a host; one of the same name is replaced where it stands, with what a person wrote around it kept."""
        import tomlkit

        self.check(host)
        with self._held():
            self._add(host, tomlkit.parse(self._text()))

    def _add(self, host: SavedHost, document: Any) -> None:
        import tomlkit

        table = document.get(host.name)
        if not isinstance(table, tomlkit.items.Table):
            table = document[host.name] = tomlkit.table()
        for key in TEXTS:
            _put(table, key, getattr(host, key))
        identity = table.get("identity")
        if not isinstance(identity, tomlkit.items.Table):
            identity = table["identity"] = tomlkit.table()
        for field in fields(Identity):
            _put(identity, field.name, getattr(host.identity, field.name))
        if not identity:
            del table["identity"]
        self._write(tomlkit.dumps(document))

    def check(self, host: SavedHost) -> None:
        """Raise LaunchError unless `host` could be saved: its name is one, and the file can be understood."""
        if not NAME.match(host.name) or host.name == LOCAL:
            raise LaunchError(
                f"{host.name!r} can't be a host's name",
                code="usage",
                hint="it means this machine" if host.name == LOCAL else "letters, digits, . _ -",
            )
        self._tables()

    def require(self, name: str) -> None:
        """Raise NoSuchHost unless an entry of that name stands in the file, be it whole or not."""
        if name not in self._tables():
            raise NoSuchHost(f"no host {name!r} is saved", hint="launch host list")

    def remove(self, name: str) -> None:
        """Forget a host.  Raises NoSuchHost."""
        import tomlkit

        with self._held():
            self.require(name)
            document = tomlkit.parse(self._text())
            del document[name]
            self._write(tomlkit.dumps(document))

    def _write(self, text: str) -> None:
        atomic.write_text(self.path.resolve(), text)  # the file itself, where a link leads to it

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Of two that change the file at once, one waits; a lock that is old was left behind."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock, deadline = self.path.with_name(self.path.name + ".lock"), time.monotonic() + LOCK_KEPT_S
        while True:
            try:
                lock.touch(exist_ok=False)
                break
            except FileExistsError:
                if time.monotonic() > deadline:
                    lock.unlink(missing_ok=True)
                time.sleep(0.02)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)

    def _text(self) -> str:
        try:
            return self.path.read_text("utf-8-sig")  # an editor on Windows may put a mark in front
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise LaunchError(f"{self.path} can't be read: {error}") from error

    def _tables(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text())
        except tomllib.TOMLDecodeError as error:
            raise LaunchError(f"{self.path} is not TOML: {error}", hint="mend it in an editor") from error

    def _entry(self, name: str, table: Any) -> SavedHost:
        if not isinstance(table, dict) or not isinstance(table.get("login"), str):
            raise LaunchError(f"{self.path}: [{name}] needs a login", hint=f"launch host remove {name}")
        identity = table.get("identity", {})
        known = {key: table[key] for key in TEXTS if key in table}
        if not isinstance(identity, dict):
            raise LaunchError(f"{self.path}: [{name}] identity is not a table", hint="mend it in an editor")
        known_identity = {field.name: identity[field.name] for field in fields(Identity) if field.name in identity}
        wrong = [key for key, value in {**known, **known_identity}.items() if not isinstance(value, str)]
        if wrong:
            raise LaunchError(f"{self.path}: [{name}] {', '.join(wrong)}: not a text", hint="mend it in an editor")
        return SavedHost(name, **known, identity=Identity(**known_identity))


def _put(table: Any, key: str, value: str) -> None:
    if value:
        table[key] = value
    else:
        table.pop(key, None)
