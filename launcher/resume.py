"""A new attempt that goes on from the newest checkpoint of a run, on its own host or on another."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from jobs.run_directory import RunDirectory
from launcher import again, submit
from launcher.again import Attempt, Wheels
from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import Record
from launcher.overview import in_words
from launcher.progress import Note, Observer
from launcher.sync import Moved, going_on
from launcher.untrusted import clean
from remote import runs, store, sync
from remote.agent import Agent
from remote.errors import NotFound, RemoteError
from remote.runs import Checkpoint

FOLDER = "checkpoints"
"""In a run's folder."""
MOST_FILES = 16


class NoCheckpoint(LaunchError):
    """There is nothing to go on from."""

    code = "no_checkpoint"


def plan(
    app: App,
    old: Record,
    host: str,
    observer: Observer,
    *,
    force: bool = False,
    wheels: Wheels = (),
) -> Attempt:
    """The attempt that goes on from what `old` has reached, to be started on `host`.

    Raises LaunchError for a run that goes on, succeeded, was taken over, or whose host can't be asked (`force`: what
    came here earlier will do); NoCheckpoint; and Changed as `again.attempt` does.
    """
    again.require_newest(old, force=force, verb="resume")
    state = again.require_ended(app, old, force=force, verb="resume")
    if state.state == "succeeded":
        raise LaunchError(f"{old.run_id} succeeded: there is nothing left to do", hint=f"launch pull {old.run_id}")
    agent, cache = app.agent(host), app.settings.cache
    if host == old.host:
        root, found = _checkpoints(app.agent(old.host), old)
        _tell(old, found[0], f"{old.host}:{root}", observer)
        new = again.attempt(old, agent, host, cache, wheels=wheels)
        return _resuming(replace(new, from_run={"run_id": old.run_id, "paths": _paths(FOLDER)}), old)
    came = _brought(app, old, app.settings.checkpoints / old.run_id, observer, force=force)
    new = again.attempt(old, agent, host, cache, more=came, wheels=wheels)
    return _resuming(new, old)


def _resuming(new: Attempt, old: Record) -> Attempt:
    return replace(new, record=replace(new.record, resumed_from=old.run_id))


def _paths(checkpoint: str) -> list[str]:
    """What a training needs to go on, below a run's folder: what is only worked out at its start comes along."""
    layout = RunDirectory(Path())
    return [checkpoint, layout.baselines.as_posix(), layout.base.name]


def _checkpoints(agent: Agent, old: Record) -> tuple[str, list[Checkpoint]]:
    """Where the run lies there, and its checkpoints, newest first.

    Raises NoCheckpoint, and LaunchError where the run is not there: it was removed, or its start was cut off.
    """
    try:
        _, root, found = runs.checkpoints(agent, old.run_id)
    except NotFound as error:
        before = old.resumed_from
        raise LaunchError(
            f"{old.run_id} is not on {old.host}",
            hint=f"launch resume {before} --force" if before else f"launch retry {old.run_id} starts it from the start",
            code=NoCheckpoint.code,
        ) from error
    if not found:
        raise NoCheckpoint(
            f"{old.run_id} left no checkpoint on {old.host}", hint=f"launch retry {old.run_id} starts it from the start"
        )
    return root, found


def _tell(old: Record, one: Checkpoint, where: str, observer: Observer) -> None:
    age = f", {in_words(one.age_s)} old" if math.isfinite(one.age_s) and one.age_s >= 0 else ""
    size = f"{one.size_bytes / 1e6:.1f} MB"
    observer(Note(clean(f"{old.run_id} goes on from step {one.step}: {where}/{one.path}{age}, {size}")))


def _brought(
    app: App, old: Record, cache: Path, observer: Observer, *, force: bool
) -> list[tuple[str, store.LocalFile]]:
    """The newest whole checkpoint and what belongs to it, on this machine, by their places in a run's folder."""
    from jobs import checkpoint

    try:
        agent = app.agent(old.host)
        root, found = _checkpoints(agent, old)
    except (RemoteError, LaunchError) as error:
        if isinstance(error, NoCheckpoint) or not force:
            raise
        return _here(old, cache, observer, error)
    for one in found:
        _tell(old, one, f"{old.host}:{root}", observer)
        _pull(agent, f"{agent.workspace}/runs/{old.run_id}", cache, _paths(one.path), old, observer)
        if not (damage := checkpoint.damage(cache / one.path)):
            return _files(cache, one.path)
        observer(Note(clean(f"{one.path} is passed over: {damage}")))
    raise NoCheckpoint(
        f"every checkpoint of {old.run_id} on {old.host} is damaged",
        hint=f"launch retry {old.run_id} starts it from the start",
    )


def _pull(agent: Agent, root: str, cache: Path, names: list[str], old: Record, observer: Observer) -> None:
    moved = Moved(observer)
    cache.mkdir(parents=True, exist_ok=True)
    outcome = going_on(lambda: sync.pull(agent, root, cache, names=names, observer=moved), moved, observer)
    for path, why in outcome.failed.items():
        raise LaunchError(f"{old.run_id}: {path} did not come: {why}", hint="run the same command again")


def _here(
    old: Record, cache: Path, observer: Observer, error: RemoteError | LaunchError
) -> list[tuple[str, store.LocalFile]]:
    """A checkpoint that came here earlier.  Raises `error`, which is why it can't be fetched, where there is none."""
    from jobs import checkpoint

    for folder in sorted((cache / FOLDER).glob("step-*"), reverse=True):
        if not checkpoint.damage(folder):
            step = int(folder.name.rpartition("-")[2])
            observer(Note(f"{old.run_id} goes on from step {step}, which came here earlier: {folder}"))
            return _files(cache, f"{FOLDER}/{folder.name}")
    raise error


def _files(cache: Path, checkpoint: str) -> list[tuple[str, store.LocalFile]]:
    found = []
    for name in _paths(checkpoint):
        path = cache / name
        inside = sorted(path.iterdir())[:MOST_FILES] if path.is_dir() else [path] if path.is_file() else []
        found += [(one.relative_to(cache).as_posix(), submit.local_file(one)) for one in inside if one.is_file()]
    return found
