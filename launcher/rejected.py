"""An adapter that is not to be used, noticed by its host or when it came: the reasons in words, and where it may lie.

Nothing that a run's host says is believed here; how files come and get their names is not its business.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs import manifest
from jobs.checks import FAILED_VERIFICATION
from jobs.run_directory import RunDirectory
from launcher import verdict
from launcher.errors import VerificationFailed
from launcher.ledger import Record
from remote.runs import State

MOST_BYTES = 1 << 20
"""Of a host's findings; a verification writes ten thousand."""


@dataclass(frozen=True)
class Rejection:
    """Why the adapter of a run does not come home as a success; `by_host` where the run itself ended so."""

    run_id: str
    host: str
    by_host: bool
    reasons: tuple[str, ...]

    def place(self, home: RunDirectory, *, forced: bool) -> RunDirectory:
        """Where what came belongs.  Under the run's own name only what says of itself that the run failed."""
        return home if self.by_host and not forced else home.rejected

    def error(self, folder: Path, *, forced: bool) -> VerificationFailed:
        """What a person is told once everything that came lies in `folder`."""
        found = f"its adapter failed verification on {self.host}"
        if not self.by_host:
            found = f"{self.host} says that it succeeded, but the adapter that came is not to be used"
        where = "all of it is in" if forced else "log, events and result are in"
        return VerificationFailed(
            "\n".join([f"{self.run_id}: {found}", *self.reasons, f"{where} {folder}"]),
            hint=f"launch verify {folder}" if forced else f"to look at the adapter: launch pull {self.run_id} --force",
        )


def by_host(state: State) -> bool:
    """Whether the run ended with an adapter that failed there."""
    return state.state == "failed" and state.reason.startswith(FAILED_VERIFICATION)


def looked_at(entries: Sequence[manifest.Entry], wanted: Sequence[manifest.Entry]) -> list[manifest.Entry]:
    """What `look` reads of a run's artifacts: nothing, unless the adapter or a part of it is wanted."""
    run = RunDirectory(Path())
    adapter, *others = (
        path.relative_to(run.artifacts).as_posix() for path in (run.adapter, run.training, run.probe_texts)
    )
    if not any(entry.path.startswith(f"{adapter}/") for entry in wanted):
        return []
    return [entry for entry in entries if entry.path.startswith(f"{adapter}/") or entry.path in others]


def look(record: Record, came: RunDirectory, state: State, *, partial: bool) -> Rejection | None:
    """The rejection of what came, None where there is nothing against it; `partial` where no adapter has to be there.

    Of a success the adapter is looked at here, within a second, whatever its host found.
    """
    if by_host(state):
        return Rejection(record.run_id, record.host, True, _told(came, state.reason))
    if state.state != "succeeded" or (partial and not came.adapter.exists()):
        return None
    from jobs import verification  # brings numpy along, which runs that failed do not need

    found = verification.on_arrival(came, record.submission)
    if found.ok:
        return None
    return Rejection(record.run_id, record.host, False, tuple(verdict.reasons(found.to_json()["checks"])))


def _told(came: RunDirectory, reason: str) -> tuple[str, ...]:
    """The host's own findings; where they can't be read, the names of the checks that failed."""
    try:
        with came.host_verification.open("rb") as file:
            lines = verdict.reasons(json.loads(file.read(MOST_BYTES))["checks"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        lines = []
    return tuple(lines) or (f"  - {reason.removeprefix(FAILED_VERIFICATION)}",)
