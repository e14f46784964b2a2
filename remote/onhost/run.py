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
from typing import Any, Dict, Iterator, List, Optional

from . import process
from .atomic import read_json, read_object, write_json
from .refused import Refused
from .states import FINAL

PROTOCOL = 2
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,47}-[a-z2-7]{8}\Z")
START_GRACE_S = 30
RUN_VARIABLE = "LAUNCH_RUN"
"""Variable that every process of a run has, with the run's id: by it they are found, wherever they went."""
# What every event has; a line without them is not one.
EVENT_FIELDS = (("seq", int), ("type", str), ("time", (int, float)))


class Run:
    """The run `run_id` of a workspace."""

    SOURCES = ".sources.json"

    def __init__(self, workspace: str, run_id: str) -> None:
        if not RUN_ID.match(run_id):
            raise Refused("run_id_invalid", f"not a run id: {run_id[:80]!r}")
        self.run_id = run_id
        self.root = os.path.join(workspace, "runs", run_id)

    def path(self, name: str) -> str:
        """Where a file of this run lies."""
        return os.path.join(self.root, name)

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

    def events(self) -> List[Dict[str, Any]]:
        """The well-formed events so far."""
        try:
            with open(self.path(self.plan()["files"]["events"]), "rb") as file:
                return list(_parsed(file.read()))
        except FileNotFoundError:
            return []

    def add_event(self, kind: str, **fields: Any) -> None:
        """Append an event.  Only the supervisor does, and only while no job runs: one writer at a time."""
        seq = max((event["seq"] for event in self.events()), default=0) + 1
        record = {"seq": seq, "time": round(time.time(), 3), "type": kind}
        record.update(fields)
        with open(self.path(self.plan()["files"]["events"]), "a+b") as file:
            # A job that was killed may have left half a line, which would swallow ours.
            file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
            separator = b"" if file.read(1) in (b"", b"\n") else b"\n"
            file.write(separator + json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")

    def finish(self, state: str, reason: str, **fields: Any) -> Dict[str, Any]:
        """Write the result unless there is one; whichever it is.  Safe against a second finder at the same moment."""
        with open(self.path(".result.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = self.result()
            if found is not None:
                return found
            result = {"protocol": PROTOCOL, "run_id": self.run_id, "state": state, "reason": reason}
            result.update(fields, finished_at=round(time.time(), 3))
            write_json(self.path(self.plan()["files"]["result"]), result)
            return result

    def state(self) -> Dict[str, Any]:
        """`state`, `reason`, `age_s` (seconds in that state) and what else a list of runs shows."""
        plan, result = self.plan(), self.result()
        row = {"run_id": self.run_id, "name": plan["name"], "submitted_at": plan["submitted_at"]}
        states = [event for event in self.events() if event["type"] == "state" and isinstance(event.get("state"), str)]
        since = states[-1]["time"] if states else plan["submitted_at"]
        if result is None:
            result = self._verdict_of_absence(plan, states)
        row["state"], row["reason"] = result["state"], result.get("reason", "")
        if row["state"] in FINAL:
            since = result.get("finished_at", since)
        # Ages are this machine's business: the laptop's clock may be hours off.
        row["age_s"], row["run_age_s"] = time.time() - since, time.time() - plan["submitted_at"]
        from . import fuse  # which knows runs, too

        row.update(fuse.standing(self, plan))
        return row

    def _verdict_of_absence(self, plan: Dict[str, Any], states: List[Dict[str, Any]]) -> Dict[str, Any]:
        """What the absence of a result means."""
        supervisor = self.supervisor()
        if plan["boot"] != process.boot_marker():
            return {"state": "lost", "reason": "the machine restarted; nothing of the run is left running"}
        if supervisor is None:
            if time.time() - plan["submitted_at"] < START_GRACE_S:
                return {"state": "queued"}
            return self.finish("failed", "the supervisor never started")
        if process.is_alive(supervisor):
            return {"state": states[-1]["state"] if states else "queued"}
        result = self.finish("failed", "supervisor killed")
        self.end_orphans()
        return result

    def end_orphans(self) -> None:
        """End what a dead supervisor left running: it would hold the GPU for nothing."""
        child = _read(self.path("child.json"))
        if isinstance(child, dict) and process.is_alive(child):
            process.end_group(child["pid"], grace_s=2)


def _read(path: str) -> Any:
    try:
        return read_json(path)
    except (ValueError, OSError):
        return None


def _parsed(content: bytes) -> Iterator[Dict[str, Any]]:
    for line in content.split(b"\n"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and all(isinstance(event.get(name), kind) for name, kind in EVENT_FIELDS):
            yield event
