"""What the first real steps tell of the whole training: tokens a second, use of the hardware, time, memory, money."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jobs import memory
from jobs import model as models

STEPS = 20
WARM_UP = 3
"""The first steps also load kernels and take memory for the first time."""


@dataclass(frozen=True)
class Calibration:
    """After `steps` measured steps.  `mfu` is the share of `peak_flops`, what a plain product of matrices reaches here.

    `total_s` counts from `started`, so that what came before the training is in it; `cost` in the currency of `price`.
    """

    steps: int
    tokens_per_s: float
    mfu: float
    peak_flops: float
    peak_bytes: int
    left_s: float
    total_s: float
    price: float
    cost: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def in_words(self) -> str:
        """One line for the log."""
        parts = [
            f"{self.tokens_per_s:,.0f} tokens/s",
            f"MFU {self.mfu:.0%} of the {self.peak_flops / 1e12:.3g} TFLOP/s measured here",
            f"peak memory {self.peak_bytes / 2**30:.1f} GiB",
            f"{_duration(self.left_s)} to go, {_duration(self.total_s)} in all",
        ]
        if self.price:
            parts.append(f"about {self.cost:.2f} at {self.price:g} an hour")
        return f"after {self.steps} measured steps: " + ", ".join(parts)


class Stopwatch:
    """Times the steps WARM_UP+1 to STEPS without making a GPU wait more than twice."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = 0.0
        self._tokens = self._squares = 0

    def step(self, number: int, lengths: NDArray[np.int64]) -> tuple[float, float, float] | None:
        """Note the `number`th step of this process, of rows with these lengths.

        At the last one: seconds, real tokens, and the mean length as attention sees it: of a token's row.
        """
        if number > WARM_UP:
            self._tokens += int(lengths.sum())
            self._squares += int((lengths**2).sum())
        if number not in (WARM_UP, STEPS):
            return None
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        if number == WARM_UP:
            self._start = time.monotonic()
            return None
        return time.monotonic() - self._start, self._tokens, self._squares / max(1, self._tokens)


def flops_per_token(model: nn.Module, mean_length: float) -> float:
    """Of a training step with frozen weights: 4 a parameter beside the embeddings, and attention.

    Forward 2 and backward 2 a parameter, as frozen weights get no gradient.  Attention of `mean_length` tokens, causal:
    2 products of (T/2) x hidden forward and twice that backward, in every layer.
    """
    base: Any = models.classifier_of(model)
    config = models.text_config_of(model)
    embeddings = {id(module.weight) for module in base.modules() if isinstance(module, nn.Embedding)}
    parameters = sum(parameter.numel() for parameter in base.parameters() if id(parameter) not in embeddings)
    width = getattr(config, "hidden_size", 0) * getattr(config, "num_hidden_layers", 0)
    return float(4 * parameters + 6 * mean_length * width)


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a product of square matrices, the best of a few."""
    size, turns = (8192, 5) if device.type == "cuda" else (1024, 3)
    # Numbers of its own: the training's would otherwise depend on whether this was measured.
    own = torch.Generator(device).manual_seed(0)
    left, right = (torch.randn(size, size, generator=own, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(turns):
        _finish(device)
        started = time.monotonic()
        left @ right
        _finish(device)
        best = min(best, time.monotonic() - started)
    return float(2 * size**3 / best)


def calibrate(
    model: nn.Module,
    measured: tuple[float, float, float],
    *,
    peak: float,
    tokens_left: float,
    elapsed_s: float,
    price: float,
    device: torch.device,
    ranks: int = 1,
) -> Calibration:
    """`measured` is of one of `ranks` equal processes; `tokens_left` of all, looks at the validation split included."""
    seconds, tokens, mean_length = measured
    rate = ranks * tokens / max(seconds, 1e-9)
    left_s = tokens_left / max(rate, 1e-9)
    return Calibration(
        steps=STEPS - WARM_UP,
        tokens_per_s=rate,
        mfu=rate / ranks * flops_per_token(model, mean_length) / peak,
        peak_flops=peak,
        peak_bytes=memory.peak_bytes(device),
        left_s=left_s,
        total_s=elapsed_s + left_s,
        price=price,
        cost=(elapsed_s + left_s) / 3600 * price,
    )


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _duration(seconds: float) -> str:
    minutes, hours = math.ceil(seconds / 60), seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 120 else f"{hours:.1f} h"
