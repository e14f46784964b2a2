"""What a host does once a run is over: power itself off, tell somebody.  Plans and refuses; the host carries it out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.run_directory import RunDirectory
from launcher.errors import LaunchError
from remote.profile import Profile

WECHAT = "wechat"
WECHAT_URL = "https://www.autodl.com/api/v1/wechat/message/send"
WECHAT_VARIABLE = "AUTODL_TOKEN"
MOST_TARGETS = 8
# Where the host finds the numbers that are worth a notice.
METRICS = RunDirectory(Path()).metrics.as_posix()
FIGURES = {name: [METRICS, "models", {"key": "lora"}, "metrics", name] for name in ("accuracy", "f1")}


def poweroff(name: str, profile: Profile, workspace: str, *, keep_on_failure: bool = False) -> dict[str, Any]:
    """The key `poweroff` of a plan, for a run in `workspace` on the host called `name`.

    Raises LaunchError where the provider's machines must not be powered off from inside, or where what the run leaves
    would not survive that.
    """
    if not profile.poweroff.safe or not profile.poweroff.command:
        raise LaunchError(
            f"{name} is {profile.title}: powering it off from inside may destroy it, or not end the billing",
            code="poweroff_unsafe",
            hint="leave out --on-finish poweroff, and stop it in the provider's console",
        )
    if not profile.survives(workspace):
        paths = ", ".join(one.path for one in profile.durable) or "nothing"
        raise LaunchError(
            f"{name}: {workspace} would not survive a power-off; on {profile.title} {paths} does",
            code="poweroff_unsafe",
            hint=f"launch host add {name} LOGIN --workspace DIR",
        )
    return {
        "command": list(profile.poweroff.command),
        "keep_on_failure": keep_on_failure,
        "durable": [one.path for one in profile.durable],
    }


def check(values: Sequence[str]) -> None:
    """Raises LaunchError for what `targets` would not take; asks for nothing."""
    targets(values, lambda what: "later")


def targets(values: Sequence[str], secret: Callable[[str], str | None]) -> list[dict[str, Any]]:
    """Where to tell that a run is over: addresses, or `wechat` for AutoDL's; they hold secrets.

    `secret` asks a person for what it names; None where nobody is there.  Raises LaunchError.
    """
    if len(values) > MOST_TARGETS:
        raise LaunchError(f"--notify: at most {MOST_TARGETS} of them", code="usage")
    return [_wechat(secret) if value == WECHAT else _address(value) for value in dict.fromkeys(values)]


def _address(value: str) -> dict[str, Any]:
    # Never quoted in an error: it may hold a token.
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not value.isascii() or not value.isprintable() or " " in value:
        raise LaunchError("--notify: neither an http(s) address nor wechat", code="usage",
                          hint="launch train SPEC --host HOST --notify https://example.com/hook")  # fmt: skip
    if parts.username is not None or parts.password is not None:
        raise LaunchError(f"--notify {parts.scheme}://{parts.hostname}: a name and password in an address are not sent",
                          code="usage", hint="use an address with a token in its path")  # fmt: skip
    return {"kind": "json", "url": value, "figures": FIGURES}


def _wechat(secret: Callable[[str], str | None]) -> dict[str, Any]:
    token = (os.environ.get(WECHAT_VARIABLE) or secret("AutoDL's developer token") or "").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise LaunchError("--notify wechat: there is no AutoDL developer token", code="usage",
                          hint=f"set {WECHAT_VARIABLE} (console, settings, developer token)")  # fmt: skip
    return {"kind": WECHAT, "url": WECHAT_URL, "token": token, "figures": FIGURES}
