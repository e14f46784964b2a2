"""From a pasted line to a known machine: the real command line against boxes that look like rented ones."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from remote.agent import Agent
from remote.errors import OtherMachine
from remote.probe import probe
from remote.profile import load
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.box import Box
from tests.conftest import Cli
from tests.relay import Relay
from tests.servers import _free_port
from tests.toy import write_task

pytestmark = pytest.mark.ssh
ROUND_TRIP_S = 0.06
MOST_ROUND_TRIPS = 8


@pytest.fixture
def laptop(cli: Cli) -> Cli:
    """A laptop that knows no host, and a profile that has no mirrors to be asked."""
    cli.env["LAUNCH_PASSWORD"] = ""
    return cli


def add(cli: Cli, box: Box, *options: str, name: str = "box", line: str = "") -> dict[str, object]:
    argv = ("host", "add", name, line or box.login_line, "--accept-new", "--install-key", "--json", *options)
    added = cli(*argv, env={"LAUNCH_PASSWORD": box.password})
    assert added.status == 0, added
    data: dict[str, object] = added.data
    return data


def saved(cli: Cli, name: str = "box") -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((cli.home / "launch" / "hosts.toml").read_text("utf-8"))[name]
    return table


# All that lies on a box, but for the image's Python.
LISTED = "cd /root && find . -path ./miniconda3 -prune -o -type f -print | sort | xargs sha256sum"


def everything(folder: Path) -> bytes:
    """What lies in a folder, names and contents."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return b"".join(str(path).encode() + path.read_bytes() for path in files)


def test_a_pasted_line_and_a_password_make_a_host_that_needs_none(laptop: Cli, box: Box) -> None:
    added = add(laptop, box)
    assert added["profile"] == "autodl"
    assert added["workspace"] == "/root/autodl-tmp/launch"
    assert added["hostname"] == box.hostname
    assert added["key"] == str(laptop.home / ".ssh" / "id_ed25519")
    # No password anywhere, and nobody there to give one.
    probed = laptop("host", "probe", "box", "--json")
    assert probed.status == 0, probed
    assert probed.data["hostname"] == box.hostname
    entry = saved(laptop)
    assert entry["login"] == box.login_line
    assert entry["identity"]["hostname"] == box.hostname  # type: ignore[index]
    marker = box.run("cat", "/root/autodl-tmp/launch/box-id").stdout.decode()
    assert entry["identity"]["marker"] == marker  # type: ignore[index]
    assert box.password.encode() not in everything(laptop.home)
    listed = laptop("host", "list").stdout
    assert "box" in listed
    assert box.hostname in listed
    shown = laptop("host", "show", "box", "--json").data
    assert shown["way"] == [f"root@127.0.0.1:{box.port}"]


