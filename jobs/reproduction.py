"""Reproduction: load what is on disk in a fresh process and hold its answers to the stored probes.

The yardstick is the adapter itself.  Distance: the median over the probes of the largest absolute difference
between the stored portable logits and those of the base without LoRA (median, so that one odd text does not
widen it). Tolerance: 5 % of it.  Two controls, really computed, show that the test can fail: LoRA emptied,
and the head drawn anew, have to miss by ten tolerances.

On the host the validation split is answered once more, too: logits that were made to fit can be stored with any
adapter, the scores by which training chose its weights can't.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from jobs import adapter, atomic, explanations, own_copy, probes
from jobs.checks import Check, Status
from jobs.errors import AdapterRejected
from jobs.probes import Logits, Outputs, Probes

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from jobs.held_out import HeldOut

Where = Literal["host", "home"]

TOLERANCE = 0.05
"""Of the distance.  A healthy adapter misses by rounding only, a foreign one by about the distance itself."""
CONTROL_MISS = 10.0
"""In tolerances: an emptied adapter misses by 20 or more, as the distance is made from it."""
LEAST_DISTANCE = 2e-4
"""Of the largest logit: below it 5 % drown in float32's rounding, and nobody sees a difference."""
NEW_HEAD_SEED = 2_961_305_417
"""One that no run is likely to have: with the run's own, a random start would draw this very head first."""
SINGLES, MERGED = 4, 16
"""Probes that are also run alone, and with LoRA merged; padding and merging go wrong for all texts or none."""
ROUNDING = 1e-4
"""Of the largest logit: what float32 may lose between two ways to cut rows into batches.  bf16 is measured."""
ONE_CLASS = 0.95
"""Share of the answers from which on a model is said to give one class only."""


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


def reproduce(
    adapter_folder: Path, probes_folder: Path, base_folder: Path, *, where: Where, held_out: HeldOut | None = None
) -> list[Check]:
    """The checks of the adapter on disk against its probes, on the host also against `held_out`.

    Never raises for what is in the folders.
    """
    try:
        stored, logits = probes.load(probes_folder)
    except AdapterRejected as error:
        return [_check("probes", "fail", error.message)]
    found = [_check("probes", "pass", f"{len(stored.texts)} texts, trained in {stored.dtype}")]
    found.append(_tokenizer(adapter_folder, stored))
    try:
        found += _portable(adapter_folder, base_folder, stored, logits)
        if where == "host":
            same_tokens = found[1].status == "pass"  # else the rows would be others than training's
            found += _as_trained(adapter_folder, base_folder, stored, logits, held_out if same_tokens else None)
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
        merged = _merged(model, adapter_folder, stored, on, tolerance)  # last: unmerging does not give the same bits
    return [
        _check("loads", "pass", "every tensor of the file is in the model, and none is missing"),
        _distance(logits),
        _within("same_base", off.logits, logits[probes.WITHOUT_LORA], tolerance),
        _within("portable", on.logits, wanted, tolerance),
        _argmax(on.logits, wanted, tolerance),
        _adapter_matters(on, off),
        _within("batch_of_one", alone.logits, on.logits[: len(alone.logits)], tolerance),
        merged,
        _degenerate(on.logits, stored),
        _control("emptied_control", off.logits, wanted, tolerance),
        _control("head_control", new_head, wanted, tolerance),
    ]


def _as_trained(
    adapter_folder: Path, base_folder: Path, stored: Probes, logits: dict[str, Logits], held_out: HeldOut | None
) -> list[Check]:
    import torch

    dtype = getattr(torch, stored.dtype)  # one of probes.DTYPES
    model = _load(adapter_folder, base_folder, stored, dtype=dtype, attention=stored.attention)
    wanted, tolerance = logits[probes.AS_TRAINED], TOLERANCE * distance(logits)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(stored.matmul_precision)
    try:
        found = [_within("as_trained", probes.forward(model, stored).logits, wanted, tolerance)]
        if held_out is not None:
            found += _validation(model, adapter_folder, stored, wanted, tolerance, held_out)
    finally:
        torch.set_float32_matmul_precision(before)
    return found


