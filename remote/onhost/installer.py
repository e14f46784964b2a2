"""Makes a virtual environment and fills it: with uv where that can be had, with pip otherwise.

Where packages come from is this machine's business: pip's own settings and the proxies decide, for uv as well.
"""

from __future__ import annotations

import ast
import glob
import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from . import narrated
from .interpreter import NEUTRAL, answer, shielded, which
from .narrated import Failed, Say

UV_TIMEOUT_S = 180
# What pip says of every package and nobody can do anything about.
NOISE = (
    "+ ",
    "Collecting ",
    "Looking in ",
    "Processing ",
    "Using cached ",
    "Requirement already ",
    "WARNING: Location ",
)
# What of pip's settings says where packages come from; the others say where they go, and that is known.
SOURCES = ("index-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert", "proxy",
           "timeout", "default-timeout", "retries")  # fmt: skip
TRUE = ("1", "true", "yes", "on", "t", "y")
# Of two places that name the same setting pip takes the later one.
PLACES = ("global", "user", "site", "install", ":env:")
BINARIES = "Scripts" if os.name == "nt" else "bin"
OWN_SITE = ("Lib", "site-packages") if os.name == "nt" else ("lib", "python*", "site-packages")
PYTHON = "python.exe" if os.name == "nt" else "python"


@dataclass(frozen=True)
class Installer:
    """Fills environments of the Python `base`.

    `cache` keeps what was downloaded; `wheels` is a folder that takes the place of an index, or empty.
    """

    base: str
    cache: str
    say: Say
    uv: str = ""
    wheels: str = ""
    keep: Sequence[int] = ()
    """Descriptors that what we start holds open."""

    def make(self, folder: str, sites: Sequence[str] = ()) -> str:
        """A new virtual environment, behind whose own packages come those in `sites`; its Python.  Raises Failed."""
        if self.uv:
            argv = [self.uv, "venv", "--no-config", "--no-project", "--quiet", "--python", self.base, folder]
            env = {"UV_CACHE_DIR": os.path.join(self.cache, "uv"), "UV_PYTHON_DOWNLOADS": "never"}
            self._run("uv venv", argv, env)
        else:
            # ensurepip takes seconds, and would put an old setuptools before that of the image.
            more = ["--without-pip"] if self._base_has_pip else []
            self._run("venv", [self.base, "-m", "venv", *more, folder], {})
        if sites:
            # Not --system-site-packages: in an image that is a virtual environment those are the ones below it.
            [own] = glob.glob(os.path.join(glob.escape(folder), *OWN_SITE))
            with open(os.path.join(own, "image.pth"), "w", encoding="ascii") as file:  # which others are read differs
                file.write(f"import sys; sys.path.extend({ascii(list(sites))})\n")
        return os.path.join(folder, BINARIES, PYTHON)

    def install(self, python: str, lines: Sequence[str], constraints: Sequence[str] = (), *, alone: bool) -> None:
        """Install requirements; `alone` takes just these, and none that seems to be there.  Raises Failed."""
        folder = os.path.dirname(os.path.dirname(python))
        listed: List[str] = []
        for flag, name, content in (("-r", "requirements", lines), ("-c", "constraints", constraints)):
            path = os.path.join(folder, name + ".txt")
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(content) + "\n")
            listed += [flag, path]
        if self.uv:
            self._with_uv(python, listed, alone)
        else:
            self._with_pip(python, listed, alone)

    def _with_pip(self, python: str, listed: List[str], alone: bool) -> None:
        argv = [self.base, "-m", "pip", "--python", python] if self._base_has_pip else [python, "-m", "pip"]
        argv += ["install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off", "--no-compile"]
        argv += ["--no-deps", "--ignore-installed"] if alone else []
        argv += ["--no-index", "--find-links", self.wheels] if self.wheels else []
        # Images switch pip's cache off; a build that was cut off is to go on from there.
        env: Dict[str, Optional[str]] = {name: None for name in os.environ if name.startswith("PIP_")}
        found = settings(self.base)
        if found:
            env["PIP_CONFIG_FILE"] = os.devnull
        env.update({variable(name): found[name] for name in SOURCES if name in found})
        env["PIP_CACHE_DIR"] = os.path.join(self.cache, "pip")
        self._run("pip install", [*argv, *listed], env)

    def _with_uv(self, python: str, listed: List[str], alone: bool) -> None:
        argv = [self.uv, "pip", "install", "--no-config", "--no-progress", "--color", "never", "--python", python]
        argv += ["--no-deps"] if alone else []
        env: Dict[str, Optional[str]] = {"UV_CACHE_DIR": os.path.join(self.cache, "uv")}
        if self.wheels:
            argv += ["--no-index", "--find-links", self.wheels]
        else:
            found = settings(self.base)
            env.update(uv_variables(found))
            argv += ["--no-index"] if found.get("no-index", "").lower() in TRUE else []
        self._run("uv pip install", [*argv, *listed], env)

    @cached_property
    def _base_has_pip(self) -> bool:
        # pip works on another Python since 22.3; what it can do its help tells.
        return "--python" in answer([self.base, "-m", "pip", "--help"])

    def _run(self, what: str, argv: List[str], env: Mapping[str, Optional[str]]) -> None:
        changed = shielded({name: value for name, value in env.items() if value is not None})
        for name in (name for name, value in env.items() if value is None):
            changed.pop(name, None)
        for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):  # of the shell that we were started from
            changed.pop(name, None)
        ended = narrated.run(argv, self.say, env=changed, cwd=NEUTRAL, disk=self.cache, keep=self.keep, noise=NOISE)
        if ended.status != 0:
            raise Failed(f"{what} ended with status {ended.status}" + (f": {ended.lines[-1]}" if ended.lines else ""))


