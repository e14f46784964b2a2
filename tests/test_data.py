"""What a readable data file is, and how an unreadable one says where."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from jobs import data, manifest, spec, submission
from jobs.errors import DataError


def file_of(folder: Path, content: bytes | str) -> Path:
    path = folder / "reviews.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path) -> data.Rows:
    return data.read_rows(path, "text", "label")


def test_reads_quoted_commas_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = file_of(tmp_path, b'\xef\xbb\xbfid,text,label\r\n1,"a, ""b""\nc", good \r\n\r\n2,,bad\r\n')
    assert read(path) == data.Rows(['a, "b"\nc', ""], ["good", "bad"])


def test_a_field_may_be_longer_than_the_csv_module_allows(tmp_path: Path) -> None:
    path = file_of(tmp_path, f"text,label\n{'x' * 200_000},good\n")
    assert len(read(path).texts[0]) == 200_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: no column 'text'; columns: none"),
        (b"review,label\nx,good\n", "line 1: no column 'text'; columns: review, label"),
        (b"text,text,label\nx,y,good\n", "line 1: column 'text' stands there 2 times"),
        (b"text,label\n", "no rows"),
        (b"text,label\nx,good\ny\n", "line 3: 1 fields, the header has 2"),
        (b'text,label\n"a\nb",good\nx,y,bad\n', "line 4: 3 fields"),
        (b"text,label\nx,good\ny, \n", "line 3: column 'label' is empty"),
        (b"text,label\nx,good\n\xb2\xee,bad\n", "line 3: byte 0xb2 is not UTF-8"),
        (b"text,label\nx,good\nx\0y,bad\n", "line 3: a NUL character"),
        (b'text,label\n"x,good\ny,bad\n', "not CSV"),
    ],
)
def test_says_where_a_file_is_wrong(tmp_path: Path, content: bytes, says: str) -> None:
    path = file_of(tmp_path, content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(path) in caught.value.message
    assert says in caught.value.message


def test_a_missing_file_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        read(tmp_path / "absent.csv")


def submitted(root: Path, files: dict[str, str]) -> submission.Submission:
    """A submission whose inputs have these contents, by split name."""
    entries = {}
    for name, content in files.items():
        path = root / f"{name}.csv"
        path.write_text(content, "utf-8", newline="")
        entries[name] = manifest.Entry(path.name, path.stat().st_size, manifest.sha256_of(path))
    document = {"name": "t", "model_name_or_path": "b", "data": {name: f"{name}.csv" for name in files}}
    return submission.Submission("t-aaaaaaaa", spec.from_mapping(document), entries, (), "0" * 64)


def three(train: str, validation: str, test: str) -> dict[str, str]:
    return {name: f"text,label\n{rows}" for name, rows in zip(data_names, (train, validation, test), strict=True)}


data_names = ("train", "validation", "test")


def test_labels_are_indices_into_sorted_names(tmp_path: Path) -> None:
    splits = data.load_splits(tmp_path, submitted(tmp_path, three("x,b\ny,a\nz,c\n", "x,c\n", "y,b\n")))
    assert splits.label_names == ("a", "b", "c")
    assert splits.positive_label is None
    assert splits.train.label_ids.tolist() == [1, 0, 2]
    assert splits.validation.label_ids.tolist() == [2]
    assert len(splits.test) == 1


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("x,a\ny,a\n", "x,a\n", "x,a\n"), "train.csv: only 'a'; training needs at least two classes"),
        (("x,a\ny,b\n", "x,c\ny,c\n", "x,a\n"), "validation.csv: labels that train has not: 'c' \\(2 rows\\)"),
    ],
)
def test_splits_that_cannot_be_trained_on(tmp_path: Path, parts: tuple[str, str, str], says: str) -> None:
    with pytest.raises(DataError, match=says):
        data.load_splits(tmp_path, submitted(tmp_path, three(*parts)))


def test_a_changed_file_is_not_trained_on(tmp_path: Path) -> None:
    frozen = submitted(tmp_path, three("x,a\ny,b\n", "x,a\n", "x,a\n"))
    (tmp_path / "test.csv").write_text("text,label\nz,a\n", "utf-8")
    with pytest.raises(DataError, match="not the file that was submitted"):
        data.load_splits(tmp_path, frozen)


def test_one_file_is_split_by_the_hash_of_the_text(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2_000)]
    rows = "".join(f"{text},{'ab'[number % 2]}\n" for number, text in enumerate(texts + texts[:50]))
    splits = data.load_splits(tmp_path, submitted(tmp_path, {"file": f"text,label\n{rows}"}))
    sides = {text: name for name, split in splits.named().items() for text in split.texts}
    for text in texts:
        bucket = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
        assert sides[text] == ("train" if bucket < 80 else "validation" if bucket < 90 else "test")
    assert sum(map(len, splits.named().values())) == 2_050
    assert len(splits.train) == pytest.approx(1_640, rel=0.05)


def test_a_file_too_small_to_be_split_says_which_split_is_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"file\.csv \((train|validation|test) split\)"):
        data.load_splits(tmp_path, submitted(tmp_path, {"file": "text,label\nx,a\ny,b\n"}))
