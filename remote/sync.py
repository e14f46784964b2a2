"""Brings a folder or file to a host, or home from one: every byte once, nothing half-written.

The laptop decides and the host only shows and does what it is told.  Both list their trees and compare digests of
buckets of entries, so that what did not change is never named.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote.agent import Agent, Conversation
from remote.differences import Differences, compare, to_delete
from remote.errors import BadReply, RemoteError
from remote.hash_cache import HashCache
from remote.onhost import tree
from remote.onhost.frames import BrokenStream, EndedEarly, message
from remote.onhost.refused import Refused
from remote.onhost.target import SPARE_BYTES, Target, part_key
from remote.onhost.transfer import WORTH_ASKING_BYTES, Receiver, Sender, outgoing
from remote.onhost.tree import FILE, FOLDER, LINK, Buckets, Entry

OPENING_TIMEOUT_S = 600
MODES_UP = 0o777
# Nobody else may write to what came from a host, whatever it says.
MODES_DOWN = 0o755
# More than this in a target is not looked through, only what the host names.
LOCAL_LIMIT = 120_000
SHOWN = 20
# How long an answer about contents gets; a longer line than 8 MiB is not read.
ANSWER_BYTES = 2 * 1024 * 1024
DIGEST_CHARACTERS = 70


@dataclass(frozen=True)
class Options:
    """How to sync: `delete` what only the target has, compare by `checksum`, only show with `dry_run`."""

    delete: bool = False
    checksum: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Moving:
    """How far a transfer is: bytes of content, and of how many."""

    done_bytes: int
    total_bytes: int
    files: int


Observer = Callable[[Moving], None]
PLAIN = Options()
NO_CACHE = HashCache()


def nobody(moving: Moving) -> None:
    """The observer that does not look."""


@dataclass
class Outcome:
    """What a sync came to.  `sent` and the like are paths; `sent_bytes` is content that went over the line."""

    root: str = ""
    total: int = 0
    sent: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    resumed_bytes: int = 0
    copied: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    rules: str = ""
    special: list[str] = field(default_factory=list)
    collisions: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        return len(self.sent) + len(self.copied) + len(self.adopted) + len(self.linked)


class Meter:
    """Tells an observer how many bytes went by."""

    def __init__(self, found: Differences, observer: Observer) -> None:
        self.done, self._total, self._files, self._observer = 0, found.size_bytes, len(found.files), observer

    def __call__(self, count: int) -> None:
        self.done += count
        self._observer(Moving(self.done, max(self._total, self.done), self._files))


def push(
    agent: Agent,
    source: Path,
    path: str,
    *,
    leaf: str = "",
    rules: Any = None,
    options: Options = PLAIN,
    hashes: HashCache = NO_CACHE,
    observer: Observer = nobody,
) -> Outcome:
    """Make the folder `path` on the host like the folder `source`; of a file, `leaf` is its name in `path`.

    Where `path` is no folder there, and has no slash at its end, a file gets that name instead.  Raises RemoteError,
    also for links that lead out of the tree and for what is in the way; the outcome has the files that did not go.
    """
    with _scanning(source, leaf, rules) as scanning:
        agent.host.connect()
        listed = scanning.result()
    outcome = Outcome(skipped=listed.skipped, special=listed.special, rules=getattr(rules, "source", ""))
    outcome.total = sum(entry.kind != FOLDER for entry in listed.entries)
    _check_links(source, listed.entries)
    mask = 0 if tree.WINDOWS else MODES_UP
    large = any(entry.size >= WORTH_ASKING_BYTES for entry in listed.entries)
    request = {"verb": "in", "path": path, "leaf": leaf, "mode_mask": mask, "sizes": large}
    request["buckets"] = _buckets(listed.entries, mask) if not options.checksum and not leaf else ""
    if not options.delete and not leaf:
        request["folders"] = [entry.path for entry in listed.entries if entry.kind == FOLDER]
    with _talking(agent, request) as talk:
        opening, there, differ = _opening(talk, request)
        more = talk.message()
        outcome.root = str(opening.get("root"))
        entries = listed.entries
        at: Callable[[str], Any] = Target(str(source)).path
        if leaf:
            name = str(opening.get("leaf"))
            entries, at = [entries[0]._replace(path=name)], lambda path: tree.native(str(source))
        found = compare(entries, there, differ, mode_mask=mask, checksum=options.checksum)
        _refuse_conflicts(f"on {agent.host.name}", found, options)
        _ask(talk, found, lambda path: _content(hashes, at(path)), _sizes(more))
        found.resume(_parts(more), part_key)
        delete = _deletions(found, entries, rules, options)
        _check_room(agent.host.name, found, opening.get("free"), opening.get("inodes"))
        if not options.dry_run and (found.entries or delete):
            plan = found.plan(delete, first=bool(found.conflicts))
            talk.send([message({"plan": plan}), *tree.pack(found.entries)])
            _send(talk, found, at, outcome, observer)
        _conclude(outcome, found, delete)
    return outcome


def pull(
    agent: Agent,
    path: str,
    target: Path,
    *,
    names: Sequence[str] | None = None,
    file_at: tuple[Path, str] | None = None,
    rules: Any = None,
    options: Options = PLAIN,
    hashes: HashCache = NO_CACHE,
    observer: Observer = nobody,
) -> Outcome:
    """Make the folder `target` like the folder `path` on the host, or only the `names` in it.

    If `path` turns out to be a file, it comes to `file_at`: a folder, and its name there, which the host has no say in.
    `rules` protect what they cover from deletion.  The host is not trusted: no name leads out of `target`, no link is
    replaced or written through.  Raises RemoteError, and OSError for the disk.
    """
    with _scanning(target, "", None, limit=tree.MAX_ENTRIES if options.delete else LOCAL_LIMIT) as scanning:
        agent.host.connect()
        here = _listed_here(scanning)
    mask = 0 if tree.WINDOWS else MODES_DOWN
    request: dict[str, Any] = {"verb": "out", "path": path, "mode_mask": mask, "buckets": ""}
    if here and not options.checksum and names is None:
        request["buckets"] = _buckets(here, mask)
    if names is not None:
        request["names"] = list(names)
    with _talking(agent, request) as talk:
        opening, entries, differ = _opening(talk, request)
        talk.message()
        if len(differ.of(entries)) != len(entries):
            raise BrokenStream("the listing names what does not differ")
        entries = [entry._replace(mode=_modest(entry)) for entry in entries]
        outcome = Outcome(root=str(opening.get("root")), special=_texts(opening.get("special")))
        outcome.total = _count(opening.get("total"))
        is_file = opening.get("kind") == FILE and file_at is not None
        _check_entries(agent.host.name, entries, names, is_file)
        alike = differ.outside(here or ())
        outcome.collisions = tree.collisions([*alike, *entries])
        listed = entries
        if is_file and file_at is not None:
            target, leaf = file_at
            listed, here, differ = [entries[0]._replace(path=leaf)], None, Buckets(1)
            if tree.problems(listed):
                raise RemoteError(f"{leaf!r} can't be the name of a file here", hint="name another target")
        elif target.exists() and not target.is_dir():
            raise RemoteError(f"{target} is not a folder", hint="name another target")
        into = Target(str(target), new_links_only=True)
        found = compare(listed, _there(here, into, listed), differ, mode_mask=mask, checksum=options.checksum,
                        links_stay=True)  # fmt: skip
        _refuse_conflicts("here", found, options)
        _hash_here(talk, found, into, hashes, {new.path: old.path for new, old in zip(listed, entries, strict=True)})
        found.resume(into.parts(), part_key)
        delete = [] if is_file else _deletions(found, [*alike, *listed], rules, options)
        room = into.room()
        _check_room("this machine", found, room.size_bytes, room.inodes)
        if not options.dry_run and (found.entries or delete):
            _receive(talk, found, into, listed, outcome, observer, delete)
        _conclude(outcome, found, delete)
    return outcome


@contextlib.contextmanager
def _scanning(root: Path, leaf: str, rules: Any, limit: int = tree.MAX_ENTRIES) -> Iterator[Future[tree.Scan]]:
    """The listing of a folder here, made while the host is connected to."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(_scan, root, leaf, rules, limit)


