"""Which files of a source tree stay at home: what its .launchignore, else its .gitignore says, read as git reads it.

Owns the rules and the folder they stand in.  It lists no folder, follows no link and does not know what becomes of a
file.  Parents of the root, `.git/info/exclude` and git's global files never count.

git compares bytes, so names and patterns are compared here as text with one character a byte (Latin-1).  pathspec turns
each pattern into a regular expression; whether a path is left out is decided here, because GitIgnoreSpec lets a pattern
for a folder speak for what is in it: `build` and then `!src` would bring back src/build.  Patterns are respelled first
where pathspec 1.1 reads them differently: `a/**` (would leave out `a` itself), `***`, `a**/b`, `\\` and `[:alpha:]` in
brackets, brackets that would match a slash, blanks that are no spaces at the end, `\\/`.

What remains different from git: case always counts, also where core.ignorecase is set (macOS, Windows); a pattern that
ends in a lone backslash, which git never matches, or is longer than 4 KiB is an error; a repository inside
of the tree is a folder like any other, but for its `.git`.
"""

from __future__ import annotations

import os
import re
import stat
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from remote.errors import RemoteError

LAUNCHIGNORE, GITIGNORE = ".launchignore", ".gitignore"
LIMIT_BYTES = 1024 * 1024
PATTERN_LIMIT_BYTES = 4096
SHOWN_CHARACTERS = 60

_CLASSES = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, range(1, 32))) + "\x7f",
    "digit": string.digits,
    "graph": string.ascii_letters + string.digits + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.ascii_letters + string.digits + string.punctuation + " ",
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}
# git compares what stands before the first wildcard by itself, so that ** right after it counts as the beginning.
_LITERAL_AND_STARS = re.compile(r"([^*?\[\\]*[^*?\[\\/])\*\*+(?:/\*\*+)*(?=/|\Z)", re.DOTALL)
# What pathspec makes of **/ at the beginning, of /** further on, and of *.
_LEADING, _INNER, _STAR = "^(?:.+/)?", "(?:/.+)?", "[^/]*"


class _Rule(NamedTuple):
    """One pattern.  `depth`: how many names the paths have that it can match, 0 for any number."""

    matches: Callable[[str], object]
    by_name: bool
    leaves_out: bool
    folders_only: bool
    depth: int


class _Rules:
    """What one ignore file says; the last of its lines comes first."""

    __slots__ = ("_by_depth", "_rules")

    def __init__(self, rules: list[_Rule]) -> None:
        self._rules = rules[::-1]
        self._by_depth: dict[int, tuple[list[_Rule], list[_Rule]]] = {}

    def at_depth(self, depth: int) -> tuple[list[_Rule], list[_Rule]]:
        """The rules that can match paths of `depth` names: those for files, those for folders."""
        if depth not in self._by_depth:
            folders = [rule for rule in self._rules if rule.depth in (0, depth)]
            self._by_depth[depth] = [rule for rule in folders if not rule.folders_only], folders
        return self._by_depth[depth]


class _Level(NamedTuple):
    """An ignore file's rules as they stand in a folder `depth` names below it; `prefix` is the way there."""

    rules: _Rules
    prefix: str
    depth: int
    files: list[_Rule]
    folders: list[_Rule]


@dataclass(frozen=True, slots=True, eq=False)
class Ignore:
    """The rules of one folder of a tree: its own file's, then those of the folders above it, up to the root.

    `source` is what decides here: ".launchignore", ".gitignore", or "" where no file was found so far.  A symbolic link
    is a file, also when it leads to a folder.  Where the root has a .gitignore, whatever is called `.git` is left out.
    """

    source: str = ""
    _folder: str = ""
    _kind: str = ""
    _without_git: bool = False
    _levels: tuple[_Level, ...] = ()
    _entered: dict[str, Ignore] = field(default_factory=dict, repr=False)

    @classmethod
    def at(cls, root: Path) -> Ignore:
        """The rules in the folder `root` of a tree.  Raises RemoteError for an ignore file that can't be understood."""
        folder = str(root)
        for kind in (LAUNCHIGNORE, GITIGNORE):
            if (rules := _found(folder, kind)) is not None:
                return cls(kind, folder, kind, kind == GITIGNORE, (_level(rules, "", 1),))
        return cls("", folder, GITIGNORE)

    def enter(self, name: str) -> Ignore:
        """The rules in the sub-folder `name`, which is not left out.  Raises RemoteError as `at` does."""
        if not self._kind:
            return self
        folder = os.path.join(self._folder, name)
        levels = self._levels
        if levels:
            way = _bytewise(name) + "/"
            levels = tuple(_level(level.rules, level.prefix + way, level.depth + 1) for level in levels)
        rules = _found(folder, self._kind)
        if rules is None:
            return Ignore(self.source, folder, self._kind, self._without_git, levels)
        return Ignore(self._kind, folder, self._kind, self._without_git, (_level(rules, "", 1), *levels))

    def skips(self, name: str, is_dir: bool) -> bool:
        """Whether the child `name` of this folder is left out."""
        if not self._levels:
            return False
        if self._without_git and name == ".git":
            return True
        spelled = _bytewise(name)
        for level in self._levels:
            path = level.prefix + spelled
            for rule in level.folders if is_dir else level.files:
                if rule.matches(spelled if rule.by_name else path):
                    return rule.leaves_out
        return False

    def skips_path(self, path: str, is_dir: bool) -> bool:
        """Whether `path` (a/b/c, from this folder) is left out, itself or with a folder that it lies in.

        It need not exist.  The ignore files on the way are read once and remembered.
        """
        *parents, name = path.split("/")
        rules = self
        for parent in parents:
            if rules.skips(parent, True):
                return True
            if parent not in rules._entered:
                rules._entered[parent] = rules.enter(parent)
            rules = rules._entered[parent]
        return rules.skips(name, is_dir)


