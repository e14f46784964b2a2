"""Asks a host what it is and has: one script, one channel.  What it says is read in `facts`; here nothing is decided.

The script goes as an argument and not as input: nothing that a login starts can swallow it, and bringing it costs no
round trip.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from functools import cache
from importlib import resources

from remote import facts, failure
from remote.errors import BadReply, NotFound
from remote.facts import Facts
from remote.host import Host
from remote.identity import Identity
from remote.profile import CACHE, Profile, Profiles, is_url, is_variable

TIMEOUT_S = 30.0
# For nvidia-smi, which takes a while to wake each GPU where the driver does not stay loaded, and for all the others.
SLOW_S = 12
QUICK_S = 5
# Beyond the slowest program: to start all of them on half a processor, and for the way there and back.
MARGIN_S = 6
OUTPUT_LIMIT_BYTES = 2 * 1024 * 1024

PYTHONS = ("python3", "/root/miniconda3/bin/python", "/opt/conda/bin/python", "~/miniconda3/bin/python", "python")
VERSIONED = tuple(f"python3.{minor}" for minor in range(14, 7, -1))
TOOLS = ("tmux", "screen", "git", "tar", "rsync", "curl", "wget", "uv", "conda", "zstd", "nvidia-smi", "shutdown")
DISKS = ("/", "~", "/tmp")


def probe(
    host: Host,
    profiles: Profiles,
    *,
    profile: Profile | None = None,
    workspace: str = "",
    mirrors: Iterable[str] = (),
    identity: Identity | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Facts:
    """The host's facts, within `timeout_s`; what is slow or stuck there is unknown in them.

    Looks at the folders of `profile`, where that is known, else at those of all `profiles` that the machine itself can
    prove to be of; at no other than `workspace` where one was asked for.  Writes nothing but a small file in each of
    them that exists, and removes it; not even that on a machine that does not fit `identity`.  Raises what Host.run
    raises, BadReply where the output does not come back, NotFound on Windows, and ValueError on a mirror that is no
    plain address.
    """
    if host.is_local and os.name == "nt":
        raise NotFound("local: probing needs a POSIX shell", hint="probe a rented host, or work inside WSL")
    nonce = secrets.token_hex(8)
    slow_s = max(1, min(SLOW_S, int(timeout_s) - MARGIN_S))
    argv = ["sh", "-c", script(), "sh", nonce, str(slow_s), str(min(QUICK_S, slow_s))]
    argv += arguments(profiles, profile, workspace, mirrors)
    if identity is not None:
        argv += [f"h:{identity.hostname}", f"m:{identity.marker}"]
    done = host.run(argv, timeout_s=timeout_s, stdout_limit_bytes=OUTPUT_LIMIT_BYTES)
    sections = facts.split(done.stdout, nonce)
    if sections:
        return facts.parse(sections)
    if done.exit_status == 127:
        raise BadReply(f"{host.name}: there is no POSIX shell to run commands with")
    raise failure.refusal(
        BadReply, f"{host.name}: a command was run there, but its output did not come back", "no sessions", host.name
    )


def arguments(profiles: Profiles, profile: Profile | None, workspace: str, mirrors: Iterable[str]) -> list[str]:
    """What the script is to look for.  Raises ValueError on what it could misread, or should not be told."""
    kinds = profiles.all()
    # Of a kind that only an address tells of, the folders may be anything on another machine.
    considered = [profile] if profile else [one for one in kinds if one.recognise.is_on_the_machine and not one.refusal]
    folders = [workspace] if workspace else [path for one in considered for path in one.workspaces if path != CACHE]
    folders += [] if workspace else [CACHE]
    wanted = {
        "w": folders,
        "d": [*folders, *(durable.path for one in considered for durable in one.durable), *DISKS],
        "x": [path for one in kinds for path in (*one.recognise.all_paths, one.network_hook)],
        "p": [*(path for one in considered for path in one.pythons), *PYTHONS, *VERSIONED],
        "t": TOOLS,
        "u": list(mirrors),
        "i": [name for one in kinds for name in one.ids],
        "e": [name for one in kinds for name in one.recognise.variables],
    }
    if wrong := [url for url in wanted["u"] if not is_url(url)]:
        raise ValueError(f"not plain http addresses: {len(wrong)} of the mirrors")
    if wrong := [name for name in (*wanted["i"], *wanted["e"]) if not is_variable(name)]:
        raise ValueError(f"not names of variables: {wrong}")
    return [f"{kind}:{word}" for kind, words in wanted.items() for word in dict.fromkeys(words) if word]


@cache
def script() -> str:
    """`probe.sh` without comments and indentation: it travels in the request to run it."""
    text = resources.files("remote").joinpath("probe.sh").read_text("utf-8").replace("\r\n", "\n")
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith("#")) + "\n"
