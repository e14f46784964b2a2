"""How much of a disk a run takes beyond what is sent to it: environment, base model, checkpoints and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from launcher import estimate
from launcher.hub_model import HubModel
from remote import environments
from remote.agent import Agent

if TYPE_CHECKING:
    from launcher.submit import Plan

GIB = 1 << 30
# A CUDA build of torch unpacks to five to six of these; without torch it is half of one (measured, 2026).
FULL_BYTES, BESIDE_BYTES = 7 * GIB, GIB
RESULT_BYTES = GIB
BYTES_PER_PARAMETER = 2


@dataclass(frozen=True)
class Room:
    """What is needed, and the words for each part.  An environment has some 30,000 files."""

    size_bytes: int = 5 * GIB
    words: tuple[str, ...] = ("an environment, a base model, checkpoints and results",)


def needed(agent: Agent, recipe: dict[str, Any], plan: Plan | None) -> Room:
    """For a run that is planned, or for the environment alone; asks the host what it has already."""
    parts: list[tuple[str, int]] = []
    if lacking := environments.lacks(agent, recipe):
        parts.append(("an environment", FULL_BYTES if lacking == "all" else BESIDE_BYTES))
    if plan is not None:
        if not plan.submission.base_is_pushed:
            parts.append(_model(plan))
        parts.append(("checkpoints and results", RESULT_BYTES))
    return Room(sum(size for _, size in parts), tuple(_in_words(name, size) for name, size in parts))


def _model(plan: Plan) -> tuple[str, int]:
    spec = plan.submission.spec
    here = HubModel(spec.model_name_or_path, (spec.model_revision,)).cached()
    if here is not None:
        return "the base model", sum(path.stat().st_size for path in here.iterdir())
    named = estimate.shape(None, spec.model_name_or_path)
    if named is None:
        return "a base model of unknown size", 0
    return "the base model, by its name", int(named.parameters * BYTES_PER_PARAMETER)


def _in_words(name: str, size_bytes: int) -> str:
    return f"{name} ({size_bytes / 1e9:.1f} GB)" if size_bytes else name
