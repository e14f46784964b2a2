"""Word vectors to start from: what stands near what in the texts, before any gradient.

Owns the co-occurrence counts and their factorisation; knows token ids only, neither tokenizer nor model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

WINDOW = 5


def cooccurrence(rows: list[list[int]], vocabulary: int, window: int = WINDOW) -> sparse.csr_matrix:
    """Symmetric counts (vocabulary, vocabulary) of pairs at most `window` apart, weighted 1 / distance."""
    # One long sequence with `window` separators between rows, so that no pair crosses from text to text.
    gap = [-1] * window
    tokens = np.array([token for row in rows for token in [*row, *gap]], dtype=np.int64)
    counts = sparse.csr_matrix((vocabulary, vocabulary), dtype=np.float64)
    for distance in range(1, window + 1):
        left, right = tokens[:-distance], tokens[distance:]
        inside = (left >= 0) & (right >= 0)
        weights = np.full(int(inside.sum()), 1.0 / distance)
        pairs = sparse.coo_matrix((weights, (left[inside], right[inside])), shape=counts.shape)
        counts = counts + pairs.tocsr()
    return (counts + counts.T).tocsr()


def positive_pmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """max(0, log p(a, b) / (p(a) p(b))) of symmetric pair counts (vocabulary, vocabulary).

    Levy and Goldberg 2014, Neural Word Embedding as Implicit Matrix Factorization.
    """
    pairs = counts.tocoo()
    marginal = np.asarray(counts.sum(axis=1)).ravel()
    pmi = np.log(pairs.data * marginal.sum() / (marginal[pairs.row] * marginal[pairs.col]))
    kept = pmi > 0
    return sparse.csr_matrix((pmi[kept], (pairs.row[kept], pairs.col[kept])), shape=counts.shape)


def ppmi_embeddings(rows: list[list[int]], vocabulary: int, width: int, scale: float, seed: int) -> NDArray[np.float32]:
    """Vectors (vocabulary, width) of standard deviation `scale`; tokens with like neighbours lie close."""
    left, values, _ = randomized_svd(positive_pmi(cooccurrence(rows, vocabulary)), width, random_state=seed)
    vectors = left * np.sqrt(values)
    # A token never seen would start at exactly zero, where RMSNorm amplifies nothing but rounding.
    vectors += np.random.default_rng(seed).normal(0.0, 0.01 * vectors.std(), vectors.shape)
    return np.asarray(vectors * (scale / vectors.std()), dtype=np.float32)
