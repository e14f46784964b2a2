"""What a machine is: read from captured output, whatever it says, and from real runs in which programs hang or lie."""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remote import command, facts, profile
from remote.errors import BadReply, RemoteError, TimedOut
from remote.facts import Facts
from remote.host import Host
from remote.local_host import LocalHost
from remote.onhost import process
from remote.probe import arguments, probe, script
from remote.profile import Evidence, Profile, Profiles
from tests.connected import PYTHON_FOLDER, alive, connect, embedded_host, eventually, folder_of_programs, private_tmux

NONCE = "c0ffee"
CAPTURED = Path(__file__).parent / "captured"
NAMES = sorted(path.name for path in CAPTURED.glob("*.txt"))
GIB = 1024**3
MIB = 1024**2
needs_posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
# All that the script calls, beyond what is probed with it.
BASICS = (
    "sh", "cat", "head", "tail", "sed", "tr", "grep", "date", "uname", "id", "sleep", "dd", "rm", "nproc", "getconf",
)  # fmt: skip


def captured(name: str) -> bytes:
    return (CAPTURED / name).read_bytes()


def read(said: bytes) -> Facts:
    return facts.parse(facts.split(said, NONCE))


def with_section(said: bytes, name: str, body: str) -> bytes:
    """The captured output with another body in that section."""
    mark = re.escape(f"@launch {NONCE} {name}\n".encode())
    changed, count = re.subn(
        mark + rb".*?\nwhole\n",
        lambda match: f"@launch {NONCE} {name}\n{body}\n\nwhole\n".encode(),
        said,
        flags=re.DOTALL,
    )
    assert count == 1
    return changed


# --- captured output --------------------------------------------------------------------------------------------------


def test_an_autodl_box_with_a_gpu() -> None:
    found = read(captured("autodl-4090.txt"))
    assert found.problems == ()
    assert (found.hostname, found.user, found.uid) == ("autodl-container-b8e04b9a2c-71d3f0aa", "root", 0)
    assert (found.os, found.libc, found.container) == ("Ubuntu 22.04.3 LTS", "glibc 2.35", "docker")
    assert found.provider_id == "container-b8e04b9a2c-71d3f0aa"
    assert found.identity.marker == "5f0c2b1e9d3a4c7788e1aa02bb10c3d4"
    assert found.identity.boot == "0b6f9d5e-7f33-4c55-9f0e-2f1f3a0f4f11-18533"
    assert found.gpus is not None
    assert found.nvidia is not None
    (gpu,) = found.gpus
    assert (gpu.index, gpu.name, gpu.compute_capability) == (0, "NVIDIA GeForce RTX 4090", "8.9")
    assert (gpu.memory_total_bytes, gpu.memory_used_bytes, gpu.utilization_percent) == (24564 * MIB, 1331 * MIB, 37)
    assert (gpu.mig, gpu.ecc) == (None, False)
    assert (found.nvidia.driver_version, found.nvidia.cuda_version) == ("550.90.07", "12.4")
    assert found.gpu_processes is not None
    (holder,) = found.gpu_processes
    assert (holder.pid, holder.memory_used_bytes) == (918273, 1304 * MIB)
    assert (found.has_gpu, found.is_no_gpu_mode, found.gpu_fault) == (True, False, "")
    # The container's share, not the machine's 128 processors and 754 GiB.
    assert found.cpu_count == 12.0
    assert found.memory_limit_bytes == 90 * GIB
    assert found.memory_used_bytes == 9663676416 - 6442450944
    data = found.disk("/root/autodl-tmp")
    assert data is not None
    assert (data.mount, data.file_system, data.read_only) == ("/root/autodl-tmp", "xfs", False)
    assert (data.total_bytes, data.free_inodes) == (50 * GIB, 26156187)
    shared = found.disk("/root/autodl-fs")
    assert shared is not None
    assert (shared.total_inodes, shared.free_inodes) == (200_000, 199_688)
    assert found.workspace is not None
    assert (found.workspace.folder, found.workspace.state) == ("/root/autodl-tmp", "writable")
    python = found.python(3, 11)
    assert python is not None
    assert python.path == "/root/miniconda3/bin/python"
    assert found.python(3, 13) is None
    assert found.tool("tmux") is None
    curl, shutdown = found.tool("curl"), found.tool("shutdown")
    assert curl is not None
    assert shutdown is not None
    assert (curl.version, shutdown.path, shutdown.version) == ("7.81.0", "/usr/bin/shutdown", "")
    assert found.network is not None
    assert found.network.pip_index == "index.example.com"
    assert [(mirror.ok, mirror.http_status, mirror.duration_s) for mirror in found.mirrors] == [
        (True, 200, 0.184213),
        (False, None, 3.001822),
        (False, 405, 0.093311),
    ]
    assert found.mirrors[1].error == "no answer in time"
    assert (found.logins, found.launch_sessions, found.omp_num_threads) == (1, ("launch-reviews-x7k2m9qa",), "0")
    assert found.paths["/etc/network_turbo"] is True


