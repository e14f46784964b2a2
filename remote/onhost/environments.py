"""The environments of a workspace: what is there, how large it is and who uses it; and their removal."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Dict, List, Sequence

from . import build_lock, inventory, lock, needs, removal
from .atomic import read_object
from .environment import MARKER
from .inventory import Entry
from .refused import Refused

WAIT_S = 10.0


def listed(workspace: str) -> List[Dict[str, Any]]:
    """A row for each: `key`, `state` (ready, building, unfinished), how it came, its size, who used it and when."""
    entries = [one for one in inventory.entries(workspace) if one.kind == "environment"]
    sizes = {one.path: _size(os.path.join(workspace, one.path)) for one in entries}
    used_at = needs.environments_used(workspace)
    live = _used_by(workspace)
    return [_row(workspace, one, sizes[one.path], used_at, live) for one in entries]


def remove(workspace: str, keys: Sequence[str]) -> Dict[str, Any]:
    """Take environments away; `freed_bytes` and `errors`.  Raises Refused where one is not there, or in use."""
    errors: List[str] = []
    with lock.exclusive(workspace, WAIT_S):
        there = {os.path.basename(one.path): one for one in inventory.entries(workspace) if one.kind == "environment"}
        live = _used_by(workspace)
        for key in keys:
            if key not in there:
                raise Refused("environment_not_found", f"there is no environment {key[:80]!r}", "launch env list HOST")
            if key in live:
                raise Refused("environment_used", f"{key} is used by {live[key][0]}", f"launch stop {live[key][0]}")
        with contextlib.ExitStack() as held:
            for key in keys:
                if not held.enter_context(build_lock.held_if_free(_lock(workspace, key))):
                    raise Refused("environment_used", f"{key} is being built", "wait until it is ready")
            away = removal.put_away(workspace, [there[key].path for key in keys], errors)
    freed = away.freed + sum(removal.empty(workspace, folder, errors) for folder in away.folders)
    return {"freed_bytes": freed, "errors": errors}


def _size(folder: str) -> int:
    """Bytes of its files, those too that the cache of downloads has as well (uv links them)."""
    seen = {(one.st_dev, one.st_ino): one.st_blocks * 512 for one in inventory.files(folder, lambda error: None)}
    return sum(seen.values())


def _row(
    workspace: str, entry: Entry, size_bytes: int, used_at: Dict[str, float], live: Dict[str, List[str]]
) -> Dict[str, Any]:
    key = os.path.basename(entry.path)
    marker = os.path.join(workspace, entry.path, MARKER)
    told = read_object(marker)
    used = used_at.get(key) or told.get("built_at")
    state = "ready" if told else "building" if build_lock.is_held(_lock(workspace, key)) else "unfinished"
    return {
        "key": key,
        "state": state,
        "how": str(told.get("how", "")),
        "base": str(told.get("base", "")),
        "size_bytes": size_bytes,
        "idle_s": max(0.0, time.time() - used) if isinstance(used, (int, float)) else None,
        "used_by": live.get(key, []),
    }


def _used_by(workspace: str) -> Dict[str, List[str]]:
    """Key -> runs that are not over."""
    found: Dict[str, List[str]] = {}
    for entry in inventory.entries(workspace):
        run_id = os.path.basename(entry.path)
        if entry.kind == "run" and inventory.standing(workspace, run_id).is_live:
            found.setdefault(needs.environment_of(workspace, entry.path), []).append(run_id)
    return found


def _lock(workspace: str, key: str) -> str:
    return os.path.join(workspace, "envs", key + ".lock")
