"""The processes of one machine that train together, a GPU each.

Every rank holds the whole model and works on its share of each step's rows; only gradients of LoRA and head are summed,
a few megabytes a step, so that all ranks stay equal and the first one's adapter is the whole adapter.  Owns who is who
and what is exchanged; knows nothing of what it means.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from jobs.errors import JobError
from jobs.stopping import Stop, Stopped

PATIENCE = datetime.timedelta(hours=2)
"""While the first rank fits a probe the others wait.  Should one die, torchrun ends the others at once."""


class Ranks:
    """This process among `size` of them; alone unless told otherwise."""

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank, self.size = rank, size
        self._device = device or torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """The one that speaks and writes."""
        return self.rank == 0

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, all in one exchange.  The tensors are float32."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, part in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    def rows(self, count: int, answer: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> NDArray[np.float32]:
        """`answer` of the rows 0..count-1, (count, K), of which every rank works out its share."""
        if self.size == 1:
            return answer(np.arange(count))
        shares = [np.arange(rank, count, self.size) for rank in range(self.size)]
        # An empty share has no answer to take a width from: it works on a row that is thrown away.
        mine = answer(shares[self.rank] if len(shares[self.rank]) else np.zeros(1, dtype=np.int64))
        padded = np.zeros((len(shares[0]), mine.shape[1]), dtype=np.float32)
        padded[: len(shares[self.rank])] = mine[: len(shares[self.rank])]
        gathered = self._gathered(torch.from_numpy(padded))
        together = np.empty((count, mine.shape[1]), dtype=np.float32)
        for share, part in zip(shares, gathered, strict=True):
            together[share] = part[: len(share)].numpy()
        return together

    def from_first(self, array: NDArray[Any] | None, shape: Sequence[int]) -> NDArray[np.float32]:
        """The float32 array of the first rank, everywhere; the others give None and know its shape."""
        if self.size == 1:
            assert array is not None
            return array
        tensor = torch.zeros(*shape) if array is None else torch.from_numpy(array)
        tensor = tensor.to(self._device)
        distributed.broadcast(tensor, src=0)
        return tensor.cpu().numpy()

    def each(self, tensor: Tensor) -> list[Tensor]:
        """What every rank has, by rank; equal in shape and kind."""
        return [tensor] if self.size == 1 else self._gathered(tensor)

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        tensor = tensor.to(self._device)
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(parts, tensor)
        return [part.cpu() for part in parts]


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started; without it this process alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), size, device)
    finally:
        distributed.destroy_process_group()


def wanted(gpus: int | str) -> int:
    """How many ranks the spec's `gpus` makes on this machine.  Raises JobError where it has too few."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if isinstance(gpus, int) and found and gpus > found:
        raise JobError(f"gpus: {gpus}, but this machine has {found}", hint="gpus: auto")
    return max(1, found if isinstance(gpus, str) else min(gpus, found))


def start(count: int, run: Path) -> int:
    """Train the run in `count` processes; the exit status of torchrun, which ends all of them if one fails.

    Raises Stopped when this process was asked to stop.
    """
    argv = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    process = subprocess.Popen([*argv, "-m", "jobs", "train", str(run)])
    # Whoever asks us to stop waits for this process only: it has to outlive those that save a checkpoint.
    with Stop(also=process.terminate) as stop:
        status = process.wait()
    if stop.asked:
        raise Stopped("stopped as asked")
    return status


def is_one_of_several() -> bool:
    """Whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ
