"""Checks this machine and every saved host, and says for each trouble what to do.  Changes nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import recipe
from launcher.app import App
from launcher.errors import LaunchError
from launcher.untrusted import clean
from remote.errors import RemoteError
from remote.local_host import LocalHost
from remote.ssh import config as ssh_config
from remote.ssh.address import Address
from remote.ssh.host_keys import KnownHosts

if TYPE_CHECKING:
    from rich.console import Console

OK, WARN, FAIL = "ok", "warn", "fail"
STYLES = {OK: "", WARN: "yellow", FAIL: "red"}
MOST_HOSTS_AT_ONCE = 16
CONFIG_TIMEOUT_S = 5
TORCH_TIMEOUT_S = 120
SIZING_S = 5.0
FEW_BYTES = 5 << 30
TORCH = """
import torch
assert float((torch.ones(8, 8) @ torch.ones(8, 8)).sum()) == 512.0
print(torch.__version__, "with CUDA" if torch.cuda.is_available() else "on the CPU", "from", torch.__file__)
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: on `where` (`here` or a host's name), `status` ok, warn or fail."""

    where: str
    what: str
    status: str
    detail: str
    todo: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine(app: App, host_names: Sequence[str] | None = None) -> list[Check]:
    """This machine, then the hosts (every saved one where none is named), all hosts at once."""
    checks = [*_here(app)]
    try:
        names = host_names if host_names is not None else [saved.name for saved in app.hosts.all()]
    except LaunchError:
        return checks  # the file was complained about above
    with ThreadPoolExecutor(MOST_HOSTS_AT_ONCE) as pool:
        for found in pool.map(lambda name: _host(app, name), names):
            checks += found
    return checks


def _here(app: App) -> Iterator[Check]:
    yield Check("here", "python", OK, f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield _guarded("settings", lambda: _settings(app))
    yield _guarded("~/.ssh/config", _ssh_config)
    yield from _keys()
    yield _guarded("known_hosts", _known_hosts)
    yield _guarded("agent", _agent)
    yield _guarded("verify, evaluate", _environment)
    yield _guarded("disk", lambda: _disk(app))


def _guarded(what: str, look: Callable[[], Check]) -> Check:
    try:
        return look()
    except (RemoteError, LaunchError) as error:
        return Check("here", what, FAIL, error.message, error.hint)
    except OSError as error:
        return Check("here", what, FAIL, str(error))


def _settings(app: App) -> Check:
    counts = {"hosts": len(app.hosts.all()), "runs": len(app.ledger.lines()), "profiles": len(app.profiles.all())}
    shown = ", ".join(f"{what}: {count}" for what, count in counts.items())
    return Check("here", "settings", OK, f"{shown}; {app.settings.data}")


def _ssh_config() -> Check:
    ssh_config.route_in_time(Address("launch-doctor.invalid"), CONFIG_TIMEOUT_S)
    path = ssh_config.default_file()
    return Check(
        "here", "~/.ssh/config", OK, f"{len(ssh_config.aliases())} hosts" if path.exists() else "none, none is needed"
    )


def _keys() -> Iterator[Check]:
    from remote.ssh.credentials import default_keys

    keys = default_keys()
    if not keys:
        yield Check(
            "here", "keys", WARN, "no key in ~/.ssh: every login takes a password", "launch host add offers to make one"
        )
    for path in keys:
        mode = path.stat().st_mode & 0o077 if os.name != "nt" else 0
        if mode:
            yield Check("here", "keys", WARN, f"{path} can be read by others", f"chmod 600 {path}")
        else:
            yield Check("here", "keys", OK, str(path))


def _known_hosts() -> Check:
    known = KnownHosts()
    known.key_types("launch-doctor.invalid")
    return Check("here", "known_hosts", OK, str(known.path) if known.path.exists() else "none yet")


def _agent() -> Check:
    from remote.ssh.credentials import MOST_KEYS, open_agent

    with contextlib.closing(open_agent()) as agent:
        keys = agent.get_keys()
    if len(keys) > MOST_KEYS:
        return Check("here", "agent", WARN, f"{len(keys)} keys; only {MOST_KEYS} are offered to a host",
                     'name the right one: launch host add NAME "ssh -i ~/.ssh/KEY …"')  # fmt: skip
    return Check("here", "agent", OK, f"{len(keys)} keys" if keys else "none, or without keys")


def _environment() -> Check:
    """Whether the Python that runs us can verify and evaluate; where it can't, one is made that can."""
    from remote.onhost import interpreter

    instead = "one that can is made for it, once (about 1 GB)"
    needs = [
        interpreter.Need(name, tuple(low), tuple(high)) for name, low, high in recipe.recipe(at_home=True)["needs"]
    ]
    python = interpreter.look(sys.executable, [need.name for need in needs])
    unmet = [reason for need in needs if python and (reason := need.unmet(python))]
    if python is None or unmet:
        return Check("here", "verify, evaluate", OK, f"not with this Python ({clean(', '.join(unmet))}): {instead}")
    try:
        done = LocalHost().run([sys.executable, "-P", "-c", TORCH], timeout_s=TORCH_TIMEOUT_S)
    except RemoteError as error:
        return Check("here", "verify, evaluate", WARN, f"torch does not import: {error.message}: {instead}")
    if done.exit_status != 0:
        said = clean(done.stderr.decode("utf-8", "replace")).strip().splitlines()[-1:] or [f"status {done.exit_status}"]
        return Check("here", "verify, evaluate", WARN, f"torch is broken here ({said[0]}): {instead}")
    return Check("here", "verify, evaluate", OK, f"torch {clean(done.stdout.decode('utf-8', 'replace')).strip()}")


def _disk(app: App) -> Check:
    import shutil

    hub = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    sizes = [f"{_size(folder)} in {folder}" for folder in (app.settings.cache, hub) if folder.is_dir()]
    folder = next(one for one in (app.settings.data, *app.settings.data.parents) if one.exists())
    free = shutil.disk_usage(folder).free
    detail = ", ".join([f"{free / 1e9:.0f} GB free", *sizes])
    few = free < FEW_BYTES
    return Check(
        "here", "disk", WARN if few else OK, detail, "models and runs need more; free some space" if few else ""
    )


def _size(folder: Path) -> str:
    """Of the files below it, links not followed; "at least" where counting takes too long."""
    deadline, total = time.monotonic() + SIZING_S, 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
        if time.monotonic() > deadline:
            return f"at least {total / 1e9:.1f} GB"
    return f"{total / 1e9:.1f} GB"


def _host(app: App, name: str) -> list[Check]:
    from launcher import preflight

    started = time.monotonic()
    try:
        report = preflight.look(app, name, quiet=True)
    except (RemoteError, LaunchError) as error:
        hint = f"launch host probe {name}" if error.code == "authentication_failed" else error.hint
        return [Check(name, "login", FAIL, error.message, hint)]
    took_s = time.monotonic() - started
    checks = [Check(name, "login", OK, f"{report.facts.hostname}, {report.summary()}, answers in {took_s:.1f} s")]
    return checks + [
        Check(name, finding.code, FAIL if finding.fatal else WARN, f"{finding.what}: {finding.why}", finding.todo)
        for finding in report.findings
    ]


def render(checks: Sequence[Check], console: Console) -> None:
    """A check after the other, what to do below it, whole, so that it can be copied."""
    for one in checks:
        line = f"{one.status:<5} {one.where}, {one.what}: {clean(one.detail).removeprefix(f'{one.where}: ')}"
        console.print(line, style=STYLES[one.status], soft_wrap=not console.is_terminal)
        if one.todo:
            console.print(f"      hint: {clean(one.todo)}", soft_wrap=True)
    bad = sum(one.status != OK for one in checks)
    console.print("all is well" if not bad else f"{bad} of {len(checks)} checks want a look", style="bold")
