"""Cleans a host up: what nothing needs any more goes, or all that `launch` ever put there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from jobs.run_directory import RunDirectory
from launcher.app import App
from launcher.host_book import LOCAL
from launcher.untrusted import clean
from remote import clean as cleaning
from remote import runs
from remote.clean import Asked, Cleaned, Kept

# One, and several.
NAMES = {
    "run": ("run", "runs"),
    "environment": ("environment", "environments"),
    "python": ("Python for environments", "Pythons for environments"),
    "downloads": ("cache of downloads", "caches of downloads"),
    "object": ("stored file", "stored files"),
    "quarantined": ("damaged stored file", "damaged stored files"),
    "leftover": ("unfinished piece", "unfinished pieces"),
    "program": ("version of launch's program", "versions of launch's program"),
    "trash": ("rest of an earlier clean", "rests of an earlier clean"),
    "other": ("other thing", "other things"),
}
REASONS = {
    "live": "not over",
    "guarded": "over, but a notice or the power-off is still to come",
    "not pulled": "not pulled to this machine",
    "unreadable": "can't be read, or are from a newer launch",
    "used by a run": "needed by a run",
    "used by an environment": "an environment is built on it",
    "running": "running now",
}
RECENT = {
    "environment": "used in the last 7 days",
    "python": "fetched or built on in the last day",
    "downloads": "an environment was built in the last 7 days",
    "object": "pushed in the last hour",
    "leftover": "touched in the last day",
    "program": "from the last day",
}
# Of these nobody wants to read every name.
UNNAMED = ("object", "leftover", "trash")


@dataclass(frozen=True)
class Report:
    """What went from `host`, or with `dry_run` would go."""

    host: str
    everything: bool
    dry_run: bool
    cleaned: Cleaned

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to remove."""
        return not self.cleaned.totals and not self.cleaned.key_lines

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        data = {"host": self.host, "all": self.everything, "dry_run": self.dry_run, **asdict(self.cleaned)}
        cleaned: dict[str, Any] = _cleaned(data)
        return cleaned

    def question(self) -> str:
        """For a person who has to say yes."""
        what = f"Remove everything of launch from {self.host}?" if self.everything else f"Remove this from {self.host}?"
        return f"{self.in_words()}\n{clean(what)}"

    def in_words(self) -> str:
        """For a person: what goes, what stays and why, what failed."""
        return clean("\n".join(self._lines()))

    def _lines(self) -> Iterator[str]:
        done = self.cleaned
        if self.is_empty:
            yield f"there is nothing to remove on {self.host}"
        elif self.dry_run:
            yield f"would remove from {self.host}, which frees {_size(done.freed_bytes)}"
        else:
            yield f"removed from {self.host}, {_size(done.freed_bytes)} freed"
        for total in done.totals:
            names = [item.path.rpartition("/")[2] for item in done.items if item.kind == total.kind]
            named = "" if total.kind in UNNAMED else ": " + _listed(names, total.count)
            yield f"  {_counted(total.kind, total.count)}, {_size(total.size_bytes)}{named}"
        if done.key_lines:
            yield (
                f"  this machine's key in ~/.ssh/authorized_keys: {self.host} asks for a password again, and where it "
                "takes none, nobody here gets in"
            )
        if done.never_pulled:
            yield f"never pulled, and lost for good: {', '.join(done.never_pulled)}"
        kept = [one for one in done.kept if one.kind != "program"]  # there is always one, and it is small
        if kept:
            yield "kept"
        yield from (f"  {_counted(one.kind, one.count)}, {_why(one)}" for one in kept)
        if done.error_count:
            yield f"{done.error_count} could not be removed"
        yield from (f"  {error}" for error in done.errors)


def clean_host(app: App, name: str, *, everything: bool, force: bool, dry_run: bool) -> Report:
    """Remove what nothing needs from the host, or everything, or with `dry_run` find out what would go.

    Raises what remote.clean.clean raises.
    """
    agent, saved = app.agent(name), app.hosts.find(name)
    there = {state.run_id for state in runs.states(agent)}
    at_home = {record.run_id for record in app.ledger.lines() if record.pulled_to and _is_home(Path(record.pulled_to))}
    # Only of runs that the host names itself: it learns nothing about those of other hosts.
    asked = Asked(everything, force, pulled=tuple(sorted(there & at_home)))
    if everything and saved.name != LOCAL:
        from remote.ssh import key_files

        installed = [Path(saved.identity_file)] if saved.identity_file else []
        asked = replace(asked, keys=tuple(key_files.own_keys(*installed)), mark=key_files.MARK)
    return Report(name, everything, dry_run, cleaning.clean(agent, asked, dry_run=dry_run))


def _is_home(folder: Path) -> bool:
    return RunDirectory(folder).result.is_file()


def _why(kept: Kept) -> str:
    why = RECENT.get(kept.kind, kept.reason) if kept.reason == "recent" else REASONS.get(kept.reason, kept.reason)
    return f"{why}: {_listed(kept.names, kept.count)}" if kept.kind == "run" else why


def _counted(kind: str, count: int) -> str:
    one, several = NAMES[kind]
    return f"1 {one}" if count == 1 else f"{count} {several}"


def _listed(names: list[str] | tuple[str, ...], count: int) -> str:
    return ", ".join(names) + (f" and {count - len(names)} more" if count > len(names) else "")


def _size(size_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"


def _cleaned(value: Any) -> Any:
    """The same value with every text in it safe to show."""
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(one) for one in value]
    return clean(value) if isinstance(value, str) else value
