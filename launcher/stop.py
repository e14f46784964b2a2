"""Stops a run and says what is left of it: nothing, if all is well, and a checkpoint to go on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import Line
from launcher.untrusted import clean
from remote import runs


class NotGone(LaunchError):
    """Processes of the run, or its memory on a GPU, could not be ended."""

    code = "processes_left"


@dataclass(frozen=True)
class Ended:
    """A run that was stopped on `host`, without a trace but its checkpoint."""

    host: str
    run: runs.Stopped

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        newest = self.run.checkpoint
        return {
            "run_id": self.run.run_id,
            "state": self.run.state,
            "reason": clean(self.run.reason),
            "left": None if self.run.left is None else list(self.run.left),
            "gpu_left": list(self.run.gpu_left),
            "checkpoint": None if newest is None else {"step": newest.step, "path": newest.path},
        }

    def in_words(self) -> str:
        """For a person."""
        told = f"{self.run.run_id} {self.run.state}"
        if self.run.state != "stopped" and self.run.reason:
            told += f": {clean(self.run.reason)}"
        if self.run.left is not None:
            told += f"; no process of it is left on {self.host}"
        if self.run.fuse_left_s is not None:
            told += f"\n{self.host} powers itself off in some ten minutes of quiet: launch fuse off {self.run.run_id}"
        if self.run.state == "succeeded":
            return f"{told}\nlaunch pull {self.run.run_id}"
        if self.run.checkpoint is not None:
            told += f"\na checkpoint of step {self.run.checkpoint.step} is there: launch resume {self.run.run_id}"
        return told


def stop(app: App, line: Line) -> Ended:
    """End the run on its host.  Raises NotGone, with the pids, where something is left of it."""
    stopped = runs.stop(app.agent(line.host), line.run_id)
    app.ledger.note_state(line.run_id, stopped.state, stopped.reason)
    ended = Ended(line.host, stopped)
    pids = sorted({*(stopped.left or ()), *stopped.gpu_left})
    if pids:
        named = ", ".join(map(str, pids[:20]))
        what = "processes of it are left" if stopped.left else "GPU memory is still held by what were its processes"
        raise NotGone(
            f"{line.run_id} {stopped.state} on {line.host}, but {what}: {named}",
            hint=f"launch exec {line.host} -- ps -o pid,stat,args -p {','.join(map(str, pids[:20]))}",
            data=ended.to_json(),
        )
    return ended