def test_an_autodl_box_without_a_gpu() -> None:
    found = read(captured("autodl-no-gpu-mode.txt"))
    assert (found.gpus, found.has_gpu, found.is_no_gpu_mode) == ((), False, True)
    assert found.gpu_processes == ()
    assert (found.cpu_count, found.memory_limit_bytes) == (0.5, 2 * GIB)


@pytest.mark.parametrize(
    "said",
    [
        "exit 0",
        "No devices were found\n\nexit 6",
        "No devices found.\n\nexit 0",
        "sh: 1: /usr/bin/nvidia-smi: Permission denied\n\nexit 126",
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA"
        " driver is installed and running.\n\nexit 9",
    ],
)
def test_no_line_that_begins_with_gpu_is_no_gpu(said: str) -> None:
    found = read(with_section(captured("autodl-no-gpu-mode.txt"), "gpu-list", said))
    assert (found.gpus, found.is_no_gpu_mode, found.gpu_fault) == ((), True, "")
    assert found.nvidia is not None
    assert found.nvidia.said == ("" if said.startswith("exit") else said.split("\n")[0])
    assert bool(found.problems) is not said.startswith("exit")


@pytest.mark.parametrize(
    "said",
    [
        "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.90\n\nexit 18",
        "Failed to initialize NVML: Unknown Error\n\nexit 255",
        "Unable to determine the device handle for GPU 0000:01:00.0: GPU is lost. Reboot the system to recover this GPU"
        "\n\nexit 15",
    ],
)
def test_a_driver_out_of_order_is_not_no_gpu_mode(said: str) -> None:
    found = read(with_section(captured("autodl-4090.txt"), "gpu-list", said))
    assert (found.gpus, found.has_gpu, found.is_no_gpu_mode) == ((), False, False)
    assert found.gpu_fault == said.split("\n")[0]
    assert f"GPUs: {found.gpu_fault}" in found.problems


def test_the_status_of_nvidia_smi_proves_nothing() -> None:
    said = "GPU 0: NVIDIA A10 (UUID: GPU-1)\nGPU 1: NVIDIA A10\n\nexit 14"
    found = read(with_section(captured("autodl-4090.txt"), "gpu-list", said))
    assert found.gpus is not None
    assert [(gpu.index, gpu.uuid, gpu.memory_total_bytes) for gpu in found.gpus] == [(0, "GPU-1", None), (1, "", None)]
    assert "GPU 1: its memory is not known" in found.problems


def test_device_files_without_the_program_leave_it_open() -> None:
    said = with_section(captured("autodl-4090.txt"), "devices", "smi \nmodule 550.90.07\ndevice /dev/nvidia0")
    found = read(with_section(said, "gpu-list", ""))
    assert (found.gpus, found.has_gpu, found.is_no_gpu_mode) == (None, None, False)
    assert any(problem.startswith("GPUs: ") for problem in found.problems)


def test_a_new_gpu_on_a_machine_without_a_data_disk() -> None:
    found = read(captured("autodl-pro-5090.txt"))
    assert found.gpus is not None
    assert found.nvidia is not None
    assert (found.gpus[0].name, found.gpus[0].compute_capability) == ("NVIDIA GeForce RTX 5090", "12.0")
    assert found.nvidia.cuda_version == "13.0"
    assert found.cpu_count == 25.0
    # A provider's folder that is not there is not its disk.
    assert found.workspace is not None
    assert (found.workspace.folder, found.workspace.state) == ("/root/.cache", "creatable")


def test_a_machine_with_many_gpus() -> None:
    found = read(captured("lambda-h100.txt"))
    assert found.problems == ()
    assert found.gpus is not None
    assert [gpu.index for gpu in found.gpus] == list(range(8))
    assert {gpu.name for gpu in found.gpus} == {"NVIDIA H100 80GB HBM3"}
    cut_up = found.gpus[7]
    assert (cut_up.mig, cut_up.utilization_percent, len(cut_up.mig_devices)) == (True, None, 2)
    assert [gpu.utilization_percent for gpu in found.gpus[:2]] == [99, 0]
    assert found.gpu_processes is not None
    assert [(one.pid, one.name, one.memory_used_bytes) for one in found.gpu_processes] == [
        (31337, "/opt/conda/bin/python, train.py --name=a,b", 70112 * MIB),
        (4242, "python", None),
    ]
    assert (found.cpu_count, found.cpu.quota_count) == (208, None)
    assert found.memory.limit_bytes is None
    assert found.memory_limit_bytes == 1857613480 * 1024
    assert found.memory_used_bytes == (1857613480 - 1801234567) * 1024
    assert (found.logins, found.container) == (2, "none")
    disk = found.disk("/lambda/nfs/my data")
    assert disk is not None
    assert (disk.mount, disk.file_system) == ("/lambda/nfs/my data", "virtiofs")
    # A file system that counts no inodes is not out of them.
    assert (disk.free_bytes, disk.total_inodes, disk.free_inodes) == (8795019280384 * 1024, None, None)


