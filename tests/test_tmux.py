"""A host without tmux: it is installed where that endangers nothing, and whatever goes wrong, the run starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import preflight, submit
from remote import facts, profile, runs
from remote.agent import Agent, program
from remote.embedded import EmbeddedHost
from remote.local_host import LocalHost
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests.answers import Answers
from tests.box import Box, box_missing
from tests.connected import alive, connect, eventually, folder_of_programs, private_tmux, tmux

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]
needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
needs_root = pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="apt-get is only asked as root")

FILES = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
RESULT = '{"protocol": 1, "state": "succeeded", "reason": ""}'
SUCCEED = f"echo done; printf '%s' '{RESULT}' > .r; mv .r result.json"
INSTALLED = "tmux was missing, apt-get installed it"
FAILED = "no tmux on the host, and none can be installed: "
AGAIN = " (not tried again before it restarts)"

ASK = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from onhost import tmux
os.setuid(int(sys.argv[4]))
begun = time.monotonic()
found = tmux.find(sys.argv[2], True, float(sys.argv[3]))
print(json.dumps([*found, time.monotonic() - begun]))
"""
APT = """#!/bin/sh
here=${0%/*}
echo "$*" >>"$here/../asked"
env >"$here/../variables"
printf '\\n@launch 0 reply {}\\n@launch 0 refused {}\\n'
echo noise >&2
case $* in
*--simulate*) SIMULATE ;;
*--download-only*) DOWNLOAD ;;
*--no-download*) INSTALL ;;
*update) UPDATE ;;
esac
"""
STEPS = {
    "simulate": "echo 'Inst tmux (3.3a-3 Debian:12/stable [amd64])'; echo 'Conf tmux (3.3a-3 Debian:12/stable)'",
    "download": "true",
    "install": 'ln -s "$here/../real" "$here/tmux"',
    "update": "true",
}
MISSING = "[ -e $here/../updated ] || { echo 'E: Unable to locate package tmux'; exit 100; }; " + STEPS["simulate"]
GONE = "[ -e $here/../updated ] || { echo 'E: Failed to fetch http://m/tmux.deb  404  Not Found'; exit 100; }"
CONDA = """#!/bin/sh
here=${0%/*}
echo "${0##*/} $*" >>"$here/../asked"
echo "$CONDA_PKGS_DIRS" >"$here/../packages"
[ "$1 $4" = "create --prefix" ] || exit 2
mkdir -p "$5/bin" "$CONDA_PKGS_DIRS"
cp "$here/../real" "$5/bin/tmux"
BODY
"""


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)


