"""known_hosts: which keys a host showed before, read and written as OpenSSH does.

It decides nothing: whether an unknown or a changed key may be trusted is asked elsewhere.  Files are bytes here, since
their comments may be in any encoding, and are read anew at every question, since ssh writes them too.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import hashlib
import hmac
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from remote.errors import RemoteError

if TYPE_CHECKING:
    import paramiko

SSH_PORT = 22
HASHED = b"|1|"
REVOKED = b"@revoked"
SALT_BYTES = 20


def default_file() -> Path:
    """The file that `ssh` itself writes to."""
    return Path.home() / ".ssh" / "known_hosts"


def _also_read_by_ssh() -> tuple[Path, ...]:
    if os.name == "nt":
        system = Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData")) / "ssh"
    else:
        system = Path("/etc/ssh")
    return Path.home() / ".ssh" / "known_hosts2", system / "ssh_known_hosts", system / "ssh_known_hosts2"


def name_of(host: str, port: int) -> str:
    """What a host is called in known_hosts: `host`, or `[host]:port` for another port than 22; lower-cased."""
    return host.lower() if port == SSH_PORT else f"[{host.lower()}]:{port}"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` shows it: SHA256 in base64 without padding."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return f"{key.get_name()} SHA256:{base64.b64encode(digest).decode('ascii').rstrip('=')}"


class Verdict(Enum):
    """What the files say about a key: CHANGED when only other keys are on record for the name, of whatever type."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Record:
    """A key on record, and the file and line (from 1) it stands in."""

    key: paramiko.PKey
    file: Path
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Standing:
    """A verdict with what led to it: the same key, the others that were expected, or the revocation."""

    verdict: Verdict
    records: tuple[Record, ...] = ()

    @property
    def is_known(self) -> bool:
        return self.verdict is Verdict.KNOWN

    @property
    def is_unknown(self) -> bool:
        return self.verdict is Verdict.UNKNOWN

    @property
    def is_changed(self) -> bool:
        return self.verdict is Verdict.CHANGED

    @property
    def is_revoked(self) -> bool:
        return self.verdict is Verdict.REVOKED

    @property
    def expected(self) -> tuple[paramiko.PKey, ...]:
        """The keys on record instead of one that changed, in file order."""
        return tuple(record.key for record in self.records) if self.is_changed else ()


class KnownHosts:
    """The file that is written to, and those that are only read.

    path: ~/.ssh/known_hosts by default.  also: beside the default those that ssh reads, beside another file none.
    Names are as `name_of` gives them.  Everything raises RemoteError for a file that can't be read; a missing file is
    an empty one, and a line that can't be understood is none.
    """

    def __init__(self, path: Path | None = None, also: Sequence[Path] | None = None) -> None:
        self.path = path or default_file()
        if also is None:
            also = _also_read_by_ssh() if self.path == default_file() else ()
        self.also = tuple(also)

    def check(self, name: str, key: paramiko.PKey) -> Standing:
        """What is known about a key that `name` shows."""
        asked, shown = _asked(name), key.asbytes()
        without_port = _without_port(asked)
        lines = [(file, *numbered) for file in (self.path, *self.also) for numbered in _entries(_read(file))]
        revoked = [
            Record(key, file, number)
            for file, number, entry in lines
            if entry.marker == REVOKED and entry.blob == shown and (entry.matches(asked) or entry.matches(without_port))
        ]
        if revoked:
            return Standing(Verdict.REVOKED, tuple(revoked))
        # For a port of which it knows nothing, ssh takes the very key that the host has on port 22 (sshconnect.c).
        for one in dict.fromkeys((asked, without_port)):
            found = [
                Record(on_record, file, number)
                for file, number, entry in lines
                if not entry.marker and entry.matches(one) and (on_record := entry.key()) is not None
            ]
            if same := [record for record in found if record.key.asbytes() == shown]:
                return Standing(Verdict.KNOWN, tuple(same))
            if found and one == asked:
                return Standing(Verdict.CHANGED, tuple(found))
        return Standing(Verdict.UNKNOWN)

    def key_types(self, name: str) -> tuple[str, ...]:
        """The types of the keys on record for `name`, each once, in file order."""
        asked = _asked(name)
        entries = [entry for file in (self.path, *self.also) for _, entry in _entries(_read(file))]
        found = [entry.key_type for entry in entries if not entry.marker and entry.matches(asked) and entry.key()]
        return tuple(dict.fromkeys(found))

    def add(self, name: str, key: paramiko.PKey) -> None:
        """Append a line, unless that key is there for `name`.  Raises RemoteError where it can't be written."""
        asked, before = _asked(name), _read(self.path)
        for _, entry in _entries(before):
            if not entry.marker and entry.blob == key.asbytes() and entry.matches(asked):
                return
        line = _end(before) + _line(asked, key, hashed=_hashes_names(before))
        with _writing(self.path):
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(self.path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())

    def replace(self, name: str, key: paramiko.PKey) -> None:
        """Make `key` the only one that stands under exactly this name; patterns that match it, and @-lines, stay.

        Raises RemoteError, and changes nothing, while another key of the name stands in a file that is only read.
        """
        asked = _asked(name)
        for file in self.also:
            for number, entry in _entries(_read(file)):
                if entry.is_of(asked) and entry.blob != key.asbytes():
                    raise RemoteError(
                        f"an old key of {name} stands in {file}:{number}, a file that is never written here",
                        hint="take that line out, or ask whoever keeps the file to",
                    )
        before = _read(self.path)
        lines, there = _lines(before), False
        for place, line in enumerate(lines):
            found = _entry(line)
            if found is None or not found.is_of(asked):
                continue
            if found.blob == key.asbytes():
                there = True
            else:
                lines[place] = found.line_without(asked)
        after = b"".join(lines)
        if not there:
            after += _end(after) + _line(asked, key, hashed=_hashes_names(before))
        if after != before:
            _rewrite(self.path, after)


