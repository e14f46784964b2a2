"""What the adapter has to beat: the majority class, TF-IDF with logistic regression, and the frozen base with a probe.

All of them as logits (N, C) of texts that a caller names (validation, test, the robustness suite), so that one set of
metrics serves them and the adapter alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs import safetensors_file
from jobs.data import Splits
from jobs.run_directory import BASELINES

FILE = BASELINES
"""In the artifacts folder: tensors `<model>.<part>`, (N, C) float32; models as in `predictions.MODEL_TITLES`."""

Texts = Mapping[str, Sequence[str]]
"""What is to be answered, by the name of the part."""

MOST_ROWS = 200_000
STRENGTH = 10.0
"""Inverse regularisation: the best of 1, 3, 10 on the validation split of the project's reviews, and left at that."""


@dataclass(frozen=True)
class Baseline:
    """One model's logits (N, C) float32 by part; none where it was `skipped` for a reason."""

    logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    skipped: str = ""


def majority(splits: Splits, texts: Texts) -> Baseline:
    """The shares of the classes in train, whatever the text: their logarithms, the same in every row."""
    shares = np.bincount(splits.train.label_ids, minlength=len(splits.label_names)) / len(splits.train)  # (C,)
    row = np.log(shares).astype(np.float32)
    return Baseline({part: np.tile(row, (len(some), 1)) for part, some in texts.items()})


def tfidf(splits: Splits, texts: Texts) -> Baseline:
    """Logistic regression on TF-IDF of 1 to 3 characters, or skipped with the reason.

    Nothing is tuned here: it is a reference that anybody reproduces in ten seconds, not a contestant.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if len(splits.train) > MOST_ROWS:
        return Baseline(skipped=f"{len(splits.train):,} training rows; TF-IDF is fitted on at most {MOST_ROWS:,}")
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=2, sublinear_tf=True, dtype=np.float32)
    try:
        train = vectorizer.fit_transform(splits.train.texts)  # (N, V) sparse
    except ValueError as error:  # no n-gram occurs twice
        return Baseline(skipped=f"TF-IDF found nothing to count: {str(error).splitlines()[0]}")
    regression = LogisticRegression(C=STRENGTH, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(train, splits.train.label_ids)
    return Baseline(
        {
            part: _one_column_a_class(regression.decision_function(vectorizer.transform(some)))
            for part, some in texts.items()
        }
    )


def save(baselines: dict[str, Baseline], path: Path) -> None:
    """All logits in one safetensors file, skipped models left out; no file where none is left."""
    logits = {f"{model}.{part}": logits for model, one in baselines.items() for part, logits in one.logits.items()}
    if logits:
        safetensors_file.write(path, logits)


def load(path: Path) -> dict[str, dict[str, NDArray[np.float32]]]:
    """`{model: {part: logits (N, C)}}` as saved.  Raises AdapterRejected where the file is damaged."""
    loaded: dict[str, dict[str, NDArray[np.float32]]] = {}
    if not path.exists():
        return loaded
    for name, logits in safetensors_file.read_arrays(safetensors_file.read_header(path).require()).items():
        model, _, part = name.partition(".")
        loaded.setdefault(model, {})[part] = logits.astype(np.float32)
    return loaded


def _one_column_a_class(scores: NDArray[np.floating]) -> NDArray[np.float32]:
    """Logits (N, C) from scikit-learn's decision function: for two classes (N,), the log odds of the second."""
    # Not predict_log_proba: a probability that rounds to zero would have an infinite logarithm.
    return (np.stack([-scores, scores], axis=1) / 2 if scores.ndim == 1 else scores).astype(np.float32)
