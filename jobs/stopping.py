"""Being asked to stop: SIGTERM raises a flag, and the work ends where it can be taken up again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from jobs.errors import JobError

EXIT_STATUS = 128 + signal.SIGTERM


class Stopped(JobError):
    """The work was asked to stop, and did."""

    code = "stopped"


class Stop:
    """Whether somebody asked this process to end.  Inside of the block SIGTERM only says so, and calls `also`."""

    def __init__(self, also: Callable[[], None] = lambda: None) -> None:
        self.asked = False
        self._also = also

    def __enter__(self) -> Stop:
        self._before: Any = None
        if threading.current_thread() is threading.main_thread():  # no other may do this
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, _number: int, _frame: Any) -> None:
        self.asked = True
        self._also()
