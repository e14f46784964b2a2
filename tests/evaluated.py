"""Documents as docs/evaluation.md describes them, made of logits by simple code: for tests of who reads them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jobs.predictions import MODEL_TITLES, Predictions

TESTS = ("minimum functionality", "invariance", "direction", "calm")
CATEGORIES = (
    "short positive", "short negative", "irony", "stacked negation", "internet slang", "typos", "mixed long",
    "ultra-long", "emoji", "empty and symbols", "traditional and simplified", "width", "punctuation loss",
)  # fmt: skip


def evaluated(
    predictions: Predictions,
    *,
    temperature: float | None = 1.6,
    positive: int = 1,
    goal: str | None = "precision>=0.9",
    robustness: dict[str, Any] | None = None,
    warnings: tuple[dict[str, Any], ...] = (),
    run_id: str = "reviews-k3x7q2mh",
    rows_in_all: int | None = None,
) -> dict[str, Any]:
    """A document of schema 2; `robustness` is made up where it is not given."""
    names = list(predictions.label_names)
    binary = len(names) == 2
    keys = [key for key in MODEL_TITLES if key in predictions.logits]
    return {
        "schema": 2,
        "run_id": run_id,
        "source": "inferred here",
        "rows": predictions.rows,
        "rows_in_all": rows_in_all or predictions.rows,
        "label_names": names,
        "class_counts": {name: int((predictions.truth == c).sum()) for c, name in enumerate(names)},
        "positive_label": names[positive] if binary else None,
        "averaging": "positive class" if binary else "macro",
        "temperature": temperature and {"value": temperature, "rows": 800, "nll_before": 0.41, "nll_after": 0.37},
        "decision": _decision(predictions, positive, goal) if binary and goal else None,
        "models": [
            {"key": key, "title": MODEL_TITLES[key], "metrics": figures(predictions, key, positive, temperature)}
            for key in keys
        ],
        "comparisons": [_comparison(predictions, key) for key in keys if key != "lora" and "lora" in keys],
        "robustness": robustness if robustness is not None else made_up_robustness(keys, names),
        "errors": errors(predictions),
        "headline": [],
        "warnings": list(warnings),
    }


def figures(predictions: Predictions, key: str, positive: int, temperature: float | None) -> dict[str, Any]:
    """`models[].metrics` of one model."""
    truth, logits, names = predictions.truth, predictions.logits[key], predictions.label_names
    said, classes = predictions.predicted(key), len(names)
    per_class = [_of_class(names[c], truth == c, said == c) for c in range(classes)]
    binary = classes == 2
    main: dict[str, Any] = per_class[positive] if binary else _macro(per_class)
    present = [c for c in range(classes) if 0 < (truth == c).sum() < len(truth)]
    asked = [positive] if binary else range(classes)
    areas = {"auc_roc": None, "auc_pr": None}
    if set(asked) <= set(present):
        odds = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True) - np.exp(logits) + 1e-30)
        areas["auc_roc"] = float(np.mean([_area(truth == c, odds[:, c]) for c in asked]))
        areas["auc_pr"] = float(np.mean([_average_precision(truth == c, odds[:, c]) for c in asked]))
    right = truth == said
    low, high = _wilson(int(right.sum()), len(right))
    recalls = [one["recall"] for one in per_class if one["recall"] is not None]
    found = {name: main[name] for name in ("precision", "recall", "f1")} | areas
    found["mcc"] = None if len(set(said)) == 1 or len(set(truth)) == 1 else float(np.corrcoef(truth, said)[0, 1])
    reasons = {
        "auc_roc": "all rows are of one class" if binary else "a class has no rows, or all of them",
        "auc_pr": "all rows are of one class" if binary else "a class has no rows, or all of them",
        "mcc": "one class was predicted for every row",
        "precision": "no row was predicted to be of this class",
        "recall": "no row is of this class",
        "f1": "no row is, or was predicted to be, of this class",
    }
    raw = probability_block(truth, logits, positive, 1.0)
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        **found,
        "specificity": per_class[1 - positive]["recall"] if binary else None,
        "predicted_positive_rate": float((said == positive).mean()) if binary else None,
        "predicted_counts": {names[c]: int((said == c).sum()) for c in range(classes)},
        "averages": {name: {"precision": 0.8, "recall": 0.8, "f1": 0.8} for name in ("macro", "micro", "weighted")},
        "per_class": per_class,
        "confusion": [[int(((truth == a) & (said == b)).sum()) for b in range(classes)] for a in range(classes)],
        "raw": raw,
        "scaled": probability_block(truth, logits, positive, temperature) if temperature and key == "lora" else None,
        "intervals": {"accuracy": [low, high]}
        | {name: value and [value - 0.02, min(1.0, value + 0.02)] for name, value in found.items()}
        | {"raw.ece": [raw["ece"], raw["ece"] + 0.02], "raw.nll": None},
        "resamples": 1000,
        "undefined": {name: reasons[name] for name, value in found.items() if value is None},
    }


def probability_block(truth: np.ndarray, logits: np.ndarray, positive: int, temperature: float) -> dict[str, Any]:
    shifted = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    p = shifted / shifted.sum(axis=1, keepdims=True)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    bins = _bins(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    risk = np.cumsum(~right[order]) / np.arange(1, len(truth) + 1)
    coverage = np.arange(1, len(truth) + 1) / len(truth)
    kept = np.unique(np.linspace(0, len(truth) - 1, 200).astype(int))
    allowed = coverage[risk <= 0.01]
    binary = p.shape[1] == 2
    ece = _ece(bins, len(truth))
    own = p[:, positive]
    return {
        "ece": ece,
        "ece_equal_mass": ece * 0.95,
        "ece_class": _ece(_bins(own, truth == positive), len(truth)),
        "ece_artifact": _ece(_bins(own, right), len(truth)) if binary else None,
        "brier": float(((p - np.eye(p.shape[1])[truth]) ** 2).sum(axis=1).mean()) / (2 if binary else 1),
        "nll": float(-np.log(np.maximum(p[np.arange(len(truth)), truth], 1e-12)).mean()),
        "aurc": float(risk.mean()),
        "coverage_at_1_risk": float(allowed.max()) if len(allowed) else 0.0,
        "floor": {"mean": 0.35 / math.sqrt(len(truth)), "p95": 0.6 / math.sqrt(len(truth)), "simulations": 2000},
        "reliability": bins,
        "risk_coverage": [[float(coverage[i]), float(risk[i])] for i in kept],
    }


def made_up_robustness(keys: list[str], labels: list[str], cases: int = 100) -> dict[str, Any]:
    """A suite's results with every kind of test, and failures of every kind."""
    draw = np.random.default_rng(3)
    models = []
    for key in keys:
        level = {"majority": 0.5, "frozen_head": 0.7, "tfidf": 0.72, "lora": 0.82}[key]
        categories = []
        for number, name in enumerate(CATEGORIES):
            passed = int(np.clip(draw.normal(level, 0.12), 0, 1) * cases)
            low, high = _wilson(passed, cases)
            kind = TESTS[number % 4]
            categories.append({"category": name, "test": kind, "cases": cases, "passed": passed,
                               "rate": passed / cases, "interval": [low, high]})  # fmt: skip
        score = 100 * float(np.mean([one["rate"] for one in categories]))
        models.append({"key": key, "title": MODEL_TITLES[key], "score": score,
                       "interval": [score - 2.1, score + 2.1], "categories": categories})  # fmt: skip
    failures = [
        _failure("irony-7", "irony", TESTS[0], "服务真“好”，等了两个小时才上菜。", None, labels[0], None),
        _failure(
            "typos-12",
            "typos",
            TESTS[1],
            "房间很干争，服务员态度也很好",
            "房间很干净，服务员态度也很好",
            labels[1],
            -0.31,
        ),
        _failure("negation-3", "stacked negation", TESTS[2], "这家店不值得再来", "这家店值得再来", labels[0], 0.12),
        _failure("empty-1", "empty and symbols", TESTS[3], "", None, "a confidence below 0.9", None),
    ]
    return {
        "suite": "chinese-reviews",
        "sha256": "ab" * 32,
        "cases": cases * len(CATEGORIES),
        "answers": {"positive": labels[1], "negative": labels[0]},
        "models": models,
        "failures": failures * 6,
    }


