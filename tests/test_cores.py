"""How many cores there are for us: control groups of both versions, seen from inside and outside of a container."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cores


def system(folder: Path, own: str, files: dict[str, str]) -> Path:
    """A root directory with these files below sys/fs/cgroup."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/cgroup").write_text(own)
    for name, content in files.items():
        path = folder / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/docker/x\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/../../x\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "100000 0\n"}, None),
        ("0::/\n", {"cpu.max": "lots of it\n"}, None),
        ("0::/\n", {"cpu.max": "9" * 400}, None),
        ("0::/\n", {}, None),
        ("", {"cpu.max": "100000 100000\n"}, None),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "600000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:memory:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("no colons", {}, None),
    ],
)
def test_quotas(own: str, files: dict[str, str], expected: int | None, tmp_path: Path) -> None:
    assert cores.quota(system(tmp_path, own, files)) == expected


def test_the_quota_becomes_torch_s_threads_unless_somebody_said_so(tmp_path: Path) -> None:
    root = system(tmp_path / "one", "0::/\n", {"cpu.max": "100000 100000"})
    for before in ({}, {"OMP_NUM_THREADS": "0"}, {"OMP_NUM_THREADS": "x"}, {"OMP_NUM_THREADS": "-2"}):
        environment = dict(before)
        cores.set_threads(environment, system=root)
        assert environment == ({"OMP_NUM_THREADS": "1"} if cores.available() > 1 else {})
    asked = {"OMP_NUM_THREADS": "3"}
    cores.set_threads(asked, system=root)
    assert asked == {"OMP_NUM_THREADS": "3"}
    free = {"OMP_NUM_THREADS": "0"}
    cores.set_threads(free, system=system(tmp_path / "two", "0::/\n", {"cpu.max": "max 100000"}))
    assert free == {}
    wide = {}
    cores.set_threads(wide, system=system(tmp_path / "three", "0::/\n", {"cpu.max": "99999900000 100000"}))
    assert wide == {}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_counts() -> None:
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code = f"import os; from jobs import cores; {one}; print(cores.available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
