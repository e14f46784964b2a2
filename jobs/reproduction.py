"""Reproduction: load what is on disk in a fresh process and hold its answers to the stored probes.

The yardstick is the adapter itself.  Distance: the median over the probes of the largest absolute difference
between the stored portable logits and those of the base without LoRA (median, so that one odd text does not
widen it). Tolerance: 5 % of it.  Two controls, really computed, show that the test can fail: LoRA emptied,
and the head drawn anew, have to miss by ten tolerances.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jobs import adapter, atomic, explanations, own_copy, probes
from jobs.checks import Check
from jobs.errors import AdapterRejected
from jobs.probes import Logits, Outputs, Probes

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

Where = Literal["host", "home"]

TOLERANCE = 0.05
"""Of the distance.  A healthy adapter misses by rounding only, a foreign one by about the distance itself."""
CONTROL_MISS = 10.0
"""In tolerances: an emptied adapter misses by 20 or more, as the distance is made from it."""
LEAST_DISTANCE = 2e-4
"""Of the largest logit: below it 5 % drown in float32's rounding, and nobody sees a difference."""
NEW_HEAD_SEED = 2_961_305_417
"""One that no run is likely to have: with the run's own, a random start would draw this very head first."""
SINGLES = 4
"""Probes that are also run alone; padding goes wrong for all texts or none."""


def in_fresh_process(
    adapter_folder: Path,
    probes_folder: Path,
    base_folder: Path,
    *,
    where: Where,
    python: str = sys.executable,
    timeout_s: float = 3600,
) -> list[Check]:
    """`reproduce`, in a new process that has nothing of this one's memory; offline.  Never raises."""
    with tempfile.TemporaryDirectory() as scratch:
        # Offline, so that no library asks the Hub about a name it finds in a file from the host.
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", **own_copy.into(Path(scratch))}
        out = Path(scratch, "checks.json")
        folders = [str(path.resolve()) for path in (adapter_folder, probes_folder, base_folder)]
        argv = [python, "-P", "-m", "jobs.reproduction", *folders, "--where", where, "--out", str(out)]
        try:
            done = subprocess.run(
                argv, env=environment, cwd=scratch, timeout=timeout_s, capture_output=True, check=False
            )
        except subprocess.TimeoutExpired:
            return [_check("loads", "fail", f"no answer within {timeout_s:g} s")]
        except OSError as error:
            return [_not_possible(f"{python}: {error.strerror}")]
        if out.is_file():
            return [Check(**fields) for fields in json.loads(out.read_text("utf-8"))]
    return [_crashed(done.returncode, done.stderr.decode("utf-8", "replace"))]


def reproduce(adapter_folder: Path, probes_folder: Path, base_folder: Path, *, where: Where) -> list[Check]:
    """The checks of the adapter on disk against its probes.  Never raises for what is in the folders."""
    try:
        stored, logits = probes.load(probes_folder)
    except AdapterRejected as error:
        return [_check("probes", "fail", error.message)]
    found = [_check("probes", "pass", f"{len(stored.texts)} texts, trained in {stored.dtype}")]
    found.append(_tokenizer(adapter_folder, stored))
    try:
        found += _portable(adapter_folder, base_folder, stored, logits)
        if where == "host":
            found.append(_as_trained(adapter_folder, base_folder, stored, logits))
    except AdapterRejected as error:
        found.append(_check("loads", "fail", error.message))
    return found


def distance(logits: dict[str, Logits]) -> float:
    """Median over the probes of the largest logit difference that the adapter makes."""
    return float(np.median(np.abs(logits[probes.PORTABLE] - logits[probes.WITHOUT_LORA]).max(axis=1)))


def _portable(adapter_folder: Path, base_folder: Path, stored: Probes, logits: dict[str, Logits]) -> list[Check]:
    import torch

    model = _load(adapter_folder, base_folder, stored, dtype=torch.float32, attention=probes.PORTABLE_ATTENTION)
    tolerance = TOLERANCE * distance(logits)
    wanted = logits[probes.PORTABLE]
    with probes.exact_float32():
        on = probes.forward(model, stored)
        new_head = _with_new_head(model, on)
        alone = probes.forward(model, stored, batch_size=1, rows=range(min(SINGLES, len(stored.texts))))
        off = _emptied(model, stored)
    return [
        _check("loads", "pass", "every tensor of the file is in the model, and none is missing"),
        _distance(logits),
        _within("same_base", off.logits, logits[probes.WITHOUT_LORA], tolerance),
        _within("portable", on.logits, wanted, tolerance),
        _argmax(on.logits, wanted, tolerance),
        _adapter_matters(on, off),
        _within("batch_of_one", alone.logits, on.logits[: len(alone.logits)], tolerance),
        _control("emptied_control", off.logits, wanted, tolerance),
        _control("head_control", new_head, wanted, tolerance),
    ]


def _as_trained(adapter_folder: Path, base_folder: Path, stored: Probes, logits: dict[str, Logits]) -> Check:
    import torch

    dtype = getattr(torch, stored.dtype)  # one of probes.DTYPES
    model = _load(adapter_folder, base_folder, stored, dtype=dtype, attention=stored.attention)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(stored.matmul_precision)
    try:
        answers = probes.forward(model, stored).logits
    finally:
        torch.set_float32_matmul_precision(before)
    return _within("as_trained", answers, logits[probes.AS_TRAINED], TOLERANCE * distance(logits))


