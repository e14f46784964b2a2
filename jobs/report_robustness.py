"""The report's section on robustness: the suite's score, its categories, and the cases that failed.

Cases may come from a suite of one's own: texts, categories and expectations are foreign words here.
"""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import Any

from jobs import chart_svg, wording
from jobs.report_charts import robustness as robustness_chart
from jobs.report_html import (
    Html,
    Section,
    Words,
    cell,
    column,
    figure,
    fitting,
    folded,
    foreign,
    heading,
    paragraph,
    row_head,
    section,
    table,
    text,
)
from jobs.report_legend import legend
from jobs.wording import number

MAX_TEXT_CHARS = 400
MAX_FAILURES = 300
MAX_CATEGORIES = 200
MAX_BYTES = 260_000
MAX_COMPARED = 160
"""Characters that are compared one by one; comparing takes the square of that."""


def robustness_section(summary: dict[str, Any], words: Words) -> Section:
    """Score, chart, table and failures; or why there are none."""
    document, title = summary["robustness"], words("Robustness", "稳健性")
    if "skipped" in document:
        skipped = words(
            "The suite was not run: {why}.",
            "未运行测试套件：{why}。",
            why=foreign(wording.sentence(str(document["skipped"]), words.lang).rstrip("."), 400),
        )
        return section("robustness", title, paragraph(skipped))
    chart, main = robustness_chart(document, words), _main(document)
    drawing = ""
    if chart is not None and main is not None:
        note = words(
            "Bars: {model}, with 95 % intervals; marks: the others. Number: score.",
            "条形：{model}，附 95% 区间；标记：其他模型。数字为得分。",
            model=words.model(main),
        )
        drawing = figure(chart.title, legend(chart, dots=True) + chart_svg.draw(chart), note)
    return section(
        "robustness",
        title,
        paragraph(_score(document, words)),
        f'<div class="beside">{drawing}<div>{_categories(document, words)}</div></div>',
        _failures(document, words),
    )


def _score(document: dict[str, Any], words: Words) -> Html:
    main = _main(document)
    said: str = words(
        "{cases} cases of the suite {suite} in {categories} categories.",
        "测试套件 {suite} 共 {cases} 个用例，分 {categories} 类。",
        cases=number(document["cases"]),
        suite=foreign(document["suite"], 80),
        categories=len({one["category"] for one in main["categories"]}) if main else 0,
    )
    if main and main["score"] is not None:
        between = main["interval"]
        said += words(
            " {model}: {score} of 100{between}, the mean of the categories' pass rates.",
            "{model}得分 {score}（满分 100{between}）：各类通过率的平均。",
            model=words.model(main),
            score=Html(f"<strong>{main['score']:.1f}</strong>"),
            between=words(
                " (95 % interval {low} to {high})",
                "，95% 区间 {low} 到 {high}",
                low=f"{between[0]:.1f}",
                high=f"{between[1]:.1f}",
            )
            if between
            else "",
        )
    return Html(said)


def _main(document: dict[str, Any]) -> dict[str, Any] | None:
    models: list[dict[str, Any]] = document["models"]
    return next((model for model in models if model["key"] == "lora"), models[0] if models else None)


def _categories(document: dict[str, Any], words: Words) -> str:
    main = _main(document)
    if main is None:
        return ""
    names = (words("Test", "测试方式"), words("Passed", "通过"), words("Rate", "通过率"))
    header = [column(words("Category", "类别")), column(names[0]), column(names[1], "n"), column(names[2], "n")]
    rows = []
    for one in main["categories"][:MAX_CATEGORIES]:
        interval = f'<span class="interval">{words.span(one["interval"], share=True)}</span>' if one["interval"] else ""
        rows.append(
            [
                row_head(foreign(wording.term(one["category"], words.lang), 60)),
                cell(foreign(wording.term(one["test"], words.lang), 60), names[0]),
                cell(f"{one['passed']:,} / {one['cases']:,}", names[1], "n"),
                cell(words.percent(one["rate"]) + interval, names[2], "n"),
            ]
        )
    return table("categories stack", header, rows)


