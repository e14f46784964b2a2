"""The report's charts, made of an evaluation's document and of what `report_curves` counted from its logits.

Gives `chart.Chart`; draws nothing.  A chart that the figures do not allow is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from jobs import wording
from jobs.chart import Axis, Boxes, Caption, Chart, Dots, Floats, Layer, Line, Panel, Ranges, ticks
from jobs.report_curves import Curve, Curves
from jobs.report_html import Words
from jobs.wording import main_model, number

SQUARE = 0.86
FLAT = 0.62
MAX_CATEGORIES = 40
_UNIT = (0.0, 0.25, 0.5, 0.75, 1.0)


def roc(summary: dict[str, Any], curves: Curves, words: Words) -> Chart | None:
    """ROC curves of all models that have one."""
    axes = (
        Axis(0, 1, _UNIT, words.plain("False positive rate", "假正例率")),
        Axis(0, 1, _UNIT, words.plain("True positive rate", "真正例率")),
    )
    guessing = Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "guide")
    layers = (guessing, *_lines(curves.roc), *_decided(summary, "specificity", "recall"))
    title = words.plain("ROC curve", "ROC 曲线")
    return _curve_chart("roc", title, "auc_roc", summary, Panel(*axes, layers, SQUARE), words) if curves.roc else None


def precision_recall(summary: dict[str, Any], curves: Curves, words: Words) -> Chart | None:
    """Precision over recall of all models that have it."""
    axes = (
        Axis(0, 1, _UNIT, words.plain("Recall", "召回率")),
        Axis(0, 1, _UNIT, words.plain("Precision", "精确率")),
    )
    layers = (*_lines(curves.precision_recall), *_decided(summary, "recall", "precision"))
    if (share := curves.positive_share) is not None:
        # Who guesses is right as often as the label occurs.
        layers = (Line(np.array([0.0, 1.0]), np.array([share, share]), "guide"), *layers)
    if not curves.precision_recall:
        return None
    title = words.plain("Precision and recall", "精确率与召回率")
    return _curve_chart("pr", title, "auc_pr", summary, Panel(*axes, layers, SQUARE), words)


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
    # Always the same answer is no confidence worth a curve; it would only squeeze the others.
    others = [model for model in summary["models"] if model["key"] != "majority"]
    shown = [model for model in others or summary["models"] if block(model)["risk_coverage"]]
    if not shown:
        return None
    curves = {model["key"]: np.array(block(model)["risk_coverage"], np.float64) for model in shown}
    top = max(0.02, 1.05 * max(float(points[:, 1].max()) for points in curves.values()))
    layers: list[Layer] = [Line(np.array([0.0, 1.0]), np.array([0.01, 0.01]), "guide")]
    layers += _lines({key: (points[:, 0], points[:, 1]) for key, points in curves.items()})
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
    return Chart("risk_coverage", title, title, (panel,), _legend(shown, words, lambda m: number(block(m)["aurc"])))


def robustness(document: dict[str, Any], words: Words) -> Chart | None:
    """Pass rates of the main model as bars with intervals, of the others as dots, category by category."""
    models = document.get("models") or []
    if not models:
        return None
    main = next((model for model in models if model["key"] == "lora"), models[0])
    categories = main["categories"][:MAX_CATEGORIES]
    places = {_test(one): float(len(categories) - 1 - row) for row, one in enumerate(categories)}
    layers: list[Layer] = [
        Caption(0, place + 0.62, _caption(*test, [category for category, _ in places], words))
        for test, place in places.items()
    ]
    rates, at = _rates(main, places)
    layers.append(Boxes(np.zeros(len(rates)), at - 0.18, rates, at + 0.18, main["key"]))
    sure = [one for one in categories if one["interval"]]
    low, high = (np.array([one["interval"][end] for one in sure], np.float64) for end in (0, 1))
    layers.append(Ranges(low, high, np.array([places[_test(one)] + 0.3 for one in sure], np.float64), main["key"]))
    layers += [Dots(*_rates(model, places), model["key"]) for model in models if model is not main]
    panel = Panel(
        Axis(0, 1, _UNIT, words.plain("Passed (%)", "通过（%）"), percent=True),
        Axis(0, len(categories), ()),
        tuple(layers),
        0.1 * len(categories),
    )
    title = words.plain("Robustness by category", "各类别的稳健性")
    return Chart("robustness", title, title, (panel,), _legend(models, words, _score))


def _test(one: dict[str, Any]) -> tuple[str, str]:
    """What tells a category's row from the others: a category may be tested in several ways."""
    return one["category"], one["test"]


