"""A machine like a rented AutoDL box, made of this one: own disks, processes, name, password, host key and port.

Linux namespaces, but the network's: it answers on the loopback of the tests.  What it writes stays in memory and is
gone with it.  It knows nothing of what is tested on it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import io
import os
import re
import secrets
import select
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.servers import _free_port, _fresh_key, _sshd

if TYPE_CHECKING:
    from typing import Self

INSIDE = Path(__file__).with_name("box_inside.sh")
HOSTNAME = "autodl-container-a1b2c3d4e5-0f0f0f0f"
PLAIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = ("bash", "unshare", "nsenter", "mount", "umount", "mountpoint", "pivot_root", "chroot", "tar", "chpasswd")
READY_S = 20.0
PORT_TRIES = 5
PYTHON = re.compile(r"python(\d(\.\d+)?)?$")
POWER_COMMANDS = ("shutdown", "poweroff", "halt", "reboot")
MESSAGE_OF_THE_DAY = """\
+--------------------------------------------------AutoDL--------------------------------------------------------+
|   /root/autodl-tmp   data disk: fast, lost when the box is released                                            |
|   /root/autodl-fs    shared disk: slow, kept                                                                   |
+----------------------------------------------------------------------------------------------------------------+
"""
# Reads to the end of input: an interrupted `read` goes on, and bash buries what is orphaned meanwhile.
BOOT = """\
rm -f /run/sshd.pid
{sshd} -D -e {options} -o ListenAddress=127.0.0.1:$1 </dev/null >/dev/null &
until [ -s /run/sshd.pid ]; do
    kill -0 $! || exit 1
    sleep 0.005
