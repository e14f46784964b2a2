"""The spec: defaults, flags over it, and every problem at once."""

from __future__ import annotations

import dataclasses
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import SpecError
from jobs.spec import Spec, from_mapping, load, option_fields

SMALLEST = {"name": "a", "model_name_or_path": "m", "data": {"train": "1", "validation": "2", "test": "3"}}


def write(folder: Path, text: str) -> Path:
    path = folder / "reviews.yaml"
    path.write_bytes(text.encode("utf-8"))
    return path


def test_the_smallest_spec_and_its_defaults(tmp_path: Path) -> None:
    spec = load(write(tmp_path, "model_name_or_path: Qwen/Qwen2.5-1.5B\ndata: all.csv\n"))
    assert spec.name == "reviews"  # from the file
    assert spec.data.named() == {"file": "all.csv"}
    assert (spec.lora_r, spec.max_length, spec.learning_rate) == (16, 256, 2e-4)


@pytest.mark.parametrize(
    "data",
    [
        {"train": "a"}, {"train": "a", "test": "b"}, {"train": "a", "validation": "b"}, {"dataset": "o/n"},
        {"dataset": "o/n", "config": "c", "revision": "r"},
    ],
)  # fmt: skip
def test_splits_that_are_not_named_and_datasets(data: dict[str, str]) -> None:
    spec = from_mapping({**SMALLEST, "data": data})
    assert from_mapping(spec.to_json()) == spec
    assert {key: value for key, value in spec.to_json()["data"].items() if value} == data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"file": "a", "train": "b"}, "either one file, splits, or a dataset"),
        ({"dataset": "o/n", "train": "b"}, "either one file, splits, or a dataset"),
        ({"file": "a", "test": "b"}, "either one file, splits, or a dataset"),
        ({"train": "a", "config": "b"}, "config and revision are of a dataset"),
        ({"dataset": 1}, "data.dataset: a name"),
        ({"trian": "a"}, "unknown trian"),
        ([], "one file"),
    ],
)
def test_data_that_cannot_be(data: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        from_mapping({**SMALLEST, "data": data})


def test_numbers_that_yaml_reads_as_text_and_flags_over_them(tmp_path: Path) -> None:
    path = write(tmp_path, "model_name_or_path: m\ndata: a.csv\nlearning_rate: 2e-4\nbf16: no\n")
    assert load(path).learning_rate == 2e-4
    assert load(path).bf16 == "no"
    assert load(path, {"learning_rate": "1e-3", "seed": "7"}) == load(path, {"learning_rate": 1e-3, "seed": 7})


def test_words_and_auto_as_flags_and_as_lists() -> None:
    given = {**SMALLEST, "target_modules": "q_proj, v_proj", "baselines": ["majority"], "report_to": "none"}
    spec = from_mapping({**given, "tokens_per_batch": "auto", "gpus": "2", "price": "1.98/h", "max_cost": 20})
    assert (spec.target_modules, spec.baselines, spec.report_to) == (("q_proj", "v_proj"), ("majority",), ())
    assert (spec.tokens_per_batch, spec.gpus, spec.price) == ("auto", 2, 1.98)
    assert (
        from_mapping({**SMALLEST, "prompt_template": "评价：{text}\\n情感："}).prompt_template == "评价：{text}\n情感："
    )


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("prompt_template", "no text", "with {text} in it once"),
        ("prompt_template", "{text}{text}", "with {text} in it once"),
        ("baselines", "frozen,magic", "of majority, tfidf, frozen, not magic"),
        ("report_to", [1], "a list of words"),
        ("gpus", "many", "a whole number or auto"),
        ("max_cost", 5, "needs the price"),
        ("price", "dear", "price: a number"),
    ],
)
def test_what_words_auto_and_templates_refuse(key: str, value: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        from_mapping({**SMALLEST, key: value})


def test_every_problem_is_reported_at_once_with_the_allowed_keys(tmp_path: Path) -> None:
    text = "data: {test: a}\nlearn_rate: 1\nlora_r: 0\nseed: 1.5\n"
    text += "use_rslora: maybe\nlr_scheduler_type: sine\nlora_alpha: .nan\n"
    with pytest.raises(SpecError) as caught:
        load(write(tmp_path, text))
    found = "\n".join(caught.value.problems)
    for word in (
        "model_name_or_path: missing",
        "learn_rate: unknown key, did you mean learning_rate?",
        "lora_r: between",
        "seed: a whole number",
        "use_rslora: true or false",
        "lr_scheduler_type: one of",
        "lora_alpha: a number",
        "data: train is missing",
    ):
        assert word in found
    assert len(caught.value.problems) == 8
    assert "model_revision" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "- a list", "a: b: c", "!!python/object/apply:os.system [ls]", "a: &a [*a]", "\x00", "x: {y: " * 3000]
)
def test_what_is_no_spec_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpecError):
        load(write(tmp_path, text))


def test_a_missing_file_and_bytes_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "gbk.yaml").write_bytes("name: 评论".encode("gbk"))
    with pytest.raises(SpecError, match="UTF-8"):
        load(tmp_path / "gbk.yaml")


@settings(deadline=None)  # the first example imports YAML's tables and more
@given(
    st.dictionaries(
        st.sampled_from([f.name for f in option_fields()] + ["x"]),
        st.none() | st.text() | st.floats() | st.lists(st.integers()),
    )
)
def test_any_values_give_a_spec_or_a_spec_error(values: dict[str, object]) -> None:
    try:
        spec = from_mapping({**SMALLEST, **values})
    except SpecError as error:
        assert error.problems
        return
    assert from_mapping(spec.to_json()) == spec


def test_a_spec_survives_its_json() -> None:
    spec = Spec(**{**SMALLEST, "data": from_mapping(SMALLEST).data, "lora_dropout": 0.1})
    assert from_mapping(spec.to_json()) == spec


def key_table() -> str:
    """All keys with their defaults, as a table in Markdown."""
    lines = ["| key | default | |", "| --- | --- | --- |"]
    for known in fields(Spec):
        default = known.default
        if default is dataclasses.MISSING:
            shown = "file's name" if known.name == "name" else "needed"
        elif isinstance(default, tuple):
            shown = f"`{', '.join(default) or 'none'}`"
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        choices = known.metadata.get("choices") or known.metadata.get("allowed") or ()
        listed = f" ({', '.join(choices)})" if choices else ""
        lines.append(f"| `{known.name}` | {shown} | {known.metadata['help']}{listed} |")
    return "\n".join(lines)


def test_the_docs_have_every_key_as_it_is() -> None:
    docs = (Path(__file__).resolve().parent.parent / "docs" / "training.md").read_text("utf-8")
    assert docs.partition("<!-- keys")[2].partition("\n")[2].strip() == key_table()
