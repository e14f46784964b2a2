"""The report's charts, made of an evaluation's document and, where a curve has to be counted, of its logits.

Gives `chart.Chart`; draws nothing.  A chart that the figures do not allow is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from jobs import metrics, wording
from jobs.chart import Axis, Boxes, Caption, Chart, Dots, Floats, Layer, Line, Panel, Ranges, ticks
from jobs.predictions import Predictions
from jobs.report_html import Words
from jobs.wording import main_model, number

SQUARE = 0.86
FLAT = 0.62
_UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)
_GRID = np.linspace(0, 1, 201)

Curve = tuple[Floats, Floats]
Counted = Callable[[npt.NDArray[np.bool_], npt.NDArray[Any]], Curve]


def roc(summary: dict[str, Any], predictions: Predictions, words: Words) -> Chart | None:
    """ROC curves of all models that have one; the mean of the labels' for more than two."""
    title = words.plain("ROC curve", "ROC 曲线")
    axes = (
        Axis(0, 1, _UNIT, words.plain("False positive rate", "假正例率")),
        Axis(0, 1, _UNIT, words.plain("True positive rate", "真正例率")),
    )
    test = (summary.get("decision") or {}).get("test") or {}
    specificity, recall = test.get("specificity"), test.get("recall")
    at = None if specificity is None or recall is None else (1 - specificity, recall)
    guide = Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "guide")
    return _curves("roc", title, "auc_roc", summary, predictions, words, _roc_points, axes, at, (guide,))


def precision_recall(summary: dict[str, Any], predictions: Predictions, words: Words) -> Chart | None:
    """Precision over recall of all models that have it; the mean of the labels' for more than two."""
    title = words.plain("Precision and recall", "精确率与召回率")
    axes = (
        Axis(0, 1, _UNIT, words.plain("Recall", "召回率")),
        Axis(0, 1, _UNIT, words.plain("Precision", "精确率")),
    )
    test = (summary.get("decision") or {}).get("test") or {}
    recall, precision = test.get("recall"), test.get("precision")
    at = None if recall is None or precision is None else (recall, precision)
    # Who guesses is right as often as the label occurs.
    guide: tuple[Layer, ...] = ()
    if summary["positive_label"] is not None:
        share = float(np.mean(predictions.truth == predictions.label_names.index(summary["positive_label"])))
        guide = (Line(np.array([0.0, 1.0]), np.array([share, share]), "guide"),)
    return _curves("pr", title, "auc_pr", summary, predictions, words, _pr_points, axes, at, guide)


def reliability(block: dict[str, Any], classes: int, words: Words, name: str, title: str) -> Chart:
    """Accuracy against confidence of a probability block, and below it the share of rows in each bin.

    The top one of `classes` labels can't have less than 1 / classes, so the axis begins at the bin of that.
    """
    filled = [one for one in block["reliability"] if one["count"]]
    rows = sum(one["count"] for one in filled)
    start = next((one["low"] for one in block["reliability"] if one["high"] > 1 / classes), 0.0)
    low, high, confidence, accuracy, count = (
        np.array([one[key] for one in filled], np.float64) for key in ("low", "high", "confidence", "accuracy", "count")
    )
    across = Axis(start, 1, ticks(start, 1, 5), words.plain("Confidence (%)", "置信度（%）"), percent=True)
    up = Axis(0, 1, _UNIT, words.plain("Right (%)", "判对（%）"), percent=True)
    share = count / rows
    top = float(share.max())
    below = Axis(0, top, (0.0, float(f"{top:.2g}")), words.plain("Rows (%)", "行（%）"), percent=True)
    nothing = np.zeros(len(filled))
    upper: tuple[Layer, ...] = (
        Boxes(low, nothing, high, accuracy, "lora"),
        Line(np.array([start, 1.0]), np.array([start, 1.0]), "guide"),
        Line(confidence, accuracy, "lora"),
        Dots(confidence, accuracy, "lora"),
    )
    ece = number(block["ece"])
    says = words.plain("Accuracy against confidence; ECE {ece}", "准确率对置信度；ECE {ece}", ece=ece)
    return Chart(
        name,
        title,
        says,
        (Panel(across, up, upper, 0.6), Panel(across, below, (Boxes(low, nothing, high, share, "lora"),), 0.13)),
    )


