"""The report's tables of figures: all models beside one another, LoRA against each, labels, and the decision."""

from __future__ import annotations

from typing import Any

from jobs import wording
from jobs.report_html import (
    Html,
    Section,
    Words,
    cell,
    column,
    figure,
    folded,
    foreign,
    heading,
    paragraph,
    row_head,
    section,
    table,
    text,
)
from jobs.wording import METRICS, main_model, number

MAX_MATRIX_CLASSES = 12
MAX_CLASSES = 200
_BY_LABEL = (
    "accuracy", "balanced_accuracy", "precision", "recall", "f1", "specificity", "mcc", "auc_roc", "auc_pr",
    "predicted_positive_rate",
)  # fmt: skip
_OF_PROBABILITIES = ("ece", "nll", "brier")
_OF_ORDER = ("aurc", "coverage_at_1_risk")
"""Of the order of the rows by confidence, which a temperature hardly touches: as the model is used."""
_OF_TWO_LABELS = ("specificity", "predicted_positive_rate")


def metrics_section(summary: dict[str, Any], words: Words) -> Section:
    """One row a metric, one column a model."""
    models = summary["models"]
    binary = summary["positive_label"] is not None
    header = [column(words("Metric", "指标"))]
    header += [column(words.model(model), f"n of-{model['key']}") for model in models]
    rows = [_metric_row(models, "", name, words) for name in _BY_LABEL if binary or name not in _OF_TWO_LABELS]
    scaled = any(model["metrics"]["scaled"] for model in models)
    for name in _OF_PROBABILITIES:
        rows.append(_metric_row(models, "raw", name, words, scaled))
        if scaled:
            rows.append(_metric_row(models, "scaled", name, words, scaled))
    rows += [_metric_row(models, "used", name, words) for name in _OF_ORDER]
    return section(
        "metrics",
        words("Metrics", "指标"),
        table("metrics stack", header, rows),
        paragraph(_notes(summary, words), "small"),
        _labels(summary, words),
    )


def comparison_section(summary: dict[str, Any], words: Words) -> Section:
    """LoRA against every other model on the same rows."""
    title = words("LoRA against the others", "LoRA 与其他模型的比较")
    if not summary["comparisons"]:
        alone = words("There is nothing to compare: one model was evaluated.", "无可比较：只评估了一个模型。")
        return section("comparison", title, paragraph(alone))
    names = [
        words("Right alone", "仅它判对"),
        words("Wrong alone", "仅它判错"),
        words("Accuracy, points", "准确率差（百分点）"),
        words("McNemar p", "McNemar p"),
        "AUC-ROC",
        "ECE",
        words("Robustness", "稳健性"),
        words("Verdict", "结论"),
    ]
    header = [column(words("LoRA against", "LoRA 对比")), *(column(name, "n") for name in names)]
    rows = [
        [row_head(words.model({"key": one["against"], "title": one["title"]})), *_compared(one, names, words)]
        for one in summary["comparisons"]
    ]
    sentences = "".join(
        f"<li>{words.sentence(wording.comparison_sentence(one, words.lang))}</li>" for one in summary["comparisons"]
    )
    notes = words(
        "Differences are LoRA minus the other, with 95 % intervals; of the ECE less is better. Right alone and wrong "
        "alone count the rows on which the two disagree; the exact McNemar test asks how likely so uneven a split "
        "is, were both equally good.",
        "差值为 LoRA 减去另一方，附 95% 区间；ECE 越小越好。“仅它判对”与“仅它判错”统计两者判断不一致的行；McNemar "
        "精确检验给出：若两者同样好，出现如此不均的可能性有多大。",
    )
    return section(
        "comparison",
        title,
        f'<ul class="findings">{sentences}</ul>',
        table("comparison stack", header, rows),
        paragraph(notes, "small"),
    )


