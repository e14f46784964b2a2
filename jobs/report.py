"""report.html: one page that a person can read and trust; no network, light and dark, printable, English or Chinese.

Puts the sections together; what each says stands in the `report_*` modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import atomic, chart_svg, plots, report_curves
from jobs.chart import Chart
from jobs.predictions import Predictions
from jobs.report_calibration import calibration_section, risk_figure
from jobs.report_charts import precision_recall, roc
from jobs.report_curves import Curves
from jobs.report_errors import errors_section
from jobs.report_html import Html, Section, Words, figure, plain, section, text
from jobs.report_legend import legend
from jobs.report_models import comparison_section, confusion_figure, decision_section, metrics_section
from jobs.report_overview import head, in_plain_words
from jobs.report_page import page
from jobs.report_robustness import robustness_section
from jobs.report_run import facts_section, training_section
from jobs.report_verification import verification_section
from jobs.wording import Lang, main_model, number, reason


def write_report(
    path: Path,
    summary: dict[str, Any],
    predictions: Predictions,
    *,
    facts: Mapping[str, Any],
    verification: dict[str, Any] | None,
    training: dict[str, Any] | None,
    lang: Lang = "en",
    plots_folder: Path | None = None,
) -> None:
    """Write the page, and its plots as PNG into `plots_folder`; the same arguments give the same page.

    summary: of these predictions, as docs/evaluation.md describes it.  facts: {part: {name: value}} about the run, and
    {name: value} for what belongs to no part.  verification: `checks.Verdict.to_json()`, None where the adapter was
    not verified.  training: {losses: [{step, loss}], evaluations: [{step, loss}]}, None where unknown.  Raises OSError.
    """
    words, curves = Words(lang), report_curves.count(summary, predictions)
    sections = [
        in_plain_words(summary, verification, words),
        metrics_section(summary, words),
        _curves(summary, curves, words),
        calibration_section(summary, words),
        decision_section(summary, words),
        comparison_section(summary, words),
        robustness_section(summary, words),
        errors_section(summary, predictions, words),
        training_section(training, words),
        verification_section(verification, words),
        facts_section(facts, words),
    ]
    shown = [one for one in sections if one is not None]
    title = Html(f"{plain(summary['run_id'], 80)} · {words('evaluation', '评估')}")
    source = page(title, head(summary, verification, words), shown, words)
    atomic.write_text(path, source)
    if plots_folder is not None:
        plots.write(plots_folder, summary, curves, training)


def _curves(summary: dict[str, Any], curves: Curves, words: Words) -> Section:
    """What the models do at every threshold, and what LoRA does at its own."""
    macro = (
        ""
        if summary["positive_label"]
        else words(" Each label against the rest, averaged.", "逐个标签对其余标签，再取平均。")
    )
    roc_words = words("Number: area under the curve; dashed: guessing.", "数字为曲线下面积；虚线为乱猜。")
    pr_words = words("Number: average precision; dashed: guessing.", "数字为平均精确率；虚线为乱猜。")
    figures = [
        _curve(
            roc(summary, curves, words),
            words("ROC curve", "ROC 曲线"),
            "auc_roc",
            roc_words + macro,
            summary,
            words,
        ),
        _curve(
            precision_recall(summary, curves, words),
            words("Precision and recall", "精确率与召回率"),
            "auc_pr",
            pr_words + macro,
            summary,
            words,
        ),
        confusion_figure(summary, words),
        risk_figure(summary, words),
    ]
    return section(
        "curves", words("Curves and confusion", "曲线与混淆矩阵"), f'<div class="plots">{"".join(figures)}</div>'
    )


def _curve(chart: Chart | None, title: str, metric: str, caption: str, summary: dict[str, Any], words: Words) -> Html:
    if chart is None:
        why = main_model(summary)["metrics"]["undefined"].get(metric, number(None))
        return figure(title, "", words("There is none: {why}.", "没有曲线：{why}。", why=text(reason(why, words.lang))))
    return figure(title, legend(chart) + chart_svg.draw(chart), caption)
