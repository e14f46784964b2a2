"""The stratified hash split: what is the same text stays together, every class is everywhere, little moves."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import hash_split
from jobs.folded_text import folded
from jobs.table import Table

SHARES = {"validation": 0.1, "test": 0.1}


def sides(rows: list[tuple[str, str]]) -> dict[str, set[str]]:
    """The parts in which each text lies."""
    parts = hash_split.split(Table([text for text, _ in rows], [label for _, label in rows]), SHARES)
    assert Counter((t, n) for part in parts.values() for t, n in zip(part.texts, part.labels, strict=True)) == Counter(
        rows
    )
    found: dict[str, set[str]] = {}
    for name, part in parts.items():
        for text in part.texts:
            found.setdefault(text, set()).add(name)
    return found


def test_the_shares_are_as_said_and_order_does_not_matter() -> None:
    rows = [(f"text {number}", "abc"[number % 3]) for number in range(6_000)]
    found = sides(rows)
    counts = Counter(next(iter(where)) for where in found.values())
    assert abs(counts["validation"] - 600) < 75
    assert abs(counts["test"] - 600) < 75
    random.Random(0).shuffle(rows)
    assert sides(rows) == found


def test_texts_do_not_move_when_others_are_added() -> None:
    rows = [(f"text {number}", "ab"[number % 2]) for number in range(2_000)]
    before, after = sides(rows[:1_000]), sides(rows)
    assert all(after[text] == where for text, where in before.items())


def test_one_missing_split_is_cut_out_alone() -> None:
    rows = Table([f"text {number}" for number in range(1_000)], ["a", "b"] * 500)
    parts = hash_split.split(rows, {"test": 0.1})
    assert set(parts) == {"train", "test"}
    assert parts["test"].texts == hash_split.split(rows, SHARES)["test"].texts


words = st.text(st.sampled_from("ab!A， \u3000"), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(words, st.sampled_from("xyz")), min_size=1, max_size=40))
def test_the_same_text_stays_together_and_small_classes_are_everywhere(rows: list[tuple[str, str]]) -> None:
    found = sides(rows)
    together: dict[str, set[str]] = {}
    first_label: dict[str, str] = {}
    for text, label in rows:
        together.setdefault(folded(text), set()).update(found[text])
        first_label[folded(text)] = min(label, first_label.get(folded(text), label))
    assert all(len(where) == 1 for where in together.values())
    for label in "xyz":
        texts = [text for text, its_label in first_label.items() if its_label == label]
        where = {next(iter(together[text])) for text in texts}
        assert where == ({"train", "validation", "test"} if len(texts) >= 3 else {"train"} if texts else set())
