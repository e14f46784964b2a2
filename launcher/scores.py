"""How an evaluation looks in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

COLUMNS = (
    ("accuracy", "acc"), ("balanced_accuracy", "bal"), ("f1", "F1"), ("mcc", "MCC"), ("auc_roc", "AUC"),
    ("ece", "ECE"), ("predicted_positive_rate", "pos"),
)  # fmt: skip
WEAKEST = 3


def render(evaluated: dict[str, Any], console: Console) -> None:
    """The table of all models, what it means in sentences, the notes, and where the files lie."""
    from rich.table import Table

    document = evaluated["metrics"]
    table = Table(box=None, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(f"{document['rows']:,} rows", overflow="fold")
    columns = [column for column in COLUMNS if column[0] != "predicted_positive_rate" or document["positive_label"]]
    for _, title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for model in document["models"]:
        cells = [_figure(_value(model["metrics"], key)) for key, _ in columns]
        table.add_row(clean(model["title"]), *cells, style="bold" if model["key"] == "lora" else "")
    console.print(table)
    for sentence in sentences(document):
        console.print(clean(sentence))
    for note in evaluated["notes"]:
        console.print(clean(note), style="dim")
    for name in ("report", "errors"):
        console.print(f"{name}: {clean(evaluated[name])}", soft_wrap=True)


def sentences(document: dict[str, Any]) -> Iterator[str]:
    """What the figures of a metrics.json say, the most important first."""
    yield from document["headline"]
    main = next((one for one in document["models"] if one["key"] == "lora"), document["models"][0])
    yield from _calibration(document, main["metrics"])
    if document["decision"]:
        yield _decision(document["decision"])
    yield from _robustness(document["robustness"])
    yield _errors(document["errors"])
    for warning in document["warnings"]:
        yield f"Warning: {warning['sentence']}"


def _calibration(document: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    """ECE before and after the temperature, beside what a perfectly calibrated model would show."""
    fitted, block = document["temperature"], figures["scaled"] or figures["raw"]
    floor = block["floor"]
    least = (
        f"a perfectly calibrated model with these confidences shows {floor['mean']:.3f}, and at most "
        f"{floor['p95']:.3f} in 95 of 100 samples"
    )
    if fitted:
        yield (
            f"Calibration: ECE {figures['raw']['ece']:.3f}, with the temperature {fitted['value']:.2f} from validation "
            f"{block['ece']:.3f}; {least}."
        )
    else:
        yield f"Calibration: ECE {block['ece']:.3f}; {least}."


def _decision(decision: dict[str, Any]) -> str:
    test = ", ".join(f"{name} {_figure(decision['test'].get(name))}" for name in ("precision", "recall", "f1"))
    reached = "" if decision["reached"] else ", which validation did not reach"
    return f"Threshold {decision['threshold']:.3f} for {decision['goal']}{reached}: on these rows {test}."


def _robustness(found: dict[str, Any]) -> Iterator[str]:
    if "skipped" in found:
        yield f"Robustness: not measured, {found['skipped']}."
        return
    [main] = [one for one in found["models"] if one["key"] == "lora"]
    scores = [f"{one['title']} {_score(one)}" for one in found["models"] if one is not main]
    beside = f"; {', '.join(scores)}" if scores else ""
    yield f"Robustness: {_score(main)} of 100 in {found['cases']:,} cases{beside}."
    rates = sorted((one for one in main["categories"] if one["rate"] is not None), key=lambda one: float(one["rate"]))
    if weakest := [f"{one['category']} ({one['test']}) {100 * one['rate']:.0f} %" for one in rates[:WEAKEST]]:
        yield f"Weakest: {', '.join(weakest)}."


def _score(model: dict[str, Any]) -> str:
    if model["score"] is None:
        return "n/a"
    low, high = model["interval"] or (None, None)
    return f"{model['score']:.1f}" + (f" ({low:.1f} to {high:.1f})" if low is not None else "")


def _errors(errors: dict[str, Any]) -> str:
    return (
        f"Errors: {errors['wrong']:,}, {errors['confident']:,} of them with a confidence of at least "
        f"{errors['confidence_from']:g}; {errors['likely_wrong_labels']:,} labels are likely wrong."
    )


def _value(figures: dict[str, Any], key: str) -> float | None:
    """A figure; those of probabilities after the temperature, where there is one."""
    if key == "ece":
        block = figures["scaled"] or figures["raw"]
        return block["ece"]  # type: ignore[no-any-return]
    return figures.get(key)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