class Machine:
    """A machine's programs, few and without tmux, and a workspace."""

    def __init__(self, folder):
        self.folder, self.workspace = folder, folder / "work"
        names = ("sh", "ln", "cp", "env", "mkdir", "sleep", "touch", "cat", "mv")
        self.bin = folder_of_programs(folder / "bin", *names)
        (self.bin / "python3").symlink_to(os.path.realpath(sys.executable))
        self.path = str(self.bin)
        (folder / "launch.pyz").write_bytes(program())
        script(folder / "real", "#!/bin/sh\necho tmux 3.3a\n")

    def apt(self, **steps):
        """Give it an apt-get, some of whose steps are these shell texts."""
        text = APT
        for name, body in (STEPS | steps).items():
            text = text.replace(name.upper(), body)
        script(self.bin / "apt-get", text)

    def conda(self, name="conda", body="true"):
        script(self.bin / name, CONDA.replace("BODY", body))

    @property
    def asked(self):
        """What the installers were asked, one by one."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def log(self):
        return (self.workspace / "tmux" / "log.txt").read_text()

    def asking(self, limit_s, uid):
        """Our program as it looks for tmux; it is the first of a process group, as what a login runs is."""
        argv = [sys.executable, "-ISc", ASK, self.folder / "launch.pyz", self.workspace, str(limit_s), str(uid)]
        return subprocess.Popen(argv, env={"PATH": self.path}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip

    def find(self, limit_s=20.0, uid=-1):
        """(path, why) as our program finds them, within the limit; it writes nothing else to stdout or stderr."""
        with self.asking(limit_s, os.getuid() if uid == -1 else uid) as asking:
            stdout, stderr = asking.communicate(timeout=60)
        assert (asking.returncode, stderr) == (0, b"")
        path, why, took_s = json.loads(stdout)
        assert took_s < limit_s + 2
        return path, why


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


# -- what is done


def test_the_hosts_own_tmux_is_taken_and_nothing_installed(machine):
    machine.apt()
    script(machine.bin / "tmux", "#!/bin/sh\n")
    assert machine.find() == (str(machine.bin / "tmux"), "")
    assert machine.asked == []
    assert not machine.workspace.exists()


@needs_root
def test_apt_get_looks_fetches_and_then_installs(machine):
    machine.apt()
    assert machine.find() == (str(machine.bin / "tmux"), INSTALLED)
    assert [asked.split()[-2:] for asked in machine.asked] == [
        ["--simulate", "tmux"],
        ["--download-only", "tmux"],
        ["--no-download", "tmux"],
    ]
    for asked in machine.asked:
        assert {"-y", "--no-install-recommends", "--no-remove", "DPkg::Lock::Timeout=0"} <= set(asked.split())
    variables = (machine.folder / "variables").read_text().splitlines()
    assert {"DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"} <= set(variables)
    [path] = [line for line in variables if line.startswith("PATH=")]
    assert path == f"PATH={machine.path}:/usr/local/sbin:/usr/sbin:/sbin"
    assert "noise" in machine.log
    assert machine.find() == (str(machine.bin / "tmux"), "")
    assert len(machine.asked) == 3


@needs_root
@pytest.mark.parametrize(
    ("steps", "first"), [({"simulate": MISSING}, 1), ({"download": GONE}, 2)], ids=["missing", "outdated"]
)
def test_the_lists_are_fetched_only_where_they_are_missing_or_outdated(machine, steps, first):
    machine.apt(update='touch "$here/../updated"', **steps)
    assert machine.find() == (str(machine.bin / "tmux"), INSTALLED)
    assert [asked.split()[-1] for asked in machine.asked] == [*["tmux"] * first, "update", *["tmux"] * 3]


LOCKED = "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 41 (apt)"
INTERRUPTED = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."
NO_NETWORK = "E: Failed to fetch http://m/tmux.deb  Temporary failure resolving 'm'"
READ_ONLY = "E: Could not open lock file /var/lib/dpkg/lock-frontend - open (30: Read-only file system)"
UNRESOLVED = "W: Failed to fetch http://m/InRelease  Temporary failure resolving 'm'"


def failing(line):
    return f'echo Reading; echo "{line}"; echo "E: and so on" >&2; exit 100'


@needs_root
@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ({"install": failing(LOCKED)}, LOCKED[3:]),
        ({"install": failing(INTERRUPTED)}, INTERRUPTED[3:]),
        ({"download": failing(NO_NETWORK)}, NO_NETWORK[3:]),
        ({"download": failing(READ_ONLY)}, READ_ONLY[3:]),
        (
            {"simulate": MISSING, "update": f'echo "Err:1 http://m InRelease"; echo "{UNRESOLVED}"'},
            f"Unable to locate package tmux ({UNRESOLVED[3:]})",
        ),
        ({"simulate": "exit 3"}, "noise"),
        ({"simulate": "echo 'Inst tmux (1)'; echo 'Inst libc6 [2.36] (2.37)'"}, "apt-get would have to change libc6"),
        ({"simulate": "echo 'Inst tmux (1)'; echo 'Conf sshd (1)'"}, "apt-get would have to change sshd"),
        (
            {"simulate": "for n in a b c d e; do echo \"Remv $n [1]\"; done"},
            "apt-get would have to change a, b, c and 2 more",
        ),
        ({"install": "true"}, "apt-get has tmux installed, but it is not there"),
    ],
    ids=["locked", "interrupted", "no network", "read-only", "no lists", "mute", "upgrades", "half-configured",
         "removes", "nothing"],
)  # fmt: skip
def test_a_failure_is_told_in_a_sentence_and_not_tried_again_before_a_restart(machine, steps, why):
    machine.apt(**steps)
    assert machine.find() == ("", FAILED + why)
    tried = machine.asked
    assert machine.find() == ("", FAILED + why + AGAIN)
    assert machine.asked == tried
    record = machine.workspace / "tmux" / "found.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"boot": "another"}))
    machine.apt()
    assert machine.find() == (str(machine.bin / "tmux"), INSTALLED)


def test_an_installed_tmux_that_does_not_work_is_none(machine):
    script(machine.folder / "real", "#!/bin/sh\necho no libevent\nexit 1\n")
    machine.conda()
    broken = "the tmux that was installed does not work: no libevent"
    assert machine.find() == ("", f"{FAILED}there is no apt-get; {broken}")
    assert sorted(os.listdir(machine.workspace / "tmux")) == ["found.json", "log.txt"]


def test_without_any_installer_there_is_an_answer_too(machine):
    assert machine.find() == ("", FAILED + "there is no apt-get")


@needs_root
def test_who_is_not_root_asks_no_apt_get_but_conda():
    nobody = 65534
    with tempfile.TemporaryDirectory(prefix="launch-tmux-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        machine = Machine(folder)
        machine.apt()
        assert machine.find(uid=nobody) == ("", FAILED + "apt-get needs root")
        assert machine.asked == []
        machine.conda()
        shutil.rmtree(machine.workspace)
        path = str(machine.workspace / "tmux" / "conda" / "bin" / "tmux")
        assert machine.find(uid=nobody) == (path, f"tmux was missing, conda installed it: {path}")


@pytest.mark.parametrize("names", [["conda"], ["mamba", "conda"]])
def test_conda_makes_an_environment_of_its_own_for_all_later_runs(machine, names):
    for name in names:
        machine.conda(name)
    path = str(machine.workspace / "tmux" / "conda" / "bin" / "tmux")
    found = (path, f"tmux was missing, {names[0]} installed it: {path}")
    assert machine.find() == found
    assert machine.find() == found
    [asked] = machine.asked
    assert asked.endswith(f" --prefix {path.removesuffix('/bin/tmux')} --override-channels --channel conda-forge tmux")
    # Nothing of the user's is written to, and nothing but the environment is left.
    packages = Path((machine.folder / "packages").read_text().strip())
    assert packages.is_relative_to(machine.workspace)
    assert sorted(os.listdir(machine.workspace / "tmux")) == ["conda", "found.json", "log.txt"]


@pytest.mark.parametrize(
    ("body", "why"),
    [("echo 'CondaHTTPError: HTTP 000'; exit 1", "CondaHTTPError: HTTP 000"), ("sleep 60", "conda takes too long")],
)
def test_a_conda_that_fails_leaves_nothing(machine, body, why):
    machine.conda(body=body)
    assert machine.find(limit_s=1) == ("", f"{FAILED}there is no apt-get; {why}")
    assert sorted(os.listdir(machine.workspace / "tmux")) == ["found.json", "log.txt"]
    assert machine.find() == ("", f"{FAILED}there is no apt-get; {why}{AGAIN}")
    assert len(machine.asked) == 1


# -- time


@needs_root
@pytest.mark.parametrize("step", ["simulate", "download", "update"])
def test_what_only_fetches_is_ended_when_the_time_is_up(machine, step):
    steps = {"simulate": MISSING} if step == "update" else {}
    machine.apt(**steps, **{step: 'echo $$ >"$here/../pid"; sleep 60; true'})
    machine.conda()
    assert machine.find(limit_s=1) == ("", f"{FAILED}apt-get takes too long; no time was left for conda")
    assert not alive(int((machine.folder / "pid").read_text()))


@needs_root
def test_an_installation_that_has_begun_is_never_killed_but_not_waited_for(machine):
    wait = 'touch "$here/../begun"; while [ ! -e "$here/../go" ]; do sleep 0.05; done; '
    machine.apt(install=wait + STEPS["install"])
    assert machine.find(limit_s=1) == ("", f"{FAILED}apt-get is not done yet; a later run may find tmux")
    assert machine.find() == ("", f"{FAILED}apt-get is not done yet; a later run may find tmux{AGAIN}")
    # Nor is it begun a second time, where the record got lost.
    (machine.workspace / "tmux" / "found.json").unlink()
    assert machine.find(limit_s=0.3) == ("", "no tmux on the host, and another launch still installs it")
    (machine.folder / "go").touch()
    eventually(lambda: machine.find() == (str(machine.bin / "tmux"), ""))
    assert len(machine.asked) == 3


@needs_root
def test_an_installation_outlives_the_connection(machine):
    wait = 'touch "$here/../begun"; while [ ! -e "$here/../go" ]; do sleep 0.05; done; '
    machine.apt(install=wait + STEPS["install"])
    with machine.asking(20, 0) as asking:
        eventually(lambda: (machine.folder / "begun").exists())
        os.killpg(asking.pid, signal.SIGKILL)
        (machine.folder / "go").touch()
    eventually(lambda: machine.find(limit_s=5) == (str(machine.bin / "tmux"), ""))
    assert len(machine.asked) == 3


@needs_root
def test_of_two_at_once_one_installs_and_both_have_it(machine):
    machine.apt(install="sleep 0.5; " + STEPS["install"])
    found = []
    asking = [threading.Thread(target=lambda: found.append(machine.find())) for _ in range(3)]
    for one in asking:
        one.start()
    for one in asking:
        one.join()
    assert {path for path, _ in found} == {str(machine.bin / "tmux")}
    assert len(machine.asked) == 3


def test_a_workspace_in_which_nothing_can_be_noted_is_an_answer_too(machine):
    machine.apt()
    machine.workspace.mkdir()
    (machine.workspace / "tmux").write_text("in the way")
    path, why = machine.find()
    assert path == ""
    assert why.startswith(FAILED)
    assert "File exists" in why
    assert machine.asked == []


# -- runs on such a host


def a_run(agent, phase=SUCCEED):
    run_id = "toy-" + "".join("abcdefghijklmnopqrstuvwxyz234567"[byte % 32] for byte in os.urandom(8))
    plan = {"run_id": run_id, "name": "toy", "files": FILES, "env": {},
            "phases": [{"state": "running", "argv": ["sh", "-c", phase]}]}  # fmt: skip
    return run_id, runs.submit(agent, plan, links=[], documents={})


def outcome(agent, run_id):
    log = ""
    for said in runs.follow(agent, run_id):
        if isinstance(said, runs.LogText):
            log += said.text
        elif isinstance(said, runs.State):
            return log, said.state
    raise AssertionError("no state")


@pytest.fixture
def reached(machine):
    """An agent on the machine, and the folder of its tmux's socket."""
    with (
        private_tmux() as variables,
        EmbeddedHost(machine.folder / "home", env={**variables, "PATH": machine.path}) as server,
        connect(server) as host,
    ):
        yield Agent(host), variables["TMUX_TMPDIR"]


