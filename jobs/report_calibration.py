"""The report's words and pictures about confidence: is it as good as it says, and what is it good for."""

from __future__ import annotations

from typing import Any

from jobs import chart_svg
from jobs.report_charts import block, reliability, risk_coverage
from jobs.report_html import Html, Section, Words, cell, column, figure, heading, paragraph, row_head, section, table
from jobs.report_legend import legend
from jobs.wording import METRICS, main_model, number

_ERRORS = ("ece", "ece_equal_mass", "ece_class", "ece_artifact")


def calibration_section(summary: dict[str, Any], words: Words) -> Section:
    """Reliability before and after the temperature, and what the error is by each definition."""
    main = main_model(summary)["metrics"]
    figures = [_reliability(summary, "raw", words)]
    if main["scaled"]:
        figures.append(_reliability(summary, "scaled", words))
    return section(
        "calibration",
        words("Confidence", "置信度"),
        paragraph(_temperature(summary, words)),
        f'<div class="plots">{"".join(figures)}</div>',
        heading(words("Which ECE is this?", "这是哪一种 ECE？")),
        *_which_ece(summary, words),
    )


def risk_figure(summary: dict[str, Any], words: Words) -> Html:
    """How many errors there are among the rows that are answered, if the least confident ones are not."""
    chart = risk_coverage(summary, words)
    return figure(chart.title, legend(chart) + chart_svg.draw(chart), _risk_words(summary, words)) if chart else Html()


def _reliability(summary: dict[str, Any], key: str, words: Words) -> Html:
    found = main_model(summary)["metrics"][key]
    title = words.plain("Reliability, as the model says", "可靠性：模型原始输出")
    if key == "scaled":
        title = words.plain("Reliability, after the temperature", "可靠性：温度校准之后")
    chart = reliability(found, len(summary["label_names"]), words, f"reliability_{key}", title)
    floor = found["floor"]
    caption = words(
        "ECE {ece} (top label, 15 bins of equal width). A perfectly calibrated model would show {mean} on average "
        "here, and at most {p95} in 95 of 100 tests. On the dashed line it is right as often as it says; below it, "
        "too sure. Bottom: share of the rows.",
        "ECE {ece}（最大概率标签，15 个等宽分箱）。完美校准的模型在此平均也会有 {mean}，100 次中有 95 次不超过 {p95}。"
        "落在虚线上表示把握与事实相符；低于虚线表示过于自信。下方：各分箱的行数占比。",
        ece=number(found["ece"]),
        mean=number(floor["mean"]),
        p95=number(floor["p95"]),
    )
    return figure(chart.title, chart_svg.draw(chart), caption)


def _temperature(summary: dict[str, Any], words: Words) -> Html:
    found = summary["temperature"]
    if found is None or main_model(summary)["metrics"]["scaled"] is None:
        return words(
            "The adapter has no temperature: its confidences are used as they are.",
            "该适配器没有温度参数：置信度按原样使用。",
        )
    return words(
        "The logits are divided by a temperature of {value}, fitted on {rows} validation rows, where it took the NLL "
        "from {before} to {after}. It changes no answer, only how sure the model says it is.",
        "logits 除以温度 {value}；它在 {rows} 行验证数据上拟合，使 NLL 由 {before} 变为 {after}。温度不改变任何判断，"
        "只改变模型自称的把握。",
        value=f"{found['value']:.3g}",
        rows=number(found["rows"]),
        before=number(found["nll_before"]),
        after=number(found["nll_after"]),
    )


def _risk_words(summary: dict[str, Any], words: Words) -> Html:
    share = block(main_model(summary))["coverage_at_1_risk"]
    said = words(
        "Rows are answered from the most confident to the least. With at most 1 % errors (dashed) {share} of the "
        "rows can be answered. Number: area under the curve, lower is better.",
        "按置信度由高到低作答。错误不超过 1%（虚线）时，可回答 {share} 的行。数字为曲线下面积，越低越好。",
        share=words.percent(share),
    )
    if any(model["key"] == "majority" for model in summary["models"]) and len(summary["models"]) > 1:
        said = Html(
            said
            + words(
                " The majority class is left out: it is equally sure of everything.",
                "未画多数类：它对每一行的把握都相同。",
            )
        )
    return said


