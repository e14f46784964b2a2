"""The data of a run: splits with labels as numbers, from what was submitted and nothing else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs import data, manifest, spec, submission, table
from jobs.errors import DataError
from jobs.spec import SPLITS


def submitted(root: Path, parts: dict[str, list[tuple[str, str]]]) -> submission.Submission:
    """A submission whose inputs have these rows, by split name."""
    entries = {}
    for name, rows in parts.items():
        path = root / f"{name}.jsonl"
        path.write_bytes(b"".join(table.lines(table.Table([text for text, _ in rows], [label for _, label in rows]))))
        entries[name] = manifest.Entry(path.name, path.stat().st_size, manifest.sha256_of(path))
    return submission.Submission("t-aaaaaaaa", spec.from_mapping(DOCUMENT), entries, (), "0" * 64)


def first_protocol(root: Path, files: dict[str, str]) -> submission.Submission:
    """As an earlier version submitted it: the person's own CSV files, with columns of their own."""
    entries = {}
    for name, content in files.items():
        (root / f"{name}.csv").write_text(content, "utf-8", newline="")
        path = root / f"{name}.csv"
        entries[name] = manifest.Entry(path.name, path.stat().st_size, manifest.sha256_of(path))
    asked = spec.from_mapping(DOCUMENT | {"text_column": "review", "label_column": "mood"})
    document = submission.Submission("t-aaaaaaaa", asked, entries, (), "0" * 64, protocol=1).to_json()
    del document["origin"]
    return submission.parse(json.loads(json.dumps(document)), origin="test")


DOCUMENT = {"name": "t", "model_name_or_path": "b", "data": "reviews.csv"}


def test_labels_are_indices_into_names_in_order(tmp_path: Path) -> None:
    parts = {"train": [("x", "10"), ("y", "2"), ("z", "c")], "validation": [("x", "c")], "test": [("y", "10")]}
    splits = data.load_splits(tmp_path, submitted(tmp_path, parts))
    assert splits.label_names == ("2", "10", "c")
    assert splits.positive_label is None
    assert splits.train.label_ids.tolist() == [1, 0, 2]
    assert splits.validation.label_ids.tolist() == [2]
    assert len(splits.test) == 1


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (("aa", "a", "a"), r"train\.jsonl: only 'a'; training needs at least two classes"),
        (("ab", "cc", "a"), r"validation\.jsonl: labels that train has not: 'c' \(2 rows\)"),
    ],
)
def test_splits_that_cannot_be_trained_on(tmp_path: Path, parts: tuple[str, str, str], says: str) -> None:
    rows = {name: [("x", label) for label in part] for name, part in zip(SPLITS, parts, strict=True)}
    with pytest.raises(DataError, match=says):
        data.load_splits(tmp_path, submitted(tmp_path, rows))


def test_a_changed_file_is_not_trained_on(tmp_path: Path) -> None:
    frozen = submitted(tmp_path, {"train": [("x", "a"), ("y", "b")], "validation": [("x", "a")], "test": [("x", "a")]})
    (tmp_path / "test.jsonl").write_text('{"text": "z", "label": "a"}\n', "utf-8")
    with pytest.raises(DataError, match="not the file that was submitted"):
        data.load_splits(tmp_path, frozen)


def test_what_an_earlier_version_submitted_is_read_as_it_was(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(500)]
    rows = "".join(f"{text},{'ab'[number % 2]}\n" for number, text in enumerate(texts + texts[:50]))
    splits = data.load_splits(tmp_path, first_protocol(tmp_path, {"file": f"review,mood\n{rows}"}))
    sides = {text: name for name, split in splits.named().items() for text in split.texts}
    for text in texts:
        bucket = int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100
        assert sides[text] == ("train" if bucket < 80 else "validation" if bucket < 90 else "test")
    assert sum(map(len, splits.named().values())) == 550
    files = dict.fromkeys(SPLITS, f"review,mood\n{rows}")
    assert len(data.load_splits(tmp_path, first_protocol(tmp_path, files)).test) == 550
    with pytest.raises(DataError, match=r"file\.csv \((train|validation|test) split\)"):
        data.load_splits(tmp_path, first_protocol(tmp_path, {"file": "review,mood\nx,a\ny,b\n"}))


def test_where_the_data_came_from_survives_its_json(tmp_path: Path) -> None:
    frozen = submitted(tmp_path, {"train": [("x", "a")]})
    split = {"how": "stratified hash", "of": "file", "shares": {"validation": 0.1, "test": 0.1}}
    origin = submission.Origin(split, {"file": (manifest.Entry("re:views?.csv", 3, "a" * 64),)}, "c" * 40)
    document = json.loads(json.dumps(replace(frozen, origin=origin).to_json()))
    assert document["protocol"] == 2
    assert submission.parse(document, origin="test").origin == origin
