"""What a run was made of: told by its host, held against what was submitted, before training and at home."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import make_base, make_run

from jobs import adapter, manifest, provenance, submission, training, verification
from jobs.__main__ import main
from jobs.run_directory import RunDirectory


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run whose base was sent along."""
    run = make_run(tmp_path_factory.mktemp("runs"), base, rows=64, pushed=True, baselines=[])
    training.train(run.root)
    return run


def told(run: RunDirectory) -> Any:
    return json.loads(run.training.read_text("utf-8"))["provenance"]


def test_a_run_tells_what_it_was_made_of_and_so_does_its_adapter_alone(trained: RunDirectory, base: Path) -> None:
    asked = submission.load(trained.spec)
    assert provenance.problems(asked, told(trained)) == []
    assert submission.parse(told(trained)["submission"], origin="here") == asked
    alone = json.loads((trained.adapter / adapter.CLASSIFIER).read_text("utf-8"))["sha256"]
    assert alone["data"] == {name: manifest.sha256_of(trained.inputs / f"{name}.jsonl") for name in asked.inputs}
    assert alone["base"]["model.safetensors"] == manifest.sha256_of(base / "model.safetensors")
    assert alone["base"].keys() == {path.name for path in base.iterdir()}


def other_weights(run: RunDirectory) -> None:
    path = run.inputs / "base" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def other_rows(run: RunDirectory) -> None:
    path = run.inputs / "train.jsonl"
    path.write_text(path.read_text("utf-8").replace("good", "bad", 1), "utf-8")


def other_code(run: RunDirectory) -> None:
    document = json.loads(run.spec.read_text("utf-8"))
    run.spec.write_text(json.dumps(document | {"code_sha256": "1" * 64}), "utf-8")


CHANGES: dict[str, tuple[Callable[[RunDirectory], Any], str]] = {
    "data": (other_rows, "train.jsonl: not the file that was submitted"),
    "base weights": (other_weights, "base: model.safetensors not as submitted"),
    "base tokenizer": (
        lambda run: (run.inputs / "base" / "tokenizer_config.json").write_text("{}"),
        "base: tokenizer_config.json not as submitted",
    ),
    "more weights": (
        lambda run: (run.inputs / "base" / "more.safetensors").write_bytes(b"x"),
        "base: 'more.safetensors' was not submitted",
    ),
    "base gone": (lambda run: (run.inputs / "base" / "generation_config.json").unlink(), "No such file"),
    "code": (other_code, "code: other than what was sent"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_after_the_push_is_not_trained_on(base: Path, tmp_path: Path, name: str) -> None:
    change, words = CHANGES[name]
    run = make_run(tmp_path, base, rows=64, pushed=True)
    change(run)
    assert main(["train", str(run.root)]) == 1
    result = json.loads(run.result.read_text("utf-8"))
    assert result["state"] == "failed" and words in result["reason"]
    assert not run.artifacts.exists()


def test_a_base_that_changed_after_it_was_fetched_is_not_trained_on(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    run = make_run(tmp_path / "runs", base, rows=64)
    assert main(["fetch", str(run.root)]) == 0
    content = bytearray((base / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (base / "model.safetensors").write_bytes(content)
    assert main(["train", str(run.root)]) == 1
    assert "base: model.safetensors not as submitted" in json.loads(run.result.read_text("utf-8"))["reason"]


def own(run: RunDirectory, **changes: Any) -> submission.Submission:
    return replace(submission.load(run.spec), **changes)


def checked(run: RunDirectory, mine: submission.Submission) -> Any:
    checks = verification.verify(run, base_folder=None, where="home", submission=mine, static_only=True).checks
    return next(check for check in checks if check.id == "provenance")


def test_at_home_the_laptops_own_memory_is_what_counts(trained: RunDirectory) -> None:
    mine = own(trained)
    assert checked(trained, mine).status == "pass"
    entry = manifest.Entry("inputs/train.jsonl", 1, "1" * 64)
    spec = replace(mine.spec, learning_rate=1e-3, seed=7)
    for changed, words in (
        (own(trained, spec=spec), "spec: other spec.learning_rate, spec.seed"),
        (own(trained, inputs=mine.inputs | {"train": entry}), "data: train not as submitted"),
        (own(trained, code_sha256="1" * 64), "code: other than what was sent"),
        (own(trained, base_files=mine.base_files[1:]), "base: 'config.json' was not submitted"),
    ):
        found = checked(trained, changed)
        assert (found.status, found.required) == ("fail", True)
        assert words in found.detail and found.meaning and found.todo


def test_a_commit_that_was_asked_for_is_the_one_that_was_trained_on(trained: RunDirectory) -> None:
    commit = "a" * 40
    mine = own(trained, base_files=(), spec=replace(own(trained).spec, model_revision=commit))
    record = told(trained) | {"submission": mine.to_json()}
    [wrong] = provenance.problems(mine, record)
    assert wrong == f"base: commit 'main', asked for was {commit}"
    record["base"] = {"revision": commit, "files": {"model.safetensors": "0" * 64}}
    assert provenance.problems(mine, record) == []


def test_a_run_of_an_older_version_tells_nothing_and_is_not_held_to_it(trained: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / trained.run_id)
    run.artifacts.mkdir(parents=True)
    record = json.loads(trained.training.read_text("utf-8"))
    del record["provenance"]
    run.training.write_text(json.dumps(record))
    found = checked(run, own(trained))
    assert (found.status, found.required) == ("not_checked", False)


def test_keys_that_the_hosts_older_version_did_not_know_are_no_difference(trained: RunDirectory) -> None:
    record = told(trained)
    assert record["submission"]["spec"].pop("early_stopping_patience") == 0
    assert provenance.problems(own(trained), record) == []


@pytest.mark.parametrize(
    "record",
    [[], "x", 1, {}, {"submission": []}, {"submission": {"protocol": float("inf")}}, {"data": [], "base": "x"},
     {"base": {"files": [1]}}, {"data": {"train": {}, "\x1b[2J": 1}}],
)  # fmt: skip
def test_a_record_of_anything_is_a_difference_and_no_crash(trained: RunDirectory, record: Any) -> None:
    found = provenance.problems(own(trained), record)
    assert found and "\x1b" not in "".join(found)


def test_a_record_nested_beyond_reason(trained: RunDirectory) -> None:
    record, nested = told(trained), {}
    for _ in range(400):
        nested = {"a": nested}
    record["submission"]["origin"]["split"] = nested
    assert any(one.startswith("spec: ") for one in provenance.problems(own(trained), record))
