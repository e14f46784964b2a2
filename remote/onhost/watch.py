"""The guard of a run: tells when it is over, and powers the machine off then.

It outlives the supervisor, tmux and the login.  Where to tell it learns through its stdin and keeps in memory alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any, Dict, List, Optional

# All at once: our program's file may be gone by the time the run is over.
from . import company, fuse, notice, process
from .atomic import write_json
from .fuse import Fuse
from .guard import SIGN_IN
from .notice import Notices
from .refused import Refused
from .run import Run

POLL_S = 1.0
NOTICE_S = 300.0
"""The longest that a power-off waits for notices."""
LAST_NOTICE_S = 30.0
"""The same at the hard limit."""


class Watch:
    """Guards one run in this process; `handed` is what `guard.start` gave it."""

    def __init__(self, run: Run, handed: Dict[str, Any]) -> None:
        self._run, self._plan = run, run.plan()
        self._targets: List[Dict[str, Any]] = [one for one in handed.get("targets", ()) if isinstance(one, dict)]
        os.environ.update(handed.get("variables", {}))  # /proc does not show what comes so late
        self._fuse: Optional[Fuse] = None
        if isinstance(self._plan.get("poweroff"), dict):
            self._fuse = Fuse(run, lambda: company.look(run.workspace, run.run_id))
        self._poll_s = min(POLL_S, self._fuse.poll_s) if self._fuse else POLL_S

    def main(self) -> int:
        """Watch, tell, power off; ends when there is nothing left to do."""
        for number in (signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("-500")  # small as it is, it is the last that memory should be taken from
        if self._fuse and not self._fuse.arm():
            self._fuse = None
        with contextlib.suppress(OSError):
            write_json(self._run.path(SIGN_IN), process.identity(os.getpid()))
        try:
            row = self._watched()
            notices = Notices(self._targets, notice.about(self._run, row, self._seconds()), self._run)
            told_by = time.monotonic() + NOTICE_S
            if self._fuse and self._fuse.is_at_its_limit:
                notices.wait(LAST_NOTICE_S)
            if self._fuse:
                self._fuse.burn(row, lambda: notices.wait(0) or time.monotonic() > told_by)
            notices.wait(NOTICE_S)
        except (OSError, Refused):
            pass  # the run was taken away
        return 0

    def _watched(self) -> Dict[str, Any]:
        """How the run ended; ended by us where the hard limit comes first."""
        while True:
            try:
                if not self._run.is_live():
                    return self._run.state()
                if self._fuse and not self._fuse.is_out() and self._fuse.is_at_its_limit:
                    self._end()
            except (OSError, KeyError, TypeError, ValueError, Refused):
                # A disk so full that no result can be written, or a result that is none.  It is over all the same.
                if not self._run.is_there():
                    raise
                if not process.is_alive(self._run.supervisor() or {}):
                    name, submitted_at = self._plan["name"], self._plan["submitted_at"]
                    return {
                        "name": name,
                        "submitted_at": submitted_at,
                        "state": "failed",
                        "reason": "supervisor killed",
                    }
            time.sleep(self._poll_s)

    def _end(self) -> None:
        """End a run whose supervisor did not, when it was time."""
        with contextlib.suppress(OSError):  # no room for it
            self._run.finish("stopped", f"{fuse.TIME_LIMIT}; its supervisor had to be killed")
        process.signal_process(self._run.supervisor() or {}, signal.SIGKILL)
        self._run.end_orphans()

    def _seconds(self) -> float:
        """How long the run took from its submission on."""
        began = self._plan.get("submitted_clock")
        return process.clock() - float(began) if began is not None else time.time() - float(self._plan["submitted_at"])
