"""A TCP relay on 127.0.0.1: a line with a delay and a rate, a count of its round trips, and the faults of a network.

One thread, which alone touches the sockets; orders to it have taken effect when they return.  It never looks into
what it carries.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Self

HOST = "127.0.0.1"
CHUNK_BYTES = 256 * 1024
PACED_S = 0.01
# What a line holds besides what is on its way: the buffer of a router; without a rate, as good as no limit.
BUFFER_BYTES = 256 * 1024
WIDE_BYTES = 64 * 1024 * 1024
ORDER_S = 10.0
FLIPPED = bytes(byte ^ 0xFF for byte in range(256))
# In a queue beside what is carried.
END, RESET = b"", None


class Chunk(NamedTuple):
    """What the client's end of a connection saw: bytes that the client sent, or that it was given of the server's."""

    time_s: float
    sender: str
    size_bytes: int


@dataclass
class _Way:
    """One direction of a connection: read from `source` as it comes, written to `target` when it is due."""

    sender: str
    source: socket.socket
    target: socket.socket
    queue: deque[tuple[float, bytes | None]] = field(default_factory=deque)
    queued_bytes: int = 0
    ended: bool = False  # nothing more is read
    closed: bool = False  # nothing more is written
    blocked: bool = False


@dataclass
class _Fault:
    kind: str
    size_bytes: int
    sender: str
    connections: int | None


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket, now: float) -> None:
        self.client, self.server, self.opened_s = client, server, now
        self.up = _Way("client", client, server)
        self.down = _Way("server", server, client)
        self.connecting = self.connected = False
        self.frozen = self.garbled = self.ending = False
        self.answered = False  # the client was given something since it last sent something
        self.passed = {"client": 0, "server": 0}  # bytes of each sender, since the fault was armed
        self.struck_by: _Fault | None = None
        self.log: list[Chunk] = []
        self.masks = {client: 0, server: 0}


class Relay:
    """Connections to `port` go on to `target_port`.  `with Relay(...) as relay:` or `start` and `stop`.

    delay_s           one way, in each direction; opening a connection takes its round trip, too
    rate_bytes_per_s  of all connections together, in each direction

    These and `target_port` may be changed at any time.  The counts are of all connections since the start or
    `reset_counts`: `connections`, `refused`, `bytes_from_client`, `bytes_from_server`, and `round_trips`: how often
    a client sent something after it had been given something new (it may have cost less than a round trip, where
    that had been on its way already: SSH's greetings cross).  `logs` has a list of chunks for each connection.

    An armed fault strikes the first connection on which `size_bytes` of the `sender` have been passed on since (the
    first `connections` of them; all for None), and goes by with that.  A new one takes its place.
    """

    host = HOST

    def __init__(
        self, target_port: int, *, port: int = 0, delay_s: float = 0.0, rate_bytes_per_s: float | None = None
    ) -> None:
        self.target_port = target_port
        self.port = port
        self.delay_s = delay_s
        self.rate_bytes_per_s = rate_bytes_per_s
        self.connections = self.refused = self.round_trips = self.bytes_from_client = self.bytes_from_server = 0
        self.logs: list[list[Chunk]] = []
        self._open: list[_Connection] = []
        self._turned_away: list[socket.socket] = []
        self._refuse = 0
        self._frozen = False
        self._fault: _Fault | None = None
        self._line_free_s = {"client": 0.0, "server": 0.0}
        self._orders: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when connections are accepted."""
        assert self._thread is None, "the relay is started"
        self._listener = socket.create_server((HOST, self.port), backlog=128)
        self._selector = selectors.DefaultSelector()
        self._alarm, self._bell = socket.socketpair()
        self.port = self._listener.getsockname()[1]
        for waiting, action in ((self._alarm, self._obey), (self._listener, self._accept)):
            waiting.setblocking(False)
            self._selector.register(waiting, selectors.EVENT_READ, action)
        self._going = True
        self._thread = threading.Thread(target=self._work, name=f"relay-{self.port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close everything; more than once is fine."""
        if self._thread is not None:
            self._order(self._end)
            self._thread.join(ORDER_S)
            self._thread = None

    def reset_counts(self) -> None:
        self._order(self._reset_counts)

    def freeze(self) -> None:
        """Nothing passes any more, on no connection, open or new; all sockets stay open."""
        self._order(lambda: self._set_frozen(True))

    def thaw(self) -> None:
        """Everything goes on, also what `freeze_after` stopped; nothing was lost."""
        self._order(lambda: self._set_frozen(False))

    def cut(self) -> None:
        """End every connection in good order (FIN), at both ends; what was on its way is lost."""
        self._order(lambda: self._each(self._cut))

    def reset(self) -> None:
        """Break every connection (RST), at both ends."""
        self._order(lambda: self._each(self._abort))

    def refuse_first(self, count: int) -> None:
        """Accept the next `count` connections and end them at once, without a word."""
        self._order(lambda: setattr(self, "_refuse", count))

    def freeze_after(self, size_bytes: int, *, sender: str = "server", connections: int | None = 1) -> None:
        """Then nothing more passes in either direction, and the sockets stay open."""
        self._arm("freeze", size_bytes, sender, connections)

    def garble_after(self, size_bytes: int, *, sender: str = "server", connections: int | None = 1) -> None:
        """Then every bit that the server sends is flipped."""
        self._arm("garble", size_bytes, sender, connections)

    def cut_after(self, size_bytes: int, *, sender: str = "server", connections: int | None = 1) -> None:
        """Then the connection ends (FIN)."""
        self._arm("cut", size_bytes, sender, connections)

    def reset_after(self, size_bytes: int, *, sender: str = "server", connections: int | None = 1) -> None:
        """Then the connection breaks (RST)."""
        self._arm("reset", size_bytes, sender, connections)

    def disarm(self) -> None:
        """The armed fault won't come; what was struck stays so."""
        self._order(lambda: setattr(self, "_fault", None))

    # From any thread.

    def _order(self, action: Callable[[], None]) -> None:
        if self._thread is None:
            action()
            return
        done: Future[None] = Future()
        self._orders.append((action, done))
        self._bell.send(b"!")
        done.result(ORDER_S)

    def _arm(self, kind: str, size_bytes: int, sender: str, connections: int | None) -> None:
        def arm() -> None:
            self._fault = _Fault(kind, size_bytes, sender, connections)
            for connection in self._open:
                connection.passed = {"client": 0, "server": 0}
            self._each(self._strike_if_due)

        self._order(arm)

    # The relay's own thread, from here on.

    def _work(self) -> None:
        try:
            while self._going:
                for key, events in self._selector.select(self._idle_s()):
                    key.data(events)
                self._each(self._deliver)
        finally:
            self._each(self._abort)
            for ours in (*self._turned_away, self._listener, self._alarm, self._bell):
                ours.close()
            self._selector.close()

    def _idle_s(self) -> float | None:
        """How long until something is due; None for as long as nothing happens."""
        due: list[float] = []
        for connection in self._open:
            if self._still(connection) or connection.ending:
                continue
            if not connection.connecting:
                due.append(connection.opened_s + 3 * self.delay_s)
            elif connection.connected:
                due += [way.queue[0][0] for way in (connection.up, connection.down) if way.queue and not way.blocked]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _obey(self, _: int) -> None:
        self._alarm.recv(4096)
        while self._orders:
            action, done = self._orders.popleft()
            try:
                action()
            except BaseException as failure:
                done.set_exception(failure)
            else:
                done.set_result(None)

    def _end(self) -> None:
        self._going = False

    def _each(self, action: Callable[[_Connection], None]) -> None:
        for connection in list(self._open):
            action(connection)

    def _reset_counts(self) -> None:
        self.connections = self.refused = self.round_trips = self.bytes_from_client = self.bytes_from_server = 0
        self.logs = [connection.log for connection in self._open]
        for log in self.logs:
            log.clear()

    def _set_frozen(self, frozen: bool) -> None:
        self._frozen = frozen
        for connection in self._open:
            connection.frozen = connection.frozen and frozen
            self._watch(connection)

    def _still(self, connection: _Connection) -> bool:
        return self._frozen or connection.frozen

    def _accept(self, _: int) -> None:
        client, _ = self._listener.accept()
        client.setblocking(False)
        self.connections += 1
        if self._refuse > 0:
            self._refuse -= 1
            self.refused += 1
            # Not closed yet: with the client's first words unread, that would be a reset.
            client.shutdown(socket.SHUT_WR)
            self._turned_away.append(client)
            self._selector.register(client, selectors.EVENT_READ, functools.partial(self._see_off, client))
            return
        server = socket.socket()
        server.setblocking(False)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(client, server, time.monotonic())
        self._open.append(connection)
        self.logs.append(connection.log)
        self._strike_if_due(connection)
        if connection in self._open:
            self._watch(connection)

    def _see_off(self, client: socket.socket, _: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            if client.recv(CHUNK_BYTES):
                return
        self._selector.unregister(client)
        self._turned_away.remove(client)
        client.close()

    def _connect(self, connection: _Connection) -> None:
        connection.connecting = True
        result = connection.server.connect_ex((HOST, self.target_port))
        if result == 0:
            connection.connected = True
        elif result != errno.EINPROGRESS:
            self._abort(connection)

    def _move(self, connection: _Connection, end: socket.socket, events: int) -> None:
        if connection not in self._open:
            return
        into, out_of = (
            (connection.down, connection.up) if end is connection.client else (connection.up, connection.down)
        )
        if end is connection.server and not connection.connected:
            if connection.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._abort(connection)
                return
            connection.connected = True
        if events & selectors.EVENT_WRITE:
            into.blocked = False
        if events & selectors.EVENT_READ:
            self._read(connection, out_of)

    def _chunk_bytes(self) -> int:
        rate = self.rate_bytes_per_s
        return CHUNK_BYTES if rate is None else min(CHUNK_BYTES, max(1024, int(rate * PACED_S)))

    def _room_bytes(self) -> int:
        rate = self.rate_bytes_per_s
        return WIDE_BYTES if rate is None else int(rate * self.delay_s) + BUFFER_BYTES

    def _may_read(self, connection: _Connection, way: _Way) -> bool:
        if way.ended or self._still(connection) or (way is connection.down and not connection.connected):
            return False
        return connection.ending or way.queued_bytes < self._room_bytes()

    def _read(self, connection: _Connection, way: _Way) -> None:
        if not self._may_read(connection, way):
            return
        try:
            data: bytes | None = way.source.recv(self._chunk_bytes())
        except BlockingIOError:
            return
        except OSError:
            data = RESET
        now = time.monotonic()
        if not data:
            way.ended = True
        elif way is connection.up and not connection.ending:
            self.bytes_from_client += len(data)
            self.round_trips += connection.answered
            connection.answered = False
            connection.log.append(Chunk(now, "client", len(data)))
        if not connection.ending:
            way.queue.append((self._due_s(connection, way, len(data or b""), now), data))
            way.queued_bytes += len(data or b"")
        elif connection.up.ended and connection.down.ended:
            self._close(connection)

    def _due_s(self, connection: _Connection, way: _Way, size_bytes: int, now: float) -> float:
        """When the last of these bytes is at the other end."""
        # A client that had to wait for its connection would have sent its first bytes that much later.
        sent_s = max(now, connection.opened_s + 2 * self.delay_s) if way is connection.up else now
        if self.rate_bytes_per_s is not None:
            sent_s = max(sent_s, self._line_free_s[way.sender]) + size_bytes / self.rate_bytes_per_s
            self._line_free_s[way.sender] = sent_s
        return sent_s + self.delay_s

    def _deliver(self, connection: _Connection) -> None:
        now = time.monotonic()
        if self._still(connection):
            self._watch(connection)
            return
        if not (connection.connecting or connection.ending) and now >= connection.opened_s + 3 * self.delay_s:
            self._connect(connection)
        for way in (connection.up, connection.down):
            if connection in self._open and connection.connected and way.queue and way.queue[0][0] <= now:
                # First, what the client sent before it was given this: else that would pass for an answer.
                if way is connection.down:
                    self._read(connection, connection.up)
                self._write(connection, way, now)
        if connection in self._open:
            self._watch(connection)

    def _write(self, connection: _Connection, way: _Way, now: float) -> None:
        while way.queue and way.queue[0][0] <= now and not (way.blocked or self._still(connection)):
            due_s, data = way.queue[0]
            if data is None:
                self._abort(connection)
                return
            try:
                if data == END:
                    way.target.shutdown(socket.SHUT_WR)
                    sent = 0
                else:
                    sent = self._send(connection, way, data)
            except BlockingIOError:
                way.blocked = True
                return
            except OSError:
                self._broke(connection, way, now)
                return
            if sent == len(data):
                way.queue.popleft()
            else:
                way.queue[0] = (due_s, data[sent:])
            way.queued_bytes -= sent
            if data == END:
                way.closed = True
            if connection.up.closed and connection.down.closed:
                self._close(connection)
                return
            if sent:
                self._strike_if_due(connection)
            if connection.ending or connection not in self._open:
                return

    def _send(self, connection: _Connection, way: _Way, data: bytes) -> int:
        fault = self._fault
        if fault is not None and fault.sender == way.sender and connection.struck_by is not fault:
            data = data[: fault.size_bytes - connection.passed[way.sender]]
        garbled = connection.garbled and way is connection.down
        sent = way.target.send(data.translate(FLIPPED) if garbled else data)
        connection.passed[way.sender] += sent
        if way is connection.up:
            return sent
        connection.answered = True
        self.bytes_from_server += sent
        connection.log.append(Chunk(time.monotonic(), "server", sent))
        return sent

    def _broke(self, connection: _Connection, way: _Way, now: float) -> None:
        """The target is gone: its last words, which may be on their way, come first."""
        back = connection.down if way is connection.up else connection.up
        way.ended = way.closed = True
        way.queue.clear()
        way.queued_bytes = 0
        if back.closed:
            self._close(connection)
        elif not back.ended:
            self._read(connection, back)
            if not back.ended:
                back.ended = True
                back.queue.append((now + self.delay_s, RESET))

    def _strike_if_due(self, connection: _Connection) -> None:
        fault = self._fault
        if fault is None or connection.struck_by is fault or connection.ending:
            return
        if connection.passed[fault.sender] < fault.size_bytes:
            return
        connection.struck_by = fault
        if fault.connections is not None:
            fault.connections -= 1
            if fault.connections <= 0:
                self._fault = None
        if fault.kind == "freeze":
            connection.frozen = True
        elif fault.kind == "garble":
            connection.garbled = True
        elif fault.kind == "cut":
            self._cut(connection)
        else:
            self._abort(connection)

    def _cut(self, connection: _Connection) -> None:
        if connection.ending:
            return
        connection.ending = True
        for way in (connection.up, connection.down):
            way.queue.clear()
            way.queued_bytes = 0
            way.blocked = False
            with contextlib.suppress(OSError):
                way.target.shutdown(socket.SHUT_WR)
        connection.down.ended = connection.down.ended or not connection.connected
        if connection.up.ended and connection.down.ended:
            self._close(connection)
        else:
            # Read on, for nothing: a close with something unread would be a reset.
            self._watch(connection)

    def _abort(self, connection: _Connection) -> None:
        for end in (connection.client, connection.server):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(connection)

    def _close(self, connection: _Connection) -> None:
        for end, mask in connection.masks.items():
            if mask:
                self._selector.unregister(end)
            end.close()
        self._open.remove(connection)

    def _watch(self, connection: _Connection) -> None:
        """Ask for what can be used now; an end that is asked for nothing can't wake the thread in vain."""
        wanted = dict.fromkeys(connection.masks, 0)
        for way in (connection.up, connection.down):
            if self._may_read(connection, way):
                wanted[way.source] |= selectors.EVENT_READ
            if way.blocked and not self._still(connection):
                wanted[way.target] |= selectors.EVENT_WRITE
        if connection.connecting and not connection.connected:
            wanted[connection.server] |= selectors.EVENT_WRITE
        for end, mask in wanted.items():
            before = connection.masks[end]
            if mask and not before:
                self._selector.register(end, mask, functools.partial(self._move, connection, end))
            elif mask and mask != before:
                self._selector.modify(end, mask, functools.partial(self._move, connection, end))
            elif before and not mask:
                self._selector.unregister(end)
        connection.masks = wanted