done
echo ready
read -r _
"""
# The old password goes with the old /etc/shadow, which is the box's own copy by then.
FILL = """\
set -e
[ $# = 0 ] || rm -f -- "$@"
rm -f /etc/ssh/ssh_host_*
tar -xpf - -C /
chpasswd -c SHA512 </run/password
rm /run/password
"""


@functools.cache
def box_missing() -> str | None:
    """Why a `Box` can't run here, or None if it can: tried, as a container may forbid what root may do elsewhere."""
    if sys.platform != "linux":
        return "needs Linux"
    if os.getuid() != 0:
        return "needs root"
    if missing := [name for name in TOOLS if not _found(name)]:
        return f"not installed: {', '.join(missing)}"
    if _sshd() is None:
        return "sshd is not installed"
    with tempfile.TemporaryDirectory(prefix="launch-box-") as folder:
        trial = 'mount -t tmpfs t "$0"; cd "$0"; mkdir u w m; mount -t proc p m; umount m; '
        trial += "mount -t overlay o -o lowerdir=/,upperdir=u,workdir=w m"
        command = [_found("unshare"), "-muipf", "--kill-child", _found("bash"), "-ec", trial, folder]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no namespaces or no overlay: {done.stderr.strip()}"


class Box:
    """A box; `with Box() as box:` or `start` and `stop`.  Attributes as those of OpenSshServer where both have them.

    sshd_lines  go first in sshd_config, where the first word counts: MaxStartups, Banner, UsePAM, Subsystem, ...
    data_disk_mb, data_disk_inodes  the limits of /root/autodl-tmp, beyond which it is full
    hide        programs that are not there, wherever this machine has them; "python3" hides every other python too,
                but not the one that `python` is about
    python      whether /root/miniconda3 is there: the environment of the tests, as a copy that can be written to
    programs    name -> script, in /usr/local/bin
    noise       what .bashrc prints: Debian's bash reads that for a command over SSH, too

    /tmp and /run live as long as the system disk, as in a container.  The rest of the file system is that of the
    machine, read through an overlay; of /root nothing is, but the folder of the interpreter below it, if it is there.
    """

    host = "127.0.0.1"
    user = "root"

    def __init__(
        self,
        *,
        port: int | None = None,
        hostname: str = HOSTNAME,
        password: str | None = None,
        sshd_lines: Sequence[str] = (),
        data_disk_mb: int | None = None,
        data_disk_inodes: int | None = None,
        hide: Sequence[str] = (),
        python: bool = True,
        programs: Mapping[str, str] | None = None,
        noise: str = "(base) this box has 1 GPU",
    ) -> None:
        self.port = port or 0
        self.hostname = hostname
        self.password = password or secrets.token_urlsafe(9)
        self.host_key = ""
        self._wanted_port = port
        self._sshd_lines = list(sshd_lines)
        limits = {"size": data_disk_mb and f"{data_disk_mb}m", "nr_inodes": data_disk_inodes}
        self._data_options = "".join(f",{name}={limit}" for name, limit in limits.items() if limit)
        self._hide = list(hide)
        self._python = python
        self._programs = dict(programs or {})
        self._noise = noise
        self._folder: Path | None = None
        self._holder: subprocess.Popen[bytes] | None = None
        self._booted: subprocess.Popen[bytes] | None = None
        self._first_pid: int | None = None

    @property
    def address(self) -> str:
        return f"{self.user}@{self.host}"

    @property
    def login_line(self) -> str:
        return self.login_line_at(self.port)

    def login_line_at(self, port: int) -> str:
        """As `login_line`, through a relay that listens on `port`."""
        return f"ssh -p {port} {self.address}"

    @property
    def host_key_line(self) -> str:
        """The line for a known_hosts file."""
        return self.host_key_line_at(self.port)

    def host_key_line_at(self, port: int) -> str:
        return f"[{self.host}]:{port} {self.host_key}\n"

    @property
    def fingerprint(self) -> str:
        """As OpenSSH shows it: SHA256:..."""
        digest = hashlib.sha256(base64.b64decode(self.host_key.split()[1])).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    @property
    def log(self) -> str:
        """What sshd said since `start`."""
        return (self._there() / "log").read_text()

    @property
    def first_pid(self) -> int:
        """The pid, outside, of the process that is pid 1 in the box."""
        assert self._first_pid is not None, "the box is off"
        return self._first_pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when logins are accepted.  Raises RuntimeError in the words of what refused, and leaves nothing."""
        assert self._folder is None, "the box is started"
        self._folder = Path(tempfile.mkdtemp(prefix="launch-box-"))
        with self._all_or_nothing():
            for name in ("disks", "root", "autodl-fs"):
                (self._folder / name).mkdir()
            command = [_found("unshare"), "-m", "--propagation", "private", *self._inside("hold")]
            self._holder = self._process(command)
            self._wait_for("ready", self._holder)
            self._make_disks()
            self._boot(new_port=not self._wanted_port)

    def stop(self) -> None:
        """Returns when all processes, mounts and files of the box are gone; more than once is fine."""
        self._halt()
        if self._holder is not None:
            self._end(self._holder)
            self._holder = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)  # the holder did, unless it failed
            self._folder = None

    def power_cycle(self, *, new_port: bool = True) -> None:
        """End every process and boot again: the same disks, name and host key.  Returns when logins are accepted."""
        with self._all_or_nothing():
            self._halt()
            self._boot(new_port=new_port)

    def rebuild(self, *, hostname: str | None = None, new_port: bool = False) -> None:
        """Another box at the same address: a fresh host key and fresh disks, all but /root/autodl-fs."""
        with self._all_or_nothing():
            self._halt()
            self.hostname = hostname or self.hostname
            self._make_disks()
            self._boot(new_port=new_port)

    def run(self, *argv: str, stdin: bytes = b"", timeout_s: float = 60.0) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the box, past SSH and without its noise, from /."""
        command = [_found("nsenter"), "-t", str(self.first_pid), "-m", "-u", "-i", "-p", "--", *argv]
        env = {"HOME": "/root", "USER": self.user, "PATH": PLAIN_PATH, "LANG": "C.UTF-8"}
        return subprocess.run(command, env=env, input=stdin, capture_output=True, timeout=timeout_s, check=False)

    def path(self, path: str) -> Path:
        """A file of the running box, as seen from outside; an absolute link on the way would lead out of the box."""
        return Path(f"/proc/{self.first_pid}/root") / path.lstrip("/")

    def _there(self) -> Path:
        assert self._folder is not None, "the box is not started"
        return self._folder

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.stop()
            raise

    def _inside(self, verb: str, *arguments: str) -> list[str]:
        return [_found("bash"), str(INSIDE), verb, str(self._there()), *arguments]

    def _held(self, *command: str) -> list[str]:
        assert self._holder is not None
        return [_found("nsenter"), "-t", str(self._holder.pid), "-m", "--", *command]

    def _make_disks(self) -> None:
        self.host_key = _fresh_key(self._there() / "host_key").strip()
        roots = [sys.prefix, sys.base_prefix] if self._python else ["", ""]
        self._do(self._held(*self._inside("disks", self._data_options, *roots)))
        # From within the box's root: a link there never leads to a file of the machine.
        chroot = [_found("chroot"), str(self._there() / "root"), "/bin/bash", "-c", FILL, "fill"]
        self._do(self._held(*chroot, *self._hidden()), stdin=self._archive())

    def _hidden(self) -> list[str]:
        """What this machine has and the box has not."""
        asked = [*PLAIN_PATH.split(":"), *os.get_exec_path(), "/opt/conda/bin"]
        folders = sorted({os.path.realpath(folder) for folder in asked})
        interpreter = os.path.realpath(sys.executable) if self._python else None
        names = {*POWER_COMMANDS, *self._hide}
        hidden = [f"/root/miniconda3/bin/{name}" for name in self._hide if self._python and not PYTHON.match(name)]
        for folder in folders:
            # Of these the box has its own.
            if folder.startswith(("/root/", "/tmp/", "/run/")):
                continue
            there = os.listdir(folder) if os.path.isdir(folder) else []
            found = [name for name in there if name in names or ("python3" in self._hide and PYTHON.match(name))]
            hidden += [path for name in found if (path := f"{folder}/{name}") != interpreter]
        return hidden

    def _files(self) -> dict[str, tuple[str, int]]:
        """path -> (text, mode)"""
        users = Path("/etc/passwd").read_text().splitlines(keepends=True)
        options = "-o PerSourcePenalties=no" if _knows_penalties() and not self._says("PerSourcePenalties") else ""
        boot = BOOT.format(sshd=_sshd(), options=options)
        files = {
            "etc/passwd": (
                "root:x:0:0:root:/root:/bin/bash\n" + "".join(line for line in users if not line.startswith("root:")),
                0o644,
            ),
            "etc/hostname": (f"{self.hostname}\n", 0o644),
            "etc/ssh/ssh_host_ed25519_key": ((self._there() / "host_key").read_text(), 0o600),
            "etc/ssh/ssh_host_ed25519_key.pub": (f"{self.host_key}\n", 0o644),
            "etc/ssh/sshd_config": (self._sshd_config(), 0o644),
            "etc/autodl-motd.txt": (MESSAGE_OF_THE_DAY, 0o644),
            "init/boot/boot.sh": (boot, 0o755),
            "root/.bash_profile": ("cat /etc/autodl-motd.txt\nexport OMP_NUM_THREADS=0\n", 0o644),
            "root/.bashrc": (f"echo {shlex.quote(self._noise)}\n" if self._noise else "", 0o644),
            "run/password": (f"root:{self.password}\n", 0o600),
            "usr/bin/shutdown": ('#!/bin/sh\necho "$(date) $*" >/root/autodl-fs/.powered-off\n', 0o755),
        }
        return files | {f"usr/local/bin/{name}": (script, 0o755) for name, script in self._programs.items()}

    def _archive(self) -> bytes:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, (text, mode) in self._files().items():
                content = text.encode()
                member = tarfile.TarInfo(path)
                member.mode, member.size, member.mtime = mode, len(content), time.time()
                tar.addfile(member, io.BytesIO(content))
            if self._python:
                # Straight to the interpreter: the links of an environment lead through names that may be hidden.
                for name, target in (("python", os.path.realpath(sys.executable)), ("python3", "python")):
                    member = tarfile.TarInfo(f"root/miniconda3/bin/{name}")
                    member.type, member.linkname = tarfile.SYMTYPE, target
                    tar.addfile(member)
        return archive.getvalue()

    def _sshd_config(self) -> str:
        return "\n".join(
            [
                *self._sshd_lines,
                "HostKey /etc/ssh/ssh_host_ed25519_key",
                "PidFile /run/sshd.pid",
                "PasswordAuthentication yes",
                "KbdInteractiveAuthentication no",
                "PermitRootLogin yes",
                "UsePAM no",
                "UseDNS no",
                "PrintMotd no",
                # A server of its own would begin with what .bashrc prints.
                *([] if self._says("Subsystem") else ["Subsystem sftp internal-sftp"]),
                f"SetEnv PATH={PLAIN_PATH}",
                "",
            ]
        )

    def _says(self, keyword: str) -> bool:
        return any(line.split()[:1] == [keyword] for line in self._sshd_lines)

    def _boot(self, *, new_port: bool) -> None:
        tries = PORT_TRIES if new_port else 1
        while True:
            before = self.port
            while new_port and self.port == before:
                self.port = _free_port()
            tries -= 1
            try:
                self._boot_once()
                return
            except RuntimeError:
                # Between the choice of a port and its use, another may have taken it.
                if not tries or "Address already in use" not in self.log:
                    raise
                self._halt()

    def _boot_once(self) -> None:
        unshare = [_found("unshare"), "-m", "-u", "-i", "-p", "-f", "--kill-child", "--propagation", "private"]
        self._booted = self._process(self._held(*unshare, *self._inside("boot", self.hostname, str(self.port))))
        self._first_pid = int(self._wait_for("pid", self._booted))
        self._wait_for("ready", self._booted)

    def _halt(self) -> None:
        if self._booted is not None:
            if self._first_pid is not None and self._booted.poll() is None:
                # The others end with it, and its parent when the last of them is buried.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._first_pid, 9)
            elif self._first_pid is None:
                self._booted.kill()
            self._end(self._booted)
            self._booted = self._first_pid = None

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(READY_S)
            except subprocess.TimeoutExpired:
                process.kill()

    def _process(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """One that goes on until its input ends, as it does when the tests are killed."""
        with open(self._there() / "log", "ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=_env(), cwd="/", bufsize=0
            )

    def _wait_for(self, word: str, process: subprocess.Popen[bytes]) -> str:
        """The rest of the line that begins with `word`."""
        assert process.stdout is not None
        deadline = time.monotonic() + READY_S
        line = b""
        while not line.endswith(b"\n"):
            left_s = deadline - time.monotonic()
            read = left_s > 0 and select.select([process.stdout], [], [], left_s)[0] and process.stdout.read(1)
            if not read:
                raise RuntimeError(f"the box does not start: {self.log}")
            line += read
        found, _, rest = line.decode().strip().partition(" ")
        assert found == word, line
        return rest

    def _do(self, command: Sequence[str], stdin: bytes = b"") -> None:
        done = subprocess.run(command, input=stdin, capture_output=True, env=_env(), cwd="/", check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the box can't be made: {done.stderr.decode(errors='replace')}")


def _env() -> dict[str, str]:
    return {"PATH": PLAIN_PATH, "LANG": "C.UTF-8"}


def _found(name: str) -> str:
    """The absolute path of a program of this machine, or nothing."""
    return shutil.which(name, path=PLAIN_PATH) or ""


@functools.cache
def _knows_penalties() -> bool:
    """Whether this sshd locks an address out after a failure (since 9.8); here that is everybody's address."""
    command = [str(_sshd()), "-G", "-f", "/dev/null", "-o", "PerSourcePenalties=no"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
