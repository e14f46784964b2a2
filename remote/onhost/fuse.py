"""Powers the machine off when a run is over: when, when not, and what is told of it.

It fires once the run has a result and the machine was quiet for a while; never while anybody else needs it, but at the
hard limit, which is where the person's money ends: then it fires whoever is there.  It never fires where the run's
folder lies on a disk that would not survive that, not even then: what was computed can't be bought back.
After a failure that is to be looked at (`keep_on_failure`) it waits for the hard limit.  After a stop by hand it waits
longer than usual: whoever stopped the run is probably about to start the next one.

Files: `fuse.json` says how it stands, `fuse.off` disarms it, whoever makes that file.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from . import lock, process
from .atomic import read_object, write_json
from .guard import SIGN_IN
from .refused import Refused
from .run import Run

STATE, OFF = "fuse.json", "fuse.off"
POLL_S = 5.0
GRACE_S = 30.0
"""After the end of the run: for followers, and for notices on their way."""
QUIET_S = 120.0
"""After somebody was there: who logs out may be back in a moment, to fetch something."""
STOPPED_S = 600.0
MARGIN_S = 60.0
"""What the supervisor gets at its own limit to end the job."""
RETRY_S = (10.0, 30.0, 60.0, 120.0, 300.0)
COMMAND_S = 60.0
SYNC_S = 60.0
SIGN_IN_S = 60.0
TIME_LIMIT = "time limit"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# States from which it may still fire.
BURNING = ("armed", "waiting", "kept")


class Fuse:
    """The fuse of one run, in its guard's process."""

    def __init__(self, run: Run, company: Callable[[], str]) -> None:
        """`company` tells who else needs the machine; empty where nobody does."""
        plan = run.plan()
        asked = plan["poweroff"]
        self._run, self._company = run, company
        self._command = [str(word) for word in asked["command"]]
        self._keeps = asked.get("keep_on_failure") is True
        self._durable = [str(path) for path in asked.get("durable") or ()]
        # For tests, which can't wait for minutes.
        self.poll_s = float(asked.get("poll_s", POLL_S))
        self._grace_s, self._quiet_s, self._stopped_s = (
            float(asked.get(name, usual))
            for name, usual in (("grace_s", GRACE_S), ("quiet_s", QUIET_S), ("stopped_s", STOPPED_S))
        )
        self._retry_s = [float(wait) for wait in asked.get("retry_s", RETRY_S)]
        self.limit_clock = limit_clock(plan)
        self._said: Dict[str, Any] = {}
        self._tries = 0

    @property
    def is_off(self) -> bool:
        """Whether somebody disarmed it, or took the run away."""
        return os.path.exists(self._run.path(OFF)) or not self._run.is_there()

    @property
    def is_at_its_limit(self) -> bool:
        return self.limit_clock is not None and process.clock() >= self.limit_clock

    def arm(self) -> bool:
        """Say that it is armed; whether it is: not where the run would not survive it."""
        doubt = undurable(self._run.root, self._durable)
        self._say("void", doubt) if doubt else self._say("armed")
        return not doubt

    def burn(self, row: Dict[str, Any], is_told: Callable[[], bool]) -> None:
        """From the end of the run, which `row` tells, until it fired or was disarmed.

        `is_told` says whether whoever asked for a notice had it.
        """
        stopped = row["state"] == "stopped" and not str(row.get("reason")).startswith(TIME_LIMIT)
        kept = self._keeps and row["state"] != "succeeded"
        quiet_from, wanted_s = process.clock(), self._stopped_s if stopped else self._grace_s
        while not self.is_out():
            if self.is_at_its_limit:
                self._fire("its hard limit is reached", alone=False)
            elif kept:
                self._say("kept", f"the run {row['state']}, and is to be looked at")
            else:
                company = self._asked()
                if company:
                    quiet_from, wanted_s = process.clock(), max(wanted_s, self._quiet_s)
                    self._say("waiting", company)
                elif process.clock() - quiet_from >= wanted_s and is_told():
                    self._fire("the run is over", alone=True)
                else:
                    self._say("armed", "the run is over")
            time.sleep(self.poll_s)

    def is_out(self) -> bool:
        """Whether it can't fire any more, which it says."""
        if self._tries > len(self._retry_s):
            return True
        if self.is_off:
            self._say("off")
            return True
        doubt = undurable(self._run.root, self._durable)
        if doubt:
            self._say("void", doubt)
        return bool(doubt)

    def _asked(self) -> str:
        """Who else needs the machine; empty where nobody does."""
        try:
            return self._company()
        except OSError as error:
            return f"who else is there can't be seen: {error.strerror}"

    def _fire(self, why: str, *, alone: bool) -> None:
        """Power the machine off; with `alone` not if somebody is just coming: a new run is there before, or refused."""
        with contextlib.ExitStack() as stack:
            try:
                words = f"the machine powers itself off after run {self._run.run_id}"
                stack.enter_context(lock.exclusive(self._run.workspace, 0.0, words))
            except Refused:
                if alone:
                    self._say("waiting", "launch is at work there")
                    return
            except OSError:
                pass  # such a disk must not keep the machine on
            if not (alone and self._asked()):  # else we are asked again in a moment
                self._try(why, stack.close)

    def _try(self, why: str, on_failure: Callable[[], None]) -> None:
        """Power the machine off, and wait for that or, after `on_failure`, until it is time for the next try."""
        self._tries += 1
        self._say("fired", why, tries=self._tries, at=round(time.time(), 3))
        _sync()
        failed = self._command_failed()
        if failed:
            self._say("failed", failed, tries=self._tries)
            on_failure()
        wait_s = (*self._retry_s, 0.0)[self._tries - 1]
        deadline = time.monotonic() + wait_s
        while time.monotonic() < deadline:
            if self.is_off:
                return
            time.sleep(min(self.poll_s, wait_s))
        if not failed and self._tries > len(self._retry_s):
            went = "the power-off command went well, and the machine is still on"
            self._say("failed", went, tries=self._tries)

    def _command_failed(self) -> str:
        try:
            done = subprocess.run(
                self._command, cwd="/", env={"PATH": PATH, "HOME": "/root"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=COMMAND_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the power-off command failed: {error}"[:200]
        return f"the power-off command ended with status {done.returncode}" if done.returncode else ""

    def _say(self, state: str, why: str = "", **fields: Any) -> None:
        said = {"state": state, "why": why, **fields}
        if said == self._said:
            return
        self._said = said
        with contextlib.suppress(OSError):  # a full disk must not keep the machine on
            write_json(self._run.path(STATE), said)


def limit_clock(plan: Dict[str, Any]) -> Optional[float]:
    """When the hard limit is, by process.clock(); None without one."""
    if plan.get("limit_s") is None:
        return None
    began = plan.get("submitted_clock")
    if began is None:  # by the wall clock then, as it is now
        began = process.clock() - (time.time() - plan["submitted_at"])
    return float(began) + float(plan["limit_s"]) + float(plan["poweroff"].get("margin_s", MARGIN_S))


def undurable(folder: str, durable: List[str]) -> str:
    """Why a folder would not survive a power-off; empty where it would.

    What lies below a durable path on another disk (/dev/shm below /) is not what was declared.
    """
    real = os.path.realpath(folder)
    around = [path for path in map(os.path.realpath, durable) if f"{real}/".startswith(path.rstrip("/") + "/")]
    if not around:
        return f"{folder} may not survive a power-off"
    nearest = max(around, key=len)
    try:
        same = os.stat(real).st_dev == os.stat(nearest).st_dev
    except OSError:
        return f"{folder} can't be looked at"
    return "" if same else f"{folder} lies on another disk than {nearest}, which survives a power-off"


def is_keeping(run: Run) -> bool:
    """Whether the fuse of a run that failed keeps the machine on, for somebody to look at it."""
    return bool(
        read_object(run.path(STATE)).get("state") == "kept"
        and not os.path.exists(run.path(OFF))
        and process.is_alive(read_object(run.path(SIGN_IN)))
    )


def standing(run: Run, plan: Dict[str, Any]) -> Dict[str, Any]:
    """What a list of runs shows: `fuse` in words, and `fuse_left_s` up to the hard limit while it may fire.

    Nothing for a run without a fuse, or of another boot.  `dead: …` where nobody is left who would power off.
    """
    if not isinstance(plan.get("poweroff"), dict) or plan["boot"] != process.boot_marker():
        return {}
    said, guard = read_object(run.path(STATE)), read_object(run.path(SIGN_IN))
    state, why = str(said.get("state") or "armed"), str(said.get("why") or "")
    if os.path.exists(run.path(OFF)) and state != "fired":
        return {"fuse": "off"}
    if state in BURNING and not process.is_alive(guard) and (guard or time.time() - plan["submitted_at"] > SIGN_IN_S):
        return {"fuse": "dead: its guard is gone, and the machine will not power itself off"}
    row: Dict[str, Any] = {"fuse": f"{state}: {why}" if why else state}
    limit = limit_clock(plan)
    if state in BURNING and limit is not None:
        row["fuse_left_s"] = max(0.0, limit - process.clock())
    return row


def turn_off(run: Run, wait_s: float) -> Dict[str, Any]:
    """Disarm a run's fuse; how it stands, once its guard knows or after `wait_s` seconds."""
    with open(run.path(OFF), "w"):
        pass
    deadline = time.monotonic() + wait_s
    guard = read_object(run.path(SIGN_IN))
    while process.is_alive(guard) and read_object(run.path(STATE)).get("state") in BURNING:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return standing(run, run.plan())


def _sync() -> None:
    """Have everything on the disks; a file server that is gone must not keep the machine on."""
    thread = threading.Thread(target=os.sync, daemon=True)
    thread.start()
    thread.join(SYNC_S)
