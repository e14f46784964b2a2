"""How long `launch ps` takes: of a ledger with 1,000 runs, beyond the start of Python, and over 16 hosts on loopback.

python benchmarks/ps.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.run_directory import new_run_id
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.ledger import Ledger, Record
from remote.agent import Agent
from remote.ssh import address
from remote.ssh.host import SshHost
from tests.servers import OpenSshServer

RUNS, HOSTS, REPEATS = 1000, 16, 7


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        env = {**os.environ, "LAUNCH_HOME": str(home / "launch"), "HOME": folder, "COLUMNS": "80"}
        ledger = Ledger(home / "launch" / "ledger.sqlite")
        for at in range(RUNS):
            remember(ledger, at, "box", state="succeeded")
            if at == 0:
                ledger.all()
        start = median(env, "--version")
        for argv in (("ps", "-a"), ("ps", "-a", "--json"), ("ps",)):
            took = median(env, *argv)
            print(f"launch {' '.join(argv)}, {RUNS} runs: {took:.3f} s, {took - start:.3f} s beyond start-up")
    with tempfile.TemporaryDirectory() as folder:
        over_hosts(Path(folder))


def over_hosts(home: Path) -> None:
    env = {**os.environ, "LAUNCH_HOME": str(home / "launch"), "HOME": str(home), "COLUMNS": "80"}
    servers = [OpenSshServer(home / f"sshd{at}", path_prefix=[str(Path(sys.executable).parent)]) for at in range(HOSTS)]
    ledger, saved = Ledger(home / "launch" / "ledger.sqlite"), []
    for at, server in enumerate(servers):
        server.start()
        saved.append(
            f'[box{at}]\nlogin = "{server.login_line}"\nworkspace = "{home}/work{at}"\n'
            f'known_hosts = "{server.known_hosts_file}"\nprofile = "autodl"\n'
        )
        remember(ledger, at, f"box{at}")
        with SshHost("there", address.parse(server.login_line), known_hosts=server.known_hosts_file) as host:
            _ = Agent(host, workspace=f"{home}/work{at}").place  # as after the first run
    (home / "launch" / "hosts.toml").write_text("\n".join(saved))
    try:
        print(f"launch ps over {HOSTS} sshd: {median(env, 'ps', repeats=3):.2f} s")
    finally:
        for server in servers:
            server.stop()


def remember(ledger: Ledger, at: int, host: str, **more: str) -> None:
    spec = from_mapping({"name": "reviews", "model_name_or_path": "Qwen/Qwen2.5-0.5B", "data": "reviews.csv"})
    run_id = new_run_id("reviews")
    ledger.add(
        Record(run_id, "reviews", host, at, Submission(run_id, spec, {}, (), "0" * 64), **more)  # type: ignore[arg-type]
    )


def median(env: dict[str, str], *argv: str, repeats: int = REPEATS) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "launcher", *argv], env=env, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
