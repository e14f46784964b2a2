"""How long `launch --help` takes beside `python -c pass` and a click hello world, alternating, median of N runs.

python benchmarks/startup.py [N]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HELLO = "import click\n@click.command()\ndef hello():\n    click.echo('hello')\nhello()\n"


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hello = Path(folder, "hello.py")
        hello.write_text(HELLO)
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "click hello world --help": [sys.executable, str(hello), "--help"],
            "launch --help": [str(Path(sys.executable).with_name("launch")), "--help"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, argv in commands.items():
                started = time.perf_counter()
                subprocess.run(argv, capture_output=True, check=True)
                seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, median of {runs}")
    for name, median in medians.items():
        print(f"{name:<26} {1000 * median:6.0f} ms  {median / medians['click hello world --help']:5.2f}x")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