def test_an_old_driver_and_control_groups_of_version_1() -> None:
    found = read(captured("runpod-old-driver.txt"))
    assert found.gpus is not None
    assert found.nvidia is not None
    assert (found.gpus[0].memory_total_bytes, found.gpus[0].memory_used_bytes) == (16160 * MIB, 0)
    assert (found.gpus[0].compute_capability, found.gpus[0].mig) == ("", None)
    assert (found.nvidia.driver_version, found.nvidia.cuda_version) == ("470.223.02", "11.4")
    assert (found.cpu.allowed_count, found.cpu_count) == (32, 8.5)
    assert found.memory_limit_bytes == 33285996544
    assert found.memory_used_bytes == 4 * GIB
    full = found.workspaces[0]
    assert (full.state, full.reason) == ("refused", "no_inodes")
    assert "No space left on device" in full.said
    assert [python.path for python in found.pythons] == ["/usr/bin/python3"]
    assert found.variables == ("RUNPOD_POD_ID",)
    assert found.network is not None
    assert found.network.proxies == {"https_proxy": "10.0.0.2:7890"}
    assert (found.network.hf_endpoint, found.network.hf_home) == ("hf-mirror.com", "/workspace/hf")


def test_what_hung_is_unknown_and_named() -> None:
    found = read(captured("stuck.txt"))
    assert (found.gpus, found.has_gpu, found.is_no_gpu_mode, found.gpu_processes) == (None, None, False, None)
    assert found.disk("/root/autodl-tmp") == facts.Disk("/root/autodl-tmp", False, "")
    assert [workspace.state for workspace in found.workspaces] == ["unknown", "writable"]
    assert found.workspace == found.workspaces[1]
    assert [problem for problem in found.problems if "gpu-list" in problem]
    assert [problem for problem in found.problems if "disk of /root/autodl-tmp" in problem]
    assert [problem for problem in found.problems if "folder /root/autodl-tmp" in problem]


@pytest.mark.parametrize("name", ["debian-dash.txt", "busybox.txt"])
def test_real_output(name: str) -> None:
    found = read(captured(name))
    assert (found.hostname, found.has_gpu, found.cpu_count) == ("box", False, 2)
    assert found.memory.limit_bytes is None
    assert found.memory_limit_bytes == 24684084 * 1024
    assert found.workspace is not None
    assert found.workspace.state == "writable"


def test_the_smallest_limit_on_the_way_up_counts() -> None:
    body = (
        "online 16\nallowed 0-7\ntotal_kib 67108864\navailable_kib 1000\n"
        "group\ncpu.max max 100000\nmemory.max max\nmemory.current 10\n"
        "group\ncpu.max 300000 100000\nmemory.max 8589934592\nmemory.current 1000\ninactive_file 400\n"
        "group\ncpu.max 600000 100000\nmemory.max 17179869184\nmemory.current 5000\n"
    )
    found = read(with_section(captured("autodl-4090.txt"), "limits", body))
    assert (found.cpu_count, found.memory_limit_bytes, found.memory_used_bytes) == (3.0, 8 * GIB, 600)
    # A limit further up that only the sum betrays: its use can't be seen from here.
    body = (
        "online 16\nallowed 0-7\ntotal_kib 67108864\n"
        "group\nmemory.limit_in_bytes 9223372036854771712\nmemory.usage_in_bytes 10\n"
        "hierarchical_memory_limit 8589934592\n"
    )
    found = read(with_section(captured("autodl-4090.txt"), "limits", body))
    assert (found.cpu_count, found.memory_limit_bytes, found.memory_used_bytes) == (8, 8 * GIB, None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/dev/sda1 100 40 60 40% /", ("/", 100, 60)),
        ("//nas/a share with blanks 100 40 60 40% /mnt/a b", ("/mnt/a b", 100, 60)),
        ("overlay 100 110 -10 110% /", ("/", 100, 0)),
        ("tmpfs 0 0 0 - /x", ("/x", None, None)),
        ("btrfs - - - - /x", ("/x", None, None)),
        ("Filesystem 1024-blocks Used Available Capacity Mounted on", ("", None, None)),
        ("/dev/sda1 " + "9" * 400 + " 1 1 1% /", ("", None, None)),
        ("", ("", None, None)),
    ],
)
def test_lines_of_df(line: str, expected: tuple[str, int | None, int | None]) -> None:
    assert facts._df(line) == expected


@pytest.mark.parametrize(
    ("item", "state", "reason"),
    [
        ("writable", "writable", ""),
        ("creatable", "creatable", ""),
        ("absent", "absent", ""),
        ("file", "refused", "not_a_folder"),
        ("no_create sh: 1: cannot create /x: Read-only file system", "refused", "read_only"),
        ("no_create sh: can't create /x: Permission denied", "refused", "permission"),
        ("no_create sh: line 1: /x: Operation not permitted", "refused", "permission"),
        ("no_create sh: 1: cannot create /x: No space left on device", "refused", "no_inodes"),
        ("no_write dd: error writing 'standard output': No space left on device", "refused", "no_space"),
        ("no_write dd: error writing 'standard output': Disk quota exceeded", "refused", "quota"),
        ("no_write dd: closing output file: Stale file handle", "refused", "other"),
        ("", "unknown", ""),
    ],
)
def test_why_a_folder_can_not_be_written_to(item: str, state: str, reason: str) -> None:
    said = with_section(captured("autodl-4090.txt"), "workspaces", f"path /x\nis /x\nmarker \n{item}")
    (workspace,) = read(said).workspaces
    assert (workspace.state, workspace.reason) == (state, reason)


