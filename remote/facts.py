"""What a machine is and has, read from the sections that `probe.sh` prints.  Pure: it asks nothing and decides nothing.

A host is untrusted and often broken: whatever it says, parsing ends, with bounded texts and numbers.  What is missing
or can't be read is None, never 0, where it is a number, and "" where it is a text, and named in `Facts.problems`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any, TypeVar

from remote.identity import Identity

MOST_LINES = 2000
MOST_ITEMS = 200
MOST_CHARACTERS = 500
KIB, MIB = 1024, 1024 * 1024
# A control group of version 1 without a limit names the largest number of pages.
UNLIMITED_BYTES = 1 << 60

Section = Sequence[str]
N = TypeVar("N", int, float)


@dataclass(frozen=True)
class Gpu:
    """One GPU.  `index` and `uuid` are nvidia-smi's; `mig_devices` its parts, where it is cut into such."""

    index: int | None
    uuid: str
    name: str
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    utilization_percent: float | None = None
    compute_capability: str = ""
    driver_version: str = ""
    mig: bool | None = None
    ecc: bool | None = None
    mig_devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU; from inside a container its pid and name may be the machine's, or none."""

    gpu_uuid: str
    pid: int | None
    name: str
    memory_used_bytes: int | None


@dataclass(frozen=True)
class Nvidia:
    """The driver and its program.  `exit_status` is None where it had to be stopped; `said` its first line where that
    is not a GPU; `module_version` is the kernel's; `devices` how many device files there are."""

    smi: str
    exit_status: int | None
    said: str
    driver_version: str
    cuda_version: str
    module_version: str
    devices: int


@dataclass(frozen=True)
class Cpu:
    """Processors: those of the machine, those we may run on, and how many a quota amounts to (None: no quota known)."""

    machine_count: int | None
    allowed_count: int | None
    quota_count: float | None
    model: str


@dataclass(frozen=True)
class Memory:
    """The machine's memory, and the tightest limit of a control group with what is used of it, caches left out."""

    machine_bytes: int | None
    machine_available_bytes: int | None
    limit_bytes: int | None
    limit_used_bytes: int | None


@dataclass(frozen=True)
class Disk:
    """The disk of `path`, which need not exist.  Inodes are None where the file system does not count them."""

    path: str
    exists: bool
    mount: str
    file_system: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None
    total_inodes: int | None = None
    free_inodes: int | None = None
    read_only: bool | None = None


@dataclass(frozen=True)
class Workspace:
    """A folder to work in.  `path` as it was asked for, `folder` what that means there.

    `state`: `writable` (proven by writing), `creatable`, `absent`, `refused` or `unknown`.  Why refused is in `reason`:
    `read_only`, `no_space`, `no_inodes`, `quota`, `permission`, `not_a_folder` or `other`; `said` has the words for it.
    """

    path: str
    folder: str
    state: str
    reason: str = ""
    said: str = ""
    marker: str = ""

    @property
    def is_usable(self) -> bool:
        return self.state in ("writable", "creatable")


@dataclass(frozen=True)
class Python:
    """A Python; its version is "" where it did not tell it in time."""

    path: str
    version: str

    def is_at_least(self, *wanted: int) -> bool:
        """Whether its version is known and not lower."""
        return bool(self.version) and tuple(map(int, self.version.split("."))) >= wanted


@dataclass(frozen=True)
class Tool:
    """A program, with its version where that is cheap to ask for."""

    name: str
    path: str
    version: str


@dataclass(frozen=True)
class Mirror:
    """How an address answered.  `ok`: with a status below 400; None where nothing there could ask."""

    url: str
    ok: bool | None
    http_status: int | None
    duration_s: float | None
    error: str


@dataclass(frozen=True)
class Network:
    """What is preset; of addresses only host and port.  `proxies` by the name of the variable."""

    proxies: Mapping[str, str]
    pip_index: str
    hf_endpoint: str
    hf_home: str


