"""The command line answers at once: heavy modules are imported by the commands that need them, not by `--help`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "paramiko",
    "fabric",
    "sklearn",
    "matplotlib",
    "numpy",
    "rich",
    "asyncssh",
    "yaml",
)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom launcher.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as done:\n"
        f"    assert not done.code\nprint(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Commands:" in done.stdout


@pytest.mark.alone
def test_help_takes_at_most_twice_the_time_of_a_click_hello_world(tmp_path: Path) -> None:
    hello = tmp_path / "hello.py"
    hello.write_text("import click\n@click.command()\ndef hello():\n    click.echo('hello')\nhello()\n")
    ours = [str(Path(sys.executable).with_name("launch")), "--help"]
    theirs = [sys.executable, str(hello), "--help"]
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(9):  # alternating, so that whatever else the machine does meets both
        for name, argv in (("ours", ours), ("theirs", theirs)):
            started = time.perf_counter()
            subprocess.run(argv, capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - started)
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["theirs"])
    print(f"launch --help takes {ratio:.2f} times a click hello world")
    assert ratio <= 2
