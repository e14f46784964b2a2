"""Shows how a run ended, and what to do about it."""

from __future__ import annotations

import json
import math
import os
import textwrap
from pathlib import Path

from jobs.run_directory import RunDirectory
from launcher import rejected
from launcher.app import App
from launcher.errors import LaunchError, RunFailed, VerificationFailed
from launcher.ledger import Record
from launcher.output import Output
from launcher.untrusted import clean
from remote import crash, runs
from remote.crash import Asked, Card
from remote.errors import RemoteError
from remote.runs import Crash, State

# A card is laid out for a terminal of the usual width, and is no wider on a larger one.
COLUMNS = 78
TAIL_BYTES = 32 * 1024
CRASH_BYTES = 1 << 20
"""More than any crash.json has."""


def conclude(app: App, record: Record, state: State, output: Output) -> None:
    """Show how a run ended.

    Raises VerificationFailed where its adapter is not to be used, RunFailed where it did not succeed otherwise, with
    the card of its end, if that is known; code `time_limit` where its time was over.
    """
    if rejected.by_host(state):
        reason = f"{record.run_id} {state.state}: {state.reason}: do not use its adapter"
        raise VerificationFailed(reason, hint=f"launch pull {record.run_id} tells what that means")
    if state.state != "succeeded":
        said = f"{record.run_id} {state.state}" + (f": {state.reason}" if state.reason else "")
        code = "time_limit" if state.state == "stopped" and state.reason.startswith("time limit") else ""
        card = card_of(app, record, state)
        if card is None:
            raise RunFailed(said, hint=f"launch logs {record.run_id} -n 50", code=code)
        data = {"run_id": record.run_id, "host": record.host, "state": state.state, **card.to_json()}
        raise RunFailed("\n".join([said, *lines(card, state.reason)]), hint=card.next, code=code, data=data)
    took_s = state.run_age_s - state.age_s  # from the submission to the end
    seconds = round(took_s, 1) if math.isfinite(took_s) else None  # infinity is not JSON
    ended = {"run_id": record.run_id, "host": record.host, "state": state.state, "seconds": seconds}
    output.show(ended, lambda console: console.print(f"{record.run_id} succeeded\nlaunch pull {record.run_id}"))


def card_of(app: App, record: Record, state: State) -> Card | None:
    """Why a run ended badly, cleaned; None where nobody can tell, or the host is gone and nothing was pulled."""
    try:
        found = runs.crash(app.agent(record.host), record.run_id)
    except (RemoteError, LaunchError):
        found = _at_home(record)
    spec = record.submission.spec
    asked = Asked(
        record.host,
        record.run_id,
        spec.train_batch_size,
        spec.max_length,
        spec.learning_rate,
        can_resume=found.can_resume is not False,
    )
    card = crash.explain(state.state, state.reason, found.measured, clean(found.log_tail), asked)
    if card is None:
        return None
    evidence = tuple(" ".join(clean(line).split()) for line in card.evidence)
    return Card(card.cause, card.title, card.explanation, evidence, card.next)


def lines(card: Card, said: str = "") -> list[str]:
    """The card for a terminal: cause, what it means, and what speaks for it beyond what was `said`."""
    shown = textwrap.wrap(f"{card.title}: {card.explanation}", COLUMNS, initial_indent="  ", subsequent_indent="  ")
    for line in card.evidence:
        if line == said:
            continue
        shown += textwrap.wrap(line, COLUMNS, initial_indent="  | ", subsequent_indent="  |   ")
    return shown


def _at_home(record: Record) -> Crash:
    """The same from what was pulled."""
    if not record.pulled_to:
        return Crash({}, "")
    home = RunDirectory(Path(record.pulled_to))
    try:
        with home.crash.open("rb") as file:
            measured = json.loads(file.read(CRASH_BYTES))
    except (OSError, ValueError, RecursionError):
        measured = {}
    try:
        with home.logs[-1].open("rb") as file:  # of a long log the first file tells nothing of its end
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            tail = file.read(TAIL_BYTES)
    except (OSError, IndexError):
        tail = b""
    return Crash(measured if isinstance(measured, dict) else {}, tail.decode("utf-8", "replace"))
