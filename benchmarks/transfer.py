"""`launch sync` beside rsync and scp: whole cold processes on the same data, and what each takes beyond its login.

python benchmarks/transfer.py [--lines wan] [--works small] [--tools launch,rsync] [--repeat 5]
python benchmarks/transfer.py --scaling       # seconds and memory from 10 to 100,000 files
python benchmarks/transfer.py --rekey 20      # downloads from a server that changes keys every 64 MB

Two lines: `loopback` is an OpenSSH server on this machine, `wan` the lab's look-alike box, 60 ms and 100 Mbit/s away,
which needs root.  What every process made is compared byte for byte; a wrong result ends the benchmark.

Where many files were removed from the same disk a few minutes ago (by tests, or by the last run of this), ext4 makes
new ones slowly; TMPDIR=/dev/shm takes the disk out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from tests.relay import Relay  # noqa: E402
from tests.servers import OpenSshServer, openssh_missing  # noqa: E402

LAUNCH = str(Path(sys.executable).with_name("launch"))
TOOLS = ("launch", "rsync", "scp")
PEAK_LIMIT_MB = 150
# What takes longer is run once: scp waits for several round trips with every file.
ONCE_S = 60.0
# Slower than any of the tools, so that the relay holds no more than its buffer when it cuts.
RELAY_BYTES_PER_S = 20e6
MOST_RUNS = 5
REKEY_BYTES = 600_000_000
SCALES = (10, 100, 1_000, 10_000, 100_000)

NOTHING = """\
import sys
from pathlib import Path
from remote.ssh.address import parse
from remote.ssh.host import SshHost
with SshHost("box", parse(sys.argv[1]), known_hosts=Path(sys.argv[2])) as host:
    host.run(["true"]).check()
