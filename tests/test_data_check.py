"""Every trap that data can hold is found, with rows that show it; data without one are passed."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from jobs import data_check, data_finding, near_duplicates
from jobs.data_finding import Finding
from jobs.folded_text import folded
from jobs.table import Table

WORDS = ("房间", "早餐", "屏幕", "电池", "服务", "位置", "价格", "物流", "包装", "键盘", "前台", "空调", "声音", "颜色")
SAID = ("很好", "不错", "满意", "干净", "太差", "糟糕", "失望", "很脏", "一般", "便宜", "太贵", "很慢", "热情", "冷淡")


def sentences(count: int, seed: int, words: int = 12) -> list[str]:
    draw = random.Random(seed)
    return ["，".join(draw.choice(WORDS) + draw.choice(SAID) for _ in range(words)) for _ in range(count)]


def clean(seed: int = 0, train: int = 200) -> dict[str, Table]:
    """Splits without a trap in them."""
    return {
        name: Table(sentences(rows, 10 * seed + number), ["good", "bad"] * (rows // 2))
        for number, (name, rows) in enumerate({"train": train, "validation": 40, "test": 40}.items())
    }


def found(tables: dict[str, Table], code: str) -> Finding:
    [finding] = [one for one in data_check.look(tables).findings if one.code == code]
    return finding


def test_data_without_a_trap() -> None:
    report = data_check.look(clean())
    assert report.findings == ()
    assert report.rows["train"] == {"bad": 100, "good": 100}
    assert not report.has_errors


def test_the_same_text_in_another_split() -> None:
    tables = clean()
    tables["test"].texts[3] = tables["train"].texts[7].replace("，", " , ").upper() + "！"
    finding = found(tables, "duplicate")
    assert (finding.severity, finding.count) == ("warning", 1)
    assert [(one.split, one.row) for one in finding.examples] == [("test", 4)]
    tables["test"].texts[:20] = tables["train"].texts[:20]
    assert found(tables, "duplicate").severity == "error"


def test_nearly_the_same_text_in_another_split() -> None:
    tables = clean()
    text = tables["train"].texts[7]
    tables["test"].texts[3] = text.replace(text[10:12], "挺棒", 1)
    finding = found(tables, "near_duplicate")
    assert (finding.severity, finding.count) == ("warning", 1)
    assert [(one.split, one.row) for one in finding.examples] == [("test", 4), ("train", 8)]


def test_short_texts_that_differ_by_a_word_are_not_nearly_the_same() -> None:
    tables = clean()
    tables["train"].texts[0], tables["test"].texts[0] = "房间不太干净。", "房间太干净。"
    assert data_check.look(tables).findings == ()


def test_the_same_text_under_several_labels() -> None:
    tables = clean()
    tables["train"].texts[1] = tables["train"].texts[0].replace("，", "。")
    finding = found(tables, "conflict")
    assert (finding.severity, finding.count) == ("warning", 2)
    assert {(one.row, one.label) for one in finding.examples} == {(1, "good"), (2, "bad")}


def test_rows_that_repeat() -> None:
    tables = clean()
    tables["train"].texts[0:6:2] = [tables["train"].texts[0]] * 3
    finding = found(tables, "repeated")
    assert (finding.severity, finding.count, finding.examples[0].row) == ("note", 2, 1)


@pytest.mark.parametrize(
    ("labels", "code", "severity"),
    [
        ({"train": ["a"] * 200}, "one_class", "error"),
        ({"test": ["new"] * 40}, "unknown_label", "error"),
        ({"validation": ["good"] * 40}, "absent_label", "warning"),
        ({"train": ["good"] * 185 + ["bad"] * 15}, "imbalance", "warning"),
        ({"train": ["good"] * 195 + ["bad"] * 5}, "few_rows", "warning"),
        ({"train": sentences(200, 9)}, "label_is_text", "error"),
    ],
)
def test_labels(labels: dict[str, list[str]], code: str, severity: str) -> None:
    tables = clean()
    for name, values in labels.items():
        tables[name] = Table(tables[name].texts, values)
    assert found(tables, code).severity == severity


def test_swapped_columns_are_what_is_said_first_and_shortly() -> None:
    tables = {name: Table(table.labels, [text * 20 for text in table.texts]) for name, table in clean().items()}
    findings = data_check.look(tables).findings
    assert findings[0].code == "label_is_text"
    assert all(len(one.what) + len(one.todo) < 700 for one in findings)


def test_a_split_without_rows() -> None:
    assert found({**clean(), "test": Table([], [])}, "no_rows").severity == "error"


def test_texts_that_are_ids() -> None:
    tables = {**clean(), "train": Table([f"B00{number}X" for number in range(200)], ["good", "bad"] * 100)}
    assert found(tables, "text_is_id").severity == "error"


def test_empty_texts() -> None:
    tables = clean()
    tables["train"].texts[5] = "\u200b \n"
    tables["test"].texts[5] = ""
    report = data_check.look(tables)
    assert [one.code for one in report.findings] == ["empty_text"]  # and no duplicate
    assert report.findings[0].what == "empty texts: 1 in train, 1 in test"
    tables["train"] = Table(["", " "] * 10, ["good", "bad"] * 10)
    assert found(tables, "empty_text").severity == "error"


def test_encodings_other_than_utf_8_are_noted() -> None:
    [finding] = data_check.look(clean(), None, {"a.csv": "UTF-8", "b.csv": "GBK (GB18030)"}).findings
    assert (finding.severity, finding.what) == ("note", "b.csv was read as GBK (GB18030)")


def test_lengths_and_what_is_cut() -> None:
    lengths = data_check.measured(np.array([0, 1, 15, 16, 31, 32, 100]), 31, how="counted", is_estimate=True)
    assert lengths.histogram == ((1, 3, 2), (4, 7, 0), (8, 15, 1), (16, 31, 2), (32, 62, 1), (63, 124, 1))
    assert (lengths.median, lengths.longest, lengths.cut_share) == (16, 100, pytest.approx(2 / 7))
    [finding] = data_check.look(clean(), lengths).findings
    assert (finding.severity, finding.count) == ("warning", 2)
    assert finding.what == "about 28.6% of the texts are cut at 31 tokens (counted)"
    assert finding.todo == "with max_length 62 it would be 14.3%"


def test_errors_come_first_and_examples_are_short_lines() -> None:
    tables = clean()
    tables["train"].texts[0] = "\n" + "长" * 10_000
    tables["train"].texts[2] = tables["train"].texts[0]
    tables["test"] = Table(tables["train"].texts[:40], ["new"] * 40)
    report = data_check.look(tables)
    order = ["error", "warning", "note"]
    severities = [order.index(one.severity) for one in report.findings]
    assert severities == sorted(severities)
    assert all(len(example.text) <= 40 for one in report.findings for example in one.examples)


def test_what_stops_a_run_with_and_without_force() -> None:
    tables = clean()
    tables["test"].texts[:20] = tables["train"].texts[:20]
    findings = data_check.look(tables).findings
    assert [one.code for one in data_finding.stopping(findings)] == ["duplicate"]
    assert data_finding.stopping(findings, force=True) == []
    findings = data_check.look({**tables, "test": Table(["x"], ["new"])}).findings
    assert [one.code for one in data_finding.stopping(findings, force=True)] == ["unknown_label"]


def test_folding_keeps_what_is_said() -> None:
    assert folded("  Ｇｏｏｄ！！ Room… ") == "good room"
    assert folded("好👍") != folded("好👎")
    assert folded("???") != folded("!!!")
    assert folded("") == folded(" \n") == ""


def test_near_duplicates_are_found_at_the_similarity_that_is_said() -> None:
    """Of pairs of all similarities nearly all above the threshold are found, and none below it."""
    draw = random.Random(1)
    texts = sentences(400, 5, words=20)
    changed = []
    for text in texts:
        letters = list(text)
        for _ in range(draw.randrange(1, 12)):
            letters[draw.randrange(len(letters))] = chr(draw.randrange(0x4E00, 0x9000))
        changed.append("".join(letters))
    pairs = dict(
        near_duplicates.pairs(changed, near_duplicates.signatures(changed), texts, near_duplicates.signatures(texts))
    )

    def similarity(one: str, other: str) -> float:
        first, second = ({folded(t)[at : at + 3] for at in range(len(folded(t)) - 2)} for t in (one, other))
        return len(first & second) / len(first | second)

    similar = [row for row in range(400) if similarity(changed[row], texts[row]) >= 0.8]
    assert 50 < len(similar) < 350
    assert set(pairs) <= set(similar)
    assert len(pairs) >= 0.95 * len(similar)
    assert all(pairs[row] == row for row in pairs)


def test_a_hundred_thousand_rows_take_well_under_a_minute() -> None:
    tables = {
        "train": Table(sentences(80_000, 1), ["good", "bad"] * 40_000),
        "validation": Table(sentences(10_000, 2), ["good", "bad"] * 5_000),
        "test": Table(sentences(10_000, 3), ["good", "bad"] * 5_000),
    }
    started = time.monotonic()
    data_check.look(tables)
    assert time.monotonic() - started < 55


def test_one_template_in_all_texts_ends_soon() -> None:
    template = "亲爱的顾客您好感谢您购买我们的商品请对我们的服务作出评价谢谢您的支持祝您生活愉快订单号码是第"
    tables = {
        name: Table([f"{template}{number}{name}" for number in range(rows)], ["good", "bad"] * (rows // 2))
        for name, rows in {"train": 8_000, "validation": 1_000, "test": 1_000}.items()
    }
    started = time.monotonic()
    assert "near_duplicate" in {one.code for one in data_check.look(tables).findings}
    assert time.monotonic() - started < 55