@needs_root
@needs_tmux
def test_a_run_starts_in_the_tmux_that_was_just_installed(machine, reached):
    agent, folder = reached
    (machine.folder / "real").unlink()
    (machine.folder / "real").symlink_to(str(shutil.which("tmux")))
    machine.apt()
    run_id, started = a_run(agent, "while [ ! -e go ]; do sleep 0.05; done; " + SUCCEED)
    assert (started.how, started.why) == ("tmux", INSTALLED)
    assert f"launch-{run_id}:" in tmux(folder, "ls")
    (Path(started.root) / "go").touch()
    assert outcome(agent, run_id) == ("done\n", "succeeded")
    run_id, started = a_run(agent)
    assert (started.how, started.why) == ("tmux", "")
    assert outcome(agent, run_id) == ("done\n", "succeeded")


@needs_root
def test_a_run_starts_detached_where_tmux_can_not_be_installed(machine, reached):
    agent, _ = reached
    machine.apt(install=failing(LOCKED))
    for again in ("", AGAIN):
        run_id, started = a_run(agent)
        assert (started.how, started.why) == ("setsid", FAILED + LOCKED[3:] + again)
        assert outcome(agent, run_id) == ("done\n", "succeeded")
    # Before the run there is none that could count as one whose supervisor never started.
    assert json.loads((Path(started.root) / "plan.json").read_text())["submitted_at"] > time.time() - 30