"""
# Names and contents of all files.
DIGEST = "cd {} && find {} -type f -print0 | LC_ALL=C sort -z | xargs -r0 sha256sum | sha256sum"


class Wrong(Exception):
    """A process failed, or what it made is not what it should be."""


@dataclass(frozen=True)
class Side:
    """One end of a line: how to run a shell command there, and a folder of ours."""

    shell: tuple[str, ...]
    root: PurePosixPath

    def run(self, text: str, *words: object) -> str:
        """The stdout of a shell command, each {} in it a quoted word."""
        command = text.format(*(shlex.quote(str(word)) for word in words))
        done = subprocess.run([*self.shell, command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            raise Wrong(f"{command}: {done.stderr.strip()}")
        return done.stdout


@dataclass(frozen=True)
class Line:
    """A way to a machine that all tools take.  `client` comes before each of their commands."""

    name: str
    folder: Path
    address: str
    port: int
    key: Path
    far_root: str
    client: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        known = self.folder / f"known_hosts_of_ssh_{self.port}"
        words = ["StrictHostKeyChecking=no", f"UserKnownHostsFile={known}", "LogLevel=ERROR"]
        return ["-F", "none", "-i", str(self.key), *(part for word in words for part in ("-o", word))]

    @property
    def ssh(self) -> list[str]:
        return ["ssh", *self.options, "-p", str(self.port)]

    @property
    def near(self) -> Side:
        return Side(("sh", "-c"), PurePosixPath(self.folder))

    @property
    def far(self) -> Side:
        return Side((*self.client, *self.ssh, self.address), PurePosixPath(self.far_root))

    @property
    def login_line(self) -> str:
        return f"ssh -i {shlex.quote(str(self.key))} -p {self.port} {self.address}"

    @property
    def known_hosts(self) -> Path:
        return self.folder / f"known_hosts_{self.port}"

    @property
    def env(self) -> dict[str, str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("LAUNCH_", "SSH_AUTH_"))}
        return {**plain, "HOME": str(self.folder), "LAUNCH_HOME": str(self.folder / f"launch_{self.port}")}

    def introduce(self) -> None:
        """Make the machine known to `launch` as "box"."""
        words = [LAUNCH, "host", "add", "box", self.login_line, "--accept-new", "--known-hosts", str(self.known_hosts)]
        self.time(words).check()

    def nothing(self, tool: str) -> list[str]:
        if tool == "launch":
            return [sys.executable, "-c", NOTHING, self.login_line, str(self.known_hosts)]
        return [*self.ssh, self.address, "true"]

    def copy(self, tool: str, up: bool, source: PurePosixPath, folder: PurePosixPath) -> list[str]:
        """The command that makes folder/NAME of source, which is a file or folder of that name."""
        far = "box:" if tool == "launch" else f"{self.address}:"
        ends = [f"{source}", f"{far}{folder}/"] if up else [f"{far}{source}", f"{folder}/"]
        start = {
            "launch": [LAUNCH, "sync"],
            "rsync": ["rsync", "-a", "-e", shlex.join(self.ssh)],
            "scp": ["scp", "-qr", *self.options, "-P", str(self.port)],
        }
        return [*start[tool], *ends]

    def time(self, argv: Sequence[str]) -> Ended:
        with tempfile.TemporaryFile() as stderr:
            started_s = time.perf_counter()
            process = subprocess.Popen(
                [*self.client, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env=self.env
            )
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
            seconds = time.perf_counter() - started_s
            process.returncode = os.waitstatus_to_exitcode(status)
            stderr.seek(0)
            said = stderr.read().decode("utf-8", "replace")
        # Linux counts what this process held at the fork as well: nothing here may hold much.
        return Ended(tuple(argv), process.returncode, seconds, usage.ru_maxrss * 1024, said)


@dataclass(frozen=True)
class Ended:
    argv: tuple[str, ...]
    status: int
    seconds: float
    peak_bytes: int
    stderr: str

    def check(self) -> Ended:
        if self.status != 0:
            raise Wrong(f"{shlex.join(self.argv)} ended with status {self.status}: {self.stderr.strip()[-2000:]}")
        return self


@contextlib.contextmanager
def loopback(folder: Path, config: str = "") -> Iterator[Line]:
    class Server(OpenSshServer):
        def _config(self) -> str:
            return f"{super()._config()}{config}\n"

    with Server(folder / "server") as server:
        yield Line("loopback", folder, server.address, server.port, server.identity_file, str(folder / "far"))


@contextlib.contextmanager
def wan(folder: Path, lab: Path) -> Iterator[Line]:
    name = f"bt{os.getpid()}"
    script = str(lab / "host.sh")
    try:
        subprocess.run(["bash", script, "up", name, "30", "100"], stdout=subprocess.DEVNULL, check=True)
        key = Path(f"/tmp/lab-{name}/id")
        yield Line("wan", folder, "root@198.18.0.2", 39111, key, "/root/far", ("ip", "netns", "exec", f"{name}-c"))
    finally:
        subprocess.run(["bash", script, "down", name], check=False)


@dataclass(frozen=True)
class Data:
    """Files to copy: the same at every run, and no two alike.  No `folders`: one file."""

    name: str
    sizes: Sequence[int]
    folders: int = 0

    @property
    def victim(self) -> str:
        """The one file that is changed, below the root of a side."""
        return f"{self.name}/{self._place(len(self.sizes) // 2)}"

    def make(self, root: Path) -> None:
        shutil.rmtree(root / self.name, ignore_errors=True)
        content = random.Random(self.name)
        for number, size in enumerate(self.sizes):
            path = root / self.name / self._place(number) if self.folders else root / self.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "wb") as file:
                for start in range(0, size, 1 << 20):
                    file.write(content.randbytes(min(1 << 20, size - start)))

    def _place(self, number: int) -> str:
        return f"d{number % self.folders:04}/f{number:06}.bin"


FRESH, UNCHANGED, ONE_CHANGED = "fresh", "unchanged", "one changed"


@dataclass(frozen=True)
class Work:
    """`floors`: by line and direction, how many times rsync's speed ours must have: whole, and beyond the login."""

    name: str
    data: Data
    kind: str = FRESH
    lines: tuple[str, ...] = ("loopback", "wan")
    scp_lines: tuple[str, ...] = ()
    floors: Mapping[str, tuple[float, float]] = field(default_factory=dict)


