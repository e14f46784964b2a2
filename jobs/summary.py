"""metrics.json: what the evidence of a run says, as one document of plain JSON values (docs/evaluation.md).

The same logits give the same document everywhere.  Owns which figures stand in it and which of them call for a
warning; how each is computed and how it is put into words stands in other modules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs import comparison, figures, mistakes, robustness, suite_labels, temperature, threshold, wording
from jobs.errors import BrokenRun, NoData
from jobs.evidence import SOURCES, Evidence
from jobs.predictions import MODEL_TITLES, Predictions
from jobs.score import Booleans

SCHEMA = 2
ONE_CLASS_SHARE = 0.95
FEW_ROWS = 200
"""With fewer the interval of an accuracy of 0.9 is wider than eight points."""


def summarise(evidence: Evidence, *, run_id: str) -> dict[str, Any]:
    """The metrics.json document.  Raises NoData for zero rows, BrokenRun where the parts do not fit together."""
    predictions, trained = evidence.predictions, evidence.trained
    if evidence.source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {evidence.source!r}")
    if predictions.rows == 0:
        raise NoData("predictions: no rows", hint="the test split is empty: look at the spec's data files")
    names, truth = predictions.label_names, predictions.truth
    if len(names) == 2 and trained.positive_label not in names:
        raise BrokenRun(f"predictions: the positive label {trained.positive_label!r} is not one of {names!r}")
    positive = names.index(trained.positive_label) if len(names) == 2 else None
    fitted = trained.temperatures.get(predictions.main)
    keys = [key for key in MODEL_TITLES if key in predictions.logits]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": run_id,
        "source": evidence.source,
        "rows": predictions.rows,
        "rows_in_all": evidence.rows_in_all,
        "label_names": list(names),
        "class_counts": {name: int((truth == c).sum()) for c, name in enumerate(names)},
        "positive_label": None if positive is None else names[positive],
        "averaging": "macro" if positive is None else "positive class",
        "temperature": dict(fitted) if fitted else None,
        "decision": _decision(evidence, positive),
        "models": [
            {
                "key": key,
                "title": MODEL_TITLES[key],
                "metrics": figures.figures(truth, predictions.logits[key], names, positive, trained.temperature(key)),
            }
            for key in keys
        ],
        "robustness": _robustness(evidence),
        "errors": mistakes.errors(predictions, trained.temperature(predictions.main), evidence.overlap),
    }
    passes = _passes(evidence)
    document["comparisons"] = [
        _comparison(evidence, key, positive, passes) for key in keys if "lora" in keys and key != "lora"
    ]
    document["warnings"] = _warnings(document, predictions, positive)
    document["headline"] = wording.headline(document, "en")
    plain: dict[str, Any] = _plain(document)
    return plain


def _decision(evidence: Evidence, positive: int | None) -> dict[str, Any] | None:
    """The threshold of the goal that was stated, and what it does on these rows."""
    trained, predictions = evidence.trained, evidence.predictions
    if trained.decision is None or positive is None:
        return None
    main = predictions.main
    probability = predictions.probabilities(main, trained.temperature(main))[:, positive]  # (N,)
    cut = float(trained.decision["threshold"])
    return dict(trained.decision) | {"test": threshold.figures_at(probability, predictions.truth == positive, cut)}


def _robustness(evidence: Evidence) -> dict[str, Any]:
    found = evidence.robustness
    if found.suite is None:
        return {"skipped": found.skipped}
    trained = evidence.trained
    return robustness.measure(
        found.suite,
        {key: found.logits[key] for key in MODEL_TITLES if key in found.logits},
        trained.label_names,
        suite_labels.answers(trained.label_names, trained.positive_label),
        {key: trained.temperature(key) for key in found.logits},
        MODEL_TITLES,
    )


def _passes(evidence: Evidence) -> dict[str, Booleans]:
    """(K,) which cases of the suite each model passes; none without a suite."""
    trained, found = evidence.trained, evidence.robustness
    if found.suite is None:
        return {}
    names, answers = trained.label_names, suite_labels.answers(trained.label_names, trained.positive_label)
    return {
        key: robustness.passed(found.suite, logits, names, answers, trained.temperature(key))
        for key, logits in found.logits.items()
    }


def _comparison(evidence: Evidence, against: str, positive: int | None, passes: dict[str, Booleans]) -> dict[str, Any]:
    """LoRA beside another model on the same rows."""
    trained, logits, found = evidence.trained, evidence.predictions.logits, evidence.robustness
    compared: dict[str, Any] = {"model": "lora", "against": against, "title": MODEL_TITLES[against]}
    compared |= comparison.compare(
        evidence.predictions.truth, logits["lora"], logits[against], positive,
        trained.temperature("lora"), trained.temperature(against),
    )  # fmt: skip
    if found.suite is not None and {"lora", against} <= passes.keys():
        compared["differences"]["robustness"] = robustness.difference(found.suite, passes["lora"], passes[against])
    return compared | {"sentence": wording.comparison_sentence(compared, "en")}


def _warnings(document: dict[str, Any], predictions: Predictions, positive: int | None) -> list[dict[str, Any]]:
    """What a reader could be misled by, with its figures and a sentence."""
    found: list[dict[str, Any]] = []
    if document["rows"] < document["rows_in_all"]:
        found.append({"kind": "limited", "rows": document["rows"], "rows_in_all": document["rows_in_all"]})
    if document["rows"] < FEW_ROWS:
        found.append({"kind": "few_rows", "rows": document["rows"]})
    found += [
        warning
        for model in document["models"]
        if model["key"] != "majority" and (warning := _one_class(model, predictions, positive))
    ]
    fitted = document["temperature"]
    if fitted and fitted["value"] in (temperature.LOWEST, temperature.HIGHEST):
        found.append({"kind": "temperature_at_bound", "value": fitted["value"]})
    main = next(model for model in document["models"] if model["key"] == predictions.main)
    block = main["metrics"]["scaled"] or main["metrics"]["raw"]
    if block["ece"] > block["floor"]["p95"]:
        found.append({"kind": "calibration_above_floor", "ece": block["ece"], "p95": block["floor"]["p95"]})
    return [warning | {"sentence": wording.warning_sentence(warning, "en")} for warning in found]


def _one_class(model: dict[str, Any], predictions: Predictions, positive: int | None) -> dict[str, Any] | None:
    """A model that gives one answer to nearly all rows, and the figure that looks good for that reason alone.

    None where all rows have one label: one answer is right there, and no other figure says more.
    """
    if len(np.unique(predictions.truth)) == 1:
        return None
    shares = np.bincount(predictions.predicted(model["key"]), minlength=len(predictions.label_names)) / predictions.rows
    answer = int(shares.argmax())
    if shares[answer] < ONE_CLASS_SHARE:
        return None
    inflated = "recall" if positive in (None, answer) else "specificity"
    return {
        "kind": "one_class",
        "model": model["key"],
        "answer": predictions.label_names[answer],
        "share": float(shares[answer]),
        "inflated": inflated,
        "inflated_value": model["metrics"]["per_class"][answer]["recall"],
        "balanced_accuracy": model["metrics"]["balanced_accuracy"],
    }


def _plain(value: Any) -> Any:
    """`value` with floats at ten digits: the last ones differ between processors, the document must not.

    What is smaller than 1e-12 (a rounding error, or a p that small) is 0.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") if abs(value) >= 1e-12 else 0.0
    return value
