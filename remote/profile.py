"""What is known of a kind of rented machine, as data: `profiles.toml`, and a person's own file of the same shape.

A profile says how such a machine is recognised, where to work on it, what survives there, and whether it may be
switched off from inside.  It runs nothing.  Its patterns are a shell's (`*`, `?`, `[…]`), which can't hang.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from remote.errors import CannotExecute, RemoteError
from remote.facts import Facts

PLAIN = "plain"
CACHE = "~/.cache"
MOST_CHARACTERS = 1000
MOST_DAYS = 3650


class BadProfile(RemoteError):
    """A file of profiles can't be understood; all that is wrong with it is said at once."""

    code = "profile_invalid"


class UnknownProfile(RemoteError):
    """There is no profile of that name."""

    code = "profile_unknown"


@dataclass(frozen=True)
class Evidence:
    """What tells of a kind of machine.

    Any one of `address` and `hostname` (patterns), `paths` (that exist) and `variables` (that are set) will do; the
    more of these fit, the surer.  In any case all paths in `present` have to exist, and none in `absent`.
    """

    address: tuple[str, ...] = ()
    hostname: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def all_paths(self) -> tuple[str, ...]:
        """Those whose existence has to be known."""
        return (*self.paths, *self.present, *self.absent)

    @property
    def is_on_the_machine(self) -> bool:
        """Whether more than an address can tell of it."""
        return bool(self.hostname or self.paths or self.variables)

    def fits_address(self, address_host: str) -> bool:
        """Whether the address alone tells."""
        return _fits(address_host.lower().rstrip("."), map(str.lower, self.address))

    def weight(self, facts: Facts, address_host: str) -> int:
        """How much of it fits; 0 where it is not such a machine, or a path that decides is not known."""
        decided = [facts.paths.get(path) is True for path in self.present]
        decided += [facts.paths.get(path) is False for path in self.absent]
        found = [
            self.fits_address(address_host),
            _fits(facts.hostname, self.hostname),
            any(facts.paths.get(path) for path in self.paths),
            bool({*self.variables} & {*facts.variables}),
        ]
        return sum(found) + len(decided) if any(found) and all(decided) else 0


def _fits(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text[:MOST_CHARACTERS], pattern) for pattern in patterns) if text else False


@dataclass(frozen=True)
class Durable:
    """A folder whose disk lasts, and in words what it survives."""

    path: str
    survives: str


@dataclass(frozen=True)
class Poweroff:
    """How to switch such a machine off from inside; `safe` where that ends the billing and keeps its disks."""

    command: tuple[str, ...] = ()
    safe: bool = False


@dataclass(frozen=True)
class Profile:
    """A kind of machine.  `workspaces` in order of preference; `ids` are variables that hold the provider's id.

    `network_hook` is a file to source for access to the world, per command.  `keeps` and `billing` are for people; with
    `kept_days` its data are deleted that many days after a power-off.
    With `refusal` such a machine can't be worked with, and `hint` says what to do instead.
    """

    name: str
    title: str
    recognise: Evidence = Evidence()
    workspaces: tuple[str, ...] = (CACHE,)
    durable: tuple[Durable, ...] = ()
    pythons: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    network_hook: str = ""
    mirrors: tuple[str, ...] = ()
    expects_gpu: bool = False
    poweroff: Poweroff = Poweroff()
    keeps: str = ""
    billing: str = ""
    kept_days: int = 0
    refusal: str = ""
    hint: str = ""

    def misses_gpu(self, facts: Facts) -> bool:
        """Whether a GPU should be there and is not: started without one (无卡模式), or none attached."""
        return facts.gpus == () and not facts.gpu_fault and (self.expects_gpu or facts.is_no_gpu_mode)

    def survives(self, folder: str) -> str:
        """What a folder there survives, in the words for the nearest one around it; "" where nothing is known."""
        around = [one for one in self.durable if f"{folder}/".startswith(one.path.rstrip("/") + "/")]
        return max(around, key=lambda one: len(one.path), default=Durable("", "")).survives

    def refuse(self, name: str) -> None:
        """Raise CannotExecute, for the host called `name`, where such a machine can't be worked with."""
        if self.refusal:
            raise CannotExecute(f"{name}: {self.title}: {self.refusal}", hint=self.hint)


@dataclass(frozen=True)
class Profiles:
    """A person's `own` profiles and those that come along; one's own counts before, and instead of, its namesake."""

    own: tuple[Profile, ...] = ()
    supplied: tuple[Profile, ...] = ()

    def all(self) -> tuple[Profile, ...]:
        """Every profile that counts."""
        names = {profile.name for profile in self.own}
        return (*self.own, *(profile for profile in self.supplied if profile.name not in names))

    def named(self, name: str) -> Profile:
        """The profile of that name.  Raises UnknownProfile, with the names there are."""
        for profile in self.all():
            if profile.name == name:
                return profile
        names = ", ".join(sorted(profile.name for profile in self.all() if not profile.refusal))
        raise UnknownProfile(f"there is no profile {name!r}", hint=f"one of {names}")

    def by_address(self, address_host: str) -> Profile | None:
        """What the address alone tells, before anything is connected to."""
        return next((profile for profile in self.all() if profile.recognise.fits_address(address_host)), None)

    def refuse(self, address_host: str) -> None:
        """Raise CannotExecute where the address alone tells that no command can be run there."""
        if profile := self.by_address(address_host):
            profile.refuse(address_host)

    def recognise(self, facts: Facts, address_host: str = "") -> Profile:
        """The kind of machine with the most evidence, a person's own first; `plain` where there is none."""
        for part in (self.own, self.all()):
            weights = {profile: profile.recognise.weight(facts, address_host) for profile in part}
            if any(weights.values()):
                return max(weights, key=lambda profile: weights[profile])
        return self.named(PLAIN)


