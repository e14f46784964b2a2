"""Static checks: what the adapter's file and configuration tell, with the base's shapes where they are at hand.

numpy and json only, so that they run everywhere and in under a second.  What can't be known is `not_checked`.
Names and numbers in a file are anybody's word: nothing is opened but safetensors and JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from jobs import adapter_contents, explanations
from jobs import static_fit as fit
from jobs import static_numbers as numbers
from jobs.base_tensors import BaseTensors
from jobs.checks import Check
from jobs.errors import AdapterRejected
from jobs.static_subject import Finding, Subject, Told

MOST_COMPARED = 5_000_000
"""Names and patterns of a configuration times tensors: some seconds.  An entry of rank_pattern for each linear layer of
a 70B model makes a million."""
QUESTIONS = (
    fit.alpha, fit.prefixes, fit.keys, fit.pairs, fit.modules, fit.shapes, fit.head, fit.classes, fit.base,
    numbers.finite, numbers.lora_a, numbers.lora_b, numbers.shards, numbers.copies, numbers.zero_tail,
    numbers.update_size, numbers.moved, numbers.saved,
)  # fmt: skip
"""Each is named as its check."""
OF_ANY_KIND = (fit.prefixes, numbers.finite, numbers.zero_tail)
"""What can be asked of an adapter that is no LoRA."""


def check_adapter(folder: Path, *, base: BaseTensors | None = None, told: Told | None = None) -> list[Check]:
    """Every static check of an adapter's folder, in a fixed order of ids.

    `told` says that the adapter comes from a run of this project, which always leaves fingerprints and
    `classifier.json`.  Never raises for what is in the folder.
    """
    found: dict[str, Finding] = {}
    try:
        contents, first = adapter_contents.read(folder, tasks=("SEQ_CLS",) if told else ())
        found |= first
        tensors = len(contents.arrays) + len(base.shapes if base else ())
        names = contents.lora.names if contents.lora else 0
        if tensors * names > MOST_COMPARED:
            detail = f"{names:,} names and patterns, to be compared with {tensors:,} tensors"
            raise adapter_contents.Unreadable("config", detail, first)
        named = base.named_like(contents.pairs) if base else None
        subject = Subject(contents, named, told)
        questions = QUESTIONS if contents.lora else OF_ANY_KIND
        found |= {question.__name__: _answer(question, subject) for question in questions}
    except adapter_contents.Unreadable as error:
        found |= error.found
    missing = "the checks before it failed" if _failed(found) else "no LoRA as it is known here"
    return [_check(name, found.get(name, ("not_checked", missing))) for name in explanations.STATIC]


def _answer(question: Callable[[Subject], Finding], subject: Subject) -> Finding:
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are one question's finding, and no other's
            return question(subject)
    except AdapterRejected as error:  # a pattern
        return "fail", error.message


def _failed(found: Mapping[str, Finding]) -> bool:
    return any(finding[0] == "fail" for finding in found.values())


def _check(name: str, finding: Finding) -> Check:
    status, detail, *rest = finding
    meaning, todo = ("", "") if status == "pass" else explanations.STATIC[name]
    if status == "not_checked":
        meaning, todo = "nothing is known about this", "name the base with --base" if "no base" in detail else ""
    return Check(name, status, detail, meaning, todo, required=rest[0] if rest else True)  # type: ignore[arg-type]
