"""Memory of the device: what it is to be out of it, what is given back afterwards, and how much was in use."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch

# What torch says where a CPU's memory ends; it has no class of its own for that.
_CPU_WORDS = ("can't allocate memory", "not enough memory", "failed to allocate", "bad_alloc")


def is_out(error: BaseException) -> bool:
    """Whether `error` says that the memory of a GPU or of this machine is not enough."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)


def give_back() -> None:
    """Hand back what a failed attempt held.  To be called once its exception, and so its frames, are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_bytes(device: torch.device) -> int:
    """The most memory in use so far: of the GPU, or of this process; 0 where it can't be known."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
