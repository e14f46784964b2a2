"""How a run is started, followed and listed: how long, how late, how many fit through, what watching costs.

python benchmarks/launch.py [--only submit,latency,rate,cost,hosts,ledger] [--seconds 20]

Job, supervisor, file, a real sshd, a line of 60 ms round trip, and `launch` as a process of its own; hosts are on
loopback.  Every figure stands beside its budget; exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from jobs.spec import from_mapping  # noqa: E402
from jobs.submission import Submission  # noqa: E402
from launcher.ledger import Ledger, Record  # noqa: E402
from remote import runs  # noqa: E402
from remote.agent import Agent  # noqa: E402
from remote.ssh import address  # noqa: E402
from remote.ssh.host import SshHost  # noqa: E402
from tests.conftest import Cli  # noqa: E402
from tests.followed import RESULT, Followed, followed  # noqa: E402
from tests.servers import OpenSshServer, openssh_missing  # noqa: E402
from tests.toy import write_task  # noqa: E402

ONE_WAY_S = 0.03
LATENCY_LINES = 200
# A tenth of a second each, and some.
STAMPS_S = 0.1 * LATENCY_LINES + 6
RATE_LINES_PER_S = 20_000
SETTLED_S = 4.0
STARTS, HOSTS, LEDGER_RUNS, REPEATS = 7, 16, 1000, 7
DIGITS = str.maketrans("0123456789", "abcdefghij")

STAMPS = f"""
import os, random, time
for n in range({LATENCY_LINES}):
    time.sleep(random.uniform(0.02, 0.18))
    os.write(1, b"%d\\n" % time.time_ns())
open(".r", "w").write('{RESULT}'); os.rename(".r", "result.json")
"""
FLOOD = f"""
import os, time
start, n = time.monotonic(), 0
while n < SECONDS * {RATE_LINES_PER_S}:
    due = min(SECONDS * {RATE_LINES_PER_S}, int((time.monotonic() - start) * {RATE_LINES_PER_S}))
    os.write(1, b"".join(b"%09d step loss 0.1234 lr 1.0e-4 and whatever else is said\\n" % m for m in range(n, due)))
    n = due
    time.sleep(0.005)
open(".r", "w").write('{RESULT}'); os.rename(".r", "result.json")
"""
STEADY = """
import json, os, time
events = open("events.jsonl", "ab", buffering=0)
def say(**fields):
    events.write(json.dumps(fields).encode() + b"\\n")
start, n = time.monotonic(), 0
while True:
    time.sleep(max(0, start + n / 100 - time.monotonic()))
    n += 1
    os.write(1, "step {} loss 0.1234 这部电影的评论\\n".format(n).encode())
    if n % 50 == 0:
        say(seq=100 + n, time=time.time(), type="step", step=n, steps=100_000, loss=0.1234, learning_rate=1e-4,
            tokens_per_s=12345.6, rows_per_s=99.0, eta_s=3600.0)
    if n % 1000 == 0:
        say(seq=100 + n, time=time.time(), type="gpu", gpus=[dict(index=0, use_percent=97, memory_used_mb=18000,
            memory_total_mb=24564, temperature_c=71)])
"""


class Row(NamedTuple):
    """A figure and what it may be at most (or, of a rate, at least)."""

    what: str
    budget: str
    figure: str
    is_met: bool


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="submit,latency,rate,cost,hosts,ledger")
    parser.add_argument("--seconds", type=int, default=20)
    asked = parser.parse_args()
    if reason := openssh_missing():
        sys.exit(reason)
    parts: dict[str, Callable[[Followed, int], Iterator[Row]]] = {
        "submit": submit, "latency": latency, "rate": rate, "cost": cost, "hosts": hosts, "ledger": ledger,
    }  # fmt: skip
    rows = []
    with laptop() as there:
        for name in asked.only.split(","):
            rows += parts[name](there, asked.seconds)
    print(f"python {' '.join(sys.argv)}\n{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{2000 * ONE_WAY_S:.0f} ms round trip\n")
    for row in rows:
        print(f"{row.what:<58} {row.budget:>16} {row.figure:>14}  {'ok' if row.is_met else 'MISSED'}")
    return 0 if all(row.is_met for row in rows) else 1


@contextlib.contextmanager
def laptop() -> Iterator[Followed]:
    """A host and a command line."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "laptop")
        (home / ".ssh").mkdir(mode=0o700, parents=True)
        cli = Cli(home)
        cli.env["PYTHONPATH"] = str(REPOSITORY)
        with (
            OpenSshServer(Path(folder, "sshd"), path_prefix=[str(Path(sys.executable).parent)]) as server,
            followed(server, cli, ONE_WAY_S) as there,
        ):
            yield there


