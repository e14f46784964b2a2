"""Inferring a run's rows again: what it takes on this machine, and having a host do it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from launcher import answer_there, home_jobs
from launcher.app import App
from launcher.duration import in_words
from launcher.home_jobs import Evaluation, HomeRun
from launcher.progress import Observer
from launcher.settings import Settings
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


def plan(home: HomeRun, settings: Settings, asked: Evaluation) -> Rerun | None:
    """What has to come first; None where the base is here.  Raises LaunchError where it can't be had."""
    if home.base is not None:
        return None
    model = home_jobs.required_hub_base(home, "evaluate")
    texts = len(home_jobs.questions(home, settings, asked).all_texts)
    parameters = home_jobs.parameters_of_base(home)
    seconds = texts * max(LEAST_PER_TEXT_S, 2 * parameters * TOKENS_PER_TEXT / (USE * _flops())) if parameters else None
    return Rerun(model.repository, model.missing_bytes(), texts, seconds)


def on_host(
    app: App, home: HomeRun, asked: Evaluation, host: str, observer: Observer, agreed: Callable[[str], None]
) -> dict[str, Any]:
    """As `home_jobs.evaluate`, with the answers of a host; `agreed` is told first what it takes, and may raise."""
    questions = home_jobs.questions(home, app.settings, asked)
    with answer_there.planned(home, questions.all_texts) as planned:
        agreed(planned.in_words(host))
        with answer_there.answers(app, planned, host, observer) as file:
            return home_jobs.evaluate(home, app.settings, observer, replace(asked, answers=file))


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
