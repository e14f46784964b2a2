"""A copy of this package that lies alone, for another Python to import.

Beside the package as it is installed lie the packages of its Python, which would be imported with it.
"""

from __future__ import annotations

import shutil
from pathlib import Path


def into(folder: Path) -> dict[str, str]:
    """Put the copy into `folder`; the environment variables with which any Python imports this package, and no other
    package that is not its own."""
    package = Path(__file__).resolve().parent
    target = folder / package.name
    target.mkdir()
    for source in sorted(package.glob("*.py")):
        shutil.copyfile(source, target / source.name)
    return {"PYTHONPATH": str(folder), "PYTHONHOME": "", "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