def _load(adapter_folder: Path, base_folder: Path, stored: Probes, *, dtype: torch.dtype, attention: str) -> PeftModel:
    import torch

    from jobs import model as models

    labels = {int(k): v for k, v in stored.id2label.items()}
    try:
        model = adapter.load(base_folder, adapter_folder, dtype=dtype, id2label=labels, attention=attention)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise AdapterRejected(f"{base_folder}: can't be loaded: {reason}") from error
    longest = models.longest_row(model)
    if longest is not None and max(map(len, stored.token_ids)) > longest:
        raise AdapterRejected(f"{base_folder}: the probes have rows of more than its {longest:,} tokens: another base")
    size = model.get_input_embeddings().weight.shape[0]
    if max(max(ids) for ids in stored.token_ids) >= size:
        raise AdapterRejected(f"{base_folder}: the probes have tokens beyond its {size:,}: another base")
    return model.to("cuda") if torch.cuda.is_available() else model


def _tokenizer(adapter_folder: Path, stored: Probes) -> Check:
    from jobs import model as models

    try:
        tokenizer = adapter.load_tokenizer(adapter_folder)
        template = adapter.prompt_template(adapter_folder)
        ids = models.encode(tokenizer, stored.texts, stored.max_length, template)
    except Exception as error:  # the files are the host's, and fail in every way there is
        return _check("tokenizer", "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    different = sum(a != b for a, b in zip(ids, stored.token_ids, strict=True))
    if different:
        return _check("tokenizer", "fail", f"{different} of {len(ids)} probe texts become other tokens")
    return _check("tokenizer", "pass", f"{len(ids)} probe texts become the same tokens")


def _emptied(model: PeftModel, stored: Probes) -> Outputs:
    """The forward pass with every lora_B zero: control, and what the base alone gives.  Leaves it so."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()
    return probes.forward(model, stored)


def _with_new_head(model: PeftModel, on: Outputs) -> Logits:
    """Logits of a last layer drawn anew, as transformers would, on the adapter's own features."""
    import torch

    generator = torch.Generator().manual_seed(NEW_HEAD_SEED)
    width = getattr(model.config.get_text_config(), "initializer_range", 0.02)
    weight = torch.empty(on.logits.shape[1], on.pooled.shape[1]).normal_(0.0, width, generator=generator)
    logits: Logits = (torch.from_numpy(on.pooled) @ weight.T).numpy()
    return logits


def _distance(logits: dict[str, Logits]) -> Check:
    found, scale = distance(logits), float(np.abs(logits[probes.PORTABLE]).max())
    status = "pass" if found >= LEAST_DISTANCE * scale and found > 0 else "fail"
    return _check(
        "distance",
        status,
        f"the adapter moves the logits by {found:.3g}, the largest of which is {scale:.3g}",
    )


def _within(name: str, answers: Logits, wanted: Logits, tolerance: float) -> Check:
    miss = float(np.abs(answers - wanted).max())
    # "not greater" would let a NaN pass
    status = "pass" if miss <= tolerance and tolerance > 0 else "fail"
    return _check(name, status, f"largest difference {miss:.3g}, allowed {tolerance:.3g}")


def _control(name: str, answers: Logits, wanted: Logits, tolerance: float) -> Check:
    miss = float(np.abs(answers - wanted).max())
    status = "pass" if tolerance > 0 and miss >= CONTROL_MISS * tolerance else "fail"
    times = f"{miss / tolerance:.1f}" if tolerance > 0 else "no number of"
    return _check(name, status, f"misses by {times} tolerances, {CONTROL_MISS:g} are needed")


def _argmax(answers: Logits, wanted: Logits, tolerance: float) -> Check:
    """Agreement, counted where the two best classes are further apart than twice the tolerance."""
    best = np.sort(wanted, axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * tolerance if wanted.shape[1] > 1 else np.ones(len(wanted), dtype=bool)
    flips = int((answers.argmax(axis=1) != wanted.argmax(axis=1))[clear].sum())
    count = int(clear.sum())
    detail = f"{flips} of {count} clear answers differ ({len(wanted) - count} are too close to call)"
    return _check("argmax", "fail" if flips else "pass", detail)


def _adapter_matters(on: Outputs, off: Outputs) -> Check:
    """In pooled hidden states, where no head can hide it."""
    change = float(np.abs(on.pooled - off.pooled).max() / max(float(np.abs(off.pooled).max()), 1e-30))
    status = "pass" if change > LEAST_DISTANCE / 10 else "fail"
    return _check("adapter_matters", status, f"the adapter changes the pooled features by {change:.3g} of the largest")


def _check(name: str, status: str, detail: str) -> Check:
    meaning, todo = ("", "") if status == "pass" else explanations.REPRODUCTION[name]
    return Check(name, status, detail, meaning, todo)  # type: ignore[arg-type]


def _crashed(code: int, stderr: str) -> Check:
    lines = [line for line in stderr.splitlines() if line.strip()] or [f"exit status {code}"]
    if lines[-1].startswith(("ModuleNotFoundError", "ImportError")):
        return _not_possible(lines[-1].strip()[:300])
    return _check("loads", "fail", f"the fresh process ended with {code}: {lines[-1].strip()[:300]}")


def _not_possible(detail: str) -> Check:
    todo = "once more: launch verify (what it needs is looked for again), or with --static"
    return Check("loads", "not_checked", detail, "nothing was reproduced here", todo)


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m jobs.reproduction ADAPTER PROBES BASE --where host|home --out FILE`: checks as JSON."""
    parser = argparse.ArgumentParser(prog="jobs.reproduction")
    for name in ("adapter", "probes", "base"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--where", choices=("host", "home"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    options: Any = parser.parse_args(argv)
    found = reproduce(options.adapter, options.probes, options.base, where=options.where)
    atomic.write_json(options.out, [vars(check) for check in found])


if __name__ == "__main__":
    main()
