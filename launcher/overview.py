"""How all runs stand: the ledger's memory, refreshed from every host that can be asked."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from launcher.app import App
from launcher.errors import LaunchError
from launcher.ledger import Record
from launcher.untrusted import clean
from remote import runs
from remote.errors import RemoteError

if TYPE_CHECKING:
    from rich.console import Console

MOST_HOSTS_AT_ONCE = 16
SUBMITTING_S = 600
PIPE_COLUMNS = 10_000


@dataclass(frozen=True)
class Row:
    """One run.  State `unknown`: its host can't be asked; that says nothing about the run."""

    run_id: str
    name: str
    host: str
    state: str
    reason: str
    age_s: float | None
    pulled_to: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def overview(app: App, *, host: str | None, every: bool) -> list[Row]:
    """The runs, newest first.  Without `every` those that are over and pulled are left out."""
    if host is not None:
        known = {record.run_id: record.pulled_to for record in app.ledger.all()}
        found = runs.states(app.agent(host))
        return [_row(state, host, known.get(state.run_id, "")) for state in sorted(found, key=lambda s: s.run_age_s)]
    records = [record for record in app.ledger.all() if every or not (record.is_over and record.pulled_to)]
    open_hosts = sorted({record.host for record in records if not record.is_over})
    with ThreadPoolExecutor(MOST_HOSTS_AT_ONCE) as pool:
        asked = dict(zip(open_hosts, pool.map(lambda name: _ask(app, name, records), open_hosts), strict=True))
    rows = []
    for record in records:
        state = asked.get(record.host, {}).get(record.run_id)
        # A run that was remembered a moment ago may not be on its host yet: "gone" would be believed for ever.
        young = time.time() - record.submitted_at < SUBMITTING_S
        passing = state is None or state.state == "unknown" or (state.state == "gone" and young)
        if state is not None and not passing and not record.is_over:
            app.ledger.note_state(record.run_id, state.state, state.reason)
        if state is None or record.is_over:
            state = runs.State(record.run_id, record.state, record.reason, record.name)
        rows.append(_row(state, record.host, record.pulled_to, record.name))
    return rows


def _ask(app: App, host: str, records: Sequence[Record]) -> dict[str, runs.State]:
    wanted = [record.run_id for record in records if record.host == host and not record.is_over]
    try:
        # Of many hosts none may ask for a password, nor keep the others waiting.
        return {state.run_id: state for state in runs.states(app.agent(host, quiet=True), wanted)}
    except (RemoteError, LaunchError) as error:
        return {run_id: runs.State(run_id, "unknown", error.message) for run_id in wanted}


def _row(state: runs.State, host: str, pulled_to: str, name: str = "") -> Row:
    return Row(
        run_id=clean(state.run_id),
        name=clean(name or state.name),
        host=host,
        state=state.state,
        reason=clean(state.reason),
        # A host may say NaN or Infinity, which are not JSON.
        age_s=round(state.age_s, 1) if state.age_s and math.isfinite(state.age_s) else None,
        pulled_to=pulled_to,
    )


def render(rows: Sequence[Row], console: Console) -> None:
    """The table; one line a run."""
    from rich.table import Table

    if not rows:
        console.print("no runs; every finished one is pulled (launch ps -a shows all)")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("RUN", "HOST", "STATE", "SINCE", "PULLED"):
        # The widest are folded where the terminal is narrow; a column must never be pushed off the edge.
        table.add_column(column, no_wrap=column in ("SINCE", "PULLED"), overflow="fold")
    for row in rows:
        shown = row.state + (f": {row.reason}" if row.reason else "")
        table.add_row(row.run_id, row.host, shown, age(row.age_s), "yes" if row.pulled_to else "no")
    if not console.is_terminal:
        console.width = PIPE_COLUMNS  # a pipe has no edge: `launch ps | grep` gets one whole line a run
    console.print(table)


def age(seconds: float | None) -> str:
    """A time that has passed, in its largest unit."""
    if seconds is None:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
