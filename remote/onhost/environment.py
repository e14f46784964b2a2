"""The Python a run is carried out with: one that is there and fits, else a virtual environment built for it.

A recipe is data: `key`, `python` (lowest version), `requirements` and `constraints` (lines for pip), `fits` (a program
that ends with 0 where everything needed is installed) and `proof` (one that really imports it).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Optional

from .atomic import read_json, write_json

CANDIDATES = ("python3", "python", "/root/miniconda3/bin/python", "/opt/conda/bin/python") + tuple(
    f"python3.{minor}" for minor in range(14, 10, -1)
)
FITS_TIMEOUT_S = 60
PROOF_TIMEOUT_S = 600


def prepare(workspace: str, recipe: Dict[str, Any]) -> str:
    """Path of a Python that satisfies the recipe.  Raises SystemExit with the reason when none can be made."""
    for python in _candidates(recipe):
        if _runs(python, recipe["fits"], FITS_TIMEOUT_S):
            _say(f"using {python}, which has everything that is needed")
            return python
    return _built(workspace, recipe)


def _candidates(recipe: Dict[str, Any]) -> Iterator[str]:
    """Pythons on this machine that are new enough, each once."""
    seen = set()
    low = tuple(int(part) for part in recipe["python"].split("."))
    for name in list(recipe.get("candidates", ())) + list(CANDIDATES):
        path = shutil.which(name)
        if path is None or os.path.realpath(path) + os.path.dirname(path) in seen:
            continue
        seen.add(os.path.realpath(path) + os.path.dirname(path))
        if _runs(path, f"import sys; sys.exit(sys.version_info[:2] < {low!r})", FITS_TIMEOUT_S):
            yield path


def _built(workspace: str, recipe: Dict[str, Any]) -> str:
    """The environment of this key, built now if it is not ready."""
    folder = os.path.join(workspace, "envs", recipe["key"])
    python, marker = os.path.join(folder, "bin", "python"), os.path.join(folder, "ready.json")
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        _wait_for(lock)
        if read_json(marker) is not None and _runs(python, recipe["fits"], FITS_TIMEOUT_S):
            _say(f"{folder} is ready")
            return python
        base = next(_candidates(recipe), None)
        if base is None:
            sys.exit(f"environment: no Python >= {recipe['python']} on this machine")
        _build(base, folder, recipe, lock)
        write_json(marker, {"key": recipe["key"], "python": python, "built_at": time.time()})
        return python


def _build(base: str, folder: str, recipe: Dict[str, Any], lock: Any) -> None:
    started = time.monotonic()
    # A build that was cut off leaves no marker.  Starting over is safe: the downloads are in pip's cache.
    shutil.rmtree(folder, ignore_errors=True)
    _say(f"building {folder} with {base}")
    python = os.path.join(folder, "bin", "python")
    _must([base, "-m", "venv", folder], lock)
    listed: List[str] = []
    for name in ("requirements", "constraints"):
        path = os.path.join(folder, name + ".txt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("\n".join(recipe[name]) + "\n")
        listed += ["-r" if name == "requirements" else "-c", path]
    quiet = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
    _must([python, "-m", "pip", "install", *quiet, *listed], lock)
    _say("proving it")
    if not _runs(python, recipe["proof"], PROOF_TIMEOUT_S, quiet=False):
        sys.exit("environment: installed, but the proof failed (see above)")
    _say(f"ready after {time.monotonic() - started:.0f} s")


def _wait_for(lock: Any) -> None:
    """Hold the lock; the kernel frees it when its owner is dead, and so is every pip it started."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _say("another run is building it, waiting")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _must(argv: List[str], lock: Any) -> None:
    # The lock goes along: what outlives us would still be writing where the next builder begins.
    status = subprocess.call(argv, stdin=subprocess.DEVNULL, env=_shielded(), pass_fds=[lock.fileno()])
    if status != 0:
        sys.exit(f"environment: {' '.join(argv[:4])} ended with status {status}")


def _say(text: str) -> None:
    sys.stdout.write(f"environment: {text}\n")
    sys.stdout.flush()


def _shielded() -> Dict[str, str]:
    """The environment without what would let other packages in: the run's code, the user's own."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env["PYTHONNOUSERSITE"] = "1"
    return env


def _runs(python: str, program: str, timeout_s: float, quiet: bool = True) -> bool:
    """Whether `program` ends with 0 under `python`."""
    output: Optional[int] = subprocess.DEVNULL if quiet else None
    try:
        status = subprocess.call(
            [python, "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=_shielded(),
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return status == 0