# --- whatever it says -------------------------------------------------------------------------------------------------


def is_sound(found: Facts) -> None:
    """Bounded, JSON without NaN, printable, and every number in a range that makes sense."""
    text = json.dumps(found.to_json(), allow_nan=False)
    assert len(text) < 2_000_000

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key, one in value.items():
                walk(key)
                walk(one)
        elif isinstance(value, list | tuple):
            assert len(value) <= facts.MOST_ITEMS
            for one in value:
                walk(one)
        elif isinstance(value, str):
            assert len(value) <= facts.MOST_CHARACTERS + 250
            assert value.isprintable()
        elif isinstance(value, int | float):
            assert math.isfinite(value)
            assert 0 <= value < 10**22

    walk(found.to_json())
    assert found.cpu_count is None or found.cpu_count > 0
    assert found.memory_limit_bytes is None or found.memory_limit_bytes >= 0


@pytest.mark.parametrize("name", NAMES)
def test_every_capture_is_sound(name: str) -> None:
    is_sound(read(captured(name)))


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_read_to_their_end(said: bytes) -> None:
    assert facts.split(said, NONCE) == {} or is_sound(read(said)) is None
    for section in facts.SECTIONS:
        is_sound(read(f"\n@launch {NONCE} {section}\n".encode() + said + b"\nwhole\n"))


WORDS = st.sampled_from(
    [
        b"NaN", b"inf", b"-1", b"9" * 4000, b"1e400", b"0", b"\x1b[2J", b"\x00", b"\xff\xfe", b"max", b"%", b",", b" ",
        b"\n", b"group\n", b"exit 0\n", b"path /\n", b"GPU 0: x (UUID: y)\n", b"whole\n", b"\n@launch c0ffee limits\n",
        b"\n@launch c0ffee end\n", "\u202e".encode(), b"", b"0-999999,", b"\\777", b"fields \n", b"url x\n",
    ]
)  # fmt: skip


@settings(max_examples=300)
@given(st.sampled_from(NAMES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), WORDS), max_size=12))
def test_damaged_captures_are_read_to_their_end(name: str, damage: list[tuple[float, int, bytes]]) -> None:
    said = captured(name)
    for where, length, word in damage:
        at = int(where * len(said))
        said = said[:at] + word + said[at + length :]
    is_sound(read(said))


def test_huge_output_is_read_quickly() -> None:
    begun = time.monotonic()
    for filler in (
        b"9" * 60_000,
        b" " * 60_000,
        b"1 " * 30_000,
        b"group\n" * 10_000,
        b"path /a\n" * 8000,
        b"a,b\n" * 15_000,
    ):
        said = b"".join(f"\n@launch {NONCE} {name}\n".encode() + filler + b"\nwhole\n" for name in facts.SECTIONS)
        is_sound(read(said))
    assert time.monotonic() - begun < 5


def test_of_two_sections_the_first_counts() -> None:
    forged = f"\n@launch {NONCE} system\nhostname other\n".encode()
    assert read(captured("autodl-4090.txt") + forged).hostname == "autodl-container-b8e04b9a2c-71d3f0aa"


def test_an_output_that_broke_off_says_so() -> None:
    said = captured("autodl-4090.txt")
    found = read(said[: said.index(b"@launch c0ffee mounts") - 1])
    assert found.has_gpu is True
    assert "probe: broke off" in found.problems
    assert "workspaces: missing" in found.problems
    assert (found.workspace, found.paths, found.logins, found.launch_sessions) == (None, {}, None, None)


def test_nothing_of_a_section_that_is_missing_is_zero() -> None:
    found = facts.parse({})
    assert len(found.problems) >= len(facts.SECTIONS)
    unknown = (found.gpus, found.has_gpu, found.cpu_count, found.memory_limit_bytes, found.memory_used_bytes, found.uid)
    assert unknown == (None,) * 6
    assert not any(isinstance(value, int) and value == 0 for value in found.to_json().values() if value is not False)


# --- real runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home for this machine as a host, with the programs of the system and this Python."""
    folder = tmp_path / "home"
    (folder / ".cache").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_CACHE_HOME", "OMP_NUM_THREADS", "PIP_INDEX_URL", "TMUX", "HF_ENDPOINT", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("PATH", f"{PYTHON_FOLDER}:/usr/local/bin:/usr/bin:/bin")
    return folder