def _validation(
    model: PeftModel, adapter_folder: Path, stored: Probes, wanted: Logits, tolerance: float, held_out: HeldOut
) -> list[Check]:
    """The scores that training recorded for its best weights, from the model as it was trained, in its precision.

    The same numbers in other batches differ by rounding, a little in float32 and more in bf16: how much is measured, on
    the probes in training's way of batching against their logits `wanted`, and doubled.  Logits (C,) that are off by e
    move a row's loss by at most log(1 + (1 - p) (exp(2 e) - 1)), where p is its label's probability (the other classes'
    odds grow by exp(2 e)), and turn no answer whose two best classes are further apart than 2 e.
    """
    from jobs import inference
    from jobs import model as models

    budget = inference.budget(held_out.tokens_per_batch, model.device)
    otherwise = inference.logits(model, stored.token_ids, tokens_per_batch=budget)
    off = max(2 * float(np.abs(otherwise - wanted).max()), ROUNDING * float(np.abs(wanted).max()))
    tokenizer = adapter.load_tokenizer(adapter_folder)
    token_ids = models.encode(tokenizer, held_out.texts, stored.max_length, stored.prompt_template, stored.long_texts)
    logits = inference.logits(model, token_ids, tokens_per_batch=budget)  # (N, C)
    return [_scores(logits, held_out, off, max(off, tolerance)), _degenerate_validation(logits, held_out, stored)]


def _scores(logits: Logits, held_out: HeldOut, off: float, tolerance: float) -> Check:
    from jobs.validation import scores

    found, rows = scores(logits, held_out.label_ids), len(logits)
    gap, doubt = abs(found["loss"] - held_out.loss), 1 - _probabilities(logits)[np.arange(rows), held_out.label_ids]
    allowed = float(np.log1p(doubt * np.expm1(min(2 * off, 100))).mean())
    flips = round(abs(found["accuracy"] - held_out.accuracy) * rows)
    close = rows - int(_clear(logits, tolerance).sum())
    return _check(
        "validation",
        "pass" if gap <= allowed and flips <= close else "fail",
        f"loss {found['loss']:.5g} on {rows} rows, {gap:.2g} from the recorded one, allowed {allowed:.2g}; "
        f"{flips} more or fewer right answers, {close} are too close to call",
        gap / allowed if allowed > 0 else math.inf,
    )


def _probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))  # (N, C)
    shares: npt.NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return shares


