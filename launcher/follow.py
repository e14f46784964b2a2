"""Follows a run on the screen and ends as the run ended; Ctrl-C leaves the run alone."""

from __future__ import annotations

import math

import click

from launcher.app import App
from launcher.errors import EXIT_DETACHED, RunFailed
from launcher.ledger import Record
from launcher.output import Output
from launcher.watch import watch
from remote.runs import State


def follow(app: App, record: Record, output: Output, *, once: bool = False) -> None:
    """Show log and events until the run is over.  Raises RunFailed; Ctrl-C ends the process with 130."""
    try:
        state = watch(record, app.agent(record.host), app.ledger, output.observe, once=once)
    except KeyboardInterrupt:
        output.close()
        click.echo(f"\ndetached; the run goes on: launch logs {record.run_id} -f", err=True)
        raise click.exceptions.Exit(EXIT_DETACHED) from None
    if not once:
        conclude(record, state, output)


def conclude(record: Record, state: State, output: Output) -> None:
    """Show how a run ended.  Raises RunFailed unless it succeeded."""
    if state.state != "succeeded":
        raise RunFailed(
            f"{record.run_id} {state.state}" + (f": {state.reason}" if state.reason else ""),
            hint=f"launch logs {record.run_id} -n 50",
        )
    seconds = round(state.run_age_s, 1) if math.isfinite(state.run_age_s) else None  # infinity is not JSON
    data = {"run_id": record.run_id, "host": record.host, "state": state.state, "seconds": seconds}
    output.show(data, lambda console: console.print(f"{record.run_id} succeeded\nlaunch pull {record.run_id}"))
