"""The model card: what it tells, and that nothing a run holds can act in it, in Markdown, YAML or Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from jobs.manifest import Entry
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.model_card import Classifier, Known, card

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TRICKS = [
    "```",
    "\n```\nimport os\n```python\n",
    "a | b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[here](http://evil.example)",
    "![](http://evil.example/x.png)",
    "http://evil.example/y",
    "www.evil.example",
    "**bold** _it_ `code` ~~gone~~ &lt; $x$",
    "--- \nlicense: mit\n---",
    "'''; import os; os.system('x') #",
    '"""',
    "\\",
    "{text}",
    "\x1b[31mred",
    "\u202edesrever",
    "# one",
    "half a \ud800",
]
ALLOWED = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code"}


def known(labels: tuple[str, ...] = ("bad", "good"), *, model: str = "org/base", **changes: Any) -> Known:
    spec = from_mapping({"name": "reviews", "model_name_or_path": model, "data": "a.csv"})
    inputs = {"train": Entry("inputs/train.jsonl", 5, "a" * 64), "test": Entry("inputs/test.jsonl", 5, "b" * 64)}
    figures = {"accuracy": 0.9, "accuracy_interval": [0.8, 0.95], "f1": 0.91, "auc_roc": None}
    defaults = Known(
        repository="me/reviews",
        submission=Submission("reviews-aaaaaaaa", spec, inputs, (), "0"),
        classifier=Classifier(labels, 64, "right", 0, "{text}", None),
        training={"rows": {"train": 100}, "steps": 10, "libraries": {"peft": "0.21.2"}, "device": "cpu"},
        metrics={
            "source": "inferred here",
            "rows": 40,
            "positive_label": labels[-1],
            "models": [
                {"key": "majority", "title": "Majority class", "metrics": {"accuracy": 0.5}},
                {"key": "lora", "title": "LoRA adapter", "metrics": figures},
            ],
            "comparisons": [{"against": "majority", "accuracy_difference": 0.4, "difference_interval": [0.2, 0.6]}],
        },
        evaluated_here=True,
        base_revision=COMMIT,
        base_weights={"model.safetensors": "c" * 64},
        verdict={
            "ok": True,
            "level": "reproduced here",
            "checks": [{"id": "finite", "status": "pass", "detail": "4,160 numbers"}],
        },
    )
    return replace(defaults, **changes)


class Page(HTMLParser):
    """The elements of a page with attributes, and the text of each table cell and of everything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.text = ""
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def head(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def program_in(text: str) -> str:
    [found] = re.findall(r"^(`{3,})python\n(.*?)^\1$", text, re.DOTALL | re.MULTILINE)
    return str(found[1])


def values(program: str) -> Mapping[str, Any]:
    """What the program's capitals stand for; every one is a literal."""
    assigned = [node for node in ast.parse(program).body if isinstance(node, ast.Assign)]
    return {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in assigned
        if not isinstance(node.value, ast.Call)
    } | {"calls": [ast.unparse(node.value.func) for node in assigned if isinstance(node.value, ast.Call)]}


def test_what_it_tells() -> None:
    text = card(known())
    assert head(text)["base_model"] == "org/base"
    assert (head(text)["library_name"], head(text)["pipeline_tag"]) == ("peft", "text-classification")
    found = ModelCard(text).data.eval_results
    assert found is not None
    assert [(one.metric_type, one.metric_value) for one in found] == [("accuracy", 0.9), ("f1", 0.91)]
    rows = [
        "| Majority class | 50.0% | n/a | n/a | n/a | n/a | n/a | +40.0% (+20.0% to +60.0%) |",
        "| LoRA adapter | 90.0% | 80.0% to 95.0% | 0.910 | n/a | n/a | n/a |  |",
        f"| train | `{'a' * 64}` |",
        f"| model.safetensors | `{'c' * 64}` |",
        "| finite | pass | 4,160 numbers |",
        "| lora_r | 16 |",
        "| peft | 0.21.2 |",
    ]
    assert [row for row in rows if row not in text] == []
    assert f"revision {COMMIT}" in text and "Level: reproduced here" in text
    assert "worked out with these files by whoever published them" in text
    recomputed = card(known(metrics=known().metrics | {"source": "inferred on host"}))
    assert "from the logits that the training host sent" in recomputed
    told = card(known(evaluated_here=False, verdict=known().verdict | {"level": "reproduced on host"}))
    assert "nobody worked them out again" in told and "has that host's word" in told


