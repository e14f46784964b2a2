"""Asks nvidia-smi, which may be missing, fail, or hang, and tells rows of words."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import List, NamedTuple, Optional

USUAL = "/usr/bin/nvidia-smi"
"""Where a container has it; a shell that is no login shell may not look there."""


class Answer(NamedTuple):
    """Its exit status, which proves nothing, and a row of words for each line."""

    status: int
    rows: List[List[str]]


def program() -> Optional[str]:
    """Where it is, None where there is none."""
    return shutil.which("nvidia-smi") or (USUAL if os.access(USUAL, os.X_OK) else None)


def query(what: str, timeout_s: float) -> Optional[Answer]:
    """What it answers to `--query-WHAT`, None where there is no answer within `timeout_s` seconds."""
    found = program()
    if found is None:
        return None
    try:
        done = subprocess.run([found, f"--query-{what}", "--format=csv,noheader,nounits"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=timeout_s, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return Answer(done.returncode, [[word.strip() for word in line.split(",")] for line in lines])
