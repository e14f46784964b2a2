"""The embedded host, seen through paramiko as any client sees it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import tracemalloc

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from remote.embedded import EmbeddedHost
from remote.errors import RemoteError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the embedded host needs POSIX")

SOON_S = 5.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with EmbeddedHost(tmp_path_factory.mktemp("shared") / "home") as host:
        yield host


@pytest.fixture
def host(tmp_path):
    with EmbeddedHost(tmp_path / "home") as running:
        yield running


@contextlib.contextmanager
def login(host, **changes):
    client = paramiko.SSHClient()
    client.load_host_keys(str(host.known_hosts_file))
    options = {"username": host.user, "key_filename": str(host.identity_file)}
    options |= {"allow_agent": False, "look_for_keys": False, "timeout": SOON_S}
    try:
        client.connect(host.host, host.port, **(options | changes))
        # Otherwise Nagle's algorithm and a delayed acknowledgement cost 40 ms for every command.
        client.get_transport().sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield client
    finally:
        client.close()


def run(client, command, stdin=b""):
    """Status, standard output and standard error of a command."""
    channel = client.get_transport().open_session(timeout=SOON_S)
    with channel:
        channel.settimeout(SOON_S)
        channel.exec_command(command)
        # A view, as sendall cuts the rest anew after every packet: of bytes that would copy for minutes.
        data = memoryview(stdin)
        feeder = threading.Thread(target=lambda: (channel.sendall(data), channel.shutdown_write()))
        feeder.start()
        out = b"".join(iter(lambda: channel.recv(1 << 18), b""))
        err = b"".join(iter(lambda: channel.recv_stderr(1 << 18), b""))
        feeder.join()
        return channel.recv_exit_status(), out, err


def eventually(condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def alive(pid):
    """Whether the process runs; a zombie, which no container's first process may ever collect, does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")


def start(client, command):
    """A channel whose command has printed one line of process ids, and these ids."""
    channel = client.get_transport().open_session(timeout=SOON_S)
    channel.settimeout(SOON_S)
    channel.exec_command(command)
    line = b""
    while not line.endswith(b"\n"):
        byte = channel.recv(1)
        assert byte, "the command ended before it said who it is"
        line += byte
    return channel, [int(pid) for pid in line.split()]


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_reports_the_exit_status(shared, status):
    with login(shared) as client:
        assert run(client, f"exit {status}") == (status, b"", b"")


def test_keeps_standard_output_and_error_apart(shared):
    with login(shared) as client:
        status, out, err = run(client, "echo one; echo two >&2; exec >&-; sleep 0.05; echo three >&2; exit 3")
    assert (status, out, err) == (3, b"one\n", b"two\nthree\n")


