"""How busy the GPUs are, as nvidia-smi tells it, asked by a thread of its own: it may take seconds, or hang."""

from __future__ import annotations

import shutil
import subprocess
import threading
from typing import Any, Callable, Dict, List

EVERY_S = 10.0
TIMEOUT_S = 10
FIELDS = (("index", "index"), ("use_percent", "utilization.gpu"), ("memory_used_mb", "memory.used"),
          ("memory_total_mb", "memory.total"), ("temperature_c", "temperature.gpu"))  # fmt: skip


def look(program: str) -> List[Dict[str, Any]]:
    """A dict for each GPU; what it does not tell is left out."""
    query = ",".join(name for _, name in FIELDS)
    try:
        done = subprocess.run([program, f"--query-gpu={query}", "--format=csv,noheader,nounits"],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=TIMEOUT_S, check=False)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = []
    for line in done.stdout.decode("ascii", "replace").splitlines():
        words = [word.strip() for word in line.split(",")]
        if len(words) == len(FIELDS) and words[0].isdigit():
            rows.append({FIELDS[at][0]: int(word) for at, word in enumerate(words) if word.isdigit()})
    return rows


def watch(tell: Callable[[List[Dict[str, Any]]], None], stopped: threading.Event) -> None:
    """Call `tell` with what each look shows until `stopped`; at once back where there is no GPU to look at."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return

    def go_on() -> None:
        while not stopped.is_set():
            if found := look(program):
                tell(found)
            stopped.wait(EVERY_S)

    threading.Thread(target=go_on, daemon=True).start()
