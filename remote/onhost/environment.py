"""The Python a run is carried out with: one that has everything, else an environment that is built for it.

A recipe is data:
  python        the lowest version, as numbers
  needs         [name, lowest, below] of every distribution that must be there, versions as numbers
  kept          what is worth keeping of an image: `name` of the distribution, `module`, and `rows` of
                [lowest driver, requirement], the newest first; `plain` is the requirement without a driver
  beside        pinned lines of all else, complete: what is installed beside the one that is kept
  requirements  what a full environment is asked for beside a row of `kept`; `constraints` are pinned lines for it
  proof         a program that imports everything, really; its argument is JSON: `gpu`, and `kept` (a path, or "")
  uv            the requirement that brings the faster installer
  gpu           whether a GPU that is there must work
  candidates    Pythons to look at first; `wheels` a folder that takes the place of an index

An environment lies at `envs/<key>`, its key made from all that goes into it, and counts only with its marker.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from . import accelerator, build_lock, installer, interpreter
from .accelerator import Accelerator
from .atomic import read_json, write_json
from .installer import Failed, Installer
from .interpreter import Interpreter, Need, shielded

PROOF_TIMEOUT_S = 600
MARKER = "ready.json"
CHOSEN = "chosen.json"
MOST_CHOSEN = 20
IMAGE, REUSED, BUILT = "image", "reused", "built"

Say = Callable[[str], None]


class Prepared(NamedTuple):
    """A Python that is ready.  `how`: as it is in the image, with the image's own library, or all built; `key` is empty
    for the first.  `proven_on` is gpu or cpu: what it calculated on when it was proved."""

    python: str
    how: str
    key: str
    proven_on: str


class _Wanted(NamedTuple):
    """An environment that could be: what it is called, on which Python, and what goes into it."""

    how: str
    key: str
    base: Interpreter
    lines: Sequence[str]
    constraints: Sequence[str] = ()
    kept: str = ""


def prepare(workspace: str, recipe: Dict[str, Any], boot: str, say: Say) -> Prepared:
    """A Python that satisfies the recipe, made if need be.  Raises Failed with the reason where none can be made.

    `boot` changes when the machine starts anew: a GPU is tried once more then.
    """
    known = ready(workspace, recipe, boot)
    if known is not None:
        say(f"ready: {known.python}")
        return known
    return _Preparation(workspace, recipe, boot, say).prepared()


def ready(workspace: str, recipe: Dict[str, Any], boot: str) -> Optional[Prepared]:
    """What `prepare` decided before, while nothing that it rests on is another; starts no Python."""
    try:
        chosen = (read_json(os.path.join(workspace, "envs", CHOSEN)) or {})[_digest(recipe)]
        if chosen["boot"] != boot or chosen["driver"] != accelerator.driver_of():
            return None
        if any(_record(path) != record for path, record in chosen["rests_on"].items()):
            return None
        return Prepared(*(str(chosen[name]) for name in Prepared._fields))
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return None


def wanted(workspace: str, recipe: Dict[str, Any], boot: str) -> Optional[Dict[str, Any]]:
    """What would be installed, and for which Python, for somebody who brings it; None where nothing has to be.

    Raises Failed where nothing could be.
    """
    if ready(workspace, recipe, boot) is not None:
        return None
    return _Preparation(workspace, recipe, boot, lambda text: None).wanted()


def forget(workspace: str, recipe: Dict[str, Any]) -> None:
    """Decide anew the next time: what was chosen does not work after all."""
    path = os.path.join(workspace, "envs", CHOSEN)
    with suppress(ValueError, OSError, TypeError, AttributeError):
        chosen = read_json(path) or {}
        chosen.pop(_digest(recipe), None)
        write_json(path, chosen)


class _Preparation:
    """One go at it."""

    def __init__(self, workspace: str, recipe: Dict[str, Any], boot: str, say: Say) -> None:
        self._envs = os.path.join(workspace, "envs")
        self._cache = os.path.join(workspace, "cache")
        self._recipe = recipe
        self._boot = boot
        self._say = say
        self._needs = [Need(str(name), tuple(low), tuple(high)) for name, low, high in recipe["needs"]]
        self._kept = recipe["kept"]

    def wanted(self) -> Optional[Dict[str, Any]]:
        new_enough = self._pythons()
        if any(self._has_all(python) for python in new_enough):
            return None
        for one in (*self._reusing(new_enough), *self._full(new_enough)):
            if os.path.exists(os.path.join(self._envs, one.key, MARKER)):
                return None
            return {
                "kept": bool(one.kept), "requirement": "" if one.kept else one.lines[-1],
                "python": list(one.base.version), "platform": one.base.platform, "libc": one.base.libc,
            }  # fmt: skip
        raise Failed(self._nothing(new_enough))

    def prepared(self) -> Prepared:
        os.makedirs(self._envs, exist_ok=True)
        os.makedirs(self._cache, exist_ok=True)
        new_enough = self._pythons()
        for python in new_enough:
            if self._has_all(python) and self._proves(python.path, self._lies(python)):
                self._say(f"using {python.path}, which has everything that is needed")
                return self._choose(Prepared(python.path, IMAGE, "", self._device), python)
        reasons = [self._nothing(new_enough)]
        for wanted in (*self._reusing(new_enough), *self._full(new_enough)):
            try:
                return self._choose(Prepared(self._made(wanted), wanted.how, wanted.key, self._device), wanted.base)
            except Failed as failed:
                self._say(f"not {wanted.how} on {wanted.base.path}: {failed}")
                reasons.append(str(failed))
        raise Failed(reasons[-1])

    def _pythons(self) -> List[Interpreter]:
        """Those of this machine that are new enough."""
        self._machine = accelerator.find() if self._recipe["gpu"] else Accelerator()
        low = tuple(self._recipe["python"])
        here = interpreter.here(self._recipe.get("candidates", ()), [need.name for need in self._needs])
        return [python for python in here if python.version[: len(low)] >= low]

    def _has_all(self, python: Interpreter) -> bool:
        return not any(need.unmet(python) for need in self._needs)

    def _nothing(self, new_enough: Sequence[Interpreter]) -> str:
        if not new_enough:
            return f"no Python >= {_dotted(self._recipe['python'])} on this machine"
        try:
            row_for(self._machine, self._kept)
        except Failed as failed:
            return str(failed)
        return "nothing to build with"

    @property
    def _device(self) -> str:
        return "gpu" if self._machine.gpus else "cpu"

    def _reusing(self, pythons: Sequence[Interpreter]) -> Iterator[_Wanted]:
        """Beside a large library that the image has already, where it is new enough for us."""
        need = next(need for need in self._needs if need.name == self._kept["name"])
        for python in pythons:
            if need.unmet(python):
                continue
            lies, lines = self._lies(python), self._recipe["beside"]
            version = python.packages[need.name].version
            key = _key(REUSED, python, lines, version, lies, _record(lies), python.sites)
            yield _Wanted(REUSED, key, python, lines, kept=lies)

    def _full(self, pythons: Sequence[Interpreter]) -> Iterator[_Wanted]:
        try:
            lines = [*self._recipe["requirements"], row_for(self._machine, self._kept)]
        except Failed as failed:
            self._say(str(failed))
            return
        # What only an older row requires is pinned by that row itself.
        tested = lines[-1] == self._kept["plain"]
        constraints = self._recipe["constraints" if tested else "beside"]
        for python in pythons:
            yield _Wanted(BUILT, _key(BUILT, python, lines, constraints), python, lines, constraints)

    def _lies(self, python: Interpreter) -> str:
        """The file by which the library that is worth keeping is told from another."""
        return os.path.join(python.packages[self._kept["name"]].folder, self._kept["module"], "__init__.py")

    def _made(self, wanted: _Wanted) -> str:
        """The Python of an environment, built and proved where that is still to be done.  Raises Failed."""
        folder = os.path.join(self._envs, wanted.key)
        with build_lock.held(folder + ".lock", self._waiting) as lock:
            marker = os.path.join(folder, MARKER)
            try:
                done = read_json(marker)
            except ValueError:
                done = None
            python = str(done["python"]) if isinstance(done, dict) and "python" in done else ""
            if not python or not os.path.exists(python):
                done = {"key": wanted.key, "how": wanted.how, "base": wanted.base.path, "proofs": []}
                python = self._build(wanted, folder, lock)
                done.update(python=python, built_at=time.time())
            proof = [self._boot, accelerator.driver_of(), self._device]
            # Imports that went well once go well again; a GPU can be another one after every start.
            proved = [one[2] for one in done["proofs"]] if self._device == "cpu" else done["proofs"]
            if (self._device if self._device == "cpu" else proof) not in proved:
                if not self._proves(python, wanted.kept):
                    shutil.rmtree(folder, ignore_errors=True)
                    raise Failed("it is there, but does not work (see above)")
                done["proofs"] = [*done["proofs"][-9:], proof]
                write_json(marker, done)
            return python

    def _waiting(self, seconds: float) -> None:
        self._say("another run is building it, waiting" + (f" since {seconds:.0f} s" if seconds >= 1 else ""))

    def _build(self, wanted: _Wanted, folder: str, lock: int) -> str:
        started = time.monotonic()
        # A build that was cut off leaves no marker.  Starting over is safe: the downloads are kept.
        shutil.rmtree(folder, ignore_errors=True)
        wheels = str(self._recipe.get("wheels", ""))
        uv = installer.uv(self._cache, wanted.base.path, self._recipe["uv"], self._say, wheels)
        self._say(f"building {folder} with {wanted.base.path}" + (f", keeping {wanted.kept}" if wanted.kept else ""))
        tools = [uv, ""] if uv else [""]
        for tool in tools:
            fill = Installer(wanted.base.path, self._cache, self._say, tool, wheels, (lock,))
            try:
                python = fill.make(folder, wanted.base.sites if wanted.kept else ())
                fill.install(python, wanted.lines, wanted.constraints, alone=bool(wanted.kept))
                break
            except Failed as failed:
                shutil.rmtree(folder, ignore_errors=True)
                if tool == tools[-1]:
                    raise
                self._say(f"{failed}; once more with pip")
        self._say(f"installed after {time.monotonic() - started:.0f} s, proving it")
        return python

    def _proves(self, python: str, kept: str) -> bool:
        """Whether everything can be imported and calculates, on the GPU where there is one."""
        asked = json.dumps({"gpu": bool(self._machine.gpus), "kept": kept})
        try:
            done = subprocess.run(
                [python, "-I", "-c", self._recipe["proof"], asked], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=PROOF_TIMEOUT_S, env=shielded(), check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            self._say(f"{python}: the proof took more than {PROOF_TIMEOUT_S} s")
            return False
        except OSError as error:
            self._say(f"{python}: {error.strerror}")
            return False
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
        for line in lines if done.returncode == 0 else lines[-5:]:
            self._say(line)
        if done.returncode != 0:
            self._say(f"{python}: the proof ended with status {done.returncode}")
        return done.returncode == 0

    def _choose(self, prepared: Prepared, base: Interpreter) -> Prepared:
        """Remember the decision together with all that it rests on."""
        rests_on = [prepared.python, base.binary]
        if prepared.how != BUILT:
            rests_on.append(self._lies(base))
        if prepared.how == IMAGE:  # what is installed or removed there changes the time of its folder
            rests_on += sorted({package.folder for package in base.packages.values()})
        else:
            rests_on.append(os.path.join(self._envs, prepared.key, MARKER))
        path = os.path.join(self._envs, CHOSEN)
        try:
            chosen = read_json(path)
        except ValueError:
            chosen = None
        rows = list(chosen.items()) if isinstance(chosen, dict) else []
        mine = {
            "boot": self._boot,
            "driver": accelerator.driver_of(),
            "rests_on": {path: _record(path) for path in rests_on},
        }
        mine.update(prepared._asdict())
        digest = _digest(self._recipe)
        rows = [row for row in rows if row[0] != digest][-MOST_CHOSEN:]
        write_json(path, dict([*rows, (digest, mine)]))
        return prepared


def row_for(machine: Accelerator, kept: Dict[str, Any]) -> str:
    """The requirement for this machine's driver.  Raises Failed where the driver is older than every row."""
    if not machine.driver:
        return str(kept["plain"])
    for low, requirement in kept["rows"]:
        if machine.driver_version >= tuple(low):
            return str(requirement)
    oldest = _dotted(kept["rows"][-1][0])
    raise Failed(f"the driver {machine.driver} is too old for every {kept['name']} that would do: it takes >= {oldest}")


def _key(how: str, base: Interpreter, *parts: Any) -> str:
    text = json.dumps([how, base.binary, list(base.version), *parts])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _digest(recipe: Dict[str, Any]) -> str:
    # Where its packages lie says nothing about what it is.
    text = json.dumps({name: value for name, value in recipe.items() if name != "wheels"}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _record(path: str) -> List[int]:
    """What changes when another file, or another content, lies there; empty where nothing does."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))
