"""The way to a host: one Fabric connection a machine on it, each over the one before; keys checked, kept alive."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from remote import failure
from remote.errors import ChangedHostKey, RemoteError, UnknownHostKey
from remote.ssh import host_keys, wire
from remote.ssh.config import Hop
from remote.ssh.credentials import Credentials, Dropped
from remote.ssh.host_keys import KnownHosts
from remote.ssh.process import PACKET_BYTES
from remote.ssh.questions import Questions

if TYPE_CHECKING:
    import fabric
    import paramiko

KEEPALIVE_S = 15
# A host that answers no keepalive for this long is gone, whatever TCP believes.
SILENCE_S = 30
# Measured: the window and packets that fill a 60 ms, 100 Mbit/s line and the loopback alike.
WINDOW_BYTES = 4 * 1024 * 1024
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


class HostKeyCheck:
    """Decides about the key a host shows, before anything else is said to it: known, vouched for, or the end.

    A changed key is never accepted, unless it is the very one whose fingerprint is `replace_key`.
    """

    def __init__(
        self, name: str, login_line: str, known: KnownHosts, questions: Questions, replace_key: str = ""
    ) -> None:
        self._name = name
        # What a person types to settle it; an address that was not saved has no name of its own.
        saved_as = name if name != login_line and " " not in name else "NAME"
        self._add = f"launch host add {saved_as} {shlex.quote(login_line)}"
        self._known = known
        self._questions = questions
        self.shown: dict[str, paramiko.PKey] = {}
        """The last key of each machine, believed or not."""
        self._replace_key = replace_key.removeprefix("SHA256:").strip()

    def kinds(self, hop: Hop) -> Sequence[str]:
        """The kinds of key on record for a machine."""
        return self._known.key_types(host_keys.name_of(hop.host, hop.port))

    def check(self, hop: Hop, key: paramiko.PKey) -> None:
        """Return if it is the machine's key.  Raises UnknownHostKey, ChangedHostKey."""
        at = host_keys.name_of(hop.host, hop.port)
        self.shown[at] = key
        shown = host_keys.fingerprint(key)
        standing = self._known.check(at, key)
        if standing.is_known:
            return
        if standing.is_revoked:
            raise ChangedHostKey(
                f"{self._name}: {at} shows {shown}, a key that was revoked here", at=at, key=key, hint="do not log in"
            )
        if standing.is_unknown:
            unknown = UnknownHostKey(
                f"{self._name}: never seen before; {at} shows {shown}",
                at=at,
                fingerprint=shown,
                key=key,
                hint=f"compare it with the console's, then: {self._add} --accept-new",
            )
            if not self._questions.trust(unknown):
                raise unknown
            self._known.add(at, key)
            return
        if self._replace_key and shown.endswith(f"SHA256:{self._replace_key}"):
            self._known.replace(at, key)
            return
        before = " and ".join(sorted(host_keys.fingerprint(one) for one in standing.expected))
        raise ChangedHostKey(
            f"{self._name}: its host key changed: {at} now shows {shown}; on record: {before}. It was rebuilt, or the"
            " address belongs to another tenant's machine by now (or somebody listens in); nothing was sent to it",
            at=at,
            key=key,
            hint=f"only if the console says it was rebuilt: {self._add} --replace-key {shown.split()[-1]}",
        )


