"""A tree of files as a list of entries, and how two sides find out where theirs differ without showing all of it.

Used on both machines.  Paths travel as text with forward slashes; bytes that are not UTF-8 are kept as they are
(surrogateescape), whatever the locale of either machine is.
"""

from __future__ import annotations

import json
import operator
import os
import re
import stat
import zlib
from hashlib import blake2b
from typing import AbstractSet, Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Union

from .frames import BrokenStream, Reader
from .refused import Refused

WINDOWS = os.name == "nt"
STAGING = ".launch-partial"
"""Where unfinished files lie, in the root of a tree that is written to; never part of the tree."""

FILE, FOLDER, LINK = "f", "d", "l"
MAX_ENTRIES = 4_000_000
# A line is read whole, and hostile JSON takes some twenty times its size in memory; a name takes up to 24 KiB in it.
ENTRIES_A_LINE = 100
LINE_LIMIT_BYTES = 8 * 1024 * 1024
BUCKET_ENTRIES = 32
DIGEST_BYTES = 8
PATH_CHARACTERS = 4096  # no system opens longer ones
SHOWN_CHARACTERS = 200
LATEST_NS = 253_402_300_799 * 10**9  # the end of the year 9999
Native = Union[str, bytes]


class Entry(NamedTuple):
    """A file, folder or symbolic link at `path` below the root.  `link` is what a link points to."""

    path: str
    kind: str
    size: int
    mtime_ns: int
    mode: int
    link: str = ""


get_path = operator.attrgetter("path")


def native(path: str) -> Any:
    """`path` as the operating system takes it: bytes where names are bytes.  Raises Refused for impossible names."""
    if WINDOWS:
        return path
    try:
        return path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Refused("name_impossible", f"{path!r} can't be the name of a file here") from error


def text(path: Native) -> str:
    """The inverse of `native`."""
    return path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")


class Scan:
    """What `scan` found: `entries` sorted by path, and what is not among them."""

    def __init__(self) -> None:
        self.entries: List[Entry] = []
        self.skipped: List[str] = []
        self.special: List[str] = []


def scan(root: str, *, rules: Any = None, folders: Optional[AbstractSet[str]] = None, limit: int = MAX_ENTRIES) -> Scan:
    """Everything below the folder `root`; links are never followed, but `root` itself may be one.

    `rules` (skips(name, is_dir), enter(name)) leave out what is theirs.  With `folders` only those are entered, so that
    a large neighbour costs nothing.  Raises OSError, and Refused past `limit`.
    """
    found = Scan()
    entries = found.entries
    slash: Any = "/" if WINDOWS else b"/"
    stack = [(native(root), "", rules)]
    while stack:
        folder, prefix, rules = stack.pop()
        with os.scandir(folder) as listing:
            for item in listing:
                name = text(item.name)
                path = prefix + name
                if path == STAGING:
                    continue
                is_folder = item.is_dir(follow_symlinks=False)
                if rules is not None and rules.skips(name, is_folder):
                    found.skipped.append(path)
                    continue
                try:
                    entry = look(path, item.stat(follow_symlinks=False), item.path)
                except FileNotFoundError:  # gone since it was listed
                    continue
                if entry is None:
                    found.special.append(path)
                    continue
                entries.append(entry)
                if is_folder and (folders is None or path in folders):
                    below = rules.enter(name) if rules is not None else None
                    stack.append((folder + slash + item.name, path + "/", below))
        if len(entries) > limit:
            raise Refused("too_many_files", f"there are more than {limit} files in {root}")
    entries.sort(key=get_path)
    found.skipped.sort()
    found.special.sort()
    return found


def look(path: str, status: os.stat_result, at: Any) -> Optional[Entry]:
    """The entry for what was found at `at`, None for a socket, pipe or device."""
    kind = stat.S_IFMT(status.st_mode)
    mode = status.st_mode & 0o777
    if kind == stat.S_IFREG:
        return Entry(path, FILE, status.st_size, status.st_mtime_ns, mode)
    if kind == stat.S_IFDIR:
        return Entry(path, FOLDER, 0, status.st_mtime_ns, mode)
    if kind == stat.S_IFLNK:
        target = text(os.readlink(at))
        return Entry(path, LINK, 0, 0, 0, target.replace("\\", "/") if WINDOWS else target)
    return None