def errors(predictions: Predictions, overlap: bool = True) -> dict[str, Any]:
    """The errors of the main model, with groups by every kind."""
    logits = predictions.logits[predictions.main]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    said, truth, names = predictions.predicted(predictions.main), predictions.truth, predictions.label_names
    wrong = np.flatnonzero(said != truth)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:500]
    groups = []
    for by, kinds in {
        "length": ("1-15", "16-50", "51-150"),
        "category": ("negation", "contrast", "emoji"),
        "label": names,
        "near duplicate": ("none", "same label", "other label"),
    }.items():
        for number, name in enumerate(kinds):
            rows = max(1, predictions.rows // (number + 2))
            bad = min(rows, len(wrong) // (number + 2))
            groups.append({"by": by, "name": name, "rows": rows, "wrong": bad, "confident": bad // 3,
                           "error_rate": bad / rows, "interval": list(_wilson(bad, rows))})  # fmt: skip
    rows_ = [
        {
            "row": int(row),
            "label": names[truth[row]],
            "said": names[said[row]],
            "confidence": float(confidence[row]),
            "groups": ["16-50", "negation"] if place % 3 else ["1-15", "emoji"],
            "likely_wrong_label": place % 5 == 0,
            "why": "every other model says the same" if place % 5 == 0 else None,
            "near_duplicate": {"text": predictions.texts[row] + "！", "label": names[said[row]]}
            if place % 7 == 0
            else None,
        }
        for place, row in enumerate(order.tolist())
    ]
    return {
        "confidence_from": 0.9,
        "wrong": len(wrong),
        "confident": int((confidence[wrong] >= 0.9).sum()),
        "likely_wrong_labels": sum(row["likely_wrong_label"] for row in rows_),
        "groups": groups,
        "rows": rows_,
    }


def _failure(name, category, test, text, original, expected, change):
    return {"id": name, "category": category, "test": test, "text": text, "original": original,
            "expected": f"the answer “{expected}”", "said": "好评", "confidence": 0.93, "change": change}  # fmt: skip


def _of_class(name: str, is_it: np.ndarray, said: np.ndarray) -> dict[str, Any]:
    hits = int((is_it & said).sum())
    return {
        "label": name,
        "support": int(is_it.sum()),
        "predicted": int(said.sum()),
        "precision": hits / int(said.sum()) if said.any() else None,
        "recall": hits / int(is_it.sum()) if is_it.any() else None,
        "f1": 2 * hits / int(said.sum() + is_it.sum()) if said.any() or is_it.any() else None,
        "specificity": float((~said[~is_it]).mean()) if (~is_it).any() else None,
    }


def _macro(per_class: list[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for name in ("precision", "recall", "f1"):
        values = [one[name] for one in per_class]
        found[name] = None if None in values else float(np.mean(values))
    return found


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    found = []
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = (confidence > low) & (confidence <= high)
        some = bool(inside.any())
        found.append(
            {
                "low": low,
                "high": high,
                "count": int(inside.sum()),
                "confidence": float(confidence[inside].mean()) if some else None,
                "accuracy": float(right[inside].mean()) if some else None,
            }
        )
    return found


def _ece(bins: list[dict[str, Any]], rows: int) -> float:
    return sum(one["count"] * abs(one["accuracy"] - one["confidence"]) for one in bins if one["count"]) / rows


def _area(positive: np.ndarray, score: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1
    count = int(positive.sum())
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * (len(score) - count)))


def _average_precision(positive: np.ndarray, score: np.ndarray) -> float:
    ordered = positive[np.argsort(-score, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1))[ordered].mean())


def _wilson(hits: int, rows: int) -> tuple[float, float]:
    share, spread = hits / rows, 1.96**2 / rows
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def _decision(predictions: Predictions, positive: int, goal: str) -> dict[str, Any]:
    logits = predictions.logits[predictions.main]
    p = 1 / (1 + np.exp(logits[:, 1 - positive] - logits[:, positive]))
    one = _of_class("", predictions.truth == positive, p >= 0.6)
    other = _of_class("", predictions.truth != positive, p < 0.6)
    at = {
        "accuracy": float(((p >= 0.6) == (predictions.truth == positive)).mean()),
        "balanced_accuracy": ((one["recall"] or 0) + (other["recall"] or 0)) / 2,
        **{name: one[name] for name in ("precision", "recall", "f1")},
        "specificity": other["recall"],
        "predicted_positive_rate": float((p >= 0.6).mean()),
    }
    return {"goal": goal, "threshold": 0.6, "reached": True, "validation": at | {"precision": 0.912}, "test": at}


def _comparison(predictions: Predictions, against: str) -> dict[str, Any]:
    right = predictions.predicted("lora") == predictions.truth
    other = predictions.predicted(against) == predictions.truth
    wins, losses = int((right & ~other).sum()), int((~right & other).sum())
    n, d = wins + losses, min(wins, losses)
    p = min(1.0, 2 * math.exp(math.log(max(1, math.comb(n, d))) - n * math.log(2))) if n else 1.0
    difference = (wins - losses) / predictions.rows
    verdict = "no clear difference" if p >= 0.05 else "better" if wins > losses else "worse"
    return {
        "model": "lora",
        "against": against,
        "title": MODEL_TITLES[against],
        "rows": predictions.rows,
        "wins": wins,
        "losses": losses,
        "both_right": int((right & other).sum()),
        "both_wrong": int((~right & ~other).sum()),
        "accuracy_difference": difference,
        "difference_interval": [difference - 0.02, difference + 0.02],
        "mcnemar_p": p,
        "verdict": verdict,
        "differences": {
            "auc_roc": {"difference": 0.021, "interval": [0.011, 0.032]},
            "ece": {"difference": -0.013, "interval": None},
            "robustness": None,
        },
        "sentence": "",
    }
