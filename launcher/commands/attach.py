"""`launch attach`: the terminal that a run has on its host."""

from __future__ import annotations

import click

from launcher.app import App
from launcher.errors import EXIT_OWN_FAILURE


@click.command("attach")
@click.argument("run", required=False)
@click.pass_obj
def command(app: App, run: str | None) -> None:
    """Attach to a run's tmux session, in this terminal; Ctrl-B, then D, detaches.  The latest run without RUN.

    Example: launch attach reviews-k3x7q2mh
    """
    from launcher.attach import attach

    record = app.ledger.find(run)
    status = attach(app, record)
    if status is None:
        app.questions.tell(f"the connection to {record.host} was lost; the run goes on: launch attach {record.run_id}")
        status = EXIT_OWN_FAILURE
    raise click.exceptions.Exit(status)
