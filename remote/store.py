"""The laptop's side of a host's store: sends every content once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from remote.agent import Agent
from remote.errors import BadReply, RemoteError
from remote.onhost import frames

# The host reads again what it has no record of, and base models are large.
HASHING_TIMEOUT_S = 1800


@dataclass(frozen=True)
class LocalFile:
    """A file on the laptop and the content it had when it was hashed."""

    source: Path
    sha256: str
    size_bytes: int

    @property
    def path(self) -> str:
        """Its name in the stream."""
        return self.sha256


@dataclass(frozen=True)
class Sent:
    """What a push came to."""

    files: int
    size_bytes: int
    already_there: int


def push(agent: Agent, files: Sequence[LocalFile], *, timeout_s: float = 24 * 3600) -> Sent:
    """Bring the content of `files` into the store of the agent's host, as one stream of what is not there yet.

    Raises RemoteError when a file changed after it was hashed; the host checks every content on arrival.
    """
    by_digest = {file.sha256: file for file in files}
    missing = agent.call("missing", {"sha256": list(by_digest)}, timeout_s=HASHING_TIMEOUT_S).get("missing")
    if not isinstance(missing, list):
        raise BadReply(f"{agent.host.name}: the list of missing files has the wrong shape")
    # The host is not believed further than asked: it can only choose among what was offered.
    named = {sha256 for sha256 in missing if isinstance(sha256, str)}
    wanted = [file for sha256, file in by_digest.items() if sha256 in named]
    size = sum(file.size_bytes for file in wanted)
    if wanted:
        agent.call("receive", {}, payload=_stream(wanted), timeout_s=timeout_s)
    return Sent(len(wanted), size, len(by_digest) - len(wanted))


def _stream(files: Sequence[LocalFile]) -> Iterator[bytes]:
    try:
        yield from frames.pack(files, _opened)
    except (frames.BrokenStream, OSError) as error:
        raise RemoteError(f"sending failed: {error}", hint="run the same command again") from error


def _opened(file: LocalFile) -> BinaryIO:
    opened = file.source.open("rb")
    if os.fstat(opened.fileno()).st_size != file.size_bytes:
        opened.close()
        raise frames.BrokenStream(f"{file.source} changed while it was sent")
    return opened
