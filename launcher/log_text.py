"""A run's log as it is now: from its host, or from what was pulled when the host is gone."""

from __future__ import annotations

from pathlib import Path

from jobs.run_directory import RunDirectory
from launcher.app import App
from launcher.errors import NoSuchHost
from launcher.ledger import Record
from launcher.progress import LogPiece, Progress
from launcher.untrusted import clean
from launcher.watch import watch
from remote.errors import NotFound, Unreachable


def log_text(app: App, record: Record, tail: int | None = None) -> str:
    """The log, cleaned, of it the last `tail` lines.  Raises where neither the host nor a copy has it."""
    pieces: list[str] = []

    def collect(progress: Progress) -> None:
        if isinstance(progress, LogPiece):
            pieces.append(progress.text)

    try:
        watch(record, app.agent(record.host), app.ledger, collect, once=True)
    except (Unreachable, NotFound, NoSuchHost):
        copy = RunDirectory(Path(record.pulled_to)).log if record.pulled_to else None
        if copy is None or not copy.is_file():
            raise
        pieces = [copy.read_text("utf-8", errors="replace")]
    lines = clean("".join(pieces)).splitlines(keepends=True)
    return "".join(lines if tail is None else lines[len(lines) - tail :] if tail else [])
