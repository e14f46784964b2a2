"""One run's folder as the host sees it: its plan, who supervises it, and what state it is in.

The plan (`plan.json`) comes from the laptop and names every other file, so nothing about training is known here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from typing import IO, Any, Dict, Iterator, Optional

from . import process, secret_file
from .atomic import FULL, fill_json, read_json, read_object, write_json
from .descendants import Descendants
from .refused import Refused
from .states import FINAL

PROTOCOL = 2
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,47}-[a-z2-7]{8}\Z")
START_GRACE_S = 30
RESULT_LOCK = ".result.lock"
ROOM = ".room-"
"""With a file's name behind it: a file whose blocks are kept for that one, see `Reserve`."""
TAIL_BYTES = 64 * 1024
BLOCK_BYTES = 1024 * 1024
STATE_EVENT = b'"type": "state"'
# What every event has; a line without them is not one.
EVENT_FIELDS = (("seq", int), ("type", str), ("time", (int, float)))


class Run:
    """The run `run_id` of a workspace."""

    SOURCES = ".sources.json"

    def __init__(self, workspace: str, run_id: str) -> None:
        if not RUN_ID.match(run_id):
            raise Refused("run_id_invalid", f"not a run id: {run_id[:80]!r}")
        self.run_id, self.workspace = run_id, workspace
        self.root = os.path.join(workspace, "runs", run_id)

    def path(self, name: str) -> str:
        """Where a file of this run lies."""
        return os.path.join(self.root, name)

    def is_there(self) -> bool:
        """Whether nobody took it away; a disk that does not answer right now takes nothing away."""
        try:
            os.stat(self.path("plan.json"))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            pass
        return True

    def plan(self) -> Dict[str, Any]:
        """What was planned.  Raises Refused where there is no such run, or a newer launch made it."""
        plan = _read(self.path("plan.json"))
        if not isinstance(plan, dict):
            raise Refused("run_not_found", f"there is no run {self.run_id} in {self.root}", "launch ps")
        if plan["protocol"] > PROTOCOL:
            raise Refused(
                "protocol_newer", f"run {self.run_id} was made by a newer launch", "pip install --upgrade lora-launch"
            )
        return plan

    def result(self) -> Optional[Dict[str, Any]]:
        """The final word, None while there is none."""
        result = _read(self.path(self.plan()["files"]["result"]))
        return result if isinstance(result, dict) and isinstance(result.get("state"), str) else None

    def take(self, name: str) -> Dict[str, Any]:
        """What a small file of this run holds, which is gone then; nothing where it can't be read."""
        found = read_object(self.path(name))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))
        return found

    def supervisor(self) -> Optional[Dict[str, Any]]:
        """Identity of the supervising process, None before it started."""
        who = _read(self.path("supervisor.json"))
        return who if isinstance(who, dict) else None

    def last_state(self) -> Optional[Dict[str, Any]]:
        """The last well-formed event that says a state, None while there is none."""
        try:
            with open(self.path(self.plan()["files"]["events"]), "rb") as file:
                # Hours of steps follow the one that is looked for: only those lines are parsed that look like it.
                for block in _blocks_backwards(file):
                    at = len(block)
                    while (at := block.rfind(STATE_EVENT, 0, at)) >= 0:
                        begin, end = block.rfind(b"\n", 0, at) + 1, block.find(b"\n", at)
                        event = _event(block[begin : end if end >= 0 else len(block)])
                        if event is not None and event["type"] == "state" and isinstance(event.get("state"), str):
                            return event
        except FileNotFoundError:
            pass
        return None

    def add_event(self, kind: str, **fields: Any) -> None:
        """Append an event.  Job and supervisor do this at once, each under the file's lock."""
        with open(self.path(self.plan()["files"]["events"]), "a+b") as file:
            with contextlib.suppress(OSError):  # a disk without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = file.read()
            record: Dict[str, Any] = {"seq": _last_seq(tail) + 1, "time": round(time.time(), 3)}
            record.update(clock=round(process.clock(), 3), type=kind, **fields)
            # A job that was killed may have left half a line, which would swallow ours.
            separator = b"" if tail[-1:] in (b"", b"\n") else b"\n"
            file.write(separator + json.dumps(record, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def write_last(self, name: str, value: Any) -> None:
        """Write a file of the run's end; on a full disk into the room that was kept for it, if any was."""
        try:
            write_json(self.path(name), value)
        except OSError as error:
            if error.errno not in FULL or not os.path.exists(self.path(ROOM + name)):
                raise
            fill_json(self.path(ROOM + name), self.path(name), value)

    def finish(self, state: str, reason: str, **fields: Any) -> Dict[str, Any]:
        """Write the result unless there is one; whichever it is.  Safe against a second finder at the same moment."""
        with open(self.path(RESULT_LOCK), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.result()
            if found is not None:
                return found
            result = {"protocol": PROTOCOL, "run_id": self.run_id, "state": state, "reason": reason}
            result.update(fields, finished_at=round(time.time(), 3))
            self.write_last(self.plan()["files"]["result"], result)
        # A supervisor that never came did not take them.
        secret_file.discard(self.run_id, self.root)
        with contextlib.suppress(OSError):
            os.unlink(self.path(self.SOURCES))
        return result

    def is_live(self) -> bool:
        """Whether it is not over, by as little reading as that takes."""
        if self.result() is not None:
            return False
        supervisor = self.supervisor()
        if supervisor is not None and process.is_alive(supervisor):
            return True
        return self.state()["state"] not in (*FINAL, "lost")

    def state(self) -> Dict[str, Any]:
        """`state`, `reason`, `age_s` (seconds in that state) and what else a list of runs shows."""
        plan, result = self.plan(), self.result()
        row = {"run_id": self.run_id, "name": plan["name"], "submitted_at": plan["submitted_at"]}
        said = None
        if result is None:
            said = self.last_state()
            result = self._verdict_of_absence(plan, said)
        row["state"], row["reason"] = result["state"], result.get("reason", "")
        # Ages are this machine's business: the laptop's clock may be hours off, and this one's may be set meanwhile.
        row["run_age_s"] = run_age_s(plan)
        if row["state"] in FINAL:
            finished_at = result.get("finished_at")
            is_known = isinstance(finished_at, (int, float))
            row["age_s"] = max(0.0, time.time() - float(finished_at or 0)) if is_known else row["run_age_s"]
        elif said is not None:
            row["age_s"] = _age_s(plan, said["time"], said.get("clock"))
        else:
            row["age_s"] = row["run_age_s"]
        if row["state"] not in FINAL and row["state"] != "lost":
            row["beat_age_s"] = self._beat_age_s()
        from . import fuse  # which knows runs, too

        row.update(fuse.standing(self, plan))
        return row

    def _beat_age_s(self) -> Optional[float]:
        try:
            with open(self.path(self.plan()["files"]["heartbeat"]), encoding="ascii") as file:
                return max(0.0, process.clock() - float(file.read().split()[1]))
        except (OSError, ValueError, IndexError):
            return None

    def _verdict_of_absence(self, plan: Dict[str, Any], said: Optional[Dict[str, Any]]) -> Dict[str, Any]:
        """What the absence of a result means."""
        supervisor = self.supervisor()
        if plan["boot"] != process.boot_marker():
            return {"state": "lost", "reason": "the machine restarted; nothing of the run is left running"}
        if supervisor is None:
            if run_age_s(plan) < START_GRACE_S:
                return {"state": "queued"}
            return self._failed("the supervisor never started")
        if process.is_alive(supervisor):
            return {"state": said["state"] if said else "queued"}
        result = self._failed("supervisor killed")
        self.end_orphans()
        return result

    def _failed(self, reason: str) -> Dict[str, Any]:
        try:
            return self.finish("failed", reason)
        except OSError as error:  # who looks next finds the same
            return {"state": "failed", "reason": f"{reason}; no result can be written: {error.strerror}"}

    def end_orphans(self) -> None:
        """End what a dead supervisor left running: it would hold the GPU for nothing."""
        Descendants(self.run_id).end(grace_s=2)
        child = _read(self.path("child.json"))
        if isinstance(child, dict) and process.is_alive(child):
            process.end_group(child["pid"], grace_s=2)


def _read(path: str) -> Any:
    try:
        return read_json(path)
    except (ValueError, OSError, RecursionError):
        return None


def _blocks_backwards(file: IO[bytes]) -> Iterator[bytes]:
    """The content from its end on, in blocks of whole lines; of a line beyond all measure only pieces."""
    end, rest = file.seek(0, os.SEEK_END), b""
    while end > 0:
        start = max(0, end - BLOCK_BYTES)
        file.seek(start)
        block = file.read(end - start) + rest
        end = start
        # What the block begins with may go on in the one before it.
        cut = block.find(b"\n") + 1 if start else 0
        rest = block[:cut] if cut <= BLOCK_BYTES else b""
        yield block[cut:]


def run_age_s(plan: Dict[str, Any]) -> float:
    """Seconds since a run was submitted."""
    return _age_s(plan, float(plan["submitted_at"]), plan.get("submitted_clock"))


def _age_s(plan: Dict[str, Any], then: float, then_clock: Any) -> float:
    """Seconds since `then`; by the clock that nobody sets, for as long as the machine has not restarted."""
    if isinstance(then_clock, (int, float)) and plan["boot"] == process.boot_marker():
        return max(0.0, process.clock() - then_clock)
    return max(0.0, time.time() - then)


def _last_seq(tail: bytes) -> int:
    events = (_event(line) for line in tail.split(b"\n"))
    return max((event["seq"] for event in events if event is not None), default=0)


def _event(line: bytes) -> Optional[Dict[str, Any]]:
    """The event that a line is, None where it is none."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(event, dict) and all(isinstance(event.get(name), kind) for name, kind in EVENT_FIELDS):
        return event
    return None
