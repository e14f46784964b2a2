"""A program that is run while somebody watches: its lines are passed on as they come, and that it is still at it."""

from __future__ import annotations

import os
import queue
import re
import shutil
import subprocess
import threading
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

STILL_AT_IT_S = 15.0
# A name and a password in an address.
LOGIN = re.compile(r"//[^/\s'\"]*@")

Say = Callable[[str], None]


class Failed(Exception):
    """What could not be done, in a sentence."""


class Ended(NamedTuple):
    """The exit status, and all lines that were not empty, without passwords."""

    status: int
    lines: List[str]


def run(
    argv: Sequence[str],
    say: Say,
    *,
    env: Mapping[str, str],
    cwd: str,
    disk: str,
    keep: Sequence[int] = (),
    noise: Sequence[str] = (),
    limit_s: Optional[float] = None,
) -> Ended:
    """Run it to its end; lines that begin with some `noise` are not passed on, `keep` are descriptors it holds open.

    On `disk`, a folder, it writes.

    Raises Failed where it can't be started, or takes more than `limit_s`; then it is killed.
    """
    options: Dict[str, Any] = {} if os.name == "nt" else {"pass_fds": tuple(keep)}
    try:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(env),
            cwd=cwd, **options,
        )  # fmt: skip
    except OSError as error:
        raise Failed(f"{argv[0]}: {error.strerror}") from error
    deadline = None if limit_s is None else time.monotonic() + limit_s
    try:
        said = _told(process, say, tuple(noise), disk, deadline)
        return Ended(process.wait(_left(deadline)), said)
    except (queue.Empty, subprocess.TimeoutExpired) as late:
        raise Failed(f"it took more than {limit_s:.0f} s") from late
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _told(process: Any, say: Say, noise: Tuple[str, ...], disk: str, deadline: Optional[float]) -> List[str]:
    """Its lines.  Raises queue.Empty when the time is over."""
    lines: queue.Queue[Optional[str]] = queue.Queue()
    threading.Thread(target=_read, args=(process.stdout, lines), daemon=True).start()
    said: List[str] = []
    before = _used(disk)
    while True:
        left_s = _left(deadline)
        try:
            line = lines.get(timeout=STILL_AT_IT_S if left_s is None else min(STILL_AT_IT_S, left_s))
        except queue.Empty:
            if left_s is not None and left_s <= STILL_AT_IT_S:
                raise
            say(f"still at it, {max(0, _used(disk) - before) / 1e6:.0f} MB more on the disk")
            continue
        if line is None:
            return said
        said.append(line)
        if not line.lstrip().startswith(noise):
            say(line)


def _read(stream: Any, lines: queue.Queue[Optional[str]]) -> None:
    with stream:
        for line in stream:
            text = LOGIN.sub("//***@", line.decode("utf-8", "replace").rstrip())
            if text:
                lines.put(text)
    lines.put(None)


def _left(deadline: Optional[float]) -> Optional[float]:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _used(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).used
    except OSError:
        return 0
