"""Why a thing in a workspace must stay.  Changes nothing but an environment's note of when it was used last."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, Dict, FrozenSet, Sequence, Set, Tuple

from .atomic import read_json
from .inventory import Entry, Standing, files

DAY_S = 24 * 3600
ENVIRONMENT_KEPT_S = 7 * DAY_S


def reasons(
    workspace: str,
    entries: Sequence[Entry],
    standings: Sequence[Standing],
    *,
    pulled: FrozenSet[str],
    young_s: float,
    program: str,
) -> Dict[str, str]:
    """Path of each entry that stays -> why.

    `pulled` are ids of runs that are at home; objects younger than `young_s` may belong to a push that is under way;
    `program` is the name of the file that runs this.
    """
    found: Dict[str, str] = {}

    def judge(kind: str, rule: Callable[[Entry], str]) -> None:
        judged = ((entry.path, rule(entry)) for entry in entries if entry.kind == kind)
        found.update((path, reason) for path, reason in judged if reason)

    def recent(entry: Entry) -> str:
        return "recent" if time.time() - _mtime(os.path.join(workspace, entry.path)) < DAY_S else ""

    live = [one.run_id for one in standings if one.is_live]
    by_path = {f"runs/{one.run_id}": one for one in standings}
    judge("run", lambda entry: _run(by_path[entry.path], pulled))
    judge("leftover", recent)
    # A supervisor may start its program once more, and which version that is only it knows.
    in_use = "used by a run" if live else ""
    judge("program", lambda entry: "running" if os.path.basename(entry.path) == program else in_use or recent(entry))
    named = {_environment_of(workspace, run_id) for run_id in live}
    used_at = _environments_used(workspace, list(by_path))
    judge("environment", lambda entry: _environment(workspace, entry, named, used_at))
    linked = _linked(workspace, [path for path in found if path.startswith("runs/")])
    judge("object", lambda entry: _object(workspace, entry, linked, young_s))
    judge("other", lambda entry: "other")
    return found


def pass_on(workspace: str, runs: Sequence[str]) -> None:
    """Note at each environment when it was used last, for these runs that say so are about to go."""
    for key, used_at in _environments_used(workspace, runs).items():
        marker = os.path.join(workspace, "envs", key, "ready.json")
        if 0 < _mtime(marker) < used_at:
            with contextlib.suppress(OSError):
                os.utime(marker, (used_at, used_at))


def _run(standing: Standing, pulled: FrozenSet[str]) -> str:
    if standing.is_live:
        return "live"
    if standing.state == "unknown":
        return "unreadable"
    return "" if standing.run_id in pulled else "not pulled"


def _object(workspace: str, entry: Entry, linked: Set[Tuple[int, int]], young_s: float) -> str:
    try:
        status = os.lstat(os.path.join(workspace, entry.path))
    except FileNotFoundError:
        return "recent"
    if (status.st_dev, status.st_ino) in linked:
        return "used by a run"
    # Not by mtime: anybody can set that one, and a copy brings its own.
    return "recent" if time.time() - status.st_ctime < young_s else ""


def _linked(workspace: str, runs: Sequence[str]) -> Set[Tuple[int, int]]:
    """Device and inode of every file that these runs were given.  A copy is a file of its own, and needs no object."""
    tops = [os.path.join(workspace, run, name) for run in runs for name in ("inputs", "code")]
    return {(status.st_dev, status.st_ino) for top in tops for status in files(top, _raise)}


def _environment(workspace: str, entry: Entry, named: Set[str], used_at: Dict[str, float]) -> str:
    """Which one a run asks for says its plan; when one was used last, the runs that are still there and its marker."""
    key = os.path.basename(entry.path)
    if key in named:
        return "used by a run"
    folder = os.path.join(workspace, entry.path)
    ready_at = _mtime(os.path.join(folder, "ready.json")) or _mtime(folder)  # without its marker a build was cut off
    return "recent" if time.time() - max(ready_at, used_at.get(key, 0.0)) < ENVIRONMENT_KEPT_S else ""


def _environment_of(workspace: str, run_id: str) -> str:
    """The key of the environment that a run asks for, empty where it asks for none."""
    plan = _json(workspace, "runs", run_id, "plan.json")
    environment = plan.get("environment") if isinstance(plan, dict) else None
    return str(environment.get("key")) if isinstance(environment, dict) else ""


def _environments_used(workspace: str, runs: Sequence[str]) -> Dict[str, float]:
    """Key of an environment -> when one of these runs (`runs/<id>`) was given it last."""
    found: Dict[str, float] = {}
    for run in runs:
        prepared = _json(workspace, run, "environment.json")
        python = prepared.get("python") if isinstance(prepared, dict) else None
        parts = python.split(os.sep)[-4:] if isinstance(python, str) else []
        if len(parts) == 4 and parts[0] == "envs":
            given_at = _mtime(os.path.join(workspace, run, "environment.json"))
            found[parts[1]] = max(found.get(parts[1], 0.0), given_at)
    return found


def _json(*path: str) -> Any:
    try:
        return read_json(os.path.join(*path))
    except (ValueError, OSError):
        return None


def _mtime(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _raise(error: OSError) -> None:
    raise error