@dataclass(frozen=True)
class Facts:
    """One look at a machine; `container` is "none" where nothing tells of one.

    Of `variables` only the names are known; `paths` tells which of those asked for exist.
    """

    hostname: str
    boot: str
    provider_ids: Mapping[str, str]
    variables: tuple[str, ...]
    os: str
    kernel: str
    arch: str
    libc: str
    user: str
    uid: int | None
    home: str
    shell: str
    container: str
    clock_s: int | None
    omp_num_threads: str
    cpu: Cpu
    memory: Memory
    nvidia: Nvidia | None
    gpus: tuple[Gpu, ...] | None
    gpu_processes: tuple[GpuProcess, ...] | None
    disks: tuple[Disk, ...]
    workspaces: tuple[Workspace, ...]
    paths: Mapping[str, bool]
    pythons: tuple[Python, ...]
    tools: tuple[Tool, ...]
    network: Network | None
    mirrors: tuple[Mirror, ...]
    logins: int | None
    launch_sessions: tuple[str, ...] | None
    problems: tuple[str, ...]

    @property
    def has_gpu(self) -> bool | None:
        """None where nvidia-smi did not answer."""
        return None if self.gpus is None else bool(self.gpus)

    @property
    def is_no_gpu_mode(self) -> bool:
        """NVIDIA's driver or program is there and no GPU is, and not because the driver is out of order."""
        installed = self.nvidia is not None and bool(self.nvidia.smi or self.nvidia.module_version)
        return self.gpus == () and installed and not self.gpu_fault

    @property
    def gpu_fault(self) -> str:
        """What nvidia-smi said, where that tells of a driver or a GPU out of order."""
        said = self.nvidia.said if self.nvidia else ""
        return said if _FAULT.search(said) else ""

    @property
    def cpu_count(self) -> float | None:
        """How many processors there are to compute with; half a one is possible."""
        return _least(self.cpu.machine_count, self.cpu.allowed_count, self.cpu.quota_count)

    @property
    def memory_limit_bytes(self) -> int | None:
        """How much memory there is, of the container or the machine."""
        return _least(self.memory.machine_bytes, self.memory.limit_bytes)

    @property
    def memory_used_bytes(self) -> int | None:
        """How much of that is in use, caches left out."""
        memory = self.memory
        if memory.limit_bytes is not None and memory.limit_bytes == self.memory_limit_bytes:
            return memory.limit_used_bytes
        if memory.machine_bytes is None or memory.machine_available_bytes is None:
            return None
        return max(0, memory.machine_bytes - memory.machine_available_bytes)

    @property
    def workspace(self) -> Workspace | None:
        """Where to work, of all folders that were asked for."""
        return self.workspace_among([workspace.path for workspace in self.workspaces])

    def workspace_among(self, paths: Sequence[str]) -> Workspace | None:
        """The first of these that is there and proven to be writable; else the last that could be made.

        A provider's folder that is not there is not its disk: whoever makes one fills the wrong disk.
        """
        asked = {workspace.path: workspace for workspace in self.workspaces}
        known = [asked[path] for path in paths if path in asked]
        found = [workspace for workspace in known if workspace.state == "writable"]
        found += [workspace for workspace in reversed(known) if workspace.state == "creatable"]
        return found[0] if found else None

    @property
    def provider_id(self) -> str:
        """The first id that was found."""
        return next((value for value in self.provider_ids.values() if value), "")

    @property
    def marker(self) -> str:
        """The random number of ours in the workspace that would be worked in."""
        return self.workspace.marker if self.workspace else ""

    @property
    def identity(self) -> Identity:
        """Which machine this is."""
        return Identity(self.hostname, self.provider_id, self.marker, self.boot)

    def disk(self, path: str) -> Disk | None:
        """The disk of a path that was asked for."""
        return next((disk for disk in self.disks if disk.path == path), None)

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, if it is there."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def python(self, *at_least: int) -> Python | None:
        """The first Python of that version or later."""
        return next((python for python in self.pythons if python.is_at_least(*at_least)), None)

    def to_json(self) -> dict[str, Any]:
        """For `--json`: all of it, and what follows from it."""
        derived = ("has_gpu", "is_no_gpu_mode", "gpu_fault", "cpu_count", "memory_limit_bytes", "memory_used_bytes")
        found = {**asdict(self), **{name: getattr(self, name) for name in (*derived, "provider_id")}}
        return {**found, "workspace": asdict(self.workspace) if self.workspace else None}


