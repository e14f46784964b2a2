"""What every command works with: the settings, the saved hosts, the ledger, and connections made once each."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from launcher import settings

if TYPE_CHECKING:
    from launcher.host_book import HostBook, SavedHost
    from launcher.ledger import Ledger
    from launcher.terminal import Terminal
    from remote.agent import Agent
    from remote.host import Host
    from remote.profile import Profiles
    from remote.ssh.host import SshHost
    from remote.ssh.questions import Questions

PASSWORD_VARIABLE = "LAUNCH_PASSWORD"
QUIET_CONNECT_S = 6.0


class App:
    """The composition for one invocation.  Everything is made when it is first asked for: `--help` needs none of it."""

    def __init__(self) -> None:
        self._agents: dict[tuple[str, bool], Agent] = {}
        # Taken out of the environment, so that no process we start can read it there.
        self.password: str | None = os.environ.pop(PASSWORD_VARIABLE, None) or None
        """A password that a script gave, for the host it names."""

    @cached_property
    def settings(self) -> settings.Settings:
        return settings.load()

    @cached_property
    def hosts(self) -> HostBook:
        from launcher.host_book import HostBook

        return HostBook(self.settings.hosts_file)

    @cached_property
    def ledger(self) -> Ledger:
        from launcher.ledger import Ledger

        return Ledger(self.settings.ledger_file)

    @cached_property
    def profiles(self) -> Profiles:
        from remote import profile

        return profile.load(self.settings.profiles_file)

    @cached_property
    def questions(self) -> Terminal:
        from launcher.terminal import Terminal

        return Terminal(password=self.password)

    def agent(self, host_name: str, *, quiet: bool = False) -> Agent:
        """Our program on a saved host, on an address, or on this machine (`local`).  Connects at the first use.

        With `quiet` nobody is asked anything, and a host that turns us away is not tried again.
        """
        if (host_name, quiet) not in self._agents:
            from launcher.host_book import LOCAL
            from remote.agent import Agent

            saved = self.hosts.find(host_name)
            workspace = str(self.settings.local_workspace) if saved.name == LOCAL else saved.workspace
            pythons = self.profiles.named(saved.profile).pythons if saved.profile else ()
            host = self.connect(saved, quiet=quiet)
            self._agents[host_name, quiet] = Agent(host, workspace=workspace, pythons=pythons, identity=saved.identity)
        return self._agents[host_name, quiet]

    def host(self, name: str) -> Host:
        """The host itself, without our program.  Raises OtherMachine when it is not the one on record."""
        from remote import identity

        host, saved = self.agent(name).host, self.hosts.find(name)
        if saved.identity.hostname:
            saved.identity.require(name, identity.look(host, saved.workspace))
        return host

    def ssh_host(self, name: str) -> SshHost:
        """The same, for what only SSH can do.  Raises LaunchError for this machine."""
        from launcher.errors import LaunchError
        from remote.ssh.host import SshHost

        host = self.host(name)
        if not isinstance(host, SshHost):
            raise LaunchError(f"{name} is this machine", code="usage", hint="name a saved host: launch host list")
        return host

    def connect(
        self,
        saved: SavedHost,
        *,
        questions: Questions | None = None,
        quiet: bool = False,
        keys_only: bool = False,
        replace_key: str = "",
    ) -> Host:
        """The host behind an entry; nothing is connected yet.  Raises BadAddress, and RemoteError for a provider's
        address that can't work.  The caller closes it."""
        from launcher.host_book import LOCAL

        if saved.name == LOCAL:
            from remote.local_host import LocalHost

            return LocalHost()
        from remote.ssh import address as addresses
        from remote.ssh.host import CONNECT_TIMEOUT_S, RETRY_S, SshHost
        from remote.ssh.questions import Questions as Nobody

        address = addresses.parse(saved.login)
        self.profiles.refuse(address.host)
        if saved.identity_file:
            address = replace(address, identity_file=saved.identity_file)
        return SshHost(
            saved.name,
            address,
            known_hosts=saved.known_hosts_file,
            questions=Nobody() if quiet else questions or self.questions,
            replace_key=replace_key,
            keys_only=keys_only,
            retry_s=() if quiet else RETRY_S,
            connect_timeout_s=QUIET_CONNECT_S if quiet else CONNECT_TIMEOUT_S,
        )

    def close(self) -> None:
        """Close every connection; all at once, for one that is only being made takes a second."""
        import threading

        closing = [threading.Thread(target=agent.host.close, daemon=True) for agent in self._agents.values()]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
        self._agents.clear()
