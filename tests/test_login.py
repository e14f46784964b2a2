"""Logging in to a real sshd: keys, then the password; asked once, refused three times, and never seen anywhere."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.errors import AuthenticationFailed, RemoteError
from remote.ssh import key_files
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.box import Box

pytestmark = pytest.mark.ssh


@pytest.fixture(autouse=True)
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's home in which nothing of ssh is yet, and no agent."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


def connect(box: Box, answers: Answers | None = None, line: str = "", **options: object) -> SshHost:
    return SshHost("box", parse(line or box.login_line), questions=answers or Answers(), **options)  # type: ignore[arg-type]


def key(path: Path, passphrase: str = "", comment: str = "somebody") -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", str(path)], check=True)
    return path


def allow(box: Box, *keys: Path) -> None:
    """Let keys log in, as somebody would through the console."""
    lines = b"".join(one.with_name(one.name + ".pub").read_bytes() for one in keys)
    script = "umask 077; mkdir -p /root/.ssh; cat >/root/.ssh/authorized_keys"
    assert box.run("sh", "-c", script, stdin=lines).returncode == 0


@pytest.fixture
def fresh(shared_box: Box) -> Iterator[Box]:
    """The shared box without any key on it."""
    shared_box.run("rm", "-rf", "/root/.ssh")
    yield shared_box
    shared_box.run("rm", "-rf", "/root/.ssh")


def said(host: SshHost) -> str:
    with host:
        return host.run(["sh", "-c", "echo; echo in"]).check().stdout.decode().split()[-1]


def test_a_pasted_line_and_a_password_are_enough(fresh: Box, laptop: Path) -> None:
    answers = Answers([fresh.password])
    host = connect(fresh, answers)
    with host:
        assert host.run(["sh", "-c", "echo; uname -n"]).check().stdout.decode().split()[-1] == fresh.hostname
        assert host.used_password
        # A connection that broke is made again without a question.
        host.close()
        host.run(["true"]).check()
    assert answers.asked == [f"trust ssh-ed25519 {fresh.fingerprint}", f"password of root@127.0.0.1:{fresh.port}"]
    assert (laptop / ".ssh" / "known_hosts").read_text().split()[-1] == fresh.host_key_line.split()[-1]


def test_three_wrong_passwords_are_the_end(fresh: Box) -> None:
    answers = Answers(["one-wrong", "two-wrong", "three-wrong", fresh.password])
    with connect(fresh, answers) as host, pytest.raises(AuthenticationFailed) as refused:
        host.run(["true"])
    assert len([asked for asked in answers.asked if asked.startswith("password")]) == 3
    assert answers.asked[-1].endswith("again")
    assert "refused 3 passwords" in refused.value.message
    assert "console" in refused.value.hint
    assert "wrong" not in refused.value.message + refused.value.hint + repr(refused.value.__cause__)


def test_the_second_password_may_be_right(fresh: Box) -> None:
    assert said(connect(fresh, Answers(["wrong", fresh.password]))) == "in"


def test_without_anybody_to_ask_it_says_how_to_tell(fresh: Box) -> None:
    with connect(fresh) as host, pytest.raises(AuthenticationFailed) as refused:
        host.run(["true"])
    assert "wants a key or a password" in refused.value.message
    assert "LAUNCH_PASSWORD" in refused.value.hint


def test_with_keys_only_no_password_is_asked_for(fresh: Box) -> None:
    answers = Answers([fresh.password])
    with connect(fresh, answers, keys_only=True) as host, pytest.raises(AuthenticationFailed):
        host.run(["true"])
    assert [asked for asked in answers.asked if "password" in asked] == []


def test_an_installed_key_needs_no_password_and_is_written_once(fresh: Box, laptop: Path) -> None:
    assert key_files.existing() is None
    path = key_files.fresh()
    assert path == laptop / ".ssh" / "id_ed25519" == key_files.existing()
    assert path.stat().st_mode & 0o777 == 0o600
    line = key_files.public_line(path)
    with connect(fresh, Answers([fresh.password])) as host:
        assert key_files.install(host, line)
        assert not key_files.install(host, line)
    assert fresh.run("cat", "/root/.ssh/authorized_keys").stdout.decode() == line + "\n"
    modes = fresh.run("stat", "-c", "%a", "/root/.ssh", "/root/.ssh/authorized_keys").stdout.split()
    assert modes == [b"700", b"600"]
    again = connect(fresh)
    assert said(again) == "in"
    assert not again.used_password


def test_an_installed_key_stands_beside_those_that_are_there(fresh: Box, laptop: Path) -> None:
    line = key_files.public_line(key_files.fresh())
    # No line end, a comment with our key in it, the wrong modes.
    before = f"ssh-ed25519 AAAAsomeone them@there\n# {line}\nssh-rsa AAAAelse no end".encode()
    fresh.run("sh", "-c", "mkdir -m 755 /root/.ssh; cat >/root/.ssh/authorized_keys", stdin=before)
    with connect(fresh, Answers([fresh.password])) as host:
        assert key_files.install(host, line)
        assert not key_files.install(host, line)
    after = fresh.run("cat", "/root/.ssh/authorized_keys").stdout
    assert after == before + b"\n" + line.encode() + b"\n"
    assert said(connect(fresh)) == "in"


def test_a_full_disk_installs_no_half_key(fresh: Box) -> None:
    line = key_files.public_line(key_files.fresh())
    fill = "mkdir /root/.ssh && mount -t tmpfs -o size=4k none /root/.ssh && head -c 4096 /dev/zero >/root/.ssh/fill"
    assert fresh.run("sh", "-c", fill).returncode == 0
    try:
        with connect(fresh, Answers([fresh.password])) as host, pytest.raises(RemoteError):
            key_files.install(host, line)
    finally:
        fresh.run("umount", "/root/.ssh")


def test_a_fresh_key_replaces_none(laptop: Path) -> None:
    first, second = key_files.fresh(), key_files.fresh()
    assert first != second
    assert second.name == "id_ed25519_launch"


def test_a_locked_key_asks_and_forgives_a_slip(fresh: Box, laptop: Path) -> None:
    path = key(laptop / ".ssh" / "id_ed25519", "open sesame")
    allow(fresh, path)
    answers = Answers(passphrases=["open sesam", "open sesame"])
    host = connect(fresh, answers)
    with host:
        host.run(["true"]).check()
        host.close()
        host.run(["true"]).check()  # unlocked once is enough
    assert answers.asked[1:] == [f"passphrase of {path}", f"passphrase of {path} again"]


def test_a_locked_key_that_nobody_unlocks_leaves_the_password(fresh: Box, laptop: Path) -> None:
    path = key(laptop / ".ssh" / "id_ed25519", "open sesame")
    allow(fresh, path)
    assert said(connect(fresh, Answers([fresh.password]))) == "in"
    with connect(fresh) as host, pytest.raises(AuthenticationFailed, match="nobody unlocked it") as refused:
        host.run(["true"])
    assert "open sesame" not in str(refused.value)


def test_at_most_three_keys_are_offered(
    fresh: Box, laptop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [key(laptop / f"key{number}", comment="all the same") for number in range(5)]
    allow(fresh, keys[4])
    with agent(tmp_path / "agent", keys, monkeypatch):
        answers = Answers([fresh.password])
        with connect(fresh, answers) as host:
            host.run(["true"]).check()
            assert host.used_password
        with connect(fresh, keys_only=True) as host, pytest.raises(AuthenticationFailed) as refused:
            host.run(["true"])
        assert "refused 3 keys" in refused.value.message
        assert "the others were not offered" in refused.value.message
        # Named, the fifth comes first, and out of the agent: its file is not even there.
        keys[4].unlink()
        public = keys[4].with_name("key4.pub")
        assert said(connect(fresh, line=f"ssh -i {public} -p {fresh.port} root@127.0.0.1")) == "in"
        assert said(connect(fresh, line=f"ssh -i {keys[4]} -p {fresh.port} root@127.0.0.1")) == "in"


def agent(path: Path, keys: list[Path], monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    import contextlib

    @contextlib.contextmanager
    def running() -> Iterator[None]:
        process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 5
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
            subprocess.run(["ssh-add", "-q", *map(str, keys)], check=True, stderr=subprocess.DEVNULL)
            yield
        finally:
            process.terminate()
            process.wait()

    return running()


# The thread that waits for the agent is left to itself, and with it paramiko's socket, until the agent goes away.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_agent_that_hangs_does_not_hold_us(fresh: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    path = str(tmp_path / "hangs")
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        started = time.monotonic()
        assert said(connect(fresh, Answers([fresh.password]))) == "in"
        assert time.monotonic() - started < 15
    time.sleep(0.2)
    gc.collect()


@pytest.mark.parametrize(
    ("lines", "passwords", "expected"),
    [
        # Fewer tries a connection than we make: a new one goes on where the last one ended.
        (["MaxAuthTries 1"], ["", "right"], "in"),
        (["MaxAuthTries 2"], ["wrong", "right"], "in"),
        (["MaxAuthTries 2"], ["wrong", "wrong too", "still"], "and 3 passwords"),
        # No method "password", but one that asks for it.
        (["PasswordAuthentication no", "KbdInteractiveAuthentication yes", "UsePAM yes"], ["right"], None),
        (["PasswordAuthentication no", "KbdInteractiveAuthentication no"], ["right"], "takes only publickey"),
        (["AuthenticationMethods publickey,password"], ["right"], "in"),
        (["AuthenticationMethods password,publickey"], ["right"], "second factor"),
    ],
)
def test_servers_with_rules_of_their_own(
    laptop: Path, lines: list[str], passwords: list[str], expected: str | None
) -> None:
    if expected is None and not Path("/etc/pam.d/sshd").exists():
        pytest.skip("needs PAM")
    good = key(laptop / ".ssh" / "id_ed25519")
    with Box(sshd_lines=lines) as box:
        if "AuthenticationMethods publickey,password" in lines:
            allow(box, good)
        given = [box.password if one == "right" else one for one in passwords if one]
        answers = Answers(given)
        host = connect(box, answers)
        if expected in ("in", None):
            with host:
                host.run(["true"]).check()
                host.close()
                asked = list(answers.asked)
                host.run(["true"]).check()
            assert answers.asked == asked  # a connection that broke is made again without a question
            return
        with host, pytest.raises(AuthenticationFailed) as refused:
            host.run(["true"])
        assert expected in refused.value.message


@pytest.mark.skipif(shutil.which("strings") is None and not os.path.exists("/proc/self/environ"), reason="needs /proc")
def test_a_host_that_lets_everybody_in_asks_nobody(laptop: Path) -> None:
    with Box(sshd_lines=["PermitEmptyPasswords yes"]) as box:
        assert box.run("passwd", "-d", "root").returncode == 0
        answers = Answers(["not needed"])
        assert said(connect(box, answers)) == "in"
        assert [asked for asked in answers.asked if "password" in asked] == []


def test_the_password_is_in_no_argv_and_no_environment(fresh: Box) -> None:
    with connect(fresh, Answers([fresh.password])) as host:
        host.run(["true"]).check()
        listed = fresh.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert fresh.password.encode() not in listed.stdout
    for process in Path("/proc").glob("[0-9]*"):
        try:
            seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        assert fresh.password.encode() not in seen or process.name == str(os.getpid())
