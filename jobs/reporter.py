"""Tells how a training goes: events for whoever watches, lines for the log, figures for trackers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jobs.events import EventLog
from jobs.log_line import say
from jobs.trackers import Trackers
from jobs.validation import Evaluation

if TYPE_CHECKING:
    from jobs.fitting import Fitted

SECONDS_BETWEEN_EVENTS = 0.5
SECONDS_BETWEEN_LINES = 5.0


class Reporter:
    """Events at most twice a second, lines at most every five seconds; nothing at all without an event log."""

    def __init__(self, events: EventLog | None, trackers: Trackers, steps: int, steps_per_epoch: int) -> None:
        self._events, self._trackers = events, trackers
        self._steps, self._steps_per_epoch = steps, steps_per_epoch
        self._last_event = self._last_line = time.monotonic()

    def step(self, step: int, fitted: Fitted, learning_rate: float, seconds: float) -> None:
        """After `step` steps that took `seconds`, breaks left out."""
        now = time.monotonic()
        if self._events is None or not fitted.losses:
            return
        if now - self._last_event < SECONDS_BETWEEN_EVENTS and step < self._steps:
            return
        self._last_event = now
        elapsed = max(seconds, 1e-9)
        recent = [loss for _, loss in fitted.losses[-20:]]
        values = {
            "epoch": round(step / self._steps_per_epoch, 4),
            "loss": round(sum(recent) / len(recent), 6),
            "learning_rate": learning_rate,
            "rows_per_s": round(fitted.rows / elapsed, 1),
            "tokens_per_s": round(fitted.tokens / elapsed, 1),
            "eta_s": round(elapsed / step * (self._steps - step), 1),
        }
        self._events.write("step", step=step, steps=self._steps, **values)
        self._trackers.log(step, {f"train/{key}": value for key, value in values.items()})
        if now - self._last_line >= SECONDS_BETWEEN_LINES or step == self._steps:
            self._last_line = now
            say(
                f"step {step}/{self._steps}  epoch {values['epoch']:.2f}  loss {values['loss']:.4f}"
                f"  lr {learning_rate:.1e}  {values['rows_per_s']:.0f} rows/s  ETA {values['eta_s']:.0f} s"
            )

    def evaluation(self, evaluation: Evaluation, best: bool) -> None:
        """After a look at the validation split."""
        if self._events is None:
            return
        told = evaluation.to_json()
        self._events.write("eval", **told)
        self._trackers.log(evaluation.step, {f"eval/{key}": told[key] for key in ("loss", "accuracy", "score")})
        say(
            f"step {evaluation.step}/{self._steps}  validation loss {evaluation.loss:.4f}"
            f"  accuracy {evaluation.accuracy:.4f}{'  (best so far)' if best else ''}"
        )