SMALL = Data("small", [random.Random(300).randint(1, 8192) for _ in range(300)], 300)
MANY = Data("many", [4096] * 5000, 50)
SIXTY = Data("sixty.bin", [60_000_000])
HALF_GIB = Data("half_gib.bin", [512 << 20])
BOTH = ("loopback", "wan")


def on(line: str, whole: float, beyond: float) -> dict[str, tuple[float, float]]:
    return {f"{line} up": (whole, beyond), f"{line} down": (whole, beyond)}


WORKS = (
    Work("60 MB file", SIXTY, scp_lines=BOTH, floors=on("wan", 1.05, 1.0)),
    Work("300 small files in 300 folders", SMALL, scp_lines=BOTH, floors=on("wan", 1.15, 1.2)),
    Work("5,000 files, nothing changed", MANY, UNCHANGED, floors=on("wan", 1.2, 1.3)),
    Work("5,000 files, one changed", MANY, ONE_CHANGED, floors=on("wan", 1.1, 1.2)),
    Work("512 MiB file", HALF_GIB, lines=("loopback",), scp_lines=("loopback",), floors=on("loopback", 1.0, 1.0)),
    Work(
        "5,000 files of 4 KB",
        MANY,
        scp_lines=("loopback",),  # over the wan it would take 20 minutes
        floors={"loopback up": (0.9, 0.0), "loopback down": (0.7, 0.0)},
    ),
)
CUT = "60 MB file, cut at half"
ages = itertools.count()


@dataclass
class Row:
    """What was measured, by tool; times in seconds."""

    work: Work
    line: str
    up: bool
    seconds: dict[str, list[float]]
    nothing: dict[str, list[float]]
    peak_bytes: dict[str, int]

    @property
    def direction(self) -> str:
        return "up" if self.up else "down"

    @property
    def floor(self) -> tuple[float, float]:
        return self.work.floors.get(f"{self.line} {self.direction}", (0.0, 0.0))

    def whole(self, tool: str) -> float:
        return statistics.median(self.seconds[tool])

    def beyond(self, tool: str) -> float:
        return self.whole(tool) - statistics.median(self.nothing[tool])

    def ratios(self) -> tuple[float, float] | None:
        """rsync's time over ours: whole, and beyond the login; None where one of the two was not run."""
        if not {"launch", "rsync"} <= self.seconds.keys():
            return None
        ours, theirs = self.beyond("launch"), self.beyond("rsync")
        return self.whole("rsync") / self.whole("launch"), theirs / ours if ours > 0 else float("inf")

    @property
    def missed(self) -> bool:
        ratios = self.ratios()
        return ratios is not None and any(ratio < floor for ratio, floor in zip(ratios, self.floor, strict=True))

    def cells(self) -> list[str]:
        times = [self._time(tool) for tool in TOOLS]
        ratios = [f"{ratio:.2f}" for ratio in self.ratios() or ()] or ["", ""]
        floor = " / ".join(f"{floor:.2f}" for floor in self.floor if floor) + (" **missed**" if self.missed else "")
        peak = f"{self.peak_bytes['launch'] / 1e6:.0f}" if "launch" in self.peak_bytes else ""
        return [self.work.name, self.direction, *times, *ratios, floor, peak]

    def _time(self, tool: str) -> str:
        if tool not in self.seconds:
            return ""
        return f"{self.whole(tool):.2f}" + (" (once)" if len(self.seconds[tool]) < len(self.nothing[tool]) else "")