def _scan(root: Path, leaf: str, rules: Any, limit: int) -> tree.Scan:
    if leaf:
        found = tree.Scan()
        entry = tree.look(leaf, os.stat(root), tree.native(str(root)))
        if entry is None:
            raise RemoteError(f"{root} is neither a file nor a folder")
        found.entries.append(entry)
    else:
        found = tree.scan(str(root), rules=rules, limit=limit)
    if tree.WINDOWS:
        found.entries = [entry._replace(mode=0o755 if entry.kind == FOLDER else 0o644) for entry in found.entries]
    return found


def _listed_here(scanning: Future[tree.Scan]) -> list[Entry] | None:
    """What lies in the target, None where that is too much to look through."""
    try:
        return scanning.result().entries
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Refused:
        return None


def _there(here: list[Entry] | None, into: Target, listed: Sequence[Entry]) -> list[Entry]:
    """What lies in the target under the names that are listed, or all of it."""
    if here is not None:
        return here
    found = []
    for entry in listed:
        with contextlib.suppress(OSError):
            at = into.path(entry.path)
            if (one := tree.look(entry.path, os.lstat(at), at)) is not None:
                found.append(one)
    return found


def _buckets(entries: Sequence[Entry], mask: int) -> str:
    digests = tree.digests(entries, tree.bucket_count(len(entries)), mask)
    return base64.b64encode(digests).decode("ascii")


