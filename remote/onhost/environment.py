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
  own_python    the version of the Python that is fetched where none here will do; without it none is
  gpu           whether a GPU that is there must work
  candidates    Pythons to look at first; `wheels` a folder that takes the place of an index

An environment lies at `envs/<key>`, its key made from all that goes into it, and counts only with its marker.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from . import accelerator, build_lock, installer, interpreter, own_python
from .accelerator import Accelerator
from .atomic import read_json, read_object, write_json
from .installer import Installer
from .interpreter import Interpreter, Need, shielded
from .narrated import Failed, Say

PROOF_TIMEOUT_S = 600
MARKER = "ready.json"
USED = "used"
FAILED = ".failed.json"
FAILED_COUNTS_S = 7 * 24 * 3600
# Somebody waits for an answer.
FETCHED_FOR_AN_ANSWER_S = 180.0
IMAGE, REUSED, BUILT = "image", "reused", "built"


class Prepared(NamedTuple):
    """A Python that is ready.  `how`: as it is in the image, with the image's own library, or all built; `key` is empty
    for the first.  `proven_on` is gpu or cpu: what it calculated on when it was proved."""

    python: str
    how: str
    key: str
    proven_on: str


class _Unfit(Failed):
    """This Python can't carry an environment, whatever goes into it."""


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
        chosen = read_json(_chosen(workspace, recipe))
        if [chosen["boot"], chosen["driver"], chosen["devices"]] != [boot, accelerator.driver_of(), _devices()]:
            return None
        if any(not record or _record(path) != record for path, record in chosen["rests_on"].items()):
            return None
        return Prepared(*(str(chosen[name]) for name in Prepared._fields))
    except (KeyError, TypeError, ValueError, AttributeError, OSError):
        return None


def wanted(workspace: str, recipe: Dict[str, Any], boot: str) -> Optional[Dict[str, Any]]:
    """What would be installed, and for which Python, for somebody who brings it; None where nothing has to be.

    Where no Python is new enough one is fetched: which it will be nobody knows before.  Raises Failed where nothing
    could be.
    """
    if ready(workspace, recipe, boot) is not None:
        return None
    return _Preparation(workspace, recipe, boot, lambda text: None).wanted()


def lacks(workspace: str, recipe: Dict[str, Any], boot: str) -> str:
    """What `prepare` would have to install: nothing (""), what comes `beside` the library that is kept, or `all`."""
    if ready(workspace, recipe, boot) is not None:
        return ""
    return _Preparation(workspace, recipe, boot, lambda text: None).lacks()


def note_use(workspace: str, prepared: Prepared) -> None:
    """Keep it from a clean-up, where no run tells that it is used."""
    if prepared.key:
        with suppress(OSError), open(os.path.join(workspace, "envs", prepared.key, USED), "w"):
            pass


def forget(workspace: str, recipe: Dict[str, Any]) -> None:
    """Decide and prove anew the next time: what was chosen does not work after all."""
    path = _chosen(workspace, recipe)
    with suppress(ValueError, OSError, TypeError, AttributeError, KeyError):
        marker = os.path.join(workspace, "envs", str(read_json(path)["key"]), MARKER)
        os.unlink(path)
        write_json(marker, {**read_json(marker), "proofs": []})


