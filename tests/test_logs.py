"""`launch logs` as a person and a script meet it: parts of a log, what is kept of it, and the live view."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from launcher.kept_log import KeptLog
from launcher.ledger import Ledger
from launcher.live_view import Figures, cells
from launcher.price import Price
from remote.embedded import EmbeddedHost
from tests.conftest import Cli
from tests.connected import PYTHON_FOLDER, eventually
from tests.followed import RESULT, SUCCEED, followed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

SAY = "for n in 1 2 3 4 5; do echo line $n 评论; done; "


@pytest.fixture(scope="module")
def one_box(tmp_path_factory):
    home = tmp_path_factory.mktemp("logs") / "laptop"
    (home / ".ssh").mkdir(mode=0o700, parents=True)
    (home / ".ssh" / "config").write_text("Host *\n  ConnectionAttempts 1\n")
    with (
        EmbeddedHost(tmp_path_factory.mktemp("host"), path_prefix=[PYTHON_FOLDER]) as server,
        followed(server, Cli(home)) as there,
    ):
        yield there


@pytest.fixture
def box(one_box):
    """The host and the line to it, as they were."""
    port, env = one_box.relay.target_port, dict(one_box.cli.env)
    yield one_box
    one_box.relay.target_port, one_box.cli.env = port, env


@pytest.fixture
def cli(box):
    return box.cli


def over(box, run_id):
    eventually(lambda: (box.root(run_id) / "result.json").exists())
    eventually(lambda: b'"succeeded"' in (box.root(run_id) / "events.jsonl").read_bytes())


def test_parts_of_a_log(cli, box):
    run_id = box.submit("sh", "-c", SAY + SUCCEED)
    over(box, run_id)
    whole = "".join(f"line {n} 评论\n" for n in range(1, 6))
    shown = cli("logs")
    assert (shown.status, shown.stdout, shown.stderr) == (0, whole, "")
    assert cli("logs", run_id, "-n", "2").stdout == "line 4 评论\nline 5 评论\n"
    assert cli("logs", run_id, "--since", "1h").stdout == whole
    assert cli("logs", run_id, "--since", "1h", "-n", "1", "--json").data == {"run_id": run_id, "log": "line 5 评论\n"}
    assert cli("logs", run_id, "-n", "0").stdout == ""
    followed_to_its_end = cli("logs", run_id, "-f", "-n", "1")
    assert followed_to_its_end.stderr == "launch: succeeded\n"  # in which states it was before is no news
    assert followed_to_its_end.stdout == f"line 5 评论\n{run_id} succeeded\nlaunch pull {run_id}\n"
    for argv, says in ((["--since", "10"], "10 of what?"), (["--price", "free"], "no price"), (["-n", "-1"], "-1")):
        refused = cli("logs", run_id, *argv, "--json")
        assert (refused.status, refused.error["code"]) == (2, "usage")
        assert says in refused.error["message"]


def test_a_log_too_long_for_one_document_is_refused_with_a_way(cli, box):
    run_id = box.submit("sh", "-c", "head -c 9000000 /dev/zero | tr '\\0' x; echo; echo last; " + SUCCEED)
    over(box, run_id)
    refused = cli("logs", "--json")
    assert (refused.status, refused.error["code"]) == (1, "log_too_long")
    assert "-n 1000" in refused.error["hint"]
    assert cli("logs", "--json", "-n", "1").data["log"] == "last\n"
    assert len(cli("logs").stdout) == 9_000_006


def test_what_was_shown_is_kept_for_when_the_host_is_gone(cli, box):
    run_id = box.submit("sh", "-c", SAY + "printf '\\033[31mred'; " + SUCCEED)
    over(box, run_id)
    before = cli("logs").stdout
    box.relay.target_port = 1  # nobody is there
    shown = cli("logs", run_id)
    assert (shown.status, shown.stdout) == (0, before)
    assert "kept here" in shown.stderr
    size = len(before.encode()) - 1 + len(b"\x1b[31m")  # kept is what the host sent, not what was shown
    assert f"up to byte {size:,}" in shown.stderr.replace("\n", " ")
    assert re.search(r"from \d+s ago", shown.stderr)
    told = cli("logs", run_id, "-n", "2", "--json")
    assert told.data["log"] == "line 5 评论\nred"
    assert "kept here" in told.stderr
    assert "--since can't be applied" in cli("logs", run_id, "--since", "1h").stderr.replace("\n", " ")
    refused = cli("logs", run_id, "-f", "--json")
    assert (refused.status, refused.error["code"]) == (5, "unreachable")
    KeptLog(cli.home / "launch" / "logs", run_id).forget()
    assert cli("logs", run_id, "--json").error["code"] == "unreachable"


def test_how_a_run_ended_is_known_without_its_host(cli, box):
    run_id = box.submit("sh", "-c", SUCCEED)
    assert cli("wait", run_id).status == 0
    box.relay.target_port = 1
    ended = cli("wait", run_id, "--json")
    assert (ended.status, ended.data["state"], ended.data["seconds"]) == (0, "succeeded", None)


def test_a_pulled_copy_is_cut_at_no_character(cli, box, tmp_path):
    run_id = box.submit("sh", "-c", SUCCEED)
    text = "x" + "评论很好\n" * 60_000  # pieces of any even size end within a character
    (tmp_path / "log.txt").write_text(text, "utf-8")
    Ledger(cli.home / "launch" / "ledger.sqlite").note_pulled(run_id, tmp_path)
    box.relay.target_port = 1
    assert cli("logs", run_id).stdout == text
    (tmp_path / "log.txt").write_bytes(b"x" * 3_000_000 + b"end")
    last = cli("logs", run_id, "-n", "1").stdout
    assert last.endswith("xend\n")
    assert len(last) <= (1 << 20) + 1


def test_a_copy_of_a_part_says_what_it_lacks(cli, box):
    run_id = box.submit("sh", "-c", SAY + SUCCEED)
    over(box, run_id)
    cli("logs", run_id, "-n", "2")
    box.relay.target_port = 1
    shown = cli("logs", run_id)
    assert shown.stdout == "line 4 评论\nline 5 评论\n"
    assert "42 bytes are not kept here" in shown.stderr


def test_following_over_a_cut_network_says_so_and_comes_back(cli, box):
    go = "echo before; while [ ! -e go ]; do sleep 0.02; done; echo after; "
    run_id = box.submit("sh", "-c", go + SUCCEED)
    process = cli.start("logs", "-f", stdout=-1, stderr=-1)
    assert process.stdout.readline() == "before\n"
    box.relay.refuse_first(1)
    box.relay.cut()
    (box.root(run_id) / "go").touch()
    said, notes = process.communicate(timeout=60)
    assert process.returncode == 0
    assert said == f"after\n{run_id} succeeded\nlaunch pull {run_id}\n"
    assert "trying again in 1 s" in notes
    assert "box is back after" in notes


def test_ctrl_c_leaves_the_run(cli, box):
    run_id = box.submit("sh", "-c", "echo begun; sleep 60")
    process = cli.start("logs", "-f", stdout=-1, stderr=-1)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    _, notes = process.communicate(timeout=20)
    assert process.returncode == 130
    assert f"launch logs {run_id} -f" in notes
    for argv in (["logs", "-f", "--json"], ["wait", "--json"]):
        process = cli.start(*argv, stdout=-1, stderr=-1)
        eventually(box.follower)
        time.sleep(0.5)  # it has begun over there, but may not have read the answer
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
        assert process.returncode == 130
        assert json.loads(said)["error"]["code"] == "interrupted"
        eventually(lambda: not box.followers())
    assert cli("ps", "--json").data["runs"][0]["state"] == "running"
    cli("stop", run_id, "-y")


EVENTS = f"""
import json, os, sys, time
def say(kind, **fields):
    with open("events.jsonl", "ab") as file:
        file.write(json.dumps(dict(seq=say.seq, time=time.time(), type=kind, **fields)).encode() + b"\\n")
    say.seq += 1
