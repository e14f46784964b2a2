"""What tells, after a run ended badly, why: memory, disks and GPUs as measured, and the last lines it printed.

Looked at with every heartbeat, since a process that was killed takes its figures with it.  Written once, as
`crash.json`, small whatever happened.  Nothing is judged here.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import tempfile
import time
from typing import Any, Dict, List, Optional

from . import container_memory, nvidia_smi, process
from .atomic import read_object
from .container_memory import Memory
from .run import Run

PROTOCOL = 1
NAME = "crash.json"
LINES, LINE_CHARACTERS = 50, 400
EVENTS_BYTES = 64 * 1024
GPU_TIMEOUT_S = 5
MIB = 1024 * 1024


class Evidence:
    """Gathers it for one run, in its supervisor."""

    def __init__(self, run: Run) -> None:
        self._run, self._files = run, run.plan()["files"]
        self._first = self._last = container_memory.look()
        self._peak_bytes = self._last.used_bytes or 0
        self._disks: Dict[str, Dict[str, Any]] = {}
        self.sample()

    def sample(self) -> None:
        """Look once; takes a millisecond.  Never raises."""
        self._last = container_memory.look()
        self._peak_bytes = max(self._peak_bytes, self._last.used_bytes or 0)
        for name, folder in self._folders().items():
            self._look_at_disk(name, folder)

    def write(self, status: Optional[int], phase_state: str, tail: bytes) -> None:
        """Write down how a phase ended: its status as a shell gives it, and the end of its output.  Never raises."""
        result = read_object(self._run.path(self._files["result"]))
        if result.get("state") == "succeeded":
            return  # what a job says itself is the truth
        last = self._last  # before it was over
        self.sample()
        self._last = last
        document = {
            "protocol": PROTOCOL,
            "phase": phase_state,
            "exit_code": status,
            # The stable word that the job itself left for its failure, if it had one.
            "code": str(result.get("code") or "")[:100],
            "at": round(time.time(), 3),
            "boot": process.boot_marker(),
            **self._step(),
            "memory": self._memory(container_memory.look()),
            "disks": list(self._disks.values()),
            "gpus": _gpus() if b"cuda" in tail.lower() else [],
            "tail": _lines(tail),
        }
        with contextlib.suppress(OSError, ValueError):  # a disk without room for this is seen by its free bytes
            self._run.write_last(NAME, document)

    def _folders(self) -> Dict[str, str]:
        return {"run": self._run.root, "shared memory": "/dev/shm", "temporary": tempfile.gettempdir(), "home": "~"}

    def _look_at_disk(self, name: str, folder: str) -> None:
        path = os.path.expanduser(folder)
        try:
            device, found = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            return
        if found.f_flag & os.ST_RDONLY:  # an image, always as full as it was made
            return
        if any(one["device"] == device and one["name"] != name for one in self._disks.values()):
            return  # the same disk under another name
        free, inodes = found.f_bavail * found.f_frsize, found.f_favail
        known = self._disks.setdefault(name, {"name": name, "path": path, "device": device})
        known.update(total_bytes=found.f_blocks * found.f_frsize, free_bytes=free)
        known["least_free_bytes"] = min(free, known.get("least_free_bytes", free))
        if found.f_files:  # some filesystems have no number of them
            known.update(total_inodes=found.f_files, free_inodes=inodes)
            known.update(least_free_inodes=min(inodes, known.get("least_free_inodes", inodes)))

    def _memory(self, now: Memory) -> Dict[str, Optional[int]]:
        counted = now.oom_kills is not None and self._first.oom_kills is not None
        return {
            "limit_bytes": self._last.limit_bytes,
            "used_bytes": self._last.used_bytes,
            "peak_bytes": self._peak_bytes or None,
            # Of everything that this process has waited for; it is told by the kernel, so no moment is missed.
            "largest_process_bytes": 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,
            "oom_kills": (now.oom_kills or 0) - (self._first.oom_kills or 0) if counted else None,
        }

    def _step(self) -> Dict[str, int]:
        """The last training step that was told."""
        try:
            with open(self._run.path(self._files["events"]), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - EVENTS_BYTES))
                lines = file.read().splitlines()
        except OSError:
            return {}
        for line in reversed(lines):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                event = json.loads(line)
                if event["type"] == "step":
                    return {"step": int(event["step"]), "steps": int(event["steps"])}
        return {}


def _lines(tail: bytes) -> List[str]:
    text = tail.decode("utf-8", "replace")
    return [line[:LINE_CHARACTERS] for line in text.splitlines()[-LINES:]]


def _gpus() -> List[Dict[str, Any]]:
    """What is in use on each GPU now that the job is gone: that is what others hold."""
    answer = nvidia_smi.query("gpu=name,memory.used,memory.total", GPU_TIMEOUT_S)
    found = []
    for row in answer.rows[:16] if answer else ():
        name, used, total = [*row, "", ""][:3]
        if used.isdecimal() and total.isdecimal():
            found.append({"name": name[:80], "used_bytes": int(used) * MIB, "total_bytes": int(total) * MIB})
    return found
