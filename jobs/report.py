"""report.html: one page that a person can read and trust; no network, no script, light and dark, printable.

Everything that is put into the page goes through `_text`:
texts, labels, facts and a host's words may be anything.
"""

from __future__ import annotations

import html
import json
import math
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jobs import atomic, metrics, plots
from jobs.checks import Check, Status
from jobs.predictions import MODEL_TITLES, Predictions
from jobs.report_page import PAGE, STYLE
from jobs.summary import percent

MAX_ERRORS = 20
MAX_TEXT_CHARS = 400
MAX_MATRIX_CLASSES = 12
MAX_LOSSES = 1_000_000

_COLUMNS = (
    ("accuracy", "Accuracy"),
    ("balanced_accuracy", "Balanced acc."),
    ("precision", "Precision"),
    ("recall", "Recall"),
    ("f1", "F1"),
    ("auc_roc", "AUC-ROC"),
    ("mcc", "MCC"),
    ("ece", "ECE"),
    ("nll", "NLL"),
    ("brier", "Brier"),
    ("predicted_positive_rate", "Said positive"),
)
_STATUSES: dict[Status, str] = {
    "pass": "✓ pass",
    "warn": "! warning",
    "fail": "✗ fail",
    "not_checked": "– not checked",
}


def write_report(
    path: Path,
    summary: dict[str, Any],
    predictions: Predictions,
    *,
    facts: dict[str, Any],
    verification: dict[str, Any] | None,
    training: dict[str, Any] | None,
) -> None:
    """Write the page; the same arguments give the same bytes.

    summary: of these predictions, from `summary.summarise`.  facts: what to say about the run, name -> value.
    verification: `checks.Verdict.to_json()`, None where the adapter was not verified.
    training: {losses: [{step, loss}]}, None where unknown.  Raises OSError.
    """
    title = f"{summary['run_id']} · evaluation"
    sections = [
        _head(summary, verification),
        _metrics(summary),
        _plots(summary, predictions, training),
        _errors(predictions),
        _verification(verification),
        _facts(facts),
    ]
    atomic.write_text(path, PAGE.format(title=_text(title), style=STYLE, body="\n".join(sections)))


def _text(value: object, limit: int = 2000) -> str:
    """`value` as HTML text of at most `limit` characters; controls and half surrogates become U+FFFD."""
    words = value if isinstance(value, str) else _number(value) if isinstance(value, float) else str(value)
    if len(words) > limit:
        words = words[: limit - 1] + "…"
    clean = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" else c for c in words)
    return html.escape(clean, quote=True)


def _words(sentence: str) -> str:
    """As `_text`, for sentences of ours: a number and its % stay on one line."""
    return _text(sentence).replace(" %", "&nbsp;%")


def _foreign(value: object, limit: int = 2000) -> str:
    """As `_text`, and what writes from right to left, or orders it, stays inside."""
    return f"<bdi>{_text(value, limit)}</bdi>"


def _number(value: Any) -> str:
    """A metric with three decimals; a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>\n{''.join(parts)}\n</section>"


def _table(css: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A scrolling table of ready-made cells; header and rows are lists of <th>/<td> elements."""
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    head = f"<thead><tr>{''.join(header)}</tr></thead>\n"
    return f'<div class="scroll"><table class="{css}">{head}<tbody>{body}</tbody></table></div>'


# --- The top: what a reader who reads nothing else must know


def _head(summary: dict[str, Any], verification: dict[str, Any] | None) -> str:
    lead, *others = summary["headline"]
    status, words, detail = _verdict(verification)
    unproven = "" if status == "pass" else f'<p class="note {status}">The adapter: {words} ({_text(detail)}).</p>'
    warnings = (f'<p class="note warn">{_words(warning)}</p>' for warning in summary["warnings"])
    labels = ", ".join(f"{_foreign(name, 60)} {count:,}" for name, count in list(summary["class_counts"].items())[:12])
    return f"""<header>
<p class="kicker">Evaluation of a LoRA classifier</p>
<h1>{_text(summary["run_id"], 80)}</h1>
<p class="lead">{_words(lead)}</p>
<ul class="findings">{"".join(f"<li>{_words(sentence)}</li>" for sentence in others)}</ul>
{_tiles(summary, verification)}
{unproven}{"".join(warnings)}
<p class="small">{summary["rows"]:,} test rows ({labels}); {_text(summary["source"])}.</p>
</header>"""


