"""Which GPUs this machine shows right now, and the driver behind them."""

from __future__ import annotations

import re
import subprocess
from typing import NamedTuple, Tuple

TIMEOUT_S = 30
DRIVER = re.compile(r"NVRM version:.*?\s(\d+(?:\.\d+)+)")
PROC = "/proc/driver/nvidia/version"


class Accelerator(NamedTuple):
    """`driver` is empty where there is none; it may be there without a GPU (a rented box in its no-GPU mode)."""

    gpus: int = 0
    driver: str = ""

    @property
    def driver_version(self) -> Tuple[int, ...]:
        return tuple(int(part) for part in self.driver.split(".")) if self.driver else ()


def find(proc: str = PROC) -> Accelerator:
    """What is there.  Only a line that begins with `GPU ` counts: nvidia-smi ends well without a GPU, too."""
    gpus = sum(line.startswith("GPU ") for line in _said("nvidia-smi", "-L").splitlines())
    driver = driver_of(proc)
    if not driver and gpus:
        first = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").strip().split("\n")[0]
        driver = first.strip() if re.fullmatch(r"\d+(\.\d+)+", first.strip()) else ""
    return Accelerator(gpus, driver)


def driver_of(proc: str = PROC) -> str:
    """The version of the loaded driver, without starting anything; empty where that is not to be seen."""
    try:
        with open(proc, encoding="ascii", errors="replace") as file:
            found = DRIVER.search(file.read(4096))
    except OSError:
        return ""
    return found.group(1) if found else ""


def _said(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")
