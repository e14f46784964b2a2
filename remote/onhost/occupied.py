"""Who else uses this machine: people that are logged in, and processes that hold a GPU."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from typing import List, NamedTuple, Optional

TIMEOUT_S = 10
# What sshd calls itself for a login with a terminal; a command over SSH has none, and is not a person.
TERMINAL = re.compile(rb"sshd[a-z-]*: .*@pts/")
QUERY = ["--query-compute-apps=pid", "--format=csv,noheader,nounits"]


class Occupied(NamedTuple):
    """`logins` with a terminal, and the pids on GPUs; None where that can't be seen here."""

    logins: Optional[int]
    gpu_pids: Optional[List[int]]


def look() -> Occupied:
    """How it is now; takes as long as nvidia-smi, at most some seconds."""
    return Occupied(logins(), gpu_pids())


def logins() -> Optional[int]:
    """People with a terminal of their own.  A container mostly has no list of logins: sshd's processes tell."""
    if not os.path.exists("/proc/self/cmdline"):
        return None
    return sum(TERMINAL.match(_read(path)) is not None for path in glob.glob("/proc/[0-9]*/cmdline"))


def gpu_pids(timeout_s: float = TIMEOUT_S) -> Optional[List[int]]:
    """The processes that hold memory of a GPU, None where there is none.

    In a container the numbers may be those of the machine around it, and the list may be empty all the same.
    """
    program = shutil.which("nvidia-smi") or "/usr/bin/nvidia-smi"
    try:
        done = subprocess.run([program, *QUERY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, timeout=timeout_s, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0:
        return None
    return [int(line) for line in done.stdout.decode("ascii", "replace").split("\n") if line.strip().isdigit()]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""