@needs_root
def test_while_tmux_is_installed_there_is_no_run_yet(machine, reached):
    agent, _ = reached
    machine.apt(install='touch "$here/../begun"; while [ ! -e "$here/../go" ]; do sleep 0.05; done; exit 1')
    started = []
    submitting = threading.Thread(target=lambda: started.append(a_run(agent)))
    agent.call("states", {"run_ids": []})
    submitting.start()
    eventually(lambda: (machine.folder / "begun").exists())
    assert runs.states(agent) == []
    (machine.folder / "go").touch()
    submitting.join()
    assert [state.run_id for state in runs.states(agent)] == [started[0][0]]
    assert outcome(agent, started[0][0]) == ("done\n", "succeeded")


def test_a_run_starts_detached_where_tmux_does_not_start(machine, reached):
    agent, _ = reached
    script(machine.bin / "tmux", "#!/bin/sh\necho 'create session failed: no pty' >&2\nexit 1\n")
    run_id, started = a_run(agent)
    assert (started.how, started.why) == ("setsid", "tmux failed: create session failed: no pty")
    assert outcome(agent, run_id) == ("done\n", "succeeded")


def test_on_this_machine_nothing_is_installed(machine, monkeypatch):
    machine.apt()
    machine.conda()
    monkeypatch.setenv("PATH", machine.path)
    agent = Agent(LocalHost(), workspace=str(machine.workspace))
    run_id, started = a_run(agent)
    assert (started.how, started.why) == ("setsid", "no tmux on the host")
    assert outcome(agent, run_id) == ("done\n", "succeeded")
    assert machine.asked == []


