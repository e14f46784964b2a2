"""Our program on a host: shipped once as one content-named file, then asked by verb over the host's connection.

What a host says is untrusted: replies are looked for behind a random nonce, bounded in size, and checked in shape.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import sys
import threading
import zipfile
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from remote import failure
from remote.errors import BadReply, NotFound, RemoteError, TimedOut, Unreachable
from remote.host import Host, Process, time_limit
from remote.identity import Identity
from remote.onhost.frames import BrokenStream, EndedEarly, Reader

# Parsed, hostile JSON takes some twenty times its size in memory; a state of a run takes a few hundred bytes.
REPLY_LIMIT_BYTES = 8 * 1024 * 1024
FOUND_LIMIT_BYTES = 1024 * 1024
PREAMBLE_LINES = 10_000

WORKSPACES = ("/root/autodl-tmp",)
PYTHONS = ("python3", "/root/miniconda3/bin/python", "/opt/conda/bin/python", "python") + tuple(
    f"python3.{minor}" for minor in range(14, 7, -1)
)

# Finds a Python and a workspace in one round trip, on the machine that is meant.  $1: file name of our program, $2: a
# nonce, $3: the hostname and $4 the marker on record, $5: a marker for a machine that has none, $6: the workspace asked
# for; then folders to work in that count only where they exist, "--", and Pythons.
# A workspace that was asked for is the only one tried: runs must not end up where nobody looks for them.
# Another machine is only read from, and only until that is clear.
FIND = r"""
f=$1 n=$2 host=$3 mark=$4 fresh=$5 asked=$6 w= r= q= m=
shift 6
name=$(uname -n)
other() { printf '\n@launch %s other\n%s\n%s\n' "$n" "$name" "$m"; exit 0; }
[ -z "$host" ] || [ "$name" = "$host" ] || other
try() {
  case $1 in /*) d=$1 ;; *) d=./$1 ;; esac
  m=; [ ! -f "$d/launch/box-id" ] || m=$(head -c 64 "$d/launch/box-id" 2>/dev/null)
  [ -z "$m" ] || [ -z "$mark" ] || [ "$m" = "$mark" ] || other
  mkdir -p "$d/launch/onhost" 2>/dev/null && [ -w "$d/launch" ] && w=$(cd "$d/launch" && pwd)
}
[ -z "$asked" ] || try "$asked"
while [ "$1" != -- ]; do
  [ -n "$asked$w" ] || [ ! -d "$1" ] || try "$1"
  shift
done
shift
[ -n "$asked$w" ] || try "${XDG_CACHE_HOME:-$HOME/.cache}"
for p; do
  q=$(command -v "$p") && "$q" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && break
  q=
done
[ -n "$w" ] && [ -f "$w/onhost/$f" ] && r=1
if [ -n "$w" ] && [ ! -s "$w/box-id" ]; then
  # Linked into its name: of two that come at once, one is too late, and both read the same.
  (umask 022; printf %s "${mark:-$fresh}" >"$w/.box-id.$$") && ln "$w/.box-id.$$" "$w/box-id" 2>/dev/null
  [ -s "$w/box-id" ] || mv "$w/.box-id.$$" "$w/box-id"
  rm -f "$w/.box-id.$$"
fi
[ -z "$w" ] || m=$(head -c 64 "$w/box-id" 2>/dev/null)
printf '\n@launch %s found\n%s\n%s\n%s\n%s\n%s\n' "$n" "$q" "$w" "$r" "$name" "$m"
"""

# Takes our program in from stdin, whole or not at all: a connection that is cut looks like the end of the input.
INSTALL = """
import hashlib, os, sys, tempfile
target, content = sys.argv[1], sys.stdin.buffer.read()
if hashlib.sha256(content).hexdigest()[:16] not in os.path.basename(target):
    sys.exit("our program did not arrive whole")
os.makedirs(os.path.dirname(target), exist_ok=True)
descriptor, temporary = tempfile.mkstemp(prefix=".part-", dir=os.path.dirname(target))
with os.fdopen(descriptor, "wb") as file:
    file.write(content)
os.replace(temporary, target)
"""


@dataclass(frozen=True)
class Place:
    """Where our program and its files lie on a host, and which machine that is."""

    python: str
    workspace: str
    identity: Identity = Identity()

    @property
    def program(self) -> str:
        return f"{self.workspace}/onhost/{program_name()}"


class Agent:
    """Our program on one host.

    `workspace` overrides the folder that is looked for, `pythons` are looked at before the usual ones.  A machine that
    does not fit `identity` is left untouched.
    """

    def __init__(
        self, host: Host, *, workspace: str = "", pythons: Sequence[str] = (), identity: Identity | None = None
    ) -> None:
        self.host = host
        self._asked_workspace = workspace
        self._pythons = pythons
        self._identity = identity or Identity()
        self._place: Place | None = None
        self._seen_logins = 0
        self._lock = threading.Lock()

    @property
    def place(self) -> Place:
        """Found and made ready at the first use, and once more after every new login.

        Raises NotFound where the host lacks a Python or a folder, OtherMachine where it is not the one meant.
        """
        with self._lock:
            self.host.connect()
            if self._place is None or self._seen_logins != self.host.logins:
                self._place = self._settle()
                self._seen_logins = self.host.logins
            return self._place

    @property
    def workspace(self) -> str:
        """`<workspace>/launch`: everything of ours lies below it."""
        return self.place.workspace

    def call(
        self, verb: str, request: dict[str, Any], *, payload: Iterable[bytes] = (), timeout_s: float = 60
    ) -> dict[str, Any]:
        """The reply to one verb.  Raises what the host refused as RemoteError, and Unreachable, TimedOut, BadReply."""
        nonce = secrets.token_hex(8)
        with self._start(verb, nonce, request, payload) as process:
            expired = threading.Event()
            try:
                with time_limit(process, timeout_s, expired):
                    kind, reply = self._opening(verb, nonce, process)
            except (BadReply, Unreachable) as error:
                if expired.is_set():
                    raise TimedOut(f"{self.host.name}: no answer to {verb} within {timeout_s:g} s") from error
                raise
        if kind != "reply":
            raise BadReply(f"{self.host.name}: {verb} answered with {kind!r}")
        return reply

    def stream(self, verb: str, request: dict[str, Any]) -> Generator[bytes]:
        """The bytes a streaming verb sends; closing the iterator ends it."""
        nonce = secrets.token_hex(8)
        with self._start(verb, nonce, request, ()) as process:
            chunks = process.chunks()
            reader = Reader(chunks)
            self._find_opening(verb, nonce, reader, process)
            if rest := reader.buffered():
                yield rest
            yield from chunks
            self._check_end(verb, process)

    def _check_end(self, verb: str, process: Process) -> None:
        """After a stream: whether the connection broke, or our program gave up over there, is not the same."""
        try:
            status = process.wait()
        except Unreachable as error:
            raise lost(self.host, error) from error
        if status != 0:
            said = process.stderr().decode("utf-8", "replace").strip()[-800:]
            raise RemoteError(f"{self.host.name}: {verb} ended with status {status}" + (f": {said}" if said else ""))

    def _start(self, verb: str, nonce: str, request: dict[str, Any], payload: Iterable[bytes]) -> Process:
        place = self.place
        asked = json.dumps({"workspace": place.workspace, **request}).encode("ascii") + b"\n"

        def stdin() -> Iterator[bytes]:
            yield asked
            yield from payload

        return self.host.start([place.python, "-I", place.program, verb, nonce], stdin=stdin())

    def _opening(self, verb: str, nonce: str, process: Process) -> tuple[str, dict[str, Any]]:
        """Kind and content of the reply; the process has ended."""
        chunks = process.chunks()
        kind, reply = self._find_opening(verb, nonce, Reader(chunks, line_limit=REPLY_LIMIT_BYTES), process)
        for _ in chunks:
            pass
        process.wait()
        return kind, reply

    def _find_opening(self, verb: str, nonce: str, reader: Reader, process: Process) -> tuple[str, dict[str, Any]]:
        mark = f"@launch {nonce} ".encode("ascii")
        try:
            for _ in range(PREAMBLE_LINES):
                line = reader.line()
                if line.startswith(mark):
                    break
            else:
                raise BadReply(f"{self.host.name}: talks without end before answering {verb}")
            kind, _, text = line.removeprefix(mark).decode("ascii").partition(" ")
            reply = json.loads(text)
        except EndedEarly as error:
            process.wait()  # raises Unreachable if that is what happened
            said = process.stderr().decode("utf-8", "replace").strip()[-800:]
            raise BadReply(f"{self.host.name}: no answer to {verb}" + (f": {said}" if said else "")) from error
        except (BrokenStream, ValueError, RecursionError) as error:
            raise BadReply(f"{self.host.name}: the answer to {verb} can't be read") from error
        if not isinstance(reply, dict):
            raise BadReply(f"{self.host.name}: the answer to {verb} has the wrong shape")
        if kind == "refused":
            refused = RemoteError(f"{self.host.name}: {reply.get('message')}", hint=str(reply.get("hint") or ""))
            refused.code = str(reply.get("code"))
            if refused.code == "run_not_found":
                raise NotFound(refused.message, hint=refused.hint)
            raise refused
        return kind, reply

    def _settle(self) -> Place:
        """Find a Python and a folder, and bring our program there if it is not there yet: one or two round trips."""
        if self.host.is_local:
            if os.name == "nt":
                raise NotFound("local: runs need a POSIX system", hint="use a rented host, or work inside WSL")
            place, ready = Place(sys.executable, self._asked_workspace), False
        else:
            place, ready = self._find()
        if not ready:
            argv = [place.python, "-I", "-c", INSTALL, place.program]
            self.host.run(argv, stdin=program()).check()
        return place

    def _find(self) -> tuple[Place, bool]:
        nonce, expected = secrets.token_hex(8), self._identity
        argv = ["sh", "-c", FIND, "sh", program_name(), nonce, expected.hostname, expected.marker]
        argv += [secrets.token_hex(16), self._asked_workspace, *WORKSPACES, "--"]
        argv += dict.fromkeys((*self._pythons, *PYTHONS))
        done = self.host.run(argv, stdout_limit_bytes=FOUND_LIMIT_BYTES)
        said = done.stdout.decode("utf-8", "surrogateescape")
        if other := said.partition(f"\n@launch {nonce} other\n")[2]:
            hostname, marker, *_ = (*other.split("\n"), "", "")
            expected.require(self.host.name, Identity(hostname, marker=marker))
        lines = said.partition(f"\n@launch {nonce} found\n")[2].split("\n")
        if len(lines) < 6:
            raise failure.refusal(
                BadReply,
                f"{self.host.name}: a command was run there, but its output did not come back",
                "no sessions",
                self.host.name,
            )
        python, workspace, ready, hostname, marker = lines[:5]
        if not python:
            raise NotFound(
                f"{self.host.name}: no Python >= 3.8 there", hint="choose an image with Python, or install it"
            )
        if not workspace:
            where = self._asked_workspace or "no folder there"
            can = "can't" if self._asked_workspace else "can"
            raise NotFound(
                f"{self.host.name}: {where} {can} be written to",
                hint=f"launch host probe {self.host.name} shows its disks; launch host add … --workspace DIR",
            )
        return Place(python, workspace, Identity(hostname, marker=marker)), ready == "1"


def lost(host: Host, error: Exception) -> Unreachable:
    """The error for a stream from `host` that broke off."""
    return Unreachable(f"{host.name}: the connection broke ({error})", hint="run the same command again: it goes on")


@cache
def program() -> bytes:
    """`remote/onhost` as one zip file that Python runs; the same sources give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            zipfile.ZipInfo("__main__.py"), "import sys\nfrom onhost.program import main\nsys.exit(main(sys.argv))\n"
        )
        for source in sorted(resources.files("remote.onhost").iterdir(), key=lambda source: source.name):
            if source.name.endswith(".py"):
                # Text read and written with LF, whatever the laptop's checkout made of the line ends.
                text = source.read_text("utf-8").replace("\r\n", "\n")
                archive.writestr(zipfile.ZipInfo(f"onhost/{source.name}"), text)
    return buffer.getvalue()


@cache
def program_name() -> str:
    """Its file name, from its content: two versions of `launch` can use one host side by side."""
    return f"{hashlib.sha256(program()).hexdigest()[:16]}.pyz"
