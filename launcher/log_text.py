"""A run's log as it is now: from its host, else from what was pulled, else from what this machine has seen of it."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.run_directory import RunDirectory
from launcher.app import App
from launcher.duration import in_words
from launcher.errors import LaunchError
from launcher.kept_log import KeptLog
from launcher.ledger import Record
from launcher.progress import LogPiece, Note, Observer, Progress
from launcher.untrusted import Cleaner
from launcher.watch import WHOLE, Part, watch
from remote.errors import RemoteError

READ_BYTES = 256 * 1024
LINE_BYTES = 1024 * 1024


def kept_log(app: App, record: Record) -> KeptLog:
    """Where the log of a run is kept on this machine."""
    return KeptLog(app.settings.kept_logs, record.run_id)


def show_log(app: App, record: Record, observer: Observer, part: Part = WHOLE) -> None:
    """Tell the observer the log in pieces, as they come, and notes about it.

    Raises what kept us from the host where there is no copy either.
    """
    told = False

    def tell(progress: Progress) -> None:
        nonlocal told
        if isinstance(progress, LogPiece):
            told = True
        if isinstance(progress, LogPiece | Note):
            observer(progress)

    try:
        watch(record, app.agent(record.host), app.ledger, tell, once=True, part=part, kept=kept_log(app, record))
    except (RemoteError, LaunchError) as error:
        if told or not show_copy(app, record, observer, part, error.message):
            raise


def show_copy(app: App, record: Record, observer: Observer, part: Part, why: str) -> bool:
    """Tell the observer what this machine has of the log, and from when that is; False where it has nothing."""
    home = RunDirectory(Path(record.pulled_to)) if record.pulled_to else None
    kept = kept_log(app, record)
    if home is not None and home.logs:
        observer(Note(f"{why}; this is the log that was pulled to {home.root}"))
        pieces: Iterator[bytes | str] = _files(home.logs)
    elif standing := kept.standing():
        observer(
            Note(f"{why}; this is what was kept here of the log, from {in_words(standing.age_s)} ago, up to byte"
                 f" {standing.end:,}")
        )  # fmt: skip
        pieces = _kept(kept)
    else:
        return False
    if part.since_s is not None:
        observer(Note("a copy does not tell when a line was printed: --since can't be applied"))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a piece may end within a character
    for piece in pieces if part.tail is None else _last_lines(pieces, part.tail):
        observer(Note(piece) if isinstance(piece, str) else LogPiece(decoder.decode(piece)))
    observer(LogPiece(decoder.decode(b"", final=True)))
    return True


def log_text(app: App, record: Record, part: Part, limit_characters: int, observer: Observer) -> str:
    """The log, cleaned; the observer is told the notes.

    Raises as `show_log`, and LaunchError where it is longer than the limit.
    """
    cleaner, pieces, size = Cleaner(), list[str](), 0

    def collect(progress: Progress) -> None:
        nonlocal size
        if isinstance(progress, LogPiece):
            pieces.append(cleaner.clean(progress.text))
            size += len(pieces[-1])
            if size > limit_characters:
                raise LaunchError(
                    f"{record.run_id}: the log has more than {limit_characters / 1e6:.0f} million characters",
                    hint=f"launch logs {record.run_id} -n 1000 --json, or without --json",
                    code="log_too_long",
                )
        else:
            observer(progress)

    show_log(app, record, collect, part)
    return "".join(pieces) + cleaner.rest()


def _files(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as file:
            while content := file.read(READ_BYTES):
                yield content


def _kept(kept: KeptLog) -> Iterator[bytes | str]:
    at = 0
    for offset, content in kept.parts():
        if offset > at:
            yield f"{offset - at:,} bytes are not kept here"
        yield content
        at = offset + len(content)


def _last_lines(pieces: Iterator[bytes | str], lines: int) -> Iterator[bytes]:
    """The last lines, of one that is very long its end; no more than these and a piece are held."""
    last: deque[bytes] = deque(maxlen=lines)
    rest = b""
    for piece in pieces:
        if isinstance(piece, bytes):
            *whole, rest = (rest + piece).split(b"\n")
            last.extend(line + b"\n" for line in whole)
            rest = rest[-LINE_BYTES:]
    if rest:
        last.append(rest)
    yield from last
