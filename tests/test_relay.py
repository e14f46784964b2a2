"""The relay of the tests: not a byte lost, delays and counts as said, and every fault where it was ordered."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import socketserver
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.relay import FLIPPED, Relay

SOON_S = 10.0
# A relay that freezes is shown by a silence that long.
SILENCE_S = 0.15
ROUND_TRIP_S = 0.06
LATE_S = 0.02
SLACK_S = 0.5


@contextlib.contextmanager
def serving(talk):
    """The port of a server that has `talk(socket)` with everyone, and what broke these talks."""
    broken = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.settimeout(SOON_S)
            try:
                talk(self.request)
            except ConnectionError as error:
                broken.append(type(error))

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server.server_address[1], broken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def relayed(talk, **options):
    with serving(talk) as (port, _), Relay(port, **options) as relay:
        yield relay


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def flood(connection):
    """A million bytes, then whatever the client says until it ends."""
    connection.sendall(PATTERN)
    while connection.recv(65536):
        pass


PATTERN = random.Random(1).randbytes(1_000_000)


def dial(relay):
    client = socket.create_connection((relay.host, relay.port), timeout=SOON_S)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def read(client, count):
    """So many bytes, fewer if it ends before."""
    got = b""
    while len(got) < count and (data := client.recv(min(65536, count - len(got)))):
        got += data
    return got


def silent(client):
    client.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(SOON_S)
    return True


def exchanged(relay, data, chunks):
    """What comes back of `data`, sent in these chunks while reading, from the first byte to the end."""
    with dial(relay) as client:

        def send():
            rest = memoryview(data)
            for size in chunks:
                client.sendall(rest[:size])
                rest = rest[size:]
            client.sendall(rest)
            client.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        back = b"".join(iter(lambda: client.recv(65536), b""))
        sender.join()
    return back


@settings(max_examples=15, deadline=None)
@given(
    delay_s=st.sampled_from([0.0, 0.002, 0.02]),
    rate=st.sampled_from([None, 20e6]),
    seed=st.integers(0, 2**32),
    chunks=st.lists(st.integers(0, 5000), max_size=20),
)
def test_what_goes_in_comes_out(delay_s, rate, seed, chunks):
    data = random.Random(seed).randbytes(300_000)
    with relayed(echo, delay_s=delay_s, rate_bytes_per_s=rate) as relay:
        assert exchanged(relay, data, chunks) == data
        assert (relay.bytes_from_client, relay.bytes_from_server) == (len(data), len(data))
        (log,) = relay.logs
        for sender in ("client", "server"):
            assert sum(chunk.size_bytes for chunk in log if chunk.sender == sender) == len(data)
        assert [chunk.time_s for chunk in log] == sorted(chunk.time_s for chunk in log)


def test_parallel_connections_with_much_data_do_not_mix():
    data = [random.Random(number).randbytes(8_000_000) for number in range(6)]
    with relayed(echo, delay_s=0.01) as relay, ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda one: exchanged(relay, one, []) == one, data)) == [True] * 6
        assert relay.connections == 6
        assert relay.bytes_from_server == 48_000_000


def test_a_client_that_has_ended_is_still_answered():
    def digest(connection):
        whole = b"".join(iter(lambda: connection.recv(65536), b""))
        connection.sendall(hashlib.sha256(whole).digest())

    with relayed(digest, delay_s=0.01) as relay:
        assert exchanged(relay, PATTERN, []) == hashlib.sha256(PATTERN).digest()


def test_a_slow_reader_is_waited_for():
    with relayed(flood) as relay, dial(relay) as client:
        time.sleep(0.1)
        assert read(client, len(PATTERN)) == PATTERN


def test_delay():
    def greet(connection):
        connection.sendall(b"hello")
        echo(connection)

    def asked_s():
        started = time.monotonic()
        client.sendall(b"x")
        read(client, 1)
        return time.monotonic() - started

    with relayed(greet, delay_s=ROUND_TRIP_S / 2) as relay:
        started = time.monotonic()
        with dial(relay) as client:
            read(client, 5)
            # One to open the connection, and one until the server, which knows of it only then, is heard.
            assert time.monotonic() - started >= 2 * ROUND_TRIP_S
            times_s = [asked_s() for _ in range(5)]
            # A busy machine is late at times, not always.
            assert ROUND_TRIP_S <= min(times_s) < ROUND_TRIP_S + LATE_S
            relay.delay_s = 0.0
            assert min(asked_s() for _ in range(5)) < LATE_S


@pytest.mark.alone
def test_rate_is_shared_by_all_connections():
    with relayed(flood, rate_bytes_per_s=5e6) as relay, ThreadPoolExecutor(2) as pool:
        started = time.monotonic()

        def whole(_):
            with dial(relay) as client:
                return read(client, len(PATTERN)) == PATTERN

        assert list(pool.map(whole, range(2))) == [True, True]
        assert 0.4 <= time.monotonic() - started < 0.4 + SLACK_S


def test_round_trips_are_the_turns_of_the_client():
    with relayed(echo, delay_s=0.01) as relay:
        with dial(relay) as client:
            for _ in range(5):
                client.sendall(b"question")
                read(client, 8)
            assert relay.round_trips == 4
            # Many words without waiting for an answer are one turn.
            for _ in range(20):
                client.sendall(b"word")
            read(client, 80)
            assert relay.round_trips == 5
            relay.reset_counts()
            counts = relay.round_trips, relay.connections, relay.bytes_from_client, relay.bytes_from_server, relay.logs
            assert counts == (0, 0, 0, 0, [[]])
            client.sendall(b"question")
            read(client, 8)
        with dial(relay) as client:
            client.sendall(b"question")
            read(client, 8)
        assert (relay.round_trips, relay.connections, len(relay.logs)) == (1, 1, 2)


def test_frozen_nothing_passes_and_thawed_nothing_is_lost():
    with relayed(echo) as relay, dial(relay) as client:
        client.sendall(b"before")
        assert read(client, 6) == b"before"
        relay.freeze()
        client.sendall(b"during")
        with dial(relay) as newcomer:
            newcomer.sendall(b"new")
            assert silent(client)
            assert silent(newcomer)
            relay.thaw()
            assert (read(client, 6), read(newcomer, 3)) == (b"during", b"new")


def test_freeze_after_stops_one_connection_at_the_byte():
    with relayed(flood, delay_s=0.005) as relay:
        relay.freeze_after(1000)
        with dial(relay) as client:
            assert read(client, 1000) == PATTERN[:1000]
            assert silent(client)
            with dial(relay) as other:
                assert read(other, len(PATTERN)) == PATTERN
            relay.thaw()
            assert read(client, len(PATTERN) - 1000) == PATTERN[1000:]


def test_garble_after_flips_what_follows():
    with relayed(flood) as relay:
        relay.garble_after(500_000)
        with dial(relay) as client:
            assert read(client, len(PATTERN)) == PATTERN[:500_000] + PATTERN[500_000:].translate(FLIPPED)
        with dial(relay) as client:
            assert read(client, len(PATTERN)) == PATTERN


def test_cut_after_ends_the_connection_in_good_order():
    with serving(flood) as (port, broken), Relay(port) as relay:
        relay.cut_after(500_000)
        with dial(relay) as client:
            client.sendall(b"unread")
            assert read(client, len(PATTERN)) == PATTERN[:500_000]
            assert client.recv(1) == b""
            client.sendall(b"more of it")
    assert set(broken) <= {BrokenPipeError, ConnectionResetError}


def test_reset_after_breaks_it():
    with relayed(flood) as relay:
        relay.reset_after(10, connections=2)
        for _ in range(2):
            # On a busy machine it strikes before the client knows that it is connected.
            with pytest.raises(ConnectionResetError), dial(relay) as client:
                read(client, len(PATTERN))
        with dial(relay) as client:
            assert read(client, len(PATTERN)) == PATTERN


def test_a_fault_can_strike_every_connection_and_at_once():
    with relayed(flood) as relay:
        relay.cut_after(0, connections=None)
        for _ in range(3):
            with dial(relay) as client:
                assert client.recv(1) == b""
        relay.freeze_after(5, connections=None)
        for _ in range(2):
            with dial(relay) as client:
                assert read(client, 5) == PATTERN[:5]
                assert silent(client)
        relay.disarm()
        with dial(relay) as client:
            assert read(client, len(PATTERN)) == PATTERN


def test_bytes_of_a_fault_are_counted_from_its_order_on():
    with relayed(echo) as relay, dial(relay) as client:
        client.sendall(b"0123456789")
        read(client, 10)
        relay.cut_after(4)
        client.sendall(b"0123456789")
        assert read(client, 10) == b"0123"


def test_a_fault_can_count_what_the_client_sends():
    heard = bytearray()

    def listen(connection):
        connection.sendall(PATTERN)
        while data := connection.recv(65536):
            heard.extend(data)

    with relayed(listen) as relay:
        relay.cut_after(300_000, sender="client")
        with dial(relay) as client:
            assert read(client, len(PATTERN)) == PATTERN
            client.sendall(PATTERN)
            assert client.recv(1) == b""
    assert heard == PATTERN[:300_000]


@pytest.mark.parametrize("order", ["cut", "reset"])
def test_open_connections_can_be_ended_at_any_time(order):
    ended = threading.Event()

    def wait(connection):
        connection.sendall(b"here")
        with contextlib.suppress(ConnectionResetError):
            connection.recv(1)
        ended.set()

    with relayed(wait) as relay, dial(relay) as client:
        read(client, 4)
        getattr(relay, order)()
        if order == "cut":
            assert client.recv(1) == b""
        else:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert ended.wait(SOON_S)
        with dial(relay) as other:
            assert read(other, 4) == b"here"


def test_refused_connections_end_without_a_word():
    with relayed(flood) as relay:
        relay.refuse_first(2)
        for _ in range(2):
            with dial(relay) as client:
                client.sendall(b"SSH-2.0-client\r\n")
                assert client.recv(1) == b""
        with dial(relay) as client:
            assert read(client, 10) == PATTERN[:10]
        assert (relay.connections, relay.refused) == (3, 2)


def test_where_nobody_listens_the_connection_breaks_and_another_target_can_be_given():
    with serving(echo) as (port, _), Relay(port) as relay:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            relay.target_port = closed.getsockname()[1]
        with pytest.raises(ConnectionResetError), dial(relay) as client:
            client.recv(1)
        relay.target_port = port
        with dial(relay) as client:
            client.sendall(b"back")
            assert read(client, 4) == b"back"


def test_last_words_come_before_the_break():
    def slam(connection):
        connection.recv(1)
        connection.sendall(b"last words")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    with relayed(slam, delay_s=0.02) as relay, dial(relay) as client:
        client.sendall(b"x" * 1000)
        assert read(client, 10) == b"last words"
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_client_that_breaks_off_breaks_the_servers_end():
    with serving(flood) as (port, broken), Relay(port) as relay:
        with dial(relay) as client:
            read(client, 10)  # and leaves the rest, which is a reset
        deadline = time.monotonic() + SOON_S
        while not broken and relay._open and time.monotonic() < deadline:
            time.sleep(0.01)
        assert relay._open == []


def test_idle_it_sleeps():
    with relayed(echo) as relay, dial(relay) as client:
        client.sendall(b"once")
        read(client, 4)
        with dial(relay) as frozen, dial(relay) as plain:
            for other in (frozen, plain):
                other.sendall(b"once")
                read(other, 4)
            relay.cut_after(0)
            relay.freeze_after(0)
            frozen.sendall(b"unheard")
            used_s = time.process_time()
            time.sleep(0.2)
            assert time.process_time() - used_s < 0.05


def test_stopped_it_leaves_no_thread_and_no_connection():
    with serving(echo) as (port, _):
        before = threading.active_count()
        relay = Relay(port, delay_s=0.01)
        for _ in range(2):
            relay.start()
            with dial(relay) as client:
                client.sendall(b"here")
                read(client, 4)
                relay.freeze()
                relay.stop()
                relay.stop()
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            relay.thaw()
        with pytest.raises(ConnectionRefusedError):
            dial(relay)
        while threading.active_count() > before:  # those of the server, which were told
            time.sleep(0.01)


@pytest.mark.alone
@pytest.mark.ssh
def test_a_login_takes_as_long_as_its_round_trips(shared_box):
    with Relay(shared_box.port, delay_s=ROUND_TRIP_S / 2) as relay, paramiko.SSHClient() as client:
        key = paramiko.hostkeys.HostKeyEntry.from_line(shared_box.host_key_line_at(relay.port))
        client.get_host_keys().add(key.hostnames[0], key.key.get_name(), key.key)
        started = time.monotonic()
        client.connect(relay.host, relay.port, "root", shared_box.password, allow_agent=False, look_for_keys=False)
        _, stdout, _ = client.exec_command("hostname")
        assert stdout.read().decode().endswith(f"{shared_box.hostname}\n")
        took_s = time.monotonic() - started
    # One more opens the connection and one brings the last answer; greetings that cross make up for as much.
    assert (relay.round_trips - 1) * ROUND_TRIP_S <= took_s < (relay.round_trips + 2) * ROUND_TRIP_S + SLACK_S
    assert 5 <= relay.round_trips <= 12