say.seq = 100
gpu = dict(index=0, use_percent=97, memory_used_mb=18000, memory_total_mb=24564, temperature_c=71)
for n in range(1, 9):
    print("第", n, "行：这部电影真的很好看，演员的表演也非常出色，推荐给大家一起看看吧" * 2, flush=True)
    say("step", step=n, steps=10, loss=0.5 / n, learning_rate=1e-4, tokens_per_s=12345.6, eta_s=60.0 - n)
    say("gpu", gpus=[gpu])
    time.sleep(0.15)
say("warning", message="[red]odd\\x1b[2J")
say("step", step="\\x1b[2J", steps=float("nan"), loss=10**400, eta_s=-1e308, tokens_per_s=True, learning_rate=[])
say("gpu", gpus=[None, 5, dict(use_percent="x", memory_total_mb=float("inf"))] * 100)
sys.stdout.write("a prompt? "); sys.stdout.flush()
while not os.path.exists("go"): time.sleep(0.02)
print("answered", flush=True)
open(".r", "w").write('{RESULT}'); os.rename(".r", "result.json")
"""


class Screen:
    """A terminal of which everything is read; `shown` is what a person sees, by a model of the few orders we use."""

    def __init__(self, columns, rows=24):
        self.ours, self.theirs = os.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns, self.raw = columns, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            while chunk := os.read(self.ours, 65536):
                self.raw += chunk
        except OSError:
            pass

    def close(self):
        os.close(self.theirs)
        self._thread.join()
        os.close(self.ours)

    def shown(self):
        """The lines, from the first on; text that is too wide wraps."""
        return self.of(self.columns, self.raw.decode("utf-8", "replace"))

    @staticmethod
    def of(columns, raw):
        """The same of any text for a terminal."""
        lines, row, column = [""], 0, 0
        text = re.sub(r"\x1b\[[0-9;]*m", "", raw)
        for token in re.findall(r"\x1b\[\d*[AJ]|[^\x1b]", text):
            if token.endswith("A") and len(token) > 1:
                row -= int(token[2:-1] or 1)
            elif token == "\x1b[J":
                lines[row] = lines[row][:column]
                del lines[row + 1 :]
            elif token == "\r":
                column = 0
            elif token == "\n":
                row += 1
                column = 0
                if row == len(lines):
                    lines.append("")
            else:
                if cells(lines[row][:column] + token) > columns:
                    row, column = row + 1, 0
                    lines.append("")
                lines[row] = lines[row][:column] + token
                column += 1
        return lines


@pytest.mark.parametrize("columns", [80, 40, 15])
def test_the_live_view_stays_below_the_log_and_leaves_nothing(cli, box, columns):
    run_id = box.submit(sys.executable, "-ISc", EVENTS)
    screen = Screen(columns)
    cli.env = {name: value for name, value in cli.env.items() if name != "COLUMNS"} | {"TERM": "xterm-256color"}
    process = cli.start("logs", "-f", "--price", "¥3600/h", stdout=screen.theirs, stderr=screen.theirs)
    try:
        eventually(lambda: b"a prompt?" in screen.raw)
        if columns >= 40:
            eventually(lambda: any("8/10" in line for line in screen.shown()) or b"odd" in screen.raw)
            block = re.findall(rb"running  .*|.*ETA .*", screen.raw)
            assert block
            assert b"71 C" in screen.raw or columns < 80
            assert b"97%" in screen.raw
            assert "¥".encode() in screen.raw
            eventually(lambda: "a prompt? " in screen.shown()[:-1] and screen.shown()[-1].rstrip())
        assert "warning: [red]odd" in "".join(screen.shown())
        (box.root(run_id) / "go").touch()
        assert process.wait(30) == 0
    finally:
        process.kill()
        screen.close()
    assert b"\x1b[2J" not in screen.raw
    assert b"\x1b[?25l" not in screen.raw
    assert b"nan" not in screen.raw
    # What is left is the log, our words, and nothing of the block.
    left = "".join(screen.shown())
    for n in range(1, 9):
        assert left.count(f"第 {n} 行") == 1
    assert "ETA" not in left
    assert "tok/s" not in left
    assert left.count("a prompt? answered") == 1
    assert left.endswith(f"launch pull {run_id}")


AFTER_A_PUSH = """
from launcher.output import Output
from launcher.progress import Note, RunNews, Transfer
output = Output()
output.observe(Transfer(0, 50_000_000, 3))
output.observe(Transfer(50_000_000, 50_000_000, 3))
output.observe(Note("sent 3 files"))
for step in range(1, 6):
    output.observe(RunNews("step", {"step": step, "steps": 5, "eta_s": 5.0 - step}))
    output.observe(Note(f"after step {step}"))
