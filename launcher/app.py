"""What every command works with: the settings, the saved hosts, the ledger, and connections made once each."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from launcher import settings

if TYPE_CHECKING:
    from launcher.host_book import HostBook
    from launcher.ledger import Ledger
    from remote.agent import Agent


class App:
    """The composition for one invocation.  Everything is made when it is first asked for: `--help` needs none of it."""

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

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

    def agent(self, host_name: str) -> Agent:
        """Our program on a saved host, on an address, or on this machine (`local`).  Connects at the first use."""
        if host_name not in self._agents:
            from launcher import host_book
            from remote.agent import Agent

            saved = self.hosts.find(host_name)
            here = saved.name == host_book.LOCAL
            workspace = str(self.settings.local_workspace) if here else saved.workspace
            self._agents[host_name] = Agent(host_book.connect(saved), workspace=workspace)
        return self._agents[host_name]

    def close(self) -> None:
        """Close every connection."""
        for agent in self._agents.values():
            agent.host.close()
        self._agents.clear()
