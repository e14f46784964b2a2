"""This very machine as a host: the same contract, without SSH."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from remote import command
from remote.host import Host, Process

CHUNK_BYTES = 256 * 1024
JOIN_S = 1.0


class LocalProcess(Process):
    def __init__(
        self, popen: subprocess.Popen[bytes], stdin: Iterable[bytes], on_stderr: Callable[[bytes], None] | None = None
    ) -> None:
        super().__init__(on_stderr)
        self._popen = popen
        self._feed_error: Exception | None = None
        self._feeder = threading.Thread(target=self._feed, args=(stdin,), daemon=True)
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._feeder.start()
        self._drainer.start()

    def _feed(self, stdin: Iterable[bytes]) -> None:
        assert self._popen.stdin is not None
        try:
            with self._popen.stdin as pipe:
                for chunk in stdin:
                    pipe.write(chunk)
                    pipe.flush()
        except BrokenPipeError:
            pass  # the command ended without reading everything: its status tells
        except Exception as error:  # whatever the caller's iterator raises is the caller's to see
            self._feed_error = error
            self._end()

    def _drain(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as pipe:
            while chunk := os.read(pipe.fileno(), CHUNK_BYTES):
                self._take_stderr(chunk)

    def chunks(self) -> Iterator[bytes]:
        assert self._popen.stdout is not None
        # Buffered on purpose: its lock keeps `close`, from another thread, from pulling the pipe away under a read.
        with self._popen.stdout as pipe:
            while chunk := self._read(pipe):
                yield chunk

    def _read(self, pipe: IO[bytes]) -> bytes:
        try:
            return pipe.read1(CHUNK_BYTES)  # type: ignore[attr-defined, no-any-return]
        except ValueError:  # closed meanwhile
            return b""

    def wait(self) -> int:
        status = self._popen.wait()
        # Not for ever: whoever feeds it may have nothing to say, and need not know yet that it is over.
        self._feeder.join(JOIN_S)
        self._drainer.join()
        if self._feed_error is not None:
            raise self._feed_error
        return status if status >= 0 else 128 - status

    def close(self) -> None:
        assert self._popen.stdout is not None
        self._end()
        self._popen.wait()
        # Not for ever: what left the group on purpose may hold stderr for as long as it likes.
        self._drainer.join(JOIN_S)
        self._popen.stdout.close()

    def _end(self) -> None:
        """Kill the command and what it started: its children would hold the pipes open."""
        if os.name == "nt":
            self._popen.kill()
        elif self._popen.poll() is None or self._drainer.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)


class _NeverStarted(Process):
    """A program that is not there, or may not be run: ended at once, with a shell's status and words for it."""

    def __init__(self, argv: Sequence[str], error: OSError) -> None:
        self._status = 127 if isinstance(error, (FileNotFoundError, NotADirectoryError)) else 126
        super().__init__()
        self._take_stderr(f"{error.filename or argv[0]}: {error.strerror}\n".encode("utf-8", "replace"))

    def chunks(self) -> Iterator[bytes]:
        return iter(())

    def wait(self) -> int:
        return self._status

    def close(self) -> None:
        """Nothing was started."""


class LocalHost(Host):
    """Runs commands as child processes.  `home` is where they start, and where relative paths lie."""

    name = "local"
    is_local = True

    def __init__(self, home: Path | None = None) -> None:
        self._home = home or Path.home()

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: Iterable[bytes] = (),
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> Process:
        command.check(argv, env=env, cwd=cwd)
        try:
            popen = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._home / (cwd or ""),
                env={**os.environ, **(env or {})},
                # A group of its own, so that `close` reaches what the command starts.
                start_new_session=True,
            )
        except OSError as error:
            return _NeverStarted(argv, error)
        return LocalProcess(popen, stdin, on_stderr)

    def close(self) -> None:
        """Nothing is held open between commands."""