def _caption(category: str, test: str, categories: list[str], words: Words) -> str:
    """The category, with the kind of test where it has more than one."""
    name = wording.term(category, words.lang)
    return f"{name} / {wording.term(test, words.lang)}" if categories.count(category) > 1 else name


def _rates(model: dict[str, Any], places: dict[tuple[str, str], float]) -> tuple[Floats, Floats]:
    """Where there are pass rates, and the heights at which they are drawn."""
    found = [one for one in model["categories"] if one["rate"] is not None and _test(one) in places]
    heights = np.array([places[_test(one)] + 0.3 for one in found], np.float64)
    return np.array([one["rate"] for one in found], np.float64), heights


def loss(points: list[tuple[float, float]], validation: list[tuple[float, float]], words: Words) -> Chart | None:
    """The training loss by step, its running mean, and the looks at the validation split."""
    if not points and not validation:
        return None
    steps, losses = np.array(points, np.float64).reshape(-1, 2).T
    seen_at, seen = np.array(validation, np.float64).reshape(-1, 2).T
    every_step, every_loss = np.concatenate([steps, seen_at]), np.concatenate([losses, seen])
    first, last = float(every_step.min()), float(every_step.max())
    low, high = min(0.0, float(every_loss.min())), max(0.0, float(every_loss.max())) * 1.04 or 1.0
    layers: list[Layer] = []
    legend = []
    if points:
        mean = running_mean(losses)
        layers += [Line(steps, losses, "lora", faint=True), Line(steps, mean, "lora")]
        legend.append(("lora", words.plain("Training, running mean", "训练（滑动平均）"), f"{mean[-1]:.3g}"))
    if len(points) == 1:
        layers.append(Dots(steps, losses, "lora"))
    if validation:
        layers += [Line(seen_at, seen, "tfidf", faint=True), Dots(seen_at, seen, "tfidf")]
        legend.append(("tfidf", words.plain("Validation", "验证"), f"{seen[-1]:.3g}"))
    panel = Panel(
        Axis(first, last if last > first else first + 1, ticks(first, last, 5), words.plain("Step", "步数")),
        Axis(low, high, ticks(low, high, 4), words.plain("Loss", "损失")),
        tuple(layers),
        FLAT,
    )
    title = words.plain("Training loss", "训练损失")
    return Chart("loss", title, title, (panel,), tuple(legend))


def block(model: dict[str, Any]) -> dict[str, Any]:
    """The probabilities a model is used with: after the temperature where it has one."""
    found: dict[str, Any] = model["metrics"]["scaled"] or model["metrics"]["raw"]
    return found


def _curve_chart(name: str, title: str, metric: str, summary: dict[str, Any], panel: Panel, words: Words) -> Chart:
    shown = [model for model in summary["models"] if model["metrics"][metric] is not None]
    legend = _legend(shown, words, lambda model: number(model["metrics"][metric]))
    areas = ", ".join(f"{model} {figure}" for _, model, figure in legend)
    says = words.plain("{title}; area below: {areas}", "{title}；曲线下面积：{areas}", title=title, areas=areas)
    return Chart(name, title, says, (panel,), legend)


def _lines(curves: dict[str, Curve]) -> tuple[Layer, ...]:
    """LoRA's last, so that it lies on top."""
    return tuple(Line(*curves[key], key) for key in sorted(curves, key=lambda key: key == "lora"))


def _decided(summary: dict[str, Any], x: str, y: str) -> tuple[Layer, ...]:
    """What the threshold of the decision comes to on the test split; specificity counts from the right."""
    test = (summary["decision"] or {}).get("test") or {}
    if test.get(x) is None or test.get(y) is None:
        return ()
    across = 1 - test[x] if x == "specificity" else test[x]
    return (Dots(np.array([across]), np.array([test[y]]), main_model(summary)["key"], hollow=True),)


def running_mean(values: Floats) -> Floats:
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
