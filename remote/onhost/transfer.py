"""Sends files and takes them in: many small ones in one piece, large ones in chunks, each with its sha256.

Used on both machines.  Both sides know the same list of entries; files are named by their place in it:

  {"b": [[i, sha256], ...]}   small files; their contents follow, one after the other
  {"f": i, "o": offset}       a large file from an offset on: {"n": length} and bytes, ..., {"sha256": ...} at its end
  {"u": [i, size, mtime]}     the file is another one than listed; before the two above
  {"x": i, "why": ...}        this one does not come, or what came of it is void
  {"end": true}               without it the stream was cut
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from hashlib import sha256
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from .frames import CHUNK_BYTES, BrokenStream, Reader, message
from .refused import Refused
from .target import SPARE_BYTES, Target
from .tree import FILE, Entry, checked, look

SMALL_BYTES = 128 * 1024
BUNDLE_BYTES = 256 * 1024
BUNDLE_FILES = 512
# Asking whether the host's store has a content costs a turn; sending this much takes about as long.
WORTH_ASKING_BYTES = 1024 * 1024
# How much of a large file may wait to be written to the disk.
WRITE_BACK_BYTES = 64 * 1024 * 1024
# A file written to within one tick of the clock could be written to once more without a new time (git's racy rule).
TICK_NS = 20_000_000
_READ = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)  # fmt: skip
_CHANGED = "it changed while it was sent"


def nobody(count: int) -> None:
    """The observer of bytes that does not look."""


class Outgoing(NamedTuple):
    """A file to send: its number in the list, what is listed, where it lies, how much of it the other side has.

    With `sha256` it must have that content.
    """

    number: int
    entry: Entry
    at: Any
    offset: int = 0
    sha256: str = ""


class _Changed(Exception):
    """The file became another one while it was read."""


class Sender:
    """Makes the stream for some files.  `failed` is by number, with the reason, complete when the stream is.

    A file that changes while it is read is sent once more, and failed if it does so again.
    """

    def __init__(self, files: Iterable[Outgoing], passed: Callable[[int], None] = nobody) -> None:
        self._files = files
        self._passed = passed
        self.failed: Dict[int, str] = {}
        self._bundle: List[List[Any]] = []
        self._contents: List[bytes] = []
        self._updates: List[bytes] = []
        self._size = 0

    def chunks(self) -> Iterator[bytes]:
        """The stream.  What is yielded is used again: it must be passed on before the next one is asked for."""
        again: List[Outgoing] = []
        for attempt, files in enumerate((self._files, again)):
            for file in files:
                try:
                    yield from self._file(file)
                except _Changed:
                    if attempt or file.sha256:
                        yield self._fail(file, _CHANGED)
                    else:
                        again.append(file._replace(offset=0))
                except OSError as error:
                    yield self._fail(file, error.strerror or str(error))
            yield from self._bundled()
        yield message({"end": True})

    def _fail(self, file: Outgoing, why: str) -> bytes:
        self.failed[file.number] = why
        return message({"x": file.number, "why": why})

    def _file(self, file: Outgoing) -> Iterator[bytes]:
        descriptor = os.open(file.at, _READ)
        try:
            status = _settled(descriptor)
            entry = look(file.entry.path, status, b"") if stat.S_ISREG(status.st_mode) else None
            if entry is None:
                raise OSError(errno.EINVAL, "it is no file any more")
            # The mode may be listed in another way; where the content is known, it alone counts.
            if entry[:4] != file.entry[:4] and (not file.sha256 or entry.size != file.entry.size):
                if file.sha256:
                    raise _Changed
                file = file._replace(entry=entry, offset=0)
                self._updates.append(message({"u": [file.number, entry.size, entry.mtime_ns]}))
            if entry.size <= SMALL_BYTES and not file.offset:
                yield from self._small(file, descriptor, _state(status))
            else:
                yield from self._large(file, descriptor, _state(status))
        finally:
            os.close(descriptor)

    def _small(self, file: Outgoing, descriptor: int, state: Tuple[int, ...]) -> Iterator[bytes]:
        content = os.read(descriptor, SMALL_BYTES + 1)
        if len(content) != file.entry.size or _state(os.fstat(descriptor)) != state:
            raise _Changed
        digest = sha256(content).hexdigest()
        if file.sha256 not in ("", digest):
            raise _Changed
        self._bundle.append([file.number, digest])
        self._contents.append(content)
        self._size += len(content)
        if self._size >= BUNDLE_BYTES or len(self._bundle) >= BUNDLE_FILES:
            yield from self._bundled()

    def _bundled(self) -> Iterator[bytes]:
        if self._bundle or self._updates:
            yield b"".join((*self._updates, message({"b": self._bundle}), *self._contents))
            self._passed(self._size)
            self._bundle, self._contents, self._updates, self._size = [], [], [], 0

    def _large(self, file: Outgoing, descriptor: int, state: Tuple[int, ...]) -> Iterator[bytes]:
        yield from self._bundled()
        digest, buffer = sha256(), memoryview(bytearray(min(CHUNK_BYTES, file.entry.size)))
        with open(descriptor, "rb", 0, closefd=False) as content:

            def read(left: int) -> memoryview:
                piece = buffer[: content.readinto(buffer[:left])]
                digest.update(piece)
                return piece

            left = file.offset
            while left:
                piece = read(left)
                if not piece:
                    raise _Changed
                left -= len(piece)
            left = file.entry.size - file.offset
            yield message({"f": file.number, "o": file.offset})
            while left:
                piece = read(left)
                if not piece:
                    break
                yield message({"n": len(piece)})
                yield piece  # type: ignore[misc]
                left -= len(piece)
                self._passed(len(piece))
        found = digest.hexdigest()
        if left or _state(os.fstat(descriptor)) != state or file.sha256 not in ("", found):
            yield message({"x": file.number, "why": _CHANGED})
            raise _Changed
        yield message({"sha256": found})


def _settled(descriptor: int) -> os.stat_result:
    """What an open file is, once no write can hide behind the clock's tick."""
    status = os.fstat(descriptor)
    age_ns = time.time_ns() - status.st_mtime_ns
    if 0 <= age_ns < TICK_NS:
        time.sleep((TICK_NS - age_ns) / 1e9)
        status = os.fstat(descriptor)
    return status


