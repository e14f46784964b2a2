"""A host behind SSH: one Fabric connection over one paramiko transport, as many commands at once as are asked for."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote import command, host_keys
from remote.address import Address
from remote.errors import AuthenticationFailed, ChangedHostKey, RemoteError, UnknownHostKey, Unreachable
from remote.host import STDERR_KEPT_BYTES, Host, Process

if TYPE_CHECKING:
    import fabric
    import paramiko

CONNECT_TIMEOUT_S = 20
KEEPALIVE_S = 15
# Unacknowledged for this long means that the network is gone (where the system can be told).
USER_TIMEOUT_MS = 45_000
# Measured (docs/transfer.md): the window and packets that fill a 60 ms, 100 Mbit/s line and the loopback alike.
WINDOW_BYTES = 4 * 1024 * 1024
PACKET_BYTES = 256 * 1024
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


class SshProcess(Process):
    def __init__(self, name: str, channel: paramiko.Channel, stdin: Iterable[bytes]) -> None:
        self._name = name
        self._channel = channel
        self._stderr = b""
        self._feed_error: Exception | None = None
        self._feeder = threading.Thread(target=self._feed, args=(stdin,), daemon=True)
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._feeder.start()
        self._drainer.start()

    def _feed(self, stdin: Iterable[bytes]) -> None:
        try:
            for chunk in stdin:
                if not self._sent(chunk):
                    return
        except Exception as error:  # whatever the caller's iterator raises is the caller's to see
            self._feed_error = error
            self._channel.close()
            return
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def _sent(self, chunk: bytes) -> bool:
        """False when nobody takes it any more: the command ended or the connection broke, and `wait` tells which."""
        try:
            # A view: paramiko cuts off what it sent after every packet, and of bytes that would be a copy each time.
            self._channel.sendall(memoryview(chunk))  # type: ignore[arg-type]
        except (OSError, EOFError):
            return False
        return True

    def _drain(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while chunk := self._channel.recv_stderr(PACKET_BYTES):
                self._stderr = (self._stderr + chunk)[-STDERR_KEPT_BYTES:]

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._channel.recv(PACKET_BYTES):
            yield chunk

    def wait(self) -> int:
        status = self._channel.recv_exit_status()
        self._drainer.join()
        if self._feed_error is not None:
            raise self._feed_error
        if status < 0:
            # Never a guess: the command may have ended well, or may still be running.
            raise Unreachable(f"{self._name}: the connection broke before the command's end was known")
        return status

    def stderr(self) -> bytes:
        return self._stderr

    def close(self) -> None:
        self._channel.close()


class SshHost(Host):
    """A machine behind SSH.  Connects at the first command, again after a break.

    `accept_new` writes the key of a host that was never seen to `known_hosts`; a changed key is never accepted.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        known_hosts: Path | None = None,
        accept_new: bool = False,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> None:
        self.name = name
        self.address = address
        self._known_hosts = known_hosts or host_keys.default_file()
        self._accept_new = accept_new
        self._connect_timeout_s = connect_timeout_s
        self._connection: fabric.Connection | None = None
        self._lock = threading.Lock()

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> SshProcess:
        import paramiko

        text = command.render(argv, env=env, cwd=cwd)
        transport = self.connect()
        try:
            channel = transport.open_session(WINDOW_BYTES, PACKET_BYTES, timeout=self._connect_timeout_s)
            channel.exec_command(text.encode("utf-8", "surrogateescape"))
        except paramiko.ChannelException as error:
            # The connection is well, and others may be at work on it.
            raise Unreachable(
                f"{self.name}: refuses one more command at once ({error.text})",
                hint="wait, or raise MaxSessions in its sshd_config",
            ) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            self.close()
            raise Unreachable(f"{self.name}: no command could be started there ({error or 'it ended'})") from error
        return SshProcess(self.name, channel, stdin)

    def connect(self) -> paramiko.Transport:
        """The live transport.  Raises Unreachable, AuthenticationFailed, UnknownHostKey or ChangedHostKey."""
        with self._lock:
            if self._connection is None or not self._connection.is_connected:
                self._connection = self._connected()
            transport: paramiko.Transport | None = self._connection.transport
            assert transport is not None
            return transport

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            _hang_up(connection)

    def _connected(self) -> fabric.Connection:
        import paramiko

        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # tracebacks of theirs are errors of ours
        connection = self._fabric_connection()
        try:
            connection.open()
            assert connection.transport is not None
            connection.transport.set_keepalive(KEEPALIVE_S)
        except BaseException as error:
            refused = _is_refused(connection)
            # Otherwise a half-made connection would live on, with its thread, until the host gives up.
            _hang_up(connection)
            if isinstance(error, (paramiko.SSHException, OSError, EOFError)):
                raise self._in_our_words(connection, error, refused) from error
            raise
        return connection

    def _in_our_words(self, connection: fabric.Connection, error: Exception, refused: bool) -> RemoteError:
        import paramiko

        if isinstance(error, paramiko.BadHostKeyException):
            at = next((hop for hop in _hops(connection) if hop.host == error.hostname), connection)
            forget = host_keys.how_to_forget(self._known_hosts, at.host, at.port)
            return ChangedHostKey(
                f"{self.name}: its host key changed: now {host_keys.fingerprint(error.key)}, "
                f"known {host_keys.fingerprint(error.expected_key)} (rebuilt, or another tenant's machine by now)",
                hint=f"if you expect that: {forget} and connect again",
            )
        if isinstance(error, paramiko.AuthenticationException) or refused:
            who = f"{connection.user}@{connection.host}:{connection.port}"
            return AuthenticationFailed(
                f"{self.name}: {who} refused every key ({error})",
                hint=f"ssh-copy-id -p {connection.port} {connection.user}@{connection.host}",
            )
        where = f"{connection.host}:{connection.port}"
        return Unreachable(f"{self.name}: {where} can't be reached ({_cause(error)})", hint=_hint(error))

    def _fabric_connection(self) -> fabric.Connection:
        import fabric
        import paramiko

        # Lazy: Fabric's own files (/etc/fabric.yml, ~/.fabric.yml) are not read; ~/.ssh/config is.
        config = fabric.Config(lazy=True, ssh_config=_ssh_config())
        given = self.address.identity_file
        connection = fabric.Connection(
            self.address.host,
            user=self.address.user or None,
            port=self.address.port or None,
            config=config,
            forward_agent=False,
            connect_timeout=self._connect_timeout_s,
            connect_kwargs={
                "banner_timeout": self._connect_timeout_s,
                "auth_timeout": self._connect_timeout_s,
                "transport_factory": _transport,
                # A key that was named is the only one offered: others could lock the login out.
                **({"key_filename": str(Path(given).expanduser())} if given else {}),
                "look_for_keys": not given,
                "allow_agent": not given,
            },
        )
        try:
            for hop in _hops(connection):
                hop.connect_timeout = self._connect_timeout_s
                # On its own, Fabric believes any key a ProxyJump host shows.
                hop.client.set_missing_host_key_policy(_Policy(self.name, self._known_hosts, self._accept_new))
                if self._known_hosts.exists():
                    hop.client.load_host_keys(str(self._known_hosts))
        except (OSError, paramiko.hostkeys.InvalidHostKey) as error:
            raise RemoteError(f"{self._known_hosts} can't be read: {error}") from error
        return connection


