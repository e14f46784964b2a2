"""What this machine has seen of a run's log, for when the host is gone.

A folder a run, in it pieces named by their offset in the log and a random number: a process only ever appends to
pieces of its own, so any number of them may keep the same log at once, and what two of them have is the same bytes.
Both a run's pieces and all of them together are bounded; the oldest go.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

RUN_BYTES = 64 * 1024 * 1024
ALL_BYTES = 1024 * 1024 * 1024
PIECE_BYTES = 4 * 1024 * 1024
READ_BYTES = 256 * 1024
_NAME = re.compile(r"(\d{16})\.[0-9a-f]{8}\Z")


class Part(NamedTuple):
    """A stretch of the log that is there."""

    offset: int
    content: bytes


@dataclass(frozen=True)
class Standing:
    """How much is kept: up to which byte of the log, and how many seconds ago the host said so."""

    end: int
    age_s: float


class KeptLog:
    """The kept log of one run.  `keep` never raises: a full disk here does not end the watching."""

    def __init__(
        self, folder: Path, run_id: str, *, run_bytes: int = RUN_BYTES, piece_bytes: int = PIECE_BYTES
    ) -> None:
        self._all = folder
        self._folder = folder / run_id
        self._run_bytes, self._piece_bytes = run_bytes, min(piece_bytes, max(1, run_bytes // 4))
        self._piece: IO[bytes] | None = None
        self._start = self._end = -1  # of the piece that is written, in the log
        self._covered: list[tuple[int, int]] | None = None
        self._gave_up = False

    def keep(self, offset: int, content: bytes) -> None:
        """Keep bytes of the log that begin at `offset`."""
        if self._gave_up:
            return
        try:
            if self._covered is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._covered = _united((start, start + size) for start, size, _ in self._pieces())
            for start, end in _uncovered(offset, offset + len(content), self._covered):
                self._append(start, content[start - offset : end - offset])
        except OSError:
            self._gave_up = True
            self.close()

    def seen(self) -> None:
        """Note that the host had nothing more to say by now."""
        self.close()
        with contextlib.suppress(OSError, IndexError):
            self._pieces()[-1][2].touch()

    def standing(self) -> Standing | None:
        """None where nothing is kept."""
        try:
            pieces = self._pieces()
            newest = max(path.stat().st_mtime for _, _, path in pieces)
            return Standing(max(start + size for start, size, _ in pieces), max(0.0, time.time() - newest))
        except (OSError, ValueError):
            return None

    def parts(self) -> Iterator[Part]:
        """What is kept, in order, nothing twice; where one does not begin at the end of the last there is a gap."""
        at = 0
        for start, size, path in self._pieces():
            if start + size <= at:
                continue
            at = max(at, start)
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(at - start)
                while content := file.read(READ_BYTES):
                    yield Part(at, content)
                    at += len(content)

    def forget(self) -> None:
        """Remove it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _append(self, offset: int, content: bytes) -> None:
        while content:
            if self._piece is None or offset != self._end or self._end - self._start >= self._piece_bytes:
                self._begin_piece(offset)
            assert self._piece is not None
            now = content[: self._piece_bytes - (self._end - self._start)]
            self._piece.write(now)
            offset, content = offset + len(now), content[len(now) :]
            self._end = offset

    def _begin_piece(self, offset: int) -> None:
        self.close()
        self._make_room()
        # Unbuffered: what was seen is kept, however this process ends.
        self._piece = (self._folder / f"{offset:016d}.{secrets.token_hex(4)}").open("xb", buffering=0)
        self._start = self._end = offset

    def close(self) -> None:
        """End the piece that is written; `keep` begins another."""
        if self._piece is not None:
            self._piece.close()
            self._piece = None

    def _make_room(self) -> None:
        pieces = self._pieces()
        size = sum(size for _, size, _ in pieces)
        for _, length, path in pieces:
            if size + self._piece_bytes <= self._run_bytes:
                break
            with contextlib.suppress(OSError):  # Windows keeps what another process has open
                path.unlink()
                size -= length
        if not pieces:  # a run that was not kept before
            _make_room_for_runs(self._all, self._folder)

    def _pieces(self) -> list[tuple[int, int, Path]]:
        """Offset, size and file of each, by offset."""
        found = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in self._folder.iterdir():
                if name := _NAME.match(path.name):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((int(name[1]), path.stat().st_size, path))
        return sorted(found)


def _make_room_for_runs(folder: Path, present: Path) -> None:
    runs = []
    for run in folder.iterdir():
        if run != present and run.is_dir():
            sizes = [(path.stat().st_mtime, path.stat().st_size) for path in run.iterdir()]
            runs.append((max((at for at, _ in sizes), default=0.0), sum(size for _, size in sizes), run))
    size = sum(size for _, size, _ in runs)
    for _, length, run in sorted(runs):
        if size <= ALL_BYTES - RUN_BYTES:
            return
        shutil.rmtree(run, ignore_errors=True)
        size -= length


def _united(stretches: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    united: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(end, united[-1][1]))
        else:
            united.append((start, end))
    return united


def _uncovered(start: int, end: int, covered: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for known_start, known_end in covered:
        if known_end <= start:
            continue
        if known_start >= end:
            break
        if start < known_start:
            yield start, known_start
        start = max(start, known_end)
    if start < end:
        yield start, end
