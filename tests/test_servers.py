"""The OpenSSH server of the tests, and what a real sshd does that code must not forget."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import time

import paramiko
import pytest

from tests.servers import OpenSshServer, openssh_missing

reason = openssh_missing()
pytestmark = [pytest.mark.ssh, pytest.mark.skipif(reason is not None, reason=str(reason))]

SOON_S = 5.0


@pytest.fixture
def server(tmp_path):
    with OpenSshServer(tmp_path / "sshd", path_prefix=["/first place"]) as running:
        yield running


@contextlib.contextmanager
def login(server):
    client = paramiko.SSHClient()
    client.load_host_keys(str(server.known_hosts_file))
    key = str(server.identity_file)
    try:
        client.connect(server.host, server.port, server.user, key_filename=key, allow_agent=False, look_for_keys=False)
        yield client
    finally:
        client.close()


@contextlib.contextmanager
def running(client, command):
    """What a command prints, as a file; the command may still be running."""
    with client.get_transport().open_session(timeout=SOON_S) as channel, channel.makefile("rb") as stdout:
        channel.settimeout(SOON_S)
        channel.exec_command(command)
        yield stdout


def output(client, command):
    with running(client, command) as stdout:
        return stdout.read().decode()


def eventually(condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def exists(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_home_and_path_are_private_but_commands_start_elsewhere(server):
    with login(server) as client:
        lines = output(client, 'echo "$HOME"; echo "$PATH"; pwd; cd; pwd').splitlines()
        with client.open_sftp() as sftp:
            sftp_start = sftp.normalize(".")
    real_home = os.path.realpath(pwd.getpwuid(os.getuid()).pw_dir)
    assert lines[0] == lines[3] == str(server.home)
    assert lines[1].split(os.pathsep)[0] == "/first place"
    assert os.path.realpath(lines[2]) == os.path.realpath(sftp_start) == real_home


def test_takes_nothing_but_its_key(server):
    with contextlib.closing(paramiko.Transport((server.host, server.port))) as transport:
        transport.start_client(timeout=SOON_S)
        with pytest.raises(paramiko.BadAuthenticationType) as refusal:
            transport.auth_password(server.user, "x")
    assert refusal.value.allowed_types == ["publickey"]


def test_a_command_without_terminal_outlives_its_connection(server):
    # Unlike under EmbeddedHost: whoever needs a command to end must end it.
    with login(server) as client, running(client, "echo $$; exec sleep 60") as stdout:
        pid = int(stdout.readline())
    server.kill_connections()
    assert exists(pid)
    os.kill(pid, signal.SIGKILL)


def test_killed_connections_break_and_new_ones_are_welcome(server):
    with login(server) as first, login(server) as second:
        server.kill_connections()
        eventually(lambda: not first.get_transport().is_active() and not second.get_transport().is_active())
        with login(server) as third:
            assert output(third, "echo back") == "back\n"


def test_comes_back_as_itself_after_a_restart(server):
    before = server.login_line, server.known_hosts_file.read_text(), server.identity_file.read_text()
    with login(server) as client:
        server.restart()
        eventually(lambda: not client.get_transport().is_active())
    assert (
        server.login_line,
        server.known_hosts_file.read_text(),
        server.identity_file.read_text(),
    ) == before
    with login(server) as client:
        assert output(client, "echo back") == "back\n"
    server.stop()
    server.stop()
    with pytest.raises(OSError, match="connect"), login(server):
        pass
