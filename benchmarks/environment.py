"""How long an environment takes on a host: kept torch, everything new, and ready already.

python benchmarks/environment.py [--repeat 5] [--works warm] [--delay-ms 30]

The host is an OpenSSH server on this machine behind a relay that delays each direction.  Its image is a virtual
environment whose torch and what that requires are links to this Python's; all else comes from the package index that
pip is set up for, cold: with no cache of ours.  `launch env prepare` is a whole process.  Warm runs alternate with a
process that connects and runs `true`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.images import image_with_torch  # noqa: E402
from tests.relay import Relay  # noqa: E402
from tests.servers import OpenSshServer  # noqa: E402

LAUNCH = str(Path(sys.executable).with_name("launch"))
NOTHING = """\
import sys
from pathlib import Path
from remote.ssh.address import parse
from remote.ssh.host import SshHost
with SshHost("box", parse(sys.argv[1]), known_hosts=Path(sys.argv[2])) as host:
    host.run(["true"]).check()
"""


class Laptop:
    """The command line with a home of its own, at one end of a slow line."""

    def __init__(self, folder: Path, server: OpenSshServer, port: int) -> None:
        self._env = {name: value for name, value in os.environ.items() if not name.startswith(("LAUNCH_", "SSH_AUTH_"))}
        self._env |= {"HOME": str(folder), "LAUNCH_HOME": str(folder / "launch")}
        self.login = f"ssh -i {server.identity_file} -p {port} {server.address}"
        self.known_hosts = folder / "known_hosts"
        self.run("host", "add", "box", self.login, "--accept-new", "--known-hosts", str(self.known_hosts))

    def run(self, *words: str) -> float:
        """Seconds of a `launch` process."""
        return self._timed([LAUNCH, *words])

    def nothing(self) -> float:
        """Seconds of a process that connects and runs `true`."""
        return self._timed([sys.executable, "-c", NOTHING, self.login, str(self.known_hosts)])

    def _timed(self, argv: list[str]) -> float:
        started_s = time.perf_counter()
        done = subprocess.run(argv, env=self._env, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started_s
        if done.returncode != 0:
            sys.exit(f"{argv} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5, help="warm runs")
    parser.add_argument("--works", default="", help="comma list of reuse, full, pip")
    parser.add_argument("--delay-ms", type=float, default=30)
    options = parser.parse_args()
    works = options.works.split(",") if options.works else ["reuse", "full"]
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {2 * options.delay_ms:g} ms a round trip\n")
    print("| work | seconds | of them beyond the connection |\n| --- | --- | --- |")
    for work in works:
        with tempfile.TemporaryDirectory(prefix="launch-environment-") as name:
            measure(work, Path(name), options.repeat, options.delay_ms / 1000)


def measure(work: str, folder: Path, repeat: int, delay_s: float) -> None:
    """Print the rows of one way to an environment."""
    bare = Path(os.path.realpath(sys.executable)).parent
    image = image_with_torch(folder / "image") if work == "reuse" else bare
    with (
        OpenSshServer(folder / "server", path_prefix=[str(image)]) as server,
        Relay(server.port, delay_s=delay_s) as relay,
    ):
        laptop = Laptop(folder / "laptop", server, relay.port)
        cold = laptop.run("env", "prepare", "box")
        print(f"| {work}, cold | {cold:.1f} | {cold - laptop.nothing():.1f} |", flush=True)
        pairs = [(laptop.run("env", "prepare", "box"), laptop.nothing()) for _ in range(repeat)]
        warm, nothing = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"| {work}, warm | {warm:.2f} | {warm - nothing:.2f} |", flush=True)
    shutil.rmtree(folder / "server", ignore_errors=True)


if __name__ == "__main__":
    main()
