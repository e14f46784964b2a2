"""A run once more: the same submission under a new id, made again from what this laptop remembers.

Its contents come from where they are: the host's store has them mostly; what it lacks is taken from this machine, where
it must be what it was to the byte.  The code is the one of this launch: what ran is told by the run itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jobs import manifest
from jobs.provenance import code_sha256
from jobs.run_directory import RunDirectory, new_run_id
from launcher import dataset, preflight, run_secrets, submit, wheelhouse
from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import Ledger, Record
from launcher.progress import Note, Observer
from launcher.room import needed
from launcher.terms import Terms
from launcher.untrusted import clean
from remote import runs, store
from remote.agent import Agent
from remote.errors import RemoteError

Wheels = Sequence[tuple[str, store.LocalFile]]
"""Packages for a host that reaches no index, by their places in a run's folder."""


class Changed(LaunchError):
    """What the run was made of is neither on the host nor, unchanged, on this machine."""

    code = "submission_changed"


@dataclass(frozen=True)
class Attempt:
    """What a new attempt is started with.

    `files` are all that lies in its folder, of which `lacking` have to be sent; `from_run` are files of the run before
    on the same host.  With `wheels` its environment is made of packages that are among the files.
    """

    record: Record
    files: tuple[tuple[str, store.LocalFile], ...]
    lacking: tuple[store.LocalFile, ...]
    from_run: dict[str, Any] | None = None
    wheels: bool = False


def require_newest(record: Record, *, force: bool, verb: str) -> None:
    """Raise LaunchError where another attempt took over already, unless `force`."""
    if record.superseded_by and not force:
        newer = record.superseded_by
        raise LaunchError(
            f"{record.run_id} was taken over by {newer}", hint=f"launch {verb} {newer}", code="run_superseded"
        )


def require_ended(app: App, record: Record, *, force: bool, verb: str) -> runs.State:
    """How the run stands, by its host: over, or with `force` unknown.

    Raises LaunchError for a run that goes on, and for one whose host can't be asked, unless `force`: two of them would
    do the same work, and the older one may be the better.
    """
    try:
        state = runs.state(app.agent(record.host), record.run_id)
    except (RemoteError, LaunchError) as error:  # also another machine at its address: its box may be on elsewhere
        state = runs.State(record.run_id, "unknown", error.message)
    if record.is_over and record.state != "gone" and state.state in ("unknown", "gone"):
        return runs.State(record.run_id, record.state, record.reason)
    if state.state == "unknown":
        if not force:
            raise LaunchError(
                f"{record.run_id} may still go on: {clean(state.reason)}",
                hint=f"launch {verb} {record.run_id} --force, if it can't",
                code="run_unknown",
            )
        return state
    app.ledger.note_state(record.run_id, state.state, state.reason)
    if not state.is_over:
        raise LaunchError(
            f"{record.run_id} is {state.state} on {record.host}", hint=f"launch stop {record.run_id}", code="run_live"
        )
    return state


def attempt(
    old: Record,
    agent: Agent,
    host: str,
    cache: Path,
    *,
    more: Sequence[tuple[str, store.LocalFile]] = (),
    wheels: Wheels = (),
) -> Attempt:
    """The next attempt of `old` on a host, with `more` files in its folder.

    Raises Changed, with everything that is missing.
    """
    code = [(path, submit.local_file(source)) for path, source in submit.code_files()]
    wanted = [(entry.path, entry) for entry in (*old.submission.inputs.values(), *old.submission.base_files)]
    entries = [store.LocalFile(Path(), entry.sha256, entry.size_bytes) for _, entry in wanted]
    missing = store.lacking(agent, entries)
    here, problems = {}, []
    for (_, entry), file in zip(wanted, entries, strict=True):
        if file.sha256 in missing:
            source = _source(old, entry, cache)
            if source is None:
                problems.append(_in_words(old, entry, host))
            else:
                here[file.sha256] = replace(file, source=source)
    if problems:
        raise Changed(
            f"{old.run_id} can't be made again on {host}:" + "".join(f"\n  - {one}" for one in problems),
            hint="launch train SPEC trains with what is here now",
        )
    files = [(path, here.get(entry.sha256, file)) for (path, entry), file in zip(wanted, entries, strict=True)]
    submission = replace(
        old.submission, run_id=new_run_id(old.name), code_sha256=code_sha256(file.sha256 for _, file in code)
    )
    record = Record(
        submission.run_id,
        old.name,
        host,
        time.time(),
        submission,
        old.sources,
        attempt=old.attempt + 1,
        adopted=old.adopted,
    )
    added = (*code, *more, *wheels)
    return Attempt(record, (*files, *added), (*here.values(), *(file for _, file in added)), wheels=bool(wheels))


