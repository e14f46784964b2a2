"""Removes runs from their hosts and from the ledger.  What is at home is never touched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.run_directory import RunDirectory
from launcher.app import App
from launcher.errors import LaunchError, exit_status
from launcher.kept_log import KeptLog
from launcher.ledger import Line
from launcher.untrusted import clean
from remote import runs
from remote.errors import RemoteError, TimedOut, Unreachable


@dataclass(frozen=True)
class Removed:
    """A run that is forgotten here.  `was_there` None: its host was not asked.  `home` is its folder here, if any."""

    run_id: str
    host: str
    was_there: bool | None
    home: str
    errors: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "run_id": self.run_id,
            "host": self.host,
            "was_there": self.was_there,
            "home": self.home,
            "errors": [clean(error) for error in self.errors],
        }

    def in_words(self) -> str:
        """For a person."""
        told = f"{self.run_id} removed from {self.host}" if self.was_there else f"{self.run_id} forgotten here"
        if self.was_there is None:
            told += f"; {self.host} was not asked"
        elif not self.was_there:
            told += f"; on {self.host} it was gone already"
        told += "".join(f"\n  left there: {clean(error)}" for error in self.errors)
        return told + (f"\nit stays at home: {self.home}" if self.home else "")


@dataclass(frozen=True)
class Several:
    """Runs that went, and those that did not, each with its error."""

    removed: tuple[Removed, ...]
    failed: dict[str, LaunchError | RemoteError]

    @property
    def exit_status(self) -> int:
        """That of the first failure, 0 without one."""
        return exit_status(next(iter(self.failed.values())).code) if self.failed else 0

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        failed = [
            {"run_id": run_id, "code": one.code, "message": clean(one.message), "hint": clean(one.hint)}
            for run_id, one in self.failed.items()
        ]
        return {"removed": [one.to_json() for one in self.removed], "failed": failed}

    def in_words(self) -> str:
        """For a person."""
        lines = [one.in_words() for one in self.removed]
        lines += [
            f"{run_id} stays: {clean(one.message)}" + (f"\nhint: {clean(one.hint)}" if one.hint else "")
            for run_id, one in self.failed.items()
        ]
        return "\n".join(lines)


def remove_several(app: App, lines: Sequence[Line], *, force: bool, only_here: bool) -> Several:
    """Remove each; one that can't go keeps no other from going."""
    removed: list[Removed] = []
    failed: dict[str, LaunchError | RemoteError] = {}
    for line in {line.run_id: line for line in lines}.values():
        try:
            removed.append(remove(app, line, force=force, only_here=only_here))
        except (LaunchError, RemoteError) as error:
            failed[line.run_id] = error
    return Several(tuple(removed), failed)


def remove(app: App, line: Line, *, force: bool, only_here: bool) -> Removed:
    """Remove a run from its host and forget it; with `only_here` the host, which may be gone for ever, is not asked.

    Raises RemoteError where it is not over, and where it succeeded and is not at home, unless `force`.
    """
    home = line.pulled_to if line.pulled_to and RunDirectory(Path(line.pulled_to)).result.is_file() else ""
    if only_here:
        if line.state == "succeeded" and not home and not force:
            raise LaunchError(
                f"{line.run_id} succeeded and was not pulled",
                hint=f"launch pull {line.run_id} (or add --force: nobody here knows of it then)",
                code="run_not_pulled",
            )
        _forget(app, line)
        return Removed(line.run_id, line.host, None, home)
    try:
        was_there, errors = runs.remove(app.agent(line.host), line.run_id, pulled=bool(home), force=force)
    except (Unreachable, TimedOut) as error:
        error.hint += f"; if that box is gone for ever: launch rm {line.run_id} --only-here"
        raise
    _forget(app, line)
    return Removed(line.run_id, line.host, was_there, home, tuple(errors))


def _forget(app: App, line: Line) -> None:
    app.ledger.forget(line.run_id)
    KeptLog(app.settings.kept_logs, line.run_id).forget()
    shutil.rmtree(app.settings.checkpoints / line.run_id, ignore_errors=True)