@pytest.fixture
def programs(home, tmp_path, monkeypatch):
    """A folder that is all of PATH, with what the script needs and `timeout`."""
    folder = folder_of_programs(tmp_path / "programs", *BASICS, "df", "timeout")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def where_is(name: str) -> str:
    """A program of the system, whatever PATH is by now."""
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def program(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def kinds(*workspaces: str, **more: object) -> Profiles:
    """Profiles of one machine that counts everywhere."""
    folders = {"workspaces": workspaces} if workspaces else {}
    return Profiles(supplied=(Profile("test", "a test", Evidence(hostname=("*",)), **folders, **more),))  # type: ignore[arg-type]


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@needs_posix
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_this_machine(shell, home, tmp_path, monkeypatch):
    found = where_is(shell)
    (tmp_path / "sh").mkdir()
    program(tmp_path / "sh" / "sh", f'exec {found} {"sh" if shell == "busybox" else ""} "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'sh'}:{os.environ['PATH']}")
    work = tmp_path / "some folder"
    (work / "launch").mkdir(parents=True)
    (work / "launch" / "box-id").write_text("m" * 100)
    monkeypatch.setenv("BOX_NUMBER", "17")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = tree(tmp_path)
    wanted = kinds(
        str(work), "~/missing", ids=("BOX_NUMBER", "BOX_NONE"), durable=(profile.Durable("/nowhere/at/all", "x"),)
    )
    said = probe(LocalHost(home), wanted)
    assert said.problems == ()
    assert tree(tmp_path) == before
    assert said.hostname == os.uname().nodename
    assert said.boot == process.boot_marker()
    assert (said.uid, said.home, said.arch) == (os.getuid(), str(home), os.uname().machine)
    assert said.kernel == f"{os.uname().sysname} {os.uname().release}"
    assert said.clock_s is not None
    assert abs(said.clock_s - time.time()) < 30
    assert said.provider_ids == {"BOX_NUMBER": "17"}
    assert said.omp_num_threads == "1"
    assert said.cpu.machine_count == os.cpu_count()
    assert said.cpu.allowed_count == len(os.sched_getaffinity(0))
    assert said.memory_limit_bytes
    assert [(one.path, one.folder, one.state) for one in said.workspaces] == [
        (str(work), str(work), "writable"),
        ("~/missing", f"{home}/missing", "creatable"),
        ("~/.cache", f"{home}/.cache", "writable"),
    ]
    assert said.marker == "m" * 64
    disk, gone = said.disk(str(work)), said.disk("/nowhere/at/all")
    stat = os.statvfs(work)
    assert disk is not None
    assert gone is not None
    assert disk.total_bytes == stat.f_blocks * stat.f_frsize
    assert disk.read_only is False
    assert disk.file_system
    assert (gone.exists, gone.mount) == (False, "/")
    python = said.python(3, 8)
    assert python is not None
    assert python.version == ".".join(map(str, sys.version_info[:3]))
    assert said.tool("tar") is not None


@needs_posix
def test_over_ssh_it_is_one_command_and_the_login_may_talk(tmp_path):
    with embedded_host(tmp_path / "home", {"HOME": str(tmp_path / "home")}) as (server, host):
        counted = Counted(host)
        said = probe(counted, kinds(str(server.home)))
    assert said.problems == ()
    assert said.boot == process.boot_marker()
    assert said.workspaces[0].state == "writable"
    assert [argv[:2] for argv in counted.started] == [("sh", "-c")]


@needs_posix
@pytest.mark.ssh
def test_over_openssh_with_a_message_of_the_day(sshd):
    (sshd.home / ".bashrc").write_text("printf 'Welcome!\\n@launch 0 system\\nno end of line'\n")
    try:
        with connect(sshd) as host:
            said = probe(host, kinds())
    finally:
        (sshd.home / ".bashrc").unlink()
    assert said.problems == ()
    assert said.home == str(sshd.home)


@needs_posix
@pytest.mark.parametrize("shell", ["dash", "bash", "fish", "zsh"])
def test_it_passes_through_any_login_shell(shell, home):
    where_is(shell)
    text = command.render(["sh", "-c", script(), "sh", NONCE, "3", "3", *arguments(kinds("/tmp/a'b $x"), None, "", [])])
    done = subprocess.run([shell, "-c", text], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30, check=True)
    found = read(done.stdout)
    assert found.problems == ()
    assert found.workspaces[0].path == "/tmp/a'b $x"


class Counted(Host):
    """A host that writes down what was started on it."""

    def __init__(self, host: Host) -> None:
        self.name, self.host, self.started = host.name, host, []

    def start(self, argv, **options):
        self.started.append(tuple(argv))
        return self.host.start(argv, **options)

    def close(self):
        self.host.close()


def test_the_script_is_small_and_no_shell_takes_anything_out_of_it():
    text = script()
    assert text.isascii()
    assert not re.search(r"\\[\\']", text)  # which fish, as a login shell, reads as one character
    assert len(command.render(["sh", "-c", text])) < 16_000
    assert "\r" not in text
    assert not [line for line in text.split("\n") if line.startswith((" ", "#"))]


@needs_posix
def test_what_is_slow_is_left_out_and_the_rest_is_there(programs, home):
    for name in ("nvidia-smi", "df", "python3", "tmux"):
        program(programs / name, "exec sleep 300")
    (programs / "python3.11").symlink_to(sys.executable)
    begun = time.monotonic()
    said = probe(LocalHost(home), kinds(), timeout_s=8)
    assert time.monotonic() - begun < 8
    assert (said.gpus, said.has_gpu, said.is_no_gpu_mode) == (None, None, False)
    assert said.nvidia is not None
    assert (said.nvidia.smi, said.nvidia.exit_status, said.nvidia.said) == (str(programs / "nvidia-smi"), None, "")
    root = said.disk("/")
    assert root is not None
    assert (root.total_bytes, root.free_bytes, root.free_inodes) == (None, None, None)
    assert [(one.path, bool(one.version)) for one in said.pythons] == [
        (str(programs / "python3"), False),
        (str(programs / "python3.11"), True),
    ]
    assert said.workspace is not None
    assert said.workspace.state == "writable"
    tmux = said.tool("tmux")
    assert tmux is not None
    assert tmux.version == ""
    assert {problem.split(":")[0] for problem in said.problems} >= {"GPUs", "disk of /", str(programs / "python3")}


@needs_posix
@pytest.mark.parametrize("there", ["none", "old busybox's"])
def test_without_a_timeout_program(there, programs, home):
    if there == "none":
        (programs / "timeout").unlink()
    else:
        program(programs / "timeout", 'echo "timeout: can\'t execute $1" >&2; exit 127')
    pids = home.parent / "pids"
    program(programs / "nvidia-smi", f"echo $$ >>{pids}; exec sleep 300")
    said = probe(LocalHost(home), kinds(), timeout_s=8)
    assert said.has_gpu is None
    assert said.workspace is not None
    assert said.workspace.state == "writable"
    assert said.disk("/") is not None
    assert said.disk("/").free_bytes
    for pid in pids.read_text().split():
        eventually(lambda pid=int(pid): not alive(pid))


@pytest.mark.slow
@needs_posix
def test_what_can_not_be_killed_is_not_waited_for(programs, home):
    """A shell that ignores every signal but KILL, and whose child holds its output: nearly a stuck driver."""
    pids = home.parent / "pids"
    program(programs / "nvidia-smi", f"trap '' TERM; echo $$ >>{pids}; while :; do sleep 1; done")
    # It reads patiently, but kills nobody.
    program(programs / "timeout", f'[ "$1" = -s ] || exec {where_is("timeout")} "$@"; shift 3; exec "$@"')
    try:
        begun = time.monotonic()
        said = probe(LocalHost(home), kinds(), timeout_s=8)
        assert time.monotonic() - begun < 8
        assert said.has_gpu is None
        assert said.disk("/").free_bytes
        assert said.logins is not None
    finally:
        for pid in map(int, pids.read_text().split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)


@needs_posix
@pytest.mark.parametrize(
    "says",
    [
        "printf '\\033]0;title\\007\\033[2JGPU 0: \\033[31mfake\\033[0m (UUID: GPU-1)\\n'",
        "head -c 3000000 /dev/urandom",
        "yes 'GPU 0: NVIDIA A10 (UUID: GPU-1)' | head -n 100000",
        "printf '@launch 0 end\\nwhole\\nexit 0\\n'; exit 3",
        "kill -9 $$",
        "while :; do echo 99999999999999999999999, NaN, inf; done",
    ],
)
def test_a_program_that_says_nonsense(says, programs, home):
    (programs / "yes").symlink_to(where_is("yes"))
    program(programs / "nvidia-smi", says)
    said = probe(LocalHost(home), kinds(), timeout_s=8)
    is_sound(said)
    assert said.hostname == os.uname().nodename
    assert said.workspace is not None
    assert said.launch_sessions is not None


@needs_posix
def test_an_odd_host_name_changes_nothing_else(programs, home):
    program(programs / "uname", "printf 'a\\033[31mb\\nuser nobody\\n\\n@launch 0 end\\n\\377\\n'")
    said = probe(LocalHost(home), kinds())
    assert said.hostname == "a[31mb"
    assert said.home == str(home)
    assert said.logins is not None


@needs_posix
def test_an_old_driver_is_asked_again_with_less(programs, home):
    program(
        programs / "nvidia-smi",
        'case "$*" in\n-L) echo "GPU 0: Tesla V100-SXM2-16GB (UUID: GPU-1)" ;;\n'
        '*compute_cap*) echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2 ;;\n'
        '*query-gpu*) echo "0, GPU-1, 16160, 11, 5, 470.223.02, Tesla V100-SXM2-16GB" ;;\n'
        '*) echo "| NVIDIA-SMI 470.223.02   Driver Version: 470.223.02   CUDA Version: 11.4     |" ;;\nesac',
    )
    said = probe(LocalHost(home), kinds())
    assert said.problems == ()
    assert said.gpus is not None
    assert said.nvidia is not None
    assert (said.gpus[0].memory_used_bytes, said.gpus[0].driver_version) == (11 * MIB, "470.223.02")
    assert said.nvidia.cuda_version == "11.4"


@needs_posix
def test_the_shutdown_program_is_found_and_never_run(programs, home):
    fuse = home.parent / "fuse"
    for name in ("shutdown", "conda"):
        program(programs / name, f"touch {fuse}")
    said = probe(LocalHost(home), kinds())
    assert {"shutdown", "conda"} <= {tool.name for tool in said.tools}
    assert not fuse.exists()


@needs_posix
def test_nothing_secret_is_read(home, monkeypatch):
    secret = "hunter2"
    monkeypatch.setenv("http_proxy", f"http://me:{secret}@proxy.example:3128/path")
    monkeypatch.setenv("HTTPS_PROXY", f"me:{secret}/@#?x@10.0.0.1:8080")
    monkeypatch.setenv("all_proxy", f"me:{secret}")
    monkeypatch.setenv("PIP_INDEX_URL", f"https://me:{secret}@pip.example/simple")
    monkeypatch.setenv("HF_ENDPOINT", f"https://hub.example/{secret}?token={secret}")
    monkeypatch.setenv("HF_TOKEN", secret)
    monkeypatch.setenv("SET_ONLY", secret)
    wanted = Profiles(supplied=(Profile("test", "a test", Evidence(variables=("SET_ONLY", "NOT_SET"))),))
    argv = ["sh", "-c", script(), "sh", NONCE, "3", "3", *arguments(wanted, None, "", [])]
    done = LocalHost(home).run(argv)
    assert secret.encode() not in done.stdout + done.stderr
    found = read(done.stdout)
    assert found.variables == ("SET_ONLY",)
    assert found.network is not None
    assert found.network.proxies == {
        "http_proxy": "proxy.example:3128",
        "HTTPS_PROXY": "10.0.0.1:8080",
        "all_proxy": "",
    }
    assert (found.network.pip_index, found.network.hf_endpoint) == ("pip.example", "hub.example")


@needs_posix
def test_the_preset_index_of_pip(home):
    (home / ".pip").mkdir()
    (home / ".pip" / "pip.conf").write_text("[global]\nindex-url = http://me:pass@mirrors.example:8000/pypi/simple/\n")
    found = probe(LocalHost(home), kinds())
    assert found.network is not None
    assert found.network.pip_index == "mirrors.example:8000"


@needs_posix
def test_sessions_of_ours_and_no_folder_of_tmux_made(home, monkeypatch):
    where_is("tmux")
    with private_tmux() as variables:
        monkeypatch.setenv("TMUX_TMPDIR", variables["TMUX_TMPDIR"])
        assert probe(LocalHost(home), kinds()).launch_sessions == ()
        assert os.listdir(variables["TMUX_TMPDIR"]) == []
        for name in ("launch-reviews-x7", "other"):
            subprocess.run(["tmux", "new-session", "-d", "-s", name, "sleep 60"], check=True, timeout=10)
        assert probe(LocalHost(home), kinds()).launch_sessions == ("launch-reviews-x7",)


# --- folders that can't be written to ---------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, *options: str):
    """A small file system of its own, where this user may mount one."""
    folder.mkdir(parents=True)
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs a user who may mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def only(folder: Path, home: Path) -> facts.Workspace:
    """What is found out about one folder that was asked for."""
    found = probe(LocalHost(home), kinds(), workspace=str(folder))
    (workspace,) = found.workspaces
    assert not [path for path in folder.iterdir() if "probe" in path.name]
    return workspace


@needs_posix
def test_a_disk_that_is_full(tmp_path, home):
    with mounted(tmp_path / "full", "-o", "size=64k") as folder:
        with contextlib.suppress(OSError):
            (folder / "filler").write_bytes(bytes(64 * 1024))
        workspace = only(folder, home)
        assert (workspace.state, workspace.reason) == ("refused", "no_space")
        below = probe(LocalHost(home), kinds(), workspace=str(folder / "below")).workspaces[0]
        assert (below.state, below.reason) == ("refused", "no_space")


@needs_posix
def test_a_disk_without_inodes(tmp_path, home):
    with mounted(tmp_path / "full", "-o", "nr_inodes=3") as folder:
        with contextlib.suppress(OSError):
            for number in range(5):
                (folder / str(number)).touch()
        workspace = only(folder, home)
        assert (workspace.state, workspace.reason) == ("refused", "no_inodes")


@needs_posix
def test_a_disk_that_is_read_only(tmp_path, home):
    with mounted(tmp_path / "locked", "-o", "ro") as folder:
        workspace = only(folder, home)
        assert (workspace.state, workspace.reason) == ("refused", "read_only")
        found = probe(LocalHost(home), kinds(), workspace=str(folder))
        disk = found.disk(str(folder))
        assert disk is not None
        assert disk.read_only is True


@needs_posix
def test_somebody_elses_folder(tmp_path, home, monkeypatch):
    """Root writes everywhere, so for root the shell gives its rights up first."""
    folder = Path(tempfile.mkdtemp(prefix="launch-probe-test-"))
    try:
        if os.getuid() == 0:
            (tmp_path / "sh").mkdir()
            lesser = f"{where_is('setpriv')} --reuid 65534 --regid 65534 --clear-groups"
            program(tmp_path / "sh" / "sh", f'exec {lesser} /bin/sh "$@"')
            monkeypatch.setenv("PATH", f"{tmp_path / 'sh'}:/usr/bin:/bin")
            folder.chmod(0o755)
        else:
            folder.chmod(0o555)
        workspace = only(folder, home)
        assert (workspace.state, workspace.reason) == ("refused", "permission")
        below = probe(LocalHost(home), kinds(), workspace=str(folder / "below")).workspaces[0]
        assert below.state == "absent"
    finally:
        folder.chmod(0o700)
        folder.rmdir()


@needs_posix
def test_a_file_in_the_place_of_a_folder_and_a_link(tmp_path, home):
    (tmp_path / "file").touch()
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    found = probe(LocalHost(home), kinds(*(str(tmp_path / name) for name in ("file", "link", "nowhere"))))
    assert [workspace.state for workspace in found.workspaces] == ["refused", "writable", "creatable", "writable"]
    assert found.workspaces[0].reason == "not_a_folder"
    assert tree(tmp_path / "real") == []


@needs_posix
def test_relative_folders_and_a_cache_elsewhere(home, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "elsewhere"))
    (home / "work").mkdir()
    found = probe(LocalHost(home), kinds("work"))
    assert [(one.folder, one.state) for one in found.workspaces] == [
        (f"{home}/work", "writable"),
        (f"{home}/elsewhere", "creatable"),
    ]


# --- addresses --------------------------------------------------------------------------------------------------------


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers with the status that the path names."""

    def do_HEAD(self) -> None:
        self.send_response(int(self.path.strip("/") or 200))
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 (the library calls it by this name)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served():
    """Address of a server of ours, and of one that takes connections and never answers."""
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server,
        socket.create_server(("127.0.0.1", 0)) as mute,
    ):
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", f"http://127.0.0.1:{mute.getsockname()[1]}/"
        server.shutdown()
        thread.join()


@needs_posix
@pytest.mark.parametrize("asks", ["curl", "wget", "python3"])
def test_addresses_are_tried_at_once(asks, served, programs, home):
    address, mute = served
    if asks == "python3":
        (programs / asks).symlink_to(sys.executable)
    else:
        (programs / asks).symlink_to(where_is(asks))
    mirrors = [f"{address}/200", f"{address}/404", mute, "http://127.0.0.1:1/", mute + "again"]
    before = tree(home)
    begun = time.monotonic()
    found = probe(LocalHost(home), kinds(), mirrors=mirrors)
    assert time.monotonic() - begun < 6
    assert tree(home) == before
    assert [mirror.url for mirror in found.mirrors] == mirrors
    assert [mirror.ok for mirror in found.mirrors] == [True, False, False, False, False]
    assert [mirror.http_status for mirror in found.mirrors] == [200, 404, None, None, None]
    assert found.mirrors[0].duration_s is not None
    assert found.mirrors[0].duration_s < 2
    assert all(mirror.error for mirror in found.mirrors[1:])


@needs_posix
def test_addresses_without_anything_that_could_try_them(programs, home):
    found = probe(LocalHost(home), kinds(), mirrors=["http://127.0.0.1:1/"])
    assert [mirror.ok for mirror in found.mirrors] == [None]
    assert any("127.0.0.1:1" in problem for problem in found.problems)


@pytest.mark.parametrize(
    "url", ["ftp://a/", "http://me:pw@a/", "http://a b/", "-o/etc/passwd", "http://", "http://a/\n"]
)
def test_what_is_no_plain_address_is_not_tried(url):
    with pytest.raises(ValueError, match="plain http") as failure:
        arguments(kinds(), None, "", [url])
    assert "pw" not in str(failure.value)


# --- answers that do not come -----------------------------------------------------------------------------------------


@needs_posix
@pytest.mark.parametrize("does", ["exit 0", "echo 'choose: 1) tmux 2) shell'; exit 1", "echo '[exited]'"])
def test_a_login_that_starts_something_by_itself(does, tmp_path, monkeypatch):
    folder = tmp_path / "sh"
    folder.mkdir()
    program(folder / "sh", does)
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(BadReply, match="did not come back") as failure:
        probe(LocalHost(tmp_path), kinds())
    assert "no_auto_tmux" in failure.value.hint


@needs_posix
def test_no_shell_too_much_output_and_no_end(tmp_path, monkeypatch):
    folder = tmp_path / "sh"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(BadReply, match="no POSIX shell"):
        probe(LocalHost(tmp_path), kinds())
    program(folder / "sh", "exec /bin/cat /dev/zero")
    with pytest.raises(BadReply, match="more than"):
        probe(LocalHost(tmp_path), kinds())
    program(folder / "sh", "exec /bin/sleep 60")
    with pytest.raises(TimedOut):
        probe(LocalHost(tmp_path), kinds(), timeout_s=0.5)


def test_its_errors_are_all_of_one_family():
    assert issubclass(BadReply, RemoteError)
    assert issubclass(TimedOut, RemoteError)