def _modest(entry: Entry) -> int:
    """A mode that this machine is willing to give: nobody else writes, and its owner can look into it."""
    return (entry.mode & MODES_DOWN) | (0o700 if entry.kind == FOLDER else 0o400)


@contextlib.contextmanager
def _talking(agent: Agent, request: dict[str, Any]) -> Iterator[Conversation]:
    """A conversation whose faults are errors of ours."""
    with agent.converse("sync", request, timeout_s=OPENING_TIMEOUT_S) as talk:
        try:
            yield talk
        except EndedEarly as error:
            raise talk.cut(error) from error
        except BrokenStream as error:
            raise BadReply(f"{agent.host.name}: what it sends can't be read: {error}") from error
        except Refused as refused:
            raise RemoteError(refused.message, hint=refused.hint, code=refused.code) from refused


def _opening(talk: Conversation, request: dict[str, Any]) -> tuple[dict[str, Any], list[Entry], Buckets]:
    opening = talk.message()
    entries = tree.unpack(talk.reader)
    numbers = opening.get("differ")
    if numbers is None:
        return opening, entries, Buckets(1)
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        raise BrokenStream("the list of differences has the wrong shape")
    return opening, entries, Buckets(tree.digest_count(base64.b64decode(request["buckets"])) or 1, numbers)


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _parts(more: dict[str, Any]) -> dict[str, int]:
    parts = more.get("parts")
    return parts if isinstance(parts, dict) else {}


def _sizes(more: dict[str, Any]) -> set[int]:
    sizes = more.get("sizes")
    return {size for size in sizes if type(size) is int} if isinstance(sizes, list) else set()


def _check_links(source: Path, entries: Sequence[Entry]) -> None:
    out = [entry for entry in entries if entry.kind == LINK and tree.leads_out(entry.path, entry.link)]
    if out:
        shown = "\n".join(f"  {one.path} -> {one.link}" for one in out[:SHOWN])
        raise RemoteError(
            f"{len(out)} links in {source} lead out of it:\n{shown}",
            hint="put them into .launchignore, or what they lead to in their place",
        )