def _state(status: os.stat_result) -> Tuple[int, ...]:
    """What changes when a file is written to; on Windows st_ctime is the time it was made."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Receiver:
    """Takes in the stream of a Sender for `wanted` of `entries`; `entries` is brought up to date on the way.

    `expected` are the contents that are known, by index.  Afterwards `bad` are the indexes whose content was not the
    one announced, `failed` those that the sender gave up, with its reason; all others came whole.
    """

    def __init__(
        self,
        target: Target,
        entries: List[Entry],
        wanted: Dict[int, int],
        *,
        expected: Dict[int, str],
        passed: Callable[[int], None] = nobody,
    ) -> None:
        self._target = target
        self._entries = entries
        self._wanted = dict(wanted)
        self._expected = expected
        self._passed = passed
        self.bad: List[int] = []
        self.failed: Dict[int, str] = {}

    def take(self, reader: Reader) -> None:
        """Take in all up to the end of the stream; the caller commits it.  After a cut what is whole is committed."""
        with self._target.filling():
            try:
                while not self._one(reader, reader.message()):
                    pass
            except BaseException:
                # What is whole keeps its place: nobody should have to send it again.
                with contextlib.suppress(Refused, OSError):
                    self._target.commit()
                raise
        for index in self._wanted.keys() - set(self.bad):
            self.failed.setdefault(index, "it did not come")

    def _one(self, reader: Reader, fields: Dict[str, Any]) -> bool:
        """Carry out one message; True at the end."""
        if "b" in fields:
            for row in _rows(fields["b"]):
                self._small(reader, *row)
        elif "f" in fields:
            self._large(reader, fields["f"], fields.get("o"))
        elif "u" in fields:
            self._update(fields["u"])
        elif "x" in fields:
            self._give_up(fields["x"], fields.get("why"))
        elif fields.get("end") is True:
            return True
        elif isinstance(fields.get("refused"), dict):
            said = fields["refused"]
            raise Refused(str(said.get("code")), str(said.get("message")), str(said.get("hint") or ""))
        else:
            raise BrokenStream("an unknown message")
        return False

    def _due(self, index: Any) -> Entry:
        if type(index) is not int or index not in self._wanted:
            raise BrokenStream("a file came that nobody asked for")
        return self._entries[index]

    def _update(self, fields: Any) -> None:
        try:
            index, size, mtime_ns = fields
            listed = self._due(index)
            entry = checked([listed.path, FILE, size, mtime_ns, listed.mode, ""])
        except (TypeError, ValueError) as error:
            raise BrokenStream("an update has the wrong shape") from error
        if entry.size > self._entries[index].size and entry.size > self._target.room().size_bytes - SPARE_BYTES:
            raise Refused("disk_full", f"{entry.path!r} grew to {entry.size} bytes: there is no room for it")
        self._entries[index] = entry
        self._wanted[index] = 0

    def _give_up(self, index: Any, why: Any) -> None:
        self._due(index)
        self.failed[index] = str(why)[:200]

    def _small(self, reader: Reader, index: Any, digest: Any) -> None:
        entry = self._due(index)
        if entry.size > SMALL_BYTES:
            raise BrokenStream("a large file came as a small one")
        content = reader.exactly(entry.size)
        self._passed(entry.size)
        if sha256(content).hexdigest() != digest or not self._fits(index, digest):
            self.bad.append(index)
            return
        descriptor, at = self._target.new_file(entry)
        try:
            written = 0
            while written < len(content):
                written += os.write(descriptor, content[written:] if written else content)
        except BaseException:
            os.close(descriptor)
            raise
        self._target.finish(descriptor, at, entry, entry.mode | 0o600)
        self._came(index)

    def _large(self, reader: Reader, index: Any, offset: Any) -> None:
        entry = self._due(index)
        if type(offset) is not int or offset not in (0, self._wanted[index]):
            raise BrokenStream("a file came from an offset that nobody asked for")
        descriptor, at = self._target.part(entry, offset)
        try:
            announced, digest = self._content(reader, descriptor, at, entry, offset)
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):  # a full disk: room for the others
                with contextlib.suppress(OSError):
                    os.unlink(at)
            raise
        if announced and announced == digest and self._fits(index, digest):
            self._target.finish(descriptor, at, entry, 0o600)
            self._came(index)
            return
        os.close(descriptor)
        os.unlink(at)
        if announced:
            self.bad.append(index)
        else:
            self.failed[index] = _CHANGED

    def _content(self, reader: Reader, descriptor: int, at: Any, entry: Entry, offset: int) -> Tuple[str, str]:
        """The sha256 that was announced, "" where the sender gave up, and that of what is there now."""
        digest, buffer = sha256(), memoryview(bytearray(min(CHUNK_BYTES, entry.size)))
        with open(descriptor, "r+b", 0, closefd=False) as file:
            left = offset
            while left:
                piece = buffer[: file.readinto(buffer[:left])]
                if not piece:
                    break
                digest.update(piece)
                left -= len(piece)
            os.ftruncate(descriptor, offset)
            size = offset
            while True:
                fields = reader.message()
                if "sha256" in fields and size == entry.size:
                    return str(fields["sha256"]), digest.hexdigest()
                if "x" in fields:
                    return "", ""
                count = fields.get("n")
                if type(count) is not int or not 0 <= count <= min(CHUNK_BYTES, entry.size - size):
                    raise BrokenStream("a file is not as long as announced")
                # In one piece: every pause lets another thread have the interpreter, and has to get it back.
                piece = buffer[:count]
                reader.fill(piece)
                digest.update(piece)
                self._target.require(at)  # the line may have been frozen for long
                while piece:
                    piece = piece[file.write(piece) :]
                size += count
                if size % WRITE_BACK_BYTES < count:
                    self._target.write_back(descriptor)
                self._passed(count)

    def _fits(self, index: int, digest: str) -> bool:
        return self._expected.get(index, digest) == digest

    def _came(self, index: int) -> None:
        del self._wanted[index]
        self.failed.pop(index, None)


def _rows(rows: Any) -> List[Tuple[Any, Any]]:
    try:
        return [(index, digest) for index, digest in rows]
    except (TypeError, ValueError) as error:
        raise BrokenStream("a list of files has the wrong shape") from error


def outgoing(entries: Sequence[Entry], wanted: Dict[int, int], at: Callable[[str], Any]) -> Iterator[Outgoing]:
    """The files at `wanted` (index -> offset) of `entries`; `at(path)` is where one lies."""
    for index, offset in wanted.items():
        if entries[index].kind == FILE:
            yield Outgoing(index, entries[index], at(entries[index].path), offset)
