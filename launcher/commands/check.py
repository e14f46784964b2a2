"""`launch check`: is this data worth renting a machine for?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from launcher.options import json_option, spec_options
from launcher.output import Output


@click.command("check")
@click.argument("spec", type=click.Path(path_type=Path))
@spec_options
@json_option
def command(spec: Path, as_json: bool, **flags: Any) -> None:
    """Look at the data of a spec, on this machine alone: leaks, conflicts, classes, lengths, encodings.

    `launch train` does the same before it sends anything.  Exit status 1 where an error is found.

    Example: launch check reviews.yaml --max-length 128
    """
    from jobs.spec import load
    from launcher import checked_data, data_table, submit

    output = Output(as_json=as_json)
    folder = spec.absolute().parent
    asked = load(spec, {key: value for key, value in flags.items() if value is not None})
    checked = checked_data.look(asked, folder, submit.base_folder(asked, folder))
    how_split = checked.dataset.in_words()
    output.show(checked.to_json(), lambda console: data_table.render(checked.report, how_split, console))
    raise click.exceptions.Exit(1 if checked.report.has_errors else 0)
