"""An evaluation in a terminal: narrow it hangs from its names, in a pipe every line is whole."""

import io

import numpy as np
import pytest
from evaluated import evaluated
from rich.console import Console

from jobs.predictions import MODEL_TITLES, Predictions
from launcher import scores


def answered(rows=400, wrong=0.1, labels=("neg", "pos")):
    draw = np.random.default_rng(7)
    truth = (np.arange(rows) % len(labels)).astype(np.int64)
    logits = {}
    for key in MODEL_TITLES:
        said = np.where(draw.random(rows) < wrong, (truth + 1) % len(labels), truth)
        logits[key] = (2 * np.eye(len(labels))[said] + draw.random((rows, len(labels)))).astype(np.float32)
    return Predictions(labels, tuple(f"text {row}" for row in range(rows)), truth, logits)


def shown(document, *, terminal, width=80):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, _environ={})
    evaluation = {"metrics": document, "notes": ["a note " * 30], "report": "/r/report.html", "errors": "/r/errors.csv"}
    scores.render(evaluation, console)
    return console.file.getvalue().splitlines()


def test_a_terminal_of_80_columns_is_not_left():
    lines = shown(evaluated(answered()), terminal=True)
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("LoRA ") for line in lines)
    assert lines[0].split()[:3] == ["400", "rows", "acc"]


def test_a_pipe_has_a_whole_line_for_everything():
    document = evaluated(answered())
    lines = shown(document, terminal=False)
    names = [line.split(": ")[0] for line in lines[1 + len(document["models"]) :]]
    assert names[:2] == ["how good", "confidence"]
    assert names[-3:] == ["note", "report", "errors"]
    assert all(len(line.split()) >= 8 for line in lines[1 : 1 + len(document["models"])])


@pytest.mark.parametrize(
    ("asked", "name", "words"),
    [
        ({"robustness": {"skipped": "no Chinese."}}, "robustness", "not measured: no Chinese"),
        ({"comparisons": []}, "wrong", "labels that may be wrong"),
    ],
)
def test_what_is_not_there_is_said_or_left_out(asked, name, words):
    told = dict(scores.meaning(evaluated(answered()) | asked))
    assert words in told[name]
    assert "comparisons" not in asked or not any(key.startswith("vs ") for key in told)


def test_one_row_proves_nothing_and_no_error_is_none():
    told = dict(scores.meaning(evaluated(answered(rows=2, wrong=0))))
    assert told["wrong"] == "none"
    assert told["confidence"].startswith("too few rows to tell")


def test_many_labels_have_no_positive_rate():
    lines = shown(evaluated(answered(labels=("a", "b", "c")), temperature=None), terminal=False)
    assert "pos" not in lines[0].split()
    assert "temperature" not in "".join(lines)
