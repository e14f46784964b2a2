"""metrics.json: what the predictions of a run say, as one document of plain JSON values.

The same logits give the same document everywhere.  The sentences about the figures stand in `wording`.

    schema, run_id, source, rows, label_names, positive_label (null for more than two labels), averaging,
    class_counts {label: rows}, headline [sentence], models [{key, title, metrics}],
    comparisons [{model, against, title, wins, losses, accuracy_difference, difference_interval, mcnemar_p, verdict,
    sentence}],
    warnings [sentence]

A metric without a value is null, and `undefined` beside it says why.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jobs import metrics
from jobs.errors import BrokenRun, NoData
from jobs.metrics import Score
from jobs.predictions import MODEL_TITLES, Predictions
from jobs.wording import comparison_sentence, headline, warning_sentence

SCHEMA = 1
SOURCES = ("inferred on host", "inferred here", "recomputed from pulled logits")
ONE_CLASS_SHARE = 0.95
SIGNIFICANT = 0.05


def summarise(predictions: Predictions, *, positive_label: str, source: str, run_id: str) -> dict[str, Any]:
    """The metrics.json document.  Raises NoData for zero rows, BrokenRun where `positive_label` is no label.

    positive_label: the class that precision, recall, F1 and AUC speak of; ignored with more than two labels,
    where they are macro averages.  source: one of SOURCES.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
    if predictions.rows == 0:
        raise NoData("predictions: no rows", hint="the test split is empty: look at the spec's data files")
    names = predictions.label_names
    binary = len(names) == 2
    if binary and positive_label not in names:
        raise BrokenRun(f"predictions: the positive label {positive_label!r} is not one of {names!r}")
    positive = names.index(positive_label) if binary else None
    keys = [key for key in MODEL_TITLES if key in predictions.logits]
    document = {
        "schema": SCHEMA,
        "run_id": run_id,
        "source": source,
        "rows": predictions.rows,
        "label_names": list(names),
        "positive_label": positive_label if binary else None,
        "averaging": "positive class" if binary else "macro",
        "class_counts": {name: int((predictions.truth == c).sum()) for c, name in enumerate(names)},
        "models": [
            {"key": key, "title": MODEL_TITLES[key], "metrics": _metrics(predictions, key, positive)} for key in keys
        ],
        "comparisons": [_comparison(predictions, key) for key in keys if key != "lora" and "lora" in keys],
    }
    document["warnings"] = [sentence for key in keys for sentence in _one_class(predictions, key, positive)]
    document["headline"] = headline(document)
    plain: dict[str, Any] = _plain(document)
    return plain


def _metrics(predictions: Predictions, key: str, positive: int | None) -> dict[str, Any]:
    """Every metric of one model; `undefined` gives the reasons of those that are None."""
    truth, logits = predictions.truth, predictions.logits[key]
    predicted, classes = predictions.predicted(key), len(predictions.label_names)
    probabilities = metrics.softmax(logits)
    confidence, correct = probabilities.max(axis=1), predicted == truth
    scores = metrics.per_class(truth, predicted, classes)
    interval = list(metrics.wilson_interval(int(correct.sum()), len(truth)))
    named = _averaged(scores, positive) | {
        "auc_roc": _auc(predictions, key, positive),
        "mcc": metrics.matthews_correlation(truth, predicted),
    }
    return {
        "accuracy": metrics.accuracy(truth, predicted),
        "accuracy_interval": interval,
        "intervals": {"accuracy": interval},
        "balanced_accuracy": metrics.balanced_accuracy(scores),
        **{name: score.value for name, score in named.items()},
        "ece": metrics.expected_calibration_error(confidence, correct),
        "nll": metrics.negative_log_likelihood(truth, metrics.log_softmax(logits)),
        "brier": metrics.brier(truth, probabilities),
        "predicted_positive_rate": (None if positive is None else metrics.predicted_positive_rate(predicted, positive)),
        "predicted_counts": {name: scores[c].predicted for c, name in enumerate(predictions.label_names)},
        "confusion": metrics.confusion_matrix(truth, predicted, classes).tolist(),
        "per_class": [_class_figures(predictions.label_names[c], one) for c, one in enumerate(scores)],
        "reliability": [vars(one) for one in metrics.reliability_bins(confidence, correct)],
        "undefined": {name: score.reason for name, score in named.items() if score.value is None},
    }


def _averaged(scores: tuple[metrics.ClassScores, ...], positive: int | None) -> dict[str, Score]:
    """Precision, recall, F1 of the positive class (and specificity), or their macro averages."""
    if positive is None:
        return {name: metrics.macro(scores, name) for name in ("precision", "recall", "f1")}
    one, other = scores[positive], scores[1 - positive]
    return {"precision": one.precision, "recall": one.recall, "f1": one.f1, "specificity": other.recall}


def _auc(predictions: Predictions, key: str, positive: int | None) -> Score:
    odds = metrics.log_odds(predictions.logits[key])
    if positive is None:
        return metrics.auc_roc_macro(predictions.truth, odds)
    return metrics.auc_roc(predictions.truth == positive, odds[:, positive])


def _class_figures(name: str, one: metrics.ClassScores) -> dict[str, Any]:
    return {
        "label": name,
        "support": one.support,
        "precision": one.precision.value,
        "recall": one.recall.value,
        "f1": one.f1.value,
    }


def _comparison(predictions: Predictions, against: str) -> dict[str, Any]:
    """LoRA beside another model on the same rows."""
    right = predictions.predicted("lora") == predictions.truth
    other = predictions.predicted(against) == predictions.truth
    wins, losses = int((right & ~other).sum()), int((~right & other).sum())
    p = metrics.mcnemar_exact(wins, losses)
    verdict = "no clear difference" if p >= SIGNIFICANT else "better" if wins > losses else "worse"
    difference = (wins - losses) / predictions.rows
    interval = metrics.paired_difference_interval(wins, losses, predictions.rows)
    document = {
        "model": "lora",
        "against": against,
        "title": MODEL_TITLES[against],
        "wins": wins,
        "losses": losses,
        "accuracy_difference": difference,
        "difference_interval": list(interval),
        "mcnemar_p": p,
        "verdict": verdict,
    }
    return document | {"sentence": comparison_sentence(document)}


def _one_class(predictions: Predictions, key: str, positive: int | None) -> list[str]:
    """A warning if a model gives one answer to nearly all rows; the majority class does so by definition."""
    predicted, names = predictions.predicted(key), predictions.label_names
    shares = np.bincount(predicted, minlength=len(names)) / len(predicted)
    answer = int(shares.argmax())
    if key == "majority" or shares[answer] < ONE_CLASS_SHARE:
        return []
    scores = metrics.per_class(predictions.truth, predicted, len(names))
    warning = {
        "kind": "one_class",
        "model": key,
        "answer": names[answer],
        "share": float(shares[answer]),
        "inflated": "recall" if positive in (None, answer) else "specificity",
        "inflated_value": scores[answer].recall.value,
        "balanced_accuracy": metrics.balanced_accuracy(scores),
    }
    return [warning_sentence(warning)]


def _plain(value: Any) -> Any:
    """`value` with floats at ten digits: the last ones differ between processors, the document must not.

    What is smaller than 1e-12 (a rounding error, or a p that small) is 0.
    """
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.10g}") if abs(value) >= 1e-12 else 0.0
    return value