@dataclass(frozen=True)
class _Entry:
    """A line in parts; `before` and `after` are what stands around its names."""

    marker: bytes
    before: bytes
    names: bytes
    after: bytes
    key_type: str
    blob: bytes

    def key(self) -> paramiko.PKey | None:
        """The key, or None where paramiko does not know its type or finds it broken."""
        from paramiko import PKey

        try:
            key: paramiko.PKey = PKey.from_type_string(self.key_type, self.blob)
            return key if key.asbytes() == self.blob else None  # paramiko fills up a blob that was cut off
        except Exception:  # a broken key makes paramiko, cryptography and nacl raise errors of many families
            return None

    def matches(self, name: bytes) -> bool:
        """Whether ssh would take this line for `name`: patterns count, and one negation that matches is the end."""
        if self.names.startswith(b"|"):
            return self.is_hash_of(name)
        found = False
        for pattern in self.names.lower().split(b","):
            if _fits(name, pattern.removeprefix(b"!")):
                if pattern.startswith(b"!"):
                    return False
                found = True
        return found

    def is_of(self, name: bytes) -> bool:
        """Whether the key is one of `name` itself: no pattern, no marker."""
        if self.marker or not self.matches(name):
            return False
        return self.names.startswith(HASHED) or name in self.names.lower().split(b",")

    def is_hash_of(self, name: bytes) -> bool:
        if not self.names.startswith(HASHED):
            return False
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in self.names[len(HASHED) :].split(b"|"))
        except ValueError:
            return False
        return len(salt) == SALT_BYTES and hmac.compare_digest(hmac.digest(salt, name, "sha1"), digest)

    def line_without(self, name: bytes) -> bytes:
        """The line for its other names; nothing where it has none."""
        others = b",".join(other for other in self.names.split(b",") if other.lower() != name)
        return self.before + others + self.after if others and not self.names.startswith(HASHED) else b""


_LINE = re.compile(
    rb"(?P<before>[ \t]*(?:(?P<marker>@[^ \t]*)[ \t]+)?)(?P<names>[^ \t#@][^ \t]*)"
    rb"(?P<after>[ \t]+(?P<type>[!-~]+)[ \t]+(?P<key>[A-Za-z0-9+/=]+)(?:\s.*)?)",
    re.DOTALL,
)


def _entry(line: bytes) -> _Entry | None:
    """A line's parts, or None for a comment and for what is no whole line of a known_hosts file."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    try:
        blob = base64.b64decode(found["key"], validate=True)
    except ValueError:
        return None
    key_type = found["type"]
    if not blob.startswith(len(key_type).to_bytes(4, "big") + key_type):
        return None
    return _Entry(
        found["marker"] or b"", found["before"], found["names"], found["after"], key_type.decode("ascii"), blob
    )


def _entries(data: bytes) -> Iterator[tuple[int, _Entry]]:
    for number, line in enumerate(_lines(data), 1):
        if entry := _entry(line):
            yield number, entry


def _lines(data: bytes) -> list[bytes]:
    """Its lines with their ends; unlike for `splitlines` only a \\n is one."""
    return re.findall(rb"[^\n]*\n|[^\n]+", data)


def _line(name: bytes, key: paramiko.PKey, *, hashed: bool) -> bytes:
    # A name is data of a config file; as a pattern or as two words it would vouch for other hosts.
    if not re.fullmatch(rb"[^\s\x00-\x20\x7f#@|!*?,][^\s\x00-\x20\x7f!*?,]*", name):
        raise RemoteError(f"{name.decode('utf-8', 'replace')!r} can't stand in known_hosts as the name of a host")
    if hashed:
        salt = os.urandom(SALT_BYTES)
        digest = hmac.digest(salt, name, "sha1")
        name = HASHED + base64.b64encode(salt) + b"|" + base64.b64encode(digest)
    return b"%s %s %s\n" % (name, key.get_name().encode(), base64.b64encode(key.asbytes()))


def _hashes_names(data: bytes) -> bool:
    return any(entry.names.startswith(HASHED) for _, entry in _entries(data))


def _end(data: bytes) -> bytes:
    """What is missing at the end: a last line without its end would swallow ours."""
    return b"" if not data or data.endswith(b"\n") else b"\n"


def _asked(name: str) -> bytes:
    """As it stands in a file.  The bytes that a config file had in another encoding come back as they were."""
    return name.encode("utf-8", "surrogateescape").lower()


def _fits(name: bytes, pattern: bytes) -> bool:
    if not set(pattern) & set(b"*?"):
        return name == pattern
    # To ssh only these two are special; a bracket belongs to the name.
    return fnmatch.fnmatchcase(name, pattern.replace(b"[", b"[[]"))


def _without_port(name: bytes) -> bytes:
    with_port = re.fullmatch(rb"\[(.+)]:[0-9]+", name)
    return with_port[1] if with_port else name


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise RemoteError(f"{path} can't be read: {error.strerror or error}") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RemoteError(f"{path} can't be written: {error.strerror or error}") from error


def _rewrite(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file, at once or not at all; a link stays one, modes stay."""
    with _writing(path):
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise RemoteError(f"{path} can't be written: it is not a file")
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f"{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
