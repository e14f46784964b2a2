"""Whatever the source, the same rows are sent; missing splits are cut out; the test split is found again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jobs import manifest
from jobs.errors import DataError
from jobs.spec import Spec, from_mapping
from jobs.submission import Submission
from launcher import checked_data, dataset
from tests import hub_server

ROWS = [
    (f"评论 {number}：{'很好' if number % 2 else '很差'}", "good" if number % 2 else "bad") for number in range(300)
]

LOAD = """
import json, sys
from pathlib import Path
from jobs.errors import DataError
from jobs.spec import from_mapping
from launcher import dataset
try:
    found = dataset.read(from_mapping(json.loads(sys.argv[1])), Path.cwd())
except DataError as error:
    print(json.dumps({"error": error.message, "hint": error.hint}))
else:
    print(json.dumps({
        "rows": {name: [table.texts, table.labels] for name, table in found.tables.items()},
        "origin": [found.origin.split, found.origin.commit], "unused": found.unused,
        "data": found.spec_data.dataset, "torch": "torch" in sys.modules,
    }, default=str))
"""


def spec_of(data: Any, **keys: Any) -> Spec:
    return from_mapping({"name": "t", "model_name_or_path": "m", "data": data, **keys})


def csv_file(path: Path, rows: list[tuple[str, str]] = ROWS, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding)
    return path


def sent(spec: Spec, folder: Path) -> dict[str, bytes]:
    return {
        name: path.read_bytes() for name, path in dataset.write(dataset.read(spec, folder).tables, folder / "c").items()
    }


def test_the_same_rows_give_the_same_bytes_wherever_they_come_from(tmp_path: Path) -> None:
    csv_file(tmp_path / "r.csv")
    csv_file(tmp_path / "gbk.csv", encoding="gbk")
    lines = [json.dumps({"label": label, "text": text, "secret": 1}) + "\n" for text, label in ROWS]
    (tmp_path / "r.jsonl").write_text("".join(lines))
    columns = {"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "r.parquet")
    csv_file(tmp_path / "folder" / "1.csv", ROWS[:100])
    csv_file(tmp_path / "folder" / "2.csv", ROWS[100:])
    names = ("r.csv", "gbk.csv", "r.jsonl", "r.parquet", "folder")
    everything = [sent(spec_of(name), tmp_path) for name in names]
    assert all(one == everything[0] for one in everything)
    assert sorted(b"".join(everything[0].values()).splitlines()) == sorted(
        json.dumps({"text": text, "label": label}, ensure_ascii=False).encode() for text, label in ROWS
    )
    # Named by their content, and nothing is left half-written beside them.
    files = sorted((tmp_path / "c" / dataset.FOLDER).iterdir())
    assert len(files) == 3
    assert all(file.stem == manifest.sha256_of(file) for file in files)


@pytest.mark.parametrize("given", [["file"], ["train"], ["train", "test"], ["train", "validation"]])
def test_what_is_missing_is_cut_out_and_recorded(tmp_path: Path, given: list[str]) -> None:
    for name in given:
        csv_file(tmp_path / f"{name}.csv", ROWS if name in ("file", "train") else ROWS[:10])
    found = dataset.read(spec_of({name: f"{name}.csv" for name in given}), tmp_path)
    missing = [name for name in ("validation", "test") if name not in given]
    assert list(found.tables) == ["train", "validation", "test"]
    assert found.origin.split == {"how": "stratified hash", "of": given[0], "shares": dict.fromkeys(missing, 0.1)}
    assert sum(len(found.tables[name]) for name in ("train", *missing)) == len(ROWS)
    assert all(10 <= len(table) <= 280 for table in found.tables.values())
    assert found.in_words().endswith(f"cut out of {given[0]} by a stratified hash of the texts")
    assert {name: entry.size_bytes for name, (entry,) in found.origin.files.items()} == {
        name: (tmp_path / f"{name}.csv").stat().st_size for name in given
    }


def test_a_folder_whose_files_are_called_like_splits(tmp_path: Path) -> None:
    for name, rows in (
        ("train-1", ROWS[:100]),
        ("train-2", ROWS[100:200]),
        ("Dev", ROWS[200:240]),
        ("test", ROWS[240:]),
    ):
        csv_file(tmp_path / "d" / f"{name}.csv", rows)
    found = dataset.read(spec_of("d"), tmp_path)
    assert {name: len(table) for name, table in found.tables.items()} == {"train": 200, "validation": 40, "test": 60}
    assert found.origin.split == {"how": "given"}
    csv_file(tmp_path / "d" / "more.csv")
    with pytest.raises(DataError, match=r"look like splits, more\.csv do not"):
        dataset.read(spec_of("d"), tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    for path in ("none.csv", "data/none.csv", "./none", "/none/none", "none"):
        with pytest.raises(DataError, match="no such file"):
            dataset.read(spec_of(path), tmp_path)


def submitted(spec: Spec, folder: Path, cache: Path) -> tuple[Submission, dict[str, str]]:
    found = dataset.read(spec, folder)
    files = dataset.write(found.tables, cache)
    entries = {
        name: manifest.Entry(f"inputs/{name}.jsonl", path.stat().st_size, manifest.sha256_of(path))
        for name, path in files.items()
    }
    asked = replace(spec, data=found.spec_data)
    return Submission("t-aaaaaaaa", asked, entries, (), "0" * 64, origin=found.origin), found.sources


@pytest.mark.parametrize("form", ["splits", "file", "folder"])
def test_the_test_split_is_found_again_or_made_again_or_not_to_be_had(tmp_path: Path, form: str) -> None:
    for number, name in enumerate(("train", "validation", "test")):
        csv_file(tmp_path / "d" / f"{name}.csv", ROWS[100 * number : 100 * (number + 1)])
    csv_file(tmp_path / "all.csv")
    data: Any = {"splits": {name: f"d/{name}.csv" for name in ("train", "validation", "test")}, "file": "all.csv"}
    cache = tmp_path / "cache"
    frozen, sources = submitted(spec_of(data.get(form, "d")), tmp_path, cache)
    there = dataset.test_file(frozen, sources, cache)
    assert there is not None
    before = there.read_bytes()
    there.write_bytes(before[:-1])  # not what was sent any more
    shutil.rmtree(cache / "data") if form == "file" else None
    assert dataset.test_file(frozen, sources, cache) == there
    assert there.read_bytes() == before
    shutil.rmtree(cache)
    if form == "splits":
        (tmp_path / "d" / "train.csv").unlink()  # is not needed
        assert dataset.test_file(frozen, sources, cache) == there
        shutil.rmtree(cache)
    changed = tmp_path / ("all.csv" if form == "file" else "d/test.csv")
    changed.write_text(changed.read_text("utf-8").replace("很差", "很坏"), "utf-8")
    assert dataset.test_file(frozen, sources, cache) is None
    changed.unlink()
    assert dataset.test_file(frozen, sources, cache) is None
    assert dataset.test_file(frozen, {}, cache) is None


def test_the_test_split_of_an_earlier_version(tmp_path: Path) -> None:
    path = csv_file(tmp_path / "r.csv")
    entry = manifest.Entry("inputs/file.csv", path.stat().st_size, manifest.sha256_of(path))
    frozen = Submission("t-aaaaaaaa", spec_of("r.csv"), {"file": entry}, (), "0" * 64, protocol=1)
    found = dataset.test_file(frozen, {"file": str(path)}, tmp_path / "cache")
    assert found is not None
    assert 15 < len(found.read_text("utf-8").splitlines()) < 60
    frozen = replace(frozen, inputs={"test": entry})
    found = dataset.test_file(frozen, {"test": str(path)}, tmp_path / "cache")
    assert found is not None
    assert len(found.read_text("utf-8").splitlines()) == len(ROWS)
    csv_file(path, ROWS[1:])
    assert dataset.test_file(frozen, {"test": str(path)}, tmp_path / "cache") is None


def of_hub(hub: hub_server.Hub, folder: Path, data: Any, **more: str) -> Any:
    """As a process of its own that knows this hub only."""
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HUGGING"))}
    env |= {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1", **more}
    env["PYTHONPATH"] = str(Path(dataset.__file__).parents[1])
    document = {"name": "t", "model_name_or_path": "m", "data": data}
    argv = [sys.executable, "-P", "-c", LOAD, json.dumps(document)]
    done = subprocess.run(argv, env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_dataset_of_the_hub(tmp_path: Path) -> None:
    repository, laptop = tmp_path / "repository", tmp_path / "laptop"
    laptop.mkdir()
    for name, rows in (("train", ROWS[:200]), ("dev", ROWS[200:240]), ("test", ROWS[240:])):
        csv_file(repository / f"{name}.csv", rows)
    with hub_server.serve({"org/reviews": repository}) as hub:
        found = of_hub(hub, laptop, "org/reviews")
        assert found["rows"]["validation"] == [list(column) for column in zip(*ROWS[200:240], strict=True)]
        assert {name: len(rows[0]) for name, rows in found["rows"].items()} == {
            "train": 200,
            "validation": 40,
            "test": 60,
        }
        assert found["origin"] == [{"how": "given"}, hub_server.COMMIT]
        assert found["data"] == "org/reviews"
        assert found["torch"] is False
        assert all(request.split(" ")[1].startswith(("/api/", "/datasets/")) for request in hub.requests)
        hub.forget()
        offline = of_hub(hub, laptop, {"dataset": "org/reviews"}, HF_HUB_OFFLINE="1")
        assert (offline["rows"], offline["origin"]) == (found["rows"], found["origin"])
        assert hub.requests == []
        absent = of_hub(hub, laptop, "org/absent")
        assert absent["error"].startswith(
            "org/absent: no such file or folder here, and the dataset org/absent of the Hub"
        )
        assert "hf download" in absent["hint"]
        (laptop / "sub" / "org" / "reviews").mkdir(parents=True)
        assert "and a path here" in of_hub(hub, laptop / "sub", {"dataset": "org/reviews"})["error"]
        config = of_hub(hub, laptop, {"dataset": "org/reviews", "config": "no-such"})
        assert "no-such" in config["error"]
        assert "Traceback" not in config["error"]


def test_classes_by_name_hidden_labels_and_other_splits_of_a_dataset(tmp_path: Path) -> None:
    repository, laptop = tmp_path / "repository", tmp_path / "laptop"
    repository.mkdir()
    laptop.mkdir()
    for name, labels in (
        ("train", [number % 2 for number in range(300)]),
        ("test", [-1] * 20),
        ("unsupervised", [-1] * 9),
    ):
        columns = {"text": [f"{name} {number}" for number in range(len(labels))], "label": labels}
        pyarrow.parquet.write_table(pyarrow.table(columns), repository / f"{name}.parquet")
    (repository / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        + "".join(f"  - split: {name}\n    path: {name}.parquet\n" for name in ("train", "test", "unsupervised"))
        + "dataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n"
        + "      class_label:\n        names:\n          '0': bad\n          '1': good\n---\n"
    )
    with hub_server.serve({"org/reviews": repository}) as hub:
        found = of_hub(hub, laptop, {"dataset": "org/reviews", "revision": hub_server.COMMIT})
    assert found["rows"]["train"][1][:2] in (["bad", "good"], ["good", "bad"])
    assert {label for rows in found["rows"].values() for label in rows[1]} == {"bad", "good"}
    assert found["unused"] == ["test", "unsupervised"]
    assert found["origin"][0]["shares"] == {"validation": 0.1, "test": 0.1}
    assert sum(len(rows[0]) for rows in found["rows"].values()) == 300


@pytest.mark.parametrize(
    ("labels", "asked", "said"),
    [
        (["a", "b", "c"], {"threshold_goal": "f1"}, "threshold_goal f1: there are 3 labels, not two"),
        (["a", "b"], {"robustness": "yes"}, "which of the labels a, b means a good review is not known"),
        (["a", "b"], {"threshold_goal": "f1"}, ""),
        (["neg", "pos"], {"robustness": "yes"}, ""),
        (["a", "b"], {"robustness": "auto"}, ""),
    ],
)
def test_what_the_labels_cannot_give_is_said_before_anything_is_sent(
    tmp_path: Path, labels: list[str], asked: dict[str, str], said: str
) -> None:
    rows = [f"text {number} of {labels[number % len(labels)]},{labels[number % len(labels)]}" for number in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows]))
    spec = from_mapping({"name": "x", "model_name_or_path": "org/base", "data": "a.csv", **asked})
    found = [one.what for one in checked_data.look(spec, tmp_path, None).report.findings if one.code == "labels_unfit"]
    assert found == ([f"robustness: {said}" if "robustness" in asked else said] if said else [])
