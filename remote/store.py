"""The laptop's side of a host's store: sends every content once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remote.agent import Agent
from remote.differences import Differences
from remote.errors import BadReply, RemoteError
from remote.onhost import tree
from remote.onhost.frames import message
from remote.onhost.target import SPARE_BYTES, part_key
from remote.onhost.transfer import Outgoing, Sender
from remote.sync import Meter, Observer, no_room, nobody

# The host reads again what it has no record of, and base models are large.
HASHING_TIMEOUT_S = 1800


@dataclass(frozen=True)
class LocalFile:
    """A file on the laptop and the content it had when it was hashed."""

    source: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Sent:
    """What a push came to."""

    files: int
    size_bytes: int
    already_there: int


def push(agent: Agent, files: Sequence[LocalFile], *, observer: Observer = nobody) -> Sent:
    """Bring the content of `files` into the store of the agent's host, as one stream of what is not there yet.

    Goes on where an earlier push was cut.  Raises RemoteError when a file changed after it was hashed; the host checks
    every content on arrival.
    """
    by_digest = {file.sha256: file for file in files}
    listed = list(by_digest.values())
    entries = [_entry(file) for file in listed]
    with agent.converse("store", {}, timeout_s=HASHING_TIMEOUT_S) as talk:
        talk.send(tree.pack(entries))
        reply = talk.message()
        missing = reply.get("missing")
        if not isinstance(missing, list) or not isinstance(reply.get("parts"), dict):
            raise BadReply(f"{agent.host.name}: the list of missing files has the wrong shape")
        # The host is not believed further than asked: it can only choose among what was offered.
        numbers = [number for number in range(len(listed)) if number in set(missing)]
        found = Differences(entries, files=dict.fromkeys(numbers, 0))
        found.resume(reply["parts"], part_key)
        if not numbers:
            return Sent(0, 0, len(listed))
        free = reply.get("free")
        if type(free) is not int or found.size_bytes > free - SPARE_BYTES:
            raise no_room(agent.host.name, found.size_bytes, free)
        sender = Sender(
            [_outgoing(listed[number], number, entries, found) for number in numbers], Meter(found, observer)
        )
        talk.send([message({"files": list(found.files.items())})])
        talk.send(sender.chunks())
        done = talk.message().get("done")
        if sender.failed:
            number, why = next(iter(sender.failed.items()))
            raise RemoteError(f"{listed[number].source}: {why}", hint="run the same command again")
        if not isinstance(done, list) or not set(numbers) <= set(done):
            raise RemoteError(f"{agent.host.name}: not everything arrived whole", hint="run the same command again")
    return Sent(len(numbers), found.size_bytes, len(listed) - len(numbers))


def lacking(agent: Agent, files: Sequence[LocalFile]) -> set[str]:
    """The sha256 of those contents that are not in the store; those that are stay there for an hour at least.

    The files need not be on this machine.
    """
    listed = list({file.sha256: file for file in files}.values())
    entries = [tree.Entry(file.sha256, tree.FILE, file.size_bytes, 0, 0o444) for file in listed]
    with agent.converse("store", {}, timeout_s=HASHING_TIMEOUT_S) as talk:
        talk.send(tree.pack(entries))
        missing = talk.message().get("missing")
        if not isinstance(missing, list):
            raise BadReply(f"{agent.host.name}: the list of missing files has the wrong shape")
        return {listed[number].sha256 for number in range(len(listed)) if number in set(missing)}


def _entry(file: LocalFile) -> tree.Entry:
    try:
        mtime_ns = file.source.stat().st_mtime_ns
    except OSError as error:
        raise RemoteError(f"{file.source}: {error.strerror}", hint="run the same command again") from error
    return tree.Entry(file.sha256, tree.FILE, file.size_bytes, mtime_ns, 0o444)


def _outgoing(file: LocalFile, number: int, entries: Sequence[tree.Entry], found: Differences) -> Outgoing:
    return Outgoing(number, entries[number], tree.native(str(file.source)), found.files[number], file.sha256)