def _load(adapter_folder: Path, base_folder: Path, stored: Probes, *, dtype: torch.dtype, attention: str) -> PeftModel:
    import torch
    from safetensors import SafetensorError

    from jobs import model as models

    labels = {int(k): v for k, v in stored.id2label.items()}
    try:
        model = adapter.load(base_folder, adapter_folder, dtype=dtype, id2label=labels, attention=attention)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
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
        template, long_texts = adapter.prompt_template(adapter_folder), adapter.long_texts(adapter_folder)
        ids = models.encode(tokenizer, stored.texts, stored.max_length, template, long_texts)
    except Exception as error:  # the files are the host's, and fail in every way there is
        return _check("tokenizer", "fail", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
    different = sum(a != b for a, b in zip(ids, stored.token_ids, strict=True))
    if different:
        return _check("tokenizer", "fail", f"{different} of {len(ids)} probe texts become other tokens")
    return _check("tokenizer", "pass", f"{len(ids)} probe texts become the same tokens")


def _emptied(model: PeftModel, stored: Probes) -> Outputs:
    """The forward pass with every lora_B zero: control, and what the base alone gives."""
    import torch

    trained = {name: parameter.clone() for name, parameter in model.named_parameters() if ".lora_B." in name}
    with torch.no_grad():
        for name in trained:
            model.get_parameter(name).zero_()
        answers = probes.forward(model, stored)
        for name, values in trained.items():
            model.get_parameter(name).copy_(values)
    return answers


def _merged(model: PeftModel, adapter_folder: Path, stored: Probes, on: Outputs, tolerance: float) -> Check:
    """Some probes with LoRA added into the base's weights, by PEFT's own arithmetic.  Leaves it so."""
    tuner: Any = model.base_model
    try:
        with adapter.quiet_libraries(), adapter.peft_problems_as_errors(adapter_folder):
            tuner.merge_adapter(safe_merge=True)
    except AdapterRejected as error:
        return _check("merged", "fail", error.message)
    answers = probes.forward(model, stored, rows=range(min(MERGED, len(stored.texts)))).logits
    return _within("merged", answers, on.logits[: len(answers)], tolerance)


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
    status: Status = "pass" if found >= LEAST_DISTANCE * scale and found > 0 else "fail"
    return _check(
        "distance",
        status,
        f"the adapter moves the logits by {found:.3g}, the largest of which is {scale:.3g}",
    )


def _within(name: str, answers: Logits, wanted: Logits, tolerance: float) -> Check:
    miss = float(np.abs(answers - wanted).max())
    # "not greater" would let a NaN pass
    status: Status = "pass" if miss <= tolerance and tolerance > 0 else "fail"
    share = miss / tolerance if tolerance > 0 else math.inf
    detail = f"largest difference {miss:.3g}, {share:.2g} of the allowed {tolerance:.3g}"
    return _check(name, status, detail, share)


def _control(name: str, answers: Logits, wanted: Logits, tolerance: float) -> Check:
    miss = float(np.abs(answers - wanted).max())
    share = miss / tolerance if tolerance > 0 else math.nan
    status: Status = "pass" if share >= CONTROL_MISS else "fail"
    times = f"{share:.1f}" if tolerance > 0 else "no number of"
    return _check(name, status, f"misses by {times} tolerances, {CONTROL_MISS:g} are needed", share)


def _argmax(answers: Logits, wanted: Logits, tolerance: float) -> Check:
    """Agreement, counted where it is clear."""
    clear = _clear(wanted, tolerance)
    flips = int((answers.argmax(axis=1) != wanted.argmax(axis=1))[clear].sum())
    count = int(clear.sum())
    detail = f"{flips} of {count} clear answers differ ({len(wanted) - count} are too close to call)"
    return _check("argmax", "fail" if flips else "pass", detail)


def _clear(logits: Logits, tolerance: float) -> npt.NDArray[np.bool_]:
    """(N,) whether the two best classes are further apart than twice the tolerance."""
    if logits.shape[1] == 1:
        return np.ones(len(logits), dtype=bool)
    best = np.sort(logits, axis=1)
    clear: npt.NDArray[np.bool_] = best[:, -1] - best[:, -2] > 2 * tolerance
    return clear


def _degenerate(logits: Logits, stored: Probes) -> Check:
    share, most = _most_frequent(logits.argmax(axis=1), logits.shape[1])
    status: Status = "warn" if share == 1 and logits.shape[1] > 1 else "pass"
    return _check(
        "degenerate", status, f"{share:.0%} of {len(logits)} probes get {_named(most, stored)}", required=False
    )


def _degenerate_validation(logits: Logits, held_out: HeldOut, stored: Probes) -> Check:
    """Of rows whose labels are known, so that data of nearly one class are not blamed on the adapter."""
    share, most = _most_frequent(logits.argmax(axis=1), logits.shape[1])
    truth, _ = _most_frequent(held_out.label_ids, logits.shape[1])
    status: Status = "warn" if share >= ONE_CLASS > truth else "pass"
    detail = f"{share:.0%} of {len(logits)} rows get {_named(most, stored)}; the largest class has {truth:.0%} of them"
    return _check("degenerate_validation", status, detail, required=False)


def _most_frequent(label_ids: npt.NDArray[np.int64], classes: int) -> tuple[float, int]:
    """Share of the class that occurs most often, and which it is."""
    counts = np.bincount(label_ids, minlength=classes)
    return float(counts.max() / counts.sum()), int(counts.argmax())


def _named(label_id: int, stored: Probes) -> str:
    return f"{stored.id2label[str(label_id)]!r:.60}"


def _adapter_matters(on: Outputs, off: Outputs) -> Check:
    """In pooled hidden states, where no head can hide it."""
    change = float(np.abs(on.pooled - off.pooled).max() / max(float(np.abs(off.pooled).max()), 1e-30))
    status: Status = "pass" if change > LEAST_DISTANCE / 10 else "fail"
    return _check("adapter_matters", status, f"the adapter changes the pooled features by {change:.3g} of the largest")


def _check(name: str, status: Status, detail: str, tolerances: float = math.nan, *, required: bool = True) -> Check:
    meaning, todo = ("", "") if status == "pass" else explanations.REPRODUCTION[name]
    return Check(name, status, detail, meaning, todo, required, tolerances if math.isfinite(tolerances) else None)


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
