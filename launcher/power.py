"""Powers a host off, where its profile says that this ends the billing and keeps its disks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from launcher import preflight
from launcher.app import App
from launcher.errors import LaunchError
from launcher.untrusted import clean
from remote import runs
from remote.errors import TimedOut, Unreachable
from remote.profile import Profile

SHUTDOWN_TIMEOUT_S = 30


@dataclass(frozen=True)
class Plan:
    """What would be done, to which machine."""

    name: str
    hostname: str
    profile: Profile

    def question(self) -> str:
        """For a person who has to say yes."""
        return clean(f"Power off {self.name} ({self.hostname})? {self.profile.keeps}.")


@dataclass(frozen=True)
class PoweredOff:
    """A machine that was told to power off."""

    name: str
    hostname: str
    keeps: str
    billing: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """For a person."""
        told = clean(f"{self.name} ({self.hostname}) powers off; {self.keeps}")
        return f'{told}\nafter its next start: launch host rebind {self.name} "NEW LOGIN LINE"'


def plan(app: App, name: str, *, force: bool = False) -> Plan:
    """Check that the host may be powered off.  Raises LaunchError with the reason where it may not.

    `force` overrides what is going on there (runs, GPU processes, logins), never what the provider would do.
    """
    report = preflight.look(app, name)
    profile = report.profile
    if not profile.poweroff.command or not profile.poweroff.safe:
        raise LaunchError(
            f"{name} is {profile.title}: powering it off from inside may destroy it, or not end the billing",
            hint="stop it in the provider's console",
        )
    if not force and (busy := _busy(app, report)):
        raise LaunchError(f"{name} is in use: {'; '.join(busy)}", hint=f"launch host poweroff {name} --force")
    return Plan(name, report.facts.hostname, profile)


def off(app: App, plan: Plan) -> PoweredOff:
    """Do it.  A connection that ends meanwhile is the success, not a failure."""
    host = app.agent(plan.name).host  # it was looked at for the plan
    try:
        done = host.run(plan.profile.poweroff.command, timeout_s=SHUTDOWN_TIMEOUT_S)
        if done.exit_status not in (0, 255):
            done.check()
    except (Unreachable, TimedOut):
        pass
    return PoweredOff(plan.name, plan.hostname, plan.profile.keeps, plan.profile.billing)


def _busy(app: App, report: preflight.Report) -> list[str]:
    live = [state.run_id for state in runs.states(app.agent(report.host)) if not state.is_over]
    facts = report.facts
    busy = [f"run {run_id} goes on" for run_id in live]
    busy += [f"{one.name or 'a process'} holds a GPU" for one in facts.gpu_processes or ()]
    if facts.logins:
        busy.append(f"{facts.logins} people are logged in")
    return busy
