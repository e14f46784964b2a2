"""Signs, while it is cheap, of a training that would bring nothing home: each stops the run with its reason.

The disaster this is for: the loss falls because the head learns, and LoRA gets no gradient at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs import head
from jobs.errors import JobError

FIRST_STEPS = 20
"""By then every layer of LoRA must have moved."""

ONE_CLASS_TURNS = 2


class TrainingIsFutile(JobError):
    """Going on would cost money and bring nothing."""

    code = "training_futile"


class Sentinels:
    """Watches one training of `model`, whose training rows have `shares` (C,) of the classes."""

    def __init__(self, model: nn.Module, shares: NDArray[np.float64]) -> None:
        self._lora_b: Mapping[str, nn.Parameter] = {
            name: parameter
            for name, parameter in model.named_parameters()
            if ".lora_B." in name and parameter.requires_grad
        }
        self._shares = shares
        self._one_class_turns = 0
        if not self._lora_b:
            raise TrainingIsFutile("no lora_B that can be trained: LoRA was laid around nothing", hint=_TARGETS)

    def gradients(self, step: int, loss: Tensor) -> None:
        """To be called before the update of `step`, with its loss.  In the first one every lora_B has a gradient."""
        if step != 1:
            return
        # Later a loss of exactly 0 can be had honestly: float32 has no smaller one for an answer that is sure.
        if loss.item() == 0.0:
            raise TrainingIsFutile(
                "the loss is exactly 0 at step 1: there is nothing to learn",
                hint="does the text contain its label?  launch check SPEC",
            )
        without = [name for name, parameter in self._lora_b.items() if parameter.grad is None]
        zero = [name for name, parameter in self._lora_b.items() if not _any(parameter.grad)]
        if without or len(zero) == len(self._lora_b):
            raise TrainingIsFutile(
                f"{len(without or zero)} of {len(self._lora_b)} lora_B matrices get no gradient in the first step, "
                f"first {_short((without or zero)[0])}: the head would learn and the adapter stay empty",
                hint=_TARGETS,
            )

    def weights(self, step: int, last: int) -> None:
        """To be called after the update of `step`, the first being 1: some layer moved at once, soon all of them did.

        A few may take their time: attention over texts of a single token gives their queries no gradient.
        """
        if step not in (1, min(FIRST_STEPS, last)):
            return
        still = [name for name, parameter in self._lora_b.items() if not _any(parameter)]
        if still and (step > 1 or step == last or len(still) == len(self._lora_b)):
            raise TrainingIsFutile(
                f"{len(still)} of {len(self._lora_b)} lora_B matrices are still zero after step {step}, "
                f"first {_short(still[0])}: nothing is being trained there",
                hint="a higher learning_rate, a shorter warm-up, or other target_modules",
            )

    def validation(self, step: int, steps: int, logits: NDArray[np.float32], label_ids: NDArray[np.int64]) -> None:
        """One answer to everything, and no better than the shares of the classes are, twice in a row."""
        answers = np.unique(logits.argmax(axis=1))
        prior = np.tile(np.log(self._shares).astype(np.float32), (len(label_ids), 1))
        futile = len(answers) == 1 and len(np.unique(label_ids)) > 1
        futile = futile and head.cross_entropy(logits, label_ids) >= head.cross_entropy(prior, label_ids)
        self._one_class_turns = self._one_class_turns + 1 if futile and step >= steps / 4 else 0
        if self._one_class_turns >= ONE_CLASS_TURNS:
            raise TrainingIsFutile(
                f"at step {step} every validation text gets the same class, for the second time, and the loss is no "
                "better than without reading the text",
                hint="a lower learning_rate, more epochs, or class_weights: balanced",
            )


_TARGETS = "other target_modules (all-linear fits every base), and no gradient checkpointing"


def _any(tensor: Tensor | None) -> bool:
    return tensor is not None and bool(torch.count_nonzero(tensor))


def _short(name: str) -> str:
    return name.removeprefix("base_model.model.").split(".lora_B.")[0]
