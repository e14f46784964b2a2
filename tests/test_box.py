"""The box of the tests: what it has in common with a rented one, and that nothing of it is left on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.box import HOSTNAME, PLAIN_PATH, Box, box_missing

reason = box_missing()
pytestmark = [pytest.mark.ssh, pytest.mark.skipif(reason is not None, reason=str(reason))]

REPOSITORY = Path(__file__).resolve().parent.parent
NOISE = "(base) this box has 1 GPU\n"
SOON_S = 10.0
# Starts a box, says where it is, and waits to be killed.
OWNER = """
import time
from tests.box import Box
box = Box()
box.start()
print(box.first_pid, box.port, box._folder, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def login(box, **options):
    options = {"password": box.password, "allow_agent": False, "look_for_keys": False, **options}
    client = paramiko.SSHClient()
    entry = paramiko.hostkeys.HostKeyEntry.from_line(box.host_key_line)
    client.get_host_keys().add(entry.hostnames[0], entry.key.get_name(), entry.key)
    try:
        client.connect(box.host, box.port, box.user, timeout=SOON_S, **options)
        yield client
    finally:
        client.close()


def over_ssh(box, command):
    with login(box) as client:
        _, stdout, _ = client.exec_command(command, timeout=SOON_S)
        return stdout.read().decode()


def inside(box, script):
    done = box.run("sh", "-c", script)
    assert done.returncode == 0, done
    return done.stdout.decode()


def eventually(condition):
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def users(folder):
    """What lies in the folder, and the processes that have something mounted from there, in whatever namespace."""
    found = sorted(path.name for path in folder.iterdir())
    for table in Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            if f"{folder}/" in table.read_text():
                found.append(table.parent.name)
    return found


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Where boxes make their folders in this test, and nobody else."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def accounts():
    return [hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in ("/etc/shadow", "/etc/passwd")]


def test_looks_like_a_rented_box(shared_box):
    assert inside(shared_box, "hostname; cat /etc/hostname; stat -c %a /root") == f"{HOSTNAME}\n{HOSTNAME}\n700\n"
    assert {"autodl-tmp", "autodl-fs", "tf-logs"} <= set(inside(shared_box, "ls -A /root").split())
    assert ".ssh" not in inside(shared_box, "ls -A /root").split()
    assert inside(shared_box, "ls -A /tmp /root/autodl-tmp") == "/root/autodl-tmp:\n\n/tmp:\n"
    assert inside(shared_box, "tr '\\0' ' ' </proc/1/cmdline").startswith("/bin/bash /init/boot/boot.sh")
    assert inside(shared_box, "cat; echo .") == ".\n"
    assert shared_box.path("/etc/hostname").read_text() == f"{HOSTNAME}\n"
    assert shared_box.login_line == f"ssh -p {shared_box.port} root@127.0.0.1"


def test_lets_in_whoever_knows_the_password(shared_box):
    assert over_ssh(shared_box, "hostname").endswith(f"{HOSTNAME}\n")
    with pytest.raises(paramiko.AuthenticationException), login(shared_box, password="wrong"):
        pass


def test_refuses_a_key_until_it_is_in_the_list_of_root(box):
    key = paramiko.Ed25519Key.from_private_key(_private_key())
    with pytest.raises(paramiko.AuthenticationException), login(box, password=None, pkey=key):
        pass
    inside(box, f"mkdir -m 700 ~/.ssh; echo '{key.get_name()} {key.get_base64()}' >~/.ssh/authorized_keys")
    with login(box, password=None, pkey=key):
        pass


def _private_key():
    text = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return io.StringIO(text.decode())


def test_is_the_same_to_the_ssh_of_this_machine(shared_box, tmp_path):
    known, ask = tmp_path / "known_hosts", tmp_path / "ask"
    known.write_text(shared_box.host_key_line)
    ask.write_text(f"#!/bin/sh\necho '{shared_box.password}'\n")
    ask.chmod(0o700)
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes"]
    command = [*shared_box.login_line.split(), *options, "echo here"]
    env = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.stdout == f"{NOISE}here\n", done
    shown = subprocess.run(["ssh-keygen", "-lf", known], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1] == shared_box.fingerprint


def test_noise_comes_before_what_a_command_prints_and_a_login_shell_says_more(shared_box):
    assert over_ssh(shared_box, "echo $PATH $OMP_NUM_THREADS") == f"{NOISE}{PLAIN_PATH}\n"
    assert over_ssh(shared_box, "bash -lc 'echo threads=$OMP_NUM_THREADS'").endswith("threads=0\n")
    assert "AutoDL" in over_ssh(shared_box, "bash -lc true")
    with login(shared_box) as client, client.open_sftp() as sftp:
        assert sftp.normalize(".") == "/root"


def test_without_internal_sftp_the_noise_breaks_it():
    lines = ["Subsystem sftp /usr/lib/openssh/sftp-server"]
    with Box(sshd_lines=lines) as box, login(box) as client, pytest.raises(paramiko.SFTPError):
        client.open_sftp()
    with Box(sshd_lines=lines, noise="") as box, login(box) as client, client.open_sftp() as sftp:
        assert sftp.normalize(".") == "/root"


def test_python_is_where_a_probe_finds_it_and_a_copy_of_ours(box):
    script = "import paramiko, sys; open(sys.prefix + '/mark', 'w'); print(sys.prefix, *sys.version_info[:2])"
    done = box.run("/root/miniconda3/bin/python", "-c", script)
    prefix, *version = done.stdout.decode().split()
    assert version == [str(number) for number in sys.version_info[:2]], done
    assert box.path("/root/miniconda3/mark").exists() == (prefix == "/root/miniconda3")
    assert not (Path(sys.prefix) / "mark").exists()
    made = box.run("/root/miniconda3/bin/python", "-m", "venv", "--without-pip", "/root/env")
    assert made.returncode == 0, made
    assert box.run("/root/env/bin/python", "-c", "print(1)").stdout == b"1\n"


def test_hides_programs_and_has_others():
    smi = "#!/bin/sh\necho 'NVIDIA GeForce RTX 4090, 24564'\n"
    with Box(hide=["tmux", "python3"], programs={"nvidia-smi": smi}) as box:
        for name in ("tmux", "python", "python3", Path(sys.executable).name):
            assert box.run("sh", "-c", f"command -v {name}").returncode == 127, name
            assert "not found" in over_ssh(box, f"bash -lc {name} 2>&1")
        assert over_ssh(box, "nvidia-smi") == f"{NOISE}NVIDIA GeForce RTX 4090, 24564\n"
        assert box.run("/root/miniconda3/bin/python3", "-c", "print(1)").stdout == b"1\n"
    with Box(hide=["python3"], python=False) as box:
        names = ["python", "python3", *(f"python3.{minor}" for minor in range(8, 15)), "/opt/conda/bin/python"]
        assert [name for name in names if box.run("sh", "-c", f"command -v {name}").returncode == 0] == []
        assert not box.path("/root/miniconda3").exists()


def test_detached_processes_outlive_the_connection_and_the_dead_are_buried(box):
    said = over_ssh(box, "setsid sleep 61 >/dev/null 2>&1 </dev/null & echo $!")
    pid = int(said.splitlines()[-1])
    over_ssh(box, "tmux new-session -d -s run 'sleep 62'; (sh -c 'sleep 0.1 & exec true' &)")
    assert inside(box, f"cat /proc/{pid}/comm") == "sleep\n"
    assert inside(box, "tmux list-sessions -F '#{session_name}'") == "run\n"
    eventually(lambda: "Z" not in inside(box, "ps -eo stat=,ppid= | awk '$2 == 1 {print $1}'"))


def test_a_full_disk_is_full():
    with Box(data_disk_mb=2, data_disk_inodes=20) as box:
        done = box.run("head", "-c", "3000000", "/dev/zero")
        written = box.run("tee", "/root/autodl-tmp/big", stdin=done.stdout)
        assert b"No space left" in written.stderr, written
        inside(box, "rm /root/autodl-tmp/big")
        many = box.run("sh", "-c", "cd /root/autodl-tmp && touch $(seq 30)")
        assert b"No space left" in many.stderr, many
        inside(box, "echo fine >/root/elsewhere")


def test_shutdown_leaves_a_mark_and_nothing_else(box):
    over_ssh(box, "shutdown -h now")
    assert box.path("/root/autodl-fs/.powered-off").read_text().endswith(" -h now\n")
    assert inside(box, "command -v reboot poweroff halt || echo none") == "none\n"


def test_a_power_cycle_keeps_the_disks_and_ends_the_processes(box):
    before = box.port, box.host_key, inside(box, "awk '{print $22}' /proc/1/stat")
    inside(box, "for f in /root/a /root/autodl-tmp/a /root/autodl-fs/a /opt/a /tmp/a; do echo kept >$f; done")
    over_ssh(box, "setsid sleep 63 >/dev/null 2>&1 </dev/null &")
    with login(box) as client:
        box.power_cycle()
        eventually(lambda: not client.get_transport().is_active())
    assert inside(box, "cat /root/a /root/autodl-tmp/a /root/autodl-fs/a /opt/a /tmp/a") == "kept\n" * 5
    assert (box.port != before[0], box.host_key) == (True, before[1])
    assert inside(box, "awk '{print $22}' /proc/1/stat") != before[2]
    assert inside(box, "pgrep -x sleep || echo none") == "none\n"
    assert over_ssh(box, "hostname").endswith(f"{HOSTNAME}\n")
    port = box.port
    box.power_cycle(new_port=False)
    assert box.port == port


def test_rebuilt_it_has_another_key_and_only_the_shared_disk(box):
    before = box.port, box.host_key
    inside(box, "for f in /root/a /root/autodl-tmp/a /root/autodl-fs/a /opt/a /tmp/a; do echo kept >$f; done")
    box.rebuild()
    assert (box.port, box.host_key != before[1]) == (before[0], True)
    assert inside(box, "ls -d /root/a /root/autodl-tmp/a /root/autodl-fs/a /opt/a /tmp/a 2>/dev/null || true") == (
        "/root/autodl-fs/a\n"
    )
    assert over_ssh(box, "hostname").endswith(f"{HOSTNAME}\n")
    box.rebuild(hostname="autodl-container-other")
    assert over_ssh(box, "hostname").endswith("autodl-container-other\n")


def test_another_box_can_take_the_port(box):
    port, key = box.port, box.host_key
    with pytest.raises(RuntimeError, match="Address already in use"), Box(port=port):
        pass
    box.stop()
    with Box(port=port, password="another one") as other:
        assert (other.port, other.host_key != key) == (port, True)
        assert over_ssh(other, "echo other").endswith("other\n")


def test_several_at_once_do_not_see_each_other():
    with Box(hostname="one") as one, Box(hostname="two", password="12345678") as two:
        inside(one, "touch /root/autodl-fs/a /opt/a /dev/shm/a")
        assert over_ssh(two, "hostname; ls -d /root/autodl-fs/a /opt/a /dev/shm/a 2>/dev/null") == f"{NOISE}two\n"
        assert inside(one, "ps -eo comm= | grep -c '^sshd'") == "1\n"


def test_lines_for_sshd_are_the_ones_that_count():
    lines = ["MaxAuthTries 1", "MaxSessions 1", "Banner /etc/autodl-motd.txt", "PasswordAuthentication yes"]
    with Box(sshd_lines=lines) as strict, login(strict) as client:
        assert b"AutoDL" in client.get_transport().auth_handler.banner
        with client.get_transport().open_session(), pytest.raises(paramiko.ChannelException):
            client.get_transport().open_session()


def test_can_ask_for_the_password_by_keyboard_interactive():
    lines = ["UsePAM yes", "KbdInteractiveAuthentication yes", "PasswordAuthentication no"]
    with Box(sshd_lines=lines) as box, contextlib.closing(paramiko.Transport((box.host, box.port))) as transport:
        transport.start_client(timeout=SOON_S)
        asked = []

        def answer(title, instructions, prompts):
            asked.extend(prompts)
            return [box.password for _ in prompts]

        transport.auth_interactive(box.user, answer)
        assert transport.is_authenticated()
        assert asked == [("Password: ", False)]


def test_stopped_it_leaves_nothing(workplace):
    before = accounts()
    box = Box()
    for _ in range(2):
        box.start()
        pid = box.first_pid
        over_ssh(box, "setsid sleep 64 >/dev/null 2>&1 </dev/null & tmux new-session -d")
        assert len(users(workplace)) > 3
        box.power_cycle()
        assert not Path(f"/proc/{pid}").exists()
        over_ssh(box, "setsid sleep 64 >/dev/null 2>&1 </dev/null & echo root:changed | chpasswd -c SHA512")
        box.rebuild()
        assert str(workplace) not in Path("/proc/self/mounts").read_text()
        box.stop()
        box.stop()
        assert users(workplace) == []
    assert accounts() == before


def test_where_it_cannot_start_it_leaves_nothing_either(workplace):
    with pytest.raises(RuntimeError, match="NoSuchKeyword"):
        Box(sshd_lines=["NoSuchKeyword yes"]).start()
    assert users(workplace) == []
    with pytest.raises(RuntimeError, match="can't be made"):
        Box(data_disk_mb=-1).start()
    assert users(workplace) == []


def test_it_ends_with_the_tests_even_if_they_are_killed():
    owner = subprocess.Popen([sys.executable, "-c", OWNER], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    with owner:
        pid, _, folder = owner.stdout.readline().split()
        assert Path(f"/proc/{pid}").exists()
        assert Path(folder).exists()
        owner.send_signal(signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists() and not Path(folder).exists())