NOTHING = Ignore()
"""Leaves out nothing and never looks at files."""


def _level(rules: _Rules, prefix: str, depth: int) -> _Level:
    return _Level(rules, prefix, depth, *rules.at_depth(depth))


def _bytewise(name: str) -> str:
    """`name` with a character for each of its bytes, as a git repository would keep it."""
    if name.isascii():
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("latin-1")
    except UnicodeEncodeError:  # Windows has names that are no text
        return name.encode("utf-8", "surrogatepass").decode("latin-1")


def _found(folder: str, name: str) -> _Rules | None:
    """The rules of the ignore file `name` in `folder`; None where there is none, or something else under that name."""
    path = os.path.join(folder, name)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # git does not follow links either
            return None
    except (OSError, ValueError):  # nothing is there, or the name is none that could be here
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise RemoteError(f"{path} can't be read: {error.strerror or error}") from error
    if len(content) > LIMIT_BYTES:
        raise RemoteError(
            f"{path} is larger than {LIMIT_BYTES // 1024**2} MiB, too large for a file of patterns",
            hint="name folders in place of files, or put what matters into a .launchignore",
        )
    rules: list[_Rule] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            rules += _understood(line.removesuffix(b"\r").partition(b"\0")[0].decode("latin-1"))
        except (ValueError, re.error) as error:
            shown = line.decode("utf-8", "backslashreplace").strip()
            if len(shown) > SHOWN_CHARACTERS:
                shown = shown[:SHOWN_CHARACTERS] + "..."
            raise RemoteError(
                f"{path}, line {number}: {shown!r} is no pattern that can be understood",
                hint="mend or remove that line",
            ) from error
    return _Rules(rules)


def _understood(line: str) -> Iterator[_Rule]:
    """What a line of an ignore file says: nothing, one rule, or two that mean the same.  Raises ValueError."""
    if line.startswith("#"):
        return
    if len(line) > PATTERN_LIMIT_BYTES:
        raise ValueError("longer than any path")
    pattern = line.rstrip(" ")
    if pattern != line and (len(pattern) - len(pattern.rstrip("\\"))) % 2:
        pattern += " "  # the first of the blanks is written with a backslash
    leaves_out = not pattern.startswith("!")
    pattern = pattern if leaves_out else pattern[1:]
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    by_name = "/" not in pattern
    for spelled in _respelled(pattern.removeprefix("/"), by_name):
        names = spelled.split("/")[1:]
        depth = 0 if by_name or "**" in names else len(names)
        if (regex := _regex(spelled)) is not None:
            yield _Rule(re.compile(regex, re.DOTALL).fullmatch, by_name, leaves_out, folders_only, depth)


def _respelled(pattern: str, by_name: bool) -> list[str]:
    """`pattern`, without slashes around it, so that pathspec takes it as git does; [] when it never matches."""
    if by_name or not (quirk := _LITERAL_AND_STARS.match(pattern)):
        return _spelled(pattern, by_name)
    literal, rest = quirk[1], pattern[quirk.end() :]
    directly = literal + (rest[1:] if rest else "*")
    return _spelled(directly, by_name) + _spelled(literal + "*/**" + rest, by_name)


