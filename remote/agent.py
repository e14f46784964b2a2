"""Our program on a host: shipped once as one content-named file, then asked by verb over the host's connection.

What a host says is untrusted: replies are looked for behind a random nonce, bounded in size, and checked in shape.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import secrets
import sys
import threading
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from queue import SimpleQueue
from typing import Any

from remote import failure
from remote.errors import BadReply, NotFound, RemoteError, TimedOut, Unreachable
from remote.host import Host, Process, time_limit
from remote.identity import Identity
from remote.onhost.frames import BrokenStream, EndedEarly, Reader

# Parsed, hostile JSON takes some twenty times its size in memory; a state of a run takes a few hundred bytes.
REPLY_LIMIT_BYTES = 8 * 1024 * 1024
PREAMBLE_LINES = 10_000
FIND_TIMEOUT_S = 60
# A command line has room for 128 KiB in one argument, our own script included.
INLINE_BYTES = 64 * 1024

WORKSPACES = ("/root/autodl-tmp",)
PYTHONS = ("python3", "/root/miniconda3/bin/python", "/opt/conda/bin/python", "python") + tuple(
    f"python3.{minor}" for minor in range(14, 7, -1)
)

# Finds a Python and a workspace and, where our program lies there already, becomes it: one round trip for all.
# $1: file name of our program, $2: a nonce, $3: the hostname and $4 the marker on record, $5: a marker for a machine
# that has none, $6: the workspace asked for; then folders to work in that count only where they exist, "--", Pythons,
# "--", and the arguments for our program, if any.
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
while [ "$1" != -- ]; do
  p=$1; shift
  [ -z "$q" ] || continue
  # The interpreter itself: what stands in for it on PATH may be a slow script.
  q=$(command -v "$p") && q=$("$q" -IS -c 'import sys; sys.version_info < (3, 8) or print(sys.executable)' \
    2>/dev/null </dev/null) || q=
done
shift
[ -n "$w" ] && [ -f "$w/onhost/$f" ] && r=1
if [ -n "$w" ] && [ ! -s "$w/box-id" ]; then
  # Linked into its name: of two that come at once, one is too late, and both read the same.
  (umask 022; printf %s "${mark:-$fresh}" >"$w/.box-id.$$") && ln "$w/.box-id.$$" "$w/box-id" 2>/dev/null
  [ -s "$w/box-id" ] || mv "$w/.box-id.$$" "$w/box-id"
  rm -f "$w/.box-id.$$"
fi
[ -z "$w" ] || m=$(head -c 64 "$w/box-id" 2>/dev/null)
printf '\n@launch %s found\n%s\n%s\n%s\n%s\n%s\n' "$n" "$q" "$w" "$r" "$name" "$m"
[ $# = 0 ] || [ -z "$r" ] || [ -z "$q" ] || exec "$q" -IS "$w/onhost/$f" "$@"
"""

