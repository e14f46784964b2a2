"""What has to be done to make one tree like another: a pure comparison of two listings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from remote.errors import RemoteError
from remote.onhost.tree import FILE, FOLDER, LINK, Buckets, Entry, same

# Below this size a content is sent sooner than looked for elsewhere.
WORTH_LOOKING_BYTES = 16 * 1024


@dataclass
class Differences:
    """What differs.  `entries` are to be made; all numbers are places in it.

    `files` must be sent; `alike` have the size of what is there, and only their content can tell whether they must be;
    `elsewhere` are the paths there, by size, where one of them may lie under another name; of `adopt` only mode or time
    differs; `links` are symbolic links.  `orphans` are there only; `conflicts` are of another kind there.
    """

    entries: list[Entry] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Where each of `entries` stands among those of the source that lie in buckets that differ."""
    files: dict[int, int] = field(default_factory=dict)
    alike: list[int] = field(default_factory=list)
    elsewhere: dict[int, list[str]] = field(default_factory=dict)
    adopt: list[int] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    copies: list[tuple[int, str]] = field(default_factory=list)
    stored: list[tuple[int, str]] = field(default_factory=list)
    orphans: list[Entry] = field(default_factory=list)
    conflicts: list[Entry] = field(default_factory=list)
    proven: set[int] = field(default_factory=set)
    """Of `alike`: what has the time and mode that it should have."""

    @property
    def size_bytes(self) -> int:
        """Content that has to be sent."""
        return sum(self.entries[index].size - offset for index, offset in self.files.items())

    @property
    def doubtful(self) -> list[int]:
        """Those whose content decides whether they are sent."""
        return [*self.alike, *(index for index in self.files if self.entries[index].size in self.elsewhere)]

    @property
    def candidates(self) -> set[str]:
        """The paths there whose content decides about those."""
        return {self.entries[index].path for index in self.alike}.union(*self.elsewhere.values())

    def note_contents(self, ours: Callable[[int], str], theirs: dict[str, str], stored: Iterable[str]) -> None:
        """Spare what is there already: under the same path, under another one, in a store.

        `ours(i)` is the sha256 of an entry, `theirs` of paths there.
        """
        kept = set(stored)
        for index in self.alike:
            path = self.entries[index].path
            if path not in theirs or theirs[path] != ours(index):
                self.files[index] = 0
            elif index not in self.proven:
                self.adopt.append(index)
        self.alike = []
        spare = {theirs[path]: path for paths in self.elsewhere.values() for path in paths if path in theirs}
        for index in list(self.files):
            content = ours(index)
            if not content:
                continue
            if content in spare:
                self.copies.append((index, spare[content]))
                del self.files[index]
            elif content in kept:
                self.stored.append((index, content))
                del self.files[index]

    def resume(self, parts: dict[str, int], key: Callable[[Entry], str]) -> None:
        """Note how much of each file lies there unfinished."""
        for index in self.files:
            have = parts.get(key(self.entries[index]), 0)
            if type(have) is int and 0 < have <= self.entries[index].size:
                self.files[index] = have

    def plan(self, delete: Sequence[str], first: bool) -> dict[str, Any]:
        """As the receiving side takes it."""
        return {"files": list(self.files.items()), "copies": self.copies, "stored": self.stored, "links": self.links,
                "adopt": self.adopt, "delete": list(delete), "first": first}  # fmt: skip


def compare(
    source: Sequence[Entry],
    there: Sequence[Entry],
    differ: Buckets,
    *,
    mode_mask: int,
    checksum: bool = False,
    links_stay: bool = False,
) -> Differences:
    """How `there` differs from `source`; both need only be whole within the buckets that differ.

    With `checksum` size and time prove nothing.  With `links_stay` an existing link is not to be changed.
    """
    found = Differences()
    present = {entry.path: entry for entry in there}
    wanted = set()
    for place, entry in enumerate(differ.of(source)):
        wanted.add(entry.path)
        other = present.get(entry.path)
        if other is None:
            _add(found, entry, place)
            continue
        if other.kind != entry.kind or (entry.kind == LINK and links_stay and other.link != entry.link):
            found.conflicts.append(other)
            _add(found, entry, place)
            continue
        if not mode_mask:
            entry = entry._replace(mode=other.mode)
        proven = same(entry, other, mode_mask)
        if proven and not (checksum and entry.kind == FILE):
            continue
        number = len(found.entries)
        found.entries.append(entry)
        found.places.append(place)
        if entry.kind == LINK:
            found.links.append(number)
        elif entry.kind == FILE and entry.size != other.size:
            found.files[number] = 0
        elif entry.kind == FILE and (checksum or entry.mtime_ns // 1000 != other.mtime_ns // 1000):
            found.alike.append(number)
            if proven:
                found.proven.add(number)
        elif entry.kind == FILE:
            found.adopt.append(number)
    found.orphans = [entry for entry in differ.of(there) if entry.path not in wanted]
    sizes = {found.entries[index].size for index in found.files}
    for orphan in found.orphans:
        if orphan.kind == FILE and orphan.size >= WORTH_LOOKING_BYTES and orphan.size in sizes:
            found.elsewhere.setdefault(orphan.size, []).append(orphan.path)
    return found


def _add(found: Differences, entry: Entry, place: int) -> None:
    if entry.kind == FILE:
        found.files[len(found.entries)] = 0
    elif entry.kind == LINK:
        found.links.append(len(found.entries))
    found.entries.append(entry)
    found.places.append(place)


def to_delete(found: Differences, protected: Callable[[str, bool], bool]) -> list[str]:
    """What `--delete` removes: what is in the way, and what is there only unless `protected(path, is_folder)`.

    A folder stays with what is protected in it.  Raises RemoteError where that is in the way.
    """
    every = [*found.orphans, *found.conflicts]
    kept = {entry.path for entry in every if protected(entry.path, entry.kind == FOLDER)}
    for path in list(kept):
        while (path := path.rpartition("/")[0]) and path not in kept:
            kept.add(path)
    if stuck := [entry.path for entry in found.conflicts if entry.path in kept]:
        raise RemoteError(
            f"{stuck[0]!r} is in the way, and --delete leaves what the ignore rules name", hint="move it away"
        )
    return [entry.path for entry in every if entry.path not in kept]
