"""What a readable data file is, in every format and encoding, and how an unreadable one says where."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import table
from jobs.errors import DataError
from jobs.label import in_order, label_of
from jobs.table import Table

CHINESE = [("房间很好，早餐也不错。", "good"), ("太差了，不会再来！", "bad"), ("符号与“引号”…", "good")]


def file_of(folder: Path, content: bytes | str, name: str = "reviews.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_csv(rows: list[tuple[str, str]], separator: str = ",") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows([("id", "text", "label"), *((0, *row) for row in rows)])
    return text.getvalue()


def as_json_lines(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"id": 1, "text": text, "label": label}) + "\n" for text, label in rows)


def as_parquet(path: Path, rows: list[tuple[str, str]]) -> Path:
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_reads_quoted_commas_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = file_of(tmp_path, b'\xef\xbb\xbfid,text,label\r\n1,"a, ""b""\nc", good \r\n\r\n2,,bad\r\n')
    read = table.read(path)
    assert (read.texts, read.labels) == (['a, "b"\nc', ""], ["good", "bad"])
    assert read.encoding == "UTF-8 with a byte order mark"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_all_systems(tmp_path: Path, end: str) -> None:
    lines = ["text,label", "a,good", "", "b,bad", ""]
    assert table.read(file_of(tmp_path, end.join(lines))).texts == ["a", "b"]
    lines = ['{"text": "a\u2028b", "label": 1}', "", '{"label": 2, "text": "c"}', ""]
    read = table.read(file_of(tmp_path, end.join(lines), "reviews.jsonl"))
    assert (read.texts, read.labels) == (["a\u2028b", "c"], ["1", "2"])


def test_a_field_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"text,label\n{'x' * 200_000},good\n")
    assert len(table.read(path).texts[0]) == 200_000


def test_a_mark_in_the_middle_of_files_that_were_appended(tmp_path: Path) -> None:
    path = file_of(tmp_path, "text,label\na,good\n\ufeffb,\ufeffbad\n")
    assert table.read(path).labels == ["good", "bad"]
    path = file_of(tmp_path, '{"text": "a", "label": 1}\n\ufeff{"text": "b", "label": 0}\n', "reviews.jsonl")
    assert table.read(path).texts == ["a", "b"]


def test_other_columns_are_named_and_do_not_matter(tmp_path: Path) -> None:
    path = file_of(tmp_path, "评论,x,x,情感\n好,1,2,1\n", "reviews.CSV")
    read = table.read(path, "评论", "情感")
    assert (read.texts, read.labels) == (["好"], ["1"])


def test_a_tab_separated_file_may_have_quotes_or_know_none(tmp_path: Path) -> None:
    assert table.read(file_of(tmp_path, 'text\tlabel\n"a\tb"\tgood\n', "r.tsv")).texts == ["a\tb"]
    assert table.read(file_of(tmp_path, 'text\tlabel\n"so, they said\tgood\n5" screen\tbad\n', "r.tab")).texts == [
        '"so, they said',
        '5" screen',
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column 'text'; columns: none"),
        (b"review,label\nx,good\n", "no column 'text'; columns: review, label"),
        (b"Text,label\nx,good\n", "columns: Text, label; did you mean 'Text'?"),
        (b"text,text,label\nx,y,good\n", "column 'text' stands there 2 times"),
        (b"text;label\nx;good\n", "columns: text;label"),
        (b"text,label\n", "no rows"),
        (b"text,label\nx,good\ny\n", "line 3: 1 fields, the header has 2"),
        (b'text,label\n"a\nb",good\nx,y,bad\n', "line 4: 3 fields"),
        (b"text,label\nx,good\ny, \n", "line 3: column 'label' is empty"),
        (b"text,label\nx,good\ny,nan\n", "line 3: column 'label' is empty"),
        (b"text,label\nx,good\n\xb2,bad\n", "line 3: byte 0xb2 is not UTF-8"),
        (b"text,label\nx,good\nx\0y,bad\n", "line 3: a NUL character"),
        (b'text,label\ny,good\n"x,good\ny,bad\n', "line 3: not readable from here on"),
        (b"\xff\xfet\0e\0x\0\n", "byte 0x0a is not UTF-16"),
        ("text,label\n很好，".encode() + b"\xe5\xa5\n", "line 2: byte 0xe5 is not UTF-8"),
        ("text,label\ncafé noir,good\nnaïve,bad\n".encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
        ("text,label\n이것은 한국어 문장,good\n또 하나 더 있습니다,bad\n".encode("euc-kr") * 9, "not Chinese"),
        ("text,label\nこれは日本語の文章です,good\n".encode("shift-jis"), "line 2: byte"),
    ],
)  # fmt: skip
def test_says_where_a_file_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    path = file_of(tmp_path, content)
    with pytest.raises(DataError) as caught:
        table.read(path)
    assert str(path) in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint or says == "no rows"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[1]", "line 2: a list, not an object"),
        ("1", "line 2: a number, not an object"),
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"text": "x"}', "line 2: no column 'label'; columns: text"),
        ('{"text": {"a": 1}, "label": 1}', "line 2: column 'text' holds an object, not text"),
        ('{"text": ["a"], "label": 1}', "holds a list, not text"),
        ('{"text": true, "label": 1}', "holds true or false, not text"),
        ('{"text": "x", "label": [1]}', "line 2: column 'label' holds a list, not a label"),
        ('{"text": "x", "label": null}', "line 2: column 'label' is empty"),
        ('{"text": "x", "label": NaN}', "line 2: column 'label' is empty"),
        ('{"text": "\\ud83d", "label": 1}', "line 2: column 'text': half a character (lone surrogate \\ud83d)"),
        ('{"text": "x", "label": "\\ud83d"}', "column 'label': half a character"),
        ('{"text": "a\\u0000b", "label": 1}', "a NUL character"),
        ('{"text": "x", "label": ' + "9" * 5000 + "}", "line 2: not JSON"),
    ],
)
def test_says_which_line_of_json_is_wrong(tmp_path: Path, line: str, says: str) -> None:
    path = file_of(tmp_path, '{"text": "x", "label": 1}\n' + line + "\n", "reviews.jsonl")
    with pytest.raises(DataError) as caught:
        table.read(path)
    assert says in caught.value.message


def test_a_list_of_objects_is_not_one_a_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        table.read(file_of(tmp_path, '[\n {"text": "x", "label": 1}\n]', "reviews.json"))
    assert "jq" in caught.value.hint


def test_what_pandas_writes_for_numbers_gaps_and_booleans(tmp_path: Path) -> None:
    lines = '{"text": null, "label": 1.0}\n{"text": 666, "label": 0}\n{"text": NaN, "label": true}\n'
    read = table.read(file_of(tmp_path, lines, "reviews.jsonl"))
    assert (read.texts, read.labels) == (["", "666", ""], ["1", "0", "True"])
    read = table.read(file_of(tmp_path, "text,label\n,1.0\n666,0\n,True\n"))
    assert (read.texts, read.labels) == (["", "666", ""], ["1", "0", "True"])


def test_labels_are_in_the_order_of_their_numbers() -> None:
    assert in_order(["10", "2", "1", "neutral", "-1", "2.5"]) == ("-1", "1", "2", "2.5", "10", "neutral")
    assert [label_of(value) for value in (1, 1.0, "1.0", " 1 ", "01", 0.5, False)] == [
        "1", "1", "1", "1", "01", "0.5", "False",
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "gb2312", "utf-16", "utf-8-sig"])
def test_chinese_in_the_encodings_it_comes_in(tmp_path: Path, encoding: str) -> None:
    rows = CHINESE[:2] if encoding == "gb2312" else CHINESE
    read = table.read(file_of(tmp_path, as_csv(rows).encode(encoding)))
    assert read.texts == [text for text, _ in rows]
    assert read.encoding == {"utf-16": "UTF-16", "utf-8-sig": "UTF-8 with a byte order mark"}.get(
        encoding, "GBK (GB18030)"
    )


def test_a_character_at_the_edge_of_a_piece_that_is_read(tmp_path: Path) -> None:
    filling = "x" * ((1 << 20) - 14)  # "text,label\n" and two bytes more: 中 lies on both sides
    for encoding in ("utf-8", "gbk"):
        read = table.read(file_of(tmp_path, f"text,label\n{filling}中,中\n好,好\n".encode(encoding)))
        assert read.labels == ["中", "好"]


def test_parquet_with_names_of_classes(tmp_path: Path) -> None:
    features = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    columns = pyarrow.table({"text": ["x", None], "label": [1, 0]})
    noted = columns.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(noted, tmp_path / "r.parquet")
    read = table.read(tmp_path / "r.parquet")
    assert (read.texts, read.labels) == (["x", ""], ["good", "bad"])
    pyarrow.parquet.write_table(columns, tmp_path / "r.parquet")
    assert table.read(tmp_path / "r.parquet").labels == ["1", "0"]


def test_parquet_that_cannot_be_read(tmp_path: Path) -> None:
    path = as_parquet(tmp_path / "r.parquet", CHINESE * 100)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[:-20], whole[: len(whole) // 2], b"text,label\nx,1\n"):
        with pytest.raises(DataError, match="not readable as Parquet"):
            table.read(file_of(tmp_path, content, "cut.parquet"))
    with pytest.raises(DataError, match="no column 'review'; columns: text, label"):
        table.read(path, "review")
    pyarrow.parquet.write_table(pyarrow.table({"text": [1, 2], "label": [0, 1]}), path)
    with pytest.raises(DataError, match="'text' holds int64, not text"):
        table.read(path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b"], "label": [0, None]}), path)
    with pytest.raises(DataError, match="row 2: column 'label' is empty"):
        table.read(path)


def test_a_folder_of_files_of_one_kind_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name, text in (("b.csv", "2"), ("a.csv", "1"), (".hidden.csv", "3"), ("README.md", "4")):
        file_of(tmp_path, f"text,label\n{text},x\n", name)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert table.read(tmp_path).texts == ["1", "2"]
    file_of(tmp_path, "", "c.jsonl")
    with pytest.raises(DataError, match="several kinds: CSV, JSONL"):
        table.read(tmp_path)


def test_a_folder_without_files_and_files_of_no_kind(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    with pytest.raises(DataError, match="no data file in this folder, only folders: part"):
        table.read(tmp_path)
    with pytest.raises(DataError, match="not a kind of file"):
        table.read(file_of(tmp_path, "", "reviews.xlsx"))
    with pytest.raises(DataError, match=r"absent\.csv: can't be read"):
        table.read(tmp_path / "absent.csv")


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
labels = st.text(characters, min_size=1, max_size=8).filter(lambda label: label_of(label) != "")


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(st.tuples(st.text(characters, max_size=30), labels), min_size=1, max_size=8))
def test_any_rows_come_back_the_same_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    paths = [
        file_of(folder, as_csv(rows), "r.csv"),
        file_of(folder, as_csv(rows, "\t"), "r.tsv"),
        file_of(folder, as_csv(rows).encode("utf-16"), "utf16.csv"),
        file_of(folder, as_json_lines(rows), "r.jsonl"),
        as_parquet(folder / "r.parquet", rows),
    ]
    expected = Table([text for text, _ in rows], [label_of(label) for _, label in rows])
    assert {b"".join(table.lines(table.read(path))) for path in paths} == {b"".join(table.lines(expected))}
    normalised = file_of(folder, b"".join(table.lines(expected)), "ours.jsonl")
    assert table.read(normalised) == expected


common = st.text(st.sampled_from('的一是不了在有我他这中大来上，。a1\n"'), max_size=40)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(common, min_size=1, max_size=8))
def test_chinese_comes_back_the_same_from_gbk(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    folder = tmp_path_factory.mktemp("gbk")
    rows = [(text, "好") for text in texts]
    assert table.read(file_of(folder, as_csv(rows).encode("gbk"))).texts == texts


# --- texts without labels


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_texts_alone_are_read_as_with_labels(kind: str, tmp_path: Path) -> None:
    texts = ["好，房间", 'a "quoted" one', "two\nlines", "", "\u2028", "666"]
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"id": list(range(6)), "text": texts}), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": text}) + "\n" for text in texts), "utf-8")
    else:
        with path.open("w", encoding="gbk", newline="") as file:
            some = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            texts[4] = "x"
            some.writerows([["id", "text"], *enumerate(texts)])
    assert list(table.texts(path)) == texts
    with pytest.raises(DataError, match="no column 'review'; columns: id, text") as caught:
        list(table.texts(path, "review"))
    assert caught.value.hint == "name the column of the texts: --text-column"


def test_lines_of_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes('\ufeff一\r\n\r\n"b"\tc,d\n \n末'.encode())
    assert list(table.texts(path)) == ["一", "", '"b"\tc,d', " ", "末"]
    path.write_bytes(b"a\x00b\n")
    with pytest.raises(DataError, match="NUL"):
        list(table.texts(path))


def test_texts_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    """The row that is wrong is met when it is its turn, and no list of all rows is made."""
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "good\n" * 1000 + "a,b\n")
    texts = table.texts(path)
    assert [next(texts) for _ in range(1000)] == ["good"] * 1000
    with pytest.raises(DataError, match="line 1002: 2 fields"):
        next(texts)


def test_a_tsv_with_lone_quotes_is_read_plain_also_for_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text('text\tlabel\na "b\tx\n"c d\ty\n')
    assert list(table.texts(path)) == ['a "b', '"c d'] == table.read(path).texts
