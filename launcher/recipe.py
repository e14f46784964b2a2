"""What an environment for a run must hold, as the data that `remote` builds it from."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Any

PYTHON = "3.11"
# Lowest versions that the jobs were written against; what is built anew gets the tested ones of the constraints.
REQUIREMENTS = (
    "torch>=2.6",
    "transformers>=5.20,<6",
    "peft>=0.21,<0.22",
    "accelerate>=1.15",
    "scikit-learn>=1.6",
    "safetensors>=0.6",
    "numpy>=2.0",
    "huggingface_hub>=2.4",
)
HOME_REQUIREMENTS = (*REQUIREMENTS, "matplotlib>=3.10")
"""The report is drawn at home."""

# Reads only what is recorded about the installed packages: an import of them takes ten seconds.
FITS = """
import re, sys
from importlib.metadata import PackageNotFoundError, version
def parts(text):
    return [int(number) for number in re.findall(r"[0-9]+", text.split("+")[0])[:3]]
for name, low, high in {limits!r}:
    try:
        found = parts(version(name))
    except PackageNotFoundError:
        sys.exit(name + " is missing")
    if found < low or (high and found >= high):
        sys.exit("%s is %s" % (name, version(name)))
"""
PROOF = """
import numpy, peft, sklearn, torch, transformers
assert float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) == 512.0
for module in (torch, transformers, peft, sklearn, numpy):
    print("environment: %s %s from %s" % (module.__name__, module.__version__, module.__file__))
"""


def constraints() -> list[str]:
    """The pinned lines of the one constraints file."""
    lines = resources.files("launcher").joinpath("constraints.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def fits(requirements: tuple[str, ...] = REQUIREMENTS) -> str:
    """A program that ends with 0 under a Python that has everything a run needs, and names what it lacks."""
    return FITS.format(limits=[_limits(requirement) for requirement in requirements])


def recipe() -> dict[str, Any]:
    """The recipe; its key changes with anything that goes into the environment."""
    parts = [PYTHON, *REQUIREMENTS, *constraints()]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return {
        "key": key,
        "python": PYTHON,
        "requirements": list(REQUIREMENTS),
        "constraints": constraints(),
        "fits": fits(),
        "proof": PROOF,
    }


def _limits(requirement: str) -> tuple[str, list[int], list[int]]:
    name = re.split(r"[<>=]", requirement)[0]
    limits: dict[str, list[int]] = {"<": [], ">=": []} | {
        sign: [int(part) for part in version.split(".")]
        for sign, version in re.findall(r"(>=|<)([0-9.]+)", requirement)
    }
    return name, limits[">="], limits["<"]