def _check_entries(host: str, entries: Sequence[Entry], names: Sequence[str] | None, is_file: bool) -> None:
    found = tree.problems(entries)
    if names is not None:
        asked = tuple(f"{name}/" for name in names)
        found += [f"{one.path!r}: nobody asked for it" for one in entries
                  if one.path not in names and not one.path.startswith(asked)]  # fmt: skip
    if is_file and (len(entries) != 1 or entries[0].kind != FILE or "/" in entries[0].path):
        found.append("it is not the one file that was asked for")
    if tree.WINDOWS or _folds_case():
        found += [f"{pair} are one name here" for pair in tree.collisions(entries)]
    if found:
        shown = "\n".join(f"  {one}" for one in found[:SHOWN])
        raise BadReply(f"{host}: {len(found)} files there can't be brought here:\n{shown}", hint="nothing was written")


def _folds_case() -> bool:
    import sys

    return sys.platform == "darwin"


def _refuse_conflicts(where: str, found: Differences, options: Options) -> None:
    if found.conflicts and not options.delete:
        names = {FILE: "a file", FOLDER: "a folder", LINK: "a link"}
        shown = "\n".join(f"  {one.path} is {names[one.kind]}" for one in found.conflicts[:SHOWN])
        raise RemoteError(
            f"{len(found.conflicts)} names are taken {where} by something else:\n{shown}",
            hint="move them away, or use --delete",
        )


def _ask(talk: Conversation, found: Differences, ours: Callable[[str], str], sizes: set[int]) -> None:
    """Find out which contents the host has, where that is likely and worth the turn."""
    doubtful = (index for index in (*found.files, *found.alike) if found.entries[index].size in sizes)
    have = {index: ours(found.entries[index].path) for index in doubtful}
    paths = found.candidates
    if not paths and not have:
        return
    answers = _question(talk, paths, {content for content in have.values() if content})
    mine = have | {index: ours(found.entries[index].path) for index in found.doubtful if index not in have}
    theirs, stored = answers()
    found.note_contents(lambda index: mine.get(index, ""), theirs, stored)


def _hash_here(talk: Conversation, found: Differences, into: Target, hashes: HashCache, names: dict[str, str]) -> None:
    """Find out which of the contents asked for lie here already."""
    here = found.candidates
    if not here:
        return
    asked = {index: names[found.entries[index].path] for index in found.doubtful}
    answers = _question(talk, asked.values(), ())
    mine = {path: content for path in here if (content := _content(hashes, into.path(path)))}
    theirs, _ = answers()
    found.note_contents(lambda index: theirs.get(asked.get(index, ""), ""), mine, ())


def _content(hashes: HashCache, at: Any) -> str:
    """The sha256 of a file here, "" where it can't be read."""
    try:
        return hashes.sha256(at)
    except OSError:
        return ""


def _question(
    talk: Conversation, paths: Iterable[str], contents: Iterable[str]
) -> Callable[[], tuple[dict[str, str], list[str]]]:
    """Ask for the sha256 of files there, and which contents lie in the store; what is returned waits for the answers.

    As many messages as keep every answer short enough to be read.
    """
    questions: list[list[str]] = [[]]
    size = 0
    for path in sorted(paths):
        size += len(json.dumps(path)) + DIGEST_CHARACTERS
        if size > ANSWER_BYTES:
            questions.append([])
            size = 0
        questions[-1].append(path)
    have = sorted(contents)
    talk.send([message({"hash": part, "have": have if not number else []}) for number, part in enumerate(questions)])

    def answers() -> tuple[dict[str, str], list[str]]:
        theirs: dict[str, str] = {}
        stored: list[str] = []
        for _ in questions:
            reply = talk.message()
            said, kept = reply.get("hash"), reply.get("have")
            if isinstance(said, dict):
                theirs.update((path, content) for path, content in said.items() if isinstance(content, str))
            stored += [one for one in kept if isinstance(one, str)] if isinstance(kept, list) else []
        return theirs, stored

    return answers


def _deletions(found: Differences, source: Sequence[Entry], rules: Any, options: Options) -> list[str]:
    if not options.delete:
        return []
    gone = to_delete(found, rules.skips_path if rules is not None else lambda path, is_folder: False)
    if gone and not any(entry.kind != FOLDER for entry in source):
        raise RemoteError(
            f"there is no file in the source: --delete would remove all {len(gone)} of the target",
            hint="look whether it is the right folder, and whether its disk is mounted",
        )
    return gone


