"""The top of the report: what a reader who reads nothing else must know, and the same for who is no statistician."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jobs import wording
from jobs.report_charts import block
from jobs.report_html import Html, Section, Words, foreign, paragraph, plain, section, text
from jobs.report_verification import verdict
from jobs.wording import counted, main_model, number, short

WEAK = 0.75
MOST_BY_CHANCE = 0.1
"""Where chance alone gives a larger calibration error, a small one proves nothing."""
FEW_ROWS = 1000
MAX_LABELS = 12


def head(summary: dict[str, Any], verification: dict[str, Any] | None, words: Words) -> Html:
    """Title, headline, four figures, and what to be warned of."""
    # What more the headline says stands in the section that compares.
    lead, *others = wording.headline(summary, words.lang)[:2]
    status, word, detail = verdict(verification, words)
    unproven = words("The adapter: {word} ({detail}).", "适配器：{word}（{detail}）。", word=word, detail=detail)
    notes = "" if status == "pass" else paragraph(unproven, f"note {status}")
    for warning in summary["warnings"]:
        notes += paragraph(words.sentence(wording.warning_sentence(warning, words.lang)), "note warn")
    tested = words(
        "{tested} ({labels}); {source}.",
        "测试集 {rows} 行（{labels}）；{source}。",
        tested=counted(summary["rows"], "test row"),
        rows=number(summary["rows"]),
        labels=_labels(summary, words, counted=True),
        source=wording.term(summary["source"], words.lang),
    )
    findings = "".join(paragraph(words.sentence(sentence), "finding") for sentence in others)
    return Html(f"""<header>
