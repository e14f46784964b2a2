"""Looks at a host before anything is sent to it, and says what would go wrong there: what, why, and what to do."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.data_finding import NOTE
from launcher import submit
from launcher.app import App
from launcher.data_table import in_a_line
from launcher.errors import LaunchError
from launcher.host_book import LOCAL, SavedHost
from launcher.progress import Note, Observer
from launcher.room import GIB, Room
from launcher.untrusted import clean
from remote import probe as probing
from remote.facts import Disk, Facts, Gpu
from remote.profile import Profile

GB = 1e9
USUAL = Room()
SPARE_BYTES = 256 * 1024 * 1024
ROOM_INODES, SPARE_INODES = 60_000, 2_000
BUSY_BYTES = GIB
SKEW_S = 120.0
# What a no-GPU mode leaves, and what loading the smallest models takes.
FEW_MEMORY_BYTES = 4 * GIB


@dataclass(frozen=True)
class Finding:
    """One thing that stands in the way; a `fatal` one stops a run from being sent."""

    code: str
    fatal: bool
    what: str
    why: str
    todo: str

    def in_words(self) -> str:
        """One sentence and the next step."""
        return f"{'error' if self.fatal else 'warning'}: {self.what}: {self.why}\nhint: {self.todo}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """A host as it was found."""

    host: str
    facts: Facts
    profile: Profile
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        found = [finding.to_json() for finding in self.findings]
        return {"host": self.host, "profile": self.profile.name, **self.facts.to_json(), "findings": found}

    @property
    def is_fatal(self) -> bool:
        """Whether a run would be stopped before it is sent."""
        return any(finding.fatal for finding in self.findings)

    def summary(self) -> str:
        """The machine in a line."""
        gpus = self.facts.gpus
        names = "GPUs unknown" if gpus is None else ", ".join(named_gpus(gpus)) or "no GPU"
        cpus, memory = self.facts.cpu_count, self.facts.memory_limit_bytes
        shown = [names, f"{cpus:g} CPUs" if cpus else "", f"{memory / GIB:.0f} GiB RAM" if memory else ""]
        return ", ".join(part for part in shown if part)


def named_gpus(gpus: Sequence[Gpu]) -> list[str]:
    """Each kind of GPU with its own memory, and how many of it."""
    kinds = Counter(
        gpu.name + (f" {gpu.memory_total_bytes / GIB:.0f} GiB" if gpu.memory_total_bytes else "") for gpu in gpus
    )
    return [f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.items()]


def no_secrets(names: Sequence[str]) -> Finding:
    """What a plan says about secrets without a value; who starts the run is asked for them."""
    what = f"the spec names secrets without a value here: {', '.join(names)}"
    return Finding("secrets_missing", False, what, "they will be asked for", f"set {names[0]} in the environment")


class NotReady(LaunchError):
    """The host can't take the run; nothing was sent."""

    code = "preflight_failed"


def look(
    app: App,
    name: str,
    *,
    send_bytes: int = 0,
    send_files: int = 0,
    room: Callable[[], Room] = Room,
    mirrors: bool = False,
    quiet: bool = False,
) -> Report:
    """Ask the host, over one command; `room` finds what is needed there beyond what is sent.

    Raises OtherMachine when it is not the one on record, and what connecting raises.
    """
    saved = app.hosts.find(name)
    profile = app.profiles.named(saved.profile) if saved.profile else None
    workspace = str(app.settings.local_workspace) if saved.name == LOCAL else saved.workspace
    urls = (profile or app.profiles.named("plain")).mirrors if mirrors else ()
    host = app.agent(name, quiet=quiet).host
    host.connect()  # its time must not count as the clock's being slow
    before_s = time.time()
    facts = probing.probe(
        host, app.profiles, profile=profile, workspace=workspace, mirrors=urls, identity=saved.identity
    )
    skew_s = _skew_s(facts, before_s, time.time())
    saved.identity.require(name, facts.identity)
    profile = profile or app.profiles.recognise(facts, _address(saved))
    needed = USUAL
    if room is not Room and facts.python(3, 8) and facts.workspace_among([one.path for one in facts.workspaces]):
        needed = room()  # our program can run there, and be asked
    found = tuple(
        findings(facts, profile, name, send_bytes=send_bytes, send_files=send_files, room=needed, skew_s=skew_s)
    )
    return Report(name, facts, profile, found)


