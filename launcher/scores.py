"""How an evaluation looks in a terminal: a table of the models, what it means in a few lines, where to look next.

On a terminal the lines hang from their names; in a pipe each is one whole line, `name: words`, and the table is never
folded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = (
    ("balanced_accuracy", "bal"), ("f1", "F1"), ("mcc", "MCC"), ("auc_roc", "AUC"), ("ece", "ECE"),
)  # fmt: skip
SHORT = {"majority": "majority class", "frozen_head": "frozen base + head", "tfidf": "TF-IDF", "lora": "LoRA"}
WEAKEST = 3
MOST_BY_CHANCE = 0.1
"""As in the report: where chance alone gives a larger calibration error, a small one proves nothing."""
WIDE = 100_000
"""Columns of a pipe: nothing is folded there."""

Told = Iterator[tuple[str, str]]


def render(evaluated: dict[str, Any], console: Console) -> None:
    """The table of all models, what it means, and where the files lie."""
    from rich.table import Table

    document = evaluated["metrics"]
    if not console.is_terminal:
        console.width = WIDE
    console.print(_models(document))
    lines = [*meaning(document), *(("note", note) for note in evaluated["notes"])]
    if console.is_terminal:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for name, words in lines:
            grid.add_row(name, clean(words), style="yellow" if name == "warning" else "dim" if name == "note" else "")
        console.print()
        console.print(grid)
    else:
        for name, words in lines:
            console.print(f"{name}: {clean(words)}", soft_wrap=True)
    for name in ("report", "errors"):
        console.print(f"{name}: {clean(evaluated[name])}", soft_wrap=True)


def meaning(document: dict[str, Any]) -> Told:
    """(name, words) of what the figures of a metrics.json say, the most important first."""
    main = next((one for one in document["models"] if one["key"] == "lora"), document["models"][0])
    yield "how good", _quality(main["metrics"], document["rows"])
    yield "confidence", _confidence(document, main["metrics"])
    for comparison in reversed(document["comparisons"]):
        yield f"vs {SHORT[comparison['against']]}", _comparison(comparison)
    if document["decision"]:
        yield "threshold", _decision(document["decision"])
    yield "robustness", _robustness(document["robustness"])
    yield "wrong", _errors(document["errors"])
    for warning in document["warnings"]:
        if warning["kind"] != "calibration_above_floor":  # said already
            yield "warning", warning["sentence"]


def _models(document: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(f"{document['rows']:,} rows", no_wrap=True)
    titles = ["acc", "95 %", *(title for _, title in COLUMNS)]
    titles += ["pos"] if document["positive_label"] else []
    scores = {one["key"]: one["score"] for one in document["robustness"].get("models", [])}
    titles += ["robust"] if scores else []
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for model in document["models"]:
        figures = model["metrics"]
        block = figures["scaled"] or figures["raw"]
        low, high = figures["intervals"]["accuracy"]
        cells = [_figure(figures["accuracy"]), f"{low:.3f}-{high:.3f}"]
        cells += [_figure(block["ece"] if key == "ece" else figures[key]) for key, _ in COLUMNS]
        cells += [_figure(figures["predicted_positive_rate"])] if document["positive_label"] else []
        cells += [_figure(scores.get(model["key"]), 1)] if scores else []
        table.add_row(SHORT[model["key"]], *cells, style="bold" if model["key"] == "lora" else "")
    return table


def _quality(figures: dict[str, Any], rows: int) -> str:
    low, high = figures["intervals"]["accuracy"]
    share = f"{100 * figures['accuracy']:.1f} % of {rows:,} row{'s' if rows != 1 else ''} right"
    return f"{share} (95 % interval {100 * low:.1f} to {100 * high:.1f})"


def _confidence(document: dict[str, Any], figures: dict[str, Any]) -> str:
    """Whether it can be trusted: ECE beside what a perfectly calibrated model would show on as many rows."""
    block, fitted = figures["scaled"] or figures["raw"], document["temperature"]
    chance = block["floor"]["p95"]
    verdict = "can be trusted as far as these rows tell" if block["ece"] <= chance else "not to be taken at its word"
    if chance > MOST_BY_CHANCE:
        verdict = "too few rows to tell"
    before = f" (before the temperature {fitted['value']:.2f}: {figures['raw']['ece']:.3f})" if fitted else ""
    return f"{verdict}; ECE {block['ece']:.3f}{before}, chance alone gives up to {chance:.3f}"


def _comparison(one: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in one["difference_interval"])
    points = f"{100 * one['accuracy_difference']:+.1f} points of accuracy ({low:+.1f} to {high:+.1f})"
    p = one["mcnemar_p"]
    verdict = {"better": "LoRA is better", "worse": "LoRA is worse"}.get(one["verdict"], one["verdict"])
    return f"{verdict}: {points}, McNemar p {'< 0.0001' if p < 0.0001 else f'= {p:.2g}'}"


def _decision(decision: dict[str, Any]) -> str:
    test = ", ".join(f"{name} {_figure(decision['test'].get(name))}" for name in ("precision", "recall", "f1"))
    reached = "" if decision["reached"] else ", which validation did not reach"
    return f"{decision['threshold']:.3f} for {decision['goal']}{reached}; on these rows {test}"


def _robustness(found: dict[str, Any]) -> str:
    if "skipped" in found:
        return f"not measured: {found['skipped'].rstrip('.')}"
    main = next((one for one in found["models"] if one["key"] == "lora"), None)
    if main is None or main["score"] is None:
        return f"{found['cases']:,} cases, no score"
    low, high = main["interval"]
    score = f"{main['score']:.1f} of 100 ({low:.1f} to {high:.1f}) in {found['cases']:,} cases"
    rates = sorted((one for one in main["categories"] if one["passed"] < one["cases"]), key=lambda one: one["rate"])
    names = [one["category"] for one in main["categories"]]
    weakest = [
        f"{one['category']}{f' ({test})' if names.count(one['category']) > 1 else ''} {100 * one['rate']:.0f} %"
        for one in rates[:WEAKEST]
        if (test := one["test"])
    ]
    return f"{score}; weakest: {', '.join(weakest)}" if weakest else score


def _errors(errors: dict[str, Any]) -> str:
    if not errors["wrong"]:
        return "none"
    confident = f"{errors['confident']:,} with a confidence of {errors['confidence_from']:g} or more"
    return f"{errors['wrong']:,}, {confident}; labels that may be wrong: {errors['likely_wrong_labels']:,}"


def _figure(value: float | None, digits: int = 3) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"