def risk_coverage(summary: dict[str, Any], words: Words) -> Chart | None:
    """Errors among the rows that are answered, over the share of rows that are, the most confident first."""
    curves = {model["key"]: block(model)["risk_coverage"] for model in _lora_last(summary["models"])}
    curves = {key: np.array(points, np.float64) for key, points in curves.items() if points}
    if not curves:
        return None
    # Always the same answer is no confidence worth a curve; it would only squeeze the others.
    top = max(float(points[:, 1].max()) for key, points in curves.items() if key != "majority" or len(curves) == 1)
    top = max(0.02, 1.05 * top)
    layers: list[Layer] = [Line(np.array([0.0, 1.0]), np.array([0.01, 0.01]), "guide")]
    layers += [
        Line(points[:, 0], np.minimum(points[:, 1], top), key)
        for key, points in curves.items()
        if key != "majority" or len(curves) == 1
    ]
    main = main_model(summary)
    if covered := block(main)["coverage_at_1_risk"]:
        layers.append(Dots(np.array([covered]), np.array([0.01]), main["key"], hollow=True))
    panel = Panel(
        Axis(0, 1, _UNIT, words.plain("Rows answered (%)", "作答的行（%）"), percent=True),
        Axis(0, top, ticks(0, top, 4), words.plain("Wrong among them (%)", "其中判错（%）"), percent=True),
        tuple(layers),
        FLAT,
    )
    title = words.plain("Risk and coverage", "风险与覆盖率")
    shown = [model for model in summary["models"] if model["key"] != "majority" and model["key"] in curves]
    return Chart("risk_coverage", title, title, (panel,), _legend(shown, words, lambda m: number(block(m)["aurc"])))


def robustness(document: dict[str, Any], words: Words) -> Chart | None:
    """Pass rates of the main model as bars with intervals, of the others as dots, category by category."""
    models = document.get("models") or []
    if not models:
        return None
    main = next((model for model in models if model["key"] == "lora"), models[0])
    categories = main["categories"]
    places = {one["category"]: float(len(categories) - 1 - row) for row, one in enumerate(categories)}
    layers: list[Layer] = [Caption(0, place + 0.62, wording.term(name, words.lang)) for name, place in places.items()]
    own = [one for one in categories if one["rate"] is not None]
    heights = np.array([places[one["category"]] for one in own], np.float64)
    rates = np.array([one["rate"] for one in own], np.float64)
    layers.append(Boxes(np.zeros(len(own)), heights + 0.12, rates, heights + 0.48, main["key"]))
    spans = [one for one in own if one["interval"]]
    layers.append(
        Ranges(
            np.array([one["interval"][0] for one in spans], np.float64),
            np.array([one["interval"][1] for one in spans], np.float64),
            np.array([places[one["category"]] + 0.3 for one in spans], np.float64),
            main["key"],
        )
    )
    for model in models:
        if model is not main:
            found = [one for one in model["categories"] if one["rate"] is not None and one["category"] in places]
            x = np.array([one["rate"] for one in found], np.float64)
            y = np.array([places[one["category"]] + 0.3 for one in found], np.float64)
            layers.append(Dots(x, y, model["key"]))
    panel = Panel(
        Axis(0, 1, _UNIT, words.plain("Passed (%)", "通过（%）"), percent=True),
        Axis(0, len(categories), ()),
        tuple(layers),
        0.1 * len(categories),
    )
    title = words.plain("Robustness by category", "各类别的稳健性")
    return Chart("robustness", title, title, (panel,), _legend(models, words, _score))


def loss(points: list[tuple[float, float]], validation: list[tuple[float, float]], words: Words) -> Chart | None:
    """The training loss by step, its running mean, and the looks at the validation split."""
    if not points and not validation:
        return None
    steps, losses = (np.array(values, np.float64) for values in (zip(*points, strict=True) if points else ((), ())))
    seen_at, seen = (
        np.array(values, np.float64) for values in (zip(*validation, strict=True) if validation else ((), ()))
    )
    every = np.concatenate([losses, seen])
    first, last = (
        float(edge) for edge in (np.concatenate([steps, seen_at]).min(), np.concatenate([steps, seen_at]).max())
    )
    low, high = min(0.0, float(every.min())), max(0.0, float(every.max())) * 1.04 or 1.0
    layers: list[Layer] = []
    if points:
        layers += [Line(steps, losses, "lora", faint=True), Line(steps, _running_mean(losses), "lora")]
    if len(points) == 1:
        layers.append(Dots(steps, losses, "lora"))
    if validation:
        layers += [Line(seen_at, seen, "tfidf", faint=True), Dots(seen_at, seen, "tfidf")]
    panel = Panel(
        Axis(first, last if last > first else first + 1, ticks(first, last, 5), words.plain("Step", "步数")),
        Axis(low, high, ticks(low, high, 4), words.plain("Loss", "损失")),
        tuple(layers),
        FLAT,
    )
    legend = (
        [("lora", words.plain("Training, running mean", "训练（滑动平均）"), f"{losses[-1]:.3g}")] if points else []
    )
    if validation:
        legend.append(("tfidf", words.plain("Validation", "验证"), f"{seen[-1]:.3g}"))
    title = words.plain("Training loss", "训练损失")
    return Chart("loss", title, title, (panel,), tuple(legend))


