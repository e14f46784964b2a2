"""What every host keeps, whatever it is: one suite for this machine, for the embedded server and for OpenSSH."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from dataclasses import dataclass

import pytest

from remote.embedded import EmbeddedHost
from remote.errors import BadReply, CommandFailed, TimedOut, Unreachable
from remote.host import Host
from remote.local_host import LocalHost
from tests.connected import PYTHON_FOLDER, alive, connect, eventually
from tests.servers import OpenSshServer

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

BIG = 50_000_000


@dataclass
class Subject:
    """A host, and what stands behind it."""

    host: Host
    server: EmbeddedHost | OpenSshServer | None = None

    def cut(self):
        """Break every connection there is."""
        if isinstance(self.server, EmbeddedHost):
            self.server.cut()
        else:
            assert self.server is not None
            self.server.kill_connections()


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    yield Subject(LocalHost(tmp_path_factory.mktemp("local")))


@pytest.fixture(scope="module")
def over_embedded(tmp_path_factory):
    with (
        EmbeddedHost(tmp_path_factory.mktemp("embedded") / "home", path_prefix=[PYTHON_FOLDER]) as server,
        connect(server) as host,
    ):
        yield Subject(host, server)


@pytest.fixture(scope="module")
def over_openssh(sshd):
    with connect(sshd) as host:
        yield Subject(host, sshd)


OVER_SSH = ["over_embedded", pytest.param("over_openssh", marks=pytest.mark.ssh)]


@pytest.fixture(params=["local", *OVER_SSH])
def subject(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=OVER_SSH)
def remote_subject(request):
    return request.getfixturevalue(request.param)


def python(program, *argv):
    return [sys.executable, "-ISc", program, *argv]


def sh(text, *argv):
    return ["sh", "-c", text, "sh", *argv]


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_the_exit_status_is_a_value(subject, status):
    done = subject.host.run(sh('printf out; exit "$1"', str(status)))
    assert (done.exit_status, done.stdout, done.stderr) == (status, b"out", b"")


def test_check_raises_and_says_what_the_command_said(subject):
    assert subject.host.run(["true"]).check().exit_status == 0
    with pytest.raises(CommandFailed, match=r"sh ended with status 3: no such luck"):
        subject.host.run(sh("echo no such luck >&2; exit 3")).check()


@pytest.mark.parametrize("number", [9, 15, 11])
def test_death_by_a_signal_is_128_and_the_number(subject, number):
    assert subject.host.run(sh(f"printf x; kill -{number} $$")).exit_status == 128 + number


def test_a_program_that_is_not_there_is_127_and_one_that_may_not_run_126(subject, tmp_path):
    (tmp_path / "text").write_text("plain")
    done = subject.host.run(["no-such-program-anywhere"])
    assert (done.exit_status, done.stdout) == (127, b"")
    assert b"no-such-program-anywhere" in done.stderr
    assert subject.host.run([str(tmp_path / "text")]).exit_status == 126
    assert subject.host.run(["true"], cwd=str(tmp_path / "nowhere")).exit_status != 0


@pytest.mark.parametrize("argv", [[], [""], ["echo", "\0"]])
def test_what_no_host_can_run_is_refused_before_it_is_sent(subject, argv):
    with pytest.raises(ValueError, match=r"NUL|program"):
        subject.host.run(argv)


def test_stdin_carries_any_bytes_and_ends(subject):
    sent = bytes(range(256)) * 4096 + b"\x00\xff\n"
    done = subject.host.run(["cat"], stdin=sent)
    assert done.check().stdout == sent
    assert subject.host.run(["cat"]).check().stdout == b""


def test_stdin_may_come_in_pieces_and_slowly(subject):
    def pieces():
        for number in range(3):
            time.sleep(0.05)
            yield str(number).encode() * 3

    with subject.host.start(["cat"], stdin=pieces()) as process:
        assert b"".join(process.chunks()) == b"000111222"
        assert process.wait() == 0


def test_a_command_that_reads_nothing_can_end(subject):
    done = subject.host.run(sh("exec <&-; printf kept; exit 4"), stdin=bytes(8_000_000))
    assert (done.exit_status, done.stdout) == (4, b"kept")


@pytest.mark.parametrize("error", [OSError("the file is gone"), ValueError("bad"), LookupError("strange")])
def test_what_breaks_while_stdin_is_read_surfaces(subject, error):
    def broken():
        yield b"some"
        raise error

    started = time.monotonic()
    with subject.host.start(["cat"], stdin=broken()) as process:
        for _ in process.chunks():
            pass
        with pytest.raises(type(error), match=str(error.args[0])):
            process.wait()
    assert time.monotonic() - started < 10


def test_stderr_is_kept_apart_and_only_its_end(subject):
    talk = python("import sys; sys.stderr.write('x' * 3_000_000 + 'end'); sys.stdout.write('out'); sys.exit(5)")
    done = subject.host.run(talk)
    assert (done.exit_status, done.stdout) == (5, b"out")
    assert done.stderr.endswith(b"xend")
    assert len(done.stderr) == 64 * 1024


def test_much_output_arrives_whole(subject):
    # Neither zeros nor one repeated block: a piece that is lost or doubled would show.
    program = "import sys\nfor n in range(%d): sys.stdout.buffer.write(b'%%09d\\n' %% n * 100)" % (BIG // 1000)  # noqa: UP031
    digest, size = hashlib.sha256(), 0
    with subject.host.start(python(program)) as process:
        for chunk in process.chunks():
            digest.update(chunk)
            size += len(chunk)
        assert process.wait() == 0
    assert size == BIG
    expected = hashlib.sha256(b"".join(b"%09d\n" % number * 100 for number in range(BIG // 1000)))
    assert digest.digest() == expected.digest()


def test_much_input_arrives_whole(subject):
    sent = os.urandom(BIG)
    done = subject.host.run(["sha256sum"], stdin=sent)
    assert done.check().stdout.split()[0].decode() == hashlib.sha256(sent).hexdigest()


def test_output_past_a_limit_is_refused(subject):
    assert subject.host.run(["printf", "12345"], stdout_limit_bytes=5).stdout == b"12345"
    started = time.monotonic()
    with pytest.raises(BadReply, match="yes"):
        subject.host.run(["yes"], stdout_limit_bytes=100_000)
    assert time.monotonic() - started < 10


def test_env_is_added_to_what_is_there(subject):
    done = subject.host.run(sh('printf "%s|%s" "$PROBE" "$PATH"'), env={"PROBE": "a 'b' $c\n评"})
    probe, _, path = done.check().stdout.decode().partition("|")
    assert probe == "a 'b' $c\n评"
    assert path
    assert subject.host.run(sh('printf "%s" "${PROBE-unset}"')).stdout == b"unset"


def test_cwd_is_where_a_command_runs(subject, tmp_path):
    folder = tmp_path / "two words -$HOME"
    folder.mkdir()
    assert subject.host.run(["pwd"], cwd=str(folder)).check().stdout.decode() == f"{folder}\n"
    home = subject.host.run(["pwd"]).check().stdout
    assert subject.host.run(["pwd"], cwd=".").check().stdout == home


def test_a_time_limit_ends_the_command_and_what_it_started(subject, tmp_path):
    note = tmp_path / "pids"
    # It writes now and then: over OpenSSH, which sends no signal, that is how a command learns of its end.
    talk = 'sleep 60 & echo $$ $! >"$1"; while echo x; do sleep 0.05; done'
    started = time.monotonic()
    with pytest.raises(TimedOut, match=r"sh did not end within 0\.5 s"):
        subject.host.run(sh(talk, str(note)), timeout_s=0.5)
    assert time.monotonic() - started < 5
    leader, child = map(int, note.read_text().split())
    eventually(lambda: not alive(leader))
    if isinstance(subject.server, OpenSshServer):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 9)
    eventually(lambda: not alive(child))


def test_a_time_limit_holds_for_a_silent_command(subject):
    started = time.monotonic()
    with pytest.raises(TimedOut):
        subject.host.run(["sleep", "5"], timeout_s=0.3)
    assert time.monotonic() - started < 3


def test_closing_early_ends_the_command_and_can_be_repeated(subject):
    with subject.host.start(sh("echo $$; while echo x; do sleep 0.05; done")) as process:
        pid = int(next(process.chunks()).split()[0])
        process.close()
        process.close()
    eventually(lambda: not alive(pid))
    assert subject.host.run(["printf", "well"]).stdout == b"well"


def test_several_commands_at_once_each_get_their_own(subject):
    # Below the ten that OpenSSH allows over one connection.
    said = {}

    def one(number):
        done = subject.host.run(sh('cat; sleep 0.1; exit "$1"', str(number)), stdin=str(number).encode() * 100_000)
        said[number] = (done.exit_status, done.stdout)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {number: (number, str(number).encode() * 100_000) for number in range(8)}


@pytest.mark.ssh
def test_one_command_too_many_harms_no_other(over_openssh):
    host = over_openssh.host
    with contextlib.ExitStack() as running:
        first = running.enter_context(host.start(sh("echo begun; read line; echo got $line"), stdin=_later(b"it\n")))
        with pytest.raises(Unreachable, match="one more command at once"):
            for _ in range(12):
                running.enter_context(host.start(["sleep", "5"]))
        assert b"".join(first.chunks()) == b"begun\ngot it\n"
        assert first.wait() == 0
    eventually(lambda: _runs(host))


def _later(text):
    time.sleep(1)
    yield text


def _runs(host):
    try:
        return host.run(["true"]).exit_status == 0
    except Unreachable:
        return False


def test_a_cut_is_never_taken_for_an_end(remote_subject):
    host = remote_subject.host
    with host.start(sh("echo begun; while sleep 0.05; do echo x || exit 1; done")) as process:
        chunks = process.chunks()
        assert next(chunks).startswith(b"begun")
        remote_subject.cut()
        started = time.monotonic()
        with pytest.raises(Unreachable):
            for _ in chunks:
                pass
            process.wait()
        assert time.monotonic() - started < 5
    with pytest.raises(Unreachable):
        _cut_during(remote_subject, lambda: host.run(["sleep", "3"]))
    assert eventually(lambda: host.run(["printf", "again"]).stdout) == b"again"


def test_a_cut_while_sending_is_unreachable(remote_subject):
    endless = (bytes(65536) for _ in iter(int, 1))
    with remote_subject.host.start(["sh", "-c", "cat >/dev/null"], stdin=endless) as process:
        remote_subject.cut()
        with pytest.raises(Unreachable):
            process.wait()


def _cut_during(subject, action):
    timer = threading.Timer(0.3, subject.cut)
    timer.start()
    try:
        action()
    finally:
        timer.join()


def test_a_closed_host_connects_again(subject):
    subject.host.close()
    subject.host.close()
    assert subject.host.run(["printf", "again"]).stdout == b"again"
