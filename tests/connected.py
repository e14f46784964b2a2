"""Hosts as `remote` sees them, and agents on them, each with a tmux server of its own; and waiting with a deadline."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from remote.embedded import EmbeddedHost
from remote.ssh import address
from remote.ssh.host import SshHost
from tests.servers import OpenSshServer

SOON_S = 20.0
PYTHON_FOLDER = str(Path(sys.executable).parent)


def connect(server: EmbeddedHost | OpenSshServer, **options: Any) -> SshHost:
    """A host behind a server of ours, its key known."""
    options.setdefault("known_hosts", server.known_hosts_file)
    return SshHost("there", address.parse(server.login_line), **options)


@contextlib.contextmanager
def private_tmux() -> Iterator[dict[str, str]]:
    """The variables that lead to a tmux server of one's own, which ends with the block."""
    folder = tempfile.mkdtemp(prefix="launch-tmux-")  # short: the path of a socket has some hundred characters
    try:
        yield {"TMUX_TMPDIR": folder}
    finally:
        if shutil.which("tmux"):
            tmux(folder, "kill-server")
        shutil.rmtree(folder, ignore_errors=True)


def tmux(folder: str, *argv: str) -> str:
    """What tmux says about the server whose socket lies in `folder`."""
    env = {name: value for name, value in os.environ.items() if name != "TMUX"}
    done = subprocess.run(
        ["tmux", *argv], env={**env, "TMUX_TMPDIR": folder}, capture_output=True, text=True, check=False
    )
    return done.stdout


def folder_of_programs(folder: Path, *names: str) -> Path:
    """A folder for PATH in which only these programs lie."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


@contextlib.contextmanager
def embedded_host(home: Path, env: Mapping[str, str] | None = None) -> Iterator[tuple[EmbeddedHost, SshHost]]:
    """An embedded server and a connection to it, whose Python is the one that runs the tests."""
    with (
        EmbeddedHost(home, path_prefix=[PYTHON_FOLDER], env=env) as server,
        connect(server) as host,
    ):
        yield server, host


def eventually(condition: Callable[[], Any], within_s: float = SOON_S) -> Any:
    """What `condition` returns once that is true."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which no container's first process may ever collect, does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
