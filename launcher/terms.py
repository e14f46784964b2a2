"""What a run may take, and what its host does when it is over; not part of what is trained."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from launcher import after
from launcher.errors import LaunchError
from launcher.terminal import Terminal
from remote.agent import Agent
from remote.profile import Profile

HOUR_S = 3600.0
TARGETS = "LAUNCH_NOTIFY"
"""Secret under which the host's guard finds where to tell how the run ended."""


@dataclass(frozen=True)
class Terms:
    """As they were asked for on the command line.  Raises LaunchError where they contradict each other."""

    max_hours: float | None = None
    on_finish: str | None = None
    keep_on_failure: bool = False
    notify: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_hours is not None and not math.isfinite(self.max_hours):
            raise LaunchError("--max-hours is no number of hours", code="usage", hint="for example --max-hours 4")
        after.check(self.notify)
        if self.on_finish and self.max_hours is None:
            raise LaunchError("--on-finish poweroff needs a limit that holds whatever happens", code="usage",
                              hint="add --max-hours 4")  # fmt: skip
        if self.keep_on_failure and not self.on_finish:
            raise LaunchError("--keep-on-failure says when not to power off", code="usage",
                              hint="add --on-finish poweroff --max-hours 4")  # fmt: skip

    def for_host(self, profile: Profile, agent: Agent) -> dict[str, Any]:
        """The keys of the supervisor's plan."""
        terms: dict[str, Any] = {}
        if self.max_hours is not None:
            terms["limit_s"] = self.max_hours * HOUR_S
        if self.on_finish:
            name, workspace = agent.host.name, agent.workspace
            terms["poweroff"] = after.poweroff(name, profile, workspace, keep_on_failure=self.keep_on_failure)
        return terms

    def secrets(self, questions: Terminal) -> dict[str, str]:
        """Where to tell, which holds tokens."""
        return {TARGETS: json.dumps(after.targets(self.notify, questions.secret))} if self.notify else {}
