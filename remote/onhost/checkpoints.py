"""The checkpoints in a run's folder, as far as a host has to know them: folders called `step-<number>`, newest first.

A job gives a folder that name only once it is whole.  What stands in it is the job's, and is never read here.
"""

from __future__ import annotations

import os
import re
import stat
import time
from typing import Any, Dict, Iterator, List, Sequence

from .refused import Refused
from .run import Run
from .target import copy_file

FOLDER = "checkpoints"
NAME = re.compile(r"step-(\d{1,12})\Z")
MOST_FILES = 64


def of_run(run: Run) -> List[Dict[str, Any]]:
    """`step`, `path` in the run's folder, `age_s` and `size_bytes` of each, newest first."""
    found = []
    try:
        names = os.listdir(run.path(FOLDER))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        path, match = f"{FOLDER}/{name}", NAME.match(name)
        if match is None or not _is_folder(run.path(path)):
            continue
        statuses = list(_files(run.path(path)))
        if statuses:
            age_s = time.time() - max(status.st_mtime for status in statuses)
            size = sum(status.st_size for status in statuses)
            found.append({"step": int(match.group(1)), "path": path, "age_s": age_s, "size_bytes": size})
    return sorted(found, key=lambda one: one["step"], reverse=True)


def _files(folder: str) -> Iterator[os.stat_result]:
    for name in os.listdir(folder)[:MOST_FILES]:
        try:
            status = os.lstat(os.path.join(folder, name))
        except FileNotFoundError:  # a newer checkpoint pushed it out in this moment
            continue
        if stat.S_ISREG(status.st_mode):
            yield status


def take_over(old: Run, new: Run, paths: Sequence[str]) -> None:
    """Let the files and folders `paths` of one run lie in another, too: as links, as copies where links don't work.

    Only plain files come, out of plain folders.  Raises Refused for a path that leads out of the run.
    """
    for path in paths:
        if os.path.isabs(path) or ".." in path.split("/"):
            raise Refused("path_outside", f"{path[:200]!r} would lie outside the run directory")
        _placed(old.path(path), new.path(path), depth=2)


def _placed(source: str, target: str, depth: int) -> None:
    try:
        mode = os.lstat(source).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISREG(mode):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            os.link(source, target)
        except OSError:
            copy_file(source, target)
    elif stat.S_ISDIR(mode) and depth:
        for name in os.listdir(source)[:MOST_FILES]:
            if not name.startswith("."):  # half-written
                _placed(os.path.join(source, name), os.path.join(target, name), depth - 1)


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