def _tiles(summary: dict[str, Any], verification: dict[str, Any] | None) -> str:
    """Four figures of the main model, with what they stand beside."""
    main = _main_model(summary)
    figures = main["metrics"]
    low, high = figures["accuracy_interval"]
    status, words, detail = _verdict(verification)
    majority = next((m for m in summary["models"] if m["key"] == "majority" and m is not main), None)
    beside = f"; majority class {percent(majority['metrics']['accuracy'])}" if majority else ""
    tiles = [
        ("Accuracy", percent(figures["accuracy"]), f"95 %: {100 * low:.1f} to {percent(high)}{beside}", ""),
        ("AUC-ROC", _number(figures["auc_roc"]), figures["undefined"].get("auc_roc", "0.5 is guessing"), ""),
        ("Calibration error", _number(figures["ece"]), "top-label ECE, 15 bins; 0 is best", ""),
        ("Adapter", words, detail, status),
    ]
    shown = "".join(
        f'<div><dt>{name}</dt><dd class="figure {css}">{value}</dd><dd class="small">{_words(note)}</dd></div>'
        for name, value, note, css in tiles
    )
    return f'<dl class="tiles">{shown}</dl>'


def _main_model(summary: dict[str, Any]) -> dict[str, Any]:
    models: list[dict[str, Any]] = summary["models"]
    return next((model for model in models if model["key"] == "lora"), models[0])


def _verdict(verification: dict[str, Any] | None) -> tuple[str, str, str]:
    """Status, a word and a line about it.

    `ok` is believed only where the listed checks bear it out: the document may come from a host.
    """
    if verification is None:
        return "warn", "not verified", "launch verify proves what it is"
    checks = _checks(verification)
    required = [check for check in checks if check.required]
    unmet = [check for check in required if check.status != "pass"]
    if any(check.status == "fail" for check in checks):
        failed = sum(check.status == "fail" for check in checks)
        return "fail", "failed", f"{failed} of {len(checks)} checks failed"
    if verification.get("ok") is True and required and not unmet:
        return "pass", "verified", str(verification.get("level") or "")[:80]
    return "warn", "not proven", f"{len(required) - len(unmet)} of {len(required)} required checks passed"


# --- Metrics


def _metrics(summary: dict[str, Any]) -> str:
    columns = [column for column in _COLUMNS if column[0] != "predicted_positive_rate" or summary["positive_label"]]
    header = ["<th>Model</th>", *(f'<th class="n">{words}</th>' for _, words in columns)]
    rows = [
        [
            f'<th scope="row">{_text(model["title"])}</th>',
            *(_metric_cell(model, *column) for column in columns),
        ]
        for model in summary["models"]
    ]
    positive = summary["positive_label"]
    speaks = f"of the label {_foreign(positive, 60)}" if positive else "averaged over the labels (macro)"
    notes = f"Precision, recall and F1 are {speaks}. ECE, NLL and Brier: lower is better. {_undefined(summary)}"
    main = _main_model(summary)["key"]
    return _section(
        "Metrics",
        _table(f"metrics main-{[model['key'] for model in summary['models']].index(main)}", header, rows),
        f'<p class="small">{notes}</p>',
        _per_class(summary),
    )


def _metric_cell(model: dict[str, Any], key: str, words: str) -> str:
    figures = model["metrics"]
    shown, extra = _number(figures[key]), ""
    if key in ("accuracy", "predicted_positive_rate") and figures[key] is not None:
        shown = percent(figures[key])
    if key == "accuracy":
        low, high = figures["accuracy_interval"]
        extra = f'<span class="interval">{100 * low:.1f}–{100 * high:.1f}</span>'
    return f'<td class="n" data-name="{words}">{shown}{extra}</td>'


def _undefined(summary: dict[str, Any]) -> str:
    """Why there are dashes in the table, if there are."""
    names = dict(_COLUMNS)
    models: dict[tuple[str, str], list[str]] = {}
    for model in summary["models"]:
        for metric, reason in model["metrics"]["undefined"].items():
            if metric in names:
                models.setdefault((names[metric], reason), []).append(model["title"])
    reasons = [f"{metric} of {', '.join(titles)}: {reason}" for (metric, reason), titles in models.items()]
    return _text("A dash has no value. " + "; ".join(reasons) + ".") if reasons else ""


def _per_class(summary: dict[str, Any]) -> str:
    """One row a label, for more than two labels."""
    if summary["positive_label"] is not None:
        return ""
    names = ("Rows", "Precision", "Recall", "F1")
    header = ["<th>Label</th>", *(f'<th class="n">{name}</th>' for name in names)]
    rows = [
        [f'<th scope="row">{_foreign(one["label"], 80)}</th>']
        + [f'<td class="n">{_number(one[key])}</td>' for key in ("support", "precision", "recall", "f1")]
        for one in _main_model(summary)["metrics"]["per_class"][:200]
    ]
    return "<h3>Label by label</h3>" + _table("plain", header, rows)