def in_words(report: Report, plan: submit.Plan) -> str:
    """The plan of a run and what was found on its host, for `--dry-run`."""
    found = [clean(finding.in_words()) for finding in report.findings]
    here = f"  host  {clean(report.facts.hostname)}: {clean(report.summary())}"
    in_data = [in_a_line(finding) for finding in plan.findings if finding.severity != NOTE]
    end = "it would start"
    if report.is_fatal or plan.is_unfit():
        end = "it would not start" + ("" if plan.is_unfit(force=True) else " (--force goes on regardless)")
    return "\n".join(
        [submit.in_words(plan, report.host), here, *in_data, *found, f"{end}; nothing was sent (--dry-run)"]
    )


def check(report: Report, observer: Observer, *, force: bool = False) -> None:
    """Tell the findings.  Raises NotReady where one is fatal, unless `force`."""
    for finding in report.findings:
        if force or not finding.fatal:
            observer(Note(clean(finding.in_words())))
    fatal = [finding for finding in report.findings if finding.fatal]
    if fatal and not force:
        listed = "".join(f"\n  - {one.what}: {one.why}" for one in fatal)
        raise NotReady(f"{report.host} is not ready, nothing was sent{clean(listed)}", hint=clean(fatal[0].todo))


def findings(
    facts: Facts,
    profile: Profile,
    name: str,
    *,
    send_bytes: int = 0,
    send_files: int = 0,
    room: Room = USUAL,
    skew_s: float | None = None,
) -> Iterator[Finding]:
    """What stands in the way of a run on such a machine; pure.  `skew_s`: its clock minus ours, None if not known."""
    yield from _gpu(facts, profile, name)
    yield from _workspace(facts, profile, name, send_bytes, send_files, room)
    if facts.pythons and not facts.python(3, 8):
        yield Finding("python", True, "no Python >= 3.8", "our program on the host needs one",
                      "choose an image with a newer Python")  # fmt: skip
    elif not facts.pythons:
        yield Finding("python", True, "no Python was found", "our program on the host needs one, >= 3.8",
                      "choose an image with Python")  # fmt: skip
    if not facts.tool("tmux"):
        without = "the run is detached, and nobody can attach to it"
        if name != LOCAL:
            without = (
                f"it is installed before a run starts if apt-get (as root) or conda can do that soon; else {without}"
            )
        yield Finding("tmux", False, "no tmux", without, f"launch exec {name} -- apt-get install -y tmux")
    if skew_s is not None and abs(skew_s) > SKEW_S:
        way = "ahead" if skew_s > 0 else "behind"
        yield Finding("clock", False, f"its clock is {abs(skew_s) / 60:.0f} min {way}",
                      "certificates may not be valid yet, or not any more, so that downloads fail",
                      f"launch exec {name} -- date")  # fmt: skip
    limit, used = facts.memory_limit_bytes, facts.memory_used_bytes or 0
    if limit is not None and limit - used < FEW_MEMORY_BYTES:
        yield Finding("memory", False, f"{(limit - used) / GIB:.1f} GiB of memory left of {limit / GIB:.1f}",
                      "the platform kills the largest process when the limit is reached",
                      f"launch exec {name} -- ps aux, or rent more memory")  # fmt: skip


def _gpu(facts: Facts, profile: Profile, name: str) -> Iterator[Finding]:
    cpus = f"{facts.cpu_count:g} CPUs" if facts.cpu_count else "the CPU"
    if facts.gpus is None:
        yield Finding("gpu", profile.expects_gpu, "nvidia-smi does not answer", "the driver hangs, or is being started",
                      f"launch host probe {name}; if it stays so, restart the machine in the console")  # fmt: skip
    elif facts.gpu_fault:
        yield Finding("gpu", True, f"the GPU is out of order ({facts.gpu_fault})", "nothing can be computed on it",
                      "restart the machine in the console, or rent another one")  # fmt: skip
    elif profile.misses_gpu(facts):
        yield Finding("no_gpu_mode", True, "no GPU: probably started in its no-GPU mode (无卡模式)",
                      f"training on {cpus} would take days",
                      f"start it with a GPU in the console, then: launch host probe {name}")  # fmt: skip
    elif not facts.gpus:
        yield Finding("gpu", False, "no NVIDIA GPU", "training runs on the CPU, which suits only tiny models",
                      "rent a machine with a GPU, or go on")  # fmt: skip
    yield from _busy(facts, name)


