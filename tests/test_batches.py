"""Batches: every row once, within the budget, hardly padded, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import batches

lengths_of_rows = st.lists(st.integers(1, 300), min_size=1, max_size=300).map(lambda rows: np.array(rows, np.int64))


def lognormal(rows: int, seed: int = 0) -> batches.Indices:
    """Lengths as field-notes has them: median 42, mean 60, at most 512 tokens."""
    drawn = np.random.default_rng(seed).lognormal(np.log(42), 0.84, rows)
    return np.clip(drawn, 2, 512).astype(np.int64)


@given(lengths_of_rows, st.integers(1, 64), st.integers(16, 2048), st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_an_epoch_has_every_row_once_in_full_steps(
    lengths: batches.Indices, rows_per_step: int, budget: int, seed: int, lanes: int
) -> None:
    steps = batches.training_steps(lengths, rows_per_step, budget, seed=seed, epoch=0, lanes=lanes)
    rows = [sum(map(len, step)) for step in steps]
    assert sorted(np.concatenate([np.concatenate(step) for step in steps])) == list(range(len(lengths)))
    assert sum(count != rows_per_step for count in rows) <= 1
    assert max(rows) <= rows_per_step
    assert all(len(step) >= min(lanes, sum(map(len, step))) for step in steps)
    for batch in (batch for step in steps for batch in step):
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(lengths_of_rows, st.integers(16, 2048))
def test_inference_has_every_row_once_longest_first(lengths: batches.Indices, budget: int) -> None:
    found = batches.inference_batches(lengths, budget)
    together = np.concatenate(found)
    assert sorted(together) == list(range(len(lengths)))
    assert (np.diff(lengths[together]) <= 0).all()
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in found)


@pytest.mark.parametrize("rows_per_step", [8, 32, 128])
def test_short_texts_are_hardly_padded(rows_per_step: int) -> None:
    lengths = lognormal(10_000)
    steps = batches.training_steps(lengths, rows_per_step, 4096, seed=0, epoch=0)
    for found in ([batch for step in steps for batch in step], batches.inference_batches(lengths, 4096)):
        assert batches.padded_tokens(found, lengths) <= 1.1 * lengths.sum()


def test_seed_and_epoch_decide_the_order() -> None:
    lengths = lognormal(500)

    def order(seed: int, epoch: int) -> list[int]:
        steps = batches.training_steps(lengths, 32, 1024, seed=seed, epoch=epoch)
        return [int(row) for step in steps for batch in step for row in batch]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_steps_do_not_come_in_order_of_length() -> None:
    lengths = lognormal(3_200)
    longest = [lengths[step[0]].max() for step in batches.training_steps(lengths, 32, 4096, seed=0, epoch=0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_padded_on_the_right_to_the_longest_of_the_batch() -> None:
    batch = batches.padded([[5, 6], [7], [8, 9, 10]], np.array([2, 1]), pad_id=0)
    assert batch.tolist() == [[8, 9, 10], [7, 0, 0]]
