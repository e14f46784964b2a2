"""An SSH server that lives in this process: a real host to practise and test against, with nothing to rent.

It owns its keys, its home folder and the commands it starts, and listens on the loopback only.  It knows
nothing of how clients connect, and nothing of what their commands are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import struct
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import RemoteError

if TYPE_CHECKING:
    from typing import Self

    import asyncssh

CHUNK_BYTES = 256 * 1024
ALL_RECEIVED = 1 << 30
HANGUP_POLL_S = 0.1
STOP_GRACE_S = 1.0
ACCEPTED_S = 0.01
# Much the fastest in Python.  The client's order decides, and paramiko's begins with AES-CTR + HMAC.
CIPHERS = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]


class EmbeddedHost:
    """A host on 127.0.0.1: exec and SFTP as this user, for the one key it hands out.  Needs asyncssh, POSIX.

    While it runs, `address`, `port`, `identity_file`, `known_hosts_file`, `login_line` say how to log in; a
    home folder serves one running host.  As under sshd, a command ends once it exited and nobody holds its
    output, and a client that goes away ends its commands' input and closes their output.  Other than under
    sshd, which lets a command without a terminal run on, the command's process group then gets SIGHUP: a
    practice host leaves nothing behind that was not detached on purpose.
    """

    host = "127.0.0.1"

    def __init__(self, home: Path, *, path_prefix: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        if os.name == "nt":
            raise RemoteError("the embedded host can't run on Windows: no POSIX shell", hint="use a real host")
        self.home = Path(home).absolute()
        self.user = _login_name()
        self.port = 0
        self.identity_file = self.home / ".launch-embedded" / "id_ed25519"
        self.known_hosts_file = self.home / ".launch-embedded" / "known_hosts"
        path = os.pathsep.join([*path_prefix, os.environ.get("PATH") or os.defpath])
        self._env = {"PATH": path, "HOME": str(self.home), "SHELL": "/bin/sh"}
        self._env |= {"USER": self.user, "LOGNAME": self.user, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        self._env |= env or {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event
        self._connections: set[asyncssh.SSHServerConnection] = set()
        self._sessions: dict[asyncio.Task[None], asyncio.subprocess.Process | None] = {}

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
        """Returns when logins are accepted.  Raises RemoteError without asyncssh, or if it runs already."""
        if self._thread is not None:
            raise RemoteError(f"the embedded host on port {self.port} is already running")
        try:
            import asyncssh  # noqa: F401
        except ImportError as error:
            raise RemoteError("the embedded host needs asyncssh", hint="pip install asyncssh") from error
        ready: Future[None] = Future()
        thread = threading.Thread(target=self._live, args=(ready,), name="embedded-host", daemon=True)
        thread.start()
        try:
            ready.result()
        except OSError as error:
            raise RemoteError(f"the embedded host can't start in {self.home}: {error}") from error
        self._thread = thread

    def stop(self) -> None:
        """Returns when listener, connections, commands and thread have ended.  A second call does nothing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            thread.join()

    def cut(self) -> None:
        """Reset every connection there is, as a broken network would; new ones are welcome."""
        if self._thread is not None:
            asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result()

    def _live(self, ready: Future[None]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:  # whatever kept it from starting is for `start`, which waits, to raise
            if ready.done():
                raise
            ready.set_exception(error)

    async def _serve(self, ready: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        listener = await self._listen()
        ready.set_result(None)
        await self._stopping.wait()
        # Closed under a connection that is just being accepted, asyncio's server trips and leaks it.
        for door in listener.sockets:
            self._loop.remove_reader(door)
        await asyncio.sleep(ACCEPTED_S)
        listener.close()
        while self._connections:
            await self._cut()
        await listener.wait_closed()
        while self._sessions:
            _, left = await asyncio.wait(self._sessions, timeout=STOP_GRACE_S)
            for task in left:
                _signal_group(self._sessions[task], signal.SIGKILL)

    async def _listen(self) -> asyncssh.SSHAcceptor:
        import asyncssh

        host_key = asyncssh.generate_private_key("ssh-ed25519")
        client_key = asyncssh.generate_private_key("ssh-ed25519")
        running, home = self, os.fsencode(self.home)

        class Gate(asyncssh.SSHServer):
            """One user, one key.  Passwords and forwarding are refused, as asyncssh does by itself."""

            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                self.connection = conn
                running._connections.add(conn)

            def connection_lost(self, exc: Exception | None) -> None:
                running._connections.discard(self.connection)

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return username == running.user and key.public_data == client_key.public_data

        class Files(asyncssh.SFTPServer):
            def map_path(self, path: bytes) -> bytes:
                # Left alone, a relative path would start from the folder of this process.
                return os.path.join(home, path)

        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_private(self.identity_file, client_key.export_private_key("openssh"))
        listener = await asyncssh.listen(
            self.host,
            0,
            server_factory=Gate,
            server_host_keys=[host_key],
            gss_host=None,
            x509_trusted_certs=None,
            agent_forwarding=False,
            allow_pty=False,
            line_editor=False,
            encryption_algs=CIPHERS,
            encoding=None,
            process_factory=self._run,
            sftp_factory=Files,
        )
        self.port = listener.get_port()
        known = f"[{self.host}]:{self.port} ".encode() + host_key.export_public_key("openssh")
        _write_private(self.known_hosts_file, known)
        return listener

    async def _cut(self) -> None:
        doomed = list(self._connections)
        for connection in doomed:
            wire = connection.get_extra_info("socket")
            if wire is not None:  # None: already on its way out
                # Without lingering the client sees a reset instead of a polite end.
                wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.abort()
        for connection in doomed:
            await connection.wait_closed()

    async def _run(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Serve one session.  An exception from here makes asyncssh drop the whole connection."""
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = None
        try:
            if process.subsystem is None:
                await self._command(process, task)
            else:
                process.exit(127)
        finally:
            del self._sessions[task]

    async def _command(self, process: asyncssh.SSHServerProcess[bytes], task: asyncio.Task[None]) -> None:
        arguments = [] if process.command is None else ["-c", process.command.encode()]
        try:
            # create_subprocess_exec does the same but hides the transport, and only that can close the pipes.
            transport, protocol = await self._loop.subprocess_exec(
                lambda: asyncio.subprocess.SubprocessStreamProtocol(CHUNK_BYTES, self._loop),
                "/bin/sh",
                *arguments,
                cwd=self.home,
                env=self._env,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            if not process.is_closing():
                process.stderr.write(f"the command can't be started: {error}\n".encode())
                process.exit(126)
            return
        child = asyncio.subprocess.Process(transport, protocol, self._loop)
        self._sessions[task] = child
        try:
            await _carry(process, child)
        finally:
            # Ignored signals are inherited: where nohup started this process, SIGHUP would end nothing.
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            _signal_group(child, signal.SIGTERM if ignored else signal.SIGHUP)
            for pipe in map(transport.get_pipe_transport, (0, 1, 2)):
                if pipe is not None:
                    pipe.close()
            await child.wait()


async def _carry(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    """Move the three streams until the command has ended, and report its status, or the client has gone."""
    assert child.stdin and child.stdout and child.stderr
    feeding = asyncio.ensure_future(_feed(process.stdin, child.stdin))
    pouring = _pour(child.stdout, process.stdout), _pour(child.stderr, process.stderr)
    ending = asyncio.gather(child.wait(), *pouring)
    # Polled, because asyncssh announces the end of a channel only once all its input was taken.
    while not ending.done() and not process.is_closing():
        await asyncio.wait([ending], timeout=HANGUP_POLL_S)
    if not process.is_closing():
        status = ending.result()[0]
        if status < 0:
            process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
        else:
            process.exit(status)
    feeding.cancel()
    ending.cancel()
    await asyncio.gather(feeding, ending, return_exceptions=True)


async def _feed(source: asyncssh.SSHReader[bytes], sink: asyncio.StreamWriter) -> None:
    """Carry the client's input to the command, and its end; what the command won't read is thrown away."""
    import asyncssh

    unasked = asyncssh.SignalReceived, asyncssh.BreakReceived, asyncssh.TerminalSizeChanged
    while True:
        try:
            # asyncssh lets the client send more for every packet it hands over, however many it still holds:
            # whoever takes less than everything lets an upload pile up in memory.
            chunk = await source.read(ALL_RECEIVED)
        except unasked:
            continue
        except (asyncssh.Error, OSError):
            break
        if not chunk:
            break
        if not sink.is_closing():
            sink.write(chunk)
            with contextlib.suppress(OSError):
                await sink.drain()
    sink.close()


async def _pour(source: asyncio.StreamReader, sink: asyncssh.SSHWriter[bytes]) -> None:
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()


def _signal_group(child: asyncio.subprocess.Process | None, number: int) -> None:
    # Once the leader is reaped its number may be somebody else's.
    if child is not None and child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)


def _login_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