def _hops(connection: fabric.Connection) -> Iterator[fabric.Connection]:
    """The connection, and those it goes through (ProxyJump in ~/.ssh/config)."""
    hop = connection
    while hasattr(hop, "client"):  # a ProxyCommand is plain text
        yield hop
        hop = hop.gateway


def _hang_up(connection: fabric.Connection) -> None:
    for hop in _hops(connection):
        hop.client.close()


def _is_refused(connection: fabric.Connection) -> bool:
    """Whether the login failed after the host had proven who it is: then paramiko's error is about keys, if obscurely.

    It says "not a valid key" when a good RSA key was refused, and "no such file" for a key file that is missing.
    """
    import paramiko

    transport = connection.client.get_transport()
    if transport is None or not transport.is_active():
        return False
    try:
        transport.get_remote_server_key()
    except paramiko.SSHException:
        return False
    return not transport.is_authenticated()


class _Policy:
    """What happens at the first sight of a host: stop with its fingerprint, or write it down if told to."""

    def __init__(self, name: str, known_hosts: Path, accept_new: bool) -> None:
        self._name, self._known_hosts, self._accept_new = name, known_hosts, accept_new

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        """Called by paramiko before any authentication."""
        if self._accept_new:
            host_keys.add(self._known_hosts, hostname, key)
            return
        shown = host_keys.fingerprint(key)
        raise UnknownHostKey(
            f"{self._name}: never seen before; {hostname} shows {shown}",
            fingerprint=shown,
            hint="compare it with the console's, then: launch host add NAME LOGIN --accept-new",
        )


def _transport(sock: Any, **options: Any) -> paramiko.Transport:
    """A transport that is fast, and never re-keys: paramiko loses channels that close during an exchange."""
    import paramiko

    if isinstance(sock, socket.socket):
        # paramiko leaves Nagle on, which costs a command up to 40 ms.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT") and isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    transport = paramiko.Transport(
        sock, default_window_size=WINDOW_BYTES, default_max_packet_size=PACKET_BYTES, **options
    )
    transport.packetizer.REKEY_BYTES = 2**36
    transport.packetizer.REKEY_PACKETS = 2**31
    security = transport.get_security_options()
    first = [cipher for cipher in CIPHERS if cipher in security.ciphers]
    security.ciphers = [*first, *(cipher for cipher in security.ciphers if cipher not in first)]
    return transport


def _ssh_config() -> paramiko.SSHConfig:
    import paramiko

    path = Path.home() / ".ssh" / "config"
    try:
        return paramiko.SSHConfig.from_path(str(path)) if path.exists() else paramiko.SSHConfig()
    except (OSError, paramiko.ConfigParseError, UnicodeDecodeError) as error:
        raise RemoteError(f"{path} can't be read: {error}") from error


def _cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    errors = getattr(error, "errors", None)
    if isinstance(errors, dict) and errors:  # paramiko's NoValidConnectionsError holds one error an address
        error = next(iter(errors.values()))
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _hint(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "check the host name in the login line"
    return "is the machine on? Ports change at every power-on: copy a fresh login line from the console"
