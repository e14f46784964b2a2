"""Meets a host: its key, a login, what it has, a workspace; saved only if all is well.

Meeting it again changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from launcher import preflight
from launcher.app import App
from launcher.host_book import SavedHost
from launcher.preflight import NotReady
from remote.agent import Agent
from remote.errors import RemoteError
from remote.facts import Facts
from remote.host import Host
from remote.identity import Identity
from remote.probe import probe
from remote.ssh import address as addresses
from remote.ssh import key_files
from remote.ssh.host import SshHost
from remote.ssh.questions import Questions

OTHER_COMMANDS = re.compile(r"launch host (?:rebind|probe|show) \S+(?: \"[^\"]*\")?")
# Whether to put a key onto the host, given the one there is (None: a new one would be made).
Offer = Callable[[Path | None], bool]


@dataclass(frozen=True)
class Met:
    """A host that was logged in to, and what was found there; `key` is the file of a key that was installed."""

    name: str
    login: str
    profile: str
    hostname: str
    python: str
    workspace: str
    gpus: tuple[str, ...]
    key: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """For a person, with what to do next."""
        gpus = ", ".join(self.gpus) or "no GPU"
        lines = [f"saved {self.name}: {self.hostname}, {gpus}, profile {self.profile}, works in {self.workspace}"]
        lines += [f"{self.key} logs in from now on, without a password"] * bool(self.key)
        return "\n".join([*lines, *self.notes, f"next: launch train SPEC.yaml --host {self.name}"])


def introduce(app: App, asked: SavedHost, questions: Questions, offer: Offer, *, replace_key: str = "") -> Met:
    """Log in, probe, find a Python and a workspace, install a key if that is wanted, save.

    Raises UnknownHostKey, ChangedHostKey, AuthenticationFailed, OtherMachine when the name is another box's by now,
    CannotExecute for a provider's login that can't work, NotReady without a folder; nothing is saved then.
    """
    try:
        return _introduce(app, asked, questions, offer, replace_key)
    except RemoteError as error:
        error.hint = typed_again(error.hint, f"launch host add {asked.name}")
        raise


def typed_again(hint: str, command: str) -> str:
    """A hint that would name a host that is not saved, or not at this address, names the command of now instead."""
    return OTHER_COMMANDS.sub(lambda _: f'{command} "ssh -p PORT root@ADDRESS"', hint)


def _introduce(app: App, asked: SavedHost, questions: Questions, offer: Offer, replace_key: str) -> Met:
    app.hosts.check(asked)  # before anybody is asked about a key, or one is put on record
    before = app.hosts.saved(asked.name)
    with app.connect(asked, questions=questions, replace_key=replace_key) as host:
        profile = app.profiles.named(asked.profile) if asked.profile else None
        wanted = asked.workspace or (before.workspace if before else "")
        on_record = before.identity if before else None
        facts = probe(host, app.profiles, profile=profile, workspace=wanted, identity=on_record)
        if on_record is not None:
            on_record.require(asked.name, facts.identity)
        profile = profile or app.profiles.recognise(facts, addresses.parse(asked.login).host)
        profile.refuse(asked.name)
        workspace = facts.workspace if wanted else facts.workspace_among(profile.workspaces)
        if workspace is None:
            raise NotReady(_no_workspace(asked.name, facts), hint=f"launch host add {asked.name} LOGIN --workspace DIR")
        found = replace(facts.identity, marker=workspace.marker)
        # What is on record must still be there when our program looks, in another command.
        expected = Identity(found.hostname, marker=found.marker)
        place = Agent(host, workspace=workspace.folder, pythons=profile.pythons, identity=expected).place
        saved = replace(
            asked,
            workspace=workspace.folder,
            profile=profile.name,
            identity_file=before.identity_file if before else "",
            identity=replace(found, marker=place.identity.marker),
        )
        key, notes = "", list[str]()
        if isinstance(host, SshHost) and host.used_password:
            key, notes = _key(app, saved, host, questions, offer)
        app.hosts.add(replace(saved, identity_file=key or saved.identity_file))
    notes += [f"note: {one.what}: {one.why}" for one in preflight.findings(facts, profile, asked.name)]
    gpus = tuple(preflight.named_gpus(facts.gpus or ()))
    return Met(
        asked.name, asked.login, profile.name, found.hostname, place.python, place.workspace, gpus, key, tuple(notes)
    )


def _no_workspace(name: str, facts: Facts) -> str:
    tried = "; ".join(f"{one.folder}: {one.reason or one.state}" for one in facts.workspaces)
    return f"{name}: no folder there can be written to ({tried})"


def _key(app: App, saved: SavedHost, host: Host, questions: Questions, offer: Offer) -> tuple[str, list[str]]:
    """The file of the key that logs in from now on, or why there is none: a host that takes passwords will do."""
    path = key_files.existing()
    if not offer(path):
        return "", []
    try:
        path = path or key_files.fresh()
        key_files.install(host, key_files.marked(key_files.public_line(path)))
    except RemoteError as error:
        return "", [f"note: no key was installed: {error.message}"]
    with app.connect(replace(saved, identity_file=str(path)), questions=questions, keys_only=True) as proof:
        try:
            proof.run(["true"]).check()
        except RemoteError as error:
            return "", [f"note: {path}.pub was put there, but the host does not take it: {error.message}"]
    return str(path), []