def same(one: Entry, other: Entry, mode_mask: int) -> bool:
    """Whether nothing tells that the two differ: kind, size, time to the microsecond, mode, target."""
    return _traits(one, mode_mask) == _traits(other, mode_mask)


def _traits(entry: Entry, mode_mask: int) -> str:
    if entry.kind == FILE:
        return f"f {entry.size} {entry.mtime_ns // 1000} {entry.mode & mode_mask}"
    if entry.kind == FOLDER:
        return f"d {entry.mtime_ns // 1000} {entry.mode & mode_mask}"
    return f"l {entry.link}"


def bucket_count(entries: int) -> int:
    """Into how many buckets a tree is divided."""
    return entries // BUCKET_ENTRIES + 1


def bucket(path: str, count: int) -> int:
    """The bucket a path falls into, on either side."""
    return zlib.crc32(path.encode("utf-8", "surrogatepass")) % count


def digests(entries: Iterable[Entry], count: int, mode_mask: int) -> bytes:
    """One digest a bucket, 8 bytes each, of all that `same` compares; the order of the entries does not matter."""
    sums = [0] * count
    for entry in entries:
        said = f"{entry.path}\0{_traits(entry, mode_mask)}".encode("utf-8", "surrogatepass")
        sums[bucket(entry.path, count)] ^= int.from_bytes(blake2b(said, digest_size=DIGEST_BYTES).digest(), "big")
    return b"".join(one.to_bytes(DIGEST_BYTES, "big") for one in sums)


def digest_count(digests: bytes) -> int:
    """How many buckets these are the digests of."""
    return len(digests) // DIGEST_BYTES


class Buckets:
    """The buckets, of `count`, that two sides found to differ; all of them where nothing was compared."""

    def __init__(self, count: int, numbers: Optional[Iterable[int]] = None) -> None:
        self.count = count
        self.numbers = None if numbers is None else frozenset(numbers)

    @classmethod
    def differing(cls, entries: Iterable[Entry], theirs: bytes, mode_mask: int) -> "Buckets":
        """Those whose digest is not `theirs`."""
        count = digest_count(theirs)
        if not count:
            return cls(1)
        ours, step = digests(entries, count, mode_mask), DIGEST_BYTES
        return cls(count, (at for at in range(count) if ours[at * step :][:step] != theirs[at * step :][:step]))

    def of(self, entries: Sequence[Entry]) -> List[Entry]:
        """Those of `entries` that lie in them."""
        if self.numbers is None:
            return list(entries)
        return [entry for entry in entries if bucket(entry.path, self.count) in self.numbers] if self.numbers else []

    def outside(self, entries: Sequence[Entry]) -> List[Entry]:
        """Those that lie in none of them: the other side has the same."""
        if self.numbers is None:
            return []
        return [entry for entry in entries if bucket(entry.path, self.count) not in self.numbers]


def pack(entries: Sequence[Entry]) -> Iterator[bytes]:
    """A listing as a message: a header with its length, then compressed lines of JSON."""
    squeeze = zlib.compressobj(6)
    parts = (entries[start : start + ENTRIES_A_LINE] for start in range(0, len(entries), ENTRIES_A_LINE))
    packed = [squeeze.compress(json.dumps(part).encode("ascii") + b"\n") for part in parts]
    packed.append(squeeze.flush())
    yield json.dumps({"listing": sum(map(len, packed))}).encode("ascii") + b"\n" + b"".join(packed)


def unpack(reader: Reader) -> List[Entry]:
    """The listing that comes next; its names stay unchecked.  Raises BrokenStream where an entry has a wrong shape."""
    size = reader.message().get("listing")
    if not isinstance(size, int) or size < 0:
        raise BrokenStream("a listing is missing")
    expand = zlib.decompressobj()
    entries: List[Entry] = []
    rest = b""
    try:
        for chunk in reader.content(size):
            waiting: Any = chunk
            while waiting:
                rest += expand.decompress(waiting, 1 << 20)
                waiting = expand.unconsumed_tail
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    entries += [checked(fields) for fields in json.loads(line)]
                if len(entries) > MAX_ENTRIES or len(rest) > LINE_LIMIT_BYTES:
                    raise BrokenStream("a listing is too long")
    except (ValueError, TypeError, RecursionError, zlib.error) as error:
        raise BrokenStream("a listing can't be read") from error
    if rest:
        raise BrokenStream("a listing is not complete")
    return entries


