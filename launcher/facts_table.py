"""What a host has, on the screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from launcher.preflight import Report
from launcher.untrusted import clean
from remote.facts import Disk, Gpu, Mirror

if TYPE_CHECKING:
    from rich.console import Console

GB, GIB = 1e9, 1 << 30
UNKNOWN = "unknown"


def render(report: Report, console: Console) -> None:
    """Two columns, then what would stand in the way of a run."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for what, said in _rows(report):
        if not console.is_terminal:
            console.print(f"{what:<10} {clean(said)}", soft_wrap=True)  # one whole line each, for grep
        table.add_row(what, clean(said))
    if console.is_terminal:
        console.print(table)
    for finding in report.findings:
        console.print(clean(finding.in_words()), style="red" if finding.fatal else "yellow", soft_wrap=True)
    if report.facts.problems:
        console.print(clean(f"not found out: {'; '.join(report.facts.problems)}"), style="dim", soft_wrap=True)


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    facts = report.facts
    yield "machine", f"{facts.hostname} ({report.profile.title}), {facts.os or UNKNOWN}, {facts.kernel}"
    yield "login", f"{facts.user or UNKNOWN}; container: {facts.container or UNKNOWN}; logins: {_count(facts.logins)}"
    yield from _gpus(report)
    cpus, machine = facts.cpu_count, facts.cpu.machine_count
    of_all = f" of the machine's {machine}" if machine and machine != cpus else ""
    yield "CPUs", (f"{cpus:g}" if cpus else UNKNOWN) + of_all
    limit, used = facts.memory_limit_bytes, facts.memory_used_bytes
    yield "memory", f"{_size(limit)}, {_size(used)} in use"
    for disk in {disk.mount: disk for disk in facts.disks if disk.exists}.values():
        yield "disk", _disk(disk)
    for workspace in facts.workspaces:
        why = f" ({workspace.reason})" if workspace.reason else ""
        yield "workspace", f"{workspace.folder}: {workspace.state}{why}"
    pythons = (f"{python.version or UNKNOWN} {python.path}" for python in facts.pythons)
    yield "Pythons", ", ".join(pythons) or "none"
    yield "tools", ", ".join(tool.name for tool in facts.tools) or "none"
    if facts.network is not None:
        preset = facts.network
        presets = (("package index", preset.pip_index), ("hub", preset.hf_endpoint), ("HF_HOME", preset.hf_home))
        yield "presets", ", ".join(f"{name} {value}" for name, value in presets if value) or "none"
    for mirror in facts.mirrors:
        yield "mirror", f"{mirror.url}: {_answer(mirror)}"


def _gpus(report: Report) -> Iterator[tuple[str, str]]:
    facts = report.facts
    if facts.gpus is None:
        yield "GPU", UNKNOWN
    for gpu in facts.gpus or ():
        yield "GPU", _gpu(gpu)
    if facts.gpus == ():
        yield "GPU", "none" + (": probably its no-GPU mode (无卡模式)" if report.profile.misses_gpu(facts) else "")
    for process in facts.gpu_processes or ():
        yield "on it", f"{process.name or 'a process'} (pid {process.pid}), {_size(process.memory_used_bytes)}"
    if facts.nvidia is not None and facts.nvidia.driver_version:
        yield "driver", f"{facts.nvidia.driver_version}, CUDA {facts.nvidia.cuda_version or UNKNOWN}"


def _gpu(gpu: Gpu) -> str:
    busy = "" if gpu.utilization_percent is None else f", {gpu.utilization_percent:.0f} % busy"
    arch = f", compute {gpu.compute_capability}" if gpu.compute_capability else ""
    return f"{gpu.name}, {_size(gpu.memory_total_bytes)}, {_size(gpu.memory_used_bytes)} in use{busy}{arch}"


def _disk(disk: Disk) -> str:
    inodes = "" if disk.free_inodes is None else f", {disk.free_inodes:,} inodes free"
    free = UNKNOWN if disk.free_bytes is None else f"{disk.free_bytes / GB:.1f} GB free"
    total = "" if disk.total_bytes is None else f" of {disk.total_bytes / GB:.0f} GB"
    return f"{disk.mount}: {free}{total}{inodes}" + (", read-only" if disk.read_only else "")


def _answer(mirror: Mirror) -> str:
    if mirror.ok is None:
        return UNKNOWN
    took = "" if mirror.duration_s is None else f" in {mirror.duration_s:.1f} s"
    return f"answers{took}" if mirror.ok else f"no ({mirror.error or mirror.http_status})"


def _size(size_bytes: int | None) -> str:
    return UNKNOWN if size_bytes is None else f"{size_bytes / GIB:.1f} GiB"


def _count(number: int | None) -> str:
    return UNKNOWN if number is None else str(number)
