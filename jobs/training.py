"""The training of one run, from its folder to its adapter.

Read `_train` from top to bottom: data, base, frozen head, baselines, LoRA, what is saved.  Owns the order of things and
what is recorded of them; evaluating and verifying what was saved is for a fresh process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from jobs import (
    adapter,
    atomic,
    base_model,
    baselines,
    batches,
    data,
    head,
    inference,
    memory,
    probes,
    provenance,
    ranks,
    temperature,
    threshold,
)
from jobs import model as models
from jobs.checkpoint import Checkpoints
from jobs.empty_text import empty_text_logits, is_empty, without_empty
from jobs.errors import BrokenRun, DataError
from jobs.events import EventLog
from jobs.evidence import ROBUSTNESS, suite_of
from jobs.fitting import Encoded, fit
from jobs.log_line import in_words, say
from jobs.run_directory import RunDirectory
from jobs.spec import NO_GOAL, Spec
from jobs.submission import Submission
from jobs.submission import load as load_submission
from jobs.trackers import Trackers
from jobs.validation import scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE_TEXTS = 64
TEXTS_COMPARED = 200
LIBRARIES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "scikit-learn", "numpy")

LOSSES_KEPT = 200
ENCODED_AT_ONCE = 10_000
NOT_OF_THE_TRAINING = ("name", "price", "max_cost", "report_to", "secrets", "save_steps", "gpus")


def train(root: Path) -> None:
    """Train the run in the folder `root`: adapter, probes, baselines and figures are in its artifacts afterwards.

    Goes on from the newest checkpoint that is there.  Under torchrun every process calls this; the first one alone
    speaks and writes.  Raises DataError and JobError; nothing that failed leaves an adapter behind.
    """
    with ranks.joined() as among:
        _train(RunDirectory(root), among)


def _train(run: RunDirectory, among: ranks.Ranks) -> None:
    clock, submission = Clock(), load_submission(run.spec)
    spec, events = submission.spec, EventLog(run.events)
    tell = say if among.is_first else _silent
    torch.manual_seed(spec.seed)

    with clock.phase("data"):
        splits, empty = _without_empty(data.load_splits(run.root, submission))
        counts = {name: len(split) for name, split in splits.named().items()}
        if spec.threshold_goal != NO_GOAL and splits.positive_label is None:
            raise DataError(
                f"threshold_goal {spec.threshold_goal}: there are {len(splits.label_names)} labels, not two",
                hint="threshold_goal: none",
            )
        tell(f"data: {in_words(counts)} rows; labels {', '.join(splits.label_names)}")
        suite, skipped = suite_of(spec.robustness, splits.label_names, splits.positive_label, splits.test.texts)
        if skipped:
            tell(f"robustness: skipped, {skipped}")
        if empty:
            tell(f"{empty} empty texts are left out; such texts are answered by the shares of the classes")
        answer_to_empty = empty_text_logits(splits.train.label_ids, len(splits.label_names))  # (C,)

    with clock.phase("base"):
        base_folder = base_model.of_run(run, submission)
        made_of = _as_submitted(run, submission, base_folder) if among.is_first else {}
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
        where = f"{device.type} x {among.size}" if among.size > 1 else device.type
        tell(f"base: {spec.model_name_or_path}, {parameters:,} parameters, {_short(dtype)} on {where}")

    with clock.phase("tokens"):
        rows = {name: _encoded(tokenizer, split, spec) for name, split in splits.named().items()}
        texts = {name: splits.named()[name].texts for name in ("validation", "test")}
        if suite is not None:
            texts[ROBUSTNESS] = list(suite.texts)
            unlabelled = np.zeros(len(suite.texts), dtype=np.int64)
            rows[ROBUSTNESS] = _encoded(tokenizer, data.Split(texts[ROBUSTNESS], unlabelled), spec)
        lengths = rows["train"].lengths
        cut = float((lengths == spec.max_length).mean())
        tell(f"tokens: {lengths.sum():,} in train, {lengths.mean():.0f} a row, {cut:.1%} cut")
        if among.is_first:
            _compare_tokens(tokenizer, base_folder, splits.train.texts[:TEXTS_COMPARED], spec, events)

    checkpoints = Checkpoints(run.checkpoints, _identity(submission, run))
    found, problems = checkpoints.latest()
    for problem in problems:
        tell(f"warning: a damaged checkpoint is passed over: {problem}")

    if found is None:
        probe, start = _before_training(base, splits, rows, texts, spec, run, among, clock, tell)
    else:
        probe, start = None, found.state["start"]

    with clock.phase("training"):
        model = models.with_lora(base, spec)
        if probe is not None and spec.head_start == "probe":
            with torch.no_grad():
                models.head_of(model).weight.copy_(torch.from_numpy(probe))
        if found is None:
            start["initial"] = adapter.fingerprints(model)
        trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        tell(f"LoRA: rank {spec.lora_r}, {trainable:,} trainable parameters, head from a {spec.head_start} start")
        names = spec.report_to if among.is_first else ()
        trackers = Trackers(names, run.run_id, run.root, spec.to_json() | {"data": counts})
        try:
            fitted = fit(
                model,
                rows["train"],
                rows["validation"],
                spec,
                events,
                ranks=among,
                checkpoints=checkpoints,
                found=found,
                start=start,
                spent_s=max(0.0, time.time() - run.spec.stat().st_mtime),
                trackers=trackers,
            )
        finally:
            trackers.close()
    if not among.is_first:
        return

    with clock.phase("temperature"):
        held_out = rows["validation"]
        own_logits = inference.logits(  # (N, C)
            model, held_out.token_ids, tokens_per_batch=inference.budget(spec.tokens_per_batch, device)
        )
        temperatures = _temperatures(run, own_logits, held_out.label_ids)
        own = temperatures.get("lora")
        tell(f"temperature: {own.value:.3f}" if own else "temperature: too few validation rows to fit one")
        decision = _decision(spec, splits, own_logits, own, held_out.label_ids)
        if decision:
            tell(f"threshold: {decision['threshold']:.3f} for {spec.threshold_goal}, on validation")

    with clock.phase("saving"):
        id2label = dict(enumerate(splits.label_names))
        saved = adapter.fingerprints(model)  # of what is in memory, before anything can go wrong on a disk
        written = adapter.save(
            model,
            tokenizer,
            run.adapter,
            base_name=spec.model_name_or_path,
            revision=base_model.revision(run, submission),
            id2label=id2label,
            max_length=spec.max_length,
            prompt_template=spec.prompt_template,
            long_texts=spec.long_texts,
            empty_text_logits=answer_to_empty.tolist(),
            temperature=own.value if own else None,
            threshold=decision["threshold"] if decision else None,
            sha256={"data": made_of["data"], "base": made_of["base"]["files"]},
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
            long_texts=spec.long_texts,
        )

    best = fitted.best
    assert best is not None
    figures: dict[str, Any] = {
        "label_names": list(splits.label_names),
        "positive_label": splits.positive_label,
        "rows": counts,
        "rows_by_label": {name: _by_label(split, splits.label_names) for name, split in splits.named().items()},
        "provenance": made_of,
        "data_sha256": made_of["data"],
        "base": {
            "model_name_or_path": spec.model_name_or_path,
            "revision": base_model.revision(run, submission),
            "weights_sha256": {
                name: digest for name, digest in made_of["base"]["files"].items() if name.endswith(".safetensors")
            },
            "parameters": parameters,
        },
        "trainable_parameters": trainable,
        "steps": fitted.done,
        "steps_planned": fitted.steps,
        "stopped_early": fitted.stopped_early,
        "resumed_from": fitted.resumed_from,
        "epochs": spec.num_train_epochs,
        "rows_trained": fitted.rows,
        "losses": [{"step": step, "loss": loss} for step, loss in thinned(fitted.losses, LOSSES_KEPT)],
        "evaluations": [evaluation.to_json() for evaluation in fitted.evaluations],
        "best": best.to_json() | {"chosen_by": f"{spec.metric_for_best_model} of the averaged weights on validation"},
        "temperatures": {name: dataclasses.asdict(one) for name, one in temperatures.items()},
        "decision": decision,
        "baselines": start["baselines"],
        "head_start": start["head_start"],
        "seconds": start["seconds"] | clock.seconds | {"total": clock.total()},
        "rows_per_s": fitted.rows / fitted.seconds,
        "tokens_per_s": fitted.tokens / fitted.seconds,
        "tokens_per_batch": fitted.tokens_per_batch,
        "padded_to_real_tokens": fitted.padded_tokens / fitted.tokens,
        "calibration": fitted.calibration,
        "peak_memory_bytes": memory.peak_bytes(device),
        "initial": start["initial"],
        "saved": saved,
        "adapter_files": written,
        "seed": spec.seed,
        "gpus": among.size if device.type == "cuda" else 0,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": _short(dtype),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
    atomic.write_json(run.training, figures)
    shutil.rmtree(run.checkpoints, ignore_errors=True)  # the adapter is there: nothing is left to go on with
    say(f"trained in {clock.total():.0f} s; best weights from step {best.step}: {in_words(best.to_json())}")


def _as_submitted(run: RunDirectory, submission: Submission, base_folder: Path) -> dict[str, Any]:
    """What this run is really made of.  Raises BrokenRun unless that is what was submitted, to the byte."""
    made_of = provenance.of_run(run, submission, base_folder)
    if wrong := provenance.problems(submission, made_of, pinned=base_model.pinned_weights(run)):
        raise BrokenRun(
            f"{run.root}: not what was submitted: {'; '.join(wrong)}", hint="launch train: it is sent again then"
        )
    return made_of


def _without_empty(splits: data.Splits) -> tuple[data.Splits, int]:
    """Train and validation without texts that have nothing in them, and how many those were; test stays as it is.

    Raises DataError where nothing, or one class only, is left.
    """
    train, validation = without_empty(splits.train), without_empty(splits.validation)
    if len(validation) == 0 or len(np.unique(train.label_ids)) < len(splits.label_names):
        raise DataError("without empty texts a class, or all of validation, is gone", hint="launch check SPEC")
    left_out = len(splits.train) + len(splits.validation) - len(train) - len(validation)
    return dataclasses.replace(splits, train=train, validation=validation), left_out


def _before_training(
    base: PreTrainedModel,
    splits: data.Splits,
    rows: dict[str, Encoded],
    texts: dict[str, list[str]],
    spec: Spec,
    run: RunDirectory,
    among: ranks.Ranks,
    clock: Clock,
    tell: Callable[[str], None],
) -> tuple[NDArray[np.float32] | None, dict[str, Any]]:
    """Head (C, H) from a linear probe on the frozen base, and what is to be remembered of the start.

    The baselines are saved on the way: features do not change while the base is frozen, so they are computed once.
    """
    classes = len(splits.label_names)
    references: dict[str, baselines.Baseline] = {}
    weight: NDArray[np.float32] | None = None
    told: dict[str, Any] = {"from": spec.head_start}
    if spec.head_start == "probe" or "frozen" in spec.baselines:
        with clock.phase("frozen head"):
            some = _at_most(head.MAX_ROWS, len(rows["train"].token_ids), spec.seed)
            features = {
                name: _features(base, one, some if name == "train" else None, spec, among) for name, one in rows.items()
            }
            if among.is_first:
                probe = head.fit(
                    features["train"],
                    rows["train"].label_ids[some],
                    features["validation"],
                    rows["validation"].label_ids,
                    classes,
                )
                logits = {part: probe.logits(features[part]) for part in texts}
                for part, some_texts in texts.items():
                    logits[part][[is_empty(text) for text in some_texts]] = empty_text_logits(
                        splits.train.label_ids, classes
                    )
                references["frozen_head"] = baselines.Baseline(logits)
                weight, told = probe.weight, told | {"probe_strength": probe.strength, "probe_rows": len(some)}
                found = scores(references["frozen_head"].logits["validation"], rows["validation"].label_ids)
                tell(f"frozen head: validation {in_words(found)}")
            weight = among.from_first(weight, (classes, features["train"].shape[1]))

    if among.is_first:
        with clock.phase("other baselines"):
            if "majority" in spec.baselines:
                references["majority"] = baselines.majority(splits, texts)
            if "tfidf" in spec.baselines:
                references["tfidf"] = baselines.tfidf(splits, texts)
            if "frozen" not in spec.baselines:
                references.pop("frozen_head", None)
            for name, one in references.items():
                if one.skipped:
                    tell(f"{name}: skipped, {one.skipped}")
            baselines.save(references, run.artifacts / baselines.FILE)
    described = {name: _described(one, rows["validation"].label_ids) for name, one in references.items()}
    return weight, {"baselines": described, "head_start": told, "seconds": dict(clock.seconds)}


def _temperatures(
    run: RunDirectory, own_logits: NDArray[np.float32], label_ids: NDArray[np.int64]
) -> dict[str, temperature.Temperature]:
    """Of LoRA and of every baseline but the majority class, whose shares nothing sharpens; on validation only."""
    logits = {model: by_part["validation"] for model, by_part in baselines.load(run.baselines).items()}
    logits.pop("majority", None)
    fitted = {model: temperature.fit(some, label_ids) for model, some in (logits | {"lora": own_logits}).items()}
    return {model: one.temperature for model, one in fitted.items() if one.temperature is not None}


def _decision(
    spec: Spec,
    splits: data.Splits,
    own_logits: NDArray[np.float32],
    own: temperature.Temperature | None,
    label_ids: NDArray[np.int64],
) -> dict[str, Any] | None:
    """The threshold that the spec's goal asks for, of the positive label's probability after scaling."""
    if spec.threshold_goal == NO_GOAL:
        return None
    probability = temperature.probabilities(own_logits, own.value if own else None)[:, 1]  # (N,)
    chosen = threshold.choose(probability, label_ids == 1, threshold.parse(spec.threshold_goal))
    return {"goal": spec.threshold_goal, "threshold": chosen.value, "reached": chosen.reached,
            "validation": chosen.achieved}  # fmt: skip


def _features(
    base: PreTrainedModel, rows: Encoded, some: NDArray[np.int64] | None, spec: Spec, among: ranks.Ranks
) -> NDArray[np.float32]:
    """(N, H) of all rows or of `some`, each rank having worked out its share."""
    chosen = np.arange(len(rows.token_ids)) if some is None else some
    budget = inference.budget(spec.tokens_per_batch, models.head_of(base).weight.device)

    def answer(places: NDArray[np.int64]) -> NDArray[np.float32]:
        token_ids = [rows.token_ids[row] for row in chosen[places]]
        return inference.pooled_features(base, token_ids, tokens_per_batch=budget)

    return among.rows(len(chosen), answer)


def _encoded(tokenizer: PreTrainedTokenizerBase, split: data.Split, spec: Spec) -> Encoded:
    chunks = (split.texts[start : start + ENCODED_AT_ONCE] for start in range(0, len(split), ENCODED_AT_ONCE))
    rows = (
        row
        for chunk in chunks
        for row in models.encode(tokenizer, chunk, spec.max_length, spec.prompt_template, spec.long_texts)
    )
    return Encoded(batches.Tokens(rows), split.label_ids)


def _compare_tokens(
    tokenizer: PreTrainedTokenizerBase, base_folder: Path, texts: list[str], spec: Spec, events: EventLog
) -> None:
    """Warn where transformers has replaced part of the base's tokenizer."""
    if strange := models.cut_otherwise(tokenizer, base_folder, texts, spec.max_length):
        warning = f"{strange} of {len(texts)} texts get other tokens than the base's own tokenizer.json gives them"
        events.write("warning", message=warning)
        say(f"warning: {warning}; transformers has replaced its normalisation or splitting")


def _identity(submission: Submission, run: RunDirectory) -> str:
    """Of what is trained on what: a checkpoint of another training is of no use."""
    spec = {key: value for key, value in submission.spec.to_json().items() if key not in NOT_OF_THE_TRAINING}
    parts = [
        spec,
        {name: entry.sha256 for name, entry in submission.inputs.items()},
        [entry.sha256 for entry in submission.base_files],
        base_model.revision(run, submission),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _silent(line: str) -> None:
    """What the first rank says is enough."""


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