def checked(fields: Any) -> Entry:
    """An entry of these six fields from anywhere.  Raises TypeError, ValueError."""
    path, kind, size, mtime_ns, mode, link = fields
    fits = (
        isinstance(path, str)
        and isinstance(link, str)
        and kind in (FILE, FOLDER, LINK)
        and type(size) is type(mtime_ns) is type(mode) is int
        and 0 <= size < 1 << 63
        and -LATEST_NS < mtime_ns < LATEST_NS
    )
    if not fits:
        raise ValueError("not an entry")
    return Entry(path, kind, size, mtime_ns, mode & 0o777, link)


def problems(entries: Sequence[Entry], *, windows: bool = WINDOWS) -> List[str]:
    """Why these entries, made by somebody else, must not be written below any folder, in words; empty when they may.

    Every name stays inside, nothing lies below what is not a folder, no link leads out, no name comes twice.
    """
    found: List[str] = []
    kinds: Dict[str, str] = {}
    for entry in entries:
        path = entry.path
        if complaint := _bad_name(path, windows):
            found.append(f"{path[:SHOWN_CHARACTERS]!r}: {complaint}")
            continue
        if path in kinds:
            found.append(f"{path!r}: named twice")
        kinds[path] = entry.kind
        if entry.kind == LINK and leads_out(path, entry.link):
            found.append(f"{path!r}: a link that leads outside, to {entry.link[:SHOWN_CHARACTERS]!r}")
        if entry.kind == LINK and windows:
            found.append(f"{path!r}: a symbolic link, which Windows makes only for administrators")
    folders = {""}
    for path in kinds:
        above, parent = [], path.rpartition("/")[0]
        while parent not in folders and kinds.get(parent, FOLDER) == FOLDER:
            above.append(parent)
            parent = parent.rpartition("/")[0]
        if parent in folders:
            folders.update(above)
        else:
            found.append(f"{path!r}: lies below {parent!r}, which is not a folder")
    return found


def collisions(entries: Sequence[Entry]) -> List[str]:
    """Names that are one name where upper and lower case, or one accent and the other, are not told apart."""
    from unicodedata import normalize

    seen: Dict[str, str] = {}
    found = []
    for entry in entries:
        other = seen.setdefault(normalize("NFC", entry.path).casefold(), entry.path)
        if other != entry.path:
            found.append(f"{other!r} and {entry.path!r}")
    return found


def _bad_name(path: str, windows: bool) -> str:
    if len(path) > PATH_CHARACTERS:
        return "too long"
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        return "leads outside"
    if parts[0] == STAGING:
        return "is a name of ours"
    if not _is_spelled_once(path):
        return "not a file name"
    if windows:
        return next((complaint for part in parts if (complaint := not_on_windows(part))), "")
    return ""


def _is_spelled_once(path: str) -> bool:
    """Whether a path is the text that `text` makes of its bytes: another text for them would be the same file."""
    try:
        return path.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape") == path
    except UnicodeEncodeError:
        return False


_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[1-9¹²³]|lpt[1-9¹²³])\s*(\..*)?\Z", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[<>:"\\|?*\x00-\x1f]')
_NOT_UNICODE = re.compile("[\ud800-\udfff]")


def not_on_windows(name: str) -> str:
    """Why Windows has no file of that name, in words; empty where it may have one."""
    if _RESERVED.match(name):
        return "a device on Windows"
    if _FORBIDDEN.search(name) or name.endswith((".", " ")) or _NOT_UNICODE.search(name):
        return "not a file name on Windows"
    if len(name.encode("utf-16-le")) > 510:
        return "too long for Windows"
    return ""


def leads_out(path: str, link: str) -> bool:
    """Whether a link at `path` to `link` could lead out of the tree.

    Upward steps count only at its beginning: after another link they go up from wherever that one leads.
    """
    if not link or "\0" in link or link.startswith("/") or (WINDOWS and ":" in link):
        return True
    if len(link) > PATH_CHARACTERS or not _is_spelled_once(link):  # nobody can say where that leads
        return True
    parts = [part for part in link.split("/") if part not in ("", ".")]
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return ".." in parts[up:] or up > path.count("/")