class Connection:
    """Made by `extend`, hop by hop; the last machine's transport is what commands run over."""

    def __init__(self, name: str, check: HostKeyCheck) -> None:
        self._name = name
        self._check = check
        self._hops: list[fabric.Connection] = []
        self._proxy: wire.ProxyCommand | None = None
        self._pulse: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def transport(self) -> paramiko.Transport:
        transport: paramiko.Transport = self._hops[-1].transport
        return transport

    def extend(self, hop: Hop, credentials: Credentials, timeout_s: float) -> None:
        """Go one machine further: bytes, host key, login.

        Raises Unreachable, TimedOut, AuthenticationFailed, UnknownHostKey, ChangedHostKey, and credentials.Dropped.
        """
        started = time.monotonic()
        # The first machine's banner comes in while our libraries are read from the disk.
        first = None if self._hops else wire.Started(lambda: self._first_wire(hop, timeout_s))
        try:
            import fabric
            import paramiko

            connection = fabric.Connection(
                hop.host,
                user=hop.user,
                port=hop.port,
                # Neither Fabric's own files nor ~/.ssh/config: the hop is all that counts.
                config=fabric.Config(lazy=True, ssh_config=paramiko.SSHConfig()),
                forward_agent=False,
                connect_timeout=max(1, round(timeout_s)),
                connect_kwargs={
                    "sock": first.result() if first else self._next_wire(hop, timeout_s),
                    "banner_timeout": timeout_s,
                    "auth_timeout": timeout_s,
                    "transport_factory": lambda sock, **options: _transport(sock, self._check.kinds(hop), **options),
                    "auth_strategy": credentials,
                },
            )
            connection.client.set_missing_host_key_policy(_Policy(self._check, hop))
            self._hops.append(connection)
            connection.open()
        except (RemoteError, Dropped):
            raise
        except Exception as error:  # paramiko passes on whatever its reader tripped over in what the host sent
            late = time.monotonic() - started >= timeout_s
            cause = self._complaint() or ("timed out" if late else _cause(error))
            raise failure.unreachable(self._name, f"{hop.host}:{hop.port}", cause) from error

    def _first_wire(self, hop: Hop, timeout_s: float) -> Any:
        if hop.proxy_command:
            self._proxy = wire.ProxyCommand(hop.proxy_command)
            return self._proxy.wire
        return wire.tcp(hop.host, hop.port, timeout_s)

    def _next_wire(self, hop: Hop, timeout_s: float) -> Any:
        import paramiko

        try:
            return self.transport.open_channel(
                "direct-tcpip", dest_addr=(hop.host, hop.port), src_addr=("127.0.0.1", 0), timeout=timeout_s
            )
        except paramiko.ChannelException as error:
            raise OSError(f"{self._hops[-1].host} can't reach it: {error.text}") from error

    def _complaint(self) -> str:
        """What the ProxyCommand said, where that is what failed."""
        if self._proxy is None or len(self._hops) > 1:
            return ""
        return f"ProxyCommand: {said}" if (said := self._proxy.said()) else ""

    def keep_alive(self) -> None:
        """Ask the host for a sign of life now and then; without one the connection is ended."""
        self._pulse = threading.Thread(target=_beat, args=(self.transport, self._over), daemon=True)
        self._pulse.start()

    def close(self) -> None:
        self._over.set()
        for connection in reversed(self._hops):
            connection.client.close()
        if self._proxy is not None:
            self._proxy.close()
        if self._pulse is not None:
            self._pulse.join(1)


class _Policy:
    """paramiko's door for a key it has no record of.  It is given no records: its own reading of known_hosts knows no
    patterns and no revoked keys, and takes another kind of key for a change."""

    def __init__(self, check: HostKeyCheck, hop: Hop) -> None:
        self._check, self._hop = check, hop

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self._check.check(self._hop, key)


def _transport(sock: Any, key_types: Sequence[str], **options: Any) -> paramiko.Transport:
    """A transport that is fast, and never re-keys: paramiko loses channels that close during an exchange."""
    import paramiko

    from remote.ssh.packets import Packets

    transport = paramiko.Transport(
        sock, default_window_size=WINDOW_BYTES, default_max_packet_size=PACKET_BYTES, **options
    )
    private: Any = transport
    private.packetizer.__class__ = Packets
    private.packetizer.prepare(private._channels)
    transport.packetizer.REKEY_BYTES = 2**36
    transport.packetizer.REKEY_PACKETS = 2**31
    security = transport.get_security_options()
    security.ciphers = _first(CIPHERS, security.ciphers)
    # The kinds of key on record first: of a host that has several, another one would look like a change.
    kinds = [kind for one in key_types for kind in (RSA_SIGNATURES if one == "ssh-rsa" else (one,))]
    security.key_types = _first(kinds, security.key_types)
    return transport


def _first(wanted: Sequence[str], possible: Sequence[str]) -> list[str]:
    head = [one for one in wanted if one in possible]
    return [*head, *(one for one in possible if one not in head)]


def _beat(transport: paramiko.Transport, over: threading.Event) -> None:
    """paramiko's own keepalive asks for no answer, so it would never learn that nobody is there."""
    import paramiko

    while not over.wait(KEEPALIVE_S) and transport.is_active():
        silence = threading.Timer(SILENCE_S, transport.close)
        silence.daemon = True
        silence.start()
        try:
            transport.global_request("keepalive@openssh.com", wait=True)
        except (paramiko.SSHException, OSError, EOFError):
            transport.close()
        finally:
            silence.cancel()


def _cause(error: BaseException) -> str:
    import paramiko

    if isinstance(error, TimeoutError):
        return "timed out"
    if not isinstance(error, (paramiko.SSHException, OSError, EOFError)):
        return f"what it sends can't be understood, {type(error).__name__}"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