# Out of order, and not just without a GPU: "NVIDIA-SMI has failed because it couldn't communicate" is the latter too.
_FAULT = re.compile(
    r"version mismatch|unknown error|is lost|requires reset|gpu reset|unable to determine|insufficient permissions"
    r"|driver not loaded|not supported|input/output error|segmentation fault",
    re.IGNORECASE,
)


def split(said: bytes, nonce: str) -> dict[str, list[str]]:
    """The lines of each section, without the line `whole`, under which the names of those that have it stand.

    Empty where nothing of the probe's came back.  Of two sections of one name the first counts.
    """
    found: dict[str, list[str]] = {}
    text = said.decode("utf-8", "replace")
    pieces = re.split(rf"^@launch {re.escape(nonce)} ([a-z-]{{1,20}})\r?$", text, flags=re.MULTILINE)
    for name, text in zip(pieces[1::2], pieces[2::2], strict=True):
        lines = [line.rstrip("\r") for line in text.split("\n", MOST_LINES)[:MOST_LINES]]
        found.setdefault(name, [line for line in lines if line])
    whole = [name for name, lines in found.items() if lines and lines[-1] == "whole"]
    for name in whole:
        found[name].pop()
    if found:
        found["whole"] = whole
    return found


def parse(sections: Mapping[str, Section]) -> Facts:
    """Facts from the sections `split` found, as far as they go.  Raises nothing."""
    return _Parser(sections).facts()


# --- words and numbers ------------------------------------------------------------------------------------------------


def _text(said: str, most: int = MOST_CHARACTERS) -> str:
    """Printable, on one line, and no longer than `most`."""
    return "".join(character for character in said[: 2 * most] if character.isprintable())[:most].strip()


def _number(said: str | None) -> int | None:
    """A whole number that fits into 63 bits."""
    match = re.fullmatch(r"\s*([0-9]{1,18})\s*", said or "", re.ASCII)
    return int(match[1]) if match else None


def _decimal(said: str | None) -> float | None:
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*", said or "", re.ASCII)
    return float(match[1]) if match else None


def _version(said: str) -> str:
    match = re.search(r"(?<![0-9.])[0-9]{1,8}(?:\.[0-9]{1,8}){1,3}[a-z0-9]{0,8}", said[:MOST_CHARACTERS], re.ASCII)
    return match[0] if match else ""


def _scaled(number: int | None, by: int) -> int | None:
    return None if number is None else number * by


def _least(*numbers: N | None) -> N | None:
    """The smallest of those that are known."""
    return min((number for number in numbers if number is not None), default=None)


def _fields(lines: Section) -> dict[str, str]:
    """What stands behind the first word of each line; the first line of a word counts."""
    found: dict[str, str] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        found.setdefault(word, rest)
    return found


def _items(lines: Section, first: str) -> Iterator[dict[str, str]]:
    """The fields of each item; every item begins with the word `first`.  Items of one name count once."""
    starts = [number for number, line in enumerate(lines) if line.startswith(first + " ")]
    seen: set[str] = set()
    for start, end in pairwise([*starts, len(lines)]):
        item = _fields(lines[start:end])
        if item[first] not in seen and len(seen) < MOST_ITEMS:
            seen.add(item[first])
            yield item


