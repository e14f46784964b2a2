"""Random labelled rows with logits: few and many, with ties, rare classes and sure answers; seeded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

bounded = settings(deadline=None, max_examples=50)

# Few different values, so that ties happen; large ones, so that softmax saturates.
_LOGIT = st.sampled_from([-90.0, -3.0, -1.0, -0.5, 0.0, 0.25, 0.5, 2.0, 40.0, 90.0]) | st.floats(-30, 30, width=32)


@st.composite
def cases(draw, least=2, most=4):
    """truth (N,), logits (N, C) float32."""
    width = draw(st.integers(least, most))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, width - 1), st.lists(_LOGIT, min_size=width, max_size=width)),
            min_size=1,
            max_size=25,
        )
    )
    return np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows], np.float32)


def random_cases(count=1_000, *, least=2, most=6, rows=60, seed=0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`count` times truth (N,) int64 and logits (N, C) float32, N in 1..rows and C in least..most."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        classes, size = int(draw.integers(least, most + 1)), int(draw.integers(1, rows + 1))
        skew = draw.dirichlet(np.full(classes, draw.choice([0.3, 5.0])))
        truth = draw.choice(classes, size, p=skew)
        logits = draw.normal(size=(size, classes)) * draw.choice([0.3, 2.0, 9.0])
        logits[np.arange(size), truth] += draw.choice([-1.0, 0.0, 2.0])
        if draw.random() < 0.5:  # ties, also within a row
            logits = np.round(logits)
        yield truth.astype(np.int64), logits.astype(np.float32)


def weighted(count: int, rows: int, seed=0) -> np.ndarray:
    """Weights (count, rows) of resamples, none of which is empty."""
    draw = np.random.default_rng(seed)
    return draw.multinomial(rows, np.full(rows, 1 / rows), size=count).astype(np.float64)