@pytest.mark.slow
def test_adding_a_host_twice_changes_nothing(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    before, keys = everything(laptop.home), box.run("cat", "/root/.ssh/authorized_keys").stdout
    files = box.run("sh", "-c", LISTED).stdout
    again = add(laptop, box)
    assert again["key"] == ""  # it let us in already
    assert everything(laptop.home) == before
    assert box.run("cat", "/root/.ssh/authorized_keys").stdout == keys
    assert box.run("sh", "-c", LISTED).stdout == files


def test_the_password_may_come_from_stdin(laptop: Cli, box: Box) -> None:
    argv = [sys.executable, "-m", "launcher", "--password-stdin", "host", "add", "box", box.login_line, "--accept-new"]
    done = subprocess.run(
        argv, env=laptop.env, cwd=laptop.home, input=box.password + "\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done
    assert box.password not in done.stdout + done.stderr
    assert not (laptop.home / ".ssh" / "id_ed25519").exists()  # nobody agreed to a key


def test_a_wrong_password_is_exit_3_and_not_repeated(laptop: Cli, box: Box) -> None:
    argv = ("host", "add", "box", box.login_line, "--accept-new", "--json")
    refused = laptop(*argv, env={"LAUNCH_PASSWORD": "not-the-password"})
    assert (refused.status, refused.error["code"]) == (3, "authentication_failed")
    assert "not-the-password" not in refused.stdout + refused.stderr
    assert laptop("host", "list", "--json").data["hosts"] == []


def test_connect_and_probe_take_few_round_trips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, box: Box, capsys: pytest.CaptureFixture[str]
) -> None:
    """At 60 ms: everything after the key exchange (login, session, command) in at most eight."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with Relay(box.port, delay_s=ROUND_TRIP_S / 2) as relay:
        handshake = _handshake(relay)
        for label, answers in (("password", Answers([box.password])), ("key", Answers())):
            host = SshHost("box", parse(box.login_line_at(relay.port)), questions=answers)
            relay.reset_counts()
            started = time.monotonic()
            facts = probe(host, load())
            took_s = time.monotonic() - started
            total = relay.round_trips
            beyond = total - handshake
            with capsys.disabled():
                print(
                    f"\nconnect + probe by {label} at 60 ms: {total} round trips, {handshake} of them the "
                    f"key exchange, {beyond} beyond it; {took_s:.2f} s"
                )
            assert facts.hostname == box.hostname
            assert 0 < beyond <= MOST_ROUND_TRIPS
            if label == "password":
                from remote.ssh import key_files

                key_files.install(host, key_files.public_line(key_files.fresh()))
            host.close()


def _handshake(relay: Relay) -> int:
    """Round trips until keys are exchanged."""
    import socket

    import paramiko

    relay.reset_counts()
    with socket.create_connection(("127.0.0.1", relay.port)) as wire:
        transport = paramiko.Transport(wire)
        transport.start_client(timeout=10)
        count = relay.round_trips
        transport.close()
    return count


def test_an_alias_and_an_address_are_hosts_without_being_saved(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    config = laptop.home / ".ssh" / "config"
    config.write_text(config.read_text() + f"Host gpu\n  HostName 127.0.0.1\n  Port {box.port}\n  User root\n")
    for name in ("gpu", f"root@127.0.0.1:{box.port}", box.login_line):
        done = laptop("exec", name, "--", "uname", "-n")
        assert done.stdout.split()[-1] == box.hostname, done
    lost = laptop("exec", "--json", "gpux", "--", "true")
    assert lost.status == 255
    assert "known: box, gpu" in lost.error["message"]
    assert laptop("host", "add", "second", "gpu", "--json").status == 0
    assert laptop("exec", "second", "--", "uname", "-n").stdout.split()[-1] == box.hostname


# -- the screen


class Screen:
    """A `launch` process in a terminal of its own, 80 columns wide."""

    def __init__(self, cli: Cli, *argv: str) -> None:
        self._leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "launcher", *argv],
            env={**cli.env, "TERM": "xterm"},
            cwd=cli.home,
            stdin=follower,
            stdout=follower,
            stderr=follower,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(follower)
        self.text = ""
        self._seen = 0

    def wait_for(self, words: str, within_s: float = 30) -> None:
        """Until the words come that were not waited for yet."""
        deadline = time.monotonic() + within_s
        while (at := self.text.find(words, self._seen)) < 0:
            assert time.monotonic() < deadline, self.text
            if not self._read(0.2) and self.process.poll() is not None:
                assert words in self.text[self._seen :], self.text
        self._seen = at + len(words)

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def end(self, within_s: float = 60) -> int:
        deadline = time.monotonic() + within_s
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        while self._read(0.1):
            pass
        os.close(self._leader)
        return self.process.wait(1)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._leader], [], [], seconds)[0]:
            return False
        try:
            chunk = os.read(self._leader, 65536)
        except OSError:
            return False
        self.text += chunk.decode("utf-8", "replace")
        return bool(chunk)


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_person_is_asked_for_key_password_and_consent(laptop: Cli, box: Box) -> None:
    del laptop.env["LAUNCH_PASSWORD"]
    screen = Screen(laptop, "host", "add", "box", box.login_line)
    screen.wait_for("Trust it?")
    assert box.fingerprint in screen.text
    screen.type("y\n")
    screen.wait_for("password:")
    screen.type("wrong\n")
    screen.wait_for("try again")
    screen.wait_for("password:")
    screen.type(box.password + "\n")
    screen.wait_for("needs no password any more?")
    screen.type("y\n")
    screen.wait_for("saved box")
    assert screen.end() == 0
    assert box.password not in screen.text
    screen = Screen(laptop, "host", "add", "box", box.login_line)
    assert screen.end() == 0
    assert "?" not in screen.text.replace("???", "")
    assert screen.text.count("saved box") == 1


def test_ctrl_c_at_the_password_leaves_nothing(laptop: Cli, box: Box) -> None:
    del laptop.env["LAUNCH_PASSWORD"]
    screen = Screen(laptop, "host", "add", "box", box.login_line, "--accept-new")
    screen.wait_for("password:")
    screen.type("\x03")
    assert screen.end() == 130
    assert "Traceback" not in screen.text
    assert not (laptop.home / "launch" / "hosts.toml").exists()


def test_a_shell_is_a_terminal_over_there(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    screen = Screen(laptop, "shell", "box")
    screen.wait_for("# ")
    # One program says it and sleeps: between two, bash itself would get the interrupt, and go on.
    screen.type("sh -c 'stty size; echo $((40 + 2)) $TERM; exec sleep 60'\n")
    screen.wait_for("42 xterm")
    screen.type("\x03")  # for the sleep over there, not for us
    screen.wait_for("^C")  # a terminal that is interrupted forgets what was typed meanwhile
    screen.wait_for("# ")
    screen.type("exit 7\n")
    assert screen.end() == 7
    plain = laptop("shell", "box")
    assert plain.status == 2
    assert "needs a terminal" in plain.stderr


HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\x9b1A\u202ebackwards"


def test_no_escape_sequence_of_a_host_reaches_the_terminal(laptop: Cli, tmp_path: Path) -> None:
    banner = tmp_path / "banner"
    banner.write_text(HOSTILE + "banner\n")
    smi = f"#!/bin/sh\nprintf '%b' 'GPU 0: {_octal(HOSTILE)} (UUID: GPU-1)\\n'\n"
    programs = {"nvidia-smi": smi, "uname": f"#!/bin/sh\nprintf '%b' 'host{_octal(HOSTILE)}\\n'\n"}
    with Box(noise=HOSTILE + "motd", programs=programs, sshd_lines=[f"Banner {banner}"]) as box:
        box.run("sh", "-c", 'mkdir -p "/root/autodl-tmp/launch/runs/$1" && touch "/root/$1"', "sh", HOSTILE)
        del laptop.env["LAUNCH_PASSWORD"]
        screen = Screen(laptop, "host", "add", "box", box.login_line, "--accept-new", "--no-install-key")
        screen.wait_for("password:")
        screen.type(box.password + "\n")
        screen.end()
        key = laptop.home / ".ssh" / "id_ed25519"
        laptop.env["LAUNCH_PASSWORD"] = box.password
        texts = [screen.text]
        for argv in (
            ["host", "probe", "box"],
            ["ps", "--host", "box"],
            ["exec", "box", "--", "ls", "-1", "/root"],
            ["exec", "box", "--", "sh", "-c", 'printf "%b" "$1" >&2', "sh", _octal(HOSTILE)],
            ["exec", "box", "--", HOSTILE],
            ["host", "list"],
            ["host", "show", "box"],
            ["doctor", "box"],
        ):
            screen = Screen(laptop, *argv)
            screen.end(90)
            texts.append(screen.text)
            assert "Traceback" not in screen.text
        assert not key.exists()
    for text in texts:
        # Ours: colours of rich, and nothing else.
        rest = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert "\x1b" not in rest, repr(text)
        assert "\x9b" not in rest
        assert "\u202e" not in rest
        assert "\x1b[31mred" not in text
    assert any("backwards" in text for text in texts)  # its words came through


def _octal(text: str) -> str:
    return "".join(f"\\0{byte:03o}" for byte in text.encode())


# -- which machine it is


def test_another_machine_under_the_same_address_is_not_touched(laptop: Cli) -> None:
    with Box() as box:
        add(laptop, box)
        port = box.port
    with Box(port=port, hostname="autodl-container-zzzzzzzzzz-11111111") as other:
        # Its host key is another one: that alone stops everything.
        stopped = laptop("exec", "--json", "box", "--", "true")
        assert (stopped.status, json.loads(stopped.stdout)["error"]["code"]) == (255, "host_key_changed")
        message = json.loads(stopped.stdout)["error"]["message"]
        assert other.fingerprint in message
        assert "another tenant" in message
        before = other.run("stat", "-c", "%y %z", "/root/autodl-tmp").stdout
        # Even with a key that is taken for the same one, and a password: it is another machine.
        fingerprint = other.fingerprint
        replaced = laptop(
            "host", "add", "box", other.login_line, "--replace-key", fingerprint, "--no-install-key", "--json",
            env={"LAUNCH_PASSWORD": other.password},
        )  # fmt: skip
        assert (replaced.status, replaced.error["code"]) == (3, "other_machine"), replaced
        for argv in (["ps", "--host", "box"], ["host", "probe", "box"]):
            met = laptop(*argv, "--json", env={"LAUNCH_PASSWORD": other.password})
            assert (met.status, met.error["code"]) == (3, "other_machine"), met
            assert "nothing on it was touched" in met.error["message"]
            assert "launch host rebind box" in met.error["hint"]
        for argv in (["exec", "--json", "box", "--", "touch", "/root/autodl-tmp/x"], ["tunnel", "box", "--json"]):
            met = laptop(*argv, env={"LAUNCH_PASSWORD": other.password})
            assert met.error["code"] == "other_machine", met
        assert other.run("stat", "-c", "%y %z", "/root/autodl-tmp").stdout == before
        assert other.run("ls", "-A", "/root/autodl-tmp").stdout == b""


def test_a_connection_that_comes_back_to_another_machine_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    known = tmp_path / "known_hosts"
    with Box(password="the same") as box:
        host = SshHost("box", parse(box.login_line), questions=Answers(["the same"] * 2), known_hosts=known, retry_s=())
        identity = Agent(host).place.identity
        agent = Agent(host, identity=identity)
        assert agent.call("states", {"run_ids": None}) == {"runs": []}
        port = box.port
    # An image with its host key baked in: the key alone would not tell.
    with Box(port=port, hostname="another", password="the same") as other:
        known.write_text(other.host_key_line + "\n")
        with pytest.raises(OtherMachine):
            agent.call("states", {"run_ids": None})
        assert other.run("ls", "-A", "/root/autodl-tmp").stdout == b""
    host.close()


def test_a_box_that_moved_is_followed_and_its_runs_with_it(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    box.power_cycle(new_port=True)
    gone = laptop("host", "probe", "box", "--json", env={"HOME": laptop.env["HOME"]})
    assert gone.status == 5, gone
    assert "launch host rebind box" in gone.error["hint"]
    moved = laptop("host", "rebind", "box", box.login_line, "--json")
    assert moved.status == 0, moved
    assert moved.data["hostname"] == box.hostname
    assert laptop("host", "probe", "box", "--json").status == 0
    assert laptop("ps", "--host", "box", "--json").data["runs"] == []


def test_rebinding_offers_no_password_to_another_box(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    before = (laptop.home / "launch" / "hosts.toml").read_bytes()
    with Box(hostname=box.hostname) as other:
        refused = laptop(
            "host", "rebind", "box", other.login_line, "--accept-new", "--json", env={"LAUNCH_PASSWORD": other.password}
        )
        assert (refused.status, refused.error["code"]) == (3, "authentication_failed")
        assert "no password was offered" in refused.error["message"]
        assert "password for root" not in other.log
        # A box that takes our key, but has not our marker.
        public = (laptop.home / ".ssh" / "id_ed25519.pub").read_bytes()
        other.run("sh", "-c", "mkdir -m700 /root/.ssh; cat >/root/.ssh/authorized_keys", stdin=public)
        refused = laptop("host", "rebind", "box", other.login_line, "--json")
        assert (refused.status, refused.error["code"]) == (3, "other_machine"), refused
        assert other.run("ls", "-A", "/root/autodl-tmp").stdout == b""
    assert (laptop.home / "launch" / "hosts.toml").read_bytes() == before


def test_rebinding_does_not_take_a_jump_host_for_the_box(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    box.power_cycle(new_port=True)
    known = laptop.home / ".ssh" / "known_hosts"
    with Box() as other:
        evil = f"[localhost]:{other.port} {' '.join(other.host_key_line.split()[1:])}\n"
        known.write_text(known.read_text() + evil)
        line = f"ssh -J root@127.0.0.1:{box.port} -p {other.port} root@localhost"
        refused = laptop("host", "rebind", "box", line, "--accept-new", "--json", env={"LAUNCH_PASSWORD": "TOP-SECRET"})
        assert (refused.status, refused.error["code"]) == (3, "authentication_failed"), refused
        assert "no password was offered" in refused.error["message"]
        assert "Failed password" not in other.log
        assert "password for root" not in other.log


def test_rebinding_without_a_key_trusts_the_old_host_key_alone(laptop: Cli, box: Box) -> None:
    added = laptop(
        "host", "add", "box", box.login_line, "--accept-new", "--no-install-key", "--json",
        env={"LAUNCH_PASSWORD": box.password},
    )  # fmt: skip
    assert added.status == 0, added
    box.power_cycle(new_port=True)
    moved = laptop("host", "rebind", "box", box.login_line, "--json", env={"LAUNCH_PASSWORD": box.password})
    assert moved.status == 0, moved


def test_rebinding_to_a_port_that_was_somebody_elses(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    box.power_cycle(new_port=True)
    with Box() as other:
        recycled = f"[127.0.0.1]:{box.port} {' '.join(other.host_key_line.split()[1:])}\n"
    known = laptop.home / ".ssh" / "known_hosts"
    known.write_text(known.read_text() + recycled)
    moved = laptop("host", "rebind", "box", box.login_line, "--json")
    assert moved.status == 0, moved


# -- before a run


@pytest.fixture
def task(laptop: Cli) -> str:
    return str(write_task(laptop.home / "task"))


SMI = """#!/bin/sh
case "$*" in
  -L) echo "GPU 0: NVIDIA GeForce RTX 4090 (UUID: GPU-4)" ;;
  *query-gpu*) echo "0, GPU-4, 24564, USED, 0, 550.54.15, [N/A], [N/A], 8.9, NVIDIA GeForce RTX 4090" ;;
  *query-compute*) APPS ;;
  *) echo "| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4 |" ;;
