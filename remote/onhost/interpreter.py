"""The Pythons of this machine, and what is recorded about the packages that each of them sees.

Nothing is imported for it: an import of torch takes seconds, and may fail.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

TIMEOUT_S = 60
# `python -m pip` imports from where it is started: nobody puts files for us into this one.
NEUTRAL = os.path.dirname(sys.executable)
NAMES = ("python3", "python", "/root/miniconda3/bin/python", "/opt/conda/bin/python") + tuple(
    f"python3.{minor}" for minor in range(14, 10, -1)
)
# What comes after the marker is ours; a sitecustomize may print anything before it.
MARK = "@launch "
LOOK = """
import json, os, sys, sysconfig
packages = {}
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (AttributeError, ValueError, OSError):
    libc = ""
if sys.version_info >= (3, 8):
    from importlib import metadata
    for name in sys.argv[1:]:
        try:
            found = metadata.distribution(name)
            packages[name] = [str(found.version), os.path.abspath(str(found.locate_file("")))]
        except Exception:
            pass
sites = [os.path.abspath(path) for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]
print("@launch " + json.dumps([
    list(sys.version_info[:3]), os.path.realpath(sys.executable), packages, sites, sysconfig.get_platform(), libc,
]))
"""

Version = Tuple[int, ...]


class Package(NamedTuple):
    """An installed distribution and the folder that it lies in."""

    version: str
    folder: str


class Interpreter(NamedTuple):
    """`path` is how it is called, `binary` what that leads to, `sites` are the folders of its packages.

    `platform` as sysconfig calls it (linux-x86_64), `libc` as the C library does (glibc 2.35, empty for another).
    """

    path: str
    version: Version
    binary: str
    packages: Dict[str, Package]
    sites: Sequence[str]
    platform: str = ""
    libc: str = ""


class Need(NamedTuple):
    """A distribution that must be there: at least `low`, and below `high` where that is given."""

    name: str
    low: Version
    high: Version = ()

    def unmet(self, python: Interpreter) -> str:
        """Why this Python does not satisfy it; empty where it does."""
        package = python.packages.get(self.name)
        if package is None:
            return f"{self.name} is missing"
        found = numbers(package.version)
        if found < self.low or (self.high and found >= self.high):
            return f"{self.name} is {package.version}"
        return ""


def numbers(version: str) -> Version:
    """The first three numbers of a version: enough to compare releases."""
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def here(first: Sequence[str], distributions: Sequence[str]) -> List[Interpreter]:
    """The Pythons on this machine, each once, `first` first; what can't be started is left out."""
    found: Dict[Tuple[str, str], Interpreter] = {}
    for path in _paths([*first, *NAMES]):
        python = look(path, distributions)
        if python is not None:
            # One binary is two Pythons where a virtual environment links to it.
            found.setdefault((python.binary, os.path.dirname(path)), python)
    return list(found.values())


def look(path: str, distributions: Sequence[str]) -> Optional[Interpreter]:
    """What the Python at `path` is; None where it does not tell."""
    said = answer([path, "-I", "-c", LOOK, *distributions])
    line = next((line for line in said.splitlines() if line.startswith(MARK)), "")
    try:
        version, binary, packages, sites, platform, libc = json.loads(line[len(MARK) :])
        seen = {name: Package(*map(str, one)) for name, one in packages.items()}
        return Interpreter(
            path, tuple(map(int, version)), str(binary), seen, list(map(str, sites)), str(platform), str(libc)
        )
    except (ValueError, TypeError, AttributeError):
        return None


def which(name: str) -> Optional[str]:
    """Where a program lies; not in the current folder, in which Windows looks before all others."""
    found = shutil.which(name)
    if os.name == "nt" and found and not os.path.isabs(name) and os.path.dirname(os.path.abspath(found)) == os.getcwd():
        return None
    return found


def _paths(names: Iterable[str]) -> List[str]:
    found = [which(name) for name in names]
    return list(dict.fromkeys(os.path.abspath(path) for path in found if path))


def answer(argv: Sequence[str]) -> str:
    """What a Python says, empty where it ends badly or not in time."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S,
            env=shielded(), cwd=NEUTRAL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def shielded(more: Optional[Dict[str, Any]] = None) -> Dict[str, str]:
    """The environment without what would let other packages in: the run's code, the user's own."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    env["PYTHONNOUSERSITE"] = "1"
    env.update(more or {})
    return env
