"""The folder that files are brought into: unfinished ones lie aside, and take their names only whole and checked.

Used on both machines: on the laptop what arrives was made by a host that may be hostile, so no link is written through
or replaced, and no path is made that was not checked to be a folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import time
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .frames import CHUNK_BYTES
from .refused import Refused
from .tree import FILE, FOLDER, LINK, STAGING, WINDOWS, Entry, native, text

OWN, PART = "own-", ".part"
PART_KEPT_S = 7 * 24 * 3600
# Whoever did nothing for this long has no connection any more, even if its process lives on: another one takes over.
IDLE_S = 30
BEGINNINGS = 100
SPARE_BYTES = 64 * 1024 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)
FICLONE = 0x40049409
SYNC_FILE_RANGE_WRITE = 2
# Linux flushes a whole filesystem in one call; elsewhere every file is flushed by itself.
ONE_FLUSH = sys.platform == "linux"
_OPEN = os.O_CLOEXEC if hasattr(os, "O_CLOEXEC") else getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN


class Room(NamedTuple):
    """What is free where the target lies; `inodes` is -1 where that is not counted."""

    size_bytes: int
    inodes: int


class Target:
    """Files on their way into `root`; `commit` gives them their names.  One thread uses it.

    With `new_links_only` an existing link stays what it is.  `committed(entry, place)` is told of every new name.
    """

    def __init__(
        self,
        root: str,
        *,
        new_links_only: bool = False,
        committed: Optional[Callable[[Entry, Any], None]] = None,
    ) -> None:
        self.root = root
        self._root = native(root)
        self._slash: Any = "/" if WINDOWS else b"/"
        self._new_links_only = new_links_only
        self._committed = committed
        self._staging = self.path(STAGING)
        self._own = self._staging + self._slash + native(f"{OWN}{secrets.token_hex(6)}")
        self._ready: List[Tuple[Any, Entry]] = []
        self._parents = {""}
        self._made: Set[str] = set()
        # When each folder was last changed by somebody else.
        self._times: Dict[str, int] = {}
        # Folders of others who are gone: what we remove there would look like a sign of life.
        self._given_up: Set[Any] = set()
        self._counter = 0
        self._begun = False
        self._alive: Optional[int] = None
        self._umask = 0

    def path(self, path: str) -> Any:
        """Where an entry lies, as the operating system takes it."""
        return self._root + self._slash + native(path) if path else self._root

    def room(self) -> Room:
        """What is free."""
        at = os.path.abspath(self._root)
        while not os.path.isdir(at) and os.path.dirname(at) != at:
            at = os.path.dirname(at)
        inodes = -1
        if not WINDOWS:
            status = os.statvfs(at)
            inodes = status.f_favail if status.f_files else -1
        return Room(shutil.disk_usage(at).free, inodes)

    @contextlib.contextmanager
    def filling(self) -> Iterator[None]:
        """Raises Refused, and not OSError, where the disk becomes full inside the block."""
        try:
            yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            size_bytes, inodes = self.room()
            more = f" and {inodes} more files" if inodes >= 0 else ""
            raise Refused(
                "disk_full", f"the disk of {self.root} is full: {size_bytes / 1e6:.0f} MB{more} are free",
                "free some space there, then run the same command again",
            ) from error  # fmt: skip

    def begin(self) -> None:
        """Make the root and the folder for unfinished files.  Raises OSError."""
        if self._begun:
            return
        with self.filling():
            os.makedirs(self._root, exist_ok=True)
            # Whoever ends, or looks around, at this very moment removes what is empty and not yet said to be ours.
            if not any(self._claimed() for _ in range(BEGINNINGS)):
                raise Refused("in_the_way", f"{text(self._staging)} is removed again and again", "try it once more")
        self._umask = 0 if WINDOWS else _umask()
        self._begun = True

    def _claimed(self) -> bool:
        """Make our own folder and say that it is in use; False where it was removed before that was said."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(self._staging, 0o700)
        try:
            if not stat.S_ISDIR(os.lstat(self._staging).st_mode):
                raise Refused("in_the_way", f"{text(self._staging)} is not a folder", "move it away")
            os.mkdir(self._own, 0o700)
            self._alive = _locked(self._own)
            os.lstat(self._own)
            return True
        except FileNotFoundError:
            if self._alive is not None:
                os.close(self._alive)
                self._alive = None
            return False

    def parts(self) -> Dict[str, int]:
        """Unfinished files that nobody is writing to: key -> bytes that are there.  What nobody needs is removed."""
        found: Dict[str, int] = {}
        for folder in self._folders():
            for _, key, size in self._abandoned(folder):
                found[key] = max(found.get(key, 0), size)
        with contextlib.suppress(OSError):
            os.rmdir(self._staging)
        return found

    def _folders(self) -> List[Any]:
        """The folders for unfinished files of others; none behind a link, where nothing is ours to remove."""
        try:
            if not stat.S_ISDIR(os.lstat(self._staging).st_mode):
                return []
            names = [name for name in os.listdir(self._staging) if text(name).startswith(OWN)]
        except OSError:
            return []
        folders = [self._staging + self._slash + name for name in names]
        return [folder for folder in folders if folder != self._own]

    def _abandoned(self, folder: Any, but: Sequence[str] = ()) -> List[Tuple[Any, str, int]]:
        """Place, key and size of what one that is gone left unfinished; what nobody can go on with is removed.

        So are files whose path has a key that begins with one of `but`.
        """
        kept = []
        with contextlib.suppress(OSError), _alone(folder) as alone:  # OSError: gone meanwhile, or not to be read
            now, made_s = time.time(), os.lstat(folder).st_mtime
            items = [(folder + self._slash + name, text(name), os.lstat(folder + self._slash + name))
                     for name in os.listdir(folder)]  # fmt: skip
            idle_s = now - max([made_s, *(status.st_ctime for _, _, status in items)])
            if idle_s <= IDLE_S and not alone and folder not in self._given_up:
                return []
            self._given_up.add(folder)
            for at, name, status in items:
                key, is_part, _ = name.partition(PART)
                # A file that is whole has the time of its source, however old.
                age_s = now - max(status.st_mtime, made_s)
                if is_part and status.st_size and age_s <= PART_KEPT_S and not key.startswith(tuple(but)):
                    kept.append((at, key, status.st_size))
                elif idle_s > IDLE_S * WINDOWS:
                    os.unlink(at)
            if not kept and idle_s > IDLE_S * WINDOWS:
                os.rmdir(folder)
        return kept

    def new_file(self, entry: Entry) -> Tuple[int, Any]:
        """Descriptor and place of a new file aside, for content that is at hand."""
        self._counter += 1
        at = self._own + self._slash + native(str(self._counter))
        return self._opened(at, _NEW, entry.mode | 0o600), at

    def _opened(self, at: Any, flags: int, mode: int) -> int:
        try:
            return os.open(at, flags, mode)
        except FileNotFoundError as error:
            raise taken_over(self.root) from error

    def require(self, at: Any) -> None:
        """Raise Refused where another one took the file `at` over: it may lie under its final name by now."""
        if not os.path.lexists(at):
            raise taken_over(self.root)

    def part(self, entry: Entry, offset: int) -> Tuple[int, Any]:
        """Descriptor and place of a file whose content comes in pieces; `offset` bytes of it are there already.

        Raises Refused when they are not.
        """
        at = self._own + self._slash + native(f"{part_key(entry)}{PART}{secrets.token_hex(4)}")
        if offset:
            self._take_over(part_key(entry), offset, at)
            return self._opened(at, os.O_RDWR | _OPEN, 0o600), at
        return self._opened(at, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600), at

    def _take_over(self, wanted: str, offset: int, at: Any) -> None:
        for folder in self._folders():
            for there, key, size in self._abandoned(folder):
                if key == wanted and size >= offset:
                    with contextlib.suppress(OSError):  # another one was faster
                        os.rename(there, at)
                        with contextlib.suppress(OSError):
                            os.rmdir(folder)
                        return
        raise Refused("part_gone", "an unfinished file is not there any more", "run the same command again")

    def finish(self, descriptor: int, at: Any, entry: Entry, created: int) -> None:
        """Give a file that is whole and checked its mode and time and close it; `commit` gives it its name.

        `created` is the mode it was made with.
        """
        try:
            if not WINDOWS and entry.mode != created & ~self._umask:
                os.chmod(descriptor, entry.mode)
            if os.utime in os.supports_fd:
                os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
            if not ONE_FLUSH:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if os.utime not in os.supports_fd:
            os.utime(at, ns=(entry.mtime_ns, entry.mtime_ns))
        self._ready.append((at, entry))

    def copy(self, source: Any, entry: Entry) -> None:
        """Keep a copy (a reflink where the disk can) of a file that lies on this machine."""
        descriptor, at = self.new_file(entry)
        try:
            with open(source, "rb") as there:
                _copy(there.fileno(), descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self.finish(descriptor, at, entry, entry.mode | 0o600)

    def link(self, entry: Entry) -> None:
        """Keep a symbolic link."""
        self._counter += 1
        at = self._own + self._slash + native(str(self._counter))
        os.symlink(native(entry.link), at)
        self._ready.append((at, entry))

    def commit(self) -> None:
        """Flush what was kept, then give each file its name.

        Raises Refused, before anything is renamed, where something that is no file is in the way.
        """
        ready, self._ready = self._ready, []
        if not ready:
            return
        for _, entry in ready:
            self._check_free(entry)
        if ONE_FLUSH:
            self._flush(ready)
        for at, entry in ready:
            final = self.path(entry.path)
            try:
                os.replace(at, final)
            except FileNotFoundError as error:
                raise taken_over(self.root) from error
            if self._committed is not None:
                self._committed(entry, final)
        # What others left of files that are here by now is of no use to anybody.
        if folders := self._folders() if not WINDOWS else []:
            done = [_path_key(entry.path) for _, entry in ready]
            for folder in folders:
                self._abandoned(folder, done)

    def _check_free(self, entry: Entry) -> None:
        parent = entry.path.rpartition("/")[0]
        self.folder(parent)
        if parent in self._made:
            return  # by us, a moment ago
        try:
            kind = stat.S_IFMT(os.lstat(self.path(entry.path)).st_mode)
        except FileNotFoundError:
            return
        if entry.kind == LINK:
            fits = kind == stat.S_IFLNK and not self._new_links_only
        else:
            fits = kind == stat.S_IFREG
        if not fits:
            raise in_the_way(entry.path)

    def folder(self, path: str) -> None:
        """Make a folder and those above it, where they are missing.  Raises Refused at anything else in its place."""
        missing = []
        while path not in self._parents:
            missing.append(path)
            path = path.rpartition("/")[0]
        for one in reversed(missing):
            try:
                os.mkdir(self.path(one))
                self._made.add(one)
            except FileExistsError:
                status = os.lstat(self.path(one))
                if not stat.S_ISDIR(status.st_mode):
                    raise in_the_way(one) from None
                self._times[one] = status.st_mtime_ns
            self._parents.add(one)

    def adopt(self, entry: Entry) -> None:
        """Give a file or folder that is there the mode and time of its entry; somebody else's folder keeps its time."""
        at = self.path(entry.path)
        self.folder(entry.path.rpartition("/")[0])
        status = os.lstat(at)
        if stat.S_ISLNK(status.st_mode):
            raise in_the_way(entry.path)
        if not WINDOWS and status.st_mode & 0o777 != entry.mode:
            os.chmod(at, entry.mode)
        try:
            os.utime(at, ns=(entry.mtime_ns, entry.mtime_ns))
        except PermissionError:
            if entry.kind != FOLDER:
                raise

    def delete(self, paths: Iterable[str]) -> None:
        """Remove files, links and empty folders.  A folder that is not empty stays."""
        for path in sorted(paths, reverse=True):  # what lies in a folder before the folder
            self.folder(path.rpartition("/")[0])
            at = self.path(path)
            try:
                if stat.S_ISDIR(os.lstat(at).st_mode):
                    os.rmdir(at)
                    self._parents.discard(path)
                    self._times.pop(path, None)
                else:
                    os.unlink(at)
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def complete(
        self, entries: Sequence[Entry], plan: Dict[str, Any], stored: Callable[[str], Any], failed: Set[str]
    ) -> None:
        """Give what came its names and do what a plan says beside it.

        What stands in the way of a file that did not come, as `failed` says, is not deleted.

        The plan: {"copies": [[i, path]], "stored": [[i, sha256]], "links": [i], "adopt": [i], "delete": [path],
        "first": whether to delete before anything gets a name, because something is in the way}.
        """
        with self.filling():
            for index, source in plan["copies"]:
                self.copy(self.path(source), entries[index])
            for index, sha256 in plan["stored"]:
                self.copy(stored(sha256), entries[index])
            for index in plan["links"]:
                self.link(entries[index])
        gone = [path for path in plan["delete"] if not _is_below(path, failed)]
        if plan["first"]:
            self.delete(gone)
        self.commit()
        folders = [entry for entry in entries if entry.kind == FOLDER]
        for entry in folders:
            self.folder(entry.path)
        for index in plan["adopt"]:
            self.adopt(entries[index])
        if not plan["first"]:
            self.delete(gone)
        for entry in reversed(folders):
            self.adopt(entry)
        # The others had the times that they should have, until something in them got or lost its name.
        for path in self._times.keys() - {entry.path for entry in folders}:
            with contextlib.suppress(PermissionError, FileNotFoundError):
                os.utime(self.path(path), ns=(self._times[path], self._times[path]))

    def end(self) -> None:
        """Remove what is not needed any more; unfinished large files stay, to be gone on with."""
        if not self._begun:
            return
        with contextlib.suppress(OSError):
            for name in os.listdir(self._own):
                at = self._own + self._slash + name
                if PART not in text(name) or not os.lstat(at).st_size:
                    os.unlink(at)
        if self._alive is not None:
            os.close(self._alive)
        for folder in (self._own, self._staging):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        self._begun = False

    def write_back(self, descriptor: int) -> None:
        """Let the disk begin with what was written so far: otherwise all of it is waited for at the end."""
        libc = _libc() if ONE_FLUSH else None
        if libc is not None and hasattr(libc, "sync_file_range"):
            from ctypes import c_int64

            libc.sync_file_range(descriptor, c_int64(0), c_int64(0), SYNC_FILE_RANGE_WRITE)

    def _flush(self, ready: List[Tuple[Any, Entry]]) -> None:
        """Bring everything to the disk at once, file by file where there is no such call."""
        libc = _libc()
        if libc is None or not hasattr(libc, "syncfs"):
            for at, entry in ready:
                if entry.kind == FILE:
                    with open(at, "rb") as file:
                        os.fsync(file.fileno())
            return
        descriptor = os.open(self._root, os.O_RDONLY | _OPEN)
        try:
            if libc.syncfs(descriptor):
                raise OSError(errno.EIO, "not everything could be written to the disk", self.root)
        finally:
            os.close(descriptor)


@lru_cache(maxsize=None)
def _libc() -> Any:
    """The C library, None where it can't be called."""
    try:
        import ctypes

        return ctypes.CDLL(None)
    except (ImportError, OSError):
        return None


def part_key(entry: Entry) -> str:
    """The name of an unfinished file: of this very content, as far as its size and time tell."""
    return _path_key(entry.path) + blake2b(f"{entry.size} {entry.mtime_ns}".encode("ascii"), digest_size=8).hexdigest()


def _path_key(path: str) -> str:
    """What the names of all unfinished files for this path begin with."""
    return blake2b(path.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _is_below(path: str, tops: Set[str]) -> bool:
    """Whether a path is one of these or lies below one."""
    while path and path not in tops:
        path = path.rpartition("/")[0]
    return bool(path)


def taken_over(root: str) -> Refused:
    """The refusal where what had come so far is not there any more."""
    return Refused("taken_over", f"another one works in {root} and took over", "run the same command again")


def in_the_way(path: str) -> Refused:
    """The refusal for a path where something of another kind is."""
    return Refused(
        "in_the_way", f"{path!r}: something of another kind is there already", "move it away, or use --delete"
    )


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def try_lock(descriptor: int) -> bool:
    """Say that this file is being written to, until it is closed; False where somebody else says so."""
    free = True
    if os.name == "nt":
        pass  # nobody can move or remove what is open
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            free = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # else a disk that knows no locks
    return free


def _locked(folder: Any) -> Optional[int]:
    """Say that this process uses a folder; the system forgets it with the process.  None where that can't be said."""
    if WINDOWS:
        return None
    descriptor = os.open(folder, os.O_RDONLY | _OPEN)
    while not try_lock(descriptor):  # somebody looks whether it is in use
        time.sleep(0.001)
    return descriptor


@contextlib.contextmanager
def _alone(folder: Any) -> Iterator[bool]:
    """Whether no living process uses a folder; nobody says so inside the block.

    True on Windows, where nobody can move or remove what is open.
    """
    if WINDOWS:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | _OPEN)
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Any, target: Any) -> None:
    """Copy a file to a new place, as a reflink where the disk can.  Raises OSError, also where something is there."""
    with open(source, "rb", buffering=0) as there, open(target, "xb", buffering=0) as new:
        _copy(there.fileno(), new.fileno())


def _copy(source: int, target: int) -> None:
    if os.name == "nt":
        pass
    else:
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.ioctl(target, FICLONE, source)
            return
    while chunk := os.read(source, CHUNK_BYTES):
        written = memoryview(chunk)
        while written:
            written = written[os.write(target, written) :]
