"""Fixtures shared by all tests: real servers, a private home for `launch`, and the real command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
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
