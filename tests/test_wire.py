"""The bytes below a connection: TCP to the first address that answers, ProxyCommands that work, hang, lie or die."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from remote.errors import ChangedHostKey, RemoteError, Unreachable
from remote.ssh import wire
from remote.ssh.address import Address, parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.connected import alive, eventually
from tests.servers import OpenSshServer

BRIDGE = """
import socket, sys, threading, os
wire = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while chunk := os.read(0, 65536):
        wire.sendall(chunk)
    wire.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while chunk := wire.recv(65536):
    os.write(1, chunk)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def proxied(home: Path, server: OpenSshServer, command: str) -> None:
    (home / ".ssh" / "config").write_text(
        f"Host gpu\n  HostName {server.host}\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity_file}\n  ProxyCommand {command}\n"
    )


def gpu(server: OpenSshServer, **options: object) -> SshHost:
    options = {"known_hosts": server.known_hosts_file, "retry_s": (), **options}
    return SshHost("gpu", parse("gpu"), **options)  # type: ignore[arg-type]


def bridge(home: Path) -> str:
    path = home / "bridge.py"
    path.write_text(BRIDGE)
    return f"{sys.executable} {path} %h %p"


@pytest.mark.ssh
def test_a_proxy_command_carries_everything_and_ends_with_the_connection(home: Path, sshd: OpenSshServer) -> None:
    proxied(home, sshd, f"sh -c 'echo $$ >{home}/pid; exec {bridge(home)}'")
    content = os.urandom(3_000_000)
    with gpu(sshd) as host:
        assert host.run(["cat"], stdin=content).check().stdout == content
        pid = int((home / "pid").read_text())
        assert alive(pid)
    eventually(lambda: not alive(pid))


@pytest.mark.ssh
def test_a_host_behind_a_proxy_command_is_not_believed_either(home: Path, sshd: OpenSshServer) -> None:
    proxied(home, sshd, bridge(home))
    known = home / "known"
    lines = sshd.known_hosts_file.read_text().split()
    from tests.servers import _fresh_key

    known.write_text(f"{lines[0]} {_fresh_key(home / 'other')}")
    with gpu(sshd, known_hosts=known, questions=Answers()) as host, pytest.raises(ChangedHostKey):
        host.run(["true"])


@pytest.mark.ssh
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sh -c 'echo no route to the gateway >&2; exit 3'", "no route to the gateway"),
        ("no-such-program-anywhere", "no-such-program-anywhere"),
        ("sh -c 'yes x | head -c 3000000 >&2; exit 1'", "ProxyCommand: x"),
        ("true", "gpu: 127.0.0.1"),
        ("cat /dev/zero", "127.0.0.1"),
        ("cat", "127.0.0.1"),
        ("sleep 60", "127.0.0.1"),
        ('sh -c "trap : TERM; while :; do sleep 1; done"', "127.0.0.1"),
    ],
    ids=["says why", "is missing", "says much", "ends at once", "noise", "echo", "is silent", "can't be stopped"],
)
def test_a_proxy_command_that_is_none_is_an_error_in_time(
    home: Path, sshd: OpenSshServer, command: str, words: str
) -> None:
    proxied(home, sshd, command)
    before = threading.active_count()
    started = time.monotonic()
    with gpu(sshd, connect_timeout_s=1) as host, pytest.raises(Unreachable) as failed:
        host.run(["true"])
    assert time.monotonic() - started < 8
    assert words in failed.value.message
    assert len(failed.value.message) < 3000
    eventually(lambda: _own_threads() <= before)


def _own_threads() -> int:
    """paramiko's alarm clock of a broken handshake runs on for its 15 seconds."""
    return len([one for one in threading.enumerate() if getattr(one, "function", bridge).__name__ != "read_timer"])


def test_tcp_takes_the_first_address_that_answers() -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
        wire.tcp("::1", six.getsockname()[1], 5) as taken,
    ):
        assert taken.getpeername()[0] == "::1"
    with socket.create_server(("127.0.0.1", 0)) as four, wire.tcp("localhost", four.getsockname()[1], 5) as taken:
        assert taken.getpeername()[0] == "127.0.0.1"


def test_work_that_takes_too_long_is_left_to_itself() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        wire.within(0.2, lambda: time.sleep(3))
    assert time.monotonic() - started < 2
    assert wire.within(5, lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        wire.within(5, lambda: 1 // 0)


def test_nobody_answers_at_an_address_that_is_blackholed() -> None:
    """A listener whose queue is full drops the packets, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        started = time.monotonic()
        host = SshHost("gpu", Address("127.0.0.1", "root", port), connect_timeout_s=0.5, retry_s=(5.0,))
        with pytest.raises(RemoteError, match="timed out") as failed:
            host.run(["true"])
        assert time.monotonic() - started < 3
        assert "launch host rebind gpu" in failed.value.hint
        for filler in fillers:
            filler.close()
