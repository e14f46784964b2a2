"""What inferring a run's rows again on this machine takes: what is to be fetched first, and how long it may last."""

from __future__ import annotations

import time
from dataclasses import dataclass

from launcher import home_jobs
from launcher.duration import in_words
from launcher.home_jobs import HomeRun
from launcher.untrusted import clean

TOKENS_PER_TEXT = 64
"""Of reviews, about; a figure for an estimate."""
USE = 0.5
"""Of a plain product of matrices, what a forward pass of short texts reaches."""
LEAST_PER_TEXT_S = 0.001


@dataclass(frozen=True)
class Rerun:
    """The base to be fetched, its size, how many texts are to be answered with it, and how long that may take.

    `seconds` is None where the size of the model is not known.
    """

    repository: str
    download_bytes: int
    texts: int
    seconds: float | None

    def in_words(self) -> str:
        """For a person who is asked whether to go on."""
        fetched = f"{self.download_bytes / 1e6:,.1f} MB of {clean(self.repository)} are to be fetched"
        took = f"about {in_words(self.seconds)}" if self.seconds is not None else "nobody knows how long"
        return f"{fetched}, then {self.texts:,} texts answered here, which takes {took}"


def plan(home: HomeRun, limit: int) -> Rerun | None:
    """What has to come first; None where the base is here.  Raises LaunchError where it can't be had."""
    if home.base is not None:
        return None
    model = home_jobs.required_hub_base(home, "evaluate")
    counted = home_jobs.texts_to_answer(home)
    texts = counted.suite + (min(limit, counted.rows) if limit else counted.rows)
    parameters = home_jobs.parameters_of_base(home)
    seconds = texts * max(LEAST_PER_TEXT_S, 2 * parameters * TOKENS_PER_TEXT / (USE * _flops())) if parameters else None
    return Rerun(model.repository, model.missing_bytes(), texts, seconds)


def _flops() -> float:
    """Floating-point operations a second of a product of float32 matrices here, the best of three."""
    import numpy as np

    size, best = 768, float("inf")
    left = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    for _ in range(3):
        started = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
