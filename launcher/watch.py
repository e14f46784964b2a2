"""Watches a run until it ends, over any number of lost connections."""

from __future__ import annotations

import time
from dataclasses import dataclass

from launcher.ledger import Ledger, Record
from launcher.progress import LogPiece, Note, Observer, RunNews
from remote import runs
from remote.agent import Agent
from remote.errors import Unreachable

BACK_OFF_S = (1, 2, 5, 8)
LOST_AFTER_S = 60


@dataclass
class _Position:
    log: int = 0
    events: int = 0


def watch(record: Record, agent: Agent, ledger: Ledger, observer: Observer, *, once: bool = False) -> runs.State:
    """The run's state once it is over (or now, with `once`); log and events go to the observer as they come.

    A broken connection is tried again for ever: the run goes on without us, and no byte is shown twice or left out.
    The first connection must succeed, otherwise Unreachable is raised.
    """
    state = follow(record.run_id, agent, observer, once=once)
    ledger.note_state(record.run_id, state.state, state.reason)
    return state


def follow(run_id: str, agent: Agent, observer: Observer, *, once: bool = False) -> runs.State:
    """As `watch`, of a run that no ledger knows."""
    position, failures, silent_since = _Position(), 0, time.monotonic()
    while True:
        try:
            for said in runs.follow(agent, run_id, log_offset=position.log, events_offset=position.events, once=once):
                failures, silent_since = 0, time.monotonic()
                if isinstance(said, runs.State):
                    return said
                _tell(said, position, observer)
        except Unreachable as error:
            if position == _Position() or once:
                raise
            agent.host.close()
            wait_s = BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)]
            failures += 1
            if time.monotonic() - silent_since > LOST_AFTER_S:
                observer(Note("monitoring lost; the run goes on without it"))
            observer(Note(f"{error.message}; trying again in {wait_s} s"))
            time.sleep(wait_s)


def _tell(said: runs.LogText | runs.RunEvent, position: _Position, observer: Observer) -> None:
    if isinstance(said, runs.LogText):
        position.log = said.offset
        observer(LogPiece(said.text))
        return
    position.events = said.offset
    if isinstance(kind := said.fields.get("type"), str):
        observer(RunNews(kind, said.fields))
