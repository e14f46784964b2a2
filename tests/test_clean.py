"""Cleaning a host: what nothing needs goes, what somebody needs stays, on real workspaces with real runs and locks."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.ledger import Ledger, Record
from remote import clean as cleaning
from remote import runs, store
from remote.agent import Agent, program_name
from remote.clean import Asked
from remote.embedded import EmbeddedHost
from remote.errors import BadReply, RemoteError
from remote.local_host import LocalHost
from remote.ssh import key_files
from tests.box import Box
from tests.conftest import REPOSITORY, Cli
from tests.connected import PYTHON_FOLDER, connect, eventually, folder_of_programs

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="needs POSIX"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

FILES = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
SUCCEED = """printf '{"protocol": 1, "state": "succeeded", "reason": ""}' > .r && mv .r result.json"""
DAY_S = 24 * 3600
# What was pushed a moment ago may go, and nobody waits long.
NOW = Asked(young_s=0, wait_s=0.2)
ALL = replace(NOW, everything=True)


@dataclass
class Place:
    """A workspace of this machine."""

    agent: Agent
    root: Path
    outside: Path
    live: list[str] = field(default_factory=list)

    def push(self, content):
        """The sha256 of a file in the store."""
        file = self.outside / "file"
        file.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        store.push(self.agent, [store.LocalFile(file, sha256, len(content))])
        return sha256

    def submit(self, run_id, phase, *inputs, over=True, **changes):
        """A run of a shell text, with these objects as inputs; its folder."""
        plan = {"run_id": run_id, "name": "toy", "files": FILES, "env": {},
                "phases": [{"state": "running", "argv": ["sh", "-c", phase]}]}  # fmt: skip
        links = [{"path": f"inputs/{number}", "sha256": sha256} for number, sha256 in enumerate(inputs)]
        runs.submit(self.agent, plan | changes, links=links, documents={"spec.json": {}})
        if not over:
            self.live.append(run_id)
        else:
            eventually(lambda: runs.states(self.agent, [run_id])[0].is_over)
        return self.root / "runs" / run_id

    def clean(self, asked=NOW, *, pulled=(), dry_run=False):
        return cleaning.clean(self.agent, replace(asked, pulled=tuple(pulled)), dry_run=dry_run)

    def there(self):
        """Every path in the workspace, but the room that a run keeps for as long as it is live."""
        return {
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if not path.name.startswith((".reserve", ".room-", ".result.lock"))
        }


@pytest.fixture
def place(tmp_path, monkeypatch):
    tools = folder_of_programs(tmp_path / "bin", "sh", "mv", "sleep", "cat")  # no tmux
    monkeypatch.setenv("PATH", str(tools))
    made = Place(Agent(LocalHost(), workspace=str(tmp_path / "work")), tmp_path / "work", tmp_path)
    yield made
    for run_id in made.live:
        if (made.root / "runs" / run_id).exists():
            runs.stop(made.agent, run_id)


def old(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def paths(cleaned):
    return {item.path for item in cleaned.items}


def kept(cleaned):
    return {(one.kind, one.reason): one.count for one in cleaned.kept if one.kind != "program"}


# -- what nothing needs


def test_what_a_run_needs_stays_and_the_rest_goes(place):
    shared, dead, loose, unpulled = (place.push(os.urandom(50_000)) for _ in range(4))
    live = place.submit("live-aaaaaaaa", "sleep 60", shared, over=False)
    done = place.submit("done-aaaaaaaa", f"head=1; cat inputs/1 > out; {SUCCEED}", shared, dead)
    place.submit("kept-aaaaaaaa", SUCCEED, unpulled)
    place.submit("fail-aaaaaaaa", "exit 3")
    before = place.there()
    shown = place.clean(pulled=["done-aaaaaaaa"], dry_run=True)
    assert paths(shown) == {"runs/done-aaaaaaaa", f"store/{dead}", f"store/{loose}"}
    assert kept(shown) == {("run", "live"): 1, ("run", "not pulled"): 2, ("object", "used by a run"): 2}
    # The copy, two objects with their records, and what the run wrote itself; not the object that is still in use.
    assert 150_000 < shown.freed_bytes < 250_000
    assert shown.freed_bytes == sum(total.size_bytes for total in shown.totals)
    assert place.there() - {".lock"} == before - {".lock"}

    done_now = place.clean(pulled=["done-aaaaaaaa", "live-aaaaaaaa"])
    assert done_now == shown
    gone = {path for path in before if path.startswith("runs/done-aaaaaaaa") or dead in path or loose in path}
    assert place.there() == (before - gone) | {".lock"}
    assert not done.exists()
    assert (live / "inputs" / "0").read_bytes() == (place.root / "store" / shared).read_bytes()
    assert runs.states(place.agent, ["live-aaaaaaaa"])[0].state == "running"
    again = place.clean(pulled=["done-aaaaaaaa"])
    assert (again.items, again.freed_bytes) == ((), 0)
    # The objects of a run go with it, however often they were linked.
    runs.stop(place.agent, "live-aaaaaaaa")
    last = place.clean(pulled=["live-aaaaaaaa", "kept-aaaaaaaa", "fail-aaaaaaaa"])
    assert [total.count for total in last.totals if total.kind == "object"] == [2]
    assert list((place.root / "store").iterdir()) == list((place.root / "runs").iterdir()) == []


def test_what_was_pushed_in_the_last_hour_may_belong_to_a_push(place):
    sha256 = place.push(b"new")
    old(place.root / "store" / sha256, 10 * DAY_S)  # as a copy brings along
    cleaned = place.clean(Asked())
    assert (paths(cleaned), kept(cleaned)) == (set(), {("object", "recent"): 1})
    assert place.push(b"new") == sha256


def test_a_run_that_only_copies_needs_no_object(place):
    sha256 = place.push(b"content")
    run = place.submit("copy-aaaaaaaa", "sleep 60", sha256, over=False)
    (run / "inputs" / "0").unlink()
    shutil.copy(place.root / "store" / sha256, run / "inputs" / "0")
    assert paths(place.clean()) == {f"store/{sha256}"}
    assert (run / "inputs" / "0").read_bytes() == b"content"


def test_leftovers_go_when_nobody_can_be_at_them_any_more(place):
    damaged = place.push(b"x")
    folder = place.root / "store"
    (folder / damaged).rename(folder / f"{damaged}.quarantined")
    made = {
        "store/.part-": "file", f"store/{'a' * 64}.stat": "file", f"store/{'a' * 64}.stat.77": "file",
        "store/.launch-partial/x.part": "file", "store/.launch-partial/own-": "folder", "onhost/.part-": "file",
        "runs/half-aaaaaaaa": "folder", ".box-id.": "file",
    }  # fmt: skip
    (folder / ".launch-partial").mkdir()
    (place.root / "runs").mkdir()
    for name, kind in made.items():
        for age_s in (DAY_S / 2, 2 * DAY_S):
            path = place.root / name
            path = path.with_name(path.name + "new") if age_s < DAY_S else path
            path.mkdir() if kind == "folder" else path.write_bytes(b"y")
            if kind == "folder":
                (path / "inputs").write_bytes(b"y")
            old(path, age_s)
    (place.root / ".trash-x" / "deep" / "deeper").mkdir(parents=True)
    (place.root / ".trash-x" / "deep" / "file").write_bytes(b"z" * 100_000)
    (place.root / "notes").touch()  # nobody knows whose
    before = place.there()
    cleaned = place.clean()
    # The record of an object that is not there belongs to one that was just put aside, or is as old.
    expected = {*made, f"store/{damaged}.quarantined", ".trash-x"}
    assert paths(cleaned) == expected
    assert before - place.there() == {path for path in before if path.startswith(tuple(expected)) and "new" not in path}
    assert cleaned.freed_bytes >= 100_000


def test_environments_stay_while_a_run_asks_for_them_and_for_a_week(place):
    envs = place.root / "envs"
    ages = {"live": 30, "used": 30, "built": 3, "idle": 30, "broken": 30, "last": 30}
    for key, days in ages.items():
        (envs / key / "bin").mkdir(parents=True)
        (envs / f"{key}.lock").touch()
        if key != "broken":
            (envs / key / "ready.json").write_text("{}")
            old(envs / key / "ready.json", days * DAY_S)
        old(envs / key, days * DAY_S)
    place.submit("live-aaaaaaaa", "sleep 60", over=False)
    for run_id in ("used-aaaaaaaa", "last-aaaaaaaa"):
        place.submit(run_id, SUCCEED)
    for run_id in ("live", "used", "last"):
        given = place.root / "runs" / f"{run_id}-aaaaaaaa" / "environment.json"
        given.write_text(json.dumps({"python": f"{envs}/{run_id}/bin/python", "key": run_id}))
    cleaned = place.clean(pulled=["last-aaaaaaaa"])
    assert paths(cleaned) - {"runs/last-aaaaaaaa"} == {"envs/idle", "envs/broken"}
    assert kept(cleaned)["environment", "recent"] == 3
    assert kept(cleaned)["environment", "used by a run"] == 1
    # The run that used it last is gone; when that was is not forgotten.
    assert {path.name for path in envs.iterdir() if path.is_dir()} == {"live", "used", "built", "last"}
    assert place.clean().items == ()


def test_programs_of_other_versions_go_once_no_run_may_need_them(place):
    for name in ("old.pyz", "new.pyz"):
        (place.root / "onhost").mkdir(exist_ok=True, parents=True)
        (place.root / "onhost" / name).touch()
    place.submit("live-aaaaaaaa", "sleep 60", over=False)
    for name in ("old.pyz", program_name()):
        old(place.root / "onhost" / name, 2 * DAY_S)
    assert paths(place.clean()) == set()
    runs.stop(place.agent, "live-aaaaaaaa")
    assert paths(place.clean()) == {"onhost/old.pyz"}


def test_runs_that_nobody_understands_stay(place):
    newer = place.submit("newer-aaaaaaaa", SUCCEED)
    plan = json.loads((newer / "plan.json").read_text())
    (newer / "plan.json").write_text(json.dumps(plan | {"protocol": 99}))
    broken = place.submit("broken-aaaaaaaa", SUCCEED)
    (broken / "plan.json").write_text('{"protocol": 1}')
    lost = place.submit("lost-aaaaaaaa", "exit 3")
    (lost / "plan.json").write_text(json.dumps(plan | {"boot": "another", "run_id": "lost-aaaaaaaa"}))
    (lost / "result.json").unlink()
    (place.root / "runs" / "Not a run").mkdir()
    (place.root / "runs" / "Not a run" / "plan.json").write_text("{")
    names = ["newer-aaaaaaaa", "broken-aaaaaaaa", "lost-aaaaaaaa", "Not a run"]
    cleaned = place.clean(pulled=names[:2])
    assert paths(cleaned) == set()
    assert kept(cleaned) == {("run", "live"): 1, ("run", "unreadable"): 2, ("run", "not pulled"): 1}
    assert paths(place.clean(pulled=names)) == {"runs/lost-aaaaaaaa"}
    with pytest.raises(RemoteError, match="newer-aaaaaaaa") as failure:
        place.clean(ALL)
    assert failure.value.code == "runs_live"


# -- links, modes, errors


def test_no_link_leads_out_of_the_workspace(place):
    run = place.submit("done-aaaaaaaa", SUCCEED)
    (place.outside / "precious").mkdir()
    (place.outside / "precious" / "file").write_bytes(b"p")
    for at in (run / "link", place.root / "runs" / "link", place.root / "store" / ".launch-partial"):
        at.symlink_to(place.outside / "precious")
    assert paths(place.clean(pulled=["done-aaaaaaaa", "link"])) == {"runs/done-aaaaaaaa"}
    assert (place.outside / "precious" / "file").exists()
    for name in ("runs", "store"):
        (place.root / name).rename(place.outside / name)
        (place.root / name).symlink_to(place.outside / name)
        for asked in (NOW, ALL):
            with pytest.raises(RemoteError, match=f"{name} is a link, nothing was removed") as failure:
                place.clean(asked)
            assert failure.value.code == "path_outside"
        (place.root / name).unlink()
        (place.outside / name).rename(place.root / name)
    assert place.clean(ALL).error_count == 0
    assert not place.root.exists()
    assert (place.outside / "precious" / "file").read_bytes() == b"p"


class ObeysModes(LocalHost):
    """This machine, for somebody to whom the modes of files mean something: to root they mean nothing."""

    def start(self, argv, **options):
        if os.getuid() == 0:
            argv = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", *argv]
        return super().start(argv, **options)


def test_what_is_read_only_goes_and_what_can_not_go_is_named(tmp_path):
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root without setpriv")
    workspace = tmp_path / "work"
    agent = Agent(ObeysModes(), workspace=str(workspace))
    trash = workspace / ".trash-1"
    (trash / "a" / "b").mkdir(parents=True)
    (trash / "a" / "b" / "file").write_bytes(b"x" * 5000)
    (trash / "a" / "b" / "file").chmod(0o444)
    stale = workspace / "runs" / "half-aaaaaaaa"
    (stale / "inputs").mkdir(parents=True)
    (stale / "inputs" / "x").touch()
    old(stale, 2 * DAY_S)
    (workspace / "store").mkdir()
    (workspace / "store" / f"{'a' * 64}.quarantined").touch(0o444)
    for folder in (trash / "a" / "b", trash / "a", stale / "inputs", stale, workspace / "runs", workspace / "store"):
        folder.chmod(0o555)
    cleaned = cleaning.clean(agent, NOW, dry_run=False)
    assert cleaned.errors == ()
    assert [total.kind for total in cleaned.totals] == ["leftover", "quarantined", "trash"]
    assert not stale.exists()
    assert not trash.exists()
    assert not any((workspace / "store").iterdir())
    if os.getuid() == 0:  # a folder of somebody else's
        closed = workspace / ".trash-2" / "closed"
        closed.mkdir(parents=True)
        (closed / "file").touch()
        (workspace / ".trash-2" / "free").touch()
        shutil.chown(closed, 65534)
        cleaned = cleaning.clean(agent, NOW, dry_run=False)
        assert cleaned.errors == (".trash-2/closed/file: Permission denied",)
        assert [path.name for path in closed.parent.iterdir()] == ["closed"]


# -- the lock


HOLD = "import sys; from remote.onhost import lock\nwith lock.{how}: print('held', flush=True); sys.stdin.read()"


def holder(root, how):
    """A process that holds the lock until its input ends."""
    code = HOLD.format(how=how.format(root=str(root)))
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_nothing_is_removed_while_another_launch_works_there(place):
    loose = place.push(b"loose")
    with holder(place.root, "shared({root!r})") as first, holder(place.root, "shared({root!r})") as second:
        assert paths(place.clean(dry_run=True)) == {f"store/{loose}"}
        started = time.monotonic()
        with pytest.raises(RemoteError, match="another launch works with this store") as failure:
            place.clean()
        assert (failure.value.code, bool(failure.value.hint)) == ("workspace_busy", True)
        assert 0.2 <= time.monotonic() - started < 5
        assert (place.root / "store" / loose).exists()
        first.stdin.close()
        second.send_signal(signal.SIGKILL)  # whoever is dead holds nothing
        second.wait()
        assert paths(place.clean(replace(NOW, wait_s=10))) == {f"store/{loose}"}
    with holder(place.root, "exclusive({root!r}, 1)") as other, pytest.raises(RemoteError, match="another launch"):
        other.stdout.flush()
        place.clean(dry_run=True)


def test_whoever_waited_while_everything_went_starts_anew(place):
    place.push(b"x")
    with holder(place.root, "shared({root!r})") as first:
        code = HOLD.format(how=f"shared({str(place.root)!r})")
        # One that has the file open and waits: as if `clean --all` had it.
        first.stdin.close()
    with holder(place.root, "exclusive({root!r}, 1)") as cleaner:
        waiting = subprocess.Popen(
            [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        lock = str(place.root / ".lock")
        eventually(lambda: any(os.path.realpath(fd) == lock for fd in Path(f"/proc/{waiting.pid}/fd").iterdir()))
        (place.root / ".lock").unlink()
        cleaner.stdin.close()
        _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 1
    assert "was removed meanwhile" in said


# -- everything


def test_everything_goes_unless_a_run_is_in_the_way(place):
    place.submit("live-aaaaaaaa", "sleep 60", place.push(b"x"), over=False)
    place.submit("good-aaaaaaaa", SUCCEED)
    before = place.there()
    for asked in (ALL, replace(ALL, force=True)):
        with pytest.raises(RemoteError, match="not over: live-aaaaaaaa") as failure:
            place.clean(asked, pulled=["live-aaaaaaaa", "good-aaaaaaaa"])
        assert (failure.value.code, failure.value.hint) == ("runs_live", "launch stop live-aaaaaaaa")
    runs.stop(place.agent, "live-aaaaaaaa")
    for dry_run in (True, False):
        with pytest.raises(RemoteError, match="not pulled: good-aaaaaaaa") as failure:
            place.clean(ALL, dry_run=dry_run)
        assert failure.value.code == "runs_not_pulled"
        assert "launch pull good-aaaaaaaa" in failure.value.hint
    assert before <= place.there()
    (place.root / "models" / "base").mkdir(parents=True)
    shown = place.clean(ALL, pulled=["good-aaaaaaaa"], dry_run=True)
    assert {"runs/live-aaaaaaaa", "runs/good-aaaaaaaa", f"onhost/{program_name()}", "models"} <= paths(shown)
    assert shown.never_pulled == ("live-aaaaaaaa",)
    assert place.root.exists()
    cleaned = place.clean(replace(ALL, force=True))
    assert cleaned.never_pulled == ("good-aaaaaaaa", "live-aaaaaaaa")
    assert (paths(cleaned), cleaned.freed_bytes) == (paths(shown), shown.freed_bytes)
    assert not place.root.exists()
    # And it can all begin again.
    place.agent = Agent(LocalHost(), workspace=str(place.root))
    place.submit("next-aaaaaaaa", SUCCEED, place.push(b"x"))


def test_only_marked_lines_with_our_key_leave_authorized_keys(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file, ssh = tmp_path / "elsewhere" / "keys", tmp_path / "home" / ".ssh"
    mark = key_files.MARK.encode()
    stays = [
        b"ssh-ed25519 AAAAours me@laptop",  # put there by a person, before or after
        b"# ssh-ed25519 AAAAours me@laptop " + mark,
        b"ssh-ed25519 AAAAtheirs you@elsewhere " + mark + b"\r",
        b"\xff\xfe \x00",
        b"",
        b"ssh-ed25519 AAAAoursnot me@laptop " + mark,
        b"ssh-rsa AAAAother no newline at the end",
    ]
    goes = [b"ssh-ed25519 AAAAours me@laptop " + mark, b'from="10.*"\tssh-ed25519  AAAAsecond x ' + mark + b"  "]
    content = b"\n".join([goes[0], *stays[:3], goes[1], *stays[3:]])
    file.write_bytes(content)
    file.chmod(0o640)
    if os.getuid() == 0:
        os.chown(file, 65534, 65534)
    before = file.stat()
    asked = replace(ALL, keys=("AAAAours", "AAAAsecond"), mark=key_files.MARK)
    with EmbeddedHost(tmp_path / "home", path_prefix=[PYTHON_FOLDER]) as server, connect(server) as host:
        ssh.mkdir(exist_ok=True)
        (ssh / "authorized_keys").symlink_to(file)
        assert cleaning.clean(Agent(host), asked, dry_run=True).key_lines == 2
        assert file.read_bytes() == content
        cleaned = cleaning.clean(Agent(host), asked, dry_run=False)
        assert (cleaned.key_lines, cleaned.errors) == (2, ())
        assert file.read_bytes() == b"\n".join(stays)
        after = file.stat()
        assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
        assert (ssh / "authorized_keys").is_symlink()
        assert [path.name for path in file.parent.iterdir()] == ["keys"]
        assert cleaning.clean(Agent(host), asked, dry_run=False).key_lines == 0
        assert not (tmp_path / "home" / ".cache" / "launch").exists()


@pytest.mark.ssh
def test_a_box_is_left_as_it_was_found(cli: Cli, box: Box):
    def add():
        argv = ("host", "add", "box", box.login_line, "--accept-new", "--install-key", "--json")
        added = cli(*argv, env={"LAUNCH_PASSWORD": box.password})
        assert added.status == 0, added

    listing = ("sh", "-c", "cd /root && find . -path ./miniconda3 -prune -o -print | sort; cat .ssh/authorized_keys")
    theirs = b"ssh-ed25519 AAAAtheirs somebody@elsewhere\n"
    box.run("sh", "-c", "umask 077; mkdir -p /root/.ssh; cat >/root/.ssh/authorized_keys", stdin=theirs)
    before = box.run(*listing).stdout
    add()
    assert key_files.MARK.encode() in box.run("cat", "/root/.ssh/authorized_keys").stdout
    asked = cli("clean", "box", "--all")
    assert asked.status == 2  # nobody to say yes
    assert "box-id" in asked.stderr
    assert "asks for a password again" in asked.stderr
    done = cli("clean", "box", "--all", "-y", "--json")
    assert (done.status, done.data["key_lines"], done.data["errors"]) == (0, 1, []), done
    assert box.run(*listing).stdout == before
    assert cli("ps", "--host", "box", "--json").status == 3  # no key, and nobody to give a password
    add()


# -- the command line


def remembered(cli, run_id, at):
    """The ledger of this laptop knows the run."""
    spec = from_mapping({"name": "toy", "model_name_or_path": "m", "data": "a.csv"})
    ledger = Ledger(cli.home / "launch" / "ledger.sqlite")
    ledger.add(Record(run_id, "toy", "local", at, Submission(run_id, spec, {}, (), "0")))
    return ledger


def test_the_command_shows_asks_and_removes(cli, place):
    place.root = cli.home / "launch" / "cache" / "launch"
    place.agent = Agent(LocalHost(), workspace=str(place.root))
    cli.env["PATH"] = os.environ["PATH"]
    for at, run_id in enumerate(["home-aaaaaaaa", "away-aaaaaaaa", "lost-aaaaaaaa"]):
        place.submit(run_id, SUCCEED)
        ledger = remembered(cli, run_id, at)
    home = cli.home / "runs" / "home-aaaaaaaa"
    home.mkdir(parents=True)
    (home / "result.json").write_text("{}")
    ledger.note_pulled("home-aaaaaaaa", home)
    ledger.note_pulled("lost-aaaaaaaa", cli.home / "runs" / "deleted")  # pulled once, and not there any more
    before = place.there()

    shown = cli("clean", "local", "--dry-run", "--json")
    assert shown.data["items"] == [
        {"kind": "run", "path": "runs/home-aaaaaaaa", "size_bytes": shown.data["freed_bytes"]}
    ]
    assert shown.data["kept"][0] == {
        "kind": "run", "reason": "not pulled", "count": 2, "names": ["away-aaaaaaaa", "lost-aaaaaaaa"],
    }  # fmt: skip
    assert (shown.data["dry_run"], shown.data["all"], shown.data["host"]) == (True, False, "local")
    text = cli("clean", "local", "--dry-run").stdout
    assert "would remove from local" in text
    assert "1 run, " in text
    assert "2 runs, not pulled to this machine: away-aaaaaaaa, lost-aaaaaaaa" in text
    assert place.there() - {".lock"} == before - {".lock"}

    nobody = cli("clean", "local", "--json")
    assert (nobody.status, nobody.error["code"]) == (2, "usage")
    assert "--yes" in nobody.error["hint"]
    for answer, status in (("n\n", 130), ("y\n", 0)):
        assert (place.root / "runs" / "home-aaaaaaaa").exists()
        process = cli.start(
            "clean", "local", "--json", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        said, asked = process.communicate(answer, timeout=60)
        assert process.returncode == status
        assert asked.index("home-aaaaaaaa") < asked.index("Remove this from local?")
        assert json.loads(said)["ok"] == (status == 0)
    assert not (place.root / "runs" / "home-aaaaaaaa").exists()
    nothing = cli("clean", "local")  # and so no question
    assert (nothing.status, "nothing to remove on local" in nothing.stdout) == (0, True), nothing

    refused = cli("clean", "local", "--all", "-y", "--json")
    assert (refused.status, refused.error["code"]) == (1, "runs_not_pulled")
    assert "launch pull away-aaaaaaaa" in refused.error["hint"]
    assert cli("clean", "local", "--force").status == 2
    done = cli("clean", "local", "--all", "--force", "-y")
    assert done.status == 0, done
    assert "never pulled, and lost for good: away-aaaaaaaa, lost-aaaaaaaa" in done.stdout
    assert not place.root.exists()


# -- a host that lies

REPLY = {
    "items": [], "totals": [], "kept": [], "never_pulled": [], "key_lines": 0, "freed_bytes": 0, "errors": [],
    "error_count": 0,
}  # fmt: skip


def test_a_reply_of_the_wrong_shape_is_refused(tmp_path):
    bin_folder = folder_of_programs(tmp_path / "bin", "sh", "cat", "head", "mkdir", "uname", "ln", "rm", "mv")
    (bin_folder / "python3").write_text(
        '#!/bin/sh\ncase $1$2 in *-c*) cat >/dev/null; echo "$0"; exit 0 ;; esac\n'
        f'printf "\\n@launch %s reply " "$4"; cat {shlex.quote(str(tmp_path))}/reply; echo\n'
    )
    (bin_folder / "python3").chmod(0o755)
    wrong = [
        {}, {"items": {}}, {"items": [[]]}, {"items": [{"kind": "run", "path": 1, "size_bytes": 0}]},
        {"items": [{"kind": "planet", "path": "x", "size_bytes": 0}]}, {"totals": [{"kind": "run", "count": 1}]},
        {"totals": [{"kind": "run", "count": True, "size_bytes": 0}]}, {"freed_bytes": -1}, {"freed_bytes": 1e300},
        {"freed_bytes": 1 << 80}, {"key_lines": None}, {"errors": "x"}, {"errors": [1]}, {"never_pulled": None},
        {"kept": [{"kind": [], "reason": "", "count": 1, "names": []}]},
    ]  # fmt: skip
    with EmbeddedHost(tmp_path / "home", env={"PATH": str(bin_folder)}) as server, connect(server) as host:
        agent = Agent(host)
        (tmp_path / "reply").write_text(json.dumps(REPLY))
        assert cleaning.clean(agent, NOW, dry_run=True).items == ()
        for change in wrong:
            (tmp_path / "reply").write_text(json.dumps(REPLY | change if change else change))
            with pytest.raises(BadReply, match="wrong shape"):
                cleaning.clean(agent, NOW, dry_run=True)
