"""Numbers that a device is still working out, on their way to this machine's memory without anybody waiting."""

from __future__ import annotations

import torch
from torch import Tensor


class Later:
    """The values of `tensor` as they are once everything that was asked of the device before now is done.

    `Tensor.item` would also wait for all that was asked since: a GPU would then have nothing to do while this machine
    prepares the next step.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = tensor
        if tensor.is_cuda:
            self._values = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def values(self) -> list[float]:
        """The numbers (a vector); waits for them, and for nothing else."""
        if self._event is not None:
            self._event.synchronize()
        found: list[float] = self._values.tolist()
        return found
