"""Fixtures shared by all tests: real servers, a private home for `launch`, and the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from remote.embedded import EmbeddedHost
from tests.box import Box, box_missing
from tests.servers import OpenSshServer, openssh_missing

REPOSITORY = Path(__file__).resolve().parent.parent
# Whoever starts the tests in the background has Ctrl-C ignored, and all that we start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
MUST_RUN_IN_CI = ("ssh", "browser", "slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """In CI a skipped test of these kinds is a failure: what was not run was not shown."""
    report: pytest.TestReport = yield  # type: ignore[assignment,misc]
    marked = [name for name in MUST_RUN_IN_CI if item.get_closest_marker(name)]
    if report.skipped and not hasattr(report, "wasxfail") and marked and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where {', '.join(marked)} tests must run: {report.longrepr}"
    return report  # type: ignore[return-value]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers the files with most slow tests come first: none of them is left for the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Whoever measures the machine has it: the other workers are between two tests meanwhile."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with _among_workers(item.config, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextlib.contextmanager
def _among_workers(config: pytest.Config, *, alone: bool) -> Iterator[None]:
    import fcntl

    folder = config._tmp_path_factory.getbasetemp().parent  # type: ignore[attr-defined]  # all workers' own
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        # Through the door one by one, or whoever wants to be alone would wait while others come and go.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a process that was forked meanwhile still has the file open


@dataclass(frozen=True)
class Ended:
    """How a `launch` process ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        """`data` of the JSON envelope."""
        envelope = json.loads(self.stdout)
        assert envelope["ok"] is True, self
        return envelope["data"]

    @property
    def error(self) -> dict[str, str]:
        """`error` of the JSON envelope."""
        envelope = json.loads(self.stdout)
        assert envelope["ok"] is False, self
        error: dict[str, str] = envelope["error"]
        return error


class Cli:
    """The real command line in processes of its own, with a private home."""

    def __init__(self, home: Path, python: str = sys.executable) -> None:
        self.home = home
        self.python = python
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LAUNCH_", "SSH_AUTH_SOCK"))},
            "HOME": str(home),
            "LAUNCH_HOME": str(home / "launch"),
            "COLUMNS": "80",
        }

    def start(self, *argv: str, cwd: Path | None = None, **options: Any) -> subprocess.Popen[str]:
        """A `launch` process that goes on."""
        return subprocess.Popen(
            [self.python, "-m", "launcher", *argv], env=self.env, cwd=cwd or self.home, text=True, **options
        )

    def __call__(self, *argv: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Ended:
        """Run `launch` to its end."""
        done = subprocess.run(
            [self.python, "-m", "launcher", *argv],
            env={**self.env, **(env or {})},
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=280,
        )
        return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    home = tmp_path / "laptop"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    # A port that refuses is not tried for another quarter of a minute.
    (home / ".ssh" / "config").write_text("Host *\n  ConnectionAttempts 1\n")
    return Cli(home)


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedHost]:
    """A host of its own for one test, whose Python is the one that runs the tests."""
    with EmbeddedHost(tmp_path / "embedded", path_prefix=[str(Path(sys.executable).parent)]) as host:
        yield host


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSshServer]:
    """A real OpenSSH server, whose Python is the one that runs the tests."""
    if reason := openssh_missing():
        pytest.skip(reason)
    server = OpenSshServer(tmp_path_factory.mktemp("sshd"), path_prefix=[str(Path(sys.executable).parent)])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def box() -> Iterator[Box]:
    """A rented box for one test, to be changed at will; what uses it is marked `ssh`."""
    if reason := box_missing():
        pytest.skip(reason)
    with Box() as running:
        yield running


@pytest.fixture(scope="session")
def shared_box() -> Iterator[Box]:
    """A rented box for tests that leave it as it was; what uses it is marked `ssh`."""
    if reason := box_missing():
        pytest.skip(reason)
    with Box() as running:
        yield running
