"""The report's section on errors: where they gather, and every one of them to be searched and sorted.

The page's script makes the table searchable from what stands in it; without the script it is all there to be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from jobs import wording
from jobs.predictions import Predictions
from jobs.report_html import (
    Html,
    Section,
    Words,
    cell,
    column,
    fitting,
    foreign,
    heading,
    paragraph,
    plain,
    row_head,
    section,
    table,
    text,
)
from jobs.wording import number

MAX_ROWS = 500
MAX_GROUPS = 200
MAX_TAGS = 8
MAX_TEXT_CHARS = 400
MAX_BYTES = 450_000


def errors_section(summary: dict[str, Any], predictions: Predictions, words: Words) -> Section:
    """Groups and rows of what the main model got wrong."""
    errors, title = summary["errors"], words("Errors", "错误")
    if not errors["wrong"]:
        none = words("There are none: every row is labelled correctly.", "没有错误：每一行都判对了。")
        return section("errors", title, paragraph(none))
    said = words(
        "{wrong} of {rows} rows are wrong, {confident} of these with a confidence of {sure} or more. In {likely} of "
        "them the label may be what is wrong: read these, and where it is, mend the data, not the model.",
        "{rows} 行中有 {wrong} 行判错，{confident} 行的置信度不低于 {sure}。有 {likely} 行可能是标签"
        "标错了：请逐条核对，若确实如此，应改数据，而不是改模型。",
        wrong=number(errors["wrong"]),
        rows=number(summary["rows"]),
        confident=number(errors["confident"]),
        sure=words.sentence(f"{100 * errors['confidence_from']:g}{wording.unit(words.lang)}"),
        likely=number(errors["likely_wrong_labels"]),
    )
    return section("errors", title, paragraph(said), _groups(errors, words), _rows(errors, summary, predictions, words))


def _groups(errors: dict[str, Any], words: Words) -> str:
    if not errors["groups"]:
        return ""
    names = (
        words("Rows", "行数"),
        words("Wrong", "错误"),
        words("Confident", "高置信错误"),
        words("Error rate", "错误率"),
    )
    header = [column(words("By", "分组依据")), column(words("Group", "分组")), *(column(name, "n") for name in names)]
    rows, last = [], ""
    most = max((one["error_rate"] or 0.0 for one in errors["groups"]), default=0.0) or 1.0
    for one in errors["groups"][:MAX_GROUPS]:
        by = wording.term(str(one["by"]), words.lang)
        repeated, last = by == last, by
        interval = f'<span class="interval">{words.span(one["interval"], share=True)}</span>' if one["interval"] else ""
        rate = one["error_rate"]
        rows.append(
            [
                Html(f'<th scope="row" class="{"by again" if repeated else "by"}">{text(by)}</th>'),
                row_head(foreign(_group(one, words), 80)),
                *(
                    cell(number(one[key]), column_name, "n")
                    for key, column_name in zip(("rows", "wrong", "confident"), names, strict=False)
                ),
                Html(
                    f'<td class="n bar" data-name="{names[3]}" style="--share: {(rate or 0) / most:.3f}">'
                    f"{words.percent(rate)}{interval}</td>"
                ),
            ]
        )
    return heading(words("Where they gather", "错误集中在哪里")) + table("groups stack", header, rows)


def _group(group: dict[str, Any], words: Words) -> str:
    """A group's name; a label is nobody's word but its owner's."""
    name = str(group["name"])
    return name if group["by"] == "label" else wording.term(name, words.lang)


