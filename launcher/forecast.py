"""What a planned run will take on the GPUs that were found: memory, time, money; and what of it stands in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.spec import ALL_LINEAR, Spec
from launcher import estimate
from launcher.estimate import Memory
from launcher.hub_model import HubModel
from launcher.preflight import Finding, named_gpus
from launcher.submit import Plan
from remote.facts import Facts, Gpu

BF16_CAPABILITY = 8.0
"""From Ampere on; before it the base is kept and computed in float32."""
BASIS = f"data sheet of the card, {estimate.USE:.0%} of its peak"


@dataclass(frozen=True)
class Forecast:
    """For one run on one host.  `tokens` fit into a forward pass; `seconds` and `cost` are of the training alone.

    They are None where the card, or the price, is not known.
    """

    basis: str
    gpu: str
    gpu_bytes: int
    memory: Memory
    tokens: int
    seconds: float | None
    cost: float | None

    def to_json(self) -> dict[str, Any]:
        """For `--dry-run --json`."""
        return asdict(self)

    def in_words(self, spec: Spec) -> str:
        """One line."""
        fixed, each = self.memory.fixed_bytes / 1e9, self.memory.token_bytes / 1e6
        said = f"about {fixed:.1f} GB for the model and {each:.2g} MB a token ({self.basis}): "
        said += f"{self.tokens:,} tokens a pass fit on {self.gpu}"
        if self.seconds is not None:
            said += f"; training {_minutes(self.seconds)}"
            said += f", {self.cost:.2f} at {spec.price:g} an hour" if self.cost is not None else ""
            said += f" ({BASIS})"
        return said


def forecast(plan: Plan, facts: Facts) -> Forecast | None:
    """None without a GPU whose memory is known, and for a base of which neither shape nor name is known."""
    spec = plan.submission.spec
    sized = [(gpu.memory_total_bytes, gpu) for gpu in facts.gpus or () if gpu.memory_total_bytes]
    if isinstance(spec.gpus, int):
        sized = sized[: spec.gpus]
    folder = _base(plan)
    shape = estimate.shape(folder, spec.model_name_or_path)
    if not sized or shape is None:
        return None
    gpu_bytes, smallest = min(sized, key=lambda one: one[0])
    bf16 = spec.bf16 == "yes" or (spec.bf16 == "auto" and _has_bf16(smallest))
    memory = estimate.memory(shape, rank=spec.lora_r, bf16=bf16)
    seconds = None
    if bf16:  # the table is of bf16
        tokens = plan.train_tokens * spec.num_train_epochs
        seconds = estimate.seconds(shape, tokens, smallest.name, len(sized))
    return Forecast(
        basis="by the base's shape" if shape.known else "by the base's name",
        gpu=", ".join(named_gpus([gpu for _, gpu in sized])),
        gpu_bytes=gpu_bytes,
        memory=memory,
        tokens=memory.tokens(gpu_bytes),
        seconds=seconds,
        cost=seconds / 3600 * spec.price if seconds is not None and spec.price else None,
    )


def findings(of: Forecast, spec: Spec) -> Iterator[Finding]:
    """What stands in the way of the run; pure."""
    needed = of.memory.fixed_bytes + spec.max_length * of.memory.token_bytes
    if of.tokens < spec.max_length:
        # With LoRA on a few layers only there is less to keep.
        sure = spec.target_modules == (ALL_LINEAR,) and of.tokens == 0
        yield Finding("gpu_memory", sure, f"about {needed / 1e9:.1f} GB are needed on {of.gpu}",
                      f"the model takes {of.memory.fixed_bytes / 1e9:.1f} GB and a row of {spec.max_length} tokens "
                      f"{spec.max_length * of.memory.token_bytes / 1e9:.1f} GB ({of.basis})",
                      "a smaller base, a shorter max_length, or a GPU with more memory")  # fmt: skip
    if spec.max_cost and of.cost is not None and of.cost > spec.max_cost:
        what = f"the training would cost about {of.cost:.2f}, more than max_cost {spec.max_cost:g}"
        why = f"estimate before the start: {of.cost / spec.price:.1f} h ({BASIS})"
        todo = "a higher --max-cost, fewer epochs or a smaller base; --force to have it measured there"
        yield Finding("cost", True, what, why, todo)


def _base(plan: Plan) -> Path | None:
    """The base's folder on this machine, if there is one."""
    if "base" in plan.sources:
        return Path(plan.sources["base"])
    spec = plan.submission.spec
    return HubModel(spec.model_name_or_path, (spec.model_revision,)).cached()


def _has_bf16(gpu: Gpu) -> bool:
    try:
        return float(gpu.compute_capability) >= BF16_CAPABILITY
    except ValueError:
        return True  # whoever rents one today has it


def _minutes(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"