HEADINGS = [
    "work", "direction", "launch s", "rsync s", "scp s", "rsync/launch", "beyond the connection: rsync/launch", "floor",
    "launch peak MB",
]  # fmt: skip


def measure(line: Line, work: Work, up: bool, tools: Sequence[str], repeat: int) -> Row:
    tools = [tool for tool in tools if tool != "scp" or line.name in work.scp_lines]
    row = Row(work, line.name, up, {tool: [] for tool in tools}, {tool: [] for tool in tools}, dict.fromkeys(tools, 0))
    if work.kind != FRESH:
        for tool in tools:
            empty(line, tool, work.data, up)
            transfer(line, tool, work.data, up)
    for number in range(repeat):
        for tool in (*tools[number % len(tools) :], *tools[: number % len(tools)]):
            row.nothing[tool].append(line.time(line.nothing(tool)).check().seconds)
            if tool == "scp" and max(row.seconds[tool], default=0.0) > ONCE_S:
                continue
            if work.kind == FRESH:
                empty(line, tool, work.data, up)
            elif work.kind == ONE_CHANGED:
                change(line.near if up else line.far, work.data)
            ended = transfer(line, tool, work.data, up)
            row.seconds[tool].append(ended.seconds)
            row.peak_bytes[tool] = max(row.peak_bytes[tool], ended.peak_bytes)
            say(f"{line.name}: {work.name} {row.direction}, {number + 1}: {tool} {ended.seconds:.2f} s")
    for tool in tools:
        empty(line, tool, work.data, up)
    return row


def empty(line: Line, tool: str, data: Data, up: bool) -> None:
    """A new folder for what the tool makes.

    Many files are only moved away: for minutes ext4 looks at every inode that was freed before it takes one, which
    makes a new file 20 times as dear.
    """
    side = line.far if up else line.near
    away = "mv -T {0} {1}" if data.folders else "rm -r {0}"
    side.run(f"if [ -e {{0}} ]; then {away}; fi; mkdir -p {{0}}", inbox(side, tool), side.root / f"old_{next(ages)}")


def inbox(side: Side, tool: str) -> PurePosixPath:
    return side.root / f"of_{tool}"


def change(side: Side, data: Data) -> None:
    """Another content of the same size, and a time that differs also for rsync, which looks at whole seconds."""
    time.sleep(1.1)
    side.run(f"head -c {data.sizes[0]} /dev/urandom > {{}}", side.root / data.victim)


def transfer(line: Line, tool: str, data: Data, up: bool) -> Ended:
    """Run the tool once, and compare.  Raises Wrong."""
    source, target = (line.near, line.far) if up else (line.far, line.near)
    os.sync()  # what others wrote is not this one's to wait for
    ended = line.time(line.copy(tool, up, source.root / data.name, inbox(target, tool))).check()
    compare(line, tool, data, up)
    return ended


def compare(line: Line, tool: str, data: Data, up: bool) -> None:
    source, target = (line.near, line.far) if up else (line.far, line.near)
    if source.run(DIGEST, source.root, data.name) != target.run(DIGEST, inbox(target, tool), data.name):
        raise Wrong(f"{line.name}: {tool} made something else of {data.name}, {'up' if up else 'down'}")


def place(line: Line, data: Data) -> None:
    """The data on both sides, alike."""
    if not (line.folder / data.name).exists():
        data.make(line.folder)
    line.far.run("mkdir -p {}", line.far.root)
    line.time(line.copy("rsync", True, line.near.root / data.name, line.far.root)).check()


