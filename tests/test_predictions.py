"""predictions.csv comes back exactly, and whatever is not one is refused with a sentence."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import BrokenRun
from jobs.predictions import MODEL_TITLES, Predictions, load

bounded = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Every character that UTF-8 can hold, and often those that mean something in a CSV file.
_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from('",;\r\n\t =+-@\ufeff\u2028_好')
_TEXTS = st.text(_CHARACTERS, max_size=30)
_LABELS = st.lists(st.text(_CHARACTERS, min_size=1, max_size=8), min_size=2, max_size=4, unique=True)


@st.composite
def predictions(draw):
    labels = tuple(draw(_LABELS))
    texts = tuple(draw(st.lists(_TEXTS, max_size=6)))
    shape = (len(texts), len(labels))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)
    rows = st.lists(number, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    truth = st.lists(st.integers(0, shape[1] - 1), min_size=shape[0], max_size=shape[0])
    models = draw(st.lists(st.sampled_from(list(MODEL_TITLES)), min_size=1, unique=True))
    logits = {model: np.array(draw(rows), np.float32).reshape(shape) for model in models}
    return Predictions(labels, texts, np.array(draw(truth), np.int64), logits)


@bounded
@given(predictions())
def test_everything_comes_back_exactly(tmp_path, original):
    path = tmp_path / "predictions.csv"
    original.save(path)
    back = load(path)
    assert (back.label_names, back.texts) == (original.label_names, original.texts)
    assert back.truth.dtype == np.int64 and back.truth.tolist() == original.truth.tolist()
    assert list(back.logits) == list(original.logits)
    for model, logits in original.logits.items():
        assert back.logits[model].dtype == np.float32
        assert back.logits[model].tobytes() == logits.tobytes()  # also tells -0.0 from 0.0
    first = path.read_bytes()
    back.save(path)
    assert path.read_bytes() == first


def two_rows(**changes):
    parts = {
        "label_names": ("neg", "pos"),
        "texts": ("好", "坏"),
        "truth": np.array([1, 0], np.int64),
        "logits": {"lora": np.array([[0.1, 2], [3, -1]], np.float32)},
    }
    return Predictions(**(parts | changes))


def test_any_csv_reader_understands_the_file(tmp_path):
    path = tmp_path / "p.csv"
    two_rows(texts=('=1+1,"x"\r\n', "-坏")).save(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == ['=1+1,"x"\r\n', "-坏"]  # formulas are not altered
    assert [(row["label"], row["predicted"]) for row in rows] == [("pos", "pos"), ("neg", "neg")]
    assert rows[0]["logit_lora_neg"] == "0.100000001"


def test_predicted_speaks_of_lora_wherever_it_stands(tmp_path):
    other = np.array([[1, 0], [0, 1]], np.float32)
    both = two_rows(logits={"majority": other, "lora": other[::-1].copy()})
    assert both.main == "lora" and two_rows(logits={"tfidf": other}).main == "tfidf"
    both.save(tmp_path / "p.csv")
    assert load(tmp_path / "p.csv").predicted("lora").tolist() == [1, 0]


def test_a_text_longer_than_the_csv_modules_limit_comes_back(tmp_path):
    long = "很" * 300_000
    two_rows(texts=(long, "")).save(tmp_path / "p.csv")
    assert load(tmp_path / "p.csv").texts == (long, "")


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path):
    path = tmp_path / "p.csv"
    two_rows().save(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load(path).texts == ("好", "坏")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "p.csv"
    two_rows().save(path)
    before = path.read_bytes()
    broken = two_rows()
    object.__setattr__(broken, "texts", ("ok", "\ud800"))
    with pytest.raises(UnicodeEncodeError):
        broken.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


NAN = np.array([[0, np.nan], [0, 0]], np.float32)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label_names": ("pos",)}, "two different labels"),
        ({"label_names": ("pos", "pos")}, "two different labels"),
        ({"label_names": ("pos", "")}, "two different labels"),
        ({"texts": ("a",)}, "shape"),
        ({"texts": ("a\0", "b")}, "NUL"),
        ({"texts": ("\ud800", "b")}, "surrogate"),
        ({"truth": np.array([1, 2], np.int64)}, "index the 2 labels"),
        ({"truth": np.array([-1, 0], np.int64)}, "index the 2 labels"),
        ({"truth": np.array([1.0, 0.0])}, "int64"),
        ({"logits": {}}, "models must be of"),
        ({"logits": {"gpt": np.zeros((2, 2), np.float32)}}, "models must be of"),
        ({"logits": {"lora": np.zeros((2, 2))}}, "float32"),
        ({"logits": {"lora": np.zeros((2, 3), np.float32)}}, "shape"),
        ({"logits": {"lora": NAN}}, "NaN or infinite logits .first in row 1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, says):
    with pytest.raises(BrokenRun, match=says):
        two_rows(**changes)


HEAD = "text,label,predicted,logit_lora_neg,logit_lora_pos\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "columns must be"),
        ("\n", "columns must be"),
        ("text,label,predicted\n", "columns must be"),
        ("text,label,predicted,logit_lora_neg\n", "two different labels"),
        ("text,label,predicted,logit_lora_neg,logit_lora_neg\n", "two columns named 'logit_lora_neg'"),
        ("text,text,predicted,logit_lora_neg,logit_lora_pos\n", "two columns named 'text'"),
        ("text,label,guess,logit_lora_neg,logit_lora_pos\n", "columns must be"),
        ("text,label,predicted,logit_gpt_neg,logit_gpt_pos\n", "unknown column 'logit_gpt_neg'"),
        ("text,label,predicted,logit_lora_neg,logit_lora_pos,note\n", "unknown column 'note'"),
        (HEAD.strip() + ",logit_tfidf_pos,logit_tfidf_neg\n", "same order"),
        (HEAD.strip() + ",logit_tfidf_neg\n", "same order"),
        ("text,label,predicted,logit_lora_neg,logit_tfidf_neg,logit_lora_pos,logit_tfidf_pos\n", "same"),
        (HEAD + "a,pos,pos,0\n", "line 2: 4 columns"),
        (HEAD + "a,pos,pos,0,1,2\n", "line 2: 6 columns"),
        (HEAD + "a,pos,pos,0,1\n\n", "line 3: 0 columns"),
        (HEAD + "a,good,pos,0,1\n", "unknown label 'good'"),
        (HEAD + "a,pos,good,0,1\n", "unknown label 'good'"),
        (HEAD + "a,pos,\x1b[31m,0,1\n", r"unknown label '\\x1b\[31m'"),
        (HEAD + "a,pos,pos,nan,1\n", "not a finite number: 'nan'"),
        (HEAD + "a,pos,pos,0,inf\n", "not a finite number"),
        (HEAD + "a,pos,pos,0,1e999\n", "too large"),
        (HEAD + "a,pos,pos,0,1e39\n", "too large"),
        (HEAD + "a,pos,pos,0,1_0\n", "not a finite number"),
        (HEAD + "a,pos,pos,0, 1\n", "not a finite number"),
        (HEAD + "a,pos,pos,0,１\n", "not a finite number"),
        (HEAD + "a,pos,pos,0,\n", "not a finite number"),
        (HEAD + "a,pos,pos,0," + "9" * 5000 + "\n", "not a finite number: '9{10,80}"),
        (HEAD + "a,pos,neg,0,1\n", "row 1: `predicted` is not"),
        (HEAD + '"a,pos,pos,0,1\n', "not a readable"),
        (HEAD + '"a"b,pos,pos,0,1\n', "not a readable"),
        (HEAD + "a\0,pos,pos,0,1\n", "NUL"),
    ],
)
def test_hostile_files_are_refused(tmp_path, content, says):
    path = tmp_path / "p.csv"
    path.write_text(content, "utf-8", newline="")
    with pytest.raises(BrokenRun, match=says) as caught:
        load(path)
    assert len(caught.value.message) < 400 + len(str(path)) and "\x1b" not in caught.value.message


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "p.csv"
    path.write_bytes(HEAD.encode() + b"\xff\xfe,pos,pos,0,1\n")
    with pytest.raises(BrokenRun, match="not a readable"):
        load(path)
    with pytest.raises(BrokenRun, match="not a readable"):
        load(tmp_path / "missing.csv")
    with pytest.raises(BrokenRun, match="not a readable"):
        load(tmp_path)


@bounded
@given(st.binary(max_size=120), st.integers(0, 200))
def test_random_damage_is_refused_or_harmless(tmp_path, damage, at):
    path = tmp_path / "p.csv"
    two_rows().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
    try:
        assert load(path).rows >= 0
    except BrokenRun as error:
        assert error.message
