"""A host that is not ours: its python3 answers every sync with bytes of our choice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from remote import sync
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from remote.onhost.frames import message
from remote.onhost.tree import FILE, FOLDER, Entry
from tests.connected import connect, folder_of_programs
from tests.trees import WHEN_NS

FAKE = """#!/bin/sh
case $2 in -c) cat >/dev/null; echo "$0"; exit 0 ;; esac
printf '\\n@launch %s stream {{}}\\n' "$4"
exec cat "{folder}/says"
"""
END = message({"end": True})


class Liar(NamedTuple):
    """A host that says to every sync what it was told to say."""

    folder: Path
    server: EmbeddedHost
    agent: Agent

    def says(self, words: bytes) -> None:
        """From now on."""
        (self.folder / "says").write_bytes(words)

    def pull(self, target: Path, words: bytes, **more: Any) -> sync.Outcome:
        self.says(words)
        return sync.pull(self.agent, "whatever", target, **more)

    def push(self, source: Path, words: bytes, **more: Any) -> sync.Outcome:
        self.says(words)
        return sync.push(self.agent, source, "whatever", **more)


@contextlib.contextmanager
def lying(folder: Path) -> Iterator[Liar]:
    """Such a host, whose home lies in `folder`."""
    bin_folder = folder_of_programs(folder / "bin", "sh", "mkdir", "cat", "head", "uname", "ln", "mv", "rm")
    (bin_folder / "python3").write_text(FAKE.format(folder=folder))
    (bin_folder / "python3").chmod(0o755)
    with EmbeddedHost(folder / "home", env={"PATH": str(bin_folder)}) as server, connect(server) as host:
        agent = Agent(host)
        assert agent.place.python == str(bin_folder / "python3")
        yield Liar(folder, server, agent)


# -- what it may say


def opening(**fields: Any) -> bytes:
    usual = {"root": "/r", "leaf": "", "kind": FOLDER, "total": 1, "free": 10**15, "inodes": -1, "special": []}
    return message({**usual, "differ": None, **fields})


def lines(*rows: Any) -> bytes:
    """A listing of anything."""
    packed = zlib.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    return message({"listing": len(packed)}) + packed


def said(*entries: Entry, stream: bytes = b"", **fields: Any) -> bytes:
    """A conversation about these entries."""
    return opening(**fields) + lines([list(entry) for entry in entries]) + message({"parts": {}}) + stream


def a_file(path: str, size: int = 3, mode: int = 0o644) -> Entry:
    return Entry(path, FILE, size, WHEN_NS, mode)


def small(*numbered: tuple[Any, bytes]) -> bytes:
    """A bundle of small files with their right digests."""
    rows = [[number, hashlib.sha256(content).hexdigest()] for number, content in numbered]
    return message({"b": rows}) + b"".join(content for _, content in numbered)


def large(number: Any, content: bytes, *, offset: Any = 0, announced: Any = None, digest: str = "") -> bytes:
    return (
        message({"f": number, "o": offset})
        + message({"n": len(content) if announced is None else announced})
        + content
        + message({"sha256": digest or hashlib.sha256(content).hexdigest()})
    )
