"""The host's side of a sync: shows what lies here, takes files in, sends files out.  The laptop decides everything.

A conversation on one stream.  The request is answered by what lies here: a message, a listing of the entries in buckets
that differ, and another message.  Then the laptop asks, in any order and number:

  {"hash": [path, ...], "have": [sha256, ...]}   -> {"hash": {path: sha256}, "have": [sha256, ...]}
  {"plan": {...}}, a listing, a stream           -> {"bad": [...]} or {"done": {...}}
  {"again": [i, ...]}, a stream                  -> the same
  {"want": [[i, offset], ...]}                   -> a stream
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from . import tree
from .frames import EndedEarly, Reader, message
from .refused import Refused
from .store import Store, sha256_of
from .target import Target
from .transfer import Receiver, Sender, outgoing
from .tree import FOLDER, Entry

Say = Callable[[bytes], None]


def converse(request: Dict[str, Any], reader: Reader, say: Say) -> None:
    """Be the host's side until the laptop has no more questions."""
    incoming = request["verb"] == "in"
    place = _Place(request, incoming)
    for chunk in place.opening(request):
        say(chunk)
    while True:
        try:
            asked = reader.message()
        except EndedEarly:
            return
        if "hash" in asked:
            say(message(place.known(asked["hash"], asked["have"])))
        elif "want" in asked and not incoming:
            for chunk in place.sent(asked["want"]):
                say(chunk)
        elif "plan" in asked and incoming:
            place.take_over(asked["plan"], tree.unpack(reader))
            say(place.taken(reader))
        elif "again" in asked and incoming:
            place.wanted = dict.fromkeys(asked["again"], 0)
            say(place.taken(reader))
        else:
            raise Refused("stream_broken", "a question that is not known here", "pip install --upgrade lora-launch")


