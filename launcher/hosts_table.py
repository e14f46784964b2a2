"""Saved hosts on the screen: the list, and one of them whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from launcher.app import App
from launcher.host_book import LOCAL, SavedHost
from launcher.untrusted import clean

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 10_000


def render_list(hosts: Sequence[SavedHost], console: Console) -> None:
    """One line a host."""
    from rich.table import Table

    if not hosts:
        console.print('none yet: launch host add NAME "ssh -p PORT root@HOST"', soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "LOGIN", "PROFILE", "MACHINE"):
        table.add_column(column, overflow="fold")
    for saved in hosts:
        table.add_row(*map(clean, (saved.name, saved.login, saved.profile, saved.identity.hostname)))
    if not console.is_terminal:
        console.width = PIPE_COLUMNS  # a pipe has no edge
    console.print(table)


def shown(app: App, saved: SavedHost) -> dict[str, Any]:
    """All that is known of a host without asking it: its entry, the way there, its profile, its runs."""
    data = saved.to_json()
    if saved.name != LOCAL:
        from remote.ssh import address
        from remote.ssh import config as ssh_config

        data["way"] = [str(hop) for hop in ssh_config.route_in_time(address.parse(saved.login))]
    if saved.profile:
        profile = app.profiles.named(saved.profile)
        data["profile_title"], data["keeps"], data["billing"] = profile.title, profile.keeps, profile.billing
    data["runs"] = [record.run_id for record in app.ledger.lines() if record.host == saved.name]
    return data


def render_one(data: dict[str, Any], console: Console) -> None:
    """The same, a line for each thing that is known."""
    for key, value in data.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {text}" for name, text in value.items() if text)
        elif isinstance(value, list):
            value = (" -> " if key == "way" else ", ").join(value)
        if value:
            console.print(f"{key.replace('_', ' '):<14} {clean(str(value))}", soft_wrap=True)
