"""Takes files and folders of a workspace away and counts what that frees.  What is to go others decide.

A folder is renamed first, so that half of it is never taken for the whole, and emptied later.  Links are removed, never
followed.  Being read-only protects nothing; what can't be removed is named in `errors`, and the rest goes on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from typing import Callable, Dict, List, NamedTuple, Sequence, Set, Tuple

from .inventory import TRASH, Entry, files, is_folder


class Folder(NamedTuple):
    """A folder that counts as removed: its name in the workspace now, and the one it is `shown` by."""

    name: str
    shown: str


class PutAway(NamedTuple):
    """`freed` bytes, the folders that are to be emptied, and the paths that are still where they were."""

    freed: int
    folders: List[Folder]
    failed: Set[str]


def sizes(workspace: str, going: Sequence[Entry]) -> Dict[str, int]:
    """Path of each entry -> bytes on the disk of the files whose last link goes with it."""
    links: Dict[Tuple[int, int], int] = {}
    found = {}
    for entry in going:
        tops = [os.path.join(workspace, path) for path in (entry.path, *entry.beside)]
        statuses = (status for top in tops for status in files(top, lambda error: None))
        found[entry.path] = sum(_allocated(status) for status in statuses if _is_last(status, links))
    return found


def _is_last(status: os.stat_result, links: Dict[Tuple[int, int], int]) -> bool:
    inode = (status.st_dev, status.st_ino)
    links[inode] = links.get(inode, 0) + 1
    return links[inode] == status.st_nlink


def _allocated(status: os.stat_result) -> int:
    return status.st_blocks * 512


def put_away(workspace: str, paths: Sequence[str], errors: List[str]) -> PutAway:
    """Remove files, and rename folders: none is made for them, for on a full disk there would be no room for it."""
    freed, failed = 0, set()
    folders: List[Folder] = []
    for path in paths:
        try:
            if is_folder(os.path.join(workspace, path)):
                folders.append(Folder(_renamed(workspace, path), path))
            else:
                freed += _unlinked(os.path.join(workspace, path))
        except FileNotFoundError:
            continue
        except OSError as error:
            failed.add(path)
            errors.append(_in_words(path, error))
    return PutAway(freed, folders, failed)


def _renamed(workspace: str, path: str) -> str:
    if path.startswith(TRASH):
        return path
    name, source = TRASH + secrets.token_hex(8), os.path.join(workspace, path)
    try:
        _insist(os.rename, source, os.path.join(workspace, name))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # An overlay does not rename a folder of the image below it.  Without its plan it is no run any more.
        with contextlib.suppress(FileNotFoundError):
            _insist(os.unlink, os.path.join(source, "plan.json"))
        return path
    return name


def empty(workspace: str, folder: Folder, errors: List[str]) -> int:
    """Remove a folder that was put away, but for other file systems that are mounted in it; bytes that are free now."""
    top = os.path.join(workspace, folder.name)
    device = os.stat(workspace).st_dev
    freed, waiting = 0, [top]
    entered: List[str] = []

    def shown(path: str) -> str:
        return folder.shown + path[len(top) :]

    while waiting:
        parent = waiting.pop()
        try:
            if os.lstat(parent).st_dev != device:
                errors.append(f"{shown(parent)}: another file system is mounted there")
                continue
            entered.append(parent)
            names = _listed(parent)
        except FileNotFoundError:
            continue
        except OSError as error:
            errors.append(_in_words(shown(parent), error))
            continue
        for path in (os.path.join(parent, name) for name in names):
            try:
                if is_folder(path):
                    waiting.append(path)
                else:
                    freed += _unlinked(path)
            except FileNotFoundError:
                continue  # a second clean was faster
            except OSError as error:
                errors.append(_in_words(shown(path), error))
    for parent in reversed(entered):
        try:
            os.rmdir(parent)
        except OSError as error:
            # What is left in one that is not empty was named already.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                errors.append(_in_words(shown(parent), error))
    return freed


def _listed(folder: str) -> List[str]:
    _open_up(folder)
    return os.listdir(folder)


def _unlinked(path: str) -> int:
    status = os.lstat(path)
    _insist(os.unlink, path)
    return _allocated(status) if status.st_nlink == 1 else 0


def _insist(action: Callable[..., None], path: str, *rest: str) -> None:
    """Do it, if need be after allowing ourselves to write to the folder and to the one it lies in."""
    try:
        action(path, *rest)
    except PermissionError:
        for folder in (os.path.dirname(path), path):
            if is_folder(folder):
                _open_up(folder)
        action(path, *rest)


def _open_up(folder: str) -> None:
    """Let ourselves list and change it.  Where that can't be done, what fails next tells why it matters."""
    mode = stat.S_IMODE(os.lstat(folder).st_mode)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        with contextlib.suppress(PermissionError):
            os.chmod(folder, mode | stat.S_IRWXU)


def _in_words(path: str, error: OSError) -> str:
    return f"{path}: {error.strerror or error}"