def _busy(facts: Facts, name: str) -> Iterator[Finding]:
    others = facts.gpu_processes or ()
    for gpu in facts.gpus or ():
        used = gpu.memory_used_bytes or 0
        on_it = [one for one in others if one.gpu_uuid == gpu.uuid]
        if not on_it and used < BUSY_BYTES:
            continue
        who = (
            ", ".join(f"{one.name or 'a process'} (pid {one.pid})" for one in on_it[:3])
            or "a process that can't be seen"
        )
        yield Finding("gpu_busy", False, f"{gpu.name} has {used / GIB:.1f} GiB in use, by {who}",
                      "the run may be out of memory, and both are slower",
                      f"launch ps --host {name}, launch exec {name} -- nvidia-smi")  # fmt: skip


def _workspace(
    facts: Facts, profile: Profile, name: str, send_bytes: int, send_files: int, room: Room
) -> Iterator[Finding]:
    workspace = facts.workspace_among([one.path for one in facts.workspaces])
    if workspace is None:
        tried = "; ".join(f"{one.folder}: {one.reason or one.state} {one.said}".strip() for one in facts.workspaces)
        yield Finding("workspace", True, f"no folder can be written to ({tried or 'none was tried'})",
                      "a run keeps its inputs, log and results there",
                      f"free some space, or: launch host add {name} LOGIN --workspace DIR")  # fmt: skip
        return
    disk = facts.disk(workspace.path) or facts.disk(workspace.folder)
    if disk is not None:
        yield from _room(disk, name, send_bytes, send_files, room)
    if profile.durable and not profile.survives(workspace.folder):
        yield Finding("durable", False, f"{workspace.folder} may not survive a stop of the machine",
                      f"on {profile.title} only {', '.join(one.path for one in profile.durable)} does",
                      f"pull soon, or: launch host add {name} LOGIN --workspace {profile.durable[0].path}")  # fmt: skip


def _room(disk: Disk, name: str, send_bytes: int, send_files: int, room: Room) -> Iterator[Finding]:
    clean_up = (
        f"launch exec {name} -- sh -c 'df -h; df -i; du -xsh ~/.cache/huggingface ~/.local/share/Trash "
        "/root/miniconda3/pkgs /root/autodl-tmp/*'"
    )
    if disk.read_only:
        yield Finding("disk", True, f"{disk.mount} is read-only", "nothing can be put there",
                      "restart the machine in the console")  # fmt: skip
    free, inodes = disk.free_bytes, disk.free_inodes
    if free is not None and free < send_bytes + room.size_bytes:
        fatal = free < send_bytes + SPARE_BYTES
        yield Finding("disk", fatal, f"{free / GB:.1f} GB free on {disk.mount}",
                      f"{send_bytes / GB:.1f} GB would be sent, and about {room.size_bytes / GB:.0f} GB more are "
                      f"needed: {', '.join(room.words)}", clean_up)  # fmt: skip
    if inodes is not None and inodes < send_files + ROOM_INODES:
        fatal = inodes < send_files + SPARE_INODES
        yield Finding("inodes", fatal, f"{inodes} inodes free on {disk.mount}",
                      "every file takes one, however small, and an environment has some 30,000", clean_up)  # fmt: skip


def _skew_s(facts: Facts, before_s: float, after_s: float) -> float | None:
    """Its clock minus ours; 0 where the difference can be the time that the question took."""
    if facts.clock_s is None:
        return None
    if before_s - 1 <= facts.clock_s <= after_s + 1:
        return 0.0
    return facts.clock_s - (before_s if facts.clock_s < before_s else after_s)


def _address(saved: SavedHost) -> str:
    """The host name that its login leads to."""
    if saved.name == LOCAL:
        return ""
    from remote.ssh import address

    return address.parse(saved.login).host
