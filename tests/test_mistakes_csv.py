"""errors.csv: opened by a spreadsheet it shows texts, and computes nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import mistakes_csv
from jobs.mistakes_csv import COLUMNS, MAX_CELL_CHARS

bounded = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def row(number: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "row": number, "label": "neg", "said": "pos", "confidence": 0.98765, "groups": ["1-15 characters", "negation"],
        "likely_wrong_label": False, "why": None, "near_duplicate": None,
    }  # fmt: skip
    return usual | changes


def written(path: Path, rows: list[dict[str, Any]], texts: list[str]) -> list[dict[str, str]]:
    mistakes_csv.save(path, rows, texts)
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_a_row_is_told_with_all_that_is_known(tmp_path: Path) -> None:
    twin = {"text": "不错！", "label": "pos"}
    rows = [row(1, likely_wrong_label=True, why="the model says so", near_duplicate=twin), row(0)]
    second, first = written(tmp_path / "errors.csv", rows, ["很差", "不错"])
    assert second == {
        "row": "1", "label": "neg", "said": "pos", "confidence": "0.9877", "groups": "1-15 characters; negation",
        "likely_wrong_label": "yes", "why": "the model says so", "near_duplicate": "不错！",
        "near_duplicate_label": "pos", "text": "不错",
    }  # fmt: skip
    assert (first["text"], first["likely_wrong_label"], first["near_duplicate"]) == ("很差", "", "")
    assert (tmp_path / "errors.csv").read_bytes().startswith(b"\xef\xbb\xbfrow,label,")
    assert [file.name for file in tmp_path.iterdir()] == ["errors.csv"]


def test_without_errors_there_is_a_header(tmp_path: Path) -> None:
    mistakes_csv.save(tmp_path / "errors.csv", [], ["a"])
    assert (tmp_path / "errors.csv").read_text("utf-8-sig") == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1+1", "'=1+1"),
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("@用户 你好", "'@用户 你好"),
        ("+好", "'+好"),
        ("-坏", "'-坏"),
        ("  =1", "'  =1"),
        ("\ufeff=1", "'\ufeff=1"),
        ("\t好", "'\t好"),
        ("\r\n好", "'\r\n好"),
        ("＝1+1", "'＝1+1"),
        ("-1", "-1"),
        ("+1.5", "+1.5"),
        ("-1+cmd", "'-1+cmd"),
        ("1=1", "1=1"),
        ("'=1", "'=1"),
        ("好，=1", "好，=1"),
    ],
)
def test_formulas_are_texts_in_every_column_that_others_fill(tmp_path: Path, text: str, shown: str) -> None:
    hostile = row(0, label=text, said=text, why=text, near_duplicate={"text": text, "label": text})
    [read] = written(tmp_path / "errors.csv", [hostile], [text])
    for column in ("label", "said", "why", "near_duplicate", "near_duplicate_label", "text"):
        assert read[column] == shown


def test_a_text_fits_into_a_cell(tmp_path: Path) -> None:
    [read] = written(tmp_path / "errors.csv", [row(0)], ["=" * 100_000])
    assert len(read["text"]) == MAX_CELL_CHARS
    assert read["text"].startswith("'=") and read["text"].endswith("=…")


@bounded
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("=+-@\"',;\r\n\t"), max_size=50))
def test_any_text_stays_in_its_cell(tmp_path: Path, text: str) -> None:
    read = written(tmp_path / "errors.csv", [row(0), row(1)], [text, "last"])
    assert [one["text"] for one in read] in ([text, "last"], ["'" + text, "last"])
    assert not read[0]["text"].startswith(("=", "@", "\t", "\r", "\n"))
