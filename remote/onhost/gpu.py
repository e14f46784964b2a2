"""How busy the GPUs are, as nvidia-smi tells it, asked by a thread of its own: it may take seconds, or hang."""

from __future__ import annotations

import threading
from typing import Any, Callable, Dict, List

from . import nvidia_smi

EVERY_S = 10.0
TIMEOUT_S = 10
FIELDS = (("index", "index"), ("use_percent", "utilization.gpu"), ("memory_used_mb", "memory.used"),
          ("memory_total_mb", "memory.total"), ("temperature_c", "temperature.gpu"))  # fmt: skip


def look() -> List[Dict[str, Any]]:
    """A dict for each GPU; what it does not tell is left out."""
    answer = nvidia_smi.query("gpu=" + ",".join(name for _, name in FIELDS), TIMEOUT_S)
    return [
        {FIELDS[at][0]: int(word) for at, word in enumerate(row) if word.isdecimal()}
        for row in (answer.rows if answer else ())
        if len(row) == len(FIELDS) and row[0].isdecimal()
    ]


def watch(tell: Callable[[List[Dict[str, Any]]], None], stopped: threading.Event) -> None:
    """Call `tell` with what each look shows until `stopped`; at once back where there is no GPU to look at."""
    if nvidia_smi.program() is None:
        return

    def go_on() -> None:
        while not stopped.is_set():
            if found := look():
                tell(found)
            stopped.wait(EVERY_S)

    threading.Thread(target=go_on, daemon=True).start()
