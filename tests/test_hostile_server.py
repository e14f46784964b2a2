"""A server that stalls, cuts or garbles at any stage, or turns people away: an error, in time, in words."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from remote.errors import CannotExecute, RemoteError, Unreachable
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.box import Box
from tests.relay import Relay

pytestmark = pytest.mark.ssh
TIMEOUT_S = 0.6
# Each of the login's stages may take the limit once; the rest is this machine's being busy.
IN_TIME_S = 10 * TIMEOUT_S


@pytest.fixture(autouse=True)
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


def connect(box: Box, port: int, **options: object) -> SshHost:
    options = {"connect_timeout_s": TIMEOUT_S, "retry_s": (), "questions": Answers([box.password]), **options}
    return SshHost("box", parse(box.login_line_at(port)), **options)  # type: ignore[arg-type]


def one_command(host: SshHost) -> None:
    with host:
        host.run(["true"], timeout_s=TIMEOUT_S).check()


def stages(box: Box, relay: Relay) -> list[int]:
    """After how many bytes from the server each of its words ends, through login and one command."""
    with connect(box, relay.port, connect_timeout_s=20) as host:
        host.run(["true"]).check()
        over = relay.bytes_from_server  # whatever comes after that, the command had ended
    ends = [0]
    for chunk in relay.logs[-1]:
        if chunk.sender == "server":
            ends.append(ends[-1] + chunk.size_bytes)
    return [end for end in ends if end < over - 100]


def threads() -> list[threading.Thread]:
    """Those that live; paramiko leaves the alarm clock of a broken handshake running, for its 15 seconds."""
    return [one for one in threading.enumerate() if getattr(one, "function", threads).__name__ != "read_timer"]


@pytest.mark.parametrize(
    "fault", [pytest.param("freeze_after", marks=pytest.mark.slow), "cut_after", "reset_after", "garble_after"]
)
def test_every_stage_of_a_login_ends_in_an_error_in_time(fault: str) -> None:
    # Logins that hang half-way add up over there, and a usual sshd would turn away some of the next.
    with Box(sshd_lines=["MaxStartups 200"]) as box, Relay(box.port) as relay:
        ends = stages(box, relay)
        assert len(ends) >= 8
        before = len(threads())
        # In the middle of a word too: half a banner, half a packet.
        for at in sorted({*ends, *(max(0, end - 3) for end in ends)}):
            getattr(relay, fault)(at, connections=None)
            started = time.monotonic()
            with pytest.raises(RemoteError) as failure:
                one_command(connect(box, relay.port))
            assert time.monotonic() - started < IN_TIME_S, at
            assert failure.value.code in ("unreachable", "timed_out", "authentication_failed"), (at, failure.value)
            assert failure.value.message.startswith(("box: ", "root@127.0.0.1")), failure.value.message
            relay.disarm()
        deadline = time.monotonic() + 5
        while len(threads()) > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(threads()) <= before, threads()
        one_command(connect(box, relay.port, connect_timeout_s=20))


def test_a_network_that_falls_silent_is_noticed(shared_box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    from remote.ssh import connection

    monkeypatch.setattr(connection, "KEEPALIVE_S", 0.2)
    monkeypatch.setattr(connection, "SILENCE_S", 0.5)
    with (
        Relay(shared_box.port) as relay,
        connect(shared_box, relay.port, connect_timeout_s=20) as host,
        host.start(["sleep", "60"]) as process,
    ):
        time.sleep(1)  # some keepalives are answered
        assert host.connected
        relay.freeze()
        started = time.monotonic()
        with pytest.raises(Unreachable):
            for _ in process.chunks():
                pass
            process.wait()
        assert time.monotonic() - started < 5


def test_a_gateway_that_throttles_is_tried_again(shared_box: Box) -> None:
    answers = Answers([shared_box.password])
    with Relay(shared_box.port) as relay:
        relay.refuse_first(2)
        host = connect(shared_box, relay.port, questions=answers, retry_s=(0.1, 0.1, 0.1), connect_timeout_s=20)
        one_command(host)
        assert relay.connections == 3 or relay.refused == 2
    assert len(answers.told) == 2
    assert all("trying again" in told for told in answers.told)


def test_a_gateway_that_always_throttles_is_explained(shared_box: Box) -> None:
    with Relay(shared_box.port) as relay:
        relay.refuse_first(9)
        with pytest.raises(Unreachable, match="turns logins away") as failure:
            one_command(connect(shared_box, relay.port, retry_s=(0.1, 0.1)))
        assert "launch host probe box" in failure.value.hint


def test_max_startups_of_a_real_server(laptop: Path) -> None:
    import socket

    with Box(sshd_lines=["MaxStartups 1", "LoginGraceTime 30"]) as box:
        with socket.create_connection((box.host, box.port)) as first:
            first.recv(10)  # it holds the one place there is, without ever logging in
            threading.Timer(1.0, first.close).start()
            answers = Answers([box.password])
            one_command(connect(box, box.port, questions=answers, retry_s=(0.2,) * 30, connect_timeout_s=20))
        assert answers.told
        assert "trying again" in answers.told[0]


def test_a_server_that_refuses_commands(laptop: Path) -> None:
    # No session at all: what RunPod's proxy does to a program.
    with Box(sshd_lines=["MaxSessions 0"]) as box, pytest.raises(RemoteError) as failure:
        one_command(connect(box, box.port, connect_timeout_s=20))
    assert failure.value.hint
    with Box(sshd_lines=["ForceCommand /bin/false"]) as box, connect(box, box.port, connect_timeout_s=20) as host:
        assert host.run(["true"]).exit_status == 1


def test_a_shell_and_a_stream_that_are_refused(shared_box: Box) -> None:
    with connect(shared_box, shared_box.port, connect_timeout_s=20) as host:
        with pytest.raises(Unreachable, match="nothing listens on 127.0.0.1:1 there"):
            host.open_stream("127.0.0.1", 1)
        assert host.connected
    with (
        Box(sshd_lines=["PermitTTY no"]) as box,
        connect(box, box.port, connect_timeout_s=20) as host,
        pytest.raises(CannotExecute),
    ):
        host.shell("xterm", 80, 24)