def _rows(errors: dict[str, Any], summary: dict[str, Any], predictions: Predictions, words: Words) -> str:
    shown = errors["rows"][:MAX_ROWS]
    limit = fitting((part for one in shown for part in _texts(one, predictions)), MAX_TEXT_CHARS, MAX_BYTES)
    labels = {name: str(place) for place, name in enumerate(summary["label_names"])}
    counted = Counter(name for one in shown for name in one["groups"])
    groups = {name: str(place) for place, (name, _) in enumerate(counted.most_common(MAX_GROUPS))}
    names = (words("Confidence", "置信度"), words("Said", "判断"), words("Label", "标签"), words("Text", "文本"))
    header = [
        Html(f'<th scope="col" data-sort="number">{names[0]}</th>'),
        Html(f'<th scope="col" data-sort="text">{names[1]}</th>'),
        Html(f'<th scope="col" data-sort="text">{names[2]}</th>'),
        Html(f'<th scope="col" data-sort="text">{names[3]}</th>'),
    ]
    body = "\n".join(_row(one, predictions.texts[one["row"]], limit, labels, groups, names, words) for one in shown)
    note = words(
        "{shown} of {wrong} errors, the most confident first. All are in errors.csv and predictions.parquet; # is the "
        "row there, the first being 0.",
        "共 {wrong} 个错误，列出 {shown} 个，按置信度由高到低。全部见 errors.csv 与 predictions.parquet，"
        "# 为其中的行号（从 0 起）。",
        shown=number(len(shown)),
        wrong=number(errors["wrong"]),
    )
    return (
        heading(words("One by one", "逐条查看"))
        + paragraph(note, "small")
        + paragraph(words("On paper: the first 30.", "打印版只列前 30 个。"), "small on-paper")
        + _filters(labels, groups, words)
        + f'<div class="scroll"><table class="errors stack" data-step="50"><thead><tr>{"".join(header)}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>\n"
        f'<p class="more" hidden><button type="button">{words("Show more", "显示更多")}</button></p>'
    )


def _texts(one: dict[str, Any], predictions: Predictions) -> Iterator[str]:
    """What stands in a row and may be long."""
    yield predictions.texts[one["row"]]
    yield one["why"] or ""
    yield (one["near_duplicate"] or {}).get("text", "")
    yield from one["groups"][:MAX_TAGS]


def _row(
    one: dict[str, Any],
    words_of_row: str,
    limit: int,
    labels: dict[str, str],
    groups: dict[str, str],
    names: tuple[Html, ...],
    words: Words,
) -> str:
    member_of = " ".join(groups[name] for name in one["groups"] if name in groups)
    likely = " data-likely" if one["likely_wrong_label"] else ""
    notes = [f'<span class="row">#{one["row"]}</span>']
    notes += [
        f'<span class="tag">{foreign(wording.term(str(name), words.lang), min(40, limit))}</span>'
        for name in one["groups"][:MAX_TAGS]
    ]
    extra = ""
    if one["likely_wrong_label"]:
        why = foreign(wording.suspicion(one["why"], words.lang), min(200, limit)) if one["why"] else ""
        colon = words(": ", "：") if why else ""
        extra += f'<span class="doubt">{words("Perhaps a wrong label", "标签可能有误")}{colon}{why}</span>'
    if twin := one["near_duplicate"]:
        label = f"“{foreign(twin['label'], 60)}”"
        same = words(
            "Nearly the same in training, labelled {label}:", "训练集中近似的文本，标签为{label}：", label=Html(label)
        )
        extra += f'<span class="twin">{same} {foreign(twin["text"], limit)}</span>'
    cells = [
        f'<td class="n" data-name="{names[0]}" data-value="{one["confidence"]:.6f}">'
        f"{words.percent(one['confidence'])}</td>",
        cell(foreign(one["said"], 60), names[1]),
        cell(foreign(one["label"], 60), names[2]),
        f'<td class="text">{foreign(words_of_row, limit)}<span class="notes">{"".join(notes)}</span>{extra}</td>',
    ]
    return f'<tr data-label="{labels[one["label"]]}" data-groups="{member_of}"{likely}>{"".join(cells)}</tr>'


def _filters(labels: dict[str, str], groups: dict[str, str], words: Words) -> str:
    """What the script works; hidden as long as there is none."""
    everything, doubtful = words("all", "全部"), words("perhaps wrong labels only", "只看可能标错的")
    shown_groups = [(wording.term(name, words.lang), place) for name, place in groups.items()]
    fields = [
        f'<label>{words("Search", "搜索")}<input type="search" data-filter="search" autocomplete="off"></label>',
        f"<label>{words('Label', '标签')}{_choice('label', labels.items(), everything)}</label>",
        f"<label>{words('Group', '分组')}{_choice('group', shown_groups, everything)}</label>" if groups else "",
        f'<label class="check"><input type="checkbox" data-filter="likely">{doubtful}</label>',
    ]
    counted = words("{shown} of {all} shown", "显示 {all} 条中的 {shown} 条", shown="{shown}", all="{all}")
    count = f'<p class="small found" role="status" data-words="{counted}"></p>'
    return f'<div class="filters" hidden>{"".join(fields)}{count}</div>\n'


def _choice(name: str, values: Iterable[tuple[str, str]], everything: str) -> str:
    options = "".join(f'<option value="{place}">{plain(value, 40)}</option>' for value, place in values)
    return f'<select data-filter="{name}"><option value="">{everything}</option>{options}</select>'