def _spelled(pattern: str, by_name: bool) -> list[str]:
    """The same for a pattern whose asterisks git takes as its manual says."""
    parts = []
    at = 0
    while at < len(pattern):
        character, rest = pattern[at], pattern[at + 1 :]
        if character == "*":
            stars = 1 + len(rest) - len(rest.lstrip("*"))
            parts.append("*" if by_name else _stars(pattern, at, at + stars))
            at += stars
        elif character == "[":
            if (bracket := _bracket(pattern, at)) is None:
                return []
            members, at = bracket
            parts.append(_one_of(members))
        elif character == "\\" and rest:
            parts.append(_literal(rest[0]))
            at += 2
        else:
            parts.append(character if character in "?\\" else _literal(character))
            at += 1
    # A name that is * alone is something special to pathspec; ?* is not, and means the same.
    names = ["?*" if name == "*" else name for name in "".join(parts).split("/")]
    if "" in names:
        return []
    names = [name for name, before in zip(names, ["", *names], strict=False) if name != "**" or before != "**"]
    if names[-1] == "**":
        names.append("?*")
    return ["/" + "/".join(names)]


def _stars(pattern: str, start: int, end: int) -> str:
    """What the asterisks at pattern[start:end] are: `**` when they are two or more and a name of their own."""
    rest = pattern[end:]
    if end - start == 1 or (start and pattern[start - 1] != "/") or (rest and not rest.startswith(("/", "\\/"))):
        return "*"
    return "**/?*" if rest.startswith("\\") else "**"  # git takes **\/ for one folder at least


def _literal(character: str) -> str:
    if character.isspace():  # at the end pathspec would strip more than spaces
        return _one_of({character})
    return "\\" + character if character in "\\*?[" else character


def _one_of(members: set[str]) -> str:
    """A bracket that pathspec and `re` take alike: no ranges, nothing special where it would be special."""
    first = "]" if "]" in members else "\0"
    last = "-" if "-" in members else ""
    return "[" + first + "".join(sorted(members - {"]", "-"})) + last + "]"


def _bracket(pattern: str, at: int) -> tuple[set[str], int] | None:
    """The characters that the bracket at pattern[at] stands for and where it ends; None when git drops the pattern."""
    at += 1
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    members: set[str] = set()
    before = ""  # what a hyphen would make the beginning of a range
    try:
        while True:
            character = pattern[at]
            if character == "-" and before and pattern[at + 1] != "]":
                at += 2 if pattern[at + 1] == "\\" else 1
                members.update(map(chr, range(ord(before), ord(pattern[at]) + 1)))
                before = ""
            elif character == "[" and (name := _class_name(pattern, at)) is not None:
                members.update(_CLASSES[name])
                at += len(name) + 3
                before = ""
            else:
                at += character == "\\"
                before = pattern[at]
                members.add(before)
            at += 1
            if pattern[at] == "]":
                break
    except LookupError:  # it is never closed, or there is no such class
        return None
    if negated:
        members = set(_every_byte()) - members
    return members - {"/"}, at + 1


def _class_name(pattern: str, at: int) -> str | None:
    """`alpha` where [:alpha:] stands at pattern[at], None where there is only a bracket.  Raises IndexError."""
    if not pattern.startswith("[:", at):
        return None
    end = pattern.find("]", at + 2)
    if end < 0:
        raise IndexError("no bracket closes the class")
    name = pattern[at + 2 : end]
    return name[:-1] if name.endswith(":") else None


@cache
def _every_byte() -> frozenset[str]:
    return frozenset(map(chr, range(1, 256)))


def _regex(spelled: str) -> str | None:
    """A regular expression for a whole path, None when pathspec drops the pattern.  Raises ValueError as it does."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern  # 15 ms that a tree without rules need not pay

    regex, _ = GitIgnoreSpecPattern.pattern_to_regex(spelled)
    return None if regex is None else _patient(regex)


def _patient(regex: str) -> str:
    """pathspec's `regex`, matching the same without going back and forth: *a*a*a*a*b takes no time on any name.

    What stands between two asterisks may always be taken where it comes first, so there it is never tried again; the
    same goes for the names between two `**`.
    """
    first, *others = map(_patient_in_names, regex.split(_INNER))
    if not others:
        return first
    if first.startswith(_LEADING):
        first = "^(?>(?:.+?/)??" + first.removeprefix(_LEADING) + "(?=/))"
    *middle, last = others
    return first + "".join(f"(?>(?:/.+?)??{names}(?=/))" for names in middle) + _INNER + last


def _patient_in_names(regex: str) -> str:
    first, *others = regex.split(_STAR)
    patient = first
    for position, part in enumerate(others, start=1):
        name_ends = position == len(others) or "/" in part.replace("[^/]", "")
        patient += _STAR + part if name_ends else f"(?>[^/]*?{part})"
    return patient
