"""One phase's process: started in a group of its own, what it prints taken in, ended for good with all it started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from typing import Callable, Mapping, Optional, Sequence

from . import process
from .descendants import Descendants

POLL_S = 0.1
CHUNK_BYTES = 1024 * 1024
# What can't be found or killed may hold the pipe open for ever.
DRAIN_S = 3.0
F_SETPIPE_SZ = 1031


class Job:
    """A process that reads nothing, and whose output goes to `feed` as it comes, cut anywhere.

    `strays` are those that it may start in groups of their own, as torchrun does with its ranks.

    Raises OSError where it can't be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        folder: str,
        env: Mapping[str, str],
        feed: Callable[[bytes], None],
        strays: Descendants,
    ) -> None:
        self._feed, self._strays = feed, strays
        self._output, end = os.pipe()
        try:
            with contextlib.suppress(OSError):  # not Linux, or more than this user may have
                fcntl.fcntl(end, F_SETPIPE_SZ, CHUNK_BYTES)
            self._process = subprocess.Popen(
                argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=end, stderr=end, start_new_session=True
            )
        except BaseException:
            os.close(self._output)
            raise
        finally:
            os.close(end)
        os.set_blocking(self._output, False)
        self._is_open = True
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/oom_score_adj", "w") as file:
            # Where memory runs out the kernel is to take the job, not the one who can tell of it.
            file.write("500")

    @property
    def pid(self) -> int:
        """Also the number of its group."""
        return self._process.pid

    def wait(self, meanwhile: Callable[[], Optional[float]]) -> int:
        """Its exit status (128 + number after a signal), once all it started is gone and all that said is taken in.

        `meanwhile` is called some ten times a second; where it gives a number the job is asked to end, and has that
        many seconds for it.
        """
        try:
            while (status := self._process.poll()) is None:
                self._take(POLL_S)
                grace_s = meanwhile()
                if grace_s is not None:
                    status = self._end(grace_s, meanwhile)
                    break
        finally:
            # What the job left behind must not outlive it, nor the job us: it would hold the GPU for nothing.
            process.signal_group(self.pid, signal.SIGKILL)
            self._strays.sweep()
        deadline = time.monotonic() + DRAIN_S
        while self._is_open and time.monotonic() < deadline:
            self._take(POLL_S)
        if self._is_open:
            self._close()
        return status if status >= 0 else 128 - status

    def _end(self, grace_s: float, meanwhile: Callable[[], Optional[float]]) -> int:
        process.signal_group(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._process.poll() is None and time.monotonic() < deadline:
            self._take(POLL_S)
            meanwhile()
        process.signal_group(self.pid, signal.SIGKILL)
        while (status := self._process.poll()) is None:  # in the middle of a write to a dead disk
            self._take(POLL_S)
            meanwhile()
        return status

    def _take(self, wait_s: float) -> None:
        if not self._is_open:
            time.sleep(wait_s)
            return
        if not select.select([self._output], [], [], wait_s)[0]:
            return
        try:
            chunk = os.read(self._output, CHUNK_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._feed(chunk)
        else:
            self._close()

    def _close(self) -> None:
        self._is_open = False
        os.close(self._output)