def test_what_a_run_was_started_in_is_said_in_words():
    started = runs.Started("tmux", "launch-toy-aaaaaaaa", "/w")
    assert submit.where(started) == "tmux session launch-toy-aaaaaaaa"
    started = runs.Started("setsid", "launch-toy-aaaaaaaa", "/w", "no tmux\x1b[31m, no root")
    assert submit.where(started) == "a detached process (no tmux, no root)"


@pytest.mark.parametrize(("name", "installs"), [("box", True), ("local", False)])
def test_before_a_run_is_sent_it_is_said_that_tmux_will_be_installed(name, installs):
    said = (Path(__file__).parent / "captured" / "debian-dash.txt").read_bytes()
    found = replace(facts.parse(facts.split(said, "c0ffee")), tools=())
    [finding] = [one for one in preflight.findings(found, profile.load().named("plain"), name) if one.code == "tmux"]
    assert not finding.fatal
    assert ("it is installed before a run starts" in finding.why) == installs
    assert "nobody can attach" in finding.why


# -- for real: nothing of this machine is changed, a box has a system disk of its own

PURGE = "dpkg --purge tmux >/dev/null; ! command -v tmux"


def programs(box):
    """The names of what runs in the box."""
    return set(box.run("ps", "-eo", "comm=").stdout.split())


@pytest.fixture
def bare_box(tmp_path):
    """A box without tmux, and an agent on it."""
    if reason := box_missing():
        pytest.skip(reason)
    if not Path("/var/lib/dpkg/status").exists():
        pytest.skip("needs Debian")
    with Box() as box:
        assert box.run("sh", "-c", PURGE).returncode == 0
        known = tmp_path / "known_hosts"
        known.write_text(box.host_key_line)
        with SshHost("box", parse(box.login_line), known_hosts=known, questions=Answers([box.password])) as host:
            yield box, Agent(host)


@pytest.mark.ssh
@pytest.mark.slow
@pytest.mark.parametrize("lists", ["there", "missing"])
def test_a_real_apt_get_installs_a_real_tmux(bare_box, lists):
    box, agent = bare_box
    if lists == "missing":
        box.run("sh", "-c", "rm -rf /var/lib/apt/lists/*")
    agent.call("states", {"run_ids": []})
    before = programs(box)
    # More time than a submit gives it: machines that test are busy.
    argv = [agent.place.python, "-ISc", ASK, agent.place.program, agent.workspace, "200", "0"]
    asked = box.run(*argv, timeout_s=250)
    assert asked.stderr == b""
    path, why, took_s = json.loads(asked.stdout)
    assert (path, why) == ("/usr/bin/tmux", INSTALLED)
    print(f"an installation, lists {lists}: {took_s:.1f} s")
    run_id, started = a_run(agent, "while [ ! -e go ]; do sleep 0.05; done; " + SUCCEED)
    assert (started.how, started.why) == ("tmux", "")
    assert f"launch-{run_id}:" in box.run("tmux", "ls").stdout.decode()
    box.run("touch", f"{started.root}/go")
    assert outcome(agent, run_id) == ("done\n", "succeeded")
    eventually(lambda: programs(box) <= before)  # no service


HOLD = """
import fcntl, time
held = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(held, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(300)
"""
UNPACKED = "sed -i '/^Package: openssh-server$/,/^$/s/^Status: .*/Status: install ok unpacked/' /var/lib/dpkg/status"


@pytest.mark.ssh
@pytest.mark.slow
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (f"/root/miniconda3/bin/python -c '{HOLD}' </dev/null >/tmp/held 2>&1 & until [ -s /tmp/held ]; do :; done",
         "Could not get lock /var/lib/dpkg/lock-frontend"),
        ("echo x >/var/lib/dpkg/updates/0001", "dpkg was interrupted"),
        ("echo >/etc/resolv.conf", "Temporary failure resolving"),
        ("echo >/etc/resolv.conf; rm -rf /var/lib/apt/lists/*", "Unable to locate package tmux (Failed to fetch"),
        ("mount -o remount,ro /", "Read-only file system"),
        (UNPACKED, "apt-get would have to change openssh-server"),
    ],
    ids=["locked", "interrupted", "no network", "no lists and no network", "read-only", "half-installed"],
)  # fmt: skip
def test_real_trouble_with_apt_get_ends_in_a_detached_run(bare_box, trouble, said):
    box, agent = bare_box
    made = box.run("sh", "-c", trouble)
    assert made.returncode == 0, made
    run_id, started = a_run(agent)
    assert started.how == "setsid"
    assert said in started.why
    assert outcome(agent, run_id) == ("done\n", "succeeded")
    assert a_run(agent)[1].why == started.why + AGAIN