def load(user_file: Path | None = None) -> Profiles:
    """The profiles that come along and those of a person's own file, if it is there.

    Raises BadProfile with everything that is wrong in it.
    """
    return Profiles(_own(user_file) if user_file else (), _supplied())


@cache
def _supplied() -> tuple[Profile, ...]:
    return _profiles(resources.files("remote").joinpath("profiles.toml").read_text("utf-8"), "profiles.toml")


def _own(file: Path) -> tuple[Profile, ...]:
    try:
        text = file.read_text("utf-8-sig")  # an editor on Windows may put a mark in front
    except FileNotFoundError:
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise BadProfile(f"{file} can't be read: {error}") from error
    return _profiles(text, str(file))


def _profiles(text: str, where: str) -> tuple[Profile, ...]:
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadProfile(f"{where} is not TOML: {error}", hint="mend it in an editor") from error
    reader = _Reader()
    found = tuple(reader.profile(name, table) for name, table in tables.items())
    if reader.problems:
        raise BadProfile(f"{where}: {'; '.join(reader.problems)}", hint="mend it in an editor")
    return found


_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}\Z", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\Z", re.ASCII)
_URL = re.compile(r"https?://[^\s/@?#\\]+(?:/[^\s@\\]*)?\Z", re.ASCII)


def is_variable(text: str) -> bool:
    """Whether an environment variable can be called that."""
    return _VARIABLE.match(text) is not None


def is_url(text: str) -> bool:
    """Whether it is an http(s) address, with no name and password in it."""
    return _URL.match(text) is not None


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~/")) and text.isprintable()


# What the texts of a key have to be, beyond texts; keys of every table have names of their own.
_SHAPES: Mapping[str, tuple[Callable[[str], bool], str]] = {
    **dict.fromkeys(
        ("paths", "present", "absent", "workspaces", "path"), (_is_path, "a path that begins with / or ~/")
    ),
    **dict.fromkeys(("ids", "variables"), (is_variable, "the name of a variable")),
    "network_hook": (lambda text: not text or _is_path(text), "a path that begins with / or ~/"),
    "mirrors": (is_url, "an http address, without name and password"),
}


class _Reader:
    """Turns tables into profiles and collects what is wrong with them, each with the path of its key."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def profile(self, name: str, table: Any) -> Profile:
        if not _NAME.match(name):
            self._wrong(name, "a profile's name is made of lower-case letters, digits, . _ -")
        values = self._table(name, table, Profile, but={"name"}, required={"title"})
        profile = Profile(**{"title": "", **values}, name=name)
        if not profile.workspaces:
            self._wrong(f"{name}.workspaces", "at least one is needed")
        if profile.poweroff.safe and not profile.poweroff.command:
            self._wrong(f"{name}.poweroff.command", "needed where it is safe")
        return profile

    def _table(
        self, where: str, table: Any, kind: type[Any], *, but: Iterable[str] = (), required: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The values of a table whose keys are the fields of `kind`."""
        allowed = {one.name: str(one.type) for one in fields(kind) if one.name not in but}
        if not isinstance(table, dict):
            self._wrong(where, f"not a table; allowed keys: {', '.join(allowed)}")
            return {}
        for key in table:
            if key not in allowed:
                self._wrong(f"{where}.{key}", f"unknown; allowed keys: {', '.join(allowed)}")
        for key in required:
            if key not in table:
                self._wrong(f"{where}.{key}", "missing")
        return {key: self._value(f"{where}.{key}", key, table[key], allowed[key]) for key in table if key in allowed}

    def _value(self, where: str, key: str, value: Any, kind: str) -> Any:
        if kind == "bool":
            return value if isinstance(value, bool) else self._wrong(where, "neither true nor false")
        if kind == "str":
            return self._text(where, key, value)
        if kind == "int":
            if type(value) is int and 0 <= value <= MOST_DAYS:
                return value
            return self._wrong(where, f"not a whole number from 0 to {MOST_DAYS}")
        if kind == "Evidence":
            return Evidence(**self._table(where, value, Evidence))
        if kind == "Poweroff":
            return Poweroff(**self._table(where, value, Poweroff))
        if not isinstance(value, list):
            self._wrong(where, "not a list")
            return ()
        items = [(f"{where}[{number}]", item) for number, item in enumerate(value)]
        if kind == "tuple[Durable, ...]":
            names = {one.name for one in fields(Durable)}
            tables = [self._table(at, item, Durable, required=names) for at, item in items]
            return tuple(Durable(**found) for found in tables if found.keys() == names)
        return tuple(self._text(at, key, item) for at, item in items)

    def _text(self, where: str, key: str, value: Any) -> str:
        fits, wanted = _SHAPES.get(key, (lambda _: True, ""))
        if not isinstance(value, str):
            self._wrong(where, "not a text")
        elif len(value) > MOST_CHARACTERS or "\0" in value:
            self._wrong(where, f"longer than {MOST_CHARACTERS} characters, or with a NUL in it")
        elif not fits(value):
            self._wrong(where, f"not {wanted}")
        else:
            return value
        return ""

    def _wrong(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")