class _Place:
    """The folder, and what of it takes part: all below it, or the one file `leaf`."""

    def __init__(self, request: Dict[str, Any], incoming: bool) -> None:
        path = os.path.expanduser(tree.native(request["path"]))
        shown = tree.text(path)
        self.leaf = request.get("leaf", "")
        self.kind = _kind(path)
        if incoming:
            if self.leaf and not (self.kind == FOLDER or shown.endswith("/")):
                # A new name for the one file.
                shown, _, self.leaf = shown.rstrip("/").rpartition("/")
                shown = shown or ("/" if path.startswith(b"/") else ".")
            elif self.kind not in ("", FOLDER):
                raise Refused("not_a_folder", f"{shown} is not a folder", "name another target")
        elif not self.kind:
            raise Refused("no_such_path", f"there is no {shown}", "paths are relative to the home folder there")
        elif self.kind != FOLDER:
            shown, _, self.leaf = os.path.realpath(path).decode("utf-8", "surrogateescape").rpartition("/")
            shown = shown or "/"
        self.root = os.path.abspath(shown)
        self.names = request.get("names")
        self.target = Target(self.root)
        self.store = Store(request["workspace"]) if incoming else None
        self.entries: List[Entry] = []
        self.wanted: Dict[int, int] = {}
        self.plan: Dict[str, Any] = {}
        self.failed: Dict[int, str] = {}

    def opening(self, request: Dict[str, Any]) -> Iterator[bytes]:
        """What lies here, as far as it may differ from what the laptop has."""
        found = self._scanned(request)
        # One file has another place there; what lies beside that says nothing.
        theirs = b"" if self.leaf else base64.b64decode(request["buckets"])
        differ = tree.Buckets.differing(found.entries, theirs, request["mode_mask"])
        self.entries = differ.of(found.entries)
        room = self.target.room()
        yield message({
            "root": self.root, "leaf": self.leaf, "kind": self.kind,
            "total": sum(entry.kind != FOLDER for entry in found.entries),
            "free": room.size_bytes, "inodes": room.inodes, "special": found.special[:100],
            "differ": None if differ.numbers is None else sorted(differ.numbers),
        })  # fmt: skip
        yield from tree.pack(self.entries)
        parts = self.target.parts() if self.store is not None else {}
        sizes = self.store.sizes() if self.store is not None and request.get("sizes") else []
        yield message({"parts": parts, "sizes": sizes})

    def _scanned(self, request: Dict[str, Any]) -> tree.Scan:
        found = tree.Scan()
        if self.leaf:
            return _named(self.target, [self.leaf])
        if self.names is not None:
            return _named(self.target, self.names)
        if not self.kind:
            return found
        folders = request.get("folders")
        found = tree.scan(self.root, folders=frozenset(folders) if folders is not None else None)
        if self.store is None:
            return found
        return _without(found, os.path.relpath(os.path.realpath(request["workspace"]), os.path.realpath(self.root)))

    def known(self, paths: List[str], digests: List[str]) -> Dict[str, Any]:
        """The sha256 of files here, where they are files, and which contents the store has."""
        found = {}
        for path in paths:
            with contextlib.suppress(OSError):
                found[path] = sha256_of(self.target.path(path), os.O_NOFOLLOW)
        return {"hash": found, "have": [one for one in digests if self.store is not None and self.store.has(one)]}

    def take_over(self, plan: Dict[str, Any], entries: List[Entry]) -> None:
        """Note what is to be made of `entries`; every folder among them is made.

        {"files": [[i, offset]], "copies": [[i, path]], "stored": [[i, sha256]], "links": [i], "adopt": [i],
        "delete": [path], "first": whether to delete before anything gets a name}
        """
        self.plan, self.entries = plan, entries
        self.wanted = dict(plan["files"])
        self.failed = {}
        self.target.begin()

    def taken(self, reader: Reader) -> bytes:
        """Take in the stream and, once all is here, carry out the rest of the plan; the reply."""
        receiver = Receiver(self.target, self.entries, self.wanted, expected={})
        try:
            receiver.take(reader)
        except BaseException:
            self.target.end()
            raise
        self.failed.update(receiver.failed)
        if receiver.bad:
            for index in receiver.bad:
                self.failed.pop(index, None)
            return message({"bad": receiver.bad})
        try:
            failed = {self.entries[index].path for index in self.failed}
            self.target.complete(self.entries, self.plan, self._stored(), failed)
        finally:
            self.target.end()
        return message({"done": {"failed": [[index, why] for index, why in self.failed.items()]}})

    def _stored(self) -> Callable[[str], Any]:
        assert self.store is not None
        return self.store.path

    def sent(self, wanted: List[Tuple[int, int]]) -> Iterator[bytes]:
        """The stream of the files asked for."""
        return Sender(outgoing(self.entries, dict(wanted), self.target.path)).chunks()


def _without(found: tree.Scan, ours: str) -> tree.Scan:
    """All but what is ours: runs and environments are no part of anybody's folder, and `--delete` must not see them."""
    found.entries = [entry for entry in found.entries if entry.path != ours and not entry.path.startswith(ours + "/")]
    return found


def _kind(path: bytes) -> str:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return FOLDER if stat.S_ISDIR(status.st_mode) else "f"


def _named(target: Target, names: List[str]) -> tree.Scan:
    """The named files and folders of a tree, with all below them."""
    found = tree.Scan()
    for name in names:
        at = target.path(name)
        try:
            status = os.lstat(at)
        except FileNotFoundError:
            continue
        entry: Optional[Entry] = tree.look(name, status, at)
        if entry is None:
            found.special.append(name)
            continue
        found.entries.append(entry)
        if entry.kind == FOLDER:
            below = tree.scan(tree.text(at))
            found.entries += [one._replace(path=f"{name}/{one.path}") for one in below.entries]
            found.special += [f"{name}/{one}" for one in below.special]
    found.entries.sort(key=tree.get_path)
    return found