def uv(cache: str, base: str, requirement: str, say: Say, wheels: str = "") -> str:
    """A uv to build with: this machine's, one that was fetched before, or one fetched now; empty where none can be."""
    found = which("uv")
    if found:
        return found
    folder = os.path.join(cache, requirement.replace("==", "-"))
    program = os.path.join(folder, "bin", "uv.exe" if os.name == "nt" else "uv")
    if os.path.exists(program):
        return program
    temporary = f"{folder}.{os.getpid()}"
    argv = [base, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
    argv += ["--no-index", "--find-links", wheels] if wheels else []
    argv += ["--target", temporary, requirement]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=UV_TIMEOUT_S,
            env=shielded(), cwd=NEUTRAL, check=False,
        )  # fmt: skip
        if done.returncode == 0:
            os.replace(temporary, folder)
    except (OSError, subprocess.TimeoutExpired):
        pass  # another build may have been faster
    shutil.rmtree(temporary, ignore_errors=True)
    if os.path.exists(program):
        return program
    say("no uv to be had here: building with pip")
    return ""


def settings(python: str) -> Dict[str, str]:
    """What pip is told on this machine, by its files and by variables; without a pip, by variables alone."""
    variables = {name: os.environ[variable(name)] for name in SOURCES if variable(name) in os.environ}
    return dict(variables, **parsed(answer([python, "-m", "pip", "config", "list"]).splitlines()))


def variable(name: str) -> str:
    """What one of pip's settings is called as a variable."""
    return "PIP_" + name.upper().replace("-", "_")


def parsed(lines: Iterable[str]) -> Dict[str, str]:
    """The settings in the lines of `pip config list`: the last place that names one wins, as for pip."""
    found: Dict[str, Any] = {}
    for line in lines:
        key, separator, value = line.partition("=")
        place, _, name = key.strip().partition(".")
        if not separator or place not in PLACES:
            continue
        try:
            text = str(ast.literal_eval(value.strip()))
        except (ValueError, SyntaxError):
            continue
        if PLACES.index(place) >= found.get(name, (-1, ""))[0]:
            found[name] = (PLACES.index(place), text)
    return {name: text for name, (_, text) in found.items()}


def uv_variables(pip: Dict[str, str]) -> Dict[str, str]:
    """The same for uv, which reads none of pip's settings."""
    said = {
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(one for one in pip.get("extra-index-url", "").split() if _is_there(one)),
        "UV_FIND_LINKS": ",".join(one for one in pip.get("find-links", "").split() if _is_there(one)),
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "UV_HTTP_TIMEOUT": pip.get("timeout", pip.get("default-timeout", "")),
        "SSL_CERT_FILE": pip.get("cert", ""),
        "ALL_PROXY": pip.get("proxy", ""),
    }
    # pip looks at all indexes and takes the best; uv would stop at the first that knows a name.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **{name: value for name, value in said.items() if value}}


def _is_there(place: str) -> bool:
    path = place[len("file://") :] if place.startswith("file://") else place
    return "://" in path or os.path.exists(path)
