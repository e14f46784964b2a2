"""Looks at the data before it is trained on, and says what would make its figures worthless; pure, and no model.

How long texts are in tokens is measured elsewhere: whoever has a tokenizer passes the lengths in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import near_duplicates
from jobs.data_finding import ERROR, NOTE, WARNING, Example, Finding
from jobs.empty_text import is_empty
from jobs.label import in_order
from jobs.near_duplicates import Signatures
from jobs.table import UTF_8, Table, listed

HELD_OUT = ("validation", "test")
EXAMPLES = 3
SHOWN = 40
"""Characters of a text in an example."""

LEAKED = 0.2
"""Share of a held-out split from which on rows that stand in train are an error: its figures would say nothing."""
IMBALANCED = 10.0
FEW_ROWS = 10
MANY_CLASSES = 0.5
"""Classes per row from which on the label can't be one, given ENOUGH_ROWS."""
ENOUGH_ROWS = 20
CUT = 0.05


@dataclass(frozen=True)
class Lengths:
    """Of M texts of train in tokens: quantiles, the share above `limit`, and (from, to, texts) of a histogram.

    `mean_read` is what the model reads of a text on average, with long ones cut at `limit`.

    `how` says by what they were counted; an estimate says that it is one.
    """

    how: str
    is_estimate: bool
    texts: int
    median: int
    p95: int
    longest: int
    limit: int
    cut_share: float
    mean_read: float
    histogram: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Report:
    """Rows by split and label, lengths, and what was found, errors first."""

    rows: dict[str, dict[str, int]]
    lengths: Lengths | None
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        return any(finding.is_error for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def look(
    tables: Mapping[str, Table], lengths: Lengths | None = None, encodings: Mapping[str, str] | None = None
) -> Report:
    """The report on train, validation and test; `encodings` by the file's name."""
    names = in_order(label for table in tables.values() for label in table.labels)
    counts = {split: Counter(table.labels) for split, table in tables.items()}
    rows = {split: {name: counts[split][name] for name in names} for split in tables}
    signatures = {split: near_duplicates.signatures(table.texts) for split, table in tables.items()}
    found = [
        *_columns(tables),
        *_labels(tables, counts),
        *_shared(tables, signatures),
        *_repeated(tables, signatures),
        *_empty(tables),
        *(_cut(lengths) if lengths else ()),
        *_encodings(encodings or {}),
    ]
    found.sort(key=lambda finding: (ERROR, WARNING, NOTE).index(finding.severity))
    return Report(rows, lengths, tuple(found))


def measured(lengths: NDArray[np.int64], limit: int, *, how: str, is_estimate: bool) -> Lengths:
    """The figures of M >= 1 lengths (M,); a text is cut where it is longer than `limit`."""
    longest = int(lengths.max())
    edges = [1, *(limit // part + 1 for part in (8, 4, 2, 1) if limit >= part)]  # so that no bar is cut in part
    while edges[-1] <= longest:
        edges.append(2 * edges[-1] - 1)
    counts, _ = np.histogram(np.maximum(lengths, 1), bins=edges)
    bars = [(low, high - 1, int(count)) for low, high, count in zip(edges, edges[1:], counts, strict=False)]
    return Lengths(
        how=how,
        is_estimate=is_estimate,
        texts=len(lengths),
        median=int(np.median(lengths)),
        p95=int(np.quantile(lengths, 0.95)),
        longest=longest,
        limit=limit,
        cut_share=float((lengths > limit).mean()),
        mean_read=float(np.minimum(lengths, limit).mean()),
        histogram=tuple(bars),
    )


def shortened(text: str) -> str:
    """At most SHOWN characters of a text, on one line."""
    line = " ".join(text[: 4 * SHOWN].split())
    return line if len(line) <= SHOWN and len(text) <= 4 * SHOWN else line[: SHOWN - 1] + "…"


def _labels(tables: Mapping[str, Table], counts: Mapping[str, Counter[str]]) -> Iterator[Finding]:
    train = counts["train"]
    for split, table in tables.items():
        if not table.texts:
            yield Finding("no_rows", ERROR, f"{split} has no rows", "more rows, or a file for each split", 0)
    if len(train) < 2:
        yield Finding("one_class", ERROR, f"train has only the label {_some(train) or 'none'}",
                      "training takes at least two classes", sum(train.values()))  # fmt: skip
    for split in HELD_OUT:
        unknown = in_order(set(counts[split]) - set(train))
        if unknown:
            rows = [row for row, label in enumerate(tables[split].labels) if label not in train]
            yield Finding("unknown_label", ERROR, f"{split} has labels that train has not: {_some(unknown)}",
                          f"train has {_some(train)}", len(rows),
                          _examples(tables, split, rows))  # fmt: skip
        missing = in_order(set(train) - set(counts[split]))
        if missing and tables[split].texts:
            yield Finding("absent_label", WARNING, f"{split} has no row of {_some(missing)}",
                          "nothing can be said about these classes there: more rows of them", len(missing))  # fmt: skip
    if len(train) < 2 or _too_many_classes(tables["train"]):
        return
    few = [name for name in in_order(train) if train[name] < FEW_ROWS]
    if few:
        shown = listed([f"{shortened(name)} ({train[name]})" for name in few], 5)
        yield Finding("few_rows", WARNING, f"classes with fewer than {FEW_ROWS} rows in train: {shown}",
                      "more rows of them, or merge them with others", len(few))  # fmt: skip
    (most, largest), (least, smallest) = train.most_common()[0], train.most_common()[-1]
    if largest >= IMBALANCED * smallest:
        yield Finding("imbalance", WARNING,
                      f"{shortened(most)} has {largest / smallest:.0f} times the rows of {shortened(least)} in train",
                      "class_weights: balanced, and metric_for_best_model: mcc", largest)  # fmt: skip


def _some(labels: Iterable[str]) -> str:
    """The first of these labels; where the columns are swapped they are whole texts."""
    return listed([shortened(label) for label in in_order(labels)], 5)


def _too_many_classes(train: Table) -> bool:
    return len(train) >= ENOUGH_ROWS and len(set(train.labels)) >= MANY_CLASSES * len(train)


def _columns(tables: Mapping[str, Table]) -> Iterator[Finding]:
    train = tables["train"]
    if _too_many_classes(train):
        yield Finding("label_is_text", ERROR, f"{len(set(train.labels))} classes in {len(train)} rows of train",
                      "are text_column and label_column swapped, or is the label an id?", len(set(train.labels)),
                      _examples(tables, "train", range(len(train))))  # fmt: skip
    ids = [row for row, text in enumerate(train.texts[:1000]) if _looks_like_id(text)]
    if len(ids) >= max(ENOUGH_ROWS, 0.95 * len(train.texts[:1000])) and len(set(train.texts)) > 0.95 * len(train):
        yield Finding("text_is_id", ERROR, "the texts look like ids", "text_column names the column of the texts",
                      len(train), _examples(tables, "train", ids))  # fmt: skip


def _looks_like_id(text: str) -> bool:
    return text.isascii() and len(text) <= 40 and " " not in text.strip() and any(map(str.isdigit, text))


def _shared(tables: Mapping[str, Table], signatures: Mapping[str, Signatures]) -> Iterator[Finding]:
    """Rows of one split that stand in another, too."""
    for split, others in (("validation", ("train",)), ("test", ("train", "validation"))):
        for other in others:
            yield from _shared_by(tables, signatures, split, other)


def _shared_by(
    tables: Mapping[str, Table], signatures: Mapping[str, Signatures], split: str, other: str
) -> Iterator[Finding]:
    mine, theirs = tables[split], tables[other]
    same = np.flatnonzero(np.isin(signatures[split].keys, signatures[other].keys))
    rows = [int(row) for row in same if not is_empty(mine.texts[row])]
    if rows:
        share = len(rows) / len(mine)
        severity = ERROR if share >= LEAKED and other == "train" else WARNING
        yield Finding("duplicate", severity, f"{_rows(len(rows))} of {split} ({share:.1%}) found in {other}, too",
                      f"drop them from {other}, or give one file and let it be split",
                      len(rows), _examples(tables, split, rows))  # fmt: skip
    near = near_duplicates.pairs(mine.texts, signatures[split], theirs.texts, signatures[other])
    if near:
        shown = [one for row, twin in near[:2] for one in _pair(tables, split, row, other, twin)]
        yield Finding("near_duplicate", WARNING, f"{_rows(len(near))} of {split} ({len(near) / len(mine):.1%}) "
                      f"nearly a row of {other}", f"what says the same is best dropped from {other}",
                      len(near), tuple(shown))  # fmt: skip


def _rows(count: int) -> str:
    return f"{count} row{'s' * (count != 1)}"


def _repeated(tables: Mapping[str, Table], signatures: Mapping[str, Signatures]) -> Iterator[Finding]:
    """The same text under several labels, anywhere; and several times within train."""
    places = [(split, row) for split, table in tables.items() for row in range(len(table))]
    keys = np.concatenate([signatures[split].keys for split in tables])
    names = {name: number for number, name in enumerate(in_order(label for t in tables.values() for label in t.labels))}
    labels = np.array([names[label] for table in tables.values() for label in table.labels], dtype=np.int64)
    order = np.lexsort((labels, keys))
    keys, labels = keys[order], labels[order]
    same_text = keys[1:] == keys[:-1]
    differing = keys[1:][same_text & (labels[1:] != labels[:-1])]
    if len(differing):
        rows = [places[at] for at in order[np.isin(keys, differing)]]
        rows = [(split, row) for split, row in rows if not is_empty(tables[split].texts[row])]
        if rows:
            shown = tuple(_example(tables, split, row) for split, row in rows[: EXAMPLES + 1])
            yield Finding("conflict", WARNING, f"{len(rows)} rows have a text that stands under several labels",
                          "decide for one label, or drop them", len(rows), shown)  # fmt: skip
    train = signatures["train"].keys
    if again := len(train) - len(np.unique(train)):
        _, first, count = np.unique(train, return_index=True, return_counts=True)
        most = first[np.argsort(-count, kind="stable")][:EXAMPLES]
        shown = _examples(tables, "train", [int(row) for row in most if np.sum(train == train[row]) > 1])
        yield Finding("repeated", NOTE, f"{_rows(again)} of train ({again / len(train):.1%}) repeating an earlier one",
                      "they count as often as they stand there", again, shown)  # fmt: skip


def _empty(tables: Mapping[str, Table]) -> Iterator[Finding]:
    rows = {split: [at for at, text in enumerate(table.texts) if is_empty(text)] for split, table in tables.items()}
    total = sum(map(len, rows.values()))
    if not total:
        return
    split = next(split for split in rows if rows[split])
    nothing_left = len(rows["train"]) == len(tables["train"])
    yield Finding("empty_text", ERROR if nothing_left else WARNING,
                  "empty texts: " + ", ".join(f"{len(at)} in {name}" for name, at in rows.items() if at),
                  "they are not trained on, and answered by the shares of the classes",
                  total, _examples(tables, split, rows[split]))  # fmt: skip


def _cut(lengths: Lengths) -> Iterator[Finding]:
    if lengths.cut_share > 0:
        cut = max(1, round(lengths.cut_share * lengths.texts))
        about = "about " if lengths.is_estimate else ""
        yield Finding("cut", WARNING if lengths.cut_share > CUT else NOTE,
                      f"{about}{lengths.cut_share:.1%} of the texts are cut at {lengths.limit} tokens ({lengths.how})",
                      f"with max_length {2 * lengths.limit} it would be {_share_above(lengths, 2 * lengths.limit):.1%}",
                      cut)  # fmt: skip


def _share_above(lengths: Lengths, limit: int) -> float:
    return sum(count for low, _, count in lengths.histogram if low > limit) / lengths.texts


def _encodings(encodings: Mapping[str, str]) -> Iterator[Finding]:
    other = {name: encoding for name, encoding in encodings.items() if encoding != UTF_8}
    if other:
        yield Finding("encoding", NOTE, ", ".join(f"{name} was read as {encoding}" for name, encoding in other.items()),
                      "look at a text or two; UTF-8 leaves no doubt", len(other))  # fmt: skip


def _examples(tables: Mapping[str, Table], split: str, rows: Sequence[int]) -> tuple[Example, ...]:
    return tuple(_example(tables, split, row) for row in rows[:EXAMPLES])


def _pair(tables: Mapping[str, Table], split: str, row: int, other: str, twin: int) -> tuple[Example, Example]:
    return _example(tables, split, row), _example(tables, other, twin)


def _example(tables: Mapping[str, Table], split: str, row: int) -> Example:
    table = tables[split]
    return Example(split, row + 1, shortened(table.texts[row]), shortened(table.labels[row]))
