"""Takes a run over that another laptop started; what its host says of it is remembered as the host's word."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import submission as submissions
from jobs.errors import BrokenRun
from jobs.run_directory import RUN_ID, RunDirectory
from jobs.submission import Submission
from launcher import dataset
from launcher.app import App
from launcher.asking import ask
from launcher.errors import LaunchError, NoSuchRun
from launcher.ledger import Line, Record, chosen
from launcher.progress import Note, Observer
from launcher.untrusted import clean
from remote import runs


@dataclass(frozen=True)
class Adopted:
    """A run that this laptop knows now, or knew already."""

    record: Record
    already: bool

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        one = self.record
        return {
            "run_id": one.run_id,
            "host": one.host,
            "name": clean(one.name),
            "state": one.state,
            "attempt": one.attempt,
            "base": one.sources.get("base", ""),
            "already_known": self.already,
        }

    def in_words(self) -> str:
        """For a person."""
        one = self.record
        if self.already:
            return f"{one.run_id} is known here already, on {one.host}\nlaunch logs {one.run_id}"
        told = f"{one.run_id} on {one.host} ({one.state}) is this laptop's now; what was asked for is its host's word"
        next_step = f"launch pull {one.run_id}" if one.is_over else f"launch logs {one.run_id} -f"
        return f"{told}\n{next_step}"


def adopt(app: App, name: str, host: str | None, observer: Observer, *, base: Path | None = None) -> Adopted:
    """Add the run of that id, prefix or name to the ledger; without `host` all saved hosts are searched.

    `base` is the folder of its base model here, where it was sent from a folder.  Raises NoSuchRun, BrokenRun for a
    description that can't be understood, and LaunchError for a base that is another.
    """
    found = [line for line in app.ledger.lines() if line.run_id == name]
    if not found:
        host, run_id = _found(app, name, host, observer)
        found = [line for line in app.ledger.lines() if line.run_id == run_id]
    known = app.ledger.get(found[0].run_id) if found else None
    if known is not None:
        return Adopted(known, already=True)
    agent = app.agent(str(host))
    asked = runs.asked(agent, run_id, RunDirectory(Path()).spec.name)
    if asked.only_prepares:
        raise LaunchError(f"{run_id} only prepares {host}: there is nothing to bring home", hint="launch ps")
    submission = _parsed(asked.document, run_id, str(host))
    age_s = asked.state.run_age_s if math.isfinite(asked.state.run_age_s) else 0.0
    record = Record(
        run_id,
        submission.spec.name,
        str(host),
        time.time() - max(0.0, age_s),
        submission,
        _sources(submission, base),
        state=asked.state.state,
        reason=asked.state.reason,
        since=max(0.0, time.time() - asked.state.age_s) if math.isfinite(asked.state.age_s) else 0.0,
        attempt=asked.attempt,
        resumed_from=asked.resumes if RUN_ID.match(asked.resumes) else "",
        adopted=True,
    )
    app.ledger.add(record)
    return Adopted(record, already=False)


def _found(app: App, name: str, host: str | None, observer: Observer) -> tuple[str, str]:
    """The host and the id of the one run that is called so."""
    there: list[Line] = []
    if host is not None:
        searched, missed, there = [host], list[str](), _lines(runs.states(app.agent(host)), host)
    else:
        searched, missed = [one.name for one in app.hosts.all()], list[str]()
        for answer in ask(app, searched, lambda _, agent: runs.states(agent)):
            if answer.error is not None:
                missed.append(answer.host)
                observer(Note(clean(f"{answer.host} was not searched: {answer.error.message}")))
            there += _lines(answer.value or [], answer.host)
    if not any(name in (line.run_id, line.name) or (name and line.run_id.startswith(name)) for line in there):
        where = ", ".join(one for one in searched if one not in missed) or "any host that was searched"
        raise NoSuchRun(f"no run {name!r} on {where}", hint="launch ps --host NAME lists what is there")
    line = chosen(sorted(there, key=lambda line: -line.submitted_at), name)
    twins = sorted(other.host for other in there if other.run_id == line.run_id)
    if len(twins) > 1:  # two names of one machine, or one that pretends
        raise LaunchError(f"{line.run_id} lies on {', '.join(twins)}", hint=f"launch adopt {name} --host {twins[0]}")
    return line.host, line.run_id


def _lines(states: Sequence[runs.State], host: str) -> list[Line]:
    """As the ledger has them, newest first."""
    now = time.time()
    lines = [
        Line(state.run_id, state.name, host, now - state.run_age_s if math.isfinite(state.run_age_s) else 0.0)
        for state in states
        if RUN_ID.match(state.run_id)
    ]
    return sorted(lines, key=lambda line: -line.submitted_at)


def _parsed(document: str, run_id: str, host: str) -> Submission:
    origin = f"{host}: spec.json of {run_id}"
    try:
        submission = submissions.parse(json.loads(document), origin=origin)
        json.dumps(submission.to_json(), ensure_ascii=False).encode("utf-8")  # halves of characters are none
    except (ValueError, RecursionError) as error:
        raise BrokenRun(f"{origin}: can't be read ({type(error).__name__})") from error
    if submission.run_id != run_id:
        raise BrokenRun(f"{origin}: it is that of another run")
    return submission


def _sources(submission: Submission, base: Path | None) -> dict[str, str]:
    if base is None:
        return {}
    if not submission.base_files:
        raise LaunchError(
            f"{submission.run_id}: its base comes from the Hub, not from a folder",
            hint="leave --base out",
            code="usage",
        )
    for entry in submission.base_files:
        if dataset.unchanged(str(base / Path(entry.path).name), entry) is None:
            raise LaunchError(f"{base / Path(entry.path).name} is missing, or another one than the run's", code="usage")
    return {"base": str(base.resolve())}
