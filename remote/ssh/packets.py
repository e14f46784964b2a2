"""The way between the socket and a channel, short: bulk goes in large reads and writes, and is copied twice.

paramiko asks the socket for every packet's first 16 bytes by themselves, sends every packet by itself, and copies it
eight times.  What is private to its packetizer and taken here is the reason why paramiko is pinned; a test holds it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from paramiko.buffered_pipe import PipeTimeout
from paramiko.channel import Channel
from paramiko.common import MSG_CHANNEL_DATA, byte_chr
from paramiko.message import Message
from paramiko.packet import NeedRekeyException, Packetizer
from paramiko.ssh_exception import SSHException

READ_BYTES = 256 * 1024
MOST_BYTES = 1024 * 1024
# What goes in one write.
BULK_BYTES = 256 * 1024
BULK_PACKETS = 64
LENGTH_BYTES, TAG_BYTES = 4, 16
# Byte 0 is the length of the padding, byte 1 the kind, then the channel and the length of its data.
DATA_AT = 10


class Bulk:
    """Data for a channel, as one message of the transport and as many packets as there are pieces."""

    def __init__(self, channel: int, pieces: Sequence[memoryview]) -> None:
        self.channel = channel
        self.pieces = pieces

    def messages(self) -> Iterator[Message]:
        """The packets, each by itself."""
        for piece in self.pieces:
            message = Message()
            message.add_byte(byte_chr(MSG_CHANNEL_DATA))
            message.add_int(self.channel)
            message.add_string(bytes(piece))
            yield message


def send_all(channel: Channel, data: memoryview) -> None:
    """Send data to a channel.  Raises OSError, EOFError once nobody takes it any more."""
    private: Any = channel
    while data:
        pieces: list[memoryview] = []
        left = BULK_BYTES
        with private.lock:
            while not pieces or (data and left and private.out_window_size and len(pieces) < BULK_PACKETS):
                size = 0 if private.closed else private._wait_for_send_window(min(left, len(data)))
                if not size:
                    raise OSError("the channel is closed")
                pieces.append(data[:size])
                data = data[size:]
                left -= size
        # Not under the lock: a re-key would wait for it.
        private.transport._send_user_message(Bulk(private.remote_chanid, pieces))


class Packets(Packetizer):
    """What a transport's packetizer becomes once it is made.  `channels` is the transport's map of its channels."""

    channels: Any

    def prepare(self, channels: Any) -> None:
        """Instead of a constructor: the packetizer exists already."""
        self.channels = channels
        self._ahead = memoryview(bytearray(MOST_BYTES + READ_BYTES))
        self._at = self._end = 0
        self._sealed = memoryview(bytearray(2 * BULK_BYTES))

    def send_message(self, data: Any) -> None:
        """A message, or the packets of a Bulk in one write.  Raises EOFError once the connection is over."""
        private: Any = self
        if not isinstance(data, Bulk):
            super().send_message(data)
        elif not private._Packetizer__aead_out or private._Packetizer__compress_engine_out is not None:
            for message in data.messages():
                super().send_message(message)
        else:
            with private._Packetizer__write_lock:
                self._send_sealed(data)

    def _send_sealed(self, data: Bulk) -> None:
        private: Any = self
        engine, block = private._Packetizer__block_engine_out, private._Packetizer__block_size_out
        end = 0
        for piece in data.pieces:
            length = DATA_AT + len(piece)
            padding = 4 + -(length + 4) % block
            head = (length + padding).to_bytes(LENGTH_BYTES, "big")
            plain = b"".join(
                (
                    bytes((padding, MSG_CHANNEL_DATA)),
                    data.channel.to_bytes(4, "big"),
                    len(piece).to_bytes(4, "big"),
                    piece,
                    os.urandom(padding),
                )
            )
            at, end = end + LENGTH_BYTES, end + LENGTH_BYTES + len(plain) + TAG_BYTES
            self._sealed[at - LENGTH_BYTES : at] = head
            engine.encrypt_into(private._Packetizer__iv_out, plain, head, self._sealed[at:end])
            private._Packetizer__iv_out = self._inc_iv_counter(private._Packetizer__iv_out)  # type: ignore[attr-defined]
        count = len(data.pieces)
        private._Packetizer__sequence_number_out = (private._Packetizer__sequence_number_out + count) & 0xFFFFFFFF
        private.write_all(self._sealed[:end])
        private._Packetizer__sent_bytes += end
        private._Packetizer__sent_packets += count

    def read_message(self) -> Any:
        """The next packet that is not data of a channel; data goes to its channel on the way.

        Raises what paramiko's own does.
        """
        private: Any = self
        while True:
            if (
                not private._Packetizer__aead_in
                or private._Packetizer__need_rekey
                or private._Packetizer__compress_engine_in is not None
                or private._Packetizer__mac_size_in != TAG_BYTES
            ):
                return super().read_message()
            head = self._view(LENGTH_BYTES, check_rekey=True).tobytes()
            size = int.from_bytes(head, "big")
            if not 0 < size <= MOST_BYTES:
                raise SSHException(f"a packet of {size} bytes")
            sealed = self._view(size + TAG_BYTES)
            plain = memoryview(bytearray(size))
            private._Packetizer__block_engine_in.decrypt_into(private._Packetizer__iv_in, sealed, head, plain)
            private._Packetizer__iv_in = self._inc_iv_counter(private._Packetizer__iv_in)  # type: ignore[attr-defined]
            number = private._Packetizer__sequence_number_in
            private._Packetizer__sequence_number_in = (number + 1) & 0xFFFFFFFF
            private._Packetizer__received_bytes += len(sealed) + LENGTH_BYTES
            private._Packetizer__received_packets += 1
            end = size - plain[0]
            if end >= DATA_AT and plain[1] == MSG_CHANNEL_DATA:
                channel = self.channels.get(int.from_bytes(plain[2:6], "big"))
                data = plain[DATA_AT : min(end, DATA_AT + int.from_bytes(plain[6:10], "big"))]
                if channel is not None:
                    pipe = channel.in_buffer
                    pipe.feed(data if isinstance(pipe, Pieces) else data.tobytes())
                continue
            message = Message(plain[2:end].tobytes())
            message.seqno = number
            return plain[1], message

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        """The next `n` bytes.  Raises EOFError, NeedRekeyException, as paramiko's own does."""
        return self._view(n, check_rekey).tobytes()

    def _view(self, n: int, check_rekey: bool = False) -> memoryview:
        """The next `n` bytes, until the next call."""
        if n > self._end - self._at:
            self._more(n, check_rekey)
        self._at += n
        return self._ahead[self._at - n : self._at]

    def _more(self, n: int, check_rekey: bool) -> None:
        """Have at least `n` bytes at hand."""
        private: Any = self
        # What is there, and what came behind the line before the first packet.
        have = self._ahead[self._at : self._end].tobytes() + private._Packetizer__remainder
        private._Packetizer__remainder = b""
        self._ahead[: len(have)] = have
        self._at, self._end = 0, len(have)
        while self._end < n:
            if self.handshake_timed_out():
                raise EOFError
            try:
                count = _receive(private._Packetizer__socket, self._ahead[self._end : self._end + READ_BYTES])
                if not count:
                    raise EOFError
                self._end += count
            except OSError as error:  # mostly that nothing came for a moment
                passing = isinstance(error, TimeoutError) or error.errno == errno.EAGAIN
                if private._Packetizer__closed:
                    raise EOFError from error
                if not passing:
                    raise
                if check_rekey and not self._end and private._Packetizer__need_rekey:
                    raise NeedRekeyException from error
                private._check_keepalive()


def _receive(sock: Any, into: memoryview) -> int:
    if not isinstance(sock, Channel):
        return int(sock.recv_into(into))
    data = sock.recv(len(into))  # behind a jump host
    into[: len(data)] = data
    return len(data)


class Pieces:
    """What a channel received and nobody has read yet, as the pieces it came in; used as paramiko's BufferedPipe is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cv = threading.Condition(self._lock)
        self._event: threading.Event | None = None
        self._closed = False
        self._pieces: deque[bytes | memoryview] = deque()
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
            taken: list[bytes | memoryview] = []
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
        self.last = b"".join(taken)
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