def _groups(lines: Section) -> Iterator[dict[str, str]]:
    """The files of each control group, the innermost first."""
    starts = [number for number, line in enumerate(lines) if line == "group"]
    for start, end in pairwise([*starts, len(lines)]):
        yield _fields(lines[start + 1 : end])


def _count_listed(said: str) -> int | None:
    """How many numbers a list such as `0-3,8` names."""
    count = 0
    for part in said.strip().split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part, re.ASCII)
        if not match:
            return None
        count += max(0, int(match[2] or match[1]) - int(match[1]) + 1)
    return count or None


_DF = re.compile(r".*\S\s+(\S{1,20})\s+\S{1,20}\s+(\S{1,20})\s+(?:[0-9]{1,4}%|-)\s+(/.*)")


def _df(said: str) -> tuple[str, int | None, int | None]:
    """Mount point, total and free, from the last line of `df -P`: a total of 0 means that nobody counts."""
    match = _DF.fullmatch(said[: 2 * MOST_CHARACTERS])
    if not match:
        return "", None, None
    total = _number(match[1])
    # Negative where root has used what is reserved for it.
    free = 0 if match[2][:1] == "-" and match[2] != "-" else _number(match[2])
    return _text(match[3]), total or None, free if total else None


def _unescaped(mount: str) -> str:
    """A path in /proc/mounts, where blanks and the like are octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount)


# --- the sections -----------------------------------------------------------------------------------------------------


class _Parser:
    def __init__(self, sections: Mapping[str, Section]) -> None:
        self._sections = sections
        self.problems: list[str] = []

    def facts(self) -> Facts:
        for name in SECTIONS:
            if name not in self._sections:
                self._problem(name, "missing")
            elif name not in self._sections.get("whole", ()):
                self._problem(name, "broke off, or took too long")
        if self._sections and "end" not in self._sections:
            self._problem("probe", "broke off")
        system = _fields(self._lines("system"))
        names = self._lines("names")
        disks = self._disks()
        nvidia, gpus = self._gpus()
        return Facts(
            hostname=self._word(system, "hostname"),
            boot=self._word(system, "boot"),
            provider_ids=self._provider_ids(names),
            variables=tuple(_text(line[4:]) for line in names if line.startswith("set "))[:MOST_ITEMS],
            os=_text(system.get("os", "").strip("\"'")),
            kernel=self._word(system, "kernel"),
            arch=self._word(system, "arch"),
            libc=_text(system.get("libc", "")),
            user=self._word(system, "user"),
            uid=_number(system.get("uid")),
            home=self._word(system, "home"),
            shell=_text(system.get("shell", "")),
            container=_text(system.get("container", "")),
            clock_s=_number(system.get("clock")),
            omp_num_threads=_text(system.get("threads", ""), 50),
            cpu=self._cpu(),
            memory=self._memory(),
            nvidia=nvidia,
            gpus=gpus,
            gpu_processes=self._gpu_processes(gpus),
            disks=disks,
            workspaces=self._workspaces(disks),
            paths=self._paths(),
            pythons=self._pythons(),
            tools=self._tools(),
            network=self._network(),
            mirrors=tuple(map(self._mirror, _items(self._lines("mirrors"), "url"))),
            logins=self._logins(),
            launch_sessions=self._launch_sessions(),
            problems=tuple(self.problems),
        )

    def _problem(self, what: str, why: str) -> None:
        if len(self.problems) < MOST_ITEMS:
            self.problems.append(f"{_text(what, 200)}: {_text(why)}")

    def _lines(self, name: str) -> Section:
        return self._sections.get(name, ())

    def _is_whole(self, name: str) -> bool:
        return name in self._sections.get("whole", ())

    def _word(self, fields: Mapping[str, str], key: str) -> str:
        """A text that every machine has."""
        found = _text(fields.get(key, ""))
        if not found and "system" in self._sections:
            self._problem(key, "not known there")
        return found

    def _provider_ids(self, lines: Section) -> dict[str, str]:
        found = (line[3:].partition(" ") for line in lines if line.startswith("id "))
        return {_text(name): _text(value, 200) for name, _, value in list(found)[:MOST_ITEMS] if _text(value)}

    def _cpu(self) -> Cpu:
        lines = self._lines("limits")
        fields = _fields(lines)
        quotas: list[float] = []
        read = False
        for group in _groups(lines):
            quota, _, period = group.get("cpu.max", "").partition(" ")
            quota, period = group.get("cpu.cfs_quota_us", quota), group.get("cpu.cfs_period_us", period)
            read = read or bool(quota)
            allowed, every = _number(quota), _number(period)
            if allowed and every:
                quotas.append(allowed / every)
        if not read and "limits" in self._sections:
            self._problem("processors", "no quota can be read there, the machine's number stands")
        cpu = Cpu(
            machine_count=_number(fields.get("online")) or None,
            allowed_count=_count_listed(fields.get("allowed", "")) or _number(fields.get("nproc")) or None,
            quota_count=min(quotas, default=None),
            model=_text(fields.get("model", "")),
        )
        if cpu.machine_count is None and cpu.allowed_count is None:
            self._problem("processors", "their number is not known")
        return cpu

    def _memory(self) -> Memory:
        lines = self._lines("limits")
        fields = _fields(lines)
        limits: list[tuple[int, int | None]] = []
        read = False
        for group in _groups(lines):
            said = group.get("memory.max", group.get("memory.limit_in_bytes", ""))
            read = read or bool(said)
            limit = _least(_number(said), _number(group.get("hierarchical_memory_limit")))
            if limit is not None and limit < UNLIMITED_BYTES:
                limits.append((limit, _used_of(group, limit == _number(said))))
        if not read and "limits" in self._sections:
            self._problem("memory", "no limit can be read there, the machine's size stands")
        limit, used = min(limits, key=lambda pair: pair[0], default=(None, None))
        memory = Memory(
            machine_bytes=_scaled(_number(fields.get("total_kib")), KIB) or _number(fields.get("total_bytes")) or None,
            machine_available_bytes=_scaled(_number(fields.get("available_kib")), KIB),
            limit_bytes=limit,
            limit_used_bytes=used,
        )
        if memory.machine_bytes is None:
            self._problem("memory", "its size is not known")
        return memory

    def _gpus(self) -> tuple[Nvidia | None, tuple[Gpu, ...] | None]:
        """A line that begins with `GPU ` is the only proof of one: without GPUs nvidia-smi may well end with 0."""
        devices, listing = self._lines("devices"), self._lines("gpu-list")
        if "devices" not in self._sections:
            return None, None
        fields = _fields(devices)
        smi = _text(fields.get("smi", ""))
        rows = self._query() if smi else {}
        listed = _listed(listing)
        gpus = tuple(_with_numbers(gpu, rows) for gpu in listed)
        said, status = _said_and_status(listing)
        in_time = status not in (None, 124, 137)
        nvidia = Nvidia(
            smi=smi,
            exit_status=status if in_time else None,
            said="" if listed or not in_time else said,
            driver_version=next((gpu.driver_version for gpu in gpus if gpu.driver_version), "")
            or _found(r"Driver Version\s*:\s*([0-9.]{1,20})", self._lines("gpu-table")),
            cuda_version=_found(r"CUDA (?:UMD )?Version\s*:\s*([0-9]{1,4}\.[0-9]{1,4})", self._lines("gpu-table")),
            module_version=_text(fields.get("module", ""), 50),
            devices=sum(line.startswith("device ") for line in devices),
        )
        if not smi and nvidia.devices:
            self._problem("GPUs", "there are files of devices, but no nvidia-smi to ask")
        if not smi and (nvidia.devices or not self._is_whole("devices")):
            return nvidia, None
        if smi and not listed and not in_time:
            self._problem("GPUs", f"{smi} did not answer in time")
            return nvidia, None
        if smi and not listed and said:
            self._problem("GPUs", said)
        for gpu in gpus:
            if gpu.memory_total_bytes is None:
                self._problem(f"GPU {gpu.index}", "its memory is not known")
        return nvidia, gpus

    def _query(self) -> dict[str, dict[str, str]]:
        """Rows of the query by the GPU's uuid: those of the last query that went well."""
        rows: dict[str, dict[str, str]] = {}
        fields: list[str] = []
        for line in self._lines("gpu-query"):
            if line.startswith("fields "):
                fields = line[7:].split(",")[:20]
                continue
            values = [value.strip() for value in line.split(",", max(0, len(fields) - 1))]
            if len(values) == len(fields) > 1 and len(rows) < MOST_ITEMS:
                row = dict(zip(fields, values, strict=True))
                rows[row.get("uuid", "")] = row
        return rows

    def _gpu_processes(self, gpus: tuple[Gpu, ...] | None) -> tuple[GpuProcess, ...] | None:
        if not gpus:
            return None if gpus is None else ()
        said, status = _said_and_status(self._lines("gpu-apps"))
        if status != 0:
            self._problem("processes on the GPUs", said or "not known")
            return None
        found = []
        for line in self._lines("gpu-apps")[:MOST_ITEMS]:
            parts = [part.strip() for part in line.split(",", 3)]
            if len(parts) == 4 and parts[0].startswith(("GPU-", "MIG-")):
                used = _scaled(_number(parts[2].removesuffix("MiB")), MIB)
                found.append(GpuProcess(_text(parts[0], 100), _number(parts[1]), _text(parts[3], 200), used))
        return tuple(found)

    def _disks(self) -> tuple[Disk, ...]:
        mounts: dict[str, tuple[bool | None, str]] = {}
        for line in self._lines("mounts"):
            parts = line.split(" ")
            if len(parts) == 3 and parts[0] in ("ro", "rw"):
                mounts[_text(_unescaped(parts[1]))] = (parts[0] == "ro", _text(parts[2], 50))
        found = []
        for item in _items(self._lines("disks"), "path"):
            mount, total, free = _df(item.get("bytes", ""))
            _, total_inodes, free_inodes = _df(item.get("inodes", ""))
            read_only, file_system = mounts.get(mount, (None, ""))
            path = _text(item["path"])
            if total is None:
                self._problem(f"disk of {path}", "df did not answer, or nothing that can be read")
            disk = Disk(
                path, "absent" not in item and "at" in item, mount, file_system,
                _scaled(total, KIB), _scaled(free, KIB), total_inodes, free_inodes, read_only,
            )  # fmt: skip
            found.append(disk)
        return tuple(found)

    def _workspaces(self, disks: tuple[Disk, ...]) -> tuple[Workspace, ...]:
        by_path = {disk.path: disk for disk in disks}
        found = []
        for item in _items(self._lines("workspaces"), "path"):
            path = _text(item["path"])
            state, reason, said = _state(item, by_path.get(path))
            if state == "unknown":
                self._problem(f"folder {path}", "whether it can be written to was not found out in time")
            marker = _text(item.get("marker", ""), 64)
            found.append(Workspace(path, _text(item.get("is", "")), state, reason, _text(said), marker))
        return tuple(found)

    def _paths(self) -> dict[str, bool]:
        found: dict[str, bool] = {}
        for line in self._lines("paths")[:MOST_ITEMS]:
            word, _, path = line.partition(" ")
            if word in ("exists", "absent") and path:
                found.setdefault(_text(path), word == "exists")
        return found

    def _pythons(self) -> tuple[Python, ...]:
        found = []
        for item in _items(self._lines("pythons"), "path"):
            path, (version, _, status) = _text(item["path"]), item.get("version", " 137").partition(" ")
            if status == "0" and re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}", version, re.ASCII):
                found.append(Python(path, version))
            elif status in ("124", "137"):
                self._problem(path, "did not tell its version in time")
                found.append(Python(path, ""))
        return tuple(found)

    def _tools(self) -> tuple[Tool, ...]:
        versions: dict[str, str] = {}
        for line in self._lines("tool-versions"):
            if line.startswith("version "):
                name, _, said = line[8:].partition(" ")
                versions.setdefault(name, said)
        found: dict[str, Tool] = {}
        for line in self._lines("tools")[:MOST_ITEMS]:
            word, _, rest = line.partition(" ")
            name, _, path = rest.partition(" ")
            if word == "tool" and path:
                found.setdefault(name, Tool(_text(name, 50), _text(path), _version(versions.get(name, ""))))
        return tuple(found.values())

    def _network(self) -> Network | None:
        lines = self._lines("network")
        if not self._is_whole("network"):
            return None
        fields = _fields(lines)
        proxies = (line[6:].partition(" ") for line in lines if line.startswith("proxy "))
        return Network(
            proxies={_text(name, 50): _text(place, 200) for name, _, place in list(proxies)[:MOST_ITEMS]},
            pip_index=_text(fields.get("pip_index", ""), 200),
            hf_endpoint=_text(fields.get("hf_endpoint", ""), 200),
            hf_home=_text(fields.get("hf_home", "")),
        )

    def _mirror(self, item: dict[str, str]) -> Mirror:
        url = _text(item["url"])
        if "curl" in item:
            status, duration_s, code = (*item["curl"].split(), "", "", "")[:3]
            return _answer(url, _number(status), _decimal(duration_s), _CURL.get(code, f"curl ended with {code}"))
        if "exit" in item:
            begun, ended = map(_decimal, (*item.get("took", "").split(), "", "")[:2])
            took_s = None if begun is None or ended is None else round(max(0.0, ended - begun), 3)
            failed = (
                "no answer in time" if item["exit"] in ("124", "137") else f"wget ended with {_text(item['exit'], 9)}"
            )
            return _answer(url, _number(item.get("wget")), took_s, failed)
        self._problem(url, "could not be tried: no curl, wget or Python there, or not in time")
        return Mirror(url, None, None, None, "could not be tried")

    def _logins(self) -> int | None:
        fields = _fields(self._lines("sessions"))
        known = [number for key in ("who", "ptys") if (number := _number(fields.get(key))) is not None]
        return max(known, default=None)

    def _launch_sessions(self) -> tuple[str, ...] | None:
        if not self._is_whole("sessions"):
            return None
        return tuple(_text(line[5:], 200) for line in self._lines("sessions") if line.startswith("tmux "))[:MOST_ITEMS]


