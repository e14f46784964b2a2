"""The tmux that runs are started in: the host's own, else one that is installed once, where that endangers nothing.

Within half a minute there is an answer, whatever happens: a tmux, or why there is none.  After a failure nothing is
tried again before the machine restarts.  What the installers say goes to a file, never to our output.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from typing import IO, Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import build_lock, process
from .atomic import read_json, write_json

LIMIT_S = 30.0
POLL_S = 0.1
MOST_SAID = 1024 * 1024
SENTENCE = 240
MINICONDA = "/root/miniconda3/bin/conda"
# No questions, no restart of services after it, no waiting for others or for a network that is not there.
APT_VARIABLES = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1", "APT_LISTCHANGES_FRONTEND": "none",
                 "LC_ALL": "C"}  # fmt: skip
APT_OPTIONS = ["-q", "-o", "DPkg::Lock::Timeout=0", "-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=10",
               "-o", "Acquire::https::Timeout=10"]  # fmt: skip
APT_INSTALL = ["install", "-y", "--no-install-recommends", "--no-remove"]
# dpkg refuses to work where it can't find ldconfig, and a login over SSH may not have these.
SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
PLANNED = re.compile(r"(Inst|Conf|Remv) (\S+)( \[)?")
# What apt-get says where its lists are missing, or so old that the mirror has moved on.
OLD_LISTS = re.compile(r"Unable to locate package|has no installation candidate|404  ?Not Found")


class Found(NamedTuple):
    """Where tmux is, empty where there is none, and what there is to say about that."""

    path: str
    why: str = ""


class NotInstalled(Exception):
    """Why not, for a person."""


def find(workspace: str, may_install: bool, limit_s: float = LIMIT_S) -> Found:
    """The tmux to use, after at most `limit_s` seconds.  Never raises."""
    folder = os.path.join(workspace, "tmux")
    known = _known(folder)
    if known is not None:
        return known
    if not may_install:
        return Found("", "no tmux on the host")
    deadline = time.monotonic() + limit_s
    try:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "log.txt"), "ab") as log:
            if not _locked(log, deadline):
                return Found("", "no tmux on the host, and another launch still installs it")
            return _known(folder) or _remembered(folder, _installed(folder, log, deadline))
    except OSError as error:  # no room for the log
        return _remembered(folder, Found("", f"no tmux on the host, and none can be installed: {error}"))


def _known(folder: str) -> Optional[Found]:
    own = shutil.which("tmux")
    if own is not None:
        return Found(own)
    try:
        record = read_json(os.path.join(folder, "found.json"))
        boot, found = record["boot"], Found(str(record["path"]), str(record["why"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if os.access(found.path, os.X_OK):
        return found
    if found.path or boot != process.boot_marker():
        return None
    return Found("", f"{found.why} (not tried again before it restarts)")


def _remembered(folder: str, found: Found) -> Found:
    with contextlib.suppress(OSError):  # then it is tried again
        write_json(os.path.join(folder, "found.json"), {"boot": process.boot_marker(), **found._asdict()})
    return found


def _locked(log: IO[bytes], deadline: float) -> bool:
    """Whether nobody else installs.  An installation that outlives its launch has the file open, and keeps the lock."""
    while not build_lock.taken(log.fileno()):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _installed(folder: str, log: IO[bytes], deadline: float) -> Found:
    steps = Steps(log, deadline)
    reasons = []
    for way in (_with_apt, _with_conda):
        try:
            return way(folder, steps)
        except (NotInstalled, OSError) as error:
            reasons.append(str(error))
    return Found("", f"no tmux on the host, and none can be installed: {'; '.join(filter(None, reasons))}")


class Steps:
    """Programs that are run one after the other until the time is up."""

    def __init__(self, log: IO[bytes], deadline: float) -> None:
        self._log = log
        self._deadline = deadline

    def run(self, argv: List[str], variables: Mapping[str, str], *, may_be_killed: bool = True) -> Tuple[int, str]:
        """The exit status and what it said.  Raises NotInstalled when the time is up; then it is killed, if it may."""
        name, left_s = os.path.basename(argv[0]), self._deadline - time.monotonic()
        if left_s <= 0:
            raise NotInstalled(f"no time was left for {name}")
        env: Dict[str, str] = {**os.environ, **variables}
        env["PATH"] = os.pathsep.join(filter(None, [env.get("PATH", ""), SYSTEM_FOLDERS]))
        self._log.write(f"\n$ {' '.join(argv)}\n".encode("utf-8", "surrogateescape"))
        self._log.flush()
        begun = os.fstat(self._log.fileno()).st_size
        # A session of its own: the end of the connection must not reach dpkg.
        child = subprocess.Popen(argv, cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=self._log,
                                 stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        try:
            status = child.wait(timeout=left_s)
        except subprocess.TimeoutExpired:
            if not may_be_killed:
                raise NotInstalled(f"{name} is not done yet; a later run may find tmux") from None
            raise NotInstalled(f"{name} takes too long") from None
        finally:
            if may_be_killed and child.returncode is None:
                process.signal_group(child.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel
                    child.wait(timeout=1)
        with open(self._log.name, "rb") as written:
            written.seek(begun)
            return status, written.read(MOST_SAID).decode("utf-8", "replace")


def _with_apt(folder: str, steps: Steps) -> Found:
    apt = shutil.which("apt-get")
    if apt is None:
        raise NotInstalled("there is no apt-get")
    if os.geteuid() != 0:
        raise NotInstalled("apt-get needs root")

    def step(*words: str, may_be_killed: bool = True) -> Tuple[int, str]:
        return steps.run([str(apt), *APT_OPTIONS, *words], APT_VARIABLES, may_be_killed=may_be_killed)

    def fetched() -> Tuple[int, str]:
        status, said = step(*APT_INSTALL, "--simulate", "tmux")
        if status == 0:
            _require_harmless(said)
            status, said = step(*APT_INSTALL, "--download-only", "tmux")
        return status, said

    status, said = fetched()
    if status != 0 and OLD_LISTS.search(said):
        updated = step("update")[1]
        status, said = fetched()
        if status != 0:
            raise NotInstalled(f"{_complaint(said)} ({_complaint(updated)})")
    if status == 0:
        # Short, with all that it needs at hand.  Killed, dpkg would leave the machine in need of repair.
        status, said = step(*APT_INSTALL, "--no-download", "tmux", may_be_killed=False)
    if status != 0:
        raise NotInstalled(_complaint(said) or f"apt-get ended with status {status}")
    own = shutil.which("tmux")
    if own is None:
        raise NotInstalled("apt-get has tmux installed, but it is not there")
    return _tried(Found(own, "tmux was missing, apt-get installed it"), steps)


def _require_harmless(simulated: str) -> None:
    """Raises NotInstalled unless all that happens is that packages come which were not there.

    To replace one, or to set one up that was left half-installed, can restart services.
    """
    planned = [match.groups() for match in map(PLANNED.match, simulated.splitlines()) if match]
    new = {name for verb, name, replaces in planned if verb == "Inst" and not replaces}
    others = sorted({name for _, name, _ in planned} - new)
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise NotInstalled(f"apt-get would have to change {', '.join(others[:3])}{more}")


def _with_conda(folder: str, steps: Steps) -> Found:
    """In an environment of its own, with packages of its own: of the user's nothing can be left half-done."""
    conda = next(filter(None, map(shutil.which, ("mamba", "conda", MINICONDA))), None)
    if conda is None:
        raise NotInstalled("")
    prefix, packages = os.path.join(folder, "conda"), os.path.join(folder, "packages")
    shutil.rmtree(prefix, ignore_errors=True)
    argv = [conda, "create", "--yes", "--quiet", "--prefix", prefix, "--override-channels", "--channel", "conda-forge",
            "tmux"]  # fmt: skip
    try:
        status, said = steps.run(argv, {"CONDA_PKGS_DIRS": packages, "LC_ALL": "C"})
        name = os.path.basename(conda)
        if status != 0:
            raise NotInstalled(_complaint(said) or f"{name} ended with status {status}")
        own = os.path.join(prefix, "bin", "tmux")
        return _tried(Found(own, f"tmux was missing, {name} installed it: {own}"), steps)
    except BaseException:
        shutil.rmtree(prefix, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(packages, ignore_errors=True)


def _tried(found: Found, steps: Steps) -> Found:
    status, said = steps.run([found.path, "-V"], {})
    if status != 0:
        raise NotInstalled(f"the tmux that was installed does not work: {said.strip()[:SENTENCE]}")
    return found


def _complaint(said: str) -> str:
    """The first line that says what is wrong, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    for mark in ("E: ", "W: "):
        for line in lines:
            if line.startswith(mark):
                return line[len(mark) :][:SENTENCE]
    return next((line for line in lines if "Error" in line), "".join(lines[-1:]))[:SENTENCE]
