"""predictions.parquet holds the predictions to the bit, and whatever is not one is refused with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import predictions_parquet
from jobs.errors import BrokenRun, NoData
from jobs.predictions import MODEL_TITLES, Predictions

bounded = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('",;.\r\n\t =+-@\ufeff\u2028_好')
_TEXTS = st.lists(st.text(_CHARACTERS, max_size=30), min_size=1, max_size=6)
_LABELS = st.lists(st.text(_CHARACTERS, min_size=1, max_size=8), min_size=2, max_size=4, unique=True)


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    labels, texts = tuple(draw(_LABELS)), tuple(draw(_TEXTS))
    shape = (len(texts), len(labels))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = st.lists(number, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    truth = draw(st.lists(st.integers(0, shape[1] - 1), min_size=shape[0], max_size=shape[0]))
    models = draw(st.lists(st.sampled_from(list(MODEL_TITLES)), min_size=1, unique=True))
    logits = {model: np.array(draw(rows), np.float32).reshape(shape) for model in models}
    return Predictions(labels, texts, np.array(truth, np.int64), logits)


def is_same(one: Predictions, other: Predictions) -> bool:
    return (
        (one.label_names, one.texts, list(one.logits)) == (other.label_names, other.texts, list(other.logits))
        and one.truth.tolist() == other.truth.tolist()
        and all(one.logits[model].tobytes() == other.logits[model].tobytes() for model in one.logits)
    )


@bounded
@given(predictions(), st.none() | st.floats(0.1, 10))
def test_everything_comes_back_to_the_bit(tmp_path: Path, original: Predictions, temperature: float | None) -> None:
    path = tmp_path / "predictions.parquet"
    predictions_parquet.save(path, original, temperature)
    assert is_same(predictions_parquet.load(path), original)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def two_rows() -> Predictions:
    logits = {"tfidf": np.array([[1, 0], [-0.0, 0.0]], np.float32), "lora": np.array([[0, 2], [3, -1]], np.float32)}
    return Predictions(("neg", "pos"), ("=1+1\r\n", "坏"), np.array([1, 1], np.int64), logits)


def test_a_data_frame_has_labels_and_probabilities_after_scaling(tmp_path: Path) -> None:
    predictions_parquet.save(tmp_path / "p.parquet", two_rows(), 2.0)
    table = parquet.read_table(tmp_path / "p.parquet")
    assert table.column_names == [
        "text", "label", "predicted", "confidence", "probability_neg", "probability_pos",
        "logit_tfidf_neg", "logit_tfidf_pos", "logit_lora_neg", "logit_lora_pos",
    ]  # fmt: skip
    first, second = table.to_pylist()
    assert (first["text"], first["label"], first["predicted"]) == ("=1+1\r\n", "pos", "pos")
    assert (second["label"], second["predicted"]) == ("pos", "neg")
    assert first["probability_pos"] == first["confidence"] == pytest.approx(1 / (1 + np.exp(-2 / 2)))
    assert table.schema.field("logit_lora_pos").type == arrow.float32()
    assert parquet.ParquetFile(tmp_path / "p.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_many_rows_lie_in_several_row_groups(tmp_path: Path) -> None:
    rows = 2 * predictions_parquet.ROWS + 1
    logits = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32)
    texts = tuple(str(row) for row in range(rows))
    many = Predictions(("a", "b"), texts, np.arange(rows, dtype=np.int64) % 2, {"lora": logits})
    predictions_parquet.save(tmp_path / "p.parquet", many, None)
    assert parquet.ParquetFile(tmp_path / "p.parquet").num_row_groups == 3
    assert is_same(predictions_parquet.load(tmp_path / "p.parquet"), many)


def test_no_rows_are_no_file(tmp_path: Path) -> None:
    none = Predictions(("a", "b"), (), np.zeros(0, np.int64), {"lora": np.zeros((0, 2), np.float32)})
    with pytest.raises(NoData):
        predictions_parquet.save(tmp_path / "p.parquet", none, None)
    assert not (tmp_path / "p.parquet").exists()


COLUMNS: dict[str, Any] = {
    "text": ["好"], "label": ["b"], "predicted": ["b"],
    "logit_lora_a": arrow.array([0.5], arrow.float32()), "logit_lora_b": arrow.array([1.5], arrow.float32()),
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text": None}, "columns must be"),
        ({"logit_lora_b": None}, "unknown label"),
        ({"text": [b"\xff\xfe"]}, "holds binary"),
        ({"text": ["a\0b"]}, "NUL"),
        ({"label": ["c"]}, "unknown label"),
        ({"label": arrow.array([None], arrow.string())}, "a cell is empty"),
        ({"logit_lora_b": arrow.array([None], arrow.float32())}, "a cell is empty"),
        ({"logit_lora_b": arrow.array([float("nan")], arrow.float32())}, "NaN"),
        ({"logit_lora_b": ["1.5"]}, "holds string"),
        ({"logit_lora_b": arrow.array([1.5], arrow.float64())}, "holds double"),
        ({"logit_evil_b": arrow.array([1.5], arrow.float32())}, "unknown column"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_is_not_a_predictions_file_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    columns = {name: values for name, values in (COLUMNS | changes).items() if values is not None}
    parquet.write_table(arrow.table(columns), tmp_path / "p.parquet")
    with pytest.raises(BrokenRun, match=says):
        predictions_parquet.load(tmp_path / "p.parquet")


@bounded
@given(st.binary(max_size=200), st.integers(0, 2000))
def test_damaged_bytes_are_refused_or_hold_what_they_held(tmp_path: Path, noise: bytes, at: int) -> None:
    path = tmp_path / "p.parquet"
    if not path.exists():
        predictions_parquet.save(tmp_path / "whole.parquet", two_rows(), None)
    content = (tmp_path / "whole.parquet").read_bytes()
    path.write_bytes(content[:at] + noise + content[at + len(noise) :])
    try:
        loaded = predictions_parquet.load(path)
    except BrokenRun as error:
        assert str(path) in error.message
    else:
        assert loaded.rows == 2
