"""Cuts validation and test out of rows that came without them: the stratified hash split.

The rule.  Every text has a place in [0, 1): the first 64 bits of the sha256 of the folded text (see `folded_text`), so
that what is the same text to a reader always lies in the same part, whatever its labels.  In each class the texts at
the upper end are cut out: with shares of 0.1 each, test from 0.9 on and validation from 0.8 on.  A text does not move
when others are added.  Only a small class is helped: where it has three distinct texts or more, and one of the parts
would get none, it gets the next one in the order of the places.  A class of fewer stays in train.  A text that has
several labels counts for the first of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from jobs import folded_text
from jobs.label import in_order
from jobs.table import Table

HOW = "stratified hash"
SHARE = 0.1
TRAIN = "train"
_PLACES = 2.0**64


def split(rows: Table, shares: Mapping[str, float]) -> dict[str, Table]:
    """`rows` as train and the parts that `shares` names, the first of them nearest to train."""
    keys = [folded_text.key(text) for text in rows.texts]
    side = _sides(keys, rows.labels, shares)
    parts = {name: Table([], [], rows.encoding) for name in (TRAIN, *shares)}
    for text, label, its_key in zip(rows.texts, rows.labels, keys, strict=True):
        part = parts[side[its_key]]
        part.texts.append(text)
        part.labels.append(label)
    return parts


def _sides(keys: list[int], labels: list[str], shares: Mapping[str, float]) -> dict[int, str]:
    """The part of every distinct text."""
    rank = {label: index for index, label in enumerate(in_order(labels))}
    class_of: dict[int, int] = {}
    for key, label in zip(keys, labels, strict=True):
        class_of[key] = min(rank[label], class_of.get(key, len(rank)))
    by_class: dict[int, list[int]] = {}
    for key, its_class in class_of.items():
        by_class.setdefault(its_class, []).append(key)
    side = dict.fromkeys(class_of, TRAIN)
    for members in by_class.values():
        if len(members) <= len(shares):
            continue
        members.sort(reverse=True)
        taken = 0
        for name, count in _counts(members, shares):
            side.update(dict.fromkeys(members[taken : taken + count], name))
            taken += count
    return side


def _counts(members: list[int], shares: Mapping[str, float]) -> list[tuple[str, int]]:
    """How many texts of a class each part gets, the upper end first: at least one, and at least one for train."""
    counts: dict[str, int] = {}
    upper = 1.0
    for name, share in reversed([*shares.items()]):
        counts[name] = max(1, sum(upper - share <= key / _PLACES <= upper for key in members))
        upper -= share
    while sum(counts.values()) >= len(members):
        counts[max(counts, key=lambda name: counts[name])] -= 1
    return list(counts.items())
