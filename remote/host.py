"""The contract of a host: run a command, stream a command.  `LocalHost` and `SshHost` keep it alike."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from remote import failure
from remote.errors import BadReply, CommandFailed, TimedOut

STDERR_KEPT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Completed:
    """How a command ended.  A non-zero status is a value; `.check()` turns it into CommandFailed."""

    argv: tuple[str, ...]
    exit_status: int
    stdout: bytes
    stderr: bytes

    def check(self) -> Self:
        if self.exit_status != 0:
            said = self.stderr.decode("utf-8", "replace").strip()[-500:]
            row = failure.while_running(said) or failure.while_running(f"exit {self.exit_status}")
            raise CommandFailed(
                f"{self.argv[0]} ended with status {self.exit_status}" + (f": {said}" if said else ""),
                hint=row.next_command() if row else "",
            )
        return self


class Process(ABC):
    """A command that runs on a host.  Reading its output is what drives it; `close` ends it early.

    `on_stderr` gets what it writes to stderr as it comes, in a thread of its own.
    """

    def __init__(self, on_stderr: Callable[[bytes], None] | None = None) -> None:
        self._on_stderr = on_stderr
        self._stderr = b""

    def _take_stderr(self, chunk: bytes) -> None:
        """Keep the end of it and pass it on: a command whose stderr nobody takes would wait for ever."""
        self._stderr = (self._stderr + chunk)[-STDERR_KEPT_BYTES:]
        try:
            if self._on_stderr is not None:
                self._on_stderr(chunk)
        except Exception:  # whoever read it is gone, in whatever way; the command goes on
            self._on_stderr = None

    @abstractmethod
    def chunks(self) -> Iterator[bytes]:
        """Its stdout as it comes.  Ends early if the connection breaks: only `wait` tells that from its end."""

    @abstractmethod
    def wait(self) -> int:
        """The exit status, after stdout has ended.  Raises Unreachable where it can't be known."""

    def stderr(self) -> bytes:
        """The last 64 KiB of what it wrote to stderr so far."""
        return self._stderr

    @abstractmethod
    def close(self) -> None:
        """End it and free what it holds; harmless when it is over.

        Over SSH its input ends and its output is closed.  OpenSSH sends no signal: a command that neither reads nor
        writes runs on there.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


@contextmanager
def time_limit(process: Process, seconds: float, expired: threading.Event) -> Iterator[None]:
    """Close `process` if the block takes longer than `seconds`, and say so in `expired`."""

    def expire() -> None:
        expired.set()
        process.close()

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Host(ABC):
    """A machine that runs commands.  Unreachable is an exception, a failed command a value."""

    name: str
    is_local: bool = False
    logins: int = 0
    """How often it was connected to; after each time it may be another machine."""

    def connect(self) -> object:
        """Make the connection that commands run over, if it is not there.  Raises what the first command would."""
        return None

    @abstractmethod
    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> Process:
        """Start a command; `stdin` is fed by a thread of its own, an exception in it surfaces in `wait`.

        `on_stderr` gets what it writes to stderr as it comes, in a thread of its own.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the connection; the next command makes a new one."""

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 60,
        stdout_limit_bytes: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Completed:
        """Run a command to its end.  Raises Unreachable, TimedOut, or BadReply past the limit of its output."""
        with self.start(argv, stdin=[stdin] if stdin else (), env=env, cwd=cwd) as process:
            expired = threading.Event()
            try:
                with time_limit(process, timeout_s, expired):
                    stdout = self._all(process.chunks(), argv, stdout_limit_bytes)
                    status = process.wait()
            except Exception as error:  # closing it in mid-read can surface as anything; only the clock tells why
                if expired.is_set():
                    raise self._timed_out(argv, timeout_s) from error
                raise
            if expired.is_set():
                raise self._timed_out(argv, timeout_s)
            return Completed(tuple(argv), status, stdout, process.stderr())

    def _all(self, chunks: Iterable[bytes], argv: Sequence[str], limit_bytes: int | None) -> bytes:
        stdout = bytearray()
        for chunk in chunks:
            stdout += chunk
            if limit_bytes is not None and len(stdout) > limit_bytes:
                raise BadReply(f"{self.name}: {argv[0]} said more than {limit_bytes} bytes")
        return bytes(stdout)

    def _timed_out(self, argv: Sequence[str], timeout_s: float) -> TimedOut:
        return TimedOut(f"{self.name}: {argv[0]} did not end within {timeout_s:g} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
