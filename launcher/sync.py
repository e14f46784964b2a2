"""Syncs a folder or file with a host, in either direction, going on by itself after a cut."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import LaunchError
from launcher.progress import Note, Observer, Transfer
from launcher.untrusted import clean

if TYPE_CHECKING:
    from launcher.app import App
    from remote import sync

# One letter before a colon is a drive of Windows.
REMOTE = re.compile(r"(?P<host>[^/\\:]{2,}):(?P<path>.*)\Z", re.DOTALL)
SHOWN = 20
TRIES_WITHOUT_PROGRESS = 3


@dataclass(frozen=True)
class Route:
    """From where to where, as it was typed: `host` is a saved host or an address, `path` lies on it, `local` here."""

    host: str
    path: str
    local: str
    up: bool


def route(source: str, destination: str) -> Route:
    """Which side is the host's.  Raises LaunchError unless exactly one is."""
    there, here = REMOTE.match(source), REMOTE.match(destination)
    if bool(there) == bool(here) or not source or not destination:
        raise LaunchError(
            "one of the two, and only one, is HOST:PATH" if bool(there) == bool(here) else "a path is empty",
            hint="launch sync data/ box:data/, or launch sync box:results/ results/",
            code="usage",
        )
    match = there or here
    assert match is not None
    return Route(match["host"], match["path"], destination if there else source, up=here is not None)


@dataclass(frozen=True)
class Synced:
    """What a sync came to, for a person and for a program."""

    route: Route
    outcome: sync.Outcome
    dry_run: bool

    def to_json(self) -> dict[str, Any]:
        one = self.outcome
        return {
            "host": self.route.host,
            "root": one.root,
            "direction": "up" if self.route.up else "down",
            "dry_run": self.dry_run,
            "total": one.total,
            "sent": one.sent,
            "sent_bytes": one.sent_bytes,
            "resumed_bytes": one.resumed_bytes,
            "copied": one.copied,
            "adopted": one.adopted,
            "linked": one.linked,
            "deleted": one.deleted,
            "skipped": one.skipped,
            "special": one.special,
            "collisions": one.collisions,
            "failed": one.failed,
        }

    def in_words(self, *, verbose: bool) -> str:
        """What was done; with `verbose` every path."""
        one = self.outcome
        rules = one.rules or "ignore files below"
        would = "would be " if self.dry_run else ""
        lines = []
        if verbose or self.dry_run:
            shown = [(path, "send") for path in one.sent] + [(path, "copy there") for path in one.copied]
            shown += [(path, "link") for path in one.linked] + [(path, "mode, time") for path in one.adopted]
            shown += [(path, "delete") for path in one.deleted]
            shown += [(path, f"left out ({rules})") for path in one.skipped] if verbose else []
            limit = len(shown) if verbose else SHOWN
            lines += [f"{what:<10} {_name(path)}" for path, what in shown[:limit]]
            if len(shown) > limit:
                lines.append(f"... and {len(shown) - limit} more: -v shows all")
        counts = [(len(one.sent), "sent"), (len(one.copied), "found there and copied"), (len(one.linked), "linked"),
                  (len(one.adopted), "given a new mode or time"), (len(one.deleted), "deleted")]  # fmt: skip
        size = f", {_size(one.sent_bytes)}" if one.sent_bytes else ""
        went = ", ".join(f"{count:,} {would}{what}{size if what == 'sent' else ''}" for count, what in counts if count)
        same = max(0, one.total - one.changed - len(one.failed))
        lines.append(f"{went or 'nothing to do'}; {same:,} unchanged")
        if one.resumed_bytes:
            lines.append(f"{one.resumed_bytes / 1e6:.1f} MB had arrived before")
        if one.skipped:
            lines.append(f"{len(one.skipped):,} left out by {rules}" + ("" if verbose else " (-v lists them)"))
        if one.special:
            lines.append(f"{len(one.special):,} left out, neither files, folders nor links: {_name(one.special[0])}")
        if one.collisions:
            lines.append(f"note: one name on Windows and macOS: {clean('; '.join(one.collisions[:3]))}")
        return "\n".join(lines)