# --- Plots


def _plots(summary: dict[str, Any], predictions: Predictions, training: dict[str, Any] | None) -> str:
    figures = [_roc(summary, predictions), _reliability(summary), _confusion(summary), _loss(training)]
    return _section("In pictures", f'<div class="plots">{"".join(figures)}</div>')


def _figure(title: str, drawing: str, caption: str) -> str:
    return f"<figure><h3>{title}</h3>{drawing}<figcaption>{caption}</figcaption></figure>"


def _roc(summary: dict[str, Any], predictions: Predictions) -> str:
    shown = [model for model in summary["models"] if model["metrics"]["auc_roc"] is not None]
    if not shown:
        return _figure(
            "ROC curve",
            "",
            "There is none: " + _text(_main_model(summary)["metrics"]["undefined"]["auc_roc"]),
        )
    positive = summary["positive_label"]
    curves = {model["key"]: _roc_curve(predictions, model["key"], positive) for model in shown}
    spoken = ", ".join(f"{model['title']} {_number(model['metrics']['auc_roc'])}" for model in shown)
    legend = "".join(_legend_line(model) for model in reversed(shown))
    speaks = "" if positive else " Each label against the rest, averaged."
    return _figure(
        "ROC curve",
        plots.roc(curves, html.escape(f"ROC curves; area under them: {spoken}")),
        f'<ul class="legend">{legend}</ul>Number: area under the curve.{speaks}',
    )


def _roc_curve(predictions: Predictions, key: str, positive: str | None) -> tuple[metrics.Floats, metrics.Floats]:
    """One model's curve; for more than two labels the mean of theirs, at 201 false positive rates."""
    odds, names = metrics.log_odds(predictions.logits[key]), predictions.label_names
    if positive is not None:
        index = names.index(positive)
        return metrics.roc_curve(predictions.truth == index, odds[:, index])
    grid = np.linspace(0, 1, 201)
    curves = [metrics.roc_curve(predictions.truth == c, odds[:, c]) for c in range(len(names))]
    mean = np.mean([np.interp(grid, *curve) for curve in curves], axis=0)
    return np.concatenate([[0.0], grid]), np.concatenate([[0.0], mean])


def _legend_line(model: dict[str, Any]) -> str:
    style = plots.LINE_STYLES[model["key"]]
    dashes = " ".join(f"{dash:g}" for dash in style.dashes) or "none"
    line = (
        f'<svg class="key" viewBox="0 0 28 8" aria-hidden="true"><path d="M1 4h26" style="stroke: '
        f'{plots.css_colour(style.colour)}; stroke-width: {style.width}; stroke-dasharray: {dashes}"/></svg>'
    )
    return f"<li>{line}<span>{_text(model['title'])}</span><b>{_number(model['metrics']['auc_roc'])}</b></li>"


def _reliability(summary: dict[str, Any]) -> str:
    main = _main_model(summary)
    bins = [metrics.Bin(**one) for one in main["metrics"]["reliability"]]
    ece = _number(main["metrics"]["ece"])
    return _figure(
        "Reliability",
        plots.reliability(bins, len(summary["label_names"]), f"Accuracy against confidence; ECE {ece}"),
        f"{_text(main['title'])}: top-label ECE {ece}, 15 bins of equal width (Guo et al. 2017). On the "
        "dashed line it is right as often as it says; below it, too sure. Bottom: share of the rows.",
    )


def _confusion(summary: dict[str, Any]) -> str:
    """A table, not a drawing: it can be read aloud, and holds labels in any script."""
    names, matrix = summary["label_names"], _main_model(summary)["metrics"]["confusion"]
    if len(names) > MAX_MATRIX_CLASSES:
        return _figure(
            "Confusion matrix", "", f"{len(names)} labels are too many to draw; metrics.json has the numbers."
        )
    header = ['<td class="corner">true&nbsp;↓ said&nbsp;→</td>']
    header += [f'<th scope="col">{_foreign(name, 24)}</th>' for name in names]
    rows = []
    for name, counts in zip(names, matrix, strict=True):
        total = sum(counts)
        cells = [_heat_cell(count, count / total if total else 0.0) for count in counts]
        rows.append([f'<th scope="row">{_foreign(name, 24)}</th>', *cells])
    caption = f"{_text(_main_model(summary)['title'])}. Rows counted, and their share of the true label."
    return _figure("Confusion matrix", _table("confusion", header, rows), caption)


def _heat_cell(count: int, share: float) -> str:
    return f'<td style="--heat: {0.55 * share:.3f}"><b>{count:,}</b><span>{percent(share)}</span></td>'


