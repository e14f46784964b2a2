"""Which rows go through the model together: batches of like length under a token budget.

Padded to the longest of 512 tokens, short texts cost 9 times their real tokens; drawn at random in batches of 32, 4
times; grouped as here, 1.1 times.  Owns indices and lengths; knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

STEPS_SORTED_TOGETHER = 50
"""Rows are sorted by length within this many random steps: enough to pad little, few enough to stay random."""


class Tokens(Sequence[Sequence[int]]):
    """N rows of token ids in one array: a tenth of the memory of lists, which counts from a million rows on."""

    def __init__(self, rows: Iterable[Sequence[int]]) -> None:
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        self.lengths: Indices = np.array([len(part) for part in parts], dtype=np.int64)
        self._ids = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Any:  # type: ignore[override]  # nobody asks for a slice of rows
        return self._ids[self._starts[row] : self._starts[row + 1]]


def epoch(lengths: Indices, rows_per_step: int, *, seed: int, number: int) -> list[Indices]:
    """The rows of each optimizer step of epoch `number`, in order; within a step the longest first.

    lengths (N,) in tokens.  Every row occurs once; every step has `rows_per_step` rows, but for one that has the rest.
    `seed` and `number` alone decide, so that a training that goes on after a break meets the same rows.
    """
    random = np.random.default_rng([seed, number])
    order = random.permutation(len(lengths))
    steps = []
    for group in _chunks(order, rows_per_step * STEPS_SORTED_TOGETHER):
        # A stable sort of a random order: rows of one length meet other rows in every epoch.
        steps += _chunks(group[np.argsort(-lengths[group], kind="stable")], rows_per_step)
    return [steps[index] for index in random.permutation(len(steps))]


def micro_batches(longest_first: Indices, lengths: Indices, tokens_per_batch: int, lanes: int = 1) -> list[Indices]:
    """One step's rows in batches to be computed one after the other.

    A batch of more than one row has at most `tokens_per_batch` tokens after padding.  With `lanes`, there are that many
    batches of like size or more, to be computed side by side: dealt like cards, every lane gets as many short rows and
    as many long ones.
    """
    return [
        batch
        for lane in range(min(lanes, len(longest_first)))
        for batch in _budgeted(longest_first[lane::lanes], lengths, tokens_per_batch)
    ]


def inference_batches(lengths: Indices, tokens_per_batch: int) -> list[Indices]:
    """All rows, longest first, so that what does not fit in memory says so at once; budget as in `micro_batches`."""
    return _budgeted(np.argsort(-lengths, kind="stable"), lengths, tokens_per_batch)


def padded(token_ids: Sequence[Sequence[int]], rows: Indices, pad_id: int) -> NDArray[np.int64]:
    """The token ids of some rows as one array (B, T), padded on the right to the longest of them."""
    longest = max(len(token_ids[row]) for row in rows)
    batch = np.full((len(rows), longest), pad_id, dtype=np.int64)
    for line, row in enumerate(rows):
        batch[line, : len(token_ids[row])] = token_ids[row]
    return batch


def padded_tokens(batches: Sequence[Indices], lengths: Indices) -> int:
    """Tokens that go through the model for these batches, padding included."""
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Optimizer steps in one pass over the rows."""
    return math.ceil(rows / rows_per_step)


def _chunks(indices: Indices, size: int) -> list[Indices]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _budgeted(longest_first: Indices, lengths: Indices, tokens_per_batch: int) -> list[Indices]:
    """Rows sorted by falling length, cut so that rows x longest row stays within the budget."""
    batches = []
    start = 0
    while start < len(longest_first):
        rows = max(1, tokens_per_batch // max(1, int(lengths[longest_first[start]])))
        batches.append(longest_first[start : start + rows])
        start += rows
    return batches
