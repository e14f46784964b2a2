"""A real OpenSSH server for tests: its own folder, keys and port, and no trace outside of them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

if TYPE_CHECKING:
    from typing import Self

START_S = 10.0
KILL_S = 5.0
PORT_TRIES = 5


def openssh_missing() -> str | None:
    """Why `OpenSshServer` can't run here, or None if it can."""
    if os.name == "nt":
        return "needs POSIX"
    if _sshd() is None:
        return "sshd is not installed"
    import pwd

    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:
        return "sshd lets nobody in who is not in the list of users"
    if Path(shell).name in {"nologin", "false"} or not os.access(shell, os.X_OK):
        return f"sshd would start this user's commands with {shell}"
    return None


class OpenSshServer:
    """sshd on 127.0.0.1 for the current user (root or not) and one key; attributes as those of EmbeddedHost.

    Commands run in the user's login shell with HOME set to `home` and with `path_prefix` before a plain PATH:
    sshd's SetEnv does override HOME (OpenSSH 9.2), so `~`, a bare `cd` and the shell's start-up files are
    private.  It moves nothing else: commands and SFTP still begin in the folder named in the list of users.
    """

    host = "127.0.0.1"

    def __init__(self, folder: Path, *, path_prefix: Sequence[str] = ()) -> None:
        import pwd

        self.folder = folder.absolute()
        self.home = self.folder / "home"
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.port = 0
        self.identity_file = self.folder / "id_ed25519"
        self.known_hosts_file = self.folder / "known_hosts"
        self.log_file = self.folder / "sshd.log"
        self._path = os.pathsep.join([*path_prefix, "/usr/local/bin:/usr/bin:/bin"])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.user}@{self.host}"

    @property
    def login_line(self) -> str:
        return f"ssh -i {shlex.quote(str(self.identity_file))} -p {self.port} {self.address}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when logins are accepted.  Raises RuntimeError with sshd's own words where it refuses."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        host_key = _fresh_key(self.folder / "host_key")
        _write(self.folder / "authorized_keys", _fresh_key(self.identity_file))
        for _ in range(PORT_TRIES):
            self.port = _free_port()
            _write(self.known_hosts_file, f"[{self.host}]:{self.port} {host_key}")
            _write(self.folder / "sshd_config", self._config())
            if self._listen():
                return
        raise RuntimeError(f"sshd does not start: {self.log_file.read_text()}")

    def stop(self) -> None:
        """End the server and its connections; commands live on, as they do when a real server goes down."""
        if self._process is not None:
            # In this order: once the listener is gone, nothing says which connections were its own.
            self.kill_connections()
            self._process.terminate()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """End it and come back on the same port with the same keys."""
        self.stop()
        if not self._listen():
            raise RuntimeError(f"sshd does not start again: {self.log_file.read_text()}")

    def kill_connections(self) -> None:
        """Returns when every connection is gone.  The server listens on; running commands live on."""
        assert self._process is not None
        doomed: list[int] = []
        # Stopped first: one that dies while it starts the next leaves an orphan that nobody would find.
        while (found := _sshd_below(self._process.pid)) != doomed:
            doomed = found
            _signal(doomed, signal.SIGSTOP)
        _signal(doomed, signal.SIGKILL)
        deadline = time.monotonic() + KILL_S
        while set(doomed) & set(_sshd_below(self._process.pid)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _config(self) -> str:
        return f"""
ListenAddress {self.host}:{self.port}
HostKey "{self.folder}/host_key"
AuthorizedKeysFile "{self.folder}/authorized_keys"
PidFile none
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PrintMotd no
Subsystem sftp internal-sftp
SetEnv "HOME={self.home}" "PATH={self._path}" LANG=C.UTF-8 LC_ALL=C.UTF-8
"""

    def _listen(self) -> bool:
        sshd = _sshd()
        assert sshd is not None
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [sshd, "-f", str(self.folder / "sshd_config")]
        # Since 9.8 a wrong key or a broken connection locks its address out for a while: here, everybody.
        lenient = ["-o", "PerSourcePenalties=no"]
        if subprocess.run([*command, *lenient, "-t"], capture_output=True, check=False).returncode == 0:
            command += lenient
        with open(self.log_file, "wb") as log:
            process = subprocess.Popen([*command, "-D", "-e"], stdin=subprocess.DEVNULL, stderr=log)
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            if b"Server listening on" in self.log_file.read_bytes():
                self._process = process
                return True
            time.sleep(0.01)
        process.kill()
        process.wait()
        return False


def _sshd() -> str | None:
    """The absolute path: sshd refuses to start without, as it runs itself again for every connection."""
    return shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


def _sshd_below(listener: int) -> list[int]:
    """The connection processes below a listener, deepest first, without the commands they run."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 2) for line in table.stdout.splitlines()]
    found, parents = [], [listener]
    while parents:
        parent = parents.pop()
        children = [int(pid) for pid, ppid, name in rows if int(ppid) == parent and Path(name).name.startswith("sshd")]
        found += children
        parents += children
    return found[::-1]


def _signal(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        # Half of a connection ends by itself when the other half is gone.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _fresh_key(path: Path) -> str:
    """The public half of a new key whose private half is written to the path."""
    key = Ed25519PrivateKey.generate()
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode())
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + "\n"


def _write(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