def block(model: dict[str, Any]) -> dict[str, Any]:
    """The probabilities a model is used with: after the temperature where it has one."""
    found: dict[str, Any] = model["metrics"]["scaled"] or model["metrics"]["raw"]
    return found


def _curves(
    name: str,
    title: str,
    metric: str,
    summary: dict[str, Any],
    predictions: Predictions,
    words: Words,
    points: Counted,
    axes: tuple[Axis, Axis],
    at: tuple[float, float] | None,
    guide: tuple[Layer, ...],
) -> Chart | None:
    shown = [model for model in summary["models"] if model["metrics"][metric] is not None]
    if not shown:
        return None
    lines = tuple(
        Line(*_curve(predictions, model["key"], summary["positive_label"], points), model["key"])
        for model in _lora_last(shown)
    )
    main = main_model(summary)["key"]
    chosen = (Dots(np.array([at[0]]), np.array([at[1]]), main, hollow=True),) if at else ()
    legend = _legend(shown, words, lambda model: number(model["metrics"][metric]))
    areas = ", ".join(f"{model} {figure}" for _, model, figure in legend)
    says = words.plain("{title}; area below: {areas}", "{title}；曲线下面积：{areas}", title=title, areas=areas)
    return Chart(name, title, says, (Panel(*axes, guide + lines + chosen, SQUARE),), legend)


def _curve(predictions: Predictions, key: str, positive: str | None, points: Counted) -> Curve:
    """One model's curve; for more than two labels the mean of theirs, at 201 places along x."""
    odds, names = metrics.log_odds(predictions.logits[key]), predictions.label_names
    if positive is not None:
        index = names.index(positive)
        return points(predictions.truth == index, odds[:, index])
    present = [c for c in range(len(names)) if 0 < np.count_nonzero(predictions.truth == c) < predictions.rows]
    curves = [points(predictions.truth == c, odds[:, c]) for c in present]
    mean = np.mean([np.interp(_GRID, *curve) for curve in curves], axis=0)
    # Several points lie at 0: the first of them is where the curves begin.
    start = np.mean([curve[1][0] for curve in curves])
    return np.concatenate([[0.0], _GRID]), np.concatenate([[start], mean])


def _roc_points(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any]) -> Curve:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1); rows of both kinds are needed."""
    true, all_said = _counted(positive, score)
    total = true[-1]
    return (
        np.concatenate([[0.0], (all_said - true) / (len(positive) - total)]),
        np.concatenate([[0.0], true / total]),
    )


def _pr_points(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any]) -> Curve:
    """Recall and precision at every threshold, recall rising to 1; rows of the positive kind are needed."""
    true, all_said = _counted(positive, score)
    # Before the first positive row there is no recall that a precision could belong to.
    true, all_said = true[true > 0], all_said[true > 0]
    precision = true / all_said
    return np.concatenate([[0.0], true / true[-1]]), np.concatenate([precision[:1], precision])


def _counted(positive: npt.NDArray[np.bool_], score: npt.NDArray[Any]) -> Curve:
    """Positive rows, and all rows, that score at least as much as each different score, the largest first."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last_of_equals = np.append(ordered[1:] != ordered[:-1], True)
    true = np.cumsum(positive[order], dtype=np.float64)
    return true[last_of_equals], np.arange(1.0, len(score) + 1)[last_of_equals]


def _running_mean(values: Floats) -> Floats:
    """Mean over a centred window of a tenth of the values, shorter at the ends; as long as `values`."""
    reach = len(values) // 20
    totals = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - reach, 0), np.minimum(places + reach + 1, len(values))
    return np.asarray((totals[high] - totals[low]) / (high - low))


def _legend(
    models: list[dict[str, Any]], words: Words, figure: Callable[[dict[str, Any]], str]
) -> tuple[tuple[str, str, str], ...]:
    """The main model first, as it lies on top."""
    return tuple(
        (model["key"], wording.model_title(model["key"], model["title"], words.lang), figure(model))
        for model in reversed(_lora_last(models))
    )


def _score(model: dict[str, Any]) -> str:
    return "–" if model["score"] is None else f"{model['score']:.1f}"


def _lora_last(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(models, key=lambda model: model["key"] == "lora")
