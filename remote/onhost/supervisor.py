"""The process that carries a run from its place in the queue to its result, needing nobody.

A phase is an argv and the state it is shown as.  Neither the death of the laptop, nor of tmux, nor of the terminal
reaches it, and whatever becomes of the disk, the clock or the run's folder, what it started ends with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from typing import Any, Dict, List, Optional

from . import accelerator, gpu, guard, process, secret_file
from .atomic import read_json, write_json
from .descendants import RUN_VARIABLE, Descendants
from .evidence import Evidence
from .job import Job
from .log_file import LogWriter
from .queue import Queue
from .refused import Refused
from .reserve import Reserve
from .run import Run

HEARTBEAT_S = 5.0
TURN_S = 1.0
STOP_GRACE_S = 10.0
LIMIT = "time limit"
GONE = "its folder was removed"
# Which of the secrets are masked: a shorter one would make a mess of the log and protects nothing.
SHORTEST_SECRET = 4
HOW_TO_LEAVE = "\nThis only shows the run.  Ctrl-B d leaves it alone; launch stop {} ends it.\n"
SECRET_NAMES = "LAUNCH_SECRETS"
"""Variable by which a job knows which of its variables are secret."""
TARGETS = "LAUNCH_NOTIFY"
"""Secret that is for the guard, not for the job: where to tell how the run ended, as JSON."""


class Supervisor:
    """Supervises one run in this process."""

    def __init__(self, workspace: str, run: Run) -> None:
        self._run, self._plan = run, run.plan()
        self._queue = Queue(workspace)
        self._descendants = Descendants(run.run_id)
        self._stop_reason = ""
        self._sources: Dict[str, str] = {}
        self._secrets: Dict[str, str] = {}
        self._gpus: List[str] = []
        self._last_beat = float("-inf")
        self._ended = threading.Event()
        self._is_watched = sys.stdout.isatty()
        if self._is_watched:
            os.set_blocking(sys.stdout.fileno(), False)  # a tmux that hangs must not hold up the job

    def main(self) -> int:
        """Run every phase; 0 when the run succeeded.  Leaves a result, unless its folder is gone."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_interrupt)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # tmux may be killed; the run goes on
        self._sources = self._run.take(self._run.SOURCES)
        self._secrets = secret_file.take(self._run.run_id, self._run.root)
        targets = self._secrets.pop(TARGETS, "")
        # Before we sign in: whoever looks finds one.
        self._log = LogWriter(
            self._run.path(self._plan["files"]["log"]),
            secrets=[os.fsencode(value) for value in self._secrets.values() if len(value.strip()) >= SHORTEST_SECRET],
            on_full=lambda: self._reserve.give_back(),
            echo=self._show,
            **(self._plan.get("log") or {}),
        )
        write_json(self._run.path("supervisor.json"), process.identity(os.getpid()))
        if self._run.result() is not None:  # stopped before we came
            self._queue.leave(self._run.run_id)
            return 1
        self._reserve = Reserve(self._run)
        self._evidence = Evidence(self._run)
        if self._plan.get("poweroff") or targets:
            guard.start(self._run, json.loads(targets or "[]"), self._sources)
        try:
            return self._all()
        except (OSError, Refused) as error:
            return self._end("failed", f"the supervisor can't go on: {error}", None)
        finally:
            self._ended.set()
            self._queue.leave(self._run.run_id)
            self._reserve.close()

    def _all(self) -> int:
        if self._plan.get("gpus") is not None and not self._wait_for_turn():
            return self._end("stopped", self._stop_reason, None)
        gpu.watch(self._tell_gpus, self._ended)
        state = ""
        for phase in self._plan["phases"]:
            if phase["state"] != state:
                state = phase["state"]
                self._add_event("state", state=state)
            status = self._carry_out(phase)
            if self._stop_reason:
                return self._end("stopped", self._stop_reason, phase, exit_code=status)
            if status != 0:
                return self._end("failed", _in_words(phase["state"], status), phase, exit_code=status)
        if self._plan.get("only_prepares") is True:  # then that is all there is to say
            return self._end("succeeded", "", None)
        return self._end("failed", "every phase ended well, but none wrote a result", None)

    def _on_stop(self, number: int, frame: Any) -> None:
        self._stop_reason = self._stop_reason or "asked to"

    def _on_interrupt(self, number: int, frame: Any) -> None:
        """Somebody who looks at the session wants to leave it: hours of training must not end with that key."""
        self._show(HOW_TO_LEAVE.format(self._run.run_id).encode())

    def _show(self, written: bytes) -> None:
        """Let somebody who attaches to the tmux session see the log grow."""
        if self._is_watched:
            try:
                os.write(sys.stdout.fileno(), written)
            except BlockingIOError:
                pass
            except OSError:
                self._is_watched = False  # the terminal is gone

    def _wait_for_turn(self) -> bool:
        """Whether the run's turn came, before it was stopped."""
        visible = self._plan["login_env"].get("CUDA_VISIBLE_DEVICES")
        there = accelerator.find().gpus
        # An empty list, too, is what the login says: it hides them all.
        shown = visible.split(",") if visible is not None else map(str, range(there))
        names = [name for name in shown if name.strip()] if there else []
        told = False
        while not self._stop_reason:
            self._meanwhile()
            given = self._queue.turn(self._run.run_id, range(len(names)))
            if given is not None:
                # Of one GPU there is nothing to choose.
                self._gpus = [names[index] for index in given] if len(names) > 1 else []
                return True
            if not told:
                told = True
                self._add_event("state", state="queued")
                self._log.line("launch: waits for its turn")
            time.sleep(TURN_S)
        return False

    def _carry_out(self, phase: Dict[str, Any]) -> int:
        """The exit status of the phase's process, 127 when it could not be started."""
        try:
            job = Job(self._argv(phase), folder=self._run.root, feed=self._log.feed,
                      strays=self._descendants, env=self._environment(phase["state"] == "preparing"))  # fmt: skip
        except OSError as error:
            self._log.line(f"launch: {phase['argv'][0]}: {error.strerror}")
            return 127
        with contextlib.suppress(OSError):  # who looks for what we left behind has its environment to go by as well
            self._reserve.spend(lambda: write_json(self._run.path("child.json"), process.identity(job.pid)))
        return job.wait(self._meanwhile)

    def _meanwhile(self) -> Optional[float]:
        """Show that we live, and look whether the run is to end: in how many seconds, None where it is not."""
        self._log.tick()
        if time.monotonic() - self._last_beat >= HEARTBEAT_S:
            self._last_beat = time.monotonic()
            self._beat()
        limit_s = self._plan.get("limit_s")
        if limit_s and process.clock() - self._plan["submitted_clock"] >= limit_s:
            self._stop_reason = self._stop_reason or LIMIT
        return stop_grace_s(self._plan) if self._stop_reason else None

    def _beat(self) -> None:
        if not self._run.is_there():
            self._stop_reason = GONE
            return
        with contextlib.suppress(OSError), open(self._run.path(self._plan["files"]["heartbeat"]), "w") as file:
            # A full disk is the job's to fail on, not ours.
            file.write(f"{self._plan['boot']}\n{process.clock():.3f}\n")
        self._evidence.sample()

    def _argv(self, phase: Dict[str, Any]) -> List[str]:
        prepared = read_json(self._run.path("environment.json")) or {}
        known = {"{python}": prepared.get("python", ""), "{onhost_python}": sys.executable, "{onhost}": sys.argv[0]}
        return [known.get(word, word) for word in phase["argv"]]

    def _environment(self, prepares: bool) -> Dict[str, str]:
        # tmux gives us the environment its server was started with, maybe months ago: what the login had comes first.
        env = dict(os.environ)
        env.update(self._plan["login_env"])
        env.update(self._sources if prepares else {})
        env.update(self._plan["env"])
        env.update(self._secrets)
        env[RUN_VARIABLE] = self._run.run_id
        env[SECRET_NAMES] = ",".join(self._secrets)
        if self._gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus)
        return env

    def _tell_gpus(self, gpus: List[Dict[str, Any]]) -> None:
        with contextlib.suppress(OSError):
            self._run.add_event("gpu", gpus=gpus)

    def _add_event(self, kind: str, **fields: Any) -> None:
        with contextlib.suppress(OSError):  # the result tells what counts
            self._reserve.spend(lambda: self._run.add_event(kind, **fields))

    def _end(self, state: str, reason: str, phase: Optional[Dict[str, Any]], **fields: Any) -> int:
        self._ended.set()
        if self._stop_reason == GONE:
            return 1
        self._log.close()
        name = phase["state"] if phase else ""
        if state != "succeeded":
            self._evidence.write(fields.get("exit_code"), name, self._log.tail())
        try:
            result = self._reserve.spend(lambda: self._run.finish(state, reason, phase=name, **fields))
        except (OSError, Refused):  # the folder is gone, or the disk full beyond help: whoever asks finds us dead
            return 1
        self._add_event("state", state=result["state"], reason=result.get("reason", ""))
        self._beat()
        return 0 if result["state"] == "succeeded" else 1


def stop_grace_s(plan: Dict[str, Any]) -> float:
    """How long a job may take to end by itself once it is asked to, in seconds."""
    return float(plan.get("stop_grace_s", STOP_GRACE_S))


def _in_words(phase: str, status: int) -> str:
    if status == 137:
        return f"{phase}: killed (signal 9; out of memory, or by hand)"
    if status > 128:
        return f"{phase}: ended by signal {status - 128}"
    return f"{phase}: ended with status {status}"