def _loss(training: dict[str, Any] | None) -> str:
    points = _losses(training)
    if not points:
        return ""
    steps, losses = np.array([point[0] for point in points]), np.array([point[1] for point in points])
    first, last = f"{losses[0]:.3g}", f"{losses[-1]:.3g}"
    return _figure(
        "Training loss",
        plots.loss(steps, losses, f"Training loss by step, from {first} to {last}"),
        f"From {first} to {last} in {int(steps[-1]):,} steps; the strong line is the running mean. "
        "A falling loss does not prove the adapter: the verification does.",
    )


def _losses(training: dict[str, Any] | None) -> list[tuple[float, float]]:
    """(step, loss) in the order of steps; what is no sensible number is passed over: it may be a host's."""
    listed = (training or {}).get("losses")
    found = []
    for one in listed[:MAX_LOSSES] if isinstance(listed, list) else []:
        match one:
            case {"step": int() | float() as step, "loss": int() | float() as loss}:
                # Not NaN either: no comparison with it is true.
                if abs(step) < 1e9 and abs(loss) < 1e9:
                    found.append((float(step), float(loss)))
    return sorted(found)


# --- Tables of what was found


def _errors(predictions: Predictions) -> str:
    """The rows that the main model got wrong with the highest confidence; of equals, the first."""
    truth, names = predictions.truth, predictions.label_names
    predicted = predictions.predicted(predictions.main)
    confidence = metrics.softmax(predictions.logits[predictions.main]).max(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    if not wrong.size:
        return _section("Most confident errors", "<p>There are none: every row is labelled correctly.</p>")
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:MAX_ERRORS]
    rows = [
        [
            f'<td class="n" data-name="Confidence">{percent(float(confidence[row]))}</td>',
            f'<td data-name="Said">{_foreign(names[predicted[row]], 60)}</td>',
            f'<td data-name="Label">{_foreign(names[truth[row]], 60)}</td>',
            f'<td class="text">{_foreign(predictions.texts[row], MAX_TEXT_CHARS)}</td>',
        ]
        for row in order.tolist()
    ]
    header = ['<th class="n">Confidence</th>', "<th>Said</th>", "<th>Label</th>", "<th>Text</th>"]
    title = MODEL_TITLES[predictions.main]
    return _section(
        "Most confident errors",
        f'<p class="small">{title}: {len(order)} of {len(wrong):,} errors. Where the label is wrong, not the '
        "model, mend the data. predictions.parquet has every row.</p>",
        _table("errors", header, rows),
    )


def _verification(verification: dict[str, Any] | None) -> str:
    status, words, detail = _verdict(verification)
    verdict = f'<p class="note {status}">The adapter: <strong>{words}</strong> ({_foreign(detail)}).</p>'
    rows = [
        [
            f'<td class="status {check.status}">{_STATUSES[check.status]}</td>',
            f'<th scope="row">{_foreign(check.id.replace("_", " "), 120)}</th>',
            f"<td>{_found(check)}</td>",
        ]
        for check in _checks(verification or {})
    ]
    header = ["<th>Status</th>", "<th>Check</th>", "<th>Found</th>"]
    return _section("Verification", verdict, _table("checks", header, rows) if rows else "")


def _found(check: Check) -> str:
    """What a check found and, where it did not pass, what that means and what to do."""
    advice = "; ".join(words for words in (check.meaning, check.todo) if words)
    more = f'<br><span class="small">{_foreign(advice, 600)}</span>' if advice and check.status != "pass" else ""
    return _foreign(check.detail, 600) + more


def _checks(verification: dict[str, Any]) -> list[Check]:
    """The checks of a verdict from anywhere; a status that is none counts as not checked."""
    listed = verification.get("checks")
    found = []
    for one in listed[:500] if isinstance(listed, list) else []:
        if isinstance(one, dict):
            name, detail, meaning, todo = (str(one.get(key) or "") for key in ("id", "detail", "meaning", "todo"))
            status: Status = next((known for known in _STATUSES if known == one.get("status")), "not_checked")
            found.append(Check(name, status, detail, meaning, todo, one.get("required") is not False))
    return found


def _facts(facts: dict[str, Any]) -> str:
    rows = [[f'<th scope="row">{_foreign(key, 120)}</th>', f"<td>{_fact(value)}</td>"] for key, value in facts.items()]
    return _section("The run", _table("facts", [], rows)) if rows else ""


def _fact(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, dict | list | tuple):
        return _foreign(json.dumps(value, ensure_ascii=False, default=str))
    return _foreign(f"{value:g}" if isinstance(value, float) else value)