SECTIONS = (
    "system", "names", "limits", "devices", "gpu-list", "gpu-query", "gpu-apps", "gpu-table", "mounts", "disks",
    "workspaces", "paths", "pythons", "tools", "tool-versions", "network", "mirrors", "sessions",
)  # fmt: skip

_CURL = {
    "0": "", "5": "its proxy's name is unknown", "6": "its name is unknown", "7": "connection refused",
    "28": "no answer in time", "35": "TLS failed", "60": "its certificate is not trusted", "137": "no answer in time",
    "124": "no answer in time", "": "no answer in time",
}  # fmt: skip


def _answer(url: str, status: int | None, duration_s: float | None, failed: str) -> Mirror:
    if not status or not 100 <= status <= 599:
        return Mirror(url, False, None, duration_s, _text(failed or "no answer", 100))
    return Mirror(url, status < 400, status, duration_s, "" if status < 400 else f"HTTP status {status}")


def _used_of(group: Mapping[str, str], is_its_own: bool) -> int | None:
    """What a control group uses, less the file cache that would be given up first.

    Unknown where the limit is that of a group further up, whose use can't be seen from here.
    """
    used = _number(group.get("memory.current", group.get("memory.usage_in_bytes")))
    if used is None or not is_its_own:
        return None
    return max(0, used - (_number(group.get("total_inactive_file", group.get("inactive_file"))) or 0))


