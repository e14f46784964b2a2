"""The process that carries a run from its first phase to its result, needing nobody.

A phase is an argv and the state it is shown as.  Each runs in a process group of its own, with its output appended
to the log, so that neither the death of the laptop, nor of tmux, nor of the terminal reaches it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional

from . import process
from .atomic import read_json, write_json
from .run import Run

HEARTBEAT_S = 5.0
POLL_S = 0.1
STOP_GRACE_S = 10.0


class Supervisor:
    """Supervises one run in this process."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._plan = run.plan()
        self._stop_reason = ""
        self._sources: Dict[str, str] = {}
        self._last_beat = 0.0
        self._echo_offset = 0
        self._echo = sys.stdout.isatty()

    def main(self) -> int:
        """Run every phase; 0 when the run succeeded.  Always leaves a result."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # tmux may be killed; the run goes on
        self._sources = self._run.take(self._run.SOURCES)
        write_json(self._run.path("supervisor.json"), process.identity(os.getpid()))
        state = ""
        for phase in self._plan["phases"]:
            if phase["state"] != state:
                state = phase["state"]
                self._run.add_event("state", state=state)
            status = self._carry_out(phase)
            if self._stop_reason:
                return self._end("stopped", self._stop_reason, phase)
            if status != 0:
                return self._end("failed", _in_words(phase["state"], status), phase, exit_code=status)
        if self._plan.get("only_prepares") is True:  # then that is all there is to say
            return self._end("succeeded", "", None)
        return self._end("failed", "every phase ended well, but none wrote a result", None)

    def _on_stop(self, number: int, frame: Any) -> None:
        self._stop_reason = "asked to" if number == signal.SIGTERM else "interrupted on the host"

    def _carry_out(self, phase: Dict[str, Any]) -> int:
        """The exit status of the phase's process, 127 when it could not be started."""
        with open(self._run.path(self._plan["files"]["log"]), "ab") as log:
            try:
                child = subprocess.Popen(
                    self._argv(phase),
                    cwd=self._run.root,
                    env=self._environment(phase["state"] == "preparing"),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"launch: {phase['argv'][0]}: {error.strerror}\n".encode("utf-8", "replace"))
                return 127
        write_json(self._run.path("child.json"), process.identity(child.pid))
        while True:
            try:
                status: Optional[int] = child.wait(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                status = None
            self._beat()
            if status is not None:
                # What the job left behind in its group must not outlive it.
                process.signal_group(child.pid, signal.SIGKILL)
                return status if status >= 0 else 128 - status
            if self._stop_reason:
                process.signal_group(child.pid, signal.SIGTERM)
                try:
                    child.wait(timeout=stop_grace_s(self._plan))
                except subprocess.TimeoutExpired:
                    process.signal_group(child.pid, signal.SIGKILL)
                    child.wait()

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
        env["LAUNCH_RUN"] = self._run.run_id  # by this every descendant is found, whatever group it is in
        return env

    def _beat(self) -> None:
        if time.monotonic() - self._last_beat >= HEARTBEAT_S:
            self._last_beat = time.monotonic()
            self._touch_heartbeat()
        if self._echo:
            self._show_log()

    def _touch_heartbeat(self) -> None:
        try:
            with open(self._run.path(self._plan["files"]["heartbeat"]), "w") as file:
                file.write(self._plan["boot"] + "\n")
        except OSError:
            pass  # a full disk is the job's to fail on, not ours

    def _show_log(self) -> None:
        """Let somebody who attaches to the tmux session see the log grow."""
        try:
            with open(self._run.path(self._plan["files"]["log"]), "rb") as log:
                log.seek(self._echo_offset)
                new = log.read(64 * 1024)
            self._echo_offset += len(new)
            sys.stdout.buffer.write(new)
            sys.stdout.buffer.flush()
        except OSError:
            self._echo = False  # the terminal is gone

    def _end(self, state: str, reason: str, phase: Optional[Dict[str, Any]], **fields: Any) -> int:
        result = self._run.finish(state, reason, phase=phase["state"] if phase else "", **fields)
        self._run.add_event("state", state=result["state"], reason=result.get("reason", ""))
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
