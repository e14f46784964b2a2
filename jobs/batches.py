"""Which rows go through the model together: batches of like length under a token budget.

Padded to the longest of 512 tokens, short texts cost 9 times their real tokens; drawn at random in batches of 32, 4
times; grouped as here, 1.1 times.  Owns indices and lengths; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

STEPS_SORTED_TOGETHER = 50
"""Rows are sorted by length within this many random steps: enough to pad little, few enough to stay random."""


def training_steps(
    lengths: NDArray[np.int64], rows_per_step: int, tokens_per_batch: int, *, seed: int, epoch: int, lanes: int = 1
) -> list[list[Indices]]:
    """One epoch's optimizer steps in order, each a list of micro-batches of row indices.

    lengths (N,) in tokens.  Every row occurs once; every step has `rows_per_step` rows, but for one that has the rest;
    a micro-batch of more than one row has at most `tokens_per_batch` tokens after padding.  With `lanes`, a step has
    that many micro-batches of like size or more, to be computed side by side.  `seed` and `epoch` alone decide which
    rows a step has.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    steps = []
    for group in _chunks(order, rows_per_step * STEPS_SORTED_TOGETHER):
        # A stable sort of a random order: rows of one length meet other rows in every epoch.
        steps += _chunks(group[np.argsort(-lengths[group], kind="stable")], rows_per_step)
    # Dealt like cards, every lane gets as many short rows and as many long ones.
    return [
        [batch for lane in range(lanes) for batch in _budgeted(steps[index][lane::lanes], lengths, tokens_per_batch)]
        for index in random.permutation(len(steps))
    ]


def inference_batches(lengths: NDArray[np.int64], tokens_per_batch: int) -> list[Indices]:
    """All rows, longest first, so that what does not fit in memory says so at once; budget as in `training_steps`."""
    return _budgeted(np.argsort(-lengths, kind="stable"), lengths, tokens_per_batch)


def padded(token_ids: Sequence[Sequence[int]], rows: Indices, pad_id: int) -> NDArray[np.int64]:
    """The token ids of some rows as one array (B, T), padded on the right to the longest of them."""
    longest = max(len(token_ids[row]) for row in rows)
    batch = np.full((len(rows), longest), pad_id, dtype=np.int64)
    for line, row in enumerate(rows):
        batch[line, : len(token_ids[row])] = token_ids[row]
    return batch


def padded_tokens(batches: Sequence[Indices], lengths: NDArray[np.int64]) -> int:
    """Tokens that go through the model for these batches, padding included."""
    return sum(len(batch) * int(lengths[batch].max()) for batch in batches)


def _chunks(indices: Indices, size: int) -> list[Indices]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _budgeted(longest_first: Indices, lengths: NDArray[np.int64], tokens_per_batch: int) -> list[Indices]:
    """Rows sorted by falling length, cut so that rows x longest row stays within the budget."""
    batches = []
    start = 0
    while start < len(longest_first):
        rows = max(1, tokens_per_batch // max(1, int(lengths[longest_first[start]])))
        batches.append(longest_first[start : start + rows])
        start += rows
    return batches
