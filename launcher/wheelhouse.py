"""Packages for a host that reaches no package index: chosen for its platform and Python, fetched here, sent along."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs import manifest
from launcher.errors import LaunchError
from launcher.progress import Note, Observer
from remote import environments, store
from remote.agent import Agent
from remote.environments import Wanted
from remote.onhost import environment

FOLDER = "inputs/wheels"
OLDEST_GLIBC_MINOR = 5
# Names from before manylinux was called by its glibc.
OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1")


def collect(
    agent: Agent, recipe: dict[str, Any], cache: Path, observer: Observer
) -> tuple[tuple[str, store.LocalFile], ...]:
    """The wheels that the host lacks, and where in a run's folder they go; nothing where it is ready.

    Raises LaunchError where a package has no wheel for that platform, or this machine reaches no index itself.
    """
    wanted = environments.wanted(agent, recipe)
    if wanted is None:
        return ()
    beside = recipe["beside"]
    lines, pins = environment.full(recipe, wanted.requirement) if wanted.requirement else (beside, beside)
    if wanted.requirement and sys.platform != "linux":
        # pip takes what else they require for this system, whatever platform it is asked for.
        raise LaunchError(
            f"{agent.host.name} lacks everything, and only on Linux can that be chosen for it",
            hint="choose an image with torch, or use WSL",
            code="wheels_missing",
        )
    folder = _fetched(wanted, lines, pins, cache, observer)
    found = [(f"{FOLDER}/{path.name}", _hashed(path)) for path in sorted(folder.glob("*.whl"))]
    size = sum(file.size_bytes for _, file in found)
    observer(Note(f"{len(found)} wheels for Python {_dotted(wanted.python)} on {wanted.machine}, {size / 1e6:.0f} MB"))
    return tuple(found)


def _hashed(path: Path) -> store.LocalFile:
    return store.LocalFile(path, manifest.sha256_of(path), path.stat().st_size)


def _fetched(wanted: Wanted, lines: list[str], pins: list[str], cache: Path, observer: Observer) -> Path:
    """The folder with the wheels, fetched unless it was before."""
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", _dotted(wanted.python)]
    options += [word for platform in _platforms(wanted) for word in ("--platform", platform)]
    options += [] if wanted.requirement else ["--no-deps"]
    name = hashlib.sha256("\n".join([*options, *lines, *pins]).encode()).hexdigest()[:16]
    folder = cache / "wheels" / name
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    requirements, constraints = folder / "requirements.txt", folder / "constraints.txt"
    requirements.write_text("\n".join(lines) + "\n", "utf-8")
    constraints.write_text("\n".join(pins) + "\n", "utf-8")
    observer(Note(f"fetching wheels for Python {_dotted(wanted.python)} on {wanted.machine}"))
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", *options]
    argv += ["--dest", str(folder), "-r", str(requirements), "-c", str(constraints)]
    # What was fetched before a break is not fetched again: it lies in the folder.
    # From there: pip would import what lies where a person happens to be.
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder, check=False)
    if done.returncode != 0 or not any(folder.glob("*.whl")):
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in said if line.startswith("ERROR")] or said or [f"pip ended with {done.returncode}"]
        raise LaunchError(
            f"the wheels for the host can't be fetched here: {errors[-1]}",
            hint="launch needs a Python with pip for that, and an index: PIP_INDEX_URL",
            code="wheels_missing",
        )
    (folder / "complete").touch()
    return folder


def _platforms(wanted: Wanted) -> list[str]:
    """Platform tags of wheels that run there, the newest first: pip takes only those that are named (PEP 600)."""
    major, minor = wanted.glibc
    new = [f"manylinux_{major}_{one}_{wanted.machine}" for one in range(minor, OLDEST_GLIBC_MINOR - 1, -1)]
    return [*new, *(f"{name}_{wanted.machine}" for name in OLD_NAMES), f"linux_{wanted.machine}"]


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