def start(
    app: App, old: Record, new: Attempt, agent: Agent, observer: Observer, terms: Terms, *, force: bool
) -> runs.Started:
    """Look at the host, send what it lacks, start the attempt there, and remember that it takes over from `old`.

    Secrets are looked up anew, for nothing of them was kept.
    """
    record, ledger = new.record, app.ledger
    if record.submission.code_sha256 != old.submission.code_sha256:
        observer(Note(f"{record.run_id} runs the code of this launch, which is another one than that of {old.run_id}"))
    report = _look(app, new, agent, observer, force=force)
    secrets = _secrets(app, record) | terms.secrets(app.questions)
    if new.lacking:
        submit.push([("", file) for file in new.lacking], agent, record.host, observer)
    ledger.add(record)
    if ledger.find(old.run_id).state != "succeeded":  # of what succeeded nothing is taken over
        ledger.note_superseded(old.run_id, record.run_id)
    with submit.starting(record, partial(_forget, ledger, record, old)):
        started = runs.submit(
            agent,
            _supervision(new, agent) | terms.for_host(report.profile, agent),
            links=submit.links(new.files),
            documents={RunDirectory(Path()).spec.name: record.submission.to_json()},
            from_run=new.from_run,
            secrets=secrets,
        )
    where = submit.where(started)
    observer(Note(f"run {record.run_id}, attempt {record.attempt}, started on {record.host} in {where}"))
    return started


def wheels(app: App, old: Record, host: str, observer: Observer) -> Wheels:
    """Packages for a host that reaches no index."""
    agent = app.agent(host)
    recipe = submit.recipe_for(agent, old.submission.spec.report_to)
    return wheelhouse.collect(agent, recipe, app.settings.cache, observer)


def to_json(record: Record, old: Record, started: runs.Started) -> dict[str, Any]:
    """A new attempt for `--json`."""
    new = {"attempt": record.attempt, "supersedes": old.run_id, "resumed_from": record.resumed_from}
    return submit.told(record, started) | new


def _forget(ledger: Ledger, record: Record, old: Record) -> None:
    ledger.forget(record.run_id)
    ledger.note_superseded(old.run_id, old.superseded_by)


def _secrets(app: App, record: Record) -> dict[str, str]:
    """What the spec names.  Raises LaunchError for an adopted run's: its host could ask for anything."""
    names = record.submission.spec.secrets
    if names and record.adopted:
        raise LaunchError(
            f"its spec asks for {', '.join(names)}, and is known from its host alone: no secret is sent for that",
            hint="launch train SPEC, with a spec of your own",
        )
    return run_secrets.collect(names, app.questions)


def _look(app: App, new: Attempt, agent: Agent, observer: Observer, *, force: bool) -> preflight.Report:
    record = new.record
    size_bytes = sum(file.size_bytes for file in new.lacking)
    recipe = submit.recipe_for(agent, record.submission.spec.report_to)
    plan = submit.Plan(record.submission, new.files, record.sources, {})
    room = partial(needed, agent, recipe, plan)
    report = preflight.look(app, record.host, send_bytes=size_bytes, send_files=len(new.lacking), room=room)
    preflight.check(report, observer, force=force)
    return report


def _supervision(new: Attempt, agent: Agent) -> dict[str, Any]:
    record = new.record
    plan = submit.of_submission(record.submission, agent, submit.TRAINING, wheels=new.wheels)
    plan |= {"attempt": record.attempt}
    return plan | ({"resumes": record.resumed_from} if record.resumed_from else {})


def _source(old: Record, entry: manifest.Entry, cache: Path) -> Path | None:
    """The file on this machine with that very content, None where there is none."""
    if entry in old.submission.base_files:
        folder = old.sources.get("base")
        return dataset.unchanged(str(Path(folder) / Path(entry.path).name), entry) if folder else None
    return dataset.sent_file(old.submission, _name(old, entry), old.sources, cache)


def _in_words(old: Record, entry: manifest.Entry, host: str) -> str:
    is_base = entry in old.submission.base_files
    name = Path(entry.path).name if is_base else _name(old, entry)
    source = old.sources.get("base" if is_base else name) or old.sources.get("" if is_base else "file")
    what = f"base model, {name}" if is_base else f"data, {name}"
    return f"{what}: neither on {host} nor here" + (f"; {source} is gone, or not what it was" if source else "")


def _name(old: Record, entry: manifest.Entry) -> str:
    return next(name for name, one in old.submission.inputs.items() if one == entry)
