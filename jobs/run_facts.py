"""What a report says of the run itself: what was asked for, of which data, made with what, for how much.

Everything but the spec is the host's word; whoever shows it escapes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jobs import run_checks
from jobs.run_directory import RunDirectory
from jobs.spec import Spec
from jobs.submission import Submission

# The spec's other keys at their defaults say nothing about this run.
ALWAYS = ("num_train_epochs", "learning_rate", "train_batch_size", "max_length", "lora_r", "lora_alpha", "seed")
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Spec)}

Facts = dict[str, dict[str, Any]]
"""Section -> name -> value."""


def of(run: RunDirectory, submission: Submission, evaluated_on: str, notes: Sequence[str]) -> Facts:
    """The facts of a run, section by section: run, spec, data, training, cost, versions."""
    told = run_checks.training(run)
    spec, split, base = submission.spec, submission.origin.split, _mapping(told.get("base"))
    seconds = _number(_mapping(told.get("seconds")).get("total"))
    facts: Facts = {
        "run": {
            "run": submission.run_id,
            "base model": spec.model_name_or_path,
            "revision": base.get("revision") or spec.model_revision,
            "parameters": base.get("parameters"),
            "trained parameters": told.get("trainable_parameters"),
            "evaluated on": evaluated_on,
            **{f"note {number}": note for number, note in enumerate(notes, 1)},
        },
        "spec": {
            name: value
            for name, value in spec.to_json().items()
            if name in ALWAYS or (name not in ("name", "data", "model_name_or_path") and value != _DEFAULTS.get(name))
        },
        "data": {
            **{f"{name} rows": count for name, count in _mapping(told.get("rows")).items()},
            **_files(submission),
            **{f"{name} sha256": entry.sha256 for name, entry in submission.inputs.items()},
            "split": ", ".join(str(one) if name == "how" else f"{name} {one}" for name, one in split.items()),
        },
        "training": {
            "steps": told.get("steps"),
            "best": _mapping(told.get("best")).get("step"),
            "chosen by": _mapping(told.get("best")).get("chosen_by"),
            "tokens a second": _whole(told.get("tokens_per_s")),
            "device": told.get("device"),
            "GPUs": told.get("gpus"),
            "number format": told.get("dtype"),
            "threads": told.get("threads"),
        },
        "cost": {
            "seconds": seconds,
            "price of an hour": spec.price or None,
            "cost": round(seconds / 3600 * spec.price, 2) if seconds and spec.price else None,
        },
        "versions": {"python": told.get("python"), **_mapping(told.get("libraries"))},
    }
    return {
        section: kept
        for section, named in facts.items()
        if (kept := {name: value for name, value in named.items() if value not in (None, "")})
    }


def _files(submission: Submission) -> dict[str, str]:
    """The person's own files, one name each; a part that came in several files has them numbered."""
    return {
        f"{part} file" if len(files) == 1 else f"{part} file {number}": file.path
        for part, files in submission.origin.files.items()
        for number, file in enumerate(files[:20], 1)
    }


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key)[:80]: one for key, one in list(value.items())[:200]} if isinstance(value, dict) else {}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else None


def _whole(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else round(number)
