"""Images as rented machines have them: a Python with torch in it, made within a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

# What torch requires, beside itself.
TORCH = (
    "torch", "filelock", "typing_extensions", "setuptools", "sympy", "mpmath", "networkx", "Jinja2", "MarkupSafe",
    "fsspec",
)  # fmt: skip


BROKEN = "raise ImportError('libc10.so: undefined symbol: what a half-done upgrade leaves')\n"


def broken_torch(folder: Path) -> Path:
    """A Python that has all that this one has, by links, and a torch that is listed and can't be imported."""
    subprocess.run([os.path.realpath(sys.executable), "-m", "venv", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    shutil.rmtree(site)
    site.mkdir()
    for there in Path(str(metadata.distribution("torch").locate_file(""))).iterdir():
        if there.name != "torch":
            (site / there.name).symlink_to(there)
    (site / "torch").mkdir()
    (site / "torch" / "__init__.py").write_text(BROKEN)
    return folder / "bin" / "python"


def image_with_torch(folder: Path, python: str = "") -> Path:
    """A virtual environment in which only torch lies, by links to the one that runs this; its folder of programs."""
    base = python or os.path.realpath(sys.executable)
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    for old in (*site.glob("setuptools*"), site / "_distutils_hack", site / "pkg_resources"):
        shutil.rmtree(old, ignore_errors=True)
    for name in TORCH:
        files = metadata.distribution(name).files or ()
        tops = {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            there = Path(str(metadata.distribution(name).locate_file(top)))
            if there.exists() and not (site / top).exists():
                (site / top).symlink_to(there)
    return folder / "bin"