def _said_and_status(lines: Section) -> tuple[str, int | None]:
    """The first line a program said, and its status; None where it did not come to its end."""
    ended = re.fullmatch(r"exit ([0-9]{1,3})", lines[-1]) if lines else None
    said = next((text for line in (lines[:-1] if ended else lines) if (text := _text(line))), "")
    return said, int(ended[1]) if ended else None


def _found(pattern: str, lines: Section) -> str:
    matches = (re.search(pattern, line[:MOST_CHARACTERS]) for line in lines)
    return next((match[1] for match in matches if match), "")


def _listed(lines: Section) -> tuple[Gpu, ...]:
    """The GPUs of `nvidia-smi -L`, each with its MIG devices."""
    found: list[Gpu] = []
    parts: dict[int, list[str]] = {}
    for line in lines:
        match = re.fullmatch(r"GPU ([0-9]{1,4}): (.{0,200}?)\s*(?:\(UUID: ([^)]{1,100})\))?\s*", line[:MOST_CHARACTERS])
        if match and len(found) < MOST_ITEMS:
            found.append(Gpu(int(match[1]), _text(match[3] or ""), _text(match[2], 200)))
        elif found and line.startswith("  MIG ") and len(parts.setdefault(len(found), [])) < MOST_ITEMS:
            parts[len(found)].append(_text(line, 200))
    return tuple(replace(gpu, mig_devices=tuple(parts.get(number, ()))) for number, gpu in enumerate(found, 1))