def _failures(document: dict[str, Any], words: Words) -> str:
    failures = document["failures"][:MAX_FAILURES]
    if not failures:
        return paragraph(words("Every case passed.", "所有用例都通过了。"))
    limit = fitting(
        (str(one[key] or "") for one in failures for key in ("text", "original", "expected")), MAX_TEXT_CHARS, MAX_BYTES
    )
    by_category: dict[str, list[dict[str, Any]]] = {}
    for one in failures:
        by_category.setdefault(one["category"], []).append(one)
    shown = "".join(
        folded(
            f'{foreign(wording.term(category, words.lang), 60)} <span class="count">{len(members)}</span>',
            _failure_table(members, limit, words),
        )
        for category, members in by_category.items()
    )
    main = _main(document)
    failed = sum(one["cases"] - one["passed"] for one in main["categories"]) if main else len(failures)
    listed = words(
        "{shown} of the {failed} cases that failed, the worst of each kind first. ",
        "共 {failed} 个用例未通过，列出 {shown} 个，各类中最严重的在前。",
        shown=len(failures),
        failed=number(failed),
    )
    note = words(
        "Where a text was changed for the test, what was taken out is struck through and what was put in is "
        "underlined.",
        "为测试而改动的文本：删去的部分带删除线，加入的部分带下划线。",
    )
    title = words("Failed cases", "未通过的用例")
    paper = words("On paper: the first 3 of each category.", "打印版每类只列前 3 个。")
    return f"{heading(title)}{paragraph(Html(listed + note), 'small')}{paragraph(paper, 'small on-paper')}{shown}"


def _failure_table(failures: list[dict[str, Any]], limit: int, words: Words) -> Html:
    names = (
        words("Expected", "期望"),
        words("Said", "判断"),
        words("Confidence", "置信度"),
        words("P moved by", "P 变化"),
    )
    header = [column(words("Text", "文本"), "wide"), *(column(name) for name in names)]
    rows = []
    for one in failures:
        moved = "" if one["change"] is None else f"{one['change']:+.2f}".replace("-", "−")
        rows.append(
            [
                cell(_change(one["original"], one["text"], limit, words), css="text"),
                cell(foreign(wording.sentence(one["expected"], words.lang), min(200, limit)), names[0]),
                cell(foreign(one["said"], 60), names[1]),
                cell(words.percent(one["confidence"]), names[2], "n"),
                cell(moved, names[3], "n"),
            ]
        )
    return table("failures stack", header, rows)


def _change(original: str | None, changed: str, limit: int, words: Words) -> Html:
    """The text, with what was done to the original marked in it."""
    if original is None:
        return (
            foreign(changed, limit) if changed else Html(f'<em class="small">{words("an empty text", "空文本")}</em>')
        )
    pieces = []
    for kind, old, new in changes(original[:limit], changed[:limit]):
        if kind == "equal":
            pieces.append(str(text(new)))
        else:
            pieces += [f"<del>{text(old)}</del>"] if old else []
            pieces += [f"<ins>{text(new)}</ins>"] if new else []
    cut = "…" if max(len(original), len(changed)) > limit else ""
    return Html(f"<bdi>{''.join(pieces)}{cut}</bdi>")


def changes(old: str, new: str) -> list[tuple[str, str, str]]:
    """(`equal` or another word, piece of `old`, piece of `new`) in order; the pieces together are `old` and `new`.

    What the two begin and end with is left out of the comparison, and a long middle is one change.
    """
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    rest = min(len(old), len(new)) - start
    end = next((i for i in range(rest) if old[-1 - i] != new[-1 - i]), rest)
    middle_old, middle_new = old[start : len(old) - end], new[start : len(new) - end]
    pieces = [("equal", old[:start], new[:start])] if start else []
    if max(len(middle_old), len(middle_new)) <= MAX_COMPARED:
        matcher = SequenceMatcher(None, middle_old, middle_new, autojunk=False)
        pieces += [(kind, middle_old[a:b], middle_new[c:d]) for kind, a, b, c, d in matcher.get_opcodes()]
    else:
        pieces.append(("replace", middle_old, middle_new))
    return pieces + ([("equal", old[len(old) - end :], new[len(new) - end :])] if end else [])
