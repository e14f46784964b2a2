"""What static checks put their questions to: an adapter's contents, its base where that is at hand, what a run tells.

Knows which parts of an adapter training may have left as they were; asks nothing itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jobs import adapter
from jobs.adapter_contents import Contents, Pair, unwrapped
from jobs.base_tensors import BaseTensors
from jobs.lora_configuration import LoraConfiguration

EXPERT = re.compile(r"\.experts\.\d+\.")
EMBEDDINGS = (
    "embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings", "shared", "lm_head", "embed_out", "decoder",
)  # fmt: skip
"""Input and output embeddings: PEFT saves them whole where they are adapted, or were given more rows."""


Finding = tuple[str, str] | tuple[str, str, bool]
"""Status, detail and, where it is not the usual one, whether the check is required."""


@dataclass(frozen=True)
class Told:
    """What a run of ours tells of its training: `adapter.fingerprints` from before the first step and from when the
    weights were saved, and the sha256 of each file of the base's weights.  From a host, so of any type."""

    initial: Any = None
    saved: Any = None
    base_sha256: Any = None


@dataclass(frozen=True)
class Subject:
    """What the questions are put to: an adapter, its base where that is at hand, `told` where it is a run of ours."""

    contents: Contents
    base: BaseTensors | None
    told: Told | None

    @property
    def ours(self) -> bool:
        return self.told is not None

    @property
    def lora(self) -> LoraConfiguration:
        assert self.contents.lora is not None
        return self.contents.lora

    @cached_property
    def reached(self) -> dict[str, Pair]:
        """The pairs without those that training had no use for: experts whom no text was sent to, and a pooler that
        only a classifier asks.  Their update is nothing, as at first."""
        return {m: p for m, p in self.contents.pairs.items() if not self._may_idle(m) or p.b is None or p.b.any()}

    def _may_idle(self, module: str) -> bool:
        task = self.contents.lora.task if self.contents.lora else None
        return bool(EXPERT.search(module)) or (task != "SEQ_CLS" and ".pooler." in f".{module}")

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of each tensor's values as float32, as in `adapter.fingerprints`."""
        arrays = self.contents.arrays.items()
        return {unwrapped(key): adapter.array_fingerprint(array)["sha256"] for key, array in arrays}


def is_embedding(module: str) -> bool:
    """Whether a module, by its name in the file, is an input or output embedding."""
    last = re.sub(r"(\.(base_layer|modules_to_save|original_module|default))+$", "", module).split(".")[-1]
    return last in EMBEDDINGS


def module_of(key: str) -> str:
    """The module that a tensor belongs to."""
    return key.rpartition(".")[0]