esac
"""


def smi(used: int = 300, apps: str = "true") -> str:
    return SMI.replace("USED", str(used)).replace("APPS", apps)


def found(cli: Cli, task: str) -> dict[str, dict[str, object]]:
    planned = cli("train", task, "--host", "box", "--dry-run", "--json")
    return {one["code"]: one for one in planned.data["findings"]}


def test_a_ready_box_has_no_findings(laptop: Cli, task: str) -> None:
    with Box(programs={"nvidia-smi": smi()}) as box:
        add(laptop, box)
        assert found(laptop, task) == {}
        text = laptop("train", task, "--host", "box", "--dry-run")
        assert "RTX 4090" in text.stdout
        assert "nothing was sent" in text.stdout
        assert sorted(box.run("ls", "/root/autodl-tmp/launch").stdout.split()) == [b"box-id", b"onhost"]


@pytest.mark.parametrize(
    ("options", "code", "fatal"),
    [
        ({"programs": {"nvidia-smi": "#!/bin/sh\necho No devices were found\n"}}, "no_gpu_mode", True),
        ({"programs": {"nvidia-smi": "#!/bin/sh\nexit 0\n"}}, "no_gpu_mode", True),
        ({"programs": {"nvidia-smi": smi(20000, "echo GPU-4, 4242, 19700, python")}}, "gpu_busy", False),
        ({"programs": {"nvidia-smi": smi()}, "data_disk_mb": 100}, "disk", True),
        ({"programs": {"nvidia-smi": smi()}, "data_disk_inodes": 1000}, "inodes", True),
        ({"programs": {"nvidia-smi": smi(), "date": "#!/bin/sh\necho 1000000000\n"}}, "clock", False),
        ({"programs": {"nvidia-smi": smi()}, "hide": ("tmux",)}, "tmux", False),
    ],
    ids=["none found", "silent", "busy", "disk", "inodes", "clock", "tmux"],
)
def test_what_stands_in_the_way_is_said_before_anything_is_sent(
    laptop: Cli, task: str, options: dict[str, object], code: str, fatal: bool
) -> None:
    with Box(**options) as box:  # type: ignore[arg-type]
        add(laptop, box)
        findings = found(laptop, task)
        assert code in findings, findings
        assert findings[code]["fatal"] is fatal
        assert all(findings[code][key] for key in ("what", "why", "todo"))
        assert ("is installed before" in str(findings[code]["why"])) == (code == "tmux")
        if fatal:
            stopped = laptop("train", task, "--host", "box", "--json")
            assert (stopped.status, stopped.error["code"]) == (1, "preflight_failed")
            assert stopped.error["hint"]
            assert b"store" not in box.run("ls", "/root/autodl-tmp/launch").stdout


def test_a_full_workspace_and_a_missing_python_are_named_at_once(laptop: Cli) -> None:
    with Box(hide=("python3",), python=False) as box:
        argv = ("host", "add", "box", box.login_line, "--accept-new", "--no-install-key", "--json")
        refused = laptop(*argv, env={"LAUNCH_PASSWORD": box.password})
        assert refused.status == 4
        assert "no Python" in refused.error["message"]
        assert refused.error["hint"]


def test_power_off_is_for_boxes_that_survive_it(laptop: Cli) -> None:
    with Box(programs={"nvidia-smi": smi()}) as box:
        add(laptop, box)
        asked = laptop("host", "poweroff", "box", "--json")
        assert asked.status == 2  # nobody to say yes
        done = laptop("host", "poweroff", "box", "-y", "--json")
        assert done.status == 0, done
        assert "15 days" in done.data["keeps"]
        assert box.run("test", "-e", "/root/autodl-fs/.powered-off").returncode == 0
    with Box(hostname="plain-box") as other:
        other.run("sh", "-c", "umount /root/autodl-tmp; rmdir /root/autodl-tmp")
        add(laptop, other, "--profile", "plain", name="other")
        refused = laptop("host", "poweroff", "other", "-y", "--json")
        assert refused.status == 1
        assert "console" in refused.error["hint"]


# -- exec, tunnel, doctor


def test_exec_carries_everything(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    argv = [sys.executable, "-m", "launcher", "exec", "box", "--"]
    content = bytes(range(256)) * 1000
    done = subprocess.run(
        [*argv, "sh", "-c", "cat; echo aside >&2; exit 3"],
        env=laptop.env, cwd=laptop.home, input=content, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout.endswith(content)
    assert done.stderr == b"aside\n"
    collected = laptop("exec", "--json", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 4")
    assert collected.status == 4
    assert collected.data["stdout"].endswith("out\n")
    assert collected.data["stderr"] == "err\n"
    words = laptop("exec", "box", "--", "printf", "%s|", "a b", "$HOME", "'", "*")
    assert words.stdout.endswith("a b|$HOME|'|*|")
    # Whoever feeds it may go on for ever: the command's end counts.
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as endless:
        for host in ("box", "local"):
            words = [*argv[:-2], host, "--", "sh", "-c", "echo said; exit 5"]
            ended = subprocess.run(
                words, env=laptop.env, cwd=laptop.home, stdin=endless.stdout, capture_output=True, timeout=30
            )
            assert (ended.returncode, ended.stderr) == (5, b""), host
            assert ended.stdout.endswith(b"said\n")
        endless.kill()
    assert laptop("exec", "box", "printf", "%s|", "-l", "--json").stdout.endswith("-l|--json|")
    assert laptop("exec", "box", "--").status == 2
    missing = laptop("exec", "box", "--", "no-such-program")
    assert missing.status == 127
    assert "PATH" in missing.stderr
    nowhere = laptop("exec", "nobody", "--", "true")
    assert nowhere.status == 255


def test_a_tunnel_leads_there_and_back(laptop: Cli, box: Box) -> None:
    import urllib.request

    add(laptop, box)
    box.run("sh", "-c", "echo hello from the box >/root/index.html")
    port = _free_port()
    start = f"cd /root && setsid python3 -m http.server --bind 127.0.0.1 {port} >/dev/null 2>&1 &"
    box.run("sh", "-c", start)
    process = laptop.start("tunnel", "box", str(port), "--local-port", "0", "--json", stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        local = json.loads(process.stdout.readline())["data"]["local_port"]
        deadline = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{local}/index.html", timeout=5) as answer:
                    assert answer.read() == b"hello from the box\n"
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        process.send_signal(2)
        assert process.wait(10) == 0
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.slow
def test_doctor_names_what_is_wrong_and_what_to_do(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    (laptop.home / ".ssh" / "id_ed25519").chmod(0o644)
    checked = laptop("doctor", "--json")
    checks = {(one["where"], one["what"]): one for one in checked.data["checks"]}
    assert checks["here", "python"]["status"] == "ok"
    assert checks["here", "keys"]["status"] == "warn"
    assert checks["here", "keys"]["todo"].startswith("chmod 600")
    assert checks["here", "verify, evaluate"]["status"] == "ok"
    assert checks["box", "login"]["status"] == "ok"
    assert checks["box", "no_gpu_mode" if ("box", "no_gpu_mode") in checks else "gpu"]["todo"]
    (laptop.home / "launch" / "hosts.toml").write_text("not toml")
    broken = laptop("doctor", "--json")
    assert broken.status == 1
    text = laptop("doctor", "--no-hosts")
    assert text.status == 1
    assert "mend it" in text.stdout
    (laptop.home / "launch" / "hosts.toml").write_text('[gone]\nlogin = "root@127.0.0.1:1"\n')
    gone = laptop("doctor", "gone", "--json")
    assert gone.status == 1
    assert gone.data["checks"][-1]["what"] == "login"


def test_slips_of_a_newcomer_are_forgiven_or_named(laptop: Cli, box: Box) -> None:
    words = box.login_line.split()
    added = laptop("host", "add", "box", *words, "--accept-new", "--json", env={"LAUNCH_PASSWORD": box.password})
    assert added.status == 0, added  # without quotes
    assert saved(laptop)["login"] == box.login_line
    nameless = laptop("host", "add", box.login_line, "--json")
    assert (nameless.status, nameless.error["code"]) == (2, "usage")
    assert "a name comes first" in nameless.error["message"]
    pasted = laptop("host", "add", "box", *words, "my-pass-word", "--json")
    assert (pasted.status, pasted.error["code"]) == (2, "address_invalid")
    assert "my-pass-word" not in pasted.stdout + pasted.stderr
    # A host that is not saved is not named in a hint.
    lost = laptop("host", "add", "other", "root@127.0.0.1:1", "--json")
    assert 'launch host add other "ssh -p PORT root@ADDRESS"' in lost.error["hint"]
    assert "rebind" not in lost.error["hint"]
    no_key = laptop("exec", f"ssh -i /no/such/key -p {box.port} root@127.0.0.1", "true")
    assert no_key.status == 255
    assert "/no/such/key: No such file or directory; going on without" in no_key.stderr


def test_a_progress_bar_writes_over_its_own_line(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    screen = Screen(laptop, "exec", "box", "sh", "-c", r"printf '1/3\r\033[2J2/3\r3/3\n'")
    assert screen.end() == 0
    assert "1/3\r2/3\r3/3\r\n" in screen.text


def test_output_that_nobody_reads_holds_no_command(laptop: Cli, box: Box) -> None:
    add(laptop, box)
    for host in ("box", "local"):
        argv = [sys.executable, "-m", "launcher", "exec", host, "sh", "-c", "head -c 30000000 /dev/zero >&2; echo done"]
        reading, writing = os.pipe()
        process = subprocess.Popen(argv, env=laptop.env, cwd=laptop.home, stdout=subprocess.PIPE, stderr=writing)
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        assert process.communicate(timeout=30)[0].endswith(b"done\n"), host
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-m", "launcher", "exec", "box", "echo", "x"],
        env=laptop.env, cwd=laptop.home, stderr=subprocess.PIPE, text=True, timeout=30,
    )  # fmt: skip
    assert "Traceback" not in closed.stderr
    assert laptop("exec", "box", "--", "").status == 2