@pytest.mark.parametrize("trick", TRICKS)
def test_what_a_run_holds_stays_text(trick: str) -> None:
    labels = (trick, "good " + trick)
    hostile = known(labels)
    hostile = replace(
        hostile,
        classifier=replace(hostile.classifier, prompt_template=f"{trick.replace('{text}', 'x')}{{text}}{trick[:3]}"),
        training={"rows": {trick: 5}, "steps": trick, "device": trick, "libraries": {trick: trick}},
        metrics=dict(hostile.metrics) | {"models": [{"key": "lora", "title": trick, "metrics": {"accuracy": trick}}]},
        base_weights={trick: trick},
        verdict={"ok": True, "level": "reproduced here", "checks": [{"id": trick, "status": "pass", "detail": trick}]},
    )
    text = card(hostile)
    assert head(text).keys() == {"base_model", "library_name", "pipeline_tag", "tags"}
    page, plain = Page(body(text)), Page(body(card(known())))
    assert page.tags <= ALLOWED and page.attributes == {("class", "language-python")}
    seen = " ".join(re.sub(r"\x1b\[31m|\u202e", "", trick).replace("\ud800", "?").split())
    assert text.encode()
    assert page.text.count(seen) >= 8
    assert len(re.findall(r"^## ", body(text), re.MULTILINE)) == len(
        re.findall("^## ", body(card(known())), re.MULTILINE)
    )
    assert ("\x1b" in text, "\u202e" in text) == (False, False)
    assert plain.tags == page.tags
    program = program_in(text)
    assert not re.search("http://|www\\.", text.replace(program, ""))  # the Hub makes links of them by itself
    found = values(program)
    assert found["LABELS"] == list(labels)
    assert found["(BEFORE, AFTER)"] == tuple(hostile.classifier.prompt_template.split("{text}"))
    loaders = ("AutoTokenizer.from_pretrained", "AutoModelForSequenceClassification.from_pretrained",
               "PeftModel.from_pretrained(model, ADAPTER).eval")  # fmt: skip
    assert found["calls"] == list(loaders)


@pytest.mark.parametrize(
    ("model", "pushed", "name"),
    [
        ("/root/models/My Base", True, "My Base"),
        ("../models/qwen/", True, "qwen"),
        ("C:\\models\\qwen", True, "qwen"),
        ("org/base", True, "base"),
        ("org/base", False, "base"),
        ("/root/models/on-host", False, "on-host"),
        ("```\\x/<b>", False, "<b>"),
    ],
)
def test_a_base_that_is_not_on_the_hub(model: str, pushed: bool, name: str) -> None:
    one = known(model=model)
    files = (Entry("inputs/base/model.safetensors", 5, "d" * 64),) if pushed else ()
    text = card(replace(one, submission=replace(one.submission, base_files=files), base_revision=""))
    assert "base_model" not in head(text)
    found = values(program_in(text))
    assert found["BASE"] == f"path/to/{name}"
    assert "revision=" not in program_in(text)
    assert "write its folder into" in text and "/root" not in text
    assert ("as hashed on the machine that it was sent from" in text) is pushed


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"models": "x"},
        {"models": [1, {"key": "lora", "title": "t", "metrics": []}], "comparisons": [[]]},
        {"models": [{"key": "lora", "title": "t", "metrics": {"accuracy": float("nan"), "f1": 10**400}}], "rows": "5"},
        {"models": [{"key": "lora", "metrics": {"accuracy": True, "accuracy_interval": [1, 2, 3]}}], "rows": None},
    ],
)
def test_figures_that_are_none(metrics: dict[str, Any]) -> None:
    text = card(known(metrics=metrics, training={"rows": [], "seconds": 1, "libraries": None}))
    assert "model-index" not in head(text)
    assert "It was not evaluated." in text or "| n/a |" in text
