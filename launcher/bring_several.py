"""Pulls several runs, each as if it were alone: one that can't come keeps nobody from coming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.errors import JobError
from launcher.bring_home import Pulled, bring_home
from launcher.errors import LaunchError, NotFinished, exit_status
from launcher.ledger import Ledger, Record
from launcher.progress import Note, Observer
from launcher.untrusted import clean
from remote.errors import RemoteError

if TYPE_CHECKING:
    from launcher.app import App


@dataclass(frozen=True)
class Several:
    """Runs that came home, and those that did not, each with its error."""

    pulled: tuple[Pulled, ...]
    failed: dict[str, LaunchError | JobError | RemoteError]

    @property
    def exit_status(self) -> int:
        """That of the first failure."""
        return exit_status(next(iter(self.failed.values())).code)

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": [one.to_json() for one in self.pulled],
            "failed": [
                {"run_id": run_id, "code": one.code, "message": clean(one.message), "hint": clean(one.hint)}
                for run_id, one in self.failed.items()
            ],
        }

    def in_words(self) -> str:
        lines = [one.in_words() for one in self.pulled]
        lines += [
            f"{run_id}: {clean(one.message)}" + (f"\nhint: {clean(one.hint)}" if one.hint else "")
            for run_id, one in self.failed.items()
        ]
        return "\n".join(lines) or "every finished run is home already"


def chosen(ledger: Ledger, names: Sequence[str], *, every: bool) -> list[Record]:
    """The runs of these names, each once; with `every` also all that may be finished and are not home.

    Raises NoSuchRun.
    """
    records = {record.run_id: record for record in map(ledger.find, names)}
    if every:
        for line in reversed(ledger.lines()):
            if not line.pulled_to and line.state not in ("gone", "lost") and line.run_id not in records:
                records[line.run_id] = ledger.find(line.run_id)
    return list(records.values())


def bring_several(
    records: Sequence[Record],
    app: App,
    target: Path,
    observer: Observer,
    *,
    include: Sequence[str] = (),
    force: bool = False,
) -> Several:
    """Bring each home; one that can't come keeps nobody from coming.  Runs that go on are left alone."""
    pulled: list[Pulled] = []
    failed: dict[str, LaunchError | JobError | RemoteError] = {}
    for record in records:
        if record.superseded_by and not force:
            observer(Note(f"{record.run_id} stays where it is: {record.superseded_by} took over"))
            continue
        try:
            agent = app.agent(record.host)
            pulled.append(bring_home(record, agent, app.ledger, target, observer, include=include, force=force))
        except NotFinished as error:
            observer(Note(error.message))
        except (LaunchError, JobError, RemoteError) as error:
            failed[record.run_id] = error
    return Several(tuple(pulled), failed)
