"""A run on a real host that the command line knows, without a training: for whoever looks at how runs are followed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.ledger import Ledger, Record
from remote import runs
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from remote.ssh import address
from remote.ssh.host import SshHost
from tests.conftest import Cli
from tests.relay import Relay
from tests.servers import OpenSshServer

FILES = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
RESULT = '{"protocol": 1, "state": "succeeded", "reason": "", "finished_at": 0}'
SUCCEED = f"printf '%s' '{RESULT}' > .r && mv .r result.json"
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class Followed:
    """A host `box` behind a relay, and a command line that has it saved."""

    cli: Cli
    agent: Agent
    relay: Relay
    login: str

    def submit(self, *argv: str, **changes: Any) -> str:
        """The id of a new run of this program, which the command line knows."""
        run_id = f"toy-{''.join(LETTERS[byte % 32] for byte in os.urandom(8))}"
        plan: dict[str, Any] = {"run_id": run_id, "name": "toy", "files": FILES, "env": {},
                                "phases": [{"state": "running", "argv": list(argv)}]}  # fmt: skip
        runs.submit(self.agent, plan | changes, links=[], documents={})
        spec = from_mapping({"name": "toy", "model_name_or_path": "m", "data": "a.csv"})
        submission = Submission(run_id, spec, {}, (), "")
        Ledger(self.cli.home / "launch" / "ledger.sqlite").add(Record(run_id, "toy", "box", time.time(), submission))
        return run_id

    def root(self, run_id: str) -> Path:
        """The run's folder on the host."""
        return Path(self.agent.workspace) / "runs" / run_id

    def follower(self) -> int:
        """The process on the host that serves whoever began to follow last, 0 where nobody does."""
        return max(self.followers(), default=0)

    def followers(self) -> list[int]:
        """The processes on the host that serve those who follow."""
        return [
            int(path.name)
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and f"{self.agent.place.program}\0follow\0".encode() in _command_line(path)
        ]


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@contextlib.contextmanager
def followed(server: OpenSshServer | EmbeddedHost, cli: Cli, delay_s: float = 0.0) -> Iterator[Followed]:
    """A running server behind a relay of its own."""
    with Relay(server.port, delay_s=delay_s) as relay:
        key = server.known_hosts_file.read_text().split(" ", 1)[1]
        known = cli.home / "known_box"
        known.write_text(f"[127.0.0.1]:{relay.port} {key}")
        login = server.login_line.replace(f"-p {server.port}", f"-p {relay.port}")
        added = cli("host", "add", "box", login, "--known-hosts", str(known))
        assert added.status == 0, added
        with SshHost("box", address.parse(login), known_hosts=known) as host:
            yield Followed(cli, Agent(host), relay, login)
