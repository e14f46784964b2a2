"""Machines whose Pythons are all too old, for real: uv fetches one from a mirror on localhost.

There is no conda here.  What stands in for it is a script that knows the one command which is given to it: like conda
it refuses a prefix that is there, makes one with a Python and a pip in it (by venv), names errors as conda does, and
can be killed half-way.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher import recipe as recipes
from remote.onhost import clean, environment, own_python
from remote.onhost.narrated import Failed
from tests.connected import alive, eventually, folder_of_programs
from tests.python_mirror import MINOR, VERSION, archived, serving
from tests.test_environment import Image, children, ended, wheel

DAY_S = 24 * 3600
OLD = next(
    (str(one) for one in sorted(Path.home().glob(".pyenv/versions/3.8.*/bin/python3.8"))), shutil.which("python3.8")
)
CONDA = """#!/bin/sh
echo "$CONDA_PKGS_DIRS $*" >>"{log}"
prefix=$5
[ -e "$prefix" ] && {{ echo "DirectoryNotACondaEnvironmentError: The target directory exists" >&2; exit 1; }}
mkdir -p "$prefix/bin" && {meanwhile}
exec "{python}" -m venv --without-pip --system-site-packages "$prefix"
"""
NO_CHANNEL = """{ echo "Collecting package metadata: failed"; echo;
echo "CondaHTTPError: HTTP 000 CONNECTION FAILED for url <https://127.0.0.1:1/linux-64/repodata.json>"; exit 1; }"""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the archive is made for Linux"),
    pytest.mark.skipif(not OLD, reason="needs a Python 3.8"),
    pytest.mark.skipif(
        any(os.path.exists(path) for path in own_python.CONDAS if os.path.isabs(path)), reason="a conda is there"
    ),
]


class OldImage(Image):
    """A machine on which only a Python 3.8 is to be found, and whose supervisor runs on that one."""

    def __init__(self, folder, wheels, uv):
        super().__init__(folder, wheels)
        folder_of_programs(self.bin, "mkdir", "ln")
        self.more = {"UV_HTTP_RETRIES": "0", "UV_PYTHON_DOWNLOADS": "never"}
        self.uv = uv
        self.runner = OLD
        self.recipe |= {"own_python": MINOR, "uv": recipes.UV}
        self.add("python3", f'exec "{OLD}" "$@"')

    @property
    def env(self):
        return super().env | self.more

    @property
    def pythons(self):
        return self.workspace / "pythons"

    def start(self, **recipe):
        (self.root / "result.json").unlink(missing_ok=True)
        return super().start(**recipe)

    def add_uv(self):
        (self.bin / "uv").symlink_to(self.uv)

    def add_conda(self, meanwhile="true", name="conda"):
        """The lines that it was called with, each after the folder for its downloads."""
        log = self.workspace.parent / f"{name}.log"
        path = self.bin / name
        path.write_text(CONDA.format(log=log, python=os.path.realpath(sys.executable), meanwhile=meanwhile))
        path.chmod(0o755)
        return log

    def clean(self, *, everything=False, dry_run=False):
        """What goes, and why the others stay."""
        asked = {"everything": everything, "dry_run": dry_run, "wait_s": 1, "pulled": [], "young_s": 0, "force": True,
                 "keys": []}  # fmt: skip
        done = clean.clean(str(self.workspace), asked, "launch.pyz")
        kept = {(one["kind"], name): one["reason"] for one in done["kept"] for name in one["names"]}
        return {item["path"] for item in done["items"]}, kept


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The toys, and the uv that the recipe asks for."""
    folder = tmp_path_factory.mktemp("wheels")
    for name, version in (("launchtoy", "1.0"), ("launchmate", "1.0")):
        wheel(folder, name, version)
    got = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(folder), recipes.UV],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if got.returncode:
        pytest.skip(f"no uv to be had: {got.stderr[-200:]}")
    return folder


