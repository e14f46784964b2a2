"""A command that runs behind SSH: its three streams, its end, and how it is ended early."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from remote.errors import Unreachable
from remote.host import Process

if TYPE_CHECKING:
    import paramiko

PACKET_BYTES = 256 * 1024


class SshProcess(Process):
    def __init__(
        self,
        name: str,
        channel: paramiko.Channel,
        stdin: Iterable[bytes],
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> None:
        super().__init__(on_stderr)
        self._name = name
        self._channel = channel
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
            close(self._channel)
            return
        with contextlib.suppress(OSError, EOFError):
            self._channel.shutdown_write()

    def _sent(self, chunk: bytes) -> bool:
        """False when nobody takes it any more: the command ended or the connection broke, and `wait` tells which."""
        from remote.ssh.packets import send_all

        try:
            send_all(self._channel, memoryview(chunk))
        except (OSError, EOFError):
            return False
        return True

    def _drain(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while chunk := self._channel.recv_stderr(PACKET_BYTES):
                self._take_stderr(chunk)

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._received():
            yield chunk

    def _received(self) -> bytes:
        try:
            return self._channel.recv(PACKET_BYTES)
        except (OSError, EOFError):
            # On a broken connection more was asked for in vain; this, and what else came before the break, was read.
            pieces: Any = self._channel.in_buffer
            return bytes(pieces.last)

    def wait(self) -> int:
        status = self._channel.recv_exit_status()
        self._drainer.join()
        if self._feed_error is not None:
            raise self._feed_error
        if status < 0:
            # Never a guess: the command may have ended well, or may still be running.
            raise Unreachable(f"{self._name}: the connection broke before the command's end was known")
        return status

    def close(self) -> None:
        close(self._channel)


def close(channel: paramiko.Channel) -> None:
    """Close a channel, whether or not its connection still lives."""
    with contextlib.suppress(OSError, EOFError):
        channel.close()