@contextlib.contextmanager
def following(there: Followed, run_id: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """`launch logs -f` as a process."""
    process = there.cli.start("logs", run_id, "-f", "--price", "1.98/h", **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def submit(there: Followed, seconds: int) -> Iterator[Row]:
    """`launch train -d` of what was trained there before: the environment, the data and the base are there already."""
    spec = write_task(there.cli.home / "task")
    warm = there.cli("train", str(spec), "--host", "box")
    assert warm.status == 0, warm
    there.relay.reset_counts()
    there.agent.host.close()
    there.agent.host.connect()
    handshake = there.relay.round_trips
    started_s, round_trips = [], []
    for _ in range(STARTS):
        there.relay.reset_counts()
        began = time.time()
        ended = there.cli("train", str(spec), "--host", "box", "-d", "--json")
        run = Path(ended.data["root"])
        # The job's own process, as it stands in the list of processes: not the word of anybody who starts it.
        while not (begun := trains(run)):
            time.sleep(0.005)
        started_s.append(begun - began)
        round_trips.append(there.relay.round_trips - handshake)
        there.cli("stop", ended.data["run_id"])
    median = statistics.median(started_s)
    yield Row("`launch train -d` to the job's process, warm, median", "<= 3 s", f"{median:.2f} s", median <= 3)
    what = f"  round trips, the most, beyond the {handshake} of SSH's own opening"
    yield Row(what, "<= 15", f"{max(round_trips)}", max(round_trips) <= 15)


def trains(run: Path) -> float:
    """When the process of the run that trains was first seen; 0 while there is none."""
    try:
        child = json.loads((run / "child.json").read_bytes())["pid"]
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0.0
    return time.time() if b"train" in words else 0.0


def hosts(there: Followed, seconds: int) -> Iterator[Row]:
    """`launch ps` of a run on each of 16 hosts, asked over connections of their own."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        home = Path(folder)
        path = [str(Path(sys.executable).parent)]
        servers = [stack.enter_context(OpenSshServer(home / f"sshd{n}", path_prefix=path)) for n in range(HOSTS)]
        cli, saved = Cli(home), []
        for at, server in enumerate(servers):
            saved.append(
                f'[box{at}]\nlogin = "{server.login_line}"\nworkspace = "{home}/work{at}"\n'
                f'known_hosts = "{server.known_hosts_file}"\nprofile = "autodl"\n'
            )
            remember(cli, f"box{at}", at)
            with SshHost("there", address.parse(server.login_line), known_hosts=server.known_hosts_file) as host:
                _ = Agent(host, workspace=f"{home}/work{at}").place  # as after the first run
        (home / "launch" / "hosts.toml").write_text("\n".join(saved))
        answered = [row["state"] for row in cli("ps", "--json").data["runs"]]
        assert answered == ["gone"] * HOSTS, answered  # each host said that it has no such run
        took_s = median_s(cli, "ps", "--host", "box0"), median_s(cli, "ps")
    yield Row(f"`launch ps` over {HOSTS} hosts, median", "<= 3 s", f"{took_s[1]:.2f} s", took_s[1] <= 3)
    yield Row("  of one of them", "", f"{took_s[0]:.2f} s", True)


def ledger(there: Followed, seconds: int) -> Iterator[Row]:
    """`launch ps -a` of runs that are over: nobody has to be asked."""
    with tempfile.TemporaryDirectory() as folder:
        cli = Cli(Path(folder))
        for at in range(LEDGER_RUNS):
            remember(cli, "box", at, state="succeeded")
        start_s, took_s = median_s(cli, "--version"), median_s(cli, "ps", "-a")
    beyond = took_s - start_s
    yield Row(f"`launch ps -a`, {LEDGER_RUNS:,} runs, beyond start-up", "<= 0.2 s", f"{beyond:.2f} s", beyond <= 0.2)


def remember(cli: Cli, host: str, at: int, **fields: str) -> None:
    """A run in the ledger."""
    run_id = f"reviews-{at:08d}".translate(DIGITS)
    submission = Submission(run_id, from_mapping({"name": "reviews", "model_name_or_path": "m", "data": "a.csv"}),
                            {}, (), "")  # fmt: skip
    # Long ago: a host that does not know it is believed.
    record = Record(run_id, "reviews", host, time.time() - 10_000 - at, submission, **fields)  # type: ignore[arg-type]
    Ledger(cli.home / "launch" / "ledger.sqlite").add(record)


def median_s(cli: Cli, *argv: str) -> float:
    """Of whole processes."""
    took = []
    for _ in range(REPEATS):
        began = time.monotonic()
        ended = cli(*argv)
        took.append(time.monotonic() - began)
        assert ended.status == 0, ended
    return statistics.median(took)


def latency(there: Followed, seconds: int) -> Iterator[Row]:
    """From a line in the job to the line here, without what the line itself takes; beside `tail -F` over ssh."""
    run_id = there.submit(sys.executable, "-ISc", STAMPS)
    log = there.root(run_id) / "log.txt"
    known = ["-o", f"UserKnownHostsFile={there.cli.home / 'known_box'}", "-o", "LogLevel=ERROR"]
    beside = [*shlex.split(there.login), *known, f"tail -n +1 -F {log} & sleep {STAMPS_S:.0f}; kill $!"]
    with (
        following(there, run_id, stdout=subprocess.PIPE) as process,
        subprocess.Popen(beside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as tail,
    ):
        assert process.stdout is not None
        assert tail.stdout is not None
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(late_ms, (process.stdout, tail.stdout)))
    (median, p95), (of_tail, p95_of_tail) = both
    yield Row("line printed -> line shown, beyond the one way, median", "<= 150 ms", f"{median:.0f} ms", median <= 150)
    yield Row("  95th percentile", "", f"{p95:.0f} ms", True)
    yield Row("  `ssh ... tail -F log.txt` at the same time, median", "", f"{of_tail:.0f} ms", True)
    yield Row("  95th percentile", "", f"{p95_of_tail:.0f} ms", True)


def late_ms(lines: IO[str]) -> tuple[float, float]:
    """Median and 95th percentile."""
    late = [(time.time_ns() - int(line)) / 1e6 - 1000 * ONE_WAY_S for line in lines if line.strip().isdigit()]
    late = late[LATENCY_LINES // 5 :]  # the first were printed before anybody looked
    return statistics.median(late), statistics.quantiles(late, n=20)[-1]


def rate(there: Followed, seconds: int) -> Iterator[Row]:
    """All lines of a flood, in order."""
    run_id = there.submit(sys.executable, "-ISc", FLOOD.replace("SECONDS", "10"))
    expected, count, began = 10 * RATE_LINES_PER_S, 0, 0.0
    wrong = 0
    with following(there, run_id, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line[:9].isdigit():
                continue
            began = began or time.monotonic()
            wrong += int(line[:9]) != count
            count += 1
            if count == expected:
                break
        taken_s = time.monotonic() - began
        process.stdout.read()
    whole = count == expected and not wrong
    yield Row("lines of a flood of 10 s that came, in order", f"{expected:,}", f"{count - wrong:,}", whole)
    per_s = count / taken_s
    yield Row("lines a second, sustained", f">= {0.97 * RATE_LINES_PER_S:,.0f}", f"{per_s:,.0f}", per_s >= 19_400)


def cost(there: Followed, seconds: int) -> Iterator[Row]:
    """Of 100 lines a second and two steps, in percent of a core."""
    run_id = there.submit(sys.executable, "-ISc", STEADY)
    supervisor = int(runs_json(there, run_id)["pid"])
    for what, on_terminal in (("into a pipe", False), ("with the live view on a terminal", True)):
        with shown(there, run_id, on_terminal) as process:
            time.sleep(SETTLED_S)
            host = there.follower()
            before = [ticks(pid) for pid in (process.pid, host, supervisor)]
            time.sleep(seconds)
            used = [
                100 * (ticks(pid) - then) / os.sysconf("SC_CLK_TCK") / seconds
                for pid, then in zip((process.pid, host, supervisor), before, strict=True)
            ]
        yield Row(f"`launch logs -f` at 100 lines/s, {what}", "< 5 %", f"{used[0]:.1f} %", used[0] < 5)
        yield Row("  its other half on the host", "< 5 %", f"{used[1]:.1f} %", used[1] < 5)
    yield Row("  the supervisor", "< 5 %", f"{used[2]:.1f} %", used[2] < 5)
    runs.stop(there.agent, run_id)
    run_id = there.submit("sleep", "1000")
    with shown(there, run_id, False):
        time.sleep(SETTLED_S)
        host = there.follower()
        before_idle = ticks(host)
        time.sleep(seconds)
        idle = 100 * (ticks(host) - before_idle) / os.sysconf("SC_CLK_TCK") / seconds
    yield Row("the host's half of following a silent run", "< 1 %", f"{idle:.2f} %", idle < 1)
    runs.stop(there.agent, run_id)


@contextlib.contextmanager
def shown(there: Followed, run_id: str, on_terminal: bool) -> Iterator[subprocess.Popen[str]]:
    """A follower whose output somebody reads."""
    if not on_terminal:
        with following(there, run_id, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            threading.Thread(target=drain, args=(process.stdout,), daemon=True).start()
            yield process
        return
    ours, theirs = pty.openpty()
    there.cli.env |= {"TERM": "xterm-256color", "LINES": "24"}
    with following(there, run_id, stdout=theirs, stderr=theirs) as process, os.fdopen(ours, "rb") as screen:
        os.close(theirs)
        threading.Thread(target=drain, args=(screen,), daemon=True).start()
        yield process


def drain(stream: IO[bytes] | IO[str]) -> None:
    with contextlib.suppress(OSError, ValueError):
        while stream.read(1000):
            pass


def runs_json(there: Followed, run_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((there.root(run_id) / "supervisor.json").read_bytes())
    return found


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    sys.exit(main())