@pytest.fixture(scope="module")
def uv(wheels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uv")
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(wheels)]
    subprocess.run([*argv, "--target", str(folder), recipes.UV], check=True)
    return folder / "bin" / "uv"


@pytest.fixture
def old(tmp_path, wheels, uv):
    return OldImage(tmp_path, wheels, uv)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return archived(tmp_path_factory.mktemp("archive") / "python.tar.gz")


@pytest.fixture
def mirror(old, archive):
    with serving(archive) as mirror:
        old.more |= mirror.env
        yield mirror


@pytest.fixture
def inside(old, mirror, monkeypatch):
    """The image, and a mirror for it, for calls in this process."""
    for name in set(os.environ) - set(old.env):
        monkeypatch.delenv(name)
    for name, value in old.env.items():
        monkeypatch.setenv(name, value)
    return old


def told(python, what):
    return subprocess.run(
        [python, "-I", "-c", f"import sys; print({what})"], capture_output=True, text=True
    ).stdout.strip()


def test_a_machine_with_only_an_old_python_gets_one_of_its_own(old, mirror):
    status, said = old.prepare()
    assert (status, old.prepared["how"]) == (0, "built"), said
    python = old.prepared["python"]
    assert told(python, "sys.version_info[:2]") == str(sys.version_info[:2])
    # Not the one behind the tests, of which it is a copy.
    assert told(python, "sys.base_prefix").startswith(str(old.pythons / MINOR / "uv" / f"cpython-{VERSION}-"))
    assert f"no Python >= {MINOR} on this machine" in said
    assert f"environment: proven False 1.0 {Path(python).parent.parent}" in said
    assert (mirror.downloads, list(old.pythons.glob(".part-*"))) == (1, [])
    # The old one's pip brought uv, and nothing was put where the machine's owner would find it.
    assert f"fetching Python {MINOR} with {old.workspace}/cache/uv-" in said
    # The second time it is ready, for this environment and for another one.
    mirror.is_gone = True
    assert old.prepare() == (0, f"environment: ready: {python}\n")
    status, said = old.prepare(constraints=["launchmate==1.0", "another==1"])
    assert (status, len(old.folders), mirror.downloads) == (0, 2, 1), said
    assert "fetching" not in said

    # It stays as long as an environment that is built on it.
    assert old.clean(dry_run=True)[1]["python", MINOR] == "used by an environment"
    long_ago = time.time() - 30 * DAY_S
    for marker in (*old.workspace.glob("*/*/ready.json"), *old.workspace.glob("runs/*/environment.json")):
        os.utime(marker, (long_ago, long_ago))
    os.utime(old.folders[0] / "ready.json")
    gone, kept = old.clean()
    assert kept["python", MINOR] == "used by an environment"
    assert gone >= {f"envs/{one}" for one in [folder.name for folder in old.folders]} ^ {f"envs/{old.folders[0].name}"}
    os.utime(old.folders[0] / "ready.json", (long_ago, long_ago))
    assert f"pythons/{MINOR}" in old.clean()[0]
    assert not (old.pythons / MINOR).exists()


@pytest.mark.parametrize(("fault", "why"), [("is_gone", "404 Not Found"), ("is_another", "Hash mismatch")])
def test_what_was_tried_is_told_where_nothing_works(old, mirror, fault, why):
    old.add_uv()
    old.more["COLUMNS"] = "80"
    setattr(mirror, fault, True)
    status, said = old.prepare()
    last = said.splitlines()[-1]
    assert status == 1
    begin = (
        f"environment: no Python >= {MINOR} on this machine, and Python {MINOR} could not be fetched: uv: Failed to "
    )
    assert last.startswith(begin), said
    assert why in last
    assert last.endswith("; conda: not on this machine")
    assert [path.name for path in old.pythons.iterdir()] == [f"{MINOR}.lock"]
    # And nothing of it stands in the way of the next one.
    setattr(mirror, fault, False)
    status, said = old.prepare()
    assert status == 0, said


