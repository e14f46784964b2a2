"""The way from the socket to a channel, short: what a host sends in bulk comes in large reads and is copied twice.

paramiko asks the socket for every packet's first 16 bytes by themselves, and copies each packet eight times.  What is
private to its packetizer and taken here is the reason why paramiko is pinned; a test holds it.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from typing import Any

from paramiko.buffered_pipe import PipeTimeout
from paramiko.common import MSG_CHANNEL_DATA
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

READ_BYTES = 256 * 1024
MOST_BYTES = 1024 * 1024
LENGTH_BYTES, TAG_BYTES = 4, 16
# Byte 0 is the length of the padding, byte 1 the kind, then the channel and the length of its data.
DATA_AT = 10


class Packets(Packetizer):
    """What a transport's packetizer becomes once it is made.  `channels` is the transport's map of its channels."""

    channels: Any
    _ahead = b""
    _at = 0

    def read_message(self) -> Any:
        """The next packet that is not data of a channel; data goes to its channel on the way.

        Raises what paramiko's own does.
        """
        while True:
            private: Any = self
            if (
                not private._Packetizer__aead_in
                or private._Packetizer__need_rekey
                or private._Packetizer__compress_engine_in is not None
                or private._Packetizer__mac_size_in != TAG_BYTES
            ):
                return super().read_message()
            head = self.read_all(LENGTH_BYTES, check_rekey=True)
            size = int.from_bytes(head, "big")
            if size > MOST_BYTES:
                raise SSHException(f"a packet of {size} bytes")
            sealed = self.read_all(size + TAG_BYTES)
            plain = private._Packetizer__block_engine_in.decrypt(private._Packetizer__iv_in, sealed, head)
            private._Packetizer__iv_in = self._inc_iv_counter(private._Packetizer__iv_in)  # type: ignore[attr-defined]
            number = private._Packetizer__sequence_number_in
            private._Packetizer__sequence_number_in = (number + 1) & 0xFFFFFFFF
            private._Packetizer__received_bytes += len(sealed) + LENGTH_BYTES
            private._Packetizer__received_packets += 1
            end = size - plain[0]
            if plain[1] == MSG_CHANNEL_DATA and end >= DATA_AT:
                channel = self.channels.get(int.from_bytes(plain[2:6], "big"))
                if channel is not None:
                    channel._feed(plain[DATA_AT : min(end, DATA_AT + int.from_bytes(plain[6:10], "big"))])
                continue
            message = Message(plain[2:end])
            message.seqno = number
            return plain[1], message

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """The next `n` bytes.  Raises EOFError, NeedRekeyException, as paramiko's own does."""
        end = self._at + n
        if end > len(self._ahead):
            self._ahead = self._more(n, check_rekey)
            self._at, end = 0, n
        piece = self._ahead[self._at : end]
        self._at = end
        return piece

    def _more(self, n: int, check_rekey: bool) -> bytes:
        """What is at hand and at least as much as is missing of `n` bytes."""
        private: Any = self
        pieces = [self._ahead[self._at :], private._Packetizer__remainder]
        private._Packetizer__remainder = b""  # of the line before the first packet
        have = sum(map(len, pieces))
        while have < n:
            if self.handshake_timed_out():
                raise EOFError
            try:
                piece = private._Packetizer__socket.recv(READ_BYTES)
                if not piece:
                    raise EOFError
                pieces.append(piece)
                have += len(piece)
            except OSError as error:  # mostly that nothing came for a moment
                passing = isinstance(error, TimeoutError) or error.errno == errno.EAGAIN
                if private._Packetizer__closed:
                    raise EOFError from error
                if not passing:
                    raise
                if check_rekey and not have and private._Packetizer__need_rekey:
                    raise NeedRekeyException from error
                private._check_keepalive()
        return b"".join(pieces)


class Pieces:
    """What a channel received and nobody has read yet, as the pieces it came in; used as paramiko's BufferedPipe is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cv = threading.Condition(self._lock)
        self._event: threading.Event | None = None
        self._closed = False
        self._pieces: deque[bytes] = deque()
        self.last = b""
        """What was read last."""

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def feed(self, data: Any) -> None:
        with self._lock:
            if data:
                self._pieces.append(data)
            if self._event is not None:
                self._event.set()
            self._cv.notify_all()

    def read_ready(self) -> bool:
        return bool(self._pieces)

    def read(self, nbytes: int, timeout: float | None = None) -> bytes:
        with self._lock:
            end = None if timeout is None else time.monotonic() + timeout
            while not self._pieces and not self._closed:
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    raise PipeTimeout
                self._cv.wait(left)
            taken: list[bytes] = []
            size = 0
            while self._pieces and size < nbytes:
                piece = self._pieces.popleft()
                if size + len(piece) > nbytes:
                    self._pieces.appendleft(piece[nbytes - size :])
                    piece = piece[: nbytes - size]
                taken.append(piece)
                size += len(piece)
            if not self._pieces and self._event is not None and not self._closed:
                self._event.clear()
        self.last = taken[0] if len(taken) == 1 else b"".join(taken)
        return self.last

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._cv.notify_all()
            if self._event is not None:
                self._event.set()

    def empty(self) -> bytes:
        with self._lock:
            rest = b"".join(self._pieces)
            self._pieces.clear()
            if self._event is not None and not self._closed:
                self._event.clear()
        return rest

    def set_event(self, event: threading.Event) -> None:
        with self._lock:
            self._event = event
            if self._closed or self._pieces:
                event.set()
            else:
                event.clear()