def _which_ece(summary: dict[str, Any], words: Words) -> list[Html]:
    """What is printed as ECE differs from place to place; here are all of them, and the one that is none."""
    main, binary = main_model(summary)["metrics"], summary["positive_label"] is not None
    blocks = {words("Raw", "原始"): main["raw"]} | (
        {words("Scaled", "校准后"): main["scaled"]} if main["scaled"] else {}
    )
    meanings = {
        "ece": words(
            "Top-label ECE. In 15 bins of equal width, how far the mean confidence lies from the share that is right, "
            "weighted by rows (Guo et al. 2017). This is the one that this report means by ECE.",
            "最大概率标签的 ECE：15 个等宽分箱内，平均置信度与判对比例之差，按行数加权（Guo 等，2017）。本报告所说的 "
            "ECE 即指此。",
        ),
        "ece_equal_mass": words(
            "The same with 15 bins of equally many rows: confident models put most rows into one bin of equal width, "
            "which hides what goes on inside.",
            "同上，但 15 个分箱的行数相等：自信的模型会把大多数行挤进同一个等宽分箱，掩盖其中的差异。",
        ),
        "ece_class": words(
            "P(positive label) against how often a row has that label. Some libraries print this one as binary ECE.",
            "P(正例) 与该标签真实频率之差。有些库把它当作二分类 ECE 输出。",
        )
        if binary
        else words(
            "Classwise ECE: for each label its probability against how often a row has it, averaged over the labels.",
            "逐类 ECE：对每个标签比较其概率与真实频率，再对所有标签取平均。",
        ),
        "ece_artifact": words(
            "P(positive label) against being right. Not a calibration error: a sure and right “negative” has "
            "P(positive) near 0 and is right near always, which this counts as an error of nearly 1. A perfectly "
            "calibrated model with half its rows positive gets about 0.5. It is computed here because others print it.",
            "P(正例) 与“是否判对”之差。这不是校准误差：一个又有把握又正确的“负例”，其 P(正例) 接近 0，"
            "却几乎总是对的，会被算作接近 1 的误差。正例占一半时，完美校准的模型也会得到约 0.5。列出它只因别处常见。",
        ),
    }
    rows = [
        [
            row_head(f'{words.sentence(METRICS[name].name(words.lang))}<span class="means">{meanings[name]}</span>'),
            *(cell(number(found[name]), title, "n") for title, found in blocks.items()),
        ]
        for name in _ERRORS
        if binary or name != "ece_artifact"
    ]
    floors = [
        [
            row_head(f'{title}<span class="means">{means}</span>'),
            *(cell(number(found["floor"][key]), name, "n") for name, found in blocks.items()),
        ]
        for key, title, means in (
            (
                "mean",
                words("Floor, mean", "下限：平均"),
                words(
                    "No test has an ECE of 0, as the rows are counted in bins. This is what perfectly calibrated "
                    "models with these confidences get on average.",
                    "行数有限，任何测试的 ECE 都不会是 0。这是具有同样置信度的完美校准模型平均得到的值。",
                ),
            ),
            (
                "p95",
                words("Floor, 95 %", "下限：95%"),
                words(
                    "Of {count} simulated ones 95 % stay below this: an ECE up to here is no evidence against the "
                    "model.",
                    "{count} 次模拟中 95% 低于此值：不超过它的 ECE 不足以说明模型校准不好。",
                    count=number(main["raw"]["floor"]["simulations"]),
                ),
            ),
        )
    ]
    header = [column(words("Definition", "定义")), *(column(title, "n") for title in blocks)]
    intro = words(
        "Numbers called ECE are often not comparable: they differ in what is binned and how. Here are all of them, "
        "of one model: {model}.",
        "都叫 ECE 的数字往往不可比：分箱的对象和方式各不相同。以下各值均来自同一个模型：{model}。",
        model=words.model(main_model(summary)),
    )
    return [paragraph(intro), table("definitions stack", header, [*rows, *floors])]
