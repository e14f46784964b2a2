"""The rows that a model got wrong: grouped, and told whether the label may be what is wrong.

Owns the rule for a likely wrong label; what is seen in a text stands in `text_traits`, the document's form in
docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import text_traits
from jobs.intervals import wilson_interval
from jobs.overlap import Overlap
from jobs.predictions import MODEL_TITLES, Predictions

CONFIDENT = 0.9
MOST_ROWS = 500
NOT_A_WITNESS = "majority"
"""It says the same of every row."""


@dataclass(frozen=True)
class _Answers:
    """Of N rows: the label each was given, what the model says, and how sure it is, in [0, 1] after scaling."""

    truth: NDArray[np.int64]
    said: NDArray[np.int64]
    probabilities: NDArray[np.float64]  # (N, C)
    confidence: NDArray[np.float64]
    wrong: NDArray[np.bool_]
    confidently_wrong: NDArray[np.bool_]


def errors(
    predictions: Predictions,
    temperature: float | None,
    overlap: Overlap | None,
    *,
    most_rows: int | None = MOST_ROWS,
) -> dict[str, Any]:
    """The `errors` of metrics.json, of the main model; None for `most_rows` lists every error.

    temperature: what logits are divided by before they are read as probabilities, None for 1.  overlap: of these very
    rows, None where it is not known; there are no groups by near duplicate then.  Raises NoData for zero rows.
    """
    answers = _answers(predictions, temperature)
    groups = _groups(predictions, overlap)
    suspects = _likely_wrong_labels(predictions, answers, overlap)
    order = np.lexsort((np.arange(predictions.rows), -answers.confidence))
    wrong = order[answers.wrong[order]]
    return {
        "confidence_from": CONFIDENT,
        "wrong": len(wrong),
        "confident": int(answers.confidently_wrong.sum()),
        "likely_wrong_labels": len(suspects),
        "groups": [
            _group(kind, name, members, answers)
            for kind, by_name in groups.items()
            for name, members in by_name.items()
            if members.any()
        ],
        "rows": [
            _row(int(row), predictions.label_names, answers, groups, suspects, overlap) for row in wrong[:most_rows]
        ],
    }


def _answers(predictions: Predictions, temperature: float | None) -> _Answers:
    said = predictions.predicted(predictions.main)
    probabilities = predictions.probabilities(predictions.main, temperature)
    # Ten digits, as in metrics.json: the last ones differ between processors, the order of the errors must not.
    confidence = probabilities.max(axis=1).round(10)
    wrong = said != predictions.truth
    return _Answers(predictions.truth, said, probabilities, confidence, wrong, wrong & (confidence >= CONFIDENT))


# --- Groups


def _groups(predictions: Predictions, overlap: Overlap | None) -> dict[str, text_traits.Members]:
    """Rows (N,) by kind and name of the group."""
    by_label = {name: predictions.truth == number for number, name in enumerate(predictions.label_names)}
    groups = {
        "length": text_traits.by_length(predictions.texts),
        "category": text_traits.by_trait(predictions.texts),
        "label": by_label,
    }
    return groups if overlap is None else groups | {"near duplicate": _by_twin(predictions, overlap)}


def _by_twin(predictions: Predictions, overlap: Overlap) -> text_traits.Members:
    has, same = np.zeros(predictions.rows, np.bool_), np.zeros(predictions.rows, np.bool_)
    for row, twin in overlap.twins.items():
        has[row], same[row] = True, twin.label == predictions.label_names[predictions.truth[row]]
    return {"none": ~has, "same label": has & same, "other label": has & ~same}


def _group(kind: str, name: str, members: NDArray[np.bool_], answers: _Answers) -> dict[str, Any]:
    rows, wrong = int(members.sum()), int((members & answers.wrong).sum())
    return {
        "by": kind,
        "name": name,
        "rows": rows,
        "wrong": wrong,
        "confident": int((members & answers.confidently_wrong).sum()),
        "error_rate": wrong / rows,
        "interval": list(wilson_interval(wrong, rows)),
    }


def _row(
    row: int,
    label_names: Sequence[str],
    answers: _Answers,
    groups: Mapping[str, text_traits.Members],
    suspects: Mapping[int, str],
    overlap: Overlap | None,
) -> dict[str, Any]:
    twin = overlap.twins.get(row) if overlap else None
    return {
        "row": row,
        "label": label_names[answers.truth[row]],
        "said": label_names[answers.said[row]],
        "confidence": float(answers.confidence[row]),
        "groups": [name for kind in ("length", "category") for name, members in groups[kind].items() if members[row]],
        "likely_wrong_label": row in suspects,
        "why": suspects.get(row),
        "near_duplicate": {"text": twin.text, "label": twin.label} if twin else None,
    }


# --- Labels that may be wrong


def _likely_wrong_labels(predictions: Predictions, answers: _Answers, overlap: Overlap | None) -> dict[int, str]:
    """Why a label is likely to be wrong, by row.

    Meant to be right where it speaks, not to find all.  The model must contradict the label with a confidence of
    CONFIDENT, and be as sure as it is on average of the rows that carry the label it says (confident learning).
    And somebody else must say the same: every other model at hand but the majority class, as sure by its own measure,
    or a training row that is nearly this one.

    Northcutt, Jiang, Chuang 2021, arXiv:1911.00068, eq. 1 and 2.
    """
    names = predictions.label_names
    suspected = answers.confidently_wrong & _is_sure(answers.probabilities, answers)
    others = [model for model in MODEL_TITLES if model in predictions.logits]
    others = [model for model in others if model not in (predictions.main, NOT_A_WITNESS)]
    agreeing = np.full(predictions.rows, bool(others))
    for model in others:
        says_the_same = predictions.predicted(model) == answers.said
        agreeing &= says_the_same & _is_sure(predictions.probabilities(model), answers)
    twins = overlap.twins if overlap else {}
    found = {}
    for row in np.flatnonzero(suspected).tolist():
        said = names[answers.said[row]]
        witnesses = [MODEL_TITLES[model] for model in others] if agreeing[row] else []
        if row in twins and twins[row].label == said:
            witnesses.append("a training row that is nearly the same")
        if witnesses:
            sure = f"the model says “{said}” with a confidence of {answers.confidence[row]:.2f}"
            found[row] = f"{sure}, and so {'do' if len(witnesses) > 1 else 'does'} {_listed(witnesses)}"
    return found


def _is_sure(probabilities: NDArray[np.float64], answers: _Answers) -> NDArray[np.bool_]:
    """(N,) whether what the main model says is as probable as it is on average where it is the given label.

    probabilities (N, C) of any model.  Never where no row carries that label.
    """
    rows, classes = probabilities.shape
    own = probabilities[np.arange(rows), answers.truth]
    counts = np.bincount(answers.truth, minlength=classes)
    sums = np.bincount(answers.truth, weights=own, minlength=classes)
    average = np.divide(sums, counts, out=np.full(classes, np.inf), where=counts > 0)  # (C,)
    return np.asarray(probabilities[np.arange(rows), answers.said] >= average[answers.said])


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
