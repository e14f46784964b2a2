"""`launch logs`: what a run printed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.app import App
from launcher.options import DURATION, json_option, price_option, run_argument
from launcher.output import Output

if TYPE_CHECKING:
    from launcher.price import Price

JSON_CHARACTERS = 8_000_000


@click.command("logs")
@run_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the run is over.")
@click.option("-n", "--tail", type=click.IntRange(min=0), help="Only the last N lines.")
@click.option("--since", type=DURATION, metavar="10m", help="Only what was printed since then: 30s, 10m, 4h, 1d12h.")
@price_option
@json_option
@click.pass_obj
def command(
    app: App,
    run: str | None,
    following: bool,
    tail: int | None,
    since: float | None,
    price: Price | None,
    as_json: bool,
) -> None:
    """Print a run's log.  Ctrl-C stops the printing, not the run.

    Of a host that can't be reached: what was pulled or seen of the log before.  With -n and --since the shorter.

    Example: launch logs reviews-k3x7q2mh -f
    """
    from launcher.follow import follow
    from launcher.log_text import log_text, show_log
    from launcher.price import of_spec
    from launcher.watch import Part

    record, part = app.ledger.find(run), Part(tail, since)
    output = Output(as_json=as_json, price=price or of_spec(record.submission.spec.price))
    if following:
        follow(app, record, output, part)
    elif as_json:
        text = log_text(app, record, part, JSON_CHARACTERS, output.observe_notes)
        output.show({"run_id": record.run_id, "log": text}, lambda console: None)
    else:
        show_log(app, record, output.observe, part)
        output.close()
