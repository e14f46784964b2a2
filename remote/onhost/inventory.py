"""What lies in a workspace, piece by piece.  Links are never followed, and nothing is judged here."""

from __future__ import annotations

import os
import re
import stat
from typing import Callable, Iterator, List, NamedTuple, Tuple

from . import lock, process
from .refused import Refused
from .run import Run

# Folders of ours in which single things come and go.
FOLDERS = ("runs", "store", "envs", "pythons", "cache", "onhost")
TRASH = ".trash-"
UPLOADS = ".launch-partial"
OBJECT = re.compile(r"[0-9a-f]{64}\Z")
LEFT_IN_STORE = re.compile(r"\.part-|[0-9a-f]{64}\.stat(\.\d+)?\Z")


class Entry(NamedTuple):
    """One thing that stays or goes whole: `path` below the workspace, and what goes `beside` it."""

    kind: str
    path: str
    beside: Tuple[str, ...] = ()


class Standing(NamedTuple):
    """How a run stands; `unknown` where its plan can't be read, or a newer launch made it."""

    run_id: str
    state: str
    is_live: bool


def entries(workspace: str) -> List[Entry]:
    """Everything but the lock, runs first: what links to an object comes before the object."""
    found = [*_runs(workspace), *_store(workspace), *_built(workspace, "envs", "environment")]
    found += [*_built(workspace, "pythons", "python"), *_programs(workspace)]
    found += [Entry("downloads", f"cache/{name}") for name in names(workspace, "cache")]
    for name in names(workspace):
        if name.startswith(TRASH):
            found.append(Entry("trash", name))
        elif name.startswith(".box-id."):
            found.append(Entry("leftover", name))
        elif name not in (*FOLDERS, lock.NAME):
            found.append(Entry("other", name))
    return found


def _runs(workspace: str) -> Iterator[Entry]:
    for name in names(workspace, "runs"):
        root = os.path.join(workspace, "runs", name)
        if not is_folder(root):
            yield Entry("other", f"runs/{name}")
        elif any(os.path.lexists(os.path.join(root, file)) for file in ("plan.json", "supervisor.json")):
            yield Entry("run", f"runs/{name}")
        else:  # a submit that was killed: it never became a run
            yield Entry("leftover", f"runs/{name}")


def _store(workspace: str) -> Iterator[Entry]:
    found = names(workspace, "store")
    there = set(found)
    for name in found:
        if OBJECT.match(name):
            record = f"{name}.stat"
            yield Entry("object", f"store/{name}", (f"store/{record}",) if record in there else ())
        elif name.endswith(".quarantined"):
            yield Entry("quarantined", f"store/{name}")
        elif name == UPLOADS and is_folder(os.path.join(workspace, "store", UPLOADS)):
            for upload in names(workspace, "store", UPLOADS):
                yield Entry("leftover", f"store/{UPLOADS}/{upload}")
        elif not (name.endswith(".stat") and name[: -len(".stat")] in there):
            yield Entry("leftover" if LEFT_IN_STORE.match(name) else "other", f"store/{name}")


def _built(workspace: str, folder: str, kind: str) -> Iterator[Entry]:
    for name in names(workspace, folder):
        # A lock beside what it is for is no part of it: who waits and who comes later must meet the same one.
        yield Entry(kind if is_folder(os.path.join(workspace, folder, name)) else "other", f"{folder}/{name}")


def _programs(workspace: str) -> Iterator[Entry]:
    for name in names(workspace, "onhost"):
        kind = "program" if name.endswith(".pyz") else "leftover" if name.startswith(".part-") else "other"
        yield Entry(kind, f"onhost/{name}")


def standing(workspace: str, run_id: str) -> Standing:
    """How the run stands.  Live is also one that only a newer launch can understand."""
    newer = False
    try:
        run = Run(workspace, run_id)
    except Refused:
        return Standing(run_id, "unknown", False)
    try:
        state = str(run.state()["state"])
        return Standing(run_id, state, run.result() is None and state != "lost")
    except Refused as refused:
        newer = refused.code == "protocol_newer"
    except (KeyError, TypeError, ValueError, OSError):
        pass
    supervisor = run.supervisor()
    return Standing(run_id, "unknown", newer or (supervisor is not None and process.is_alive(supervisor)))


def is_live(workspace: str, run_id: str) -> bool:
    """Whether the run is not over, as `standing` has it, by as little reading as that takes."""
    try:
        return Run(workspace, run_id).is_live()
    except (Refused, KeyError, TypeError, ValueError, OSError):
        return standing(workspace, run_id).is_live


def names(*folder: str) -> List[str]:
    """What a folder holds, sorted; nothing where it is not there."""
    try:
        return sorted(os.listdir(os.path.join(*folder)))
    except (FileNotFoundError, NotADirectoryError):
        return []


def is_folder(path: str) -> bool:
    """Whether it is a folder itself, and not a link to one."""
    return os.path.isdir(path) and not os.path.islink(path)


def files(top: str, on_error: Callable[[OSError], None]) -> Iterator[os.stat_result]:
    """Everything at or below `top` that is no folder; what vanishes meanwhile is left out."""
    waiting = [top]
    while waiting:
        path = waiting.pop()
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                waiting += [os.path.join(path, name) for name in os.listdir(path)]
            else:
                yield status
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            on_error(error)
