"""Who the other side is, who we are, and what happens when nobody answers: nothing is believed or offered silently."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest

from remote.embedded import EmbeddedHost
from remote.errors import AuthenticationFailed, ChangedHostKey, UnknownHostKey, Unreachable
from remote.ssh.address import Address, parse
from remote.ssh.host import SshHost
from remote.ssh.questions import TrustFirst
from tests.connected import connect

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

needs_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedHost(tmp_path_factory.mktemp("server") / "home") as running:
        yield running


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch):
    """A person's home in which nothing of ssh is yet, and no agent."""
    home = tmp_path / "laptop"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


@pytest.fixture
def known(tmp_path):
    return tmp_path / "known" / "hosts"


def key_pair(path, kind="ed25519"):
    path.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)], check=True)
    return path


def fingerprints(path):
    """What `ssh-keygen -lf` says, without sizes and names."""
    said = subprocess.run(["ssh-keygen", "-lf", str(path)], capture_output=True, text=True, check=True)
    return [line.split()[1] for line in said.stdout.splitlines()]


@needs_keygen
def test_a_host_never_seen_is_an_error_with_its_fingerprint(server, known):
    with connect(server, known_hosts=known) as host, pytest.raises(UnknownHostKey) as stopped:
        host.run(["true"])
    [expected] = fingerprints(server.known_hosts_file)
    assert stopped.value.fingerprint == f"ssh-ed25519 {expected}"
    assert expected in stopped.value.message
    assert f"[127.0.0.1]:{server.port}" in stopped.value.message
    assert stopped.value.hint
    assert not known.exists()


def test_a_stopped_login_leaves_no_connection_behind(server, known):
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(UnknownHostKey):
            connect(server, known_hosts=known).run(["true"])
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_accepting_it_writes_one_line_that_holds_from_then_on(server, known):
    known.parent.mkdir()
    known.write_text("other.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0Yq3kAPK1hPl4Yy1rVyQXUnQ8p0FYGSTKsFJ5Wjj2i")
    for _ in range(2):
        with connect(server, known_hosts=known, questions=TrustFirst()) as host:
            assert host.run(["printf", "in"]).stdout == b"in"
    kept, added = known.read_text().splitlines()
    assert kept.startswith("other.example ")
    assert added == server.known_hosts_file.read_text().strip()
    with connect(server, known_hosts=known) as host:
        assert host.run(["printf", "in"]).stdout == b"in"


def test_the_users_own_file_is_the_default(server, laptop):
    with SshHost("there", parse(server.login_line), questions=TrustFirst()) as host:
        host.run(["true"]).check()
    assert (laptop / ".ssh" / "known_hosts").read_text() == server.known_hosts_file.read_text().strip() + "\n"


@needs_keygen
@pytest.mark.parametrize("accept_new", [False, True])
def test_a_changed_key_names_both_and_is_never_accepted(server, known, tmp_path, accept_new):
    other = key_pair(tmp_path / "other").with_suffix(".pub")
    known.parent.mkdir()
    known.write_text(f"[127.0.0.1]:{server.port} {other.read_text()}")
    before = known.read_bytes()
    questions = TrustFirst() if accept_new else None
    with connect(server, known_hosts=known, questions=questions) as host, pytest.raises(ChangedHostKey) as stopped:
        host.run(["true"])
    assert fingerprints(other)[0] in stopped.value.message
    assert fingerprints(server.known_hosts_file)[0] in stopped.value.message
    assert known.read_bytes() == before
    # Only the very key that was shown can take its place.
    with connect(server, known_hosts=known, replace_key="SHA256:other") as host, pytest.raises(ChangedHostKey):
        host.run(["true"])
    assert known.read_bytes() == before
    [shown] = fingerprints(server.known_hosts_file)
    assert f"--replace-key {shown}" in stopped.value.hint
    with connect(server, known_hosts=known, replace_key=shown) as host:
        assert host.run(["printf", "in"]).stdout == b"in"
    assert known.read_text() == server.known_hosts_file.read_text().strip() + "\n"


@needs_keygen
def test_a_key_of_another_kind_is_a_changed_key(server, known, tmp_path):
    known.parent.mkdir()
    known.write_text(f"[127.0.0.1]:{server.port} {key_pair(tmp_path / 'o', 'ecdsa').with_suffix('.pub').read_text()}")
    with connect(server, known_hosts=known, questions=TrustFirst()) as host, pytest.raises(ChangedHostKey):
        host.run(["true"])


@needs_keygen
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_wrong_key_is_refused(server, tmp_path, kind):
    address = Address(server.host, server.user, server.port, str(key_pair(tmp_path / kind, kind)))
    with (
        SshHost("there", address, known_hosts=server.known_hosts_file) as host,
        pytest.raises(AuthenticationFailed) as failure,
    ):
        host.run(["true"])
    assert f"{server.user}@127.0.0.1:{server.port}" in failure.value.message
    assert "authorized_keys" in failure.value.hint