output.observe(RunNews("state", {"state": "verifying"}))
output.observe(RunNews("step", {"step": 5, "steps": 5, "eta_s": 0.0}))
output.observe(Note("verified"))
output.close()
"""


def test_the_live_view_after_a_bar_leaves_nothing_either():
    screen = Screen(80)
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "TERM")}
    argv = [sys.executable, "-c", AFTER_A_PUSH]
    try:
        subprocess.run(
            argv, env=env | {"TERM": "xterm"}, stdout=screen.theirs, stderr=screen.theirs, timeout=60, check=True
        )
    finally:
        screen.close()
    assert re.search(rb"verifying  \[#+\]  5/5  100%\r", screen.raw)  # how long that takes nobody knows
    ours = screen.raw.partition(b"launch: after step 1")[2].decode()
    left = re.findall(r"launch: .*|\d/5", "\n".join(Screen.of(80, ours)))
    assert left == [*(f"launch: after step {n}" for n in range(2, 6)), "launch: verifying", "launch: verified"]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_plain_lines_where_they_are_wanted(cli, box, variables):
    run_id = box.submit(sys.executable, "-ISc", EVENTS)
    (box.root(run_id) / "go").touch()
    screen = Screen(80)
    cli.env |= {"TERM": "xterm"} | variables
    assert cli.start("logs", "-f", stdout=screen.theirs, stderr=screen.theirs).wait(30) == 0
    screen.close()
    orders = set(re.findall(rb"\x1b\[\d*[^\d]", screen.raw))
    assert orders <= ({b"\x1b[1m", b"\x1b[0m"} if "NO_COLOR" in variables else set())  # bold is no colour
    assert "a prompt? answered" in "".join(screen.shown())


def test_whatever_the_figures_are_a_line_fits():
    odd = [None, True, "x", -1, 0, 1, 3.5, 1e14, 10**400, float("nan"), float("inf"), [], {}, "评论" * 50]
    names = ("step", "steps", "loss", "learning_rate", "tokens_per_s", "rows_per_s", "eta_s", "accuracy")
    gpu_names = ("use_percent", "memory_used_mb", "memory_total_mb", "temperature_c")
    for at, first in enumerate(odd):
        for columns in (1, 10, 39, 79, 200):
            figures = Figures(Price(1.98, "￥"))
            figures.set_age(first if isinstance(first, float) else 5.0)
            for kind in ("step", "eval", "state", "gpu"):
                fields = {name: odd[(at + n) % len(odd)] for n, name in enumerate(names)}
                gpus = [{name: odd[(at + n) % len(odd)] for n, name in enumerate(gpu_names)}, first]
                figures.take(kind, fields | {"state": first, "gpus": gpus})
            for line in figures.lines(columns):
                assert cells(line) <= columns
                assert line.isprintable()
