"""The short way from the socket to a channel gives what paramiko's own long one gives."""

from __future__ import annotations

import hashlib
import random
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko.buffered_pipe import BufferedPipe, PipeTimeout
from paramiko.packet import Packetizer

from remote.ssh.address import parse
from remote.ssh.host import SshHost
from remote.ssh.packets import Packets, Pieces
from tests.answers import Answers
from tests.box import Box, box_missing
from tests.connected import connect

# What is private to paramiko's packetizer and used here: another paramiko may call it otherwise.
PRIVATE = (
    "aead_in", "need_rekey", "compress_engine_in", "mac_size_in", "block_engine_in", "iv_in", "sequence_number_in",
    "received_bytes", "received_packets", "remainder", "socket", "closed", "aead_out", "compress_engine_out",
    "write_lock", "block_engine_out", "block_size_out", "iv_out", "sequence_number_out", "sent_bytes", "sent_packets",
)  # fmt: skip


def test_paramiko_still_calls_its_parts_by_these_names() -> None:
    one, other = socket.socketpair()
    with one, other:
        packetizer = Packetizer(one)
        assert [name for name in PRIVATE if not hasattr(packetizer, f"_Packetizer__{name}")] == []
        assert all(hasattr(packetizer, name) for name in ("_inc_iv_counter", "_check_keepalive", "handshake_timed_out"))


@pytest.mark.ssh
def test_a_login_reads_its_packets_this_way(sshd) -> None:
    with connect(sshd) as host:
        transport = host.connect()
        assert type(transport.packetizer) is Packets
        assert isinstance(host.open_session().in_buffer, Pieces)


steps = st.lists(
    st.one_of(
        st.binary(max_size=40).map(lambda data: ("feed", data)),
        st.integers(1, 50).map(lambda size: ("read", size)),
        st.sampled_from([("ready", 0), ("length", 0), ("empty", 0), ("close", 0), ("event", 0)]),
    ),
    max_size=30,
)


def done(pipe, step, value):
    """What one step gives; an event is made known by whether it is set."""
    match step:
        case "feed":
            return pipe.feed(value)
        case "read":
            try:
                return pipe.read(value, 0.0)
            except PipeTimeout:
                return "nothing there"
        case "ready":
            return pipe.read_ready()
        case "length":
            return len(pipe)
        case "empty":
            return pipe.empty()
        case "close":
            return pipe.close()
    return pipe.set_event(threading.Event())


@given(steps)
def test_pieces_are_a_buffered_pipe(plan) -> None:
    ours, theirs = Pieces(), BufferedPipe()
    for step, value in plan:
        assert done(ours, step, value) == done(theirs, step, value)
        assert (ours._event is not None and ours._event.is_set()) == (
            theirs._event is not None and theirs._event.is_set()
        )


def test_a_reader_waits_for_a_piece_and_no_longer_than_it_says() -> None:
    pipe = Pieces()
    with pytest.raises(PipeTimeout):
        pipe.read(1, 0.05)
    timer = threading.Timer(0.05, pipe.feed, [b"late"])
    timer.start()
    assert pipe.read(10, 5.0) == b"late"
    timer.join()
    closer = threading.Timer(0.05, pipe.close)
    closer.start()
    assert pipe.read(10) == b""
    closer.join()


def through(host, tmp_path) -> None:
    """Several commands at once over one connection, each with its own bytes on both streams."""
    failed = []

    def one(seed: int) -> None:
        content = random.Random(seed).randbytes(3_000_000 + seed * 77_777)
        twice = "f=$(mktemp); cat >$f; cat $f >&2 & cat $f; wait; rm $f"
        with host.start(["sh", "-c", twice], stdin=[content]) as process:
            came = b"".join(process.chunks())
            status = process.wait()
        if (status, hashlib.sha256(came).digest()) != (0, hashlib.sha256(content).digest()):
            failed.append(seed)
        if process.stderr() != content[-len(process.stderr()) :] or not process.stderr():
            failed.append(-seed)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.ssh
def test_streams_side_by_side_stay_apart(sshd, tmp_path) -> None:
    with connect(sshd) as host:
        through(host, tmp_path)


SSHD = {
    "a cipher without its own check": ("Ciphers aes256-ctr", "MACs hmac-sha2-256-etm@openssh.com"),
    "an old cipher": ("Ciphers aes128-cbc", "MACs hmac-sha2-512"),
    "a new key every megabyte": ("RekeyLimit 1M",),
}


@pytest.mark.ssh
@pytest.mark.parametrize("lines", SSHD.values(), ids=list(SSHD))
def test_streams_stay_whole_with(lines, tmp_path, monkeypatch) -> None:
    if reason := box_missing():
        pytest.skip(reason)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Box(sshd_lines=lines, noise="") as box:
        known = tmp_path / "known_hosts"
        known.write_text(box.host_key_line)
        with SshHost("box", parse(box.login_line), known_hosts=known, questions=Answers([box.password])) as host:
            through(host, tmp_path)