@pytest.mark.parametrize("identity", ["", "/no/such/key"])
def test_no_key_at_all_is_a_matter_of_keys_too(server, identity):
    address = Address(server.host, server.user, server.port, identity)
    with (
        SshHost("there", address, known_hosts=server.known_hosts_file) as host,
        pytest.raises(AuthenticationFailed),
    ):
        host.run(["true"])


def test_a_wrong_user_is_refused(server):
    address = Address(server.host, "nobody-here", server.port, str(server.identity_file))
    with SshHost("there", address, known_hosts=server.known_hosts_file) as host, pytest.raises(AuthenticationFailed):
        host.run(["true"])


def test_the_ssh_config_is_honoured(server, laptop):
    (laptop / ".ssh").mkdir()
    (laptop / ".ssh" / "config").write_text(
        f"Host gpu\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n  "
        f"IdentityFile {server.identity_file}\n"
    )
    with SshHost("there", parse("gpu"), known_hosts=server.known_hosts_file) as host:
        assert host.run(["printf", "in"]).stdout == b"in"


@pytest.mark.ssh
def test_a_host_on_the_way_is_not_believed_either(sshd, server, laptop, known):
    (laptop / ".ssh").mkdir()
    (laptop / ".ssh" / "config").write_text(
        f"Host gpu\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.identity_file}\n  ProxyJump jump\n"
        f"Host jump\n  HostName localhost\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.identity_file}\n"
    )
    known.parent.mkdir()
    known.write_text(server.known_hosts_file.read_text())
    with SshHost("there", parse("gpu"), known_hosts=known) as host, pytest.raises(UnknownHostKey, match="localhost"):
        host.run(["true"])
    with known.open("a") as file:
        file.write(sshd.known_hosts_file.read_text().replace("127.0.0.1", "localhost"))
    with SshHost("there", parse("gpu"), known_hosts=known) as host:
        assert host.run(["printf", "through"]).stdout == b"through"


@pytest.mark.ssh
@pytest.mark.skipif(shutil.which("ssh-agent") is None, reason="needs ssh-agent")
def test_the_agent_is_never_forwarded(sshd, laptop, tmp_path, monkeypatch):
    (laptop / ".ssh").mkdir()
    (laptop / ".ssh" / "config").write_text("Host *\n  ForwardAgent yes\n  ForwardX11 yes\n")
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 5
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(sshd.identity_file)], check=True, stderr=subprocess.DEVNULL)
        # Without a key of its own in the login line the agent is asked: it is there, and used, and stays here.
        address = Address(sshd.host, sshd.user, sshd.port)
        with SshHost("there", address, known_hosts=sshd.known_hosts_file) as host:
            said = host.run(["sh", "-c", 'echo "${SSH_AUTH_SOCK-none} ${DISPLAY-none}"'])
        assert said.stdout == b"none none\n"
    finally:
        agent.terminate()
        agent.wait()


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_closed_port_is_unreachable_at_once(known):
    started = time.monotonic()
    port = closed_port()
    with pytest.raises(Unreachable) as failure:
        SshHost("there", Address("127.0.0.1", "root", port), known_hosts=known, retry_s=()).run(["true"])
    assert time.monotonic() - started < 3
    assert f"127.0.0.1:{port}" in failure.value.message
    assert "refused" in failure.value.message
    assert failure.value.hint


def test_a_dead_name_is_unreachable_and_the_hint_is_about_the_name(known):
    with pytest.raises(Unreachable) as failure:
        SshHost("there", Address("no-such-host.invalid", "root"), known_hosts=known).run(["true"])
    assert "name" in failure.value.hint


@contextlib.contextmanager
def strange_server(say):
    """A listener that answers every connection with what `say()` yields, until the client goes away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    taken.append(connection)
                    with contextlib.suppress(OSError):
                        for chunk in say():
                            connection.sendall(chunk)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for connection in taken:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in taken:
            connection.close()


def silence():
    return iter(())


def endless_line():
    while True:
        yield b"x" * 1000


def endless_lines():
    while True:
        yield b"welcome\r\n" * 100


def half_a_handshake():
    yield b"SSH-2.0-strange\r\n"


def noise_after_the_banner():
    yield b"SSH-2.0-strange\r\n" + bytes(range(256)) * 64


@pytest.mark.parametrize("say", [silence, endless_line, endless_lines, half_a_handshake, noise_after_the_banner])
def test_a_server_that_is_none_is_unreachable_in_bounded_time(say, known):
    started = time.monotonic()
    with strange_server(say) as port:
        host = SshHost(
            "there", Address("127.0.0.1", "root", port), known_hosts=known, connect_timeout_s=0.5, retry_s=()
        )
        with pytest.raises(Unreachable, match=f"127.0.0.1:{port}"):
            host.run(["true"])
    assert time.monotonic() - started < 5
