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
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.transfer import LAUNCH, Line  # noqa: E402
from tests.images import image_with_torch  # noqa: E402
from tests.relay import Relay  # noqa: E402
from tests.servers import OpenSshServer  # noqa: E402

PREPARE = (LAUNCH, "env", "prepare", "box")


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


def seconds(line: Line, argv: Sequence[str]) -> float:
    """Of a whole process; one that fails ends the benchmark."""
    return line.time(argv).check().seconds


def measure(work: str, folder: Path, repeat: int, delay_s: float) -> None:
    """Print the rows of one way to an environment."""
    bare = Path(os.path.realpath(sys.executable)).parent
    image = image_with_torch(folder / "image") if work == "reuse" else bare
    with (
        OpenSshServer(folder / "server", path_prefix=[str(image)]) as server,
        Relay(server.port, delay_s=delay_s) as relay,
    ):
        line = Line("relay", folder, server.address, relay.port, server.identity_file, "")
        line.introduce()
        cold = seconds(line, PREPARE)
        print(f"| {work}, cold | {cold:.1f} | {cold - seconds(line, line.nothing('launch')):.1f} |", flush=True)
        pairs = [(seconds(line, PREPARE), seconds(line, line.nothing("launch"))) for _ in range(repeat)]
        warm, nothing = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"| {work}, warm | {warm:.2f} | {warm - nothing:.2f} |", flush=True)
    shutil.rmtree(folder / "server", ignore_errors=True)


if __name__ == "__main__":
    main()
