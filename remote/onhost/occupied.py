"""Who else uses this machine: people that are logged in, and processes that hold a GPU."""

from __future__ import annotations

import glob
import os
import re
from typing import List, Optional

from . import nvidia_smi

TIMEOUT_S = 10
# What sshd calls itself for a login with a terminal; a command over SSH has none, and is not a person.
TERMINAL = re.compile(rb"sshd[a-z-]*: .*@pts/")


def logins() -> Optional[int]:
    """People with a terminal of their own, None where that can't be seen.

    A container mostly has no list of logins: sshd's processes tell.
    """
    if not os.path.exists("/proc/self/cmdline"):
        return None
    return sum(TERMINAL.match(_read(path)) is not None for path in glob.glob("/proc/[0-9]*/cmdline"))


def gpu_pids(timeout_s: float = TIMEOUT_S) -> Optional[List[int]]:
    """The processes that hold memory of a GPU, None where there is none.

    In a container the numbers may be those of the machine around it, and the list may be empty all the same.
    """
    answer = nvidia_smi.query("compute-apps=pid", timeout_s)
    if answer is None or answer.status != 0:
        return None
    return [int(row[0]) for row in answer.rows if len(row) == 1 and row[0].isdecimal()]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(4096)
    except OSError:
        return b""
