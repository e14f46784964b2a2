"""`launch publish`: a verified adapter to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.app import App
from launcher.options import json_option, yes_option
from launcher.output import Output
from launcher.progress import Note


@click.command("publish")
@click.argument("names", nargs=-1, required=True, metavar="[RUN|DIR] REPO")
@click.option("--public", is_flag=True, help="Everybody can see it; without this it is private.")
@click.option("--base", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder of the base model.")
@click.option("--dry-run", is_flag=True, help="Show the model card and the files; nobody is contacted.")
@yes_option
@json_option
@click.pass_obj
def command(
    app: App, names: tuple[str, ...], public: bool, base: Path | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Put a verified adapter on the Hugging Face Hub.

    REPO is owner/name, and private unless --public says otherwise.  The run is verified first, and what fails is not
    published (exit status 7).  Adapter, tokenizer, a model card and the verdict go up in one commit; no text of the
    data does.  The token is HF_TOKEN or that of `hf auth login`; HF_ENDPOINT names another Hub.

    Example: launch publish reviews-k3x7q2mh me/reviews
    """
    from launcher import home_jobs, publish
    from launcher.hub_repository import HubRepository, check_name, own_token

    if len(names) > 2:
        raise click.UsageError("one RUN and one REPO")
    *runs, repository = names
    check_name(repository)
    output = Output(as_json=as_json)
    hub = None if dry_run else HubRepository(repository, own_token())
    home = home_jobs.find(runs[0] if runs else None, app.ledger, base=base)
    publication = publish.gather(home, repository, app.settings.local_workspace, output.observe_notes)
    if hub is None:
        shown = publication.to_json() | {"dry_run": True, "public": public, "card": publication.card}
        output.show(shown, lambda console: console.print(publication.in_words(), soft_wrap=True))
        return
    standing = hub.look()
    publish.require_fit(publication, standing, public=public)
    output.observe(Note(publication.plan(standing, public=public)))
    if not (yes or click.confirm("Publish?", err=True)):
        raise click.Abort
    published = publish.send(publication, hub, standing, public=public)
    output.show(published.to_json(), lambda console: console.print(published.in_words(), soft_wrap=True))
