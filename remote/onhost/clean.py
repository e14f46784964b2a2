"""The verb `clean`: what nothing in a workspace needs any more goes, or everything does."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, List, Sequence

from . import authorized_keys, inventory, lock, needs, removal
from .inventory import Entry, Standing
from .refused import Refused

# Named one by one up to here; beyond it only their number and size are told.
MOST_LISTED = 10_000
MOST_NAMED = 20
MOST_ERRORS = 100


def clean(workspace: str, request: Dict[str, Any], program: str) -> Dict[str, Any]:
    """What goes (or with `dry_run` would go), what is kept and why, and the bytes that are free now.

    `program` is the name of the file that runs this.  Raises Refused where a folder is a link, where a run is in the
    way of everything going, or where somebody else holds the lock.
    """
    _refuse_links(workspace)
    dry_run, everything, wait_s = bool(request["dry_run"]), bool(request["everything"]), float(request["wait_s"])
    errors: List[str] = []
    away = removal.PutAway(0, [], set())
    with lock.shared(workspace, wait_s) if dry_run else lock.exclusive(workspace, wait_s):
        entries = inventory.entries(workspace)
        standings = [inventory.standing(workspace, os.path.basename(one.path)) for one in entries if one.kind == "run"]
        never_pulled = _require_all_may_go(standings, request) if everything else []
        reasons = {} if everything else needs.reasons(
            workspace, entries, standings,
            pulled=frozenset(request["pulled"]), young_s=float(request["young_s"]), program=program,
        )  # fmt: skip
        going = [entry for entry in entries if entry.path not in reasons]
        sizes = removal.sizes(workspace, going)
        freed = sum(sizes.values())
        if not dry_run:
            away = _put_away(workspace, going, everything, errors)
            going = [entry for entry in going if not away.failed & {entry.path, entry.path.split("/")[0]}]
            freed = away.freed
    # Nobody needs to wait for the disk: what is left to do is in nobody's way.
    freed += sum(removal.empty(workspace, folder, errors) for folder in away.folders)
    if everything and not dry_run:
        # It stays where somebody came meanwhile, and where it is a link that a person made.
        with contextlib.suppress(OSError):
            os.rmdir(workspace)
    return {
        **_listed(going, sizes),
        "freed_bytes": freed,
        "kept": _kept(entries, reasons),
        "never_pulled": never_pulled,
        "key_lines": _keys(request, dry_run, errors),
        "errors": errors[:MOST_ERRORS],
        "error_count": len(errors),
    }


def _refuse_links(workspace: str) -> None:
    for name in inventory.FOLDERS:
        path = os.path.join(workspace, name)
        if os.path.islink(path):
            raise Refused("path_outside", f"{path} is a link, nothing was removed", f"see where it leads: ls -l {path}")


def _require_all_may_go(standings: Sequence[Standing], request: Dict[str, Any]) -> List[str]:
    """The runs that go though nobody pulled them.  Raises Refused where a run goes on, or succeeded and isn't home."""
    live = [one.run_id for one in standings if one.is_live]
    if live:
        raise Refused("runs_live", f"nothing was removed, these runs are not over: {_named(live)}",
                      f"launch stop {live[0]}")  # fmt: skip
    left = [one for one in standings if one.run_id not in request["pulled"]]
    succeeded = [one.run_id for one in left if one.state == "succeeded"]
    if succeeded and not request["force"]:
        raise Refused("runs_not_pulled",
                      f"nothing was removed, these runs succeeded and were not pulled: {_named(succeeded)}",
                      f"launch pull {succeeded[0]} (or add --force: they are lost then)")  # fmt: skip
    return [one.run_id for one in left]


def _named(run_ids: Sequence[str]) -> str:
    more = len(run_ids) - MOST_NAMED
    return ", ".join(run_ids[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _put_away(workspace: str, going: Sequence[Entry], everything: bool, errors: List[str]) -> removal.PutAway:
    """Take `going` away, or with `everything` all that is there, the lock last."""
    if not everything:
        needs.pass_on(workspace, [entry.path for entry in going if entry.kind == "run"])
        return removal.put_away(workspace, [path for entry in going for path in (entry.path, *entry.beside)], errors)
    names = [name for name in inventory.names(workspace) if name != lock.NAME]
    away = removal.put_away(workspace, names, errors)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(workspace, lock.NAME))
    return away


def _listed(going: Sequence[Entry], sizes: Dict[str, int]) -> Dict[str, Any]:
    of_kind: Dict[str, List[int]] = {}
    for entry in going:
        of_kind.setdefault(entry.kind, []).append(sizes[entry.path])
    return {
        "items": [
            {"kind": entry.kind, "path": entry.path, "size_bytes": sizes[entry.path]} for entry in going[:MOST_LISTED]
        ],
        "totals": [{"kind": kind, "count": len(them), "size_bytes": sum(them)} for kind, them in of_kind.items()],
    }


def _kept(entries: Sequence[Entry], reasons: Dict[str, str]) -> List[Dict[str, Any]]:
    names: Dict[Any, List[str]] = {}
    for entry in entries:
        if entry.path in reasons and entry.kind != "other":
            names.setdefault((entry.kind, reasons[entry.path]), []).append(os.path.basename(entry.path))
    return [
        {"kind": kind, "reason": reason, "count": len(them), "names": them[:MOST_NAMED]}
        for (kind, reason), them in names.items()
    ]


def _keys(request: Dict[str, Any], dry_run: bool, errors: List[str]) -> int:
    """Lines of authorized_keys that go, last of all."""
    if not request["keys"]:
        return 0
    try:
        return authorized_keys.remove(request["keys"], request["mark"], dry_run=dry_run)
    except OSError as error:
        errors.append(f"{authorized_keys.FILE}: {error.strerror}")
        return 0
