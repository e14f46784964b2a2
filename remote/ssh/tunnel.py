"""A local port that leads to a port of a host, for as long as it is wanted, over any number of broken connections."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from remote.errors import RemoteError

if TYPE_CHECKING:
    import paramiko

    from remote.ssh.host import SshHost

CHUNK_BYTES = 64 * 1024
LOOPBACK = "127.0.0.1"


class Tunnel:
    """Listens on the loopback of this machine only.  `on_trouble` hears, in words, why a connection came to nothing.

    Raises RemoteError at once where the local port is taken; with 0 the system chooses one.
    """

    def __init__(
        self,
        host: SshHost,
        remote_port: int,
        *,
        local_port: int = 0,
        remote_host: str = LOOPBACK,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._host, self._target = host, (remote_host, remote_port)
        self._on_trouble = on_trouble or (lambda text: None)
        try:
            self._listener = socket.create_server((LOOPBACK, local_port))
        except OSError as error:
            raise RemoteError(
                f"port {local_port} of this machine can't be listened on: {os.strerror(error.errno or 0)}",
                hint=f"launch tunnel {host.name} {remote_port} --local-port 0",
            ) from error
        self.local_port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Stop listening; streams that are open end with the host's connection."""
        self._over.set()
        # A listener that is closed under `accept` would go on waiting.
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.local_port), timeout=1):
            pass
        self._accepting.join(1)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                if self._over.is_set():
                    client.close()
                    return
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()
                continue
            if self._over.wait(0.1):
                return

    def _carry(self, client: socket.socket) -> None:
        with client:
            try:
                channel = self._host.open_stream(*self._target)
            except RemoteError as error:
                self._on_trouble(error.message)
                return
            with contextlib.closing(channel):
                back = threading.Thread(target=_pour, args=(channel, client), daemon=True)
                back.start()
                _pour(client, channel)
                back.join()


def _pour(source: socket.socket | paramiko.Channel, sink: socket.socket | paramiko.Channel) -> None:
    with contextlib.suppress(OSError, EOFError):
        while chunk := source.recv(CHUNK_BYTES):
            sink.sendall(chunk)
    with contextlib.suppress(OSError, EOFError):
        # Only this direction: an HTTP client may have said all and still wait for the answer.
        if isinstance(sink, socket.socket):
            sink.shutdown(socket.SHUT_WR)
        else:
            sink.shutdown_write()