def test_carries_any_bytes_both_ways(shared):
    sent = os.urandom(20 << 20)
    with login(shared) as client:
        status, out, err = run(client, "cat", sent)
    assert (status, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(sent).digest()


def test_tells_the_command_where_its_input_ends(shared):
    with login(shared) as client:
        assert run(client, "cat; echo done") == (0, b"done\n", b"")


def test_a_command_that_reads_nothing_can_end(shared):
    with login(shared) as client:
        status, out, _ = run(client, "exec <&-; sleep 0.2; echo kept", bytes(8 << 20))
    assert (status, out) == (0, b"kept\n")


def test_ends_a_command_only_when_nobody_holds_its_output(shared):
    with login(shared) as client:
        assert run(client, "(sleep 0.2; echo late) & exit 5") == (5, b"late\n", b"")


def test_a_command_ended_by_a_signal_has_no_exit_status(shared):
    with login(shared) as client:
        assert run(client, "kill -KILL $$")[0] == -1
        assert run(client, "echo same connection")[1] == b"same connection\n"


def test_a_command_too_long_to_start_is_refused_and_the_connection_lives(shared):
    with login(shared) as client:
        status, _, err = run(client, "true " + "x" * 200_000)
        assert status == 126
        assert b"can't be started" in err
        assert run(client, "echo $((6*7))")[1] == b"42\n"


def test_runs_commands_at_home_in_a_clean_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("LAUNCH_NOT_FOR_HOSTS", "secret")
    with EmbeddedHost(tmp_path / "home", path_prefix=["/first", "/second"], env={"EXTRA": "a b"}) as host:
        with login(host) as client:
            channel = client.get_transport().open_session()
            with channel, channel.makefile("rb") as stdout:
                channel.update_environment({"FROM_CLIENT": "1"})
                channel.exec_command("pwd; env")
                first, *rest = stdout.read().decode().splitlines()
        env = dict(line.split("=", 1) for line in rest)
        assert first == env["HOME"] == str(host.home)
        assert env["PATH"] == "/first:/second:" + os.environ["PATH"]
        assert (env["EXTRA"], env["USER"], env["LC_ALL"]) == ("a b", host.user, "C.UTF-8")
        made_by_the_shell = {"PWD", "OLDPWD", "SHLVL", "_"}
        assert sorted(set(env) - made_by_the_shell) == (
            ["EXTRA", "HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "USER"]
        )


def test_a_shell_without_terminal_takes_commands_from_its_input(shared):
    with login(shared) as client:
        channel = client.get_transport().open_session()
        with channel, channel.makefile("rb") as stdout:
            channel.invoke_shell()
            channel.sendall(b"echo typed; exit 4\n")
            assert (stdout.read(), channel.recv_exit_status()) == (b"typed\n", 4)


def test_refuses_any_other_key(shared, tmp_path):
    other = tmp_path / "other"
    key = Ed25519PrivateKey.generate()
    other.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    with pytest.raises(paramiko.AuthenticationException), login(shared, key_filename=str(other)):
        pass


def test_refuses_any_other_user(shared):
    with pytest.raises(paramiko.AuthenticationException), login(shared, username=shared.user + "x"):
        pass


def test_offers_nothing_but_keys(shared):
    with (
        pytest.raises(paramiko.BadAuthenticationType) as refusal,
        login(shared, key_filename=None, password="x"),
    ):
        pass
    assert refusal.value.allowed_types == ["publickey"]


def test_refuses_forwarding_of_ports_agent_screen_and_terminals(shared):
    with login(shared) as client:
        transport = client.get_transport()
        with pytest.raises(paramiko.ChannelException):
            transport.open_channel("direct-tcpip", (shared.host, shared.port), ("127.0.0.1", 1), timeout=SOON_S)
        with pytest.raises(paramiko.SSHException):
            transport.request_port_forward("127.0.0.1", 0)
        for ask in ("get_pty", "request_x11"):
            with transport.open_session() as channel, pytest.raises(paramiko.SSHException):
                getattr(channel, ask)()
        with transport.open_session() as channel:
            channel.request_forward_agent(lambda _: None)
            with channel.makefile("rb") as stdout:
                channel.exec_command('echo "${SSH_AUTH_SOCK-none}"')
                assert stdout.read() == b"none\n"


# Prints the ids of a process of the command's group, of its shell, and of one that left the group.
THREE = f"""
sleep 60 & '{sys.executable}' -c '
import os, sys, time
os.setsid()
print(sys.argv[1], os.getppid(), os.getpid(), flush=True)
time.sleep(60)' $! & wait
"""


@pytest.mark.parametrize("leave", ["connection", "channel", "channel with unread input"])
def test_a_client_that_goes_away_ends_the_command_but_not_what_was_detached(shared, leave):
    with login(shared) as client:
        channel, [member, shell, detached] = start(client, THREE)
        assert alive(member)
        if leave == "channel with unread input":
            # More than pipe and channel take: asyncssh alone would not tell that the channel was closed.
            channel.settimeout(0.2)
            with pytest.raises(TimeoutError):
                channel.sendall(bytes(16 << 20))
        if leave != "connection":
            channel.close()
            eventually(lambda: not alive(shell))
            assert run(client, "echo others live")[1] == b"others live\n"
    eventually(lambda: not alive(shell) and not alive(member))
    assert alive(detached)
    os.kill(detached, signal.SIGKILL)


def host_threads():
    return sum(thread.name == "embedded-host" for thread in threading.enumerate())


def test_stop_ends_everything_it_started_and_can_be_repeated(tmp_path):
    host = EmbeddedHost(tmp_path / "home")
    host.stop()
    threads = host_threads()
    host.start()
    with login(host) as client:
        _, [stubborn] = start(client, "trap '' HUP; echo $$; while :; do sleep 60; done")
        host.stop()
        assert not alive(stubborn)
        eventually(lambda: not client.get_transport().is_active())
    host.stop()
    host.cut()
    assert host_threads() == threads
    with pytest.raises(OSError, match=r"connect|refused"), login(host):
        pass


def test_cut_resets_the_connections_there_are_and_welcomes_new_ones(host):
    with login(host) as busy, login(host) as idle, idle.open_sftp() as sftp:
        downloading, [shell] = start(busy, "echo $$; cat /dev/zero")
        with sftp.open("half-written", "w") as file:
            file.write(b"x")
            host.cut()
            eventually(lambda: not busy.get_transport().is_active() and not idle.get_transport().is_active())
            assert downloading.exit_status == -1
            eventually(lambda: not alive(shell))
            with login(host) as again:
                assert run(again, "echo back")[1] == b"back\n"


def test_two_hosts_have_nothing_in_common(host, tmp_path):
    with EmbeddedHost(tmp_path / "other") as other:
        assert host.port != other.port
        for here, name in ((host, b"home"), (other, b"other")):
            with login(here) as client:
                assert run(client, 'basename "$HOME"')[1] == name + b"\n"
        with (
            pytest.raises(paramiko.AuthenticationException),
            login(other, key_filename=str(host.identity_file)),
        ):
            pass
        # Vouched for under the other's number only by the other's key.
        assert host.known_hosts_file.read_text().split()[2] != other.known_hosts_file.read_text().split()[2]


def test_keeps_its_files_private(host):
    assert host.identity_file.is_relative_to(host.home)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (host.home, *host.home.rglob("*"))}
    assert modes == {
        host.home: 0o700,
        host.identity_file.parent: 0o700,
        host.identity_file: 0o600,
        host.known_hosts_file: 0o600,
    }


def test_says_how_to_log_in(host):
    assert host.address == f"{host.user}@127.0.0.1"
    assert shlex.split(host.login_line) == [
        "ssh",
        "-i",
        str(host.identity_file),
        "-p",
        str(host.port),
        host.address,
    ]


def test_sftp_starts_at_home_and_carries_files(shared):
    content = os.urandom(3 << 20)
    with login(shared) as client, client.open_sftp() as sftp:
        sftp.mkdir("folder")
        with sftp.open("folder/put", "wb") as file:
            file.write(content)
        assert (shared.home / "folder" / "put").read_bytes() == content
        with sftp.open(str(shared.home / "folder" / "put"), "rb") as file:
            file.prefetch(len(content))
            assert file.read() == content
        sftp.symlink("put", "folder/link")
        assert sftp.readlink("folder/link") == "put"
        sftp.posix_rename("folder/link", "folder/renamed")
        assert sftp.listdir("folder") == ["put", "renamed"]
        assert sftp.normalize(".") == str(shared.home.resolve())
        with pytest.raises(FileNotFoundError):
            sftp.stat("nothing")


def test_an_upload_or_download_does_not_pile_up_in_memory(shared):
    size, block = 32 << 20, bytes(1 << 20)
    slow_reader = "import os, time\nwhile os.read(0, 1 << 16): time.sleep(0.001)"
    with login(shared) as client:
        tracemalloc.start()
        try:
            with client.get_transport().open_session() as channel:
                channel.exec_command(f"'{sys.executable}' -c '{slow_reader}'")
                for _ in range(size // len(block)):
                    channel.sendall(block)
                channel.shutdown_write()
                assert channel.recv_exit_status() == 0
            with client.get_transport().open_session() as channel:
                channel.exec_command(f"head -c {size} /dev/zero")
                time.sleep(0.2)  # long enough for a server without back pressure to read it all
                received = 0
                while chunk := channel.recv(1 << 16):
                    received += len(chunk)
                assert received == size
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak_bytes < 20 << 20


def test_starts_once(host):
    with pytest.raises(RemoteError, match="already running"):
        host.start()


def test_a_home_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RemoteError, match="can't start in"):
        EmbeddedHost(tmp_path / "file" / "home").start()


def test_importing_it_costs_nothing():
    code = "import sys, remote.embedded; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
