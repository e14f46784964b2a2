"""A classifier from disk: the same answers whatever the order, the windows and the breaks; long texts; empty ones."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_adapter import LABELS, make_adapter, one_by_one
from tiny import DECODERS, ENCODERS, make_base_of, toy_rows

from jobs import adapter, tokens
from jobs.classifier import Classifier
from jobs.errors import AdapterRejected, BrokenRun, DataError
from jobs.pace import Pace

TEXTS = [text * (1 + number % 3) for number, (text, _) in enumerate(toy_rows(90, 3))]


def opened(base: Path, folder: Path, window: int | None = None, budget: int | str = 256) -> Classifier:
    return Classifier.open(base, folder, label_names=LABELS, tokens_per_batch=budget, window=window)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base_of("qwen3", tmp_path_factory.mktemp("qwen3") / "base")


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    told = {"empty_text_logits": [-1.5, 0.25]}
    return make_adapter(base, tmp_path_factory.mktemp("adapter") / "adapter", saved=told)


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        *((kind, {}) for kind in (*DECODERS, *ENCODERS)),
        ("qwen3", {"use_rslora": False, "target_modules": ["q_proj"]}),
        ("bert", {"use_rslora": False, "target_modules": ["query", "value"]}),
        ("gpt2", {"lora_r": 1, "target_modules": ["c_attn"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_merged_answers_are_those_of_lora_beside_the_base(kind: str, keys: dict[str, Any], tmp_path: Path) -> None:
    base = make_base_of(kind, tmp_path / "base")
    folder = make_adapter(base, tmp_path / "adapter", **keys)
    rows = tokens.encode(adapter.load_tokenizer(folder), TEXTS[:12], 24)
    expected = one_by_one(base, folder, rows)
    found = opened(base, folder).logits(TEXTS[:12])
    assert np.abs(found - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_modules_that_were_trained_whole_are_answered_with(kind: str, tmp_path: Path) -> None:
    base = make_base_of(kind, tmp_path / "base")
    whole = "embed_tokens" if kind == "qwen3" else "word_embeddings"
    folder = make_adapter(base, tmp_path / "adapter", modules_to_save=[whole])
    rows = tokens.encode(adapter.load_tokenizer(folder), TEXTS[:12], 24)
    found = opened(base, folder).logits(TEXTS[:12])
    assert np.abs(found - one_by_one(base, folder, rows)).max() < 1e-5
    other = opened(base, make_adapter(base, tmp_path / "other")).logits(TEXTS[:12])
    assert np.abs(found - other).max() > 1e-3


ANY_TEXT = st.text(max_size=60) | st.text(st.sampled_from("好坏 ab\n\u200b"), max_size=60)


@settings(max_examples=40, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=24), window=st.integers(1, 30), budget=st.integers(16, 400))
def test_any_texts_in_any_order_and_windows_are_answered_as_alone(
    base: Path, folder: Path, texts: list[str], window: int, budget: int
) -> None:
    classifier = replace(_one(base, folder), window=window, tokens_per_batch=budget)
    alone = replace(classifier, window=1)
    expected = [alone.logits([text])[0] for text in texts]
    found = list(classifier.answers(text for text in texts))
    assert [len(part) for part in found[:-1]] == [window] * (len(found) - 1)
    together = classifier.logits(iter(texts))
    assert together.shape == (len(texts), 2) and together.dtype == np.float32
    for row, wanted in zip(together, expected, strict=True):
        assert np.abs(row - wanted).max() < 1e-5
    assert not found or np.array_equal(np.concatenate(found), together)


_OPENED: dict[Path, Classifier] = {}


def _one(base: Path, folder: Path) -> Classifier:
    """Opened once for many examples."""
    if folder not in _OPENED:
        _OPENED[folder] = opened(base, folder)
    return _OPENED[folder]


def test_empty_texts_are_answered_without_the_model(base: Path, folder: Path) -> None:
    said = _one(base, folder).logits(["", "好好", "\t\u200b"])
    assert said[[0, 2]].tolist() == [[-1.5, 0.25]] * 2
    assert np.abs(said[1] - said[0]).max() > 1e-4
    assert _one(base, folder).logits([" "]).tolist() == [[-1.5, 0.25]]
    assert _one(base, folder).logits([]).shape == (0, 2)


def test_an_older_adapter_without_an_answer_to_empty_texts(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(base, tmp_path / "adapter")
    said = opened(base, folder).logits(["", "好"])
    assert np.isfinite(said).all()


def test_memory_holds_one_window_of_texts(base: Path, folder: Path) -> None:
    classifier = replace(_one(base, folder), window=10)
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield TEXTS[drawn % len(TEXTS)]

    answers = classifier.answers(endless())
    for count in (10, 20, 30):
        assert len(next(answers)) == 10
        assert drawn == count


def test_progress_goes_from_nothing_to_all(base: Path, folder: Path) -> None:
    told: list[tuple[int, int | None]] = []
    replace(_one(base, folder), window=32).logits(
        TEXTS, rows=len(TEXTS), progress=lambda done, of: told.append((done, of))
    )
    assert told[0] == (0, 90) and told[-1] == (90, 90)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {of for _, of in told} == {90}


@pytest.mark.parametrize("length", [0, "24", True, None, 10**7])
def test_a_length_that_cannot_be(base: Path, folder: Path, tmp_path: Path, length: Any) -> None:
    with pytest.raises(AdapterRejected, match="impossible max_length"):
        opened(base, changed(folder, tmp_path / "copy", max_length=length))


def changed(folder: Path, copy: Path, **changes: Any) -> Path:
    """A copy of an adapter with other keys in its classifier.json."""
    import shutil

    shutil.copytree(folder, copy)
    path = copy / adapter.CLASSIFIER
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return copy


# --- what classifier.json says


@pytest.mark.parametrize(
    ("key", "read", "good", "bad"),
    [
        ("temperature", adapter.temperature, [0.05, 1, 20.0], [0.04, 21, 0, True, "1", float("nan"), [1]]),
        ("threshold", adapter.threshold, [0, 0.5, 1.0], [-0.1, 1.1, False, "0.5", float("inf"), {}]),
    ],
)
def test_temperature_and_threshold_are_read_with_care(
    folder: Path, tmp_path: Path, key: str, read: Any, good: list[Any], bad: list[Any]
) -> None:
    for number, value in enumerate(good):
        assert read(changed(folder, tmp_path / f"good{number}", **{key: value})) == float(value)
    for number, value in enumerate(bad):
        with pytest.raises(AdapterRejected, match=f"{key} is no number"):
            read(changed(folder, tmp_path / f"bad{number}", **{key: value}))
    assert read(changed(folder, tmp_path / "null", **{key: None})) is None
    assert read(folder) is None


def test_what_is_saved_is_read(base: Path, tmp_path: Path) -> None:
    told = {"temperature": 1.5, "threshold": 0.25}
    folder = make_adapter(base, tmp_path / "adapter", saved=told, long_texts="windows")
    assert (adapter.temperature(folder), adapter.threshold(folder)) == (1.5, 0.25)
    assert adapter.long_texts(folder) == "windows"


@pytest.mark.parametrize("way", ["tail", None, 1, ["head"]])
def test_another_way_to_read_long_texts_is_refused(folder: Path, tmp_path: Path, way: Any) -> None:
    with pytest.raises(AdapterRejected, match="not a way to read long texts"):
        adapter.long_texts(changed(folder, tmp_path / "copy", long_texts=way))


# --- long texts

LONG = ["好" * 30 + "a", "short", "the room was fine " * 20, "x" * 400, "", "b" * 22]


@pytest.mark.parametrize("kind", ["qwen3", "bert"])
def test_windows_are_meant_over(kind: str, tmp_path: Path) -> None:
    base = make_base_of(kind, tmp_path / "base")
    folder = make_adapter(base, tmp_path / "adapter", long_texts="windows", prompt_template="<{text}>")
    tokenizer = adapter.load_tokenizer(folder)
    found = opened(base, folder, window=4).logits(LONG)
    for text, said in zip(LONG, found, strict=True):
        rows, [count] = tokens.encode_windows(tokenizer, [text], 24, "<{text}>")
        assert count == len(rows)
        assert np.abs(one_by_one(base, folder, rows).mean(axis=0) - said).max() < 1e-5


def test_head_and_tail_are_answered(base: Path, tmp_path: Path) -> None:
    folder = make_adapter(base, tmp_path / "adapter", long_texts="head_tail")
    rows = tokens.encode(adapter.load_tokenizer(folder), LONG, 24, long_texts="head_tail")
    assert np.abs(one_by_one(base, folder, rows) - opened(base, folder).logits(LONG)).max() < 1e-5


@pytest.mark.parametrize("way", ["head", "head_tail", "windows"])
def test_a_text_of_a_million_characters(base: Path, tmp_path: Path, way: str) -> None:
    folder = make_adapter(base, tmp_path / "adapter", long_texts=way)
    classifier = opened(base, folder)
    started = time.process_time()
    said = classifier.logits(["好坏" * 500_000, "好"])
    assert np.isfinite(said).all()
    assert time.process_time() - started < 10


# --- what is kept


def test_what_was_kept_is_not_done_again(base: Path, folder: Path, tmp_path: Path) -> None:
    classifier, keep = replace(_one(base, folder), window=16), tmp_path / "kept"
    whole = classifier.logits(TEXTS)
    assert np.array_equal(classifier.logits(TEXTS, keep=keep), whole)
    told: list[int] = []
    again = classifier.logits(TEXTS, keep=keep, rows=90, progress=lambda done, _: told.append(done))
    assert np.array_equal(again, whole)
    assert told == []  # nothing was inferred
    more = classifier.logits([*TEXTS, "好"], keep=keep, progress=lambda done, _: told.append(done))
    assert np.array_equal(more[:80], whole[:80]) and min(told) == 80


def test_a_window_that_was_cut_off_is_done_again(base: Path, folder: Path, tmp_path: Path) -> None:
    classifier, keep = replace(_one(base, folder), window=16), tmp_path / "kept"
    whole = classifier.logits(TEXTS, keep=keep)
    content = keep.read_bytes()
    for length in (0, 10, len(content) - 1, len(content) - 100, len(content) // 2, 60, 52, 51):
        keep.write_bytes(content[:length])
        assert np.array_equal(classifier.logits(TEXTS, keep=keep), whole)
        assert keep.read_bytes() == content


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_whatever_is_damaged_the_logits_are_right(
    base: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    classifier, keep = replace(_one(base, folder), window=16), tmp_path_factory.mktemp("kept") / "kept"
    whole = classifier.logits(TEXTS, keep=keep)
    content = bytearray(keep.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    keep.write_bytes(content + data.draw(st.binary(max_size=80)))
    assert np.array_equal(classifier.logits(TEXTS, keep=keep), whole)


def test_a_file_of_other_texts_or_another_adapter_is_not_used(
    base: Path, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    classifier, keep = replace(_one(base, folder), window=16), tmp_path / "kept"
    classifier.logits(TEXTS, keep=keep)
    changed_texts = [*TEXTS[:40], "坏坏坏", *TEXTS[41:]]
    told: list[int] = []
    found = classifier.logits(changed_texts, keep=keep, progress=lambda done, _: told.append(done))
    assert np.array_equal(found, classifier.logits(changed_texts))
    assert min(told) == 32
    assert "the texts have changed" in capfd.readouterr().out
    for other in (
        opened(base, make_adapter(base, tmp_path / "other", use_rslora=False), window=16),
        opened(base, changed(folder, tmp_path / "shorter", max_length=12), window=16),
        replace(classifier, window=8),
    ):
        assert np.array_equal(other.logits(TEXTS, keep=keep), other.logits(TEXTS))
        assert "another model, other settings" in capfd.readouterr().out


def test_logits_are_kept_in_no_file_that_a_link_leads_to(base: Path, folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    keep = tmp_path / "kept"
    keep.symlink_to(precious)
    with pytest.raises(BrokenRun, match="not a plain file"):
        _one(base, folder).logits(TEXTS, keep=keep)
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("files", [(), ("config.json",)], ids=["empty", "no weights"])
def test_a_folder_that_is_no_base_is_named(base: Path, folder: Path, tmp_path: Path, files: tuple[str, ...]) -> None:
    for name in files:
        shutil.copy(base / name, tmp_path / name)
    with pytest.raises(DataError, match="can't be loaded as a base") as refused:
        opened(tmp_path, folder)
    assert str(tmp_path) in refused.value.message and "--base FOLDER" in refused.value.hint


KILLED = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from jobs.classifier import Classifier
base, folder, keep = map(Path, sys.argv[1:])
classifier = Classifier.open(base, folder, label_names=("bad", "good"), tokens_per_batch=256, window=64)
texts = ["好坏房间" * (1 + number % 5) + str(number) for number in range(4000)]
classifier.logits(texts, keep=keep, rows=4000, progress=lambda done, of: print(done, flush=True))
"""


def test_a_process_that_was_killed_goes_on_to_the_same_bits(base: Path, folder: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", KILLED, str(base), str(folder), str(tmp_path / "kept")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 900:
            pass
        process.send_signal(signal.SIGKILL)
        assert "4000" not in process.stdout.read().split(), "it was over before it could be killed"
    texts = ["好坏房间" * (1 + number % 5) + str(number) for number in range(4000)]
    classifier, told = opened(base, folder, window=64), []
    went_on = classifier.logits(texts, keep=tmp_path / "kept", progress=lambda done, _: told.append(done))
    assert min(told) >= 896  # what was kept was not done again
    assert np.array_equal(went_on, classifier.logits(texts))


# --- how far it is


def test_pace_in_words_and_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    for done in range(0, 101, 10):
        Pace()(done, 100)  # each its first call: over before there is a line
    assert capsys.readouterr().out == ""
    marked = Pace("@mark")
    for done in range(101):
        marked(done, 100)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "@mark 0 100" and lines[-1] == "@mark 100 100" and len(lines) < 10
    Pace("@mark")(5, None)
    assert capsys.readouterr().out == "@mark 5 -\n"
