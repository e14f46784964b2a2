"""The stream of bytes below a connection: TCP, or a ProxyCommand; made within a time limit or not at all."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
CHUNK_BYTES = 256 * 1024
# Unacknowledged for this long means that the network is gone (where the system can be told).
USER_TIMEOUT_MS = 45_000
# Linux takes it twice; OpenSSH's window is 2 MB.
SEND_BUFFER_BYTES = 1024 * 1024
SAID_BYTES = 2000


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns or raises.  Raises TimeoutError when it takes longer; it is then left to itself."""
    return Started(work).result(seconds)


class Started(Generic[T]):
    """`work`, under way in a thread of its own."""

    _value: T

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._find, daemon=True)
        self._thread.start()

    def _find(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # it belongs to whoever waits for the result
            self._error = error

    def result(self, seconds: float | None = None) -> T:
        """What it returned or raised, once it is over.  Raises TimeoutError when that takes longer."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError("timed out")
        if self._error is not None:
            raise self._error
        return self._value


def tcp(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected socket to the first of the host's addresses that answers.  Raises OSError, the last one's."""
    deadline = time.monotonic() + timeout_s
    # The system's resolver knows no time limit of its own.
    found = within(timeout_s, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    last: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, where in found:
        wire = _Wire(family, kind, protocol)
        try:
            wire.settimeout(max(0.1, deadline - time.monotonic()))
            wire.connect(where)
        except OSError as error:
            wire.close()
            last = error
        except BaseException:
            wire.close()
            raise
        else:
            _tune(wire)
            return wire
    raise last


class _Wire(socket.socket):
    """Acknowledges at once what comes while a connection is made.

    sshd leaves Nagle on: what it says next waits for the acknowledgement of what it said before, which Linux would
    hold back for 40 ms, once or twice in every login.
    """

    _hurries = 64 if hasattr(socket, "TCP_QUICKACK") else 0

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        self._hurry()
        return super().recv(size, flags)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0, /) -> int:
        self._hurry()
        return super().recv_into(buffer, size, flags)

    def _hurry(self) -> None:
        if self._hurries:
            self._hurries -= 1
            with contextlib.suppress(OSError):
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def _tune(wire: socket.socket) -> None:
    # paramiko leaves Nagle on, which costs a command up to 40 ms.
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # AttributeError: not Linux
        # BBR begins at almost three times what the line takes, and goes on like that for as long as it finds nothing
        # waiting to be sent: an SSH window holds less than it would like to send.  In a smaller buffer something waits.
        most = int(Path("/proc/sys/net/core/wmem_max").read_text("ascii"))
        if most >= SEND_BUFFER_BYTES and wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)[:4] == b"bbr\0":
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


class ProxyCommand:
    """A command whose input and output are the stream; `wire` is a real socket, so its end is an end.

    paramiko's own reads from the pipe itself: it spins for ever once the command has ended, and can't work on Windows.
    """

    def __init__(self, command: str) -> None:
        self.wire, self._ours = socket.socketpair()
        # Through the user's shell, as ssh does: the text is theirs, from their ~/.ssh/config.
        text = command if os.name == "nt" else f"exec {command}"
        self._process = subprocess.Popen(
            text, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._said = b""
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._to_command, self._from_command, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def said(self) -> str:
        """The last of what it wrote to stderr, once it is over."""
        self._threads[2].join(1)
        return self._said.decode(sys.getfilesystemencoding(), "replace").strip()

    def close(self) -> None:
        """End it."""
        self.wire.close()
        self._ours.close()
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join(1)

    def _to_command(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdin as pipe:
            while chunk := self._ours.recv(CHUNK_BYTES):
                pipe.write(chunk)
                pipe.flush()

    def _from_command(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdout as pipe:
            while chunk := pipe.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
                self._ours.sendall(chunk)
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError), self._process.stderr as pipe:
            while chunk := pipe.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
                self._said = (self._said + chunk)[-SAID_BYTES:]
