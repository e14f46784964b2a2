"""A host behind SSH: one connection, as many commands at once as are asked for, made again after a break."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote import command, failure
from remote.errors import AuthenticationFailed, CannotExecute, TimedOut, Unreachable
from remote.host import Host
from remote.ssh import config as ssh_config
from remote.ssh import host_keys
from remote.ssh.address import Address
from remote.ssh.config import Hop
from remote.ssh.connection import WINDOW_BYTES, Connection, HostKeyCheck
from remote.ssh.credentials import Credentials, Dropped
from remote.ssh.host_keys import KnownHosts
from remote.ssh.process import PACKET_BYTES, SshProcess, close
from remote.ssh.questions import Questions

if TYPE_CHECKING:
    import paramiko

CONNECT_TIMEOUT_S = 20
# After a host turned us away: gateways throttle, and sshd may come up after the console says "running".
RETRY_S = (2.0, 5.0, 8.0)
JITTER = 0.2
MOST_DROPS = 5
CLOSING_S = 1.0
READER_ENDS_S = 0.2


class SshHost(Host):
    """A machine behind SSH.  Connects at the first command, again after a break.

    `questions` are put to a person: a password, a passphrase, whether a key never seen is the host's.  A changed key is
    never accepted, unless it is the very one whose fingerprint is `replace_key`.  With `keys_only` no password is asked
    for or sent.  `retry_s` are the waits after a host turned us away.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        known_hosts: Path | None = None,
        questions: Questions | None = None,
        replace_key: str = "",
        keys_only: bool = False,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        retry_s: Sequence[float] = RETRY_S,
    ) -> None:
        self.name = name
        self.address = address
        self._questions = questions or Questions()
        self._check = HostKeyCheck(name, address.login_line, KnownHosts(known_hosts), self._questions, replace_key)
        self._keys_only = keys_only
        self._connect_timeout_s = connect_timeout_s
        self._retry_s = tuple(retry_s)
        self._credentials: dict[Hop, Credentials] = {}
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()

    @property
    def used_password(self) -> bool:
        """Whether the present login, here or on the way, took a password."""
        return any(credentials.used_password for credentials in self._credentials.values())

    @property
    def connected(self) -> bool:
        """Whether there is a connection that still lives."""
        return self._connection is not None and self._connection.transport.is_active()

    def shown_key(self) -> paramiko.PKey | None:
        """The key that the host itself showed last, whatever the machines before it did; None if it came to none."""
        hop = self._route()[-1]
        return self._check.shown.get(host_keys.name_of(hop.host, hop.port))

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> SshProcess:
        text = command.render(argv, env=env, cwd=cwd)
        channel = self.open_session()
        self._requested(channel, lambda: channel.exec_command(text.encode("utf-8", "surrogateescape")))
        return SshProcess(self.name, channel, stdin, on_stderr)

    def shell(self, term: str, columns: int, rows: int, argv: Sequence[str] = ()) -> paramiko.Channel:
        """The login shell, or a command, in a terminal of its own over there.  The caller closes the channel."""
        channel = self.open_session()

        def request() -> None:
            channel.get_pty(term, columns, rows)
            if argv:
                channel.exec_command(command.render(argv).encode("utf-8", "surrogateescape"))
            else:
                channel.invoke_shell()

        self._requested(channel, request)
        return channel

    def open_session(self) -> paramiko.Channel:
        """A new session on the one connection.  The caller closes it."""
        from remote.ssh.packets import Pieces

        channel = self._opened("session", None)
        buffered: Any = channel
        buffered.in_buffer = Pieces()  # nothing comes before something is asked for
        return channel

    def open_stream(self, host: str, port: int) -> paramiko.Channel:
        """A stream to `host:port` as seen from the machine.  The caller closes it."""
        return self._opened("direct-tcpip", (host, port))

    def _opened(self, kind: str, target: tuple[str, int] | None) -> paramiko.Channel:
        import paramiko

        transport = self.connect()
        try:
            return transport.open_channel(
                kind,
                dest_addr=target,
                src_addr=("127.0.0.1", 0) if target else None,
                window_size=WINDOW_BYTES,
                max_packet_size=PACKET_BYTES,
                timeout=self._connect_timeout_s,
            )
        except paramiko.ChannelException as error:
            # The connection is well, and others may be at work on it.
            if target is not None:
                raise Unreachable(f"{self.name}: nothing listens on {target[0]}:{target[1]} there") from error
            raise Unreachable(
                f"{self.name}: refuses one more command at once ({error.text})",
                hint="wait, or raise MaxSessions in its sshd_config",
            ) from error
        except Exception as error:  # paramiko passes on whatever its reader tripped over in what the host sent
            self._discard(transport)
            raise Unreachable(f"{self.name}: no command could be started there ({error or 'it ended'})") from error

    def _requested(self, channel: paramiko.Channel, request: Callable[[], None]) -> None:
        """Carry out a request on a channel; paramiko itself would wait for its answer for ever."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            close(channel)

        timer = threading.Timer(self._connect_timeout_s, expire)
        timer.daemon = True
        timer.start()
        try:
            request()
        except BaseException as error:
            close(channel)
            if not isinstance(error, Exception):
                raise
            if expired.is_set():
                self._discard(channel.get_transport())
                raise TimedOut(f"{self.name}: no answer within {self._connect_timeout_s:g} s") from error
            # A reader that met the end wakes whoever waits a moment before it says that it is over.
            channel.get_transport().join(READER_ENDS_S)
            if not channel.get_transport().is_active():
                raise Unreachable(f"{self.name}: the connection broke") from error
            raise failure.refusal(
                CannotExecute, f"{self.name}: refuses to run commands", "exec request failed", self.name
            ) from error
        finally:
            timer.cancel()

    def connect(self) -> paramiko.Transport:
        """The live transport.

        Raises Unreachable, AuthenticationFailed, UnknownHostKey, ChangedHostKey, and RemoteError for a ~/.ssh/config
        that can't be understood.
        """
        self._closing.clear()
        with self._lock:
            if self._connection is None or not self._connection.transport.is_active():
                self._hang_up()
                self._connection = self._reached()
                self.logins += 1
            return self._connection.transport

    def close(self) -> None:
        # Whoever is about to connect is told to give up, and not waited for: its sockets have time limits.
        self._closing.set()
        if self._lock.acquire(timeout=CLOSING_S):
            try:
                self._hang_up()
            finally:
                self._lock.release()

    def _discard(self, transport: paramiko.Transport) -> None:
        """Give up this connection, and not one that another thread has made since."""
        with self._lock:
            if self._connection is not None and self._connection.transport is transport:
                self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _reached(self) -> Connection:
        logging.getLogger("paramiko").addHandler(logging.NullHandler())  # tracebacks of theirs are errors of ours
        route = self._route()
        waits = list(self._retry_s)
        if route[-1].attempts:
            del waits[route[-1].attempts - 1 :]
        while True:
            try:
                return self._logged_in(route)
            except Unreachable as error:
                if not error.passing or not waits:
                    raise
                wait_s = waits.pop(0) * random.uniform(1 - JITTER, 1 + JITTER)
                self._questions.tell(f"{error.short}; trying again in {wait_s:.0f} s")
                if self._closing.wait(wait_s):
                    raise

    def _route(self) -> tuple[Hop, ...]:
        return ssh_config.route_in_time(self.address, self._connect_timeout_s)

    def _logged_in(self, route: Sequence[Hop]) -> Connection:
        drops = 0
        while True:
            connection = Connection(self.name, self._check)
            try:
                for hop in route:
                    connection.extend(
                        hop, self._known(hop, hop is route[-1]), hop.connect_timeout_s or self._connect_timeout_s
                    )
                connection.keep_alive()
                return connection
            except Dropped as error:
                connection.close()
                drops += 1
                if drops == MOST_DROPS:
                    raise failure.refusal(
                        AuthenticationFailed,
                        f"{self.name}: hangs up in the middle of every login",
                        "too many authentication failures",
                        self.name,
                    ) from error
            except BaseException:
                # Otherwise a half-made connection would live on, with its thread, until the host gives up.
                connection.close()
                raise

    def _known(self, hop: Hop, is_target: bool) -> Credentials:
        if hop not in self._credentials:
            self._credentials[hop] = Credentials(hop, self._questions, keys_only=self._keys_only, is_target=is_target)
        return self._credentials[hop]
