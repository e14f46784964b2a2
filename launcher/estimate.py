"""What a training will take on a GPU, from the base's shape alone: memory, time and money, before anything is rented.

The first real steps measure all of it again, there; until then these are figures to choose a machine by.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A trained parameter in float32: itself, its gradient, two of Adam's, the moving average and the best so far.
BYTES_PER_TRAINED = 24
# Bytes that backward needs of each token in each layer, for each of hidden, intermediate, key and value, and rank:
# counted with torch's hooks for saved tensors (torch 2.13, Qwen2 with LoRA on all linear layers, sdpa).
SAVED = {2: (27, 8, 4, 22), 4: (28, 16, 8, 28)}
# Of bases whose shape is not known, for a billion parameters: it grows with their square root (Qwen2.5 0.5 to 7B).
SAVED_OF_A_BILLION = 2.7e6
CUDA_BYTES = 0.8e9
"""What CUDA and its libraries take before the first tensor."""

# Dense bf16 TFLOP/s with float32 sums, from the makers' data sheets; the first name that fits counts.
PEAK_TFLOPS = (
    ("H200", 989), ("H100 PCIe", 756), ("H100", 989), ("H800", 989), ("H20", 148), ("A100", 312), ("A800", 312),
    ("L40S", 362), ("L40", 181), ("L20", 119), ("A40", 150), ("A30", 165), ("A10", 125), ("RTX A6000", 155),
    ("RTX 5090", 209), ("RTX 4090 D", 147), ("RTX 4090", 165), ("RTX 4080", 97), ("RTX 3090", 71), ("RTX 3080", 59),
)  # fmt: skip
USE = 0.3
"""Of that peak; what short texts reach is less than the 0.4 of long ones."""

SIZE_IN_NAME = re.compile(r"(?<![\d.])(\d{1,3}(?:\.\d{1,2})?)B(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Shape:
    """A decoder as its config.json has it; `known` is False where only its name tells its size."""

    parameters: float
    embedding: float
    hidden: int = 0
    intermediate: int = 0
    layers: int = 0
    query: int = 0
    key_value: int = 0
    known: bool = False

    def lora_parameters(self, rank: int) -> float:
        """Of LoRA on all linear layers."""
        if not self.known:
            return rank * 1.1e6 * math.sqrt(self.parameters / 1e9)
        attention = 2 * (self.hidden + self.query) + 2 * (self.hidden + self.key_value)
        return rank * self.layers * (attention + 3 * (self.hidden + self.intermediate))

    def bytes_per_token(self, rank: int, bytes_per_number: int) -> float:
        """What backward needs of a token."""
        if not self.known:
            return SAVED_OF_A_BILLION * math.sqrt(self.parameters / 1e9) * (bytes_per_number / 2)
        hidden, intermediate, key_value, ranks = SAVED[bytes_per_number]
        layer = hidden * self.hidden + intermediate * self.intermediate + key_value * self.key_value + ranks * rank
        return self.layers * layer


def shape(folder: Path | None, name: str) -> Shape | None:
    """Of the base in `folder`, or as its name says (`Qwen2.5-1.5B`); None where neither tells."""
    if folder is not None:
        try:
            return _of_config(json.loads((folder / "config.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            pass
    named = SIZE_IN_NAME.search(name)
    return Shape(parameters=float(named[1]) * 1e9, embedding=0.0) if named else None


def _of_config(config: Mapping[str, Any]) -> Shape:
    hidden, layers = int(config["hidden_size"]), int(config["num_hidden_layers"])
    intermediate, heads = int(config["intermediate_size"]), int(config["num_attention_heads"])
    head = int(config.get("head_dim") or hidden // heads)
    key_value = int(config.get("num_key_value_heads") or heads) * head
    embedding = float(int(config["vocab_size"]) * hidden)
    layer = 2 * hidden * heads * head + 2 * hidden * key_value + 3 * hidden * intermediate
    if min(hidden, layers, intermediate, heads) <= 0:
        raise ValueError("a size that is not positive")
    return Shape(
        layers * layer + embedding, embedding, hidden, intermediate, layers, heads * head, key_value, known=True
    )


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU: what is there all the time, and what each token of a forward pass adds."""

    fixed_bytes: float
    token_bytes: float

    def tokens(self, memory_bytes: float) -> int:
        """Padded tokens that fit into a forward pass; 0 where not even the model does."""
        return max(0, int((0.95 * memory_bytes - self.fixed_bytes) / self.token_bytes))


def memory(of: Shape, *, rank: int, bf16: bool) -> Memory:
    """For a frozen base with LoRA on all linear layers."""
    per_number = 2 if bf16 else 4
    fixed = CUDA_BYTES + per_number * of.parameters + BYTES_PER_TRAINED * of.lora_parameters(rank)
    return Memory(fixed, of.bytes_per_token(rank, per_number))


def seconds(of: Shape, tokens: float, gpu: str, count: int = 1) -> float | None:
    """A training over so many tokens takes, on `count` of these GPUs; None for one that is not in the table.

    4 floating-point operations a parameter beside the embeddings: forward, and backward without weight gradients.
    """
    peak = next((peak for name, peak in PEAK_TFLOPS if name.lower() in gpu.lower()), None)
    if peak is None:
        return None
    return 4 * (of.parameters - of.embedding) * tokens / (USE * peak * 1e12 * count)