def sync_paths(
    app: App,
    asked: Route,
    *,
    delete: bool = False,
    checksum: bool = False,
    dry_run: bool = False,
    observer: Observer,
) -> Synced:
    """Make the one side like the other.  Raises LaunchError for files that did not go, and what the engine raises."""
    from remote import sync
    from remote.hash_cache import HashCache

    options = sync.Options(delete=delete, checksum=checksum, dry_run=dry_run)
    agent = app.agent(asked.host)
    hashes = HashCache(app.settings.hashes_file)
    moved = Moved(observer)
    work = _push if asked.up else _pull
    outcome = going_on(lambda: work(agent, asked, options, hashes, moved), moved, observer)
    synced = Synced(asked, outcome, dry_run)
    if outcome.failed:
        shown = "\n".join(f"  {_name(path)}: {_name(why)}" for path, why in list(outcome.failed.items())[:SHOWN])
        raise LaunchError(
            f"{len(outcome.failed)} files did not go; all others did:\n{shown}", hint="run the same command again"
        )
    return synced


class Moved:
    """Passes on how far a transfer is, and remembers whether anything moved and how much there was to do at first."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.ever = False
        self.total_bytes: int | None = None

    def __call__(self, moving: sync.Moving) -> None:
        self.ever = True
        if self.total_bytes is None:
            self.total_bytes = moving.total_bytes
        self._observer(Transfer(moving.done_bytes, moving.total_bytes, moving.files))


def going_on(work: Callable[[], Any], moved: Moved, observer: Observer) -> Any:
    """`work`, done again after a cut for as long as it gets anywhere; it begins where it was cut.

    What was sent may be lost on the way: it is the next beginning that shows how much is left.
    """
    from remote.errors import Unreachable

    tries, least_bytes = 0, None
    while True:
        moved.total_bytes = None
        try:
            return work()
        except Unreachable as error:
            left_bytes = moved.total_bytes
            if left_bytes is not None and (least_bytes is None or left_bytes < least_bytes):
                tries, least_bytes = 0, left_bytes
            else:
                tries += 1
            if not moved.ever or tries >= TRIES_WITHOUT_PROGRESS:
                raise
            observer(Note(f"{error.message}; going on"))


def _push(agent: Any, asked: Route, options: sync.Options, hashes: Any, moved: Moved) -> sync.Outcome:
    from remote import sync
    from remote.ignore import Ignore

    source = _expanded(asked.local)
    if not source.exists():
        raise LaunchError(f"{asked.local}: no such file or folder", hint="launch sync --help", code="usage")
    path = asked.path or "."
    if not source.is_dir():
        if options.delete:
            raise LaunchError("--delete is for folders", hint="leave it out", code="usage")
        return sync.push(
            agent, source.resolve(), path, leaf=source.name, options=options, hashes=hashes, observer=moved
        )
    if not _slashed(asked.local):
        path = f"{path.rstrip('/')}/{Path(os.path.abspath(source)).name}"
    return sync.push(
        agent, source, path, rules=Ignore.at(source), options=options, hashes=hashes, observer=moved
    )  # fmt: skip


def _pull(agent: Any, asked: Route, options: sync.Options, hashes: Any, moved: Moved) -> sync.Outcome:
    from remote import sync
    from remote.ignore import Ignore

    path, local = asked.path or ".", _expanded(asked.local)
    whole, name = _slashed(path) or path == "~", path.rsplit("/", 1)[-1]
    target = local if whole else local / name
    # A file goes into the folder that is named, or gets the name; never one of the host's choice.
    into = (local, name) if local.is_dir() or _slashed(asked.local) else (local.parent, local.name)
    return sync.pull(
        agent, path, target, file_at=None if whole else into,
        rules=Ignore.at(target) if options.delete and target.is_dir() else None,
        options=options, hashes=hashes, observer=moved,
    )  # fmt: skip


def _slashed(path: str) -> bool:
    """Whether a folder's contents are meant, as rsync has it: `SRC/`, and `.` as well."""
    return path.endswith("/") or (os.name == "nt" and path.endswith("\\")) or path.rsplit("/", 1)[-1] in (".", "..")


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} KB"


def _name(path: str) -> str:
    """On one line, and with \\xff for what is no text; a host may have made it up."""
    try:
        shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        shown = path.encode("utf-8", "backslashreplace").decode("utf-8")
    return clean(shown).replace("\n", "\\n")