# Takes our program in from stdin, whole or not at all: a connection that is cut looks like the end of the input.
# It is kept with its bytecode beside the text, which another version of Python passes over: every verb starts anew.
INSTALL = """
import hashlib, io, os, py_compile, sys, tempfile, zipfile
target, content = sys.argv[1], sys.stdin.buffer.read()
if hashlib.sha256(content).hexdigest()[:16] not in os.path.basename(target):
    sys.exit("our program did not arrive whole")
os.makedirs(os.path.dirname(target), exist_ok=True)
descriptor, new = tempfile.mkstemp(prefix=".part-", dir=os.path.dirname(target))
try:
    with os.fdopen(descriptor, "wb") as file, zipfile.ZipFile(file, "w") as kept:
        came = zipfile.ZipFile(io.BytesIO(content))
        for name in came.namelist():
            kept.writestr(name, came.read(name))
            with open(new + ".py", "wb") as source:
                source.write(came.read(name))
            mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
            kept.write(py_compile.compile(new + ".py", new + ".pyc", name, True, invalidation_mode=mode), name + "c")
    os.replace(new, target)
finally:
    for leftover in (new, new + ".py", new + ".pyc"):
        if os.path.exists(leftover):
            os.unlink(leftover)
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
            if not self._is_settled():
                self._settle()
            assert self._place is not None
            return self._place

    @property
    def workspace(self) -> str:
        """`<workspace>/launch`: everything of ours lies below it."""
        return self.place.workspace

    def call(
        self, verb: str, request: dict[str, Any], *, timeout_s: float = 60, follows: bytes = b""
    ) -> dict[str, Any]:
        """The reply to one verb; `follows` is what it reads after its request, and no list of processes shows.

        Raises what the host refused as RemoteError, and Unreachable, TimedOut, BadReply.
        """
        with self.converse(verb, request, timeout_s=timeout_s, follows=follows) as talk:
            talk.end()
            if talk.kind != "reply":
                raise BadReply(f"{self.host.name}: {verb} answered with {talk.kind!r}")
            return talk.reply

    def stream(self, verb: str, request: dict[str, Any]) -> Generator[bytes]:
        """The bytes a streaming verb sends; closing the iterator ends it."""
        with self.converse(verb, request) as talk:
            talk.end()
            yield from talk.rest()

    @contextmanager
    def converse(
        self, verb: str, request: dict[str, Any], *, timeout_s: float = 60, follows: bytes = b""
    ) -> Iterator[Conversation]:
        """A verb's opening answer, to come within `timeout_s`, and what both sides say after it.

        Raises what the host refused as RemoteError, and Unreachable, TimedOut, BadReply.
        """
        nonce = secrets.token_hex(8)
        asked = _packed(request)
        # Beside the verb it costs no turn of its own.
        inline = len(asked) <= INLINE_BYTES
        arguments = [verb, nonce, asked] if inline else [verb, nonce]
        first = (b"" if inline else asked.encode("ascii") + b"\n") + follows
        with self._lock:
            process, reader, feed = self._started(nonce, arguments, first)
        with process:
            talk = Conversation(self.host, verb, process, reader, feed)
            try:
                with _in_time(process, timeout_s, f"{self.host.name}: no answer to {verb}"):
                    talk.open(nonce)
                yield talk
            finally:
                feed.end()

    def _is_settled(self) -> bool:
        self.host.connect()
        return self._place is not None and self._seen_logins == self.host.logins

    def _started(self, nonce: str, arguments: Sequence[str], first: bytes) -> tuple[Process, Reader, Feed]:
        """Our program, started there, what it says, and what it reads after `first`: found and started in one go where
        it was not found yet."""
        if not self._is_settled():
            if self.host.is_local:
                self._settle()
            elif found := self._find(nonce, arguments, first):
                return found
        assert self._place is not None
        return self._begun([self._place.python, "-IS", self._place.program, *arguments], first)

    def _begun(self, argv: Sequence[str], first: bytes) -> tuple[Process, Reader, Feed]:
        feed = Feed(first)
        process = self.host.start(argv, stdin=feed)
        return process, Reader(process.chunks(), line_limit=REPLY_LIMIT_BYTES), feed

    def _settle(self) -> None:
        """Find a Python and a folder, and bring our program there if it is not there yet: one or two round trips."""
        if not self.host.is_local:
            self._find(secrets.token_hex(8), (), b"")
            return
        if os.name == "nt":
            raise NotFound("local: runs need a POSIX system", hint="use a rented host, or work inside WSL")
        self._install(Place(sys.executable, self._asked_workspace))

    def _install(self, place: Place) -> None:
        self.host.run([place.python, "-IS", "-c", INSTALL, place.program], stdin=program()).check()
        self._place, self._seen_logins = place, self.host.logins

    def _find(self, nonce: str, arguments: Sequence[str], first: bytes) -> tuple[Process, Reader, Feed] | None:
        """Look around there; what our program runs in now, None where it had to be brought there first."""
        expected = self._identity
        argv = ["sh", "-c", FIND, "sh", program_name(), nonce, expected.hostname, expected.marker]
        argv += [secrets.token_hex(16), self._asked_workspace, *WORKSPACES, "--"]
        argv += [*dict.fromkeys((*self._pythons, *PYTHONS)), "--", *arguments]
        process, reader, feed = self._begun(argv, first)
        try:
            with _in_time(process, FIND_TIMEOUT_S, f"{self.host.name}: sh did not end"):
                place, ready = self._found(nonce, process, reader)
            if ready:
                self._place, self._seen_logins = place, self.host.logins
            else:
                self._install(place)
        except BaseException:
            _given_up(process, feed)
            raise
        if ready and arguments:
            return process, reader, feed
        _given_up(process, feed)
        return None

    def _found(self, nonce: str, process: Process, reader: Reader) -> tuple[Place, bool]:
        found, other = f"@launch {nonce} found", f"@launch {nonce} other"
        try:
            for _ in range(PREAMBLE_LINES):
                line = _text(reader.line())
                if line == other:
                    hostname, marker = _text(reader.line()), _text(reader.line())
                    self._identity.require(self.host.name, Identity(hostname, marker=marker))
                if line == found:
                    break
            else:
                raise BadReply(f"{self.host.name}: talks without end before it answers")
            python, workspace, ready, hostname, marker = (_text(reader.line()) for _ in range(5))
        except EndedEarly as error:
            process.wait()  # raises Unreachable if that is what happened
            raise failure.refusal(
                BadReply,
                f"{self.host.name}: a command was run there, but its output did not come back",
                "no sessions",
                self.host.name,
            ) from error
        except BrokenStream as error:
            raise BadReply(f"{self.host.name}: what it says can't be read: {error}") from error
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


class Feed:
    """What a process reads, given to it bit by bit while it runs, `first` at once."""

    def __init__(self, first: bytes = b"") -> None:
        self._waiting: SimpleQueue[Iterable[bytes] | None] = SimpleQueue()
        self._ended = False
        if first:
            self.send([first])

    def send(self, chunks: Iterable[bytes]) -> None:
        """Let the process have these, after what it was given before; another thread goes through them."""
        self._waiting.put(chunks)

    def end(self) -> None:
        """Nothing more comes."""
        if not self._ended:
            self._ended = True
            self._waiting.put(None)

    def __iter__(self) -> Iterator[bytes]:
        while (chunks := self._waiting.get()) is not None:
            yield from chunks


def _given_up(process: Process, feed: Feed) -> None:
    feed.end()  # whoever waits for more of it would wait for ever
    process.close()


@contextmanager
def _in_time(process: Process, seconds: float, complaint: str) -> Iterator[None]:
    """Raises TimedOut, with the complaint, where the block takes longer than `seconds`; the process is closed then."""
    expired = threading.Event()
    try:
        with time_limit(process, seconds, expired):
            yield
    except (BadReply, Unreachable) as error:
        if expired.is_set():
            raise TimedOut(f"{complaint} within {seconds:g} s") from error
        raise


class Conversation:
    """One verb under way: what the host says is read from `reader`, what it is told goes through `send`."""

    def __init__(self, host: Host, verb: str, process: Process, reader: Reader, feed: Feed) -> None:
        self.host = host
        self.reader = reader
        self.send = feed.send
        self.end = feed.end
        self.kind = ""
        self.reply: dict[str, Any] = {}
        self._verb = verb
        self._process = process

    def open(self, nonce: str) -> None:
        """Read the opening answer: its kind and content."""
        name, verb, reader = self.host.name, self._verb, self.reader
        mark = f"@launch {nonce} ".encode("ascii")
        try:
            for _ in range(PREAMBLE_LINES):
                line = reader.line()
                if line.startswith(mark):
                    break
            else:
                raise BadReply(f"{name}: talks without end before answering {verb}")
            kind, _, text = line.removeprefix(mark).decode("ascii").partition(" ")
            reply = json.loads(text)
        except EndedEarly as error:
            self._process.wait()  # raises Unreachable if that is what happened
            said = self._said()
            raise BadReply(f"{name}: no answer to {verb}" + (f": {said}" if said else "")) from error
        except (BrokenStream, ValueError, RecursionError) as error:
            raise BadReply(f"{name}: the answer to {verb} can't be read") from error
        if not isinstance(reply, dict):
            raise BadReply(f"{name}: the answer to {verb} has the wrong shape")
        if kind == "refused":
            raise refusal(self.host, reply)
        self.kind, self.reply = kind, reply

    def message(self) -> dict[str, Any]:
        """The next thing the host says.  Raises what it refused, Unreachable when it was cut, and BadReply."""
        try:
            fields = self.reader.message()
        except EndedEarly as error:
            raise self.cut(error) from error
        except BrokenStream as error:
            raise BadReply(f"{self.host.name}: the answer to {self._verb} can't be read: {error}") from error
        if isinstance(fields.get("refused"), dict):
            raise refusal(self.host, fields["refused"])
        return fields

    def rest(self) -> Iterator[bytes]:
        """All that comes, to its end; raises unless it ended well."""
        chunks = self._process.chunks()
        if rest := self.reader.buffered():
            yield rest
        yield from chunks
        try:
            status = self._process.wait()
        except Unreachable as error:
            raise lost(self.host, error) from error
        if status != 0:
            raise RemoteError(self._ended_with(status))

    def cut(self, error: Exception) -> RemoteError:
        """The error for a stream that ended early.  Raises what the sending side of ours tripped over, if it did."""
        try:
            status = self._process.wait()
        except Unreachable as broken:
            return lost(self.host, broken)
        if status == 0 and not self._said():
            return lost(self.host, error)
        return RemoteError(self._ended_with(status), hint="run the same command again: it goes on")

    def _ended_with(self, status: int) -> str:
        said = self._said()
        return f"{self.host.name}: {self._verb} ended with status {status}" + (f": {said}" if said else "")

    def _said(self) -> str:
        return self._process.stderr().decode("utf-8", "replace").strip()[-800:]


def refusal(host: Host, fields: dict[str, Any]) -> RemoteError:
    """What our program refused there, as an error."""
    message, code = f"{host.name}: {fields.get('message')}", str(fields.get("code"))
    hint = str(fields.get("hint") or "")
    if code in ("run_not_found", "no_such_path"):
        return NotFound(message, hint=hint)
    return RemoteError(message, hint=hint, code=code)


def _text(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")


def _packed(request: dict[str, Any]) -> str:
    return base64.b64encode(zlib.compress(json.dumps(request).encode("ascii"))).decode("ascii")


def lost(host: Host, error: Exception) -> Unreachable:
    """The error for a stream from `host` that broke off."""
    return Unreachable(f"{host.name}: the connection broke ({error})", hint="run the same command again: it goes on")


@cache
def program() -> bytes:
    """`remote/onhost` as one zip file that Python runs; the same sources give the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        start = "import sys\nfrom onhost.program import main\nsys.exit(main(sys.argv))\n"
        archive.writestr(zipfile.ZipInfo("__main__.py"), start, zipfile.ZIP_DEFLATED)
        for source in sorted(resources.files("remote.onhost").iterdir(), key=lambda source: source.name):
            if source.name.endswith(".py"):
                # Text read and written with LF, whatever the laptop's checkout made of the line ends.
                text = source.read_text("utf-8").replace("\r\n", "\n")
                archive.writestr(zipfile.ZipInfo(f"onhost/{source.name}"), text, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@cache
def program_name() -> str:
    """Its file name, from its content: two versions of `launch` can use one host side by side."""
    return f"{hashlib.sha256(program()).hexdigest()[:16]}.pyz"