def test_without_uv_and_without_pip_conda_makes_one(old):
    old.add("python3", f'case "$*" in *"-m pip"*) exit 1 ;; esac; exec "{OLD}" "$@"')
    log = old.add_conda(name="mamba")
    old.add_conda(NO_CHANNEL)  # is asked first
    status, said = old.prepare()
    assert (status, old.prepared["how"]) == (0, "built"), said
    assert "uv: not on this machine, and no Python here has a pip to install it" in said
    prefix = old.pythons / MINOR / "conda"
    asked = f"{old.workspace}/cache/conda create --yes --quiet --prefix {prefix} python={MINOR}\n"
    assert log.read_text() == asked
    assert json.loads((old.folders[0] / "ready.json").read_text())["base"] == str(prefix / "bin" / "python3")
    assert f"{old.bin}/conda: CondaHTTPError: HTTP 000 CONNECTION FAILED" in said
    assert old.clean(dry_run=True)[1]["python", MINOR] == "used by an environment"
    os.utime(old.pythons / MINOR / "ready.json", (1, 1))
    assert old.prepare(constraints=["launchmate==1.0", "another==1"])[0] == 0
    assert time.time() - (old.pythons / MINOR / "ready.json").stat().st_mtime < DAY_S
    assert log.read_text() == asked


def test_why_conda_failed_is_told(old):
    old.add_conda(NO_CHANNEL.replace("127", "name:secret@127"))
    status, said = old.prepare(uv="uv==0.0.0")
    why = said.splitlines()[-1].partition("could not be fetched: ")[2]
    assert status == 1
    assert why.startswith("uv: not on this machine, and pip could not install uv==0.0.0; "), said
    assert why.endswith(
        f"{old.bin}/conda: CondaHTTPError: HTTP 000 CONNECTION FAILED for url "
        "<https://***@127.0.0.1:1/linux-64/repodata.json>"
    )


def test_a_conda_that_is_killed_half_way_leaves_nothing_that_counts(old):
    half = f'ln -s "{os.path.realpath(sys.executable)}" "$prefix/bin/python3" && echo half && sleep 60'
    old.add_conda(half)
    first = old.start(uv="uv==0.0.0")
    assert any("half" in line for line in first.stdout)
    os.killpg(first.pid, signal.SIGKILL)
    ended(first)
    assert (old.pythons / MINOR / "conda" / "bin" / "python3").exists()
    assert own_python.ready(str(old.pythons), MINOR) == ""
    old.add_conda()
    status, said = old.prepare(uv="uv==0.0.0")
    assert status == 0, said
    assert (old.pythons / MINOR / "conda" / "pyvenv.cfg").exists()


def test_a_download_that_is_cut_off_is_done_again_and_a_retry_waits_for_one_that_goes_on(old, mirror):
    old.add_uv()
    mirror.stops_after = 100_000
    first = old.start()
    eventually(lambda: mirror.downloads == 1)
    [uv] = eventually(lambda: [pid for pid in children(first.pid) if b"install" in _command(pid)])
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert alive(uv)
    second = old.start()
    lines = iter(second.stdout.readline, "")
    assert any("another run is fetching" in line for line in lines)
    assert mirror.downloads == 1
    assert own_python.ready(str(old.pythons), MINOR) == ""
    mirror.stops_after = 0
    os.killpg(first.pid, signal.SIGKILL)  # as a supervisor does it: the whole group
    first.stdout.close()
    status, said = ended(second)
    assert (status, mirror.downloads) == (0, 2), said


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_two_at_once_fetch_one(old, mirror):
    old.add_uv()
    processes = [old.start(), old.start(constraints=["launchmate==1.0", "another==1"])]
    outcomes = [ended(process) for process in processes]
    assert [status for status, _ in outcomes] == [0, 0], outcomes
    assert mirror.downloads == 1


