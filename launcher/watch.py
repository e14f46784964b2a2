"""Watches a run until it ends, over any number of lost connections."""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from dataclasses import dataclass

from launcher.duration import in_words
from launcher.kept_log import KeptLog
from launcher.ledger import Ledger, Record
from launcher.progress import LogPiece, Note, Observer, RunAge, RunNews
from remote import runs
from remote.agent import Agent
from remote.errors import BadReply, CannotExecute, NotFound, RemoteError, TimedOut, Unreachable

BACK_OFF_S = (1, 2, 5, 8)
# A host may answer nonsense while it boots, or have no memory left for one more process; not for ever.
ODD_ANSWERS = 5
# A look that breaks off goes on, but nobody waits for it all night.
LOOK_TRIES = 4


@dataclass(frozen=True)
class Part:
    """Which part of the log is wanted: the last `tail` lines, what is younger than `since_s`; else all of it."""

    tail: int | None = None
    since_s: float | None = None


WHOLE = Part()


@dataclass(frozen=True)
class Patience:
    """How long a connection may say nothing before it counts as broken, and when a break counts as a loss."""

    silence_s: float = runs.SILENCE_S
    lost_after_s: float = 60.0


def watch(
    record: Record,
    agent: Agent,
    ledger: Ledger,
    observer: Observer,
    *,
    once: bool = False,
    part: Part = WHOLE,
    kept: KeptLog | None = None,
) -> runs.State:
    """The run's state once it is over (or now, with `once`); log and events go to the observer as they come.

    A broken connection is tried again for ever: the run goes on without us, and no byte is shown twice or left out.
    The first connection must succeed, otherwise Unreachable is raised; later a host that is another machine now, or
    refuses the login, is an error too.  What comes of the log is also put into `kept`.
    """
    state = follow(record.run_id, agent, observer, once=once, part=part, kept=kept)
    ledger.note_state(record.run_id, state.state, state.reason)
    return state


def follow(
    run_id: str,
    agent: Agent,
    observer: Observer,
    *,
    once: bool = False,
    part: Part = WHOLE,
    kept: KeptLog | None = None,
    patience: Patience | None = None,
) -> runs.State:
    """As `watch`, of a run that no ledger knows."""
    watching = _Watching(run_id, agent, observer, once, part, kept, patience or Patience())
    with closing(kept) if kept else nullcontext():
        return _ended(watching)


def _ended(watching: _Watching) -> runs.State:
    while True:
        try:
            return watching.state()
        except (Unreachable, TimedOut) as error:
            watching.broke(error)
        except NotFound:
            raise  # it is not there any more: nothing goes on
        except RemoteError as error:
            if not (isinstance(error, (BadReply, CannotExecute)) or type(error) is RemoteError):
                watching.give_up()
                raise
            watching.broke(error, odd=True)


class _Watching:
    def __init__(
        self,
        run_id: str,
        agent: Agent,
        observer: Observer,
        once: bool,
        part: Part,
        kept: KeptLog | None,
        patience: Patience,
    ) -> None:
        self._run_id, self._agent, self._observer = run_id, agent, observer
        self._once, self._part, self._kept, self._patience = once, part, kept, patience
        self._log = self._events = 0
        self._begun = self._is_lost = False
        self._failures = self._tries = self._odd = 0
        self._heard_at = time.monotonic()

    def state(self) -> runs.State:
        """What the stream ends with; what comes before goes to the observer."""
        part = WHOLE if self._begun else self._part
        stream = runs.follow(
            self._agent,
            self._run_id,
            log_offset=self._log,
            events_offset=self._events,
            once=self._once,
            tail=part.tail,
            since_s=part.since_s,
            silence_s=self._patience.silence_s,
        )
        try:
            for said in stream:
                if self._failures:
                    self._is_back()
                if not isinstance(said, runs.Begun):
                    self._tries = self._odd = 0  # there was something new
                self._heard_at = time.monotonic()
                if isinstance(said, runs.State):
                    if self._kept:
                        self._kept.seen()
                    return said
                self._tell(said)
                self._heard_at = time.monotonic()
        finally:
            stream.close()
        raise AssertionError("a stream ends with a state, or raises")

    def _tell(self, said: runs.Begun | runs.LogText | runs.LogGap | runs.RunEvent) -> None:
        match said:
            case runs.Begun(offset=offset, age_s=age_s):
                if not self._begun:
                    self._begun, self._log = True, offset
                self._observer(RunAge(age_s))
            case runs.LogText(content, offset):
                if offset != self._log + len(content):
                    raise BadReply(f"{self._agent.host.name}: the log does not go on where it ended")
                if self._kept:
                    self._kept.keep(self._log, content)
                self._log = offset
                self._observer(LogPiece(said.text))
            case runs.LogGap(start, offset):
                if start != self._log:
                    raise BadReply(f"{self._agent.host.name}: the log does not go on where it ended")
                self._log = offset
                self._observer(Note(f"{offset - start:,} bytes of the log are gone: its host keeps only so much of it"))
            case runs.RunEvent(fields, offset):
                self._events = offset
                if isinstance(kind := fields.get("type"), str):
                    self._observer(RunNews(kind, fields))

    def broke(self, error: RemoteError, *, odd: bool = False) -> None:
        """Say so and wait; raises the error where it makes no sense to go on."""
        if not self._begun:
            raise error
        self._tries += 1
        self._odd = self._odd + 1 if odd else 0
        if self._odd > ODD_ANSWERS or (self._once and self._tries > LOOK_TRIES):
            self.give_up()
            raise error
        self._agent.host.close()
        wait_s = BACK_OFF_S[min(self._tries, len(BACK_OFF_S)) - 1]
        self._failures += 1
        away_s = time.monotonic() - self._heard_at
        if away_s < self._patience.lost_after_s:
            self._observer(Note(f"{error.message}; trying again in {wait_s} s"))
        elif not self._is_lost:
            self._is_lost = True
            self._observer(
                Note(
                    f"monitoring lost, the run goes on: nothing heard for {in_words(away_s)} ({error.message}); trying"
                    f" again every {BACK_OFF_S[-1]} s; Ctrl-C ends only the watching"
                )
            )
        time.sleep(wait_s)

    def give_up(self) -> None:
        """Say that only the watching ends, if there was any."""
        if self._begun and not self._once:
            self._observer(Note(f"the watching ends here, the run goes on: launch logs {self._run_id} -f"))

    def _is_back(self) -> None:
        away_s = time.monotonic() - self._heard_at
        self._observer(Note(f"{self._agent.host.name} is back after {in_words(away_s)}; the run went on meanwhile"))
        self._failures = 0
        self._is_lost = False
