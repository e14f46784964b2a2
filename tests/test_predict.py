"""`launch predict`: texts in, labels and confidences out, by the real command line on a run that was trained here."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_base, make_run, toy_rows

from jobs import adapter, answers
from jobs.__main__ import main as jobs_main
from jobs.errors import AdapterRejected
from jobs.run_directory import RunDirectory
from launcher.marked_output import MarkedOutput
from launcher.progress import Inferring, LogPiece
from tests.conftest import Cli

ROWS = toy_rows(60, 5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def run(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """As it lies here after a pull; not to be changed."""
    run = make_run(tmp_path_factory.mktemp("runs"), base, baselines=["majority"], tokens_per_batch=2048)
    assert jobs_main(["train", str(run.root)]) == 0
    assert jobs_main(["finish", str(run.root)]) == 0
    return run


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """One home for all: a Python that can answer is looked for once."""
    home = tmp_path_factory.mktemp("laptop")
    return Cli(home)


def test_texts_of_the_command_line(cli: Cli, run: RunDirectory, base: Path) -> None:
    told = cli("predict", str(run.root), "好美佳", "坏\x1b[31m差", "", "--base", str(base), "--json")
    assert told.status == 0, told
    good, bad, empty = told.data["answers"]
    assert (good["label"], bad["label"]) == ("good", "bad")
    assert (good["text"], bad["text"]) == ("好美佳", "坏\x1b[31m差")
    assert 0.5 <= good["confidence"] <= 1 and "decision" not in good
    shares, temperature = adapter.empty_text_logits(run.adapter, 2), adapter.temperature(run.adapter)
    assert shares is not None and temperature is not None
    odds = (max(shares) - min(shares)) / temperature
    assert empty["confidence"] == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-5)
    assert (told.data["rows"], told.data["labels"]["good"] + told.data["labels"]["bad"]) == (3, 3)


def test_lines_of_standard_input_become_fields(cli: Cli, run: RunDirectory, base: Path) -> None:
    argv = [cli.python, "-m", "launcher", "predict", str(run.root), "-", "--base", str(base)]
    lines = "好美佳\r\n\n坏\x1b]0;title\x07差\tx\n"
    done = subprocess.run(argv, input=lines, env=cli.env, cwd=cli.home, capture_output=True, text=True, check=True)
    header, *rows = done.stdout.splitlines()
    assert header == "LABEL\tCONF\tTEXT"
    assert [row.split("\t")[::2] for row in rows] == [
        ["good", "好美佳"],
        [rows[1].split("\t")[0], ""],
        ["bad", "坏差 x"],
    ]


@pytest.mark.slow
def test_a_file_is_answered_whole_and_an_interrupted_one_goes_on(
    cli: Cli, run: RunDirectory, base: Path, tmp_path: Path
) -> None:
    texts = [f"{text}{number}" for number in range(400) for text, _ in ROWS]
    with (tmp_path / "new.csv").open("w", encoding="gbk", newline="") as file:
        csv.writer(file).writerows([["id", "review"], *enumerate(texts)])
    argv = [
        "predict", str(run.root), "--file", str(tmp_path / "new.csv"), "--text-column", "review",
        "--base", str(base), "--out", str(tmp_path / "out" / "answers.csv"),
    ]  # fmt: skip
    kept = tmp_path / "out" / ".answers.csv.kept"
    process = cli.start(*argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while not (kept.exists() and kept.stat().st_size > 2000) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130
    assert "predict was interrupted" in said and "hint: the same command goes on where it was" in said
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]

    done = cli(*argv, "--json")
    assert done.status == 0, done
    assert (done.data["rows"], done.data["out"]) == (24_000, str(tmp_path / "out" / "answers.csv"))
    assert [path.name for path in kept.parent.iterdir()] == ["answers.csv"]
    with (kept.parent / "answers.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["text"] for row in rows] == texts
    assert sum(row["label"] == "good" for row in rows) == done.data["labels"]["good"]
    assert not list((cli.home / "launch" / "cache" / "predict").iterdir())

    # At once and in this process: the same bytes.
    given = tmp_path / "texts.jsonl"
    given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    answers.answer(run, base, given, tmp_path / "again.csv", tokens_per_batch=2048, keep=tmp_path / "kept")
    same = (tmp_path / "again.csv").read_bytes() == (kept.parent / "answers.csv").read_bytes()
    assert same


@pytest.mark.parametrize(
    ("argv", "status", "code", "said"),
    [
        (["x"], 1, "error", "the base model is not on this machine"),
        (["x", "--fetch-base"], 1, "data_invalid", "neither a folder here nor a Hub id"),
        (["x", "--out", "answers.txt", "--base", "."], 1, "error", ".csv or .jsonl"),
        (["x", "--file", "x.csv"], 2, "usage", "not both"),
        (["--file", "none.csv", "--base", "."], 1, "data_invalid", "none.csv: no such file"),
        (["--base", "."], 1, "data_invalid", "standard input: no texts"),
        (["--file", "columns.csv", "--base", "."], 1, "data_invalid", "no column 'text'; columns: a, b"),
        (["--file", "many.txt", "--base", "."], 1, "error", "10,001 texts are too many for one document"),
        (["\udcff", "--base", "."], 1, "data_invalid", "half a character"),
    ],
    ids=lambda value: "" if not isinstance(value, list) else " ".join(value).encode("ascii", "replace").decode(),
)
def test_what_cannot_be_answered(
    cli: Cli, run: RunDirectory, argv: list[str], status: int, code: str, said: str
) -> None:
    (cli.home / "columns.csv").write_text("a,b\n1,2\n")
    (cli.home / "many.txt").write_text("x\n" * 10_001)
    refused = cli("predict", str(run.root), *argv, "--json")
    assert (refused.status, refused.error["code"]) == (status, code), refused
    assert said in refused.error["message"]
    assert refused.error["hint"] or "--fetch-base" in argv


def test_nobody_is_asked_to_type_texts_into_a_terminal(cli: Cli) -> None:
    ours, theirs = pty.openpty()
    argv = [cli.python, "-m", "launcher", "predict", "some-run", "--json"]
    done = subprocess.run(argv, stdin=theirs, env=cli.env, cwd=cli.home, capture_output=True, text=True, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2
    assert 'launch predict RUN "a text"' in json.loads(done.stdout)["error"]["message"]


def test_an_adapter_that_nobody_vouches_for_is_not_asked(
    cli: Cli, run: RunDirectory, base: Path, tmp_path: Path
) -> None:
    copy = RunDirectory(Path(shutil.copytree(run.root, tmp_path / run.run_id)))
    (copy.adapter / adapter.CLASSIFIER).write_text(json.dumps({"temperature": 2.0}))
    refused = cli("predict", str(copy.root), "x", "--base", str(base), "--json")
    assert (refused.status, refused.error["code"]) == (7, "verification_failed")
    assert "is not asked: manifest: adapter/classifier.json" in refused.error["message"]


# --- how logits are read


def told(folder: Path, run: RunDirectory, temperature: float | None, threshold: float | None) -> RunDirectory:
    """A copy of the run that was trained to this temperature and threshold."""
    copy = RunDirectory(Path(shutil.copytree(run.root, folder / run.run_id)))
    fitted = {"value": temperature, "rows": 40, "nll_before": 0.5, "nll_after": 0.4}
    decision = {"goal": "f1", "threshold": threshold, "reached": True, "validation": {}}
    record = {"temperatures": {"lora": fitted} if temperature else {}, "decision": decision if threshold else None}
    for path, keys in (
        (copy.adapter / adapter.CLASSIFIER, {"temperature": temperature, "threshold": threshold}),
        (copy.training, record),
    ):
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return copy


def test_temperature_and_threshold_are_applied(run: RunDirectory, base: Path, tmp_path: Path) -> None:
    copy, without = told(tmp_path / "a", run, 4.0, 0.999), told(tmp_path / "b", run, None, None)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in ROWS), "utf-8")
    figures = answers.answer(
        copy, base, texts, tmp_path / "scaled.jsonl", tokens_per_batch=2048, keep=tmp_path / "kept"
    )
    answers.answer(without, base, texts, tmp_path / "plain.jsonl", tokens_per_batch=2048, keep=tmp_path / "kept")
    scaled, plain = (
        [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]
        for name in ("scaled.jsonl", "plain.jsonl")
    )
    assert [one["label"] for one in scaled] == [one["label"] for one in plain]
    for one, other in zip(scaled, plain, strict=True):
        p = min(other["confidence"], 1 - 1e-6)
        assert one["confidence"] == pytest.approx(1 / (1 + ((1 - p) / p) ** 0.25), abs=2e-2)
        positive = one["confidence"] if one["label"] == "good" else 1 - one["confidence"]
        assert one["decision"] == ("good" if positive >= 0.999 else "bad")
    assert figures["decisions"]["bad"] > figures["labels"]["bad"]
    assert (figures["temperature"], figures["threshold"], figures["positive_label"]) == (4.0, 0.999, "good")


@given(
    logits=st.lists(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), min_size=1, max_size=9),
    temperature=st.none() | st.floats(0.05, 20),
)
def test_confidences_are_shares(logits: list[list[float]], temperature: float | None) -> None:
    rule = answers.Rule(("a", "b", "c"), "c", temperature, None)
    values = np.array(logits, dtype=np.float32)
    for row, said in zip(values, rule.read(values), strict=True):
        shares = np.exp((row.astype(np.float64) - row.max()) / (temperature or 1.0))
        assert said.label == "abc"[int(row.argmax())]
        assert said.confidence == pytest.approx(shares.max() / shares.sum())
        assert said.decision is None


def test_answers_that_are_no_numbers_are_refused() -> None:
    rule = answers.Rule(("a", "b"), "b", None, 0.5)
    with pytest.raises(AdapterRejected, match="NaN or infinity"):
        list(rule.read(np.array([[np.nan, 1.0]], dtype=np.float32)))
    [said] = rule.read(np.zeros((1, 2), dtype=np.float32))
    assert (said.label, said.decision) == ("a", "b")  # exactly at the threshold


def test_another_base_is_told(run: RunDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str], base: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    with (other / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "x"}\n')
    answers.answer(run, other, texts, tmp_path / "out.csv", tokens_per_batch=2048, keep=tmp_path / "kept")
    assert "is not the file that was trained on" in capfd.readouterr().out


# --- what a process at home prints


@given(
    lines=st.lists(
        st.tuples(st.integers(0, 10**9), st.none() | st.integers(0, 10**9)) | st.text(max_size=20), max_size=12
    ),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    ended=st.booleans(),
)
def test_figures_and_lines_are_told_apart_wherever_they_are_cut(lines: list[Any], cuts: list[int], ended: bool) -> None:
    output = MarkedOutput("reviews")
    printed = "".join(
        line if isinstance(line, str) else f"\n{output.mark} {line[0]} {'-' if line[1] is None else line[1]}\n"
        for line in lines
    ) + ("\n" * ended)
    places = sorted({0, len(printed), *(cut for cut in cuts if cut < len(printed))})
    pieces = [printed[start:end] for start, end in zip(places, places[1:], strict=False)]
    found = [one for piece in pieces for one in output.take(piece)] + list(output.rest())
    assert [one for one in found if isinstance(one, Inferring)] == [
        Inferring(line[0], line[1], "reviews") for line in lines if not isinstance(line, str)
    ]
    shown = "".join(one.text for one in found if isinstance(one, LogPiece))
    assert shown == "".join(line if isinstance(line, str) else "\n" for line in lines) + "\n" * ended


def test_a_line_of_the_log_is_not_held_back() -> None:
    output = MarkedOutput("reviews")
    assert list(output.take("data: ")) == [LogPiece("data: ")]
    assert list(output.take(f"{output.mark} 1 2\n")) == [LogPiece(f"{output.mark} 1 2\n")]  # not at a line's start
    assert list(output.take(output.mark[:5])) == []
    assert list(output.take("x")) == [LogPiece(f"{output.mark[:5]}x")]


SHOWN = """
import sys
from launcher.output import Output
from launcher.progress import Inferring
output = Output()
for done in (0, 40, 70):
    output.observe(Inferring(done, 100, "toy[bold]\\x1b[31m"))
    import time; time.sleep(0.2)
output.observe(Inferring(100, 100, "toy"))
output.show_text(None, lambda width: ["result"])
"""


@pytest.mark.parametrize("terminal", [False, True])
def test_a_bar_is_drawn_on_a_terminal_only(terminal: bool) -> None:
    ours, theirs = pty.openpty()
    stderr: Any = theirs if terminal else subprocess.PIPE
    env = {**os.environ, "COLUMNS": "80", "TERM": "xterm"}
    done = subprocess.run([sys.executable, "-c", SHOWN], stdout=subprocess.PIPE, stderr=stderr, env=env, check=True)
    os.close(theirs)
    assert done.stdout == b"result\n"
    if not terminal:
        os.close(ours)
        assert done.stderr == b""
        return
    drawn = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "70 of 100 rows" in drawn and "toy[bold]" in drawn
