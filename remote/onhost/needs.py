"""Why a thing in a workspace must stay.  Changes nothing but an environment's note of when it was used last."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Callable, Dict, FrozenSet, Optional, Sequence, Set, Tuple

from . import build_lock, process
from .atomic import read_object
from .environment import MARKER, USED
from .guard import SIGN_IN
from .inventory import Entry, Standing, files, names

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
    judge("run", lambda entry: _run(workspace, by_path[entry.path], pulled))
    judge("leftover", recent)
    # A supervisor may start its program once more, and which version that is only it knows.
    in_use = "used by a run" if live else ""
    judge("program", lambda entry: "running" if os.path.basename(entry.path) == program else in_use or recent(entry))
    named = {environment_of(workspace, f"runs/{run_id}") for run_id in live}
    used_at = environments_used(workspace, list(by_path))
    judge("environment", lambda entry: _environment(workspace, entry, named, used_at))
    environments = [entry.path for entry in entries if entry.kind == "environment" and entry.path in found]
    # Which Python it will be only a finished one says.
    is_building = "being built" in [found[path] for path in environments]
    bases = {_base(workspace, path) for path in environments}
    judge("python", lambda entry: "being built" if is_building else _python(workspace, entry, bases))
    built_at = [_mtime(os.path.join(workspace, one.path, MARKER)) for one in entries if one.kind == "environment"]
    downloads_idle_s = time.time() - max(built_at, default=0.0)
    is_wanted = is_building or downloads_idle_s < ENVIRONMENT_KEPT_S
    judge("downloads", lambda entry: "recent" if is_wanted else recent(entry))
    linked = _linked(workspace, [path for path in found if path.startswith("runs/")])
    judge("object", lambda entry: _object(workspace, entry, linked, young_s))
    judge("other", lambda entry: "other")
    return found


def pass_on(workspace: str, runs: Sequence[str]) -> None:
    """Note at each environment when it was used last, for these runs that say so are about to go."""
    for key, used_at in environments_used(workspace, runs).items():
        marker = os.path.join(workspace, "envs", key, MARKER)
        if 0 < _mtime(marker) < used_at:
            with contextlib.suppress(OSError):
                os.utime(marker, (used_at, used_at))


def _run(workspace: str, standing: Standing, pulled: FrozenSet[str]) -> str:
    if standing.is_live:
        return "live"
    if process.is_alive(read_object(os.path.join(workspace, "runs", standing.run_id, SIGN_IN))):
        return "guarded"
    if read_object(os.path.join(workspace, "runs", standing.run_id, "plan.json")).get("only_prepares") is True:
        return ""  # it made nothing that could be pulled
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
    """Which one a run was given it says itself; when one was used last, those that are still there and its marker."""
    key = os.path.basename(entry.path)
    if key in named:
        return "used by a run"
    if build_lock.is_held(os.path.join(workspace, entry.path + ".lock")):
        return "being built"
    folder = os.path.join(workspace, entry.path)
    ready_at = _mtime(os.path.join(folder, MARKER)) or _mtime(folder)  # without its marker a build was cut off
    ready_at = max(ready_at, _mtime(os.path.join(folder, USED)))
    return "recent" if time.time() - max(ready_at, used_at.get(key, 0.0)) < ENVIRONMENT_KEPT_S else ""


def _python(workspace: str, entry: Entry, bases: Set[str]) -> str:
    folder = os.path.join(workspace, entry.path)
    if build_lock.is_held(folder + ".lock"):
        return "being built"
    if any(base.startswith(os.path.realpath(folder) + os.sep) for base in bases):
        return "used by an environment"
    taken_at = _mtime(os.path.join(folder, MARKER)) or _mtime(folder)
    return "recent" if time.time() - taken_at < DAY_S else ""  # an environment may be about to be built on it


def _base(workspace: str, environment: str) -> str:
    """The folder of the Python that an environment is built on, empty where it does not say."""
    base = str(read_object(os.path.join(workspace, environment, MARKER)).get("base", ""))
    return os.path.realpath(os.path.dirname(base)) if base else ""


def environment_of(workspace: str, run: str) -> str:
    """The key of the environment that a run (`runs/<id>`) was given, empty where it has none."""
    return str(read_object(os.path.join(workspace, run, "environment.json")).get("key", ""))


def environments_used(workspace: str, runs: Optional[Sequence[str]] = None) -> Dict[str, float]:
    """Key of an environment -> when one of these runs (`runs/<id>`; of all otherwise) was given it last."""
    found: Dict[str, float] = {}
    for run in [f"runs/{name}" for name in names(workspace, "runs")] if runs is None else runs:
        key = environment_of(workspace, run)
        if key:
            given_at = _mtime(os.path.join(workspace, run, "environment.json"))
            found[key] = max(found.get(key, 0.0), given_at)
    return found


def _mtime(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def _raise(error: OSError) -> None:
    raise error