class _Preparation:
    """One go at it."""

    def __init__(self, workspace: str, recipe: Dict[str, Any], boot: str, say: Say) -> None:
        self._envs = os.path.join(workspace, "envs")
        self._decision = _chosen(workspace, recipe)
        self._digest_of_proof = hashlib.sha256(recipe["proof"].encode("utf-8")).hexdigest()[:16]
        self._last = ""
        self._pythons_of_ours = os.path.join(workspace, own_python.FOLDER)
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
        if not new_enough and self._row() and self._recipe.get("own_python"):
            os.makedirs(self._cache, exist_ok=True)
            new_enough = [self._fetched(self._nothing(()), FETCHED_FOR_AN_ANSWER_S)]
        one = self._likely(new_enough)
        if one is None:
            raise Failed(self._nothing(new_enough))
        if self._is_there(one):
            return None
        return {
            "requirement": "" if one.kept else one.lines[-1],
            "python": list(one.base.version), "platform": one.base.platform, "libc": one.base.libc,
        }  # fmt: skip

    def lacks(self) -> str:
        new_enough = self._pythons()
        if any(self._has_all(python) for python in new_enough):
            return ""
        one = self._likely(new_enough)
        if one is None:
            return "all"
        return "" if self._is_there(one) else "beside" if one.kept else "all"

    def _likely(self, new_enough: Sequence[Interpreter]) -> Optional[_Wanted]:
        """The environment that would be taken, unless its proof fails; None where none could be made."""
        for one in (*self._reusing(new_enough), *self._full(new_enough)):
            try:
                self._fail_again(os.path.join(self._envs, one.key) + FAILED)
            except Failed:
                continue
            return one
        return None

    def _is_there(self, one: _Wanted) -> bool:
        return _marked(os.path.join(self._envs, one.key, MARKER)) is not None

    def prepared(self) -> Prepared:
        os.makedirs(self._envs, exist_ok=True)
        os.makedirs(self._cache, exist_ok=True)
        new_enough = self._pythons()
        for python in new_enough:
            if self._has_all(python) and self._proves(python.path, self._lies(python)):
                self._say(f"using {python.path}, which has everything that is needed")
                return self._choose(Prepared(python.path, IMAGE, "", self._device), python)
        reason, may_fetch = self._nothing(new_enough), bool(self._row() and self._recipe.get("own_python"))
        for wanted in (*self._reusing(new_enough), *self._full(new_enough)):
            try:
                return self._finished(wanted)
            except Failed as failed:
                self._say(f"not {wanted.how} on {wanted.base.path}: {failed}")
                reason = str(failed)
                # What fails for another reason would fail on another Python as well.
                may_fetch = may_fetch and (wanted.how != BUILT or self._is_unfit(wanted.base, failed))
        if may_fetch:
            for wanted in self._full([self._fetched(reason)]):
                return self._finished(wanted)
        raise Failed(reason)

    def _finished(self, wanted: _Wanted) -> Prepared:
        try:
            python = self._made(wanted)
            return self._choose(Prepared(python, wanted.how, wanted.key, self._device), wanted.base)
        except OSError as error:  # a full disk, more often than not
            raise Failed(f"{error.filename or wanted.key}: {error.strerror}") from error

    def _is_unfit(self, base: Interpreter, failed: Failed) -> bool:
        # For one that is newer than ours there may be no packages yet.
        return isinstance(failed, _Unfit) or base.version[:2] > interpreter.numbers(self._recipe["own_python"])[:2]

    def _fetched(self, reason: str, limit_s: float = own_python.LIMIT_S) -> Interpreter:
        """A Python of our own, for the `reason` that there is no other.  Raises Failed."""
        self._say(reason)
        bases = [python.path for python in sorted(self._here, key=lambda python: python.version, reverse=True)]
        tools = own_python.Tools(self._cache, self._recipe["uv"], str(self._recipe.get("wheels", "")), bases)
        try:
            path = own_python.get(self._pythons_of_ours, self._recipe["own_python"], tools, self._say, limit_s)
        except (Failed, OSError) as failed:  # a full disk, more often than not
            raise Failed(f"{reason}, and {failed}") from failed
        python = interpreter.look(path, [need.name for need in self._needs])
        if python is None:
            raise Failed(f"{reason}, and {path} does not start")
        return python

    def _pythons(self) -> List[Interpreter]:
        """Those of this machine that are new enough."""
        self._machine = accelerator.find() if self._recipe["gpu"] else Accelerator()
        low = tuple(self._recipe["python"])
        self._here = interpreter.here(self._recipe.get("candidates", ()), [need.name for need in self._needs])
        return [python for python in self._here if python.version[: len(low)] >= low]

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

    def _row(self) -> str:
        """What the library that is kept would be installed as, empty where this machine's driver allows none."""
        with suppress(Failed):
            return row_for(self._machine, self._kept)
        return ""

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
            key = _key(REUSED, python, lines, version, lies, _record(lies)[:2], python.sites)
            yield _Wanted(REUSED, key, python, lines, kept=lies)

    def _full(self, pythons: Sequence[Interpreter]) -> Iterator[_Wanted]:
        try:
            lines, constraints = full(self._recipe, row_for(self._machine, self._kept))
        except Failed as failed:
            self._say(str(failed))
            return
        for python in pythons:
            yield _Wanted(BUILT, _key(BUILT, python, lines, constraints), python, lines, constraints)

    def _lies(self, python: Interpreter) -> str:
        """The file by which the library that is worth keeping is told from another."""
        return os.path.join(python.packages[self._kept["name"]].folder, self._kept["module"], "__init__.py")

    def _made(self, wanted: _Wanted) -> str:
        """The Python of an environment, built and proved where that is still to be done.  Raises Failed, OSError."""
        folder = os.path.join(self._envs, wanted.key)
        with build_lock.held(folder + ".lock", self._waiting) as lock:
            try:
                return self._made_alone(wanted, folder, lock)
            except OSError:
                if _marked(os.path.join(folder, MARKER)) is None:  # room for somebody else
                    _remove(folder)
                raise

    def _made_alone(self, wanted: _Wanted, folder: str, lock: int) -> str:
        marker, failed = os.path.join(folder, MARKER), folder + FAILED
        done = _marked(marker)
        is_new = done is None
        if done is None:
            self._fail_again(failed)
            done = {"key": wanted.key, "how": wanted.how, "base": wanted.base.path, "proofs": []}
            done.update(python=self._build(wanted, folder, lock), built_at=time.time())
        python = str(done["python"])
        # Imports that went well once go well again; a GPU can be another one after every start.
        start = [self._boot, accelerator.driver_of()] if self._device == "gpu" else ["", ""]
        sites = {site: _record(site) for site in wanted.base.sites} if wanted.kept else {}
        proof = [*start, self._device, self._digest_of_proof, sites]
        if proof not in done["proofs"]:
            if not self._proves(python, wanted.kept):
                if is_new:  # another one may be in use by somebody, and may work again tomorrow
                    _remove(folder)
                    if wanted.kept:  # something else will do until the image or the driver is another
                        self._note_failed(failed)
                raise Failed(f"it is there, but does not work: {self._last}")
            done["proofs"] = [*done["proofs"][-9:], proof]
            write_json(marker, done)
        return python

    def _note_failed(self, path: str) -> None:
        write_json(path, {"reason": self._last, "driver": accelerator.driver_of(), "at": time.time()})

    def _fail_again(self, path: str) -> None:
        """Raises Failed where the same was built before and did not work, with the same driver, within a week."""
        try:
            failed = read_json(path)
            if failed["driver"] == accelerator.driver_of() and time.time() - failed["at"] < FAILED_COUNTS_S:
                raise Failed(f"did not work before: {failed['reason']}")
        except (ValueError, TypeError, KeyError):
            return

    def _waiting(self, seconds: float) -> None:
        self._say("another run is building it, waiting" + (f" since {seconds:.0f} s" if seconds >= 1 else ""))

    def _build(self, wanted: _Wanted, folder: str, lock: int) -> str:
        started = time.monotonic()
        # A build that was cut off leaves no marker.  Starting over is safe: the downloads are kept.
        _remove(folder)
        wheels = str(self._recipe.get("wheels", ""))
        uv = installer.uv(self._cache, wanted.base.path, self._recipe["uv"], self._say, wheels)
        self._say(f"building {folder} with {wanted.base.path}" + (f", keeping {wanted.kept}" if wanted.kept else ""))
        tools = [uv, ""] if uv else [""]
        for tool in tools:
            fill = Installer(wanted.base.path, self._cache, self._say, tool, wheels, (lock,))
            try:
                try:
                    python = fill.make(folder, wanted.base.sites if wanted.kept else ())
                except Failed as failed:
                    raise _Unfit(str(failed)) from failed
                fill.install(python, wanted.lines, wanted.constraints, alone=bool(wanted.kept))
                break
            except Failed as failed:
                _remove(folder)
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
            return self._disproved(f"the proof of {python} took more than {PROOF_TIMEOUT_S} s")
        except OSError as error:
            return self._disproved(f"{python}: {error.strerror}")
        lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
        for line in lines if done.returncode == 0 else lines[-5:]:
            self._say(line)
        if done.returncode == 0:
            return True
        return self._disproved(f"the proof of {python} ended with status {done.returncode}: {(lines or ['-'])[-1]}")

    def _disproved(self, reason: str) -> bool:
        self._last = reason
        self._say(reason)
        return False

    def _choose(self, prepared: Prepared, base: Interpreter) -> Prepared:
        """Remember the decision together with all that it rests on."""
        rests_on = [prepared.python, base.binary]
        if prepared.how != BUILT:
            rests_on.append(self._lies(base))
            # What is installed or removed there changes the time of its folder.
            rests_on += filter(os.path.isdir, base.sites)
        if prepared.how != IMAGE:
            rests_on.append(os.path.join(self._envs, prepared.key, MARKER))
        records = {path: _record(path) for path in rests_on if path}
        if not all(records.values()):
            raise Failed("it was removed meanwhile")
        if _devices() and not self._machine.gpus and self._recipe["gpu"]:
            self._say("there are devices of GPUs here, and nvidia-smi shows none: looked for again the next time")
            return prepared
        decision = {"boot": self._boot, "driver": accelerator.driver_of(), "devices": _devices(), "rests_on": records}
        decision.update(prepared._asdict())
        write_json(self._decision, decision)
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


def full(recipe: Dict[str, Any], requirement: str) -> Tuple[List[str], List[str]]:
    """Requirements and pins of a full environment with this one of the rows."""
    # What only an older row requires is pinned by that row itself.
    is_tested = requirement == recipe["kept"]["plain"]
    return [*recipe["requirements"], requirement], recipe["constraints" if is_tested else "beside"]


def _chosen(workspace: str, recipe: Dict[str, Any]) -> str:
    """Where the decision for a recipe is remembered."""
    return os.path.join(workspace, "envs", f"chosen-{_digest(recipe)}.json")


def _marked(marker: str) -> Optional[Dict[str, Any]]:
    """What the marker says of an environment that is there; None where there is none."""
    done = read_object(marker)
    is_whole = isinstance(done.get("proofs"), list) and os.path.exists(str(done.get("python", "")))
    return done if is_whole else None


def _remove(folder: str) -> None:
    """Remove an environment, its marker first: of what is cut off here nothing may count."""
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(folder, MARKER))
    shutil.rmtree(folder, ignore_errors=True)


def _devices() -> List[str]:
    """The GPUs' devices: they may come and go while the machine goes on."""
    return sorted(glob.glob("/dev/nvidia[0-9]*"))


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