<p class="kicker">{words("Evaluation of a LoRA classifier", "LoRA 分类器评估报告")}</p>
<h1>{plain(summary["run_id"], 80)}</h1>
<p class="lead">{words.sentence(lead)}</p>
{findings}
{_tiles(summary, verification, words)}
{notes}
{paragraph(tested, "small")}
</header>""")


def in_plain_words(summary: dict[str, Any], verification: dict[str, Any] | None, words: Words) -> Section:
    """Five questions that anybody has, answered from the figures."""
    answers = [
        (words("What does it do?", "它是做什么的？"), _task(summary, words)),
        (words("How good is it?", "它有多好？"), _quality(summary, words)),
        (words("Can its confidence be trusted?", "它的置信度可信吗？"), _trust(summary, words)),
        (words("Did LoRA help?", "LoRA 有帮助吗？"), _help(summary, words)),
        (words("What to look at next?", "接下来看什么？"), _next(summary, verification, words)),
    ]
    shown = "".join(f"<div><dt>{question}</dt><dd>{answer}</dd></div>" for question, answer in answers if answer)
    return section("plain", words("In plain words", "通俗地说"), f'<dl class="answers">{shown}</dl>')


def _tiles(summary: dict[str, Any], verification: dict[str, Any] | None, words: Words) -> str:
    """Four figures of the main model, with what they stand beside."""
    main = main_model(summary)
    figures, chosen = main["metrics"], block(main)
    status, word, detail = verdict(verification, words)
    majority = next((m for m in summary["models"] if m["key"] == "majority" and m is not main), None)
    interval = figures["intervals"].get("accuracy")
    between = (
        words(
            "95 %: {low} to {high}",
            "95% 区间：{low} 到 {high}",
            low=f"{100 * interval[0]:.1f}",
            high=words.percent(interval[1]),
        )
        if interval
        else ""
    )
    beside = (
        words("; majority class {share}", "；多数类 {share}", share=words.percent(majority["metrics"]["accuracy"]))
        if majority
        else ""
    )
    guessing = words("0.5 is guessing", "0.5 等于乱猜")
    undefined = figures["undefined"].get("auc_roc")
    floor = chosen["floor"]
    chance = words(
        "by chance alone {mean}, up to {p95}", "仅由偶然：平均 {mean}，最多 {p95}", mean=floor["mean"], p95=floor["p95"]
    )
    title = words("Calibration error", "校准误差")
    if figures["scaled"]:
        title = words("Calibration error, scaled", "校准误差（校准后）")
    tiles = [
        (words("Accuracy", "准确率"), words.percent(figures["accuracy"]), between + beside, ""),
        (
            "AUC-ROC",
            number(figures["auc_roc"]),
            text(wording.reason(undefined, words.lang)) if undefined else guessing,
            "",
        ),
        (title, number(chosen["ece"]), chance, ""),
        (words("Adapter", "适配器"), word, detail, status),
    ]
    shown = "".join(
        f'<div><dt>{name}</dt><dd class="figure {css}">{value}</dd><dd class="small">{note}</dd></div>'
        for name, value, note, css in tiles
    )
    return f'<dl class="tiles">{shown}</dl>'


def _labels(summary: dict[str, Any], words: Words, counted: bool = False) -> Html:
    counts = list(summary["class_counts"].items())
    shown = [
        f"{foreign(name, 60)}&nbsp;{count:,}" if counted else foreign(name, 60) for name, count in counts[:MAX_LABELS]
    ]
    return Html(words(", ", "、").join([*shown, "…"] if len(counts) > MAX_LABELS else shown))


def _task(summary: dict[str, Any], words: Words) -> Html:
    return words(
        "It reads a text and gives it one of {count} labels: {labels}. It was tested on {tested} whose right "
        "label is known.",
        "它读一段文字，给出 {count} 个标签之一：{labels}。测试用了 {rows} 条已知正确标签的文本。",
        count=len(summary["label_names"]),
        labels=_labels(summary, words),
        tested=counted(summary["rows"], "text"),
        rows=number(summary["rows"]),
    )


def _quality(summary: dict[str, Any], words: Words) -> Html:
    figures = main_model(summary)["metrics"]
    interval = figures["intervals"].get("accuracy")
    said: str = words(
        "Of 1,000 such texts it gets about {right} right",
        "每 1,000 条这样的文本，它大约判对 {right} 条",
        right=_in_1000(figures["accuracy"]),
    )
    if interval:
        said += words(
            " (with this many test texts, anything between {low} and {high} is plausible)",
            "（以这次测试的规模，{low} 到 {high} 之间都有可能）",
            low=_in_1000(interval[0]),
            high=_in_1000(interval[1]),
        )
    said += words(".", "。")
    majority = next((model for model in summary["models"] if model["key"] == "majority"), None)
    if majority:
        said += words(
            " Always giving the most frequent label would get {right} right.",
            "如果总是给出最常见的标签，只能判对 {right} 条。",
            right=_in_1000(majority["metrics"]["accuracy"]),
        )
    return Html(said + _by_label(summary, figures, words))


def _by_label(summary: dict[str, Any], figures: dict[str, Any], words: Words) -> str:
    """Of two labels what precision and recall mean, of more the label that is found least."""
    if (positive := summary["positive_label"]) is not None:
        if figures["recall"] is None or figures["precision"] is None:
            return ""
        return words(
            " Of 100 texts that are {label} it finds {found}; of 100 that it calls {label}, {true} are.",
            "每 100 条真正的{label}，它能找出 {found} 条；每 100 条它判为{label}的，有 {true} 条确实是。",
            label=Html(f"“{foreign(positive, 60)}”"),
            found=f"{100 * figures['recall']:.0f}",
            true=f"{100 * figures['precision']:.0f}",
        )
    known = [one for one in figures["per_class"] if one["recall"] is not None]
    weakest = min(known, key=lambda one: one["recall"], default=None)
    if weakest is None:
        return ""
    return words(
        " It is weakest on {label}: of 100 such texts it finds {found}.",
        "它最不擅长的是{label}：每 100 条只能找出 {found} 条。",
        label=Html(f"“{foreign(weakest['label'], 60)}”"),
        found=f"{100 * weakest['recall']:.0f}",
    )


def _trust(summary: dict[str, Any], words: Words) -> Html:
    chosen = block(main_model(summary))
    filled = [one for one in chosen["reliability"] if one["count"]]
    rows = sum(one["count"] for one in filled)
    says = sum(one["count"] * one["confidence"] for one in filled) / rows
    right = sum(one["count"] * one["accuracy"] for one in filled) / rows
    gap, chance = f"{100 * chosen['ece']:.1f}", f"{100 * chosen['floor']['p95']:.1f}"
    if chosen["floor"]["p95"] > MOST_BY_CHANCE:
        return words(
            "This test is too small to tell: with as few rows ({rows}) chance alone gives a gap of up to {chance} "
            "points; here it is {gap}.",
            "这次测试无法判断：只有 {rows} 行，单凭偶然就可能相差 {chance} 个百分点；这里是 {gap}。",
            rows=number(rows),
            gap=gap,
            chance=chance,
        )
    if chosen["ece"] <= chosen["floor"]["p95"]:
        answer = words(
            "Yes, as far as this test can tell: when it says 90 %, it is right about 90 times in 100. The two differ "
            "by {gap} points on average, and chance alone gives up to {chance}.",
            "在这次测试能分辨的范围内，可以：当它说 90% 时，100 次中大约对 90 次。两者平均相差 {gap} 个百分点，"
            "而单凭偶然也会有 {chance} 个百分点之多。",
            gap=gap,
            chance=chance,
        )
    else:
        answer = words(
            "Only roughly. On average it says {says} and is right {right} of the time: {verdict}. Bin by bin the two "
            "differ by {gap} points, where chance alone gives up to {chance}.",
            "只能大致参考。它平均自称有 {says} 的把握，实际判对 {right}：{verdict}。分箱来看两者相差 {gap} 个百分点，"
            "而单凭偶然最多 {chance} 个百分点。",
            says=words.percent(says),
            right=words.percent(right),
            verdict=_sureness(says - right, words),
            gap=gap,
            chance=chance,
        )
    return Html(f"{answer}{_coverage(chosen['coverage_at_1_risk'], words)}")


def _sureness(excess: float, words: Words) -> Html:
    if abs(excess) < 0.01:
        return words("too sure in some places, too unsure in others", "有时过于自信，有时又不够自信")
    return words("it is too sure", "它过于自信") if excess > 0 else words("it is too unsure", "它不够自信")


def _coverage(share: float | None, words: Words) -> Html:
    if share is None:
        return Html()
    if share == 0:
        return words(
            " There is no share of the texts, however sure it is of them, of which it gets 99 % right.",
            "无论它多有把握，都找不出一部分文本能让它判对 99%。",
        )
    return words(
        " Answering only the {share} it is surest of, and leaving the rest to a person, it is wrong once in 100 at "
        "most.",
        "如果只让它回答最有把握的 {share}，其余交给人处理，那么 100 条中最多错 1 条。",
        share=words.percent(share),
    )


def _help(summary: dict[str, Any], words: Words) -> Html | None:
    """Beside the same base without LoRA, and beside counting characters; None where it stands alone."""
    by_key = {comparison["against"]: comparison for comparison in summary["comparisons"]}
    parts = []
    if (one := by_key.get("frozen_head")) is not None:
        parts.append(
            {
                "better": words(
                    "Yes: beside the same base model without LoRA it gets {more} texts more right in 1,000.",
                    "有：与不用 LoRA 的同一底座模型相比，每 1,000 条多判对 {more} 条。",
                    more=_in_1000(one["accuracy_difference"]),
                ),
                "worse": words(
                    "No, it did harm: the same base model without LoRA gets {more} texts more right in 1,000.",
                    "没有，反而更差：不用 LoRA 的同一底座模型每 1,000 条多判对 {more} 条。",
                    more=_in_1000(one["accuracy_difference"]),
                ),
            }.get(
                one["verdict"],
                words(
                    "That can't be told: the same base model without LoRA is right about as often.",
                    "看不出来：不用 LoRA 的同一底座模型，判对的比例差不多。",
                ),
            )
        )
    if (one := by_key.get("tfidf")) is not None:
        parts.append(
            {
                "better": words(
                    "It is also better than a simple method that counts characters.",
                    "它也好于一种只统计字词的简单方法。",
                ),
                "worse": words(
                    "A simple method that counts characters is better than it: use that one, or find out why.",
                    "一种只统计字词的简单方法比它更好：不如用那种方法，或查明原因。",
                ),
            }.get(
                one["verdict"],
                words(
                    "A simple method that counts characters is about as good.", "一种只统计字词的简单方法与它不相上下。"
                ),
            )
        )
    return Html((" " if words.lang == "en" else "").join(parts)) if parts else None


def _next(summary: dict[str, Any], verification: dict[str, Any] | None, words: Words) -> Html:
    items = "".join(f"<li>{item}</li>" for item in _advice(summary, verification, words))
    if not items:
        return words("Nothing stands out.", "没有特别需要注意的地方。")
    return Html(f"<ul>{items}</ul>")


def _advice(summary: dict[str, Any], verification: dict[str, Any] | None, words: Words) -> Iterator[Html]:
    """What stands out, the most urgent first."""
    if verdict(verification, words).status != "pass":
        yield words(
            "The adapter is not proven to be what was trained: {place} before it is used.",
            "尚未证明这个适配器就是训练所得：使用前请先看{place}。",
            place=_link("verification", words("see its verification", "验证结果")),
        )
    errors = summary["errors"]
    if count := errors["likely_wrong_labels"]:
        yield words(
            "{count} of its {wrong} errors may be wrong labels in the data: {place}.",
            "{wrong} 个错误中有 {count} 个可能是数据标错了：{place}。",
            count=count,
            wrong=number(errors["wrong"]),
            place=_link("errors", words("read them first", "请先看这些")),
        )
    if weak := _weakest_category(summary):
        yield words(
            "It is weakest on {category}: {passed} of {cases} {place}.",
            "它最不擅长的是{category}：{place} {cases} 个中通过 {passed} 个。",
            category=Html(f"“{foreign(wording.term(weak['category'], words.lang), 60)}”"),
            passed=weak["passed"],
            cases=weak["cases"],
            place=_link("robustness", words("cases passed", "测试用例")),
        )
    if worst := _worst_group(errors, summary["rows"]):
        yield words(
            "Errors gather in {group}: {rate} wrong, against {all} in all: {place}.",
            "错误集中在{group}：错误率 {rate}，总体为 {all}：{place}。",
            group=_group_name(worst, words),
            rate=words.percent(worst["error_rate"]),
            all=words.percent(errors["wrong"] / summary["rows"]),
            place=_link("errors", words("see the groups", "见分组")),
        )
    if errors["confident"]:
        yield words(
            "Errors that it makes with a confidence of {sure} or more: {count}; {place}.",
            "有 {count} 个错误的置信度不低于 {sure}：{place}。",
            count=number(errors["confident"]),
            sure=words.sentence(f"{100 * errors['confidence_from']:g}{wording.unit(words.lang)}"),
            place=_link("errors", words("look at these", "值得一看")),
        )
    if any(one["against"] == "tfidf" and one["verdict"] != "better" for one in summary["comparisons"]):
        yield words(
            "LoRA is not clearly better than a simple method: more rows, cleaner labels or a larger base will probably "
            "do more than longer training.",
            "LoRA 并不明显好于简单方法：更多数据、更干净的标签或更大的底座，可能比延长训练更有用。",
        )
    if summary["rows"] < FEW_ROWS:
        yield words(
            "The test has {tested}: more would narrow every interval.",
            "测试集只有 {rows} 行：再多一些，各个区间都会更窄。",
            tested=counted(summary["rows"], "row"),
            rows=number(summary["rows"]),
        )


def _weakest_category(summary: dict[str, Any]) -> dict[str, Any] | None:
    models = summary["robustness"].get("models") or []
    main = next((model for model in models if model["key"] == "lora"), models[0] if models else None)
    rated = [one for one in main["categories"] if one["rate"] is not None] if main else []
    weakest = min(rated, key=lambda one: one["rate"], default=None)
    return weakest if weakest is not None and weakest["rate"] < WEAK else None


def _worst_group(errors: dict[str, Any], rows: int) -> dict[str, Any] | None:
    """The group that clearly goes wrong more often than all rows together."""
    overall = errors["wrong"] / rows
    clear = [one for one in errors["groups"] if one["interval"] and one["interval"][0] > overall]
    return max(clear, key=lambda one: one["error_rate"], default=None)


def _group_name(group: dict[str, Any], words: Words) -> Html:
    by, name = wording.term(str(group["by"]), words.lang), str(group["name"])
    name = name if group["by"] == "label" else wording.term(name, words.lang)
    return Html(f"“{text(by)}: {foreign(short(name))}”")


def _link(place: str, words: str) -> Html:
    return Html(f'<a href="#{place}">{words}</a>')


def _in_1000(share: float) -> str:
    return f"{abs(1000 * share):,.0f}"
