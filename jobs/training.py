"""The training of one run, from its folder to its adapter.

Read `train` from top to bottom: data, base, frozen head, baselines, LoRA, what is saved.  Owns the optimizer loop and
what is recorded of it; evaluating and verifying what was saved is for a fresh process.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs import adapter, atomic, base_model, baselines, data, head, inference, probes
from jobs import model as models
from jobs.events import EventLog
from jobs.fitting import Encoded, fit, scores
from jobs.log_line import in_words, say
from jobs.run_directory import RunDirectory
from jobs.submission import load as load_submission

PROBE_TEXTS = 64
TEXTS_COMPARED = 200
LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "scikit-learn", "numpy")

LOSSES_KEPT = 200


def train(root: Path) -> None:
    """Train the run in the folder `root`: adapter, probes, baselines and figures are in its artifacts afterwards.

    Raises DataError and JobError; nothing that failed leaves an adapter behind.
    """
    run, clock = RunDirectory(root), Clock()
    submission = load_submission(run.spec)
    spec, events = submission.spec, EventLog(run.events)
    torch.manual_seed(spec.seed)

    with clock.phase("data"):
        splits = data.load_splits(root, submission)
        counts = {name: len(split) for name, split in splits.named().items()}
        say(f"data: {in_words(counts)} rows; labels {', '.join(splits.label_names)}")

    with clock.phase("base"):
        base_folder = base_model.of_run(run, submission)
        device = models.best_device()
        dtype = models.base_dtype(spec.bf16, device)
        tokenizer = models.load_tokenizer(base_folder)
        base = models.load_base(
            base_folder,
            label_names=splits.label_names,
            pad_token_id=tokenizer.pad_token_id,
            dtype=dtype,
            device=device,
            max_length=spec.max_length,
        )
        models.parts_to_train(base, spec)  # a name that stands for nothing is told before anything is computed
        parameters = base.num_parameters()
        say(f"base: {spec.model_name_or_path}, {parameters:,} parameters, {_short(dtype)} on {device}")

    with clock.phase("tokens"):
        train_rows, validation_rows, test_rows = (
            Encoded(models.encode(tokenizer, split.texts, spec.max_length, spec.prompt_template), split.label_ids)
            for split in (splits.train, splits.validation, splits.test)
        )
        cut = float((train_rows.lengths == spec.max_length).mean())
        say(f"tokens: {train_rows.lengths.sum():,} in train, {train_rows.lengths.mean():.0f} a row, {cut:.1%} cut")

        sample = splits.train.texts[:TEXTS_COMPARED]
        if strange := models.cut_otherwise(tokenizer, base_folder, sample, spec.max_length):
            warning = f"{strange} of {len(sample)} texts get other tokens than the base's own tokenizer.json gives them"
            events.write("warning", message=warning)
            say(f"warning: {warning}; transformers has replaced its normalisation or splitting")

    with clock.phase("frozen head"):
        # Features do not change while the base is frozen: computed once, they fit the head that LoRA starts from.
        some = _at_most(head.MAX_ROWS, len(train_rows.token_ids), spec.seed)
        train_features, validation_features, test_features = (
            inference.pooled_features(
                base, token_ids, tokens_per_batch=inference.budget(spec.tokens_per_batch, device)
            )  # (N, H)
            for token_ids in (
                [train_rows.token_ids[row] for row in some],
                validation_rows.token_ids,
                test_rows.token_ids,
            )
        )
        probe = head.fit(
            train_features,
            train_rows.label_ids[some],
            validation_features,
            validation_rows.label_ids,
            len(splits.label_names),
        )
        frozen = baselines.Baseline(
            {"validation": probe.logits(validation_features), "test": probe.logits(test_features)}
        )
        say(f"frozen head: validation {in_words(scores(frozen.logits['validation'], validation_rows.label_ids))}")

    with clock.phase("other baselines"):
        references = {
            "majority": baselines.majority(splits), "tfidf": baselines.tfidf(splits), "frozen_head": frozen
        }  # fmt: skip
        for name, one in references.items():
            if one.skipped:
                say(f"{name}: skipped, {one.skipped}")
        baselines.save(references, run.artifacts / baselines.FILE)

    with clock.phase("training"):
        model = models.with_lora(base, spec)
        if spec.head_start == "probe":
            with torch.no_grad():
                models.head_of(model).weight.copy_(torch.from_numpy(probe.weight))
        initial = adapter.fingerprints(model)
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        say(f"LoRA: rank {spec.lora_r}, {trainable:,} trainable parameters, head from a {spec.head_start} start")
        fitted = fit(model, train_rows, validation_rows, spec, events)

    with clock.phase("saving"):
        id2label = dict(enumerate(splits.label_names))
        adapter.save(
            model,
            tokenizer,
            run.adapter,
            base_name=spec.model_name_or_path,
            revision=base_model.revision(run, submission),
            id2label=id2label,
            max_length=spec.max_length,
            prompt_template=spec.prompt_template,
        )
        probes.record(
            model,
            tokenizer,
            probe_texts(splits.validation),
            base_folder=base_folder,
            max_length=spec.max_length,
            id2label=id2label,
            folder=run.probes,
            prompt_template=spec.prompt_template,
        )
        base_sha256 = base_model.weight_files(base_folder)

    best = fitted.best
    assert best is not None
    figures: dict[str, Any] = {
        "label_names": list(splits.label_names),
        "positive_label": splits.positive_label,
        "rows": counts,
        "rows_by_label": {name: _by_label(split, splits.label_names) for name, split in splits.named().items()},
        "data_sha256": {name: entry.sha256 for name, entry in submission.inputs.items()},
        "base": {
            "model_name_or_path": spec.model_name_or_path,
            "revision": base_model.revision(run, submission),
            "weights_sha256": base_sha256,
            "parameters": parameters,
        },
        "trainable_parameters": trainable,
        "steps": fitted.steps,
        "epochs": spec.num_train_epochs,
        "rows_trained": fitted.rows,
        "losses": [{"step": step, "loss": loss} for step, loss in thinned(fitted.losses, LOSSES_KEPT)],
        "evaluations": [evaluation.to_json() for evaluation in fitted.evaluations],
        "best": best.to_json() | {"chosen_by": "lowest validation loss of the averaged weights"},
        "baselines": {name: _described(one, validation_rows.label_ids) for name, one in references.items()},
        "head_start": {"from": spec.head_start, "probe_strength": probe.strength, "probe_rows": len(some)},
        "seconds": clock.seconds | {"total": clock.total()},
        "rows_per_s": fitted.rows / clock.seconds["training"],
        "tokens_per_s": fitted.tokens / clock.seconds["training"],
        "padded_to_real_tokens": fitted.padded_tokens / fitted.tokens,
        "initial": initial,
        "seed": spec.seed,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": _short(dtype),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    atomic.write_json(run.training, figures)
    say(f"trained in {clock.total():.0f} s; best weights from step {best.step}: {in_words(best.to_json())}")


def probe_texts(validation: data.Split) -> list[str]:
    """Up to 64 validation texts, evenly spread over their order by length, so that short and long ones are probed."""
    by_length = sorted(set(validation.texts), key=lambda text: (len(text), text))
    places = np.unique(np.linspace(0, len(by_length) - 1, PROBE_TEXTS).round().astype(int))
    return [by_length[place] for place in places]


def thinned(losses: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` (step, loss): the mean loss over equal stretches, at the last step of each."""
    size = math.ceil(len(losses) / most)
    stretches = [losses[start : start + size] for start in range(0, len(losses), size)]
    return [(part[-1][0], sum(loss for _, loss in part) / len(part)) for part in stretches]


class Clock:
    """Seconds per phase, on a clock that nobody sets."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)

    def total(self) -> float:
        return round(time.monotonic() - self._start, 3)


def _at_most(most: int, rows: int, seed: int) -> NDArray[np.int64]:
    """Indices of all rows in order, or of `most` random ones."""
    chosen = np.random.default_rng(seed).permutation(rows)[:most] if rows > most else np.arange(rows)
    return np.sort(chosen)


def _described(baseline: baselines.Baseline, label_ids: NDArray[np.int64]) -> dict[str, Any]:
    """A baseline's scores on validation, or why it was skipped."""
    return {"skipped": baseline.skipped} if baseline.skipped else scores(baseline.logits["validation"], label_ids)


def _by_label(split: data.Split, label_names: tuple[str, ...]) -> dict[str, int]:
    counts = np.bincount(split.label_ids, minlength=len(label_names)).tolist()
    return dict(zip(label_names, counts, strict=True))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
