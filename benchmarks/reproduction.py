"""How far healthy and harmed adapters miss their probes: trained on bases in bf16, held to them at home in float32.

python benchmarks/reproduction.py

Twenty adapters on tiny random bases.  Figures are in tolerances: above 1 one is refused.  "healthy" is the largest
of all comparisons (the stored logits, the base alone, a batch of one, merged), "in bf16" what the model of the training
is off by in its own precision; "emptied" and "new head" are the controls that every reproduction computes.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

KINDS = ("qwen2", "qwen3", "llama", "bert")
# Rank and steps; each kind of base has one of each.
TRAININGS = ((1, 8), (4, 1), (8, 4), (16, 2), (64, 6))
MAX_LENGTH = 48


@dataclass(frozen=True)
class Case:
    """One adapter: the kind of its base, for how many steps it is trained, and the keys of its spec."""

    kind: str
    steps: int
    keys: dict[str, Any]


def cases() -> list[Case]:
    """Twenty: ranks from 1 to 64, one step to many, both scales, all layers and two of each attention."""
    found = []
    for turn, (rank, steps) in enumerate(TRAININGS):
        for number, kind in enumerate(KINDS):
            two = ["query", "value"] if kind == "bert" else ["q_proj", "v_proj"]
            keys = {"lora_r": rank, "use_rslora": (turn + number) % 2 == 0, "seed": 10 * turn + number}
            found.append(Case(kind, steps, keys | {"target_modules": two if turn % 2 else ["all-linear"]}))
    return found


@dataclass(frozen=True)
class Misses:
    """In tolerances; `failed` are the required checks that the healthy adapter did not pass."""

    healthy: float
    in_bf16: float
    emptied: float
    new_head: float
    failed: tuple[str, ...]


def misses(case: Case, base: Path, folder: Path) -> Misses:
    """Train a case, save it in the new `folder`, and reproduce it there."""
    import numpy as np

    from jobs import probes, reproduction

    train(case, base, folder)
    checks = reproduction.reproduce(folder / "adapter", folder / "probes", base, where="home")
    missed = {check.id: check.tolerances or 0.0 for check in checks}
    _, logits = probes.load(folder / "probes")
    off = float(np.abs(logits[probes.PORTABLE] - logits[probes.AS_TRAINED]).max())
    return Misses(
        healthy=max(missed[name] for name in ("portable", "same_base", "batch_of_one", "merged")),
        in_bf16=off / (reproduction.TOLERANCE * reproduction.distance(logits)),
        emptied=missed["emptied_control"],
        new_head=missed["head_control"],
        failed=tuple(check.id for check in checks if check.required and check.status != "pass"),
    )


def train(case: Case, base: Path, folder: Path) -> None:
    """AdamW on 32 rows, then the adapter and its probes, as a run saves them."""
    import torch

    from jobs import adapter, probes
    from jobs import model as models
    from jobs.spec import from_mapping
    from tests.tiny import toy_rows

    document = {"name": "case", "model_name_or_path": str(base), "data": "toy.csv", "max_length": MAX_LENGTH}
    spec, tokenizer = from_mapping(document | case.keys), models.load_tokenizer(base)
    torch.manual_seed(spec.seed)
    loaded = models.load_base(
        base,
        label_names=("bad", "good"),
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.bfloat16,
        device=torch.device("cpu"),
    )
    model = models.with_lora(loaded, spec)
    texts, labels = zip(*toy_rows(32, spec.seed), strict=True)
    batch = tokenizer.pad({"input_ids": models.encode(tokenizer, texts, MAX_LENGTH)}, return_tensors="pt")
    label_ids = torch.tensor([label == "good" for label in labels]).long()
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=5e-3)
    for _ in range(case.steps):
        torch.nn.functional.cross_entropy(models.logits(model, batch["input_ids"]), label_ids).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    about: dict[str, Any] = {"id2label": {0: "bad", 1: "good"}, "max_length": MAX_LENGTH}
    adapter.save(model, tokenizer, folder / "adapter", base_name="tiny", revision="", **about)
    probes.record(
        model, tokenizer, [text for text, _ in toy_rows(32, 99)], base_folder=base, folder=folder / "probes", **about
    )


def bases(folder: Path) -> dict[str, Path]:
    """A tiny base of each kind, in bf16."""
    import torch

    from tests.tiny import make_base_of

    return {kind: make_base_of(kind, folder / kind, dtype=torch.bfloat16) for kind in KINDS}


def main() -> None:
    print("| base | rank | steps | LoRA on | scale | healthy | in bf16 | emptied | new head |\n" + "| --- " * 9 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        made, found = bases(Path(scratch)), []
        for number, case in enumerate(cases()):
            found.append(misses(case, made[case.kind], Path(scratch, str(number))))
            targets, scale = ", ".join(case.keys["target_modules"]), "rsLoRA" if case.keys["use_rslora"] else "LoRA"
            one = found[-1]
            figures = [f"{one.healthy:.0e}", f"{one.in_bf16:.1f}", f"{one.emptied:.0f}", f"{one.new_head:.0f}"]
            print("|", " | ".join([case.kind, f"{case.keys['lora_r']} | {case.steps}", targets, scale, *figures]), "|")
    worst = [max(one.healthy for one in found), min(one.emptied for one in found), min(one.new_head for one in found)]
    print(f"\nlargest healthy {worst[0]:.2g}, smallest emptied {worst[1]:.3g}, smallest new head {worst[2]:.3g}")


if __name__ == "__main__":
    main()