def _with_numbers(gpu: Gpu, rows: Mapping[str, Mapping[str, str]]) -> Gpu:
    """The GPU with what the query says about it."""
    row = rows.get(gpu.uuid, {})

    def mebibytes(key: str) -> int | None:
        return _scaled(_number(row.get(key, "").removesuffix("MiB")), MIB)

    def is_on(key: str) -> bool | None:
        return {"Enabled": True, "Disabled": False}.get(row.get(key, ""))

    def version(key: str) -> str:
        said = row.get(key, "")
        return said if re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}", said, re.ASCII) else ""

    return replace(
        gpu,
        memory_total_bytes=mebibytes("memory.total") or None,
        memory_used_bytes=mebibytes("memory.used"),
        utilization_percent=_decimal(row.get("utilization.gpu", "").removesuffix("%")),
        compute_capability=version("compute_cap"),
        driver_version=version("driver_version"),
        mig=is_on("mig.mode.current"),
        ecc=is_on("ecc.mode.current"),
    )


def _state(item: Mapping[str, str], disk: Disk | None) -> tuple[str, str, str]:
    """State, reason and the system's words for one folder."""
    if "writable" in item:
        return "writable", "", ""
    if "file" in item:
        return "refused", "not_a_folder", ""
    if "creatable" in item:
        # Not tried, so the disk's numbers have to do.
        full = disk is not None and disk.free_bytes is not None and disk.free_bytes < 4096
        no_inodes = disk is not None and disk.free_inodes == 0
        reason = "no_space" if full else "no_inodes" if no_inodes else ""
        return ("refused" if reason else "creatable"), reason, ""
    if "no_create" in item or "no_write" in item:
        said = item.get("no_create", item.get("no_write", ""))
        return "refused", _reason(said, "no_create" in item, disk), said
    return ("absent" if "absent" in item else "unknown"), "", ""


def _reason(said: str, at_creation: bool, disk: Disk | None) -> str:
    words = said.lower()
    if "no space left" in words:
        # A new file needs an inode; that a disk is full in bytes shows only once something is written.
        full = disk is not None and disk.free_inodes != 0 and disk.free_bytes == 0
        return "no_inodes" if at_creation and not full else "no_space"
    reasons = {
        "read-only file system": "read_only", "quota exceeded": "quota", "permission denied": "permission",
        "not permitted": "permission",
    }  # fmt: skip
    return next((reason for phrase, reason in reasons.items() if phrase in words), "other")
