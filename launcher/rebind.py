"""Moves a saved host to its box's new address, once it is clear that the same box is there.

No password is offered before that: a box is proven by a key login that finds our marker on its disk, or by showing the
very host key it had under the old address; then the marker is still looked at.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from launcher.app import App
from launcher.errors import LaunchError, NoSuchHost
from launcher.host_book import SavedHost
from launcher.introduce import typed_again
from remote import identity
from remote.errors import AuthenticationFailed, ChangedHostKey, OtherMachine, RemoteError, UnknownHostKey
from remote.host import Host
from remote.ssh import address as addresses
from remote.ssh import config as ssh_config
from remote.ssh import host_keys
from remote.ssh.host import SshHost
from remote.ssh.host_keys import KnownHosts
from remote.ssh.questions import Questions

if TYPE_CHECKING:
    from paramiko import PKey


@dataclass(frozen=True)
class Rebound:
    """A host under its new address; `hostname_before` differs where the box was renamed or cloned."""

    name: str
    login: str
    hostname: str
    hostname_before: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """For a person."""
        renamed = f", which was {self.hostname_before}" if self.hostname_before not in ("", self.hostname) else ""
        return f"{self.name} is at {self.login} now: the same box ({self.hostname}{renamed}), by the marker on its disk"


def rebind(app: App, name: str, login: str, questions: Questions, *, replace_key: str = "") -> Rebound:
    """Find the box of `name` at `login` and save the new address.

    Raises NoSuchHost, OtherMachine when another box is there, AuthenticationFailed when nothing proves which one it is.
    """
    saved = app.hosts.saved(name)
    if saved is None:
        raise NoSuchHost(f"no host {name!r} is saved", hint="launch host list")
    if not saved.identity.marker:
        raise LaunchError(
            f"{name} has no marker on record to know its box by", hint=f'launch host add {name} "{login}"'
        )
    if not saved.workspace:
        raise LaunchError(f"{name} has no workspace on record, where its marker lies", hint=f"launch host show {name}")
    moved = replace(saved, login=login)
    known = _OldKey(saved, moved, questions)
    try:
        with _proven(app, moved, known, replace_key) as host:
            found = identity.look(host, saved.workspace)
    except RemoteError as error:
        error.hint = typed_again(error.hint, f"launch host rebind {name}")
        raise
    if found.marker != saved.identity.marker:
        said = (
            f"its marker is {found.marker}" if found.marker else f"no marker of ours lies in {saved.workspace}/launch"
        )
        raise OtherMachine(
            f"{name}: {login} leads to another box ({found.hostname}; {said}); nothing was changed",
            hint=f'if it was rebuilt: launch host remove {name}, then launch host add {name} "{login}"',
        )
    app.hosts.add(replace(moved, identity=replace(saved.identity, hostname=found.hostname)))
    return Rebound(name, login, found.hostname, saved.identity.hostname)


class _OldKey(Questions):
    """Vouches for a new address that shows the key of the old one; for all else the person is asked."""

    def __init__(self, saved: SavedHost, moved: SavedHost, questions: Questions) -> None:
        self._known = KnownHosts(saved.known_hosts_file)
        self._questions = questions
        self.new_at = _at(moved.login)
        try:
            self._old = _at(saved.login)
        except RemoteError:  # an entry that was broken by hand: then only a key and the marker prove anything
            self._old = ""

    def is_old(self, at: str, key: PKey | None) -> bool:
        """Whether the machine itself, not one on the way to it, has the key of the old address."""
        return key is not None and at == self.new_at and bool(self._old) and self._known.check(self._old, key).is_known

    def trust(self, unknown: UnknownHostKey) -> bool:
        return self.is_old(unknown.at, unknown.key) or self._questions.trust(unknown)

    def password(self, who: str, *, again: bool, is_target: bool) -> str | None:
        return self._questions.password(who, again=again, is_target=is_target)

    def passphrase(self, path: str, *, again: bool) -> str | None:
        return self._questions.passphrase(path, again=again)

    def tell(self, text: str) -> None:
        self._questions.tell(text)


def _proven(app: App, moved: SavedHost, known: _OldKey, replace_key: str) -> Host:
    """A connection to the new address, with a password only where the host key is the old one."""
    host = app.connect(moved, questions=known, keys_only=True, replace_key=replace_key)
    assert isinstance(host, SshHost)
    try:
        host.connect()
    except ChangedHostKey as changed:
        # Providers hand the same ports round: the record may be of an earlier tenant, or of an earlier box of ours.
        if replace_key or not known.is_old(changed.at, changed.key):
            changed.hint = changed.hint.replace("launch host add", "launch host rebind")
            raise
        return _proven(app, moved, known, host_keys.fingerprint(changed.key).split()[-1])
    except AuthenticationFailed as refused:
        if not known.is_old(known.new_at, host.shown_key()):
            raise AuthenticationFailed(
                f"{refused.message}; without a key nothing proves that it is the box of {moved.name}, "
                "and no password was offered",
                hint="put your key into ~/.ssh/authorized_keys there (the console has a terminal), then try again",
            ) from refused
        return app.connect(moved, questions=known, replace_key=replace_key)
    return host


def _at(login: str) -> str:
    """What known_hosts calls the machine that a login leads to."""
    [*_, hop] = ssh_config.route_in_time(addresses.parse(login))
    return host_keys.name_of(hop.host, hop.port)
