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
    steps = batches.epoch(lengths, rows_per_step, seed=seed, number=0)
    assert len(steps) == batches.steps_per_epoch(len(lengths), rows_per_step)
    assert sorted(np.concatenate(steps)) == list(range(len(lengths)))
    assert sum(len(step) != rows_per_step for step in steps) <= 1
    assert max(map(len, steps)) <= rows_per_step
    for step in steps:
        found = batches.micro_batches(step, lengths, budget, lanes)
        assert sorted(np.concatenate(found)) == sorted(step)
        assert len(found) >= min(lanes, len(step))
        assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for batch in found)


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
    steps = batches.epoch(lengths, rows_per_step, seed=0, number=0)
    trained = [batch for step in steps for batch in batches.micro_batches(step, lengths, 4096)]
    for found in (trained, batches.inference_batches(lengths, 4096)):
        assert batches.padded_tokens(found, lengths) <= 1.1 * lengths.sum()


def test_seed_and_epoch_decide_the_order() -> None:
    lengths = lognormal(500)

    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for step in batches.epoch(lengths, 32, seed=seed, number=epoch) for row in step]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_steps_do_not_come_in_order_of_length() -> None:
    lengths = lognormal(3_200)
    longest = [lengths[step].max() for step in batches.epoch(lengths, 32, seed=0, number=0)]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.3


def test_padded_on_the_right_to_the_longest_of_the_batch() -> None:
    batch = batches.padded([[5, 6], [7], [8, 9, 10]], np.array([2, 1]), pad_id=0)
    assert batch.tolist() == [[8, 9, 10], [7, 0, 0]]


@given(st.lists(st.lists(st.integers(0, 2**31 - 1))))
def test_tokens_in_one_array_are_the_rows_that_were_given(rows: list[list[int]]) -> None:
    tokens = batches.Tokens(rows)
    assert [row.tolist() for row in tokens] == rows
    assert tokens.lengths.tolist() == [len(row) for row in rows]