def confusion_figure(summary: dict[str, Any], words: Words) -> Html:
    """A table, not a drawing: it can be read aloud, and holds labels in any script."""
    title = words("Confusion matrix", "混淆矩阵")
    names, main = summary["label_names"], main_model(summary)
    if len(names) > MAX_MATRIX_CLASSES:
        many = words(
            "{count} labels are too many to draw; metrics.json has the numbers.",
            "{count} 个标签太多，无法画出；数字见 metrics.json。",
            count=len(names),
        )
        return figure(title, "", many)
    corner = words("true\u00a0↓ said\u00a0→", "真实\u00a0↓ 判断\u00a0→")
    header = [Html(f'<td class="corner">{corner}</td>')]
    header += [column(foreign(name, 24)) for name in names]
    rows = []
    for name, counts in zip(names, main["metrics"]["confusion"], strict=True):
        total = sum(counts)
        rows.append(
            [row_head(foreign(name, 24)), *(_heat(count, count / total if total else 0.0, words) for count in counts)]
        )
    caption = words(
        "{model}. Rows counted, and their share of the true label.",
        "{model}。行数，以及占该真实标签的比例。",
        model=words.model(main),
    )
    return figure(title, table("confusion", header, rows), caption)


def decision_section(summary: dict[str, Any], words: Words) -> Section | None:
    """The threshold that was chosen on the validation split, and what it does on both; None without one."""
    decision = summary["decision"]
    if decision is None:
        return None
    positive = Html(f"“{foreign(summary['positive_label'], 60)}”")
    said = words(
        "Goal: {goal}. A row is {label} where P({label}) is at least {threshold}. {reached}",
        "目标：{goal}。当 P({label}) 不低于 {threshold} 时判为{label}。{reached}",
        goal=text(decision["goal"], 80),
        label=positive,
        threshold=number(decision["threshold"]),
        reached=words("It was reached on the validation split.", "在验证集上已达到。")
        if decision["reached"]
        else words(
            "It was not reached on the validation split: this is the best there was.",
            "在验证集上未能达到：这是最好的结果。",
        ),
    )
    names = (words("Validation", "验证集"), words("Test", "测试集"))
    figures = [decision["validation"] or {}, decision["test"] or {}]
    rows = [
        [row_head(words.sentence(METRICS[name].name(words.lang)))]
        + [
            cell(_written(name, one.get(name), words), column_name, "n")
            for one, column_name in zip(figures, names, strict=True)
        ]
        for name in METRICS
        if any(name in one for one in figures)
    ]
    header = [column(words("At this threshold", "在此阈值下")), *(column(name, "n") for name in names)]
    notes = words(
        "The threshold was chosen on the validation split only, so the test figures are honest. The ring in the ROC "
        "and precision-recall plots is this point; everywhere else in this report the label with the largest "
        "probability counts.",
        "阈值只在验证集上选定，因此测试集数字可信。ROC 与精确率-召回率图中的圆环即为此点；"
        "报告其余部分都以概率最大的标签为准。",
    )
    return section(
        "decision",
        words("Decision threshold", "判定阈值"),
        paragraph(said),
        table("decision stack", header, rows),
        paragraph(notes, "small"),
    )


def _metric_row(models: list[dict[str, Any]], block: str, name: str, words: Words, both: bool = False) -> list[str]:
    """block: `raw` or `scaled` probabilities, `used` for those that a model is used with, empty for what needs none.

    both: there is a row for each of the two, of which the first explains the metric.
    """
    metric = METRICS[name]
    title, means = words.sentence(metric.name(words.lang)), words.sentence(metric.means(words.lang))
    shown = f'{title}<span class="means">{means}</span>'
    if both and block == "raw":
        shown = f'{title}{words(", raw", "（原始）")}<span class="means">{means}</span>'
    elif both:
        shown = f"{title}{words(', scaled', '（校准后）')}"
    return [row_head(shown), *(_metric_cell(model, block, name, words) for model in models)]


def _metric_cell(model: dict[str, Any], block: str, name: str, words: Words) -> Html:
    figures = model["metrics"]
    if block == "used":
        block = "scaled" if figures["scaled"] else "raw"
    value = (figures[block] or {}).get(name) if block else figures[name]
    interval = figures["intervals"].get(f"{block}.{name}" if block else name)
    between = f'<span class="interval">{words.span(interval, METRICS[name].share)}</span>' if interval else ""
    return cell(_written(name, value, words) + between, words.model(model), f"n of-{model['key']}")


def _written(name: str, value: float | None, words: Words) -> str:
    return words.percent(value) if METRICS[name].share else number(value)