def resumed(line: Line, up: bool) -> str:
    """Bytes on the line after a cut at half, over those of a transfer without."""
    place(line, SIXTY)
    source, target = (line.near, line.far) if up else (line.far, line.near)
    with Relay(line.port, rate_bytes_per_s=RELAY_BYTES_PER_S) as relay:
        through = dataclasses.replace(line, port=relay.port)
        through.introduce()
        argv = through.copy("launch", up, source.root / SIXTY.name, inbox(target, "launch"))
        empty(line, "launch", SIXTY, up)
        relay.reset_counts()
        through.time(argv).check()
        full_bytes = carried(relay)
        empty(line, "launch", SIXTY, up)
        relay.reset_counts()
        with cut_at(relay, full_bytes // 2) as cut_bytes:
            runs = 1
            while (ended := through.time(argv)).status != 0 and runs < MOST_RUNS:
                runs += 1
        ended.check()
        if not cut_bytes:
            raise Wrong(f"{CUT}: it was over before the cut")
        compare(line, "launch", SIXTY, up)
        again = (carried(relay) - cut_bytes[0]) / full_bytes
    return f"{again:.2f} ({runs} run{'s' * (runs > 1)}, cut at {cut_bytes[0] / full_bytes:.2f})"


def carried(relay: Relay) -> int:
    return relay.bytes_from_client + relay.bytes_from_server


@contextlib.contextmanager
def cut_at(relay: Relay, size_bytes: int) -> Iterator[list[int]]:
    """Meanwhile the relay's connections are cut once, when it has carried so much; the list then says how much."""
    over = threading.Event()
    cut_bytes: list[int] = []

    def watch() -> None:
        while not over.wait(0.001):
            if carried(relay) >= size_bytes:
                cut_bytes.append(carried(relay))
                relay.cut()
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield cut_bytes
    finally:
        over.set()
        watcher.join()


def beside(line: Line, works: str, tools: Sequence[str], repeat: int) -> list[Row]:
    """Measure and print all that is asked for on one line."""
    rows: list[Row] = []
    for work in WORKS:
        if works in work.name and line.name in work.lines:
            for up in (True, False):
                place(line, work.data)
                rows.append(measure(line, work, up, tools, repeat))
    if rows:
        print(f"\n### {line.name}\n")
        table(HEADINGS, [row.cells() for row in rows])
        names = {"launch": ("launch",), "ssh": ("rsync", "scp")}
        print("\nConnect and do nothing, median:", end="")
        for name, of in names.items():
            if times := [seconds for row in rows for tool in of for seconds in row.nothing.get(tool, ())]:
                print(f" {name} {statistics.median(times):.2f} s", end="")
        print()
    if line.name == "loopback" and works in CUT and "launch" in tools:
        cells = [[CUT, "up" if up else "down", resumed(line, up)] for up in (True, False)]
        print("\nThrough a relay: what went over the line after the cut, over what an uncut transfer takes.\n")
        table(["work", "direction", "bytes again / bytes of a full transfer"], cells)
    return rows


def scaling(line: Line, works: str, tool: str, repeat: int) -> list[Row]:
    rows: list[Row] = []
    cells: list[list[str]] = []
    for count in SCALES:
        data = Data(f"scale_{count}", [100] * count, -(-count // 100))
        scale = [Work(f"{count:,} files, {kind}", data, kind) for kind in (FRESH, UNCHANGED)]
        if any(works in work.name for work in scale):
            place(line, data)
            found = [measure(line, work, up, [tool], repeat) for up in (True, False) for work in scale]
            times = [f"{row.whole(tool):.2f} ({1e6 * row.whole(tool) / count:,.0f})" for row in found]
            cells.append([f"{count:,}", *times, f"{max(row.peak_bytes[tool] for row in found) / 1e6:.0f}"])
            rows += found
    print(f"\n{tool} on loopback, files of 100 bytes: seconds (microseconds a file)\n")
    table(["files", "fresh up", "unchanged up", "fresh down", "unchanged down", "peak MB"], cells)
    return rows


def rekey(line: Line, tool: str, times: int) -> bool:
    """Whether all downloads were right from a server that asks for new keys all the time."""
    data = Data("rekey.bin", [REKEY_BYTES])
    place(line, data)
    passed = 0
    for number in range(times):
        empty(line, tool, data, up=False)
        try:
            say(f"rekey {number + 1}: {transfer(line, tool, data, up=False).seconds:.2f} s")
            passed += 1
        except Wrong as error:
            say(f"rekey {number + 1}: {error}")
    print(f"\n{tool}: {REKEY_BYTES / 1e6:.0f} MB down, the server re-keying every 64 MB: {passed}/{times} passed")
    return passed == times


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for cells in (headings, ["---"] * len(headings), *rows):
        print(f"| {' | '.join(cells)} |", flush=True)


def peak_within_limit(rows: Sequence[Row]) -> bool:
    peak_mb = max((row.peak_bytes.get("launch", 0) / 1e6 for row in rows), default=0.0)
    if peak_mb:
        mark = "" if peak_mb <= PEAK_LIMIT_MB else " **missed**"
        print(f"\nLargest peak memory of launch: {peak_mb:.0f} MB of {PEAK_LIMIT_MB} MB{mark}")
    return peak_mb <= PEAK_LIMIT_MB


def header(repeat: int) -> str:
    def first(*argv: str) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return " ".join((done.stdout + done.stderr).splitlines()[0].split(",")[0].split())

    versions = [
        f"Python {sys.version.split()[0]}",
        f"paramiko {importlib.metadata.version('paramiko')}",
        first("ssh", "-V"),
        first("rsync", "--version").split(" protocol")[0],
    ]
    return f"`{shlex.join(sys.argv)}`: {os.cpu_count()} cores, {', '.join(versions)}, median of {repeat}"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def missing(line: str, lab: Path) -> str | None:
    """Why there is no such line here."""
    if line == "loopback":
        return openssh_missing()
    if not (lab / "host.sh").is_file():
        return f"no lab at {lab} (--lab)"
    return None if os.getuid() == 0 else "the lab needs root"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", default="loopback,wan", help="comma list of loopback, wan")
    parser.add_argument("--works", default="", help="only works with this in their names")
    parser.add_argument("--tools", default=",".join(TOOLS), help="comma list of launch, rsync, scp")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--lab", type=Path, default=REPOSITORY.parent / "shared" / "lab")
    parser.add_argument("--scaling", action="store_true", help="of the first tool alone")
    parser.add_argument("--rekey", type=int, metavar="N", help="downloads with the first tool alone")
    asked = parser.parse_args()
    tools, lines = asked.tools.split(","), asked.lines.split(",")
    if not (set(tools) <= set(TOOLS) and set(lines) <= set(BOTH)) or asked.repeat < 1:
        parser.error("no such tool or line, or nothing to repeat")
    if asked.scaling or asked.rekey:
        lines = ["loopback"]

    print(header(asked.repeat), flush=True)
    makers: dict[str, Callable[[Path], AbstractContextManager[Line]]] = {
        "loopback": lambda folder: loopback(folder, "RekeyLimit 64M" if asked.rekey else ""),
        "wan": lambda folder: wan(folder, asked.lab),
    }
    ok, rows = True, list[Row]()
    with tempfile.TemporaryDirectory(prefix="launch-transfer-") as folder:
        for name in lines:
            if reason := missing(name, asked.lab):
                print(f"\n{name} is skipped: {reason}.")
                ok = False
                continue
            own = Path(folder, name)
            own.mkdir()
            with makers[name](own) as line:
                if "launch" in tools:
                    line.introduce()
                if asked.rekey:
                    ok = rekey(line, tools[0], asked.rekey)
                elif asked.scaling:
                    rows += scaling(line, asked.works, tools[0], asked.repeat)
                else:
                    rows += beside(line, asked.works, tools, asked.repeat)
    within = peak_within_limit(rows)
    return 0 if ok and within and not any(row.missed for row in rows) else 1


if __name__ == "__main__":
    # So that also a SIGTERM, and a Ctrl-C where it would be ignored, takes the lab down.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Wrong as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