def _check_room(where: str, found: Differences, free: Any, inodes: Any) -> None:
    needed = found.size_bytes + sum(found.entries[index].size for index, _ in (*found.copies, *found.stored))
    if needed > _count(free) - SPARE_BYTES and needed:
        raise no_room(where, needed, free)
    if type(inodes) is int and 0 <= inodes < len(found.entries):
        raise RemoteError(
            f"{where}: {len(found.entries)} files are to be made, the disk has room for {inodes} more, however small",
            hint="remove some files, then run the same command again",
        )


def no_room(where: str, needed: int, free: Any) -> RemoteError:
    """The error for a disk that is too small."""
    return RemoteError(
        f"{where}: {needed / 1e6:.0f} MB are to be sent, {_count(free) / 1e6:.0f} MB are free",
        hint="free some space there, then run the same command again",
        code="disk_full",
    )


def _send(
    talk: Conversation, found: Differences, at: Callable[[str], Any], outcome: Outcome, observer: Observer
) -> None:
    meter, wanted, again = Meter(found, observer), found.files, False
    given_up: dict[int, str] = {}
    while True:
        sender = Sender(outgoing(found.entries, wanted, at), meter)
        talk.send(sender.chunks())
        reply = talk.message()
        bad = reply.get("bad")
        if not isinstance(bad, list):
            break
        if again:
            raise BadReply(f"{talk.host.name}: what arrives there is not what was sent")
        given_up |= sender.failed
        # What was there unfinished was of another content: once more, from the beginning.
        again, wanted = True, dict.fromkeys(wanted.keys() & {index for index in bad if type(index) is int}, 0)
        talk.send([message({"again": list(wanted)})])
    done = reply.get("done")
    if not isinstance(done, dict):
        raise BrokenStream("the reply has the wrong shape")
    for index, why in (_failed(done.get("failed")) | given_up | sender.failed).items():
        if index in found.files:
            outcome.failed[found.entries[index].path] = why
    outcome.sent_bytes = meter.done


def _failed(rows: Any) -> dict[int, str]:
    try:
        return {index: str(why) for index, why in rows}
    except (TypeError, ValueError) as error:
        raise BrokenStream("the reply has the wrong shape") from error


def _receive(
    talk: Conversation,
    found: Differences,
    into: Target,
    listed: list[Entry],
    outcome: Outcome,
    observer: Observer,
    delete: Sequence[str],
) -> None:
    meter, again = Meter(found, observer), False
    into.begin()
    # The host's numbers are places in its own listing, all of which lies in buckets that differ.
    wanted = {found.places[index]: offset for index, offset in found.files.items()}
    try:
        while wanted:
            talk.send([message({"want": list(wanted.items())})])
            receiver = Receiver(into, listed, wanted, expected={}, passed=meter)
            receiver.take(talk.reader)
            outcome.failed |= {listed[number].path: why for number, why in receiver.failed.items()}
            if receiver.bad and again:
                raise BadReply(f"{talk.host.name}: what arrives is not what was sent")
            again, wanted = True, dict.fromkeys(receiver.bad, 0)
        into.complete(found.entries, found.plan(delete, first=bool(found.conflicts)), _no_store, set(outcome.failed))
    finally:
        into.end()
    outcome.sent_bytes = meter.done


def _no_store(sha256: str) -> Any:
    raise Refused("no_store", "there is no store here")


def _conclude(outcome: Outcome, found: Differences, delete: Sequence[str]) -> None:
    path = [entry.path for entry in found.entries]
    outcome.sent = [path[index] for index in found.files if path[index] not in outcome.failed]
    outcome.resumed_bytes = sum(found.files.values())
    outcome.copied = [path[index] for index, _ in (*found.copies, *found.stored)]
    outcome.adopted = [path[index] for index in found.adopt]
    outcome.linked = [path[index] for index in found.links]
    outcome.deleted = list(delete)