def _notes(summary: dict[str, Any], words: Words) -> Html:
    positive = summary["positive_label"]
    if positive is None:
        speaks = words(
            "Precision, recall, F1 and the areas are averaged over the labels (macro).",
            "精确率、召回率、F1 与各面积为各标签的宏平均。",
        )
    else:
        speaks = words(
            "Precision, recall, F1 and the areas are of the label {label}.",
            "精确率、召回率、F1 与各面积针对标签{label}。",
            label=Html(f"“{foreign(positive, 60)}”"),
        )
    intervals = words(" Small figures: 95 % intervals.", "小字为 95% 区间。")
    return Html(speaks + intervals + _undefined(summary, words))


def _undefined(summary: dict[str, Any], words: Words) -> str:
    """Why there are dashes in the table, if there are."""
    binary, models = summary["positive_label"] is not None, dict[tuple[str, str], list[str]]()
    for model in summary["models"]:
        for name, reason in model["metrics"]["undefined"].items():
            if name in METRICS and (binary or name not in _OF_TWO_LABELS):
                models.setdefault((name, reason), []).append(words.model(model))
    reasons = [
        words(
            "{metric} of {models}: {reason}",
            "{models}的{metric}：{reason}",
            metric=wording.spaced(METRICS[name].name(words.lang), words.lang),
            models=Html(words(", ", "、").join(titles)),
            reason=wording.reason(reason, words.lang),
        )
        for (name, reason), titles in models.items()
    ]
    if not reasons:
        return ""
    return words(" A dash has no value. {why}.", "横线表示没有值。{why}。", why=Html(words("; ", "；").join(reasons)))


def _labels(summary: dict[str, Any], words: Words) -> str:
    """Label by label, and the averages over them, of the main model."""
    main = main_model(summary)
    names = {
        "support": words("Rows", "行数"),
        "predicted": words("Said", "判为"),
        **{name: METRICS[name].name(words.lang) for name in ("precision", "recall", "f1", "specificity")},
    }
    rows = [
        [row_head(foreign(one["label"], 80)), *(cell(number(one.get(key)), name, "n") for key, name in names.items())]
        for one in main["metrics"]["per_class"][:MAX_CLASSES]
    ]
    averages = {
        "macro": words("Macro average", "宏平均"),
        "micro": words("Micro average", "微平均"),
        "weighted": words("Weighted average", "加权平均"),
    }
    for key, title in averages.items():
        figures = main["metrics"]["averages"].get(key) or {}
        rows.append(
            [
                row_head(title),
                *(
                    cell(number(figures.get(name)) if name in figures else "", title_, "n")
                    for name, title_ in names.items()
                ),
            ]
        )
    header = [column(words("Label", "标签")), *(column(name, "n") for name in names.values())]
    shown = table("labels stack", header, rows)
    title = words("Label by label", "各标签明细")
    if summary["positive_label"] is None:
        return heading(title) + shown
    return folded(title, shown)


def _compared(one: dict[str, Any], names: list[str], words: Words) -> list[Html]:
    low, high = one["difference_interval"]
    points = _signed(100 * one["accuracy_difference"], 1) + _interval(100 * low, 100 * high, 1)
    p = wording.p_value(one["mcnemar_p"]).removeprefix("p = ").removeprefix("p ")
    values = [f"{one['wins']:,}", f"{one['losses']:,}", points, text(p)]
    for key, digits in (("auc_roc", 3), ("ece", 3), ("robustness", 1)):
        values.append(_difference((one["differences"] or {}).get(key), digits))
    values.append(text(wording.term(one["verdict"], words.lang)))
    return [cell(value, name, "n") for value, name in zip(values, names, strict=True)]


def _difference(found: dict[str, Any] | None, digits: int) -> str:
    if not found or found["difference"] is None:
        return wording.NONE
    if not found["interval"]:
        return _signed(found["difference"], digits)
    low, high = found["interval"]
    return _signed(found["difference"], digits) + _interval(low, high, digits)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def _interval(low: float, high: float, digits: int) -> str:
    return f'<span class="interval">{_signed(low, digits)} … {_signed(high, digits)}</span>'


def _heat(count: int, share: float, words: Words) -> str:
    return f'<td style="--heat: {0.55 * share:.3f}"><b>{count:,}</b><span>{words.percent(share)}</span></td>'
