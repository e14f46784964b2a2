"""Which process is which: pids are recycled, boots come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import Any, Dict, Optional


def clock() -> float:
    """Seconds since this machine booted, suspended or not: the same for all its processes, whoever sets its time."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def boot_marker() -> str:
    """Changes whenever this machine or container starts anew: boot id and start time of pid 1."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()}-{started(1)}"
    except OSError:
        return started_by_ps(1) or ""


def started(pid: int) -> Optional[str]:
    """When process `pid` started, as an opaque text; None when there is no such process, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name in parentheses may hold anything, blanks and parentheses included.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None if os.path.exists("/proc/self/stat") else started_by_ps(pid)
    return None if fields[0] in (b"Z", b"X") else fields[19].decode("ascii")


def started_by_ps(pid: int) -> Optional[str]:
    """The same where there is no /proc (macOS), to the second."""
    argv = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    said = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.decode().split()
    return " ".join(said[1:]) if said and said[0][0] not in "ZX" else None


def identity(pid: int) -> Dict[str, Any]:
    """What tells this process from any later one with the same pid."""
    return {"pid": pid, "started": started(pid), "boot": boot_marker()}


def is_alive(who: Dict[str, Any]) -> bool:
    """Whether the very process that `identity` described still runs."""
    pid, then = who.get("pid"), who.get("started")
    if who.get("boot") != boot_marker():  # after a restart even pid and start can be the same again
        return False
    return isinstance(pid, int) and then is not None and started(pid) == then


def end_group(pgid: int, grace_s: float) -> None:
    """TERM to a process group, KILL after `grace_s` seconds to what is left of it."""
    deadline = time.monotonic() + grace_s
    signal_group(pgid, signal.SIGTERM)
    while group_exists(pgid) and time.monotonic() < deadline:
        time.sleep(0.05)
    signal_group(pgid, signal.SIGKILL)


def signal_process(who: Dict[str, Any], number: int) -> None:
    """Send a signal to the very process that `identity` described, if it still runs."""
    if is_alive(who):
        try:
            os.kill(who["pid"], number)
        except ProcessLookupError:
            pass


def signal_group(pgid: int, number: int) -> None:
    """Send a signal to a group that may be gone already."""
    try:
        os.killpg(pgid, number)
    except (ProcessLookupError, PermissionError):
        pass


def group_exists(pgid: int) -> bool:
    """Whether any process (also a zombie) of the group is left."""
    try:
        os.killpg(pgid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
