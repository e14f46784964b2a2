"""The verb `remove`: one run goes from the workspace, as a clean-up would take it."""

from __future__ import annotations

from typing import Any, Dict, List

from . import inventory, lock, needs, removal
from .refused import Refused
from .run import Run

MOST_ERRORS = 20


def remove(workspace: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """`was_there`, and what could not be removed in `errors`.

    Raises Refused for a run that is not over, for one that succeeded unless it is `pulled` (with `force` it goes all
    the same), and where others work with the store for longer than `wait_s`.
    """
    run = Run(workspace, request["run_id"])
    path = f"runs/{run.run_id}"
    errors: List[str] = []
    with lock.exclusive(workspace, float(request["wait_s"])):
        if not inventory.is_folder(run.root):
            return {"was_there": False, "errors": []}
        standing = inventory.standing(workspace, run.run_id)
        if standing.is_live:
            raise Refused("run_live", f"run {run.run_id} is not over ({standing.state})", f"launch stop {run.run_id}")
        if standing.state == "succeeded" and not (request.get("pulled") or request.get("force")):
            raise Refused("run_not_pulled", f"run {run.run_id} succeeded and was not pulled",
                          f"launch pull {run.run_id} (or add --force: it is lost then)")  # fmt: skip
        needs.pass_on(workspace, [path])
        away = removal.put_away(workspace, [path], errors)
    for folder in away.folders:
        removal.empty(workspace, folder, errors)
    return {"was_there": True, "errors": errors[:MOST_ERRORS]}