def test_nothing_takes_forever(inside, mirror):
    inside.add_uv()
    log = inside.add_conda("sleep 60")
    mirror.stops_after = 1000
    tools = own_python.Tools(str(inside.workspace / "cache"), recipes.UV, "", [str(inside.bin / "python3")])
    started = time.monotonic()
    with pytest.raises(Failed, match="uv: it took more than 1 s; .*conda: it took more than 1 s"):
        own_python.get(str(inside.pythons), MINOR, tools, inside.said.append, limit_s=1)
    assert time.monotonic() - started < 20
    assert log.exists()
    assert [path.name for path in inside.pythons.iterdir()] == [f"{MINOR}.lock"]


def test_a_python_of_another_version_is_none(inside):
    inside.add_conda(f'"{OLD}" -m venv --without-pip "$prefix" && exit 0')
    tools = own_python.Tools(str(inside.workspace / "cache"), "uv==0.0.0", str(inside.wheels), [])
    with pytest.raises(Failed, match=f"conda: what it made is no Python {MINOR} that works here"):
        own_python.get(str(inside.pythons), MINOR, tools, inside.said.append)


def test_one_that_can_hold_no_environment_gives_way_and_what_fails_otherwise_does_not(inside):
    inside.add("python3", 'case "$*" in *"-m venv"*) echo no ensurepip; exit 1 ;; esac; exec "{python}" "$@"')
    log = inside.add_conda()
    prepared = inside.here(uv="uv==0.0.0")
    assert prepared.how == "built", inside.said
    assert any(line.endswith("no ensurepip") for line in inside.said)
    assert log.exists()
    shutil.rmtree(inside.pythons)
    log.unlink()
    inside.add("python3")
    with pytest.raises(Failed, match="nothing-of-the-kind"):
        inside.here(uv="uv==0.0.0", requirements=["launchmate", "nothing-of-the-kind"])
    assert not log.exists()
    # Nor is one fetched where no library would be right for the driver.
    inside.add("python3", f'exec "{OLD}" "$@"')
    inside.gpu("470.82")
    with pytest.raises(Failed, match=f"no Python >= {MINOR} on this machine$"):
        inside.here(uv="uv==0.0.0", boot="another")
    assert not log.exists()


def test_for_somebody_who_brings_the_packages_it_is_fetched_first(inside):
    inside.add_uv()
    asked = str(inside.workspace), inside.recipe, "boot"
    assert environment.lacks(*asked) == "all"
    assert not (inside.workspace / "pythons").exists()  # who only wants to know gets nothing fetched
    wanted = environment.wanted(*asked)
    assert (wanted["python"], wanted["requirement"]) == (list(sys.version_info[:3]), "launchtoy==1.0")
    environment.prepare(*asked, inside.said.append)
    assert environment.wanted(*asked) is None
    assert environment.lacks(*asked) == ""


def test_without_environments_it_stays_for_a_day_and_goes_with_everything(old):
    folder = old.pythons / "3.12"
    folder.mkdir(parents=True)
    (folder / "ready.json").write_text("{}")
    for age_s, kept in ((DAY_S / 2, True), (2 * DAY_S, False)):
        os.utime(folder / "ready.json", (time.time() - age_s,) * 2)
        gone, reasons = old.clean(dry_run=True)
        assert (reasons.get(("python", "3.12")), "pythons/3.12" in gone) == ("recent" if kept else None, not kept)
    (old.workspace / "envs" / "key").mkdir(parents=True)
    with environment.build_lock.held(str(old.workspace / "envs" / "key.lock"), print):
        assert old.clean(dry_run=True)[1]["python", "3.12"] == "being built"
    with environment.build_lock.held(str(old.pythons / "3.12.lock"), print):
        assert old.clean(dry_run=True)[1]["python", "3.12"] == "being built"
    old.clean(everything=True)
    assert not old.workspace.exists()
