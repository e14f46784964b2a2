"""A Python of our own, for a machine on which none is new enough: uv's where that can be had, else conda's.

It lies at `pythons/<version>` and counts only with its marker, which comes last: a conda prefix holds its own path and
can't be moved, so what is made is made where it stays.  Where it comes from is this machine's business: uv goes by its
variables and files (UV_PYTHON_INSTALL_MIRROR, UV_PYTHON_DOWNLOADS_JSON_URL) and by pip's proxy, conda by its .condarc.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import time
from functools import partial
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from . import build_lock, installer, interpreter, narrated
from .atomic import read_object, write_json
from .narrated import Failed, Say

FOLDER = "pythons"
MARKER = "ready.json"
# A hundred megabytes at a hundred kilobytes a second.
LIMIT_S = 1200.0
CONDAS = ("conda", "mamba", "micromamba", "/root/miniconda3/bin/conda", "/opt/conda/bin/conda")
# An old pip knows no wheel of today, and says so at once; another one may.  What takes longer is the network's fault.
MOST_BASES = 2
AT_ONCE_S = 20.0
REASON_CHARACTERS = 240
ERROR = re.compile(r"(error\b|\w+Error\b)", re.IGNORECASE)


class Tools(NamedTuple):
    """What there is to fetch it with: a `cache` for downloads, the requirement that brings `uv`, a folder of `wheels`
    that takes the place of an index (or empty), and Pythons whose pip may install uv, the best first."""

    cache: str
    uv: str
    wheels: str
    bases: Sequence[str]


def ready(pythons: str, version: str) -> str:
    """The Python of that version that is there already, empty where there is none."""
    python = str(read_object(os.path.join(pythons, version, MARKER)).get("python", ""))
    return python if os.path.exists(python) else ""


def get(pythons: str, version: str, tools: Tools, say: Say, limit_s: float = LIMIT_S) -> str:
    """A Python of that version (`3.12`), fetched if it is not there; no way of fetching takes more than `limit_s`.

    Raises Failed with all that was tried, and why it did not work.
    """
    os.makedirs(pythons, exist_ok=True)
    folder = os.path.join(pythons, version)
    with build_lock.held(folder + ".lock", lambda seconds: say(f"another run is fetching Python {version}")) as lock:
        marker, python = os.path.join(folder, MARKER), ready(pythons, version)
        if python:
            os.utime(marker)  # whoever cleans up sees that somebody is about to build on it
        else:
            python = _Fetch(folder, version, tools, say, lock, limit_s).python()
            write_json(marker, {"python": python, "fetched_at": time.time()})
    return python


class _Fetch:
    """One go at it."""

    def __init__(self, folder: str, version: str, tools: Tools, say: Say, lock: int, limit_s: float) -> None:
        self._folder = folder
        self._version = version
        self._tools = tools
        self._say = say
        self._lock = lock
        self._limit_s = limit_s

    def python(self) -> str:
        reasons = []
        for name, way in self._ways():
            # Also what a go left that was cut off: nobody knows how far it came.
            shutil.rmtree(self._folder, ignore_errors=True)
            os.makedirs(self._folder, exist_ok=True)
            try:
                return way()
            except Failed as failed:
                self._say(f"{name}: {failed}")
                reasons.append(f"{name}: {failed}")
        shutil.rmtree(self._folder, ignore_errors=True)
        raise Failed(f"Python {self._version} could not be fetched: {'; '.join(reasons)}")

    def _ways(self) -> Iterator[Tuple[str, Callable[[], str]]]:
        yield "uv", self._with_uv
        condas: Dict[str, str] = {}
        for path in filter(None, map(interpreter.which, CONDAS)):
            condas.setdefault(os.path.realpath(path), path)
        for path in condas.values() or [""]:
            yield path or "conda", partial(self._with_conda, path)

    def _with_uv(self) -> str:
        uv, base = self._uv()
        self._say(f"fetching Python {self._version} with {uv}")
        place = os.path.join(self._folder, "uv")
        more = {
            **installer.uv_variables(installer.settings(base)),
            "UV_CACHE_DIR": os.path.join(self._tools.cache, "uv"),
            "UV_PYTHON_INSTALL_DIR": place,
            "UV_PYTHON_DOWNLOADS": "manual",  # images forbid those that nobody asked for
            "UV_PYTHON_INSTALL_BIN": "0",  # nothing of it for the PATH of whoever owns the machine
        }
        self._run([uv, "python", "install", "--no-progress", "--color", "never", self._version], more)
        return self._made(os.path.join(place, "*"))

    def _uv(self) -> Tuple[str, str]:
        """This machine's uv, or one that is installed now; and the Python whose pip knows the proxy.  Raises Failed."""
        bases = [base for base in self._tools.bases if _has_pip(base)][:MOST_BASES]
        if not bases:
            found = interpreter.which("uv")
            if found:
                return found, ""
            raise Failed("not on this machine, and no Python here has a pip to install it")
        for base in bases:
            started = time.monotonic()
            found = installer.uv(self._tools.cache, base, self._tools.uv, lambda text: None, self._tools.wheels)
            if found:
                return found, base
            if time.monotonic() - started > AT_ONCE_S:
                break
        raise Failed(f"not on this machine, and pip could not install {self._tools.uv}")

    def _with_conda(self, conda: str) -> str:
        if not conda:
            raise Failed("not on this machine")
        self._say(f"fetching Python {self._version} with {conda}")
        place = os.path.join(self._folder, "conda")
        # Ours to clean up, and on the same disk: what is unpacked there is linked, not copied.
        more = {"CONDA_PKGS_DIRS": os.path.join(self._tools.cache, "conda"), "CONDA_REGISTER_ENVS": "false"}
        self._run([conda, "create", "--yes", "--quiet", "--prefix", place, f"python={self._version}"], more)
        return self._made(glob.escape(place))

    def _made(self, places: str) -> str:
        """The Python in one of these folders, once it has told that it is what was wanted.  Raises Failed."""
        name = "python.exe" if os.name == "nt" else os.path.join("bin", "python" + self._version.split(".")[0])
        for path in sorted(glob.glob(os.path.join(places, name))):
            # uv also links a folder to the newest one, which would be another after an update.
            if os.path.islink(path[: -len(name) - 1]):
                continue
            found = interpreter.look(path, ())
            if found is not None and found.version[:2] == interpreter.numbers(self._version)[:2]:
                return path
        raise Failed(f"what it made is no Python {self._version} that works here")

    def _run(self, argv: List[str], more: Mapping[str, str]) -> None:
        """Run it in our folder and pass on what it says.  Raises Failed with its error."""
        # Where a login exports COLUMNS, uv breaks its lines there without a terminal, too.
        env = interpreter.shielded(dict(more, COLUMNS="1000"))
        ended = narrated.run(
            argv, self._say, env=env, cwd=self._folder, disk=self._folder,
            keep=(self._lock,), limit_s=self._limit_s,
        )  # fmt: skip
        if ended.status != 0:
            raise Failed(_shortened([line.strip() for line in ended.lines]) or f"ended with status {ended.status}")


def _shortened(said: Sequence[str]) -> str:
    """Its error in one line, beginning and end of it."""
    start = next((number for number, line in enumerate(said) if ERROR.match(line)), len(said) - 1)
    # The address was said before, and is long.
    words = (re.sub(r"^(error|cause): +| for url \(\S+\)", "", line) for line in said[max(0, start) :])
    text = ": ".join(word.rstrip(":.") for word in words)
    half = REASON_CHARACTERS // 2
    return text if len(text) <= REASON_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def _has_pip(python: str) -> bool:
    return bool(interpreter.answer([python, "-m", "pip", "--version"]))
