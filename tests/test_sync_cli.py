"""`launch sync` and `launch pull` as a person and a script meet them: where things go, what is said, how it ends."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import manifest
from jobs.run_directory import RunDirectory
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.errors import LaunchError
from launcher.host_book import HostBook, SavedHost
from launcher.ledger import Ledger, Record
from launcher.sync import Route, route
from remote.embedded import EmbeddedHost
from remote.onhost import process
from remote.onhost.frames import message
from remote.onhost.tree import FILE, LINK, STAGING, Entry
from tests import hand_made
from tests.conftest import Cli
from tests.liar import END, a_file, lying, said, small
from tests.trees import contents, put, state

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\u202e"


@pytest.fixture
def here(cli: Cli, tmp_path: Path) -> Path:
    """Where `launch` runs; the home of the host `local` is another folder, with nothing in it."""
    (tmp_path / "home").mkdir()
    cli.env["HOME"] = str(tmp_path / "home")
    return cli.home


@pytest.fixture
def there(here: Path, tmp_path: Path) -> Path:
    """The home of the host `local`."""
    return tmp_path / "home"


def save(cli: Cli, name: str, server: EmbeddedHost, workspace: str = "") -> None:
    """Let `launch` know a server of ours."""
    known = str(server.known_hosts_file)
    HostBook(cli.home / "launch" / "hosts.toml").add(SavedHost(name, server.login_line, workspace, known_hosts=known))


# -- which side is which


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("data/", "box:data/", Route("box", "data/", "data/", up=True)),
        ("box:results/", "results/", Route("box", "results/", "results/", up=False)),
        ("data", "box:", Route("box", "", "data", up=True)),
        ("data", "root@10.0.0.1:/root", Route("root@10.0.0.1", "/root", "data", up=True)),
        ("C:\\data", "box:data", Route("box", "data", "C:\\data", up=True)),
        ("box:data", "C:/data", Route("box", "data", "C:/data", up=False)),
        ("./a:b", "box:c:d", Route("box", "c:d", "./a:b", up=True)),
        ("/tmp/a:b", "local:x\ny", Route("local", "x\ny", "/tmp/a:b", up=True)),
    ],
)
def test_one_side_is_the_hosts(source: str, destination: str, expected: Route) -> None:
    assert route(source, destination) == expected


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        ("a", "b"),
        ("box:a", "box:b"),
        ("C:\\a", "D:\\b"),
        ("a", "C:b"),
        ("", "box:x"),
        ("box:x", ""),
        ("", ""),
        ("box", "x"),
    ],
)
def test_a_route_without_exactly_one_host_is_a_slip(source: str, destination: str) -> None:
    with pytest.raises(LaunchError) as failure:
        route(source, destination)
    assert failure.value.code == "usage"
    assert failure.value.hint


# -- where things go

UP = [
    ("data/", "local:x", {"x/a", "x/sub/b"}),
    ("data/", "local:x/", {"x/a", "x/sub/b"}),
    ("data", "local:x", {"x/data/a", "x/data/sub/b"}),
    ("data", "local:x/", {"x/data/a", "x/data/sub/b"}),
    ("data", "local:", {"data/a", "data/sub/b"}),
    ("data/", "local:", {"a", "sub/b"}),
    ("data", "local:.", {"data/a", "data/sub/b"}),
    ("data", "local:~", {"data/a", "data/sub/b"}),
    ("data", "local:~/", {"data/a", "data/sub/b"}),
    ("data/", "local:~/deep/er", {"deep/er/a", "deep/er/sub/b"}),
    ("data/.", "local:x", {"x/a", "x/sub/b"}),
    ("./data/sub/..", "local:x", {"x/a", "x/sub/b"}),
    ("link", "local:x", {"x/link/a", "x/link/sub/b"}),
    ("link/", "local:x", {"x/a", "x/sub/b"}),
    ("data/a", "local:", {"a"}),
    ("data/a", "local:new", {"new"}),
    ("data/a", "local:./new", {"new"}),
    ("data/a", "local:new/", {"new/a"}),
    ("data/a", "local:deep/new", {"deep/new"}),
    ("data/a", "local:folder", {"folder/a"}),
    ("data/a", "local:file", {"file"}),
    ("linked", "local:x/", {"x/linked"}),
    ("~odd", "local:x/", {"x/~odd"}),
]


@pytest.mark.parametrize(("source", "destination", "expected"), UP, ids=[f"{one} {other}" for one, other, _ in UP])
def test_where_a_push_puts_things(
    cli: Cli, here: Path, there: Path, source: str, destination: str, expected: set[str]
) -> None:
    prepare(here)
    (there / "folder").mkdir()
    if "file" in expected:
        put(there, "file", b"old")
    done = cli("sync", source, destination, "--json")
    assert done.status == 0, done
    assert set(contents(there)) == expected
    assert (done.data["host"], done.data["direction"]) == ("local", "up")
    assert len(done.data["sent"]) == done.data["total"] == len(expected)


def prepare(folder: Path) -> None:
    """data/{a, sub/b}, links to the folder and the file, and a name that the shell left alone."""
    put(folder, "data/a", b"a")
    put(folder, "data/sub/b", b"b")
    put(folder, "~odd", b"odd")
    (folder / "link").symlink_to("data")
    (folder / "linked").symlink_to("data/a")


DOWN = [
    ("local:data/", "x", {"x/a", "x/sub/b"}),
    ("local:data", "x", {"x/data/a", "x/data/sub/b"}),
    ("local:~/data", "x/", {"x/data/a", "x/data/sub/b"}),
    ("local:./data/", "x", {"x/a", "x/sub/b"}),
    ("local:data", ".", {"data/a", "data/sub/b"}),
    ("local:data/.", "x", {"x/a", "x/sub/b"}),
    ("local:link", "x", {"x/link/a", "x/link/sub/b"}),
    ("local:", "x", {"x/data/a", "x/data/sub/b", "x/~odd", "x/linked", "x/link/a", "x/link/sub/b"}),
    ("local:~", "x", {"x/data/a", "x/data/sub/b", "x/~odd", "x/linked", "x/link/a", "x/link/sub/b"}),
    ("local:data/a", ".", {"a"}),
    ("local:data/a", "new", {"new"}),
    ("local:data/a", "new/", {"new/a"}),
    ("local:data/a", "deep/new", {"deep/new"}),
    ("local:data/a", "folder", {"folder/a"}),
    ("local:data/a", "file", {"file"}),
    ("local:linked", ".", {"linked"}),
    ("local:~odd", ".", {"~odd"}),
]


@pytest.mark.parametrize(("source", "destination", "expected"), DOWN, ids=[f"{one} {other}" for one, other, _ in DOWN])
def test_where_a_pull_puts_things(
    cli: Cli, there: Path, tmp_path: Path, source: str, destination: str, expected: set[str]
) -> None:
    prepare(there)
    folder = tmp_path / "work"
    (folder / "folder").mkdir(parents=True)
    if "file" in expected:
        put(folder, "file", b"old")
    done = cli("sync", source, destination, "--json", cwd=folder)
    assert done.status == 0, done
    assert walked(folder) == expected
    assert done.data["direction"] == "down"
    assert len(done.data["sent"]) + len(done.data["linked"]) == done.data["total"]


def walked(folder: Path) -> set[str]:
    """The files below, also behind links."""
    found = set[str]()
    for at, _, names in os.walk(folder, followlinks=True):
        found |= {os.path.relpath(os.path.join(at, name), folder) for name in names}
    return found


def test_a_sync_goes_over_ssh_and_back(cli: Cli, embedded: EmbeddedHost) -> None:
    prepare(cli.home)
    save(cli, "box", embedded)
    assert cli("sync", "data", "box:deep/folder", "--json").data["sent"] == ["a", "sub/b"]
    assert contents(embedded.home / "deep") == {"folder/data/a": b"a", "folder/data/sub/b": b"b"}
    assert cli("sync", "box:deep/folder/data/", "back", "--json").data["sent"] == ["a", "sub/b"]
    assert state(cli.home / "back") == state(cli.home / "data")


# -- how it ends


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a laptop that has a host which is not there."""
    home = tmp_path_factory.mktemp("laptop")
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "config").write_text("Host *\n  ConnectionAttempts 1\n")
    HostBook(home / "launch" / "hosts.toml").add(SavedHost("gone", "root@127.0.0.1:1"))
    put(home, "data/a", b"a")
    (home / "link").symlink_to("/etc/passwd")
    put(home, "bad/.launchignore", b"x" * 5000)
    (home / "leads out").mkdir()
    (home / "leads out" / "l").symlink_to("../../x")
    return home


ENDS = [
    ([], 2, "usage"),
    (["data"], 2, "usage"),
    (["data", "local:x", "more"], 2, "usage"),
    (["data", "x"], 2, "usage"),
    (["local:x", "local:y"], 2, "usage"),
    (["", "local:y"], 2, "usage"),
    (["no such", "local:y"], 2, "usage"),
    (["~no-such-user/x", "local:y"], 2, "usage"),
    (["data/a", "local:y", "--delete"], 2, "usage"),
    (["data", "nowhere:x"], 4, "host_not_found"),
    (["nowhere:x", "data"], 4, "host_not_found"),
    (["local:no/such/path", "x"], 4, "not_found"),
    (["local:no/such/path/", "x"], 4, "not_found"),
    (["local:data/a/", "x"], 4, "not_found"),
    (["data", "gone:x"], 5, "unreachable"),
    (["gone:x", "data"], 5, "unreachable"),
    (["leads out", "local:x"], 1, "remote_failed"),
    (["data/", "local:data/a"], 1, "not_a_folder"),
    (["local:data/", "data/a"], 1, "remote_failed"),
    (["bad", "local:x"], 1, "remote_failed"),
]


@pytest.mark.parametrize(("argv", "status", "code"), ENDS, ids=[" ".join(argv) for argv, _, _ in ENDS])
def test_a_sync_that_can_not_be_done_says_why_and_what_to_do(
    nobody: Path, argv: list[str], status: int, code: str
) -> None:
    cli = Cli(nobody)
    before = state(nobody / "data")
    as_json = cli("sync", *argv, "--json")
    assert (as_json.status, as_json.error["code"]) == (status, code), as_json
    assert as_json.error["message"]
    assert as_json.error["hint"]
    as_text = cli("sync", *argv)
    assert as_text.status == status
    assert as_text.stdout == ""
    assert re.match(r"(launch: .*\n)*error: ", as_text.stderr)
    assert "\nhint: " in as_text.stderr
    assert "Traceback" not in as_text.stderr + as_json.stderr
    assert state(nobody / "data") == before
    assert not (nobody / "x").exists()
    assert not (nobody / "y").exists()


def test_what_is_in_the_way_is_named_and_stays(cli: Cli, here: Path, there: Path) -> None:
    put(here, "data/a", b"a")
    put(there, "data/a/b", b"theirs")
    refused = cli("sync", "data/", "local:data/", "--json")
    assert refused.status == 1
    assert "a is a folder" in refused.error["message"]
    assert "--delete" in refused.error["hint"]
    assert contents(there) == {"data/a/b": b"theirs"}
    assert cli("sync", "data/", "local:data/", "--delete").status == 0
    assert contents(there) == {"data/a": b"a"}


def test_an_empty_source_empties_nothing(cli: Cli, here: Path, there: Path) -> None:
    (here / "data").mkdir()
    put(there, "data/a", b"a")
    for argv in (("data/", "local:data/"), ("local:data/", str(here / "x"))):
        if argv[0] != "data/":
            put(here, "x/b", b"b")
            (there / "data" / "a").unlink()
        refused = cli("sync", *argv, "--delete", "--json")
        assert refused.status == 1
        assert "there is no file in the source" in refused.error["message"]
        assert "mounted" in refused.error["hint"]
    assert contents(here / "x") == {"b": b"b"}


def test_a_disk_that_is_too_small_here_is_named_before_anything_comes(cli: Cli, there: Path, tmp_path: Path) -> None:
    """In a mount namespace of its own, where a small disk lies over the target."""
    mount = tmp_path / "small disk"
    mount.mkdir()
    trial = ["unshare", "-m", "mount", "-t", "tmpfs", "t", str(mount)]
    if not shutil.which("unshare") or subprocess.run(trial, capture_output=True).returncode != 0:
        pytest.skip("no mount namespaces here")
    put(there, "data/large", bytes(30_000_000))
    launch = shlex.join([sys.executable, "-m", "launcher", "sync", "local:data/", f"{mount}/data", "--json"])
    at = shlex.quote(str(mount))
    script = f"mount -t tmpfs -o size=80m t {at} && {{ {launch}; echo $?; ls -A {at}; }}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], env=cli.env, cwd=cli.home, capture_output=True, text=True, timeout=60
    )
    envelope, status, *there_now = done.stdout.splitlines()
    assert (json.loads(envelope)["error"]["code"], status, there_now) == ("disk_full", "1", [])
    assert re.search(r"this machine: 30 MB are to be sent, \d\d MB are free", json.loads(envelope)["error"]["message"])


# -- what is said


def test_words_for_a_person(cli: Cli, here: Path, there: Path) -> None:
    for name in ("a", "b", "sub/c", "left.log", "out/1", "out/2"):
        put(here, f"data/{name}", name.encode() * 20_000)
    put(here, "data/.gitignore", b"*.log\nout/\n")
    (here / "data" / "to a").symlink_to("a")
    put(there, "data/old", b"old")
    first = cli("sync", "data/", "local:data/")
    assert first.status == 0
    assert first.stderr == ""  # no bar where nobody looks
    assert first.stdout == (
        "4 sent, 0.1 MB, 1 linked; 0 unchanged\n2 left out by .gitignore (-v lists them)\n"
    )  # fmt: skip
    os.utime(here / "data" / "a", (5, 5))
    (here / "data" / "sub" / "c").rename(here / "data" / "renamed")
    put(here, "data/b", b"other" * 1000)
    verbose = cli("sync", "-v", "--delete", "data/", "local:data/")
    assert verbose.stdout == (
        "send       b\ncopy there renamed\nmode, time a\ndelete     old\ndelete     sub/c\n"
        "left out (.gitignore) left.log\nleft out (.gitignore) out\n"
        "1 sent, 5.0 KB, 1 found there and copied, 1 given a new mode or time, 2 deleted; 2 unchanged\n"
        "2 left out by .gitignore\n"
    )  # fmt: skip
    assert cli("sync", "data/", "local:data/").stdout.startswith("nothing to do; 5 unchanged\n")
    back = cli("sync", "local:data/", "back")
    assert back.stdout.startswith("4 sent")
    assert back.stdout.endswith("; 0 unchanged\n")
    assert cli("sync", "local:data/", "back").stdout == "nothing to do; 5 unchanged\n"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(cli: Cli, here: Path, there: Path) -> None:
    for number in range(30):
        put(here, f"data/{number:02}", b"x")
    put(there, "data/old", b"old")
    before = state(here / "data"), state(there)
    planned = cli("sync", "data/", "local:data/", "--delete", "--dry-run")
    lines = planned.stdout.splitlines()
    assert lines[0] == "send       00"
    assert lines[20:] == ["... and 11 more: -v shows all", "30 would be sent, 1 would be deleted; 0 unchanged"]
    assert "delete     old" in cli("sync", "data/", "local:data/", "--delete", "--dry-run", "-v").stdout
    planned = cli("sync", "data/", "local:data/", "--delete", "--dry-run", "--json")
    assert planned.data["dry_run"] is True
    assert (len(planned.data["sent"]), planned.data["deleted"]) == (30, ["old"])
    assert (state(here / "data"), state(there)) == before
    assert cli("sync", "local:data/", "new", "--dry-run", "--json").data["sent"] == ["old"]
    assert not (here / "new").exists()


def test_json_is_one_document_whatever_the_names(cli: Cli, here: Path, there: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", "🦙".encode(), b"quote\"'", b"esc\x1b[2J", b"-v"]
    (here / "data").mkdir()
    for name in names:
        with open(os.path.join(os.fsencode(here), b"data", name), "wb") as file:
            file.write(name)
    done = cli("sync", "data/", "local:data/", "--json")
    assert done.stderr == ""
    assert done.stdout.isascii()
    assert done.stdout.count("\n") == 1
    assert {path.encode("utf-8", "surrogateescape") for path in done.data["sent"]} == set(names)
    assert set(done.data) == {
        "host", "root", "direction", "dry_run", "total", "sent", "sent_bytes", "resumed_bytes", "copied", "adopted",
        "linked", "deleted", "skipped", "special", "collisions", "failed",
    }  # fmt: skip
    assert done.data["root"] == str(there / "data")
    words = cli("sync", "data/", "local:other/", "-v")
    assert "\x1b" not in words.stdout
    assert len(words.stdout.splitlines()) == len(names) + 1
    assert "send       \\xff\\xfe" in words.stdout
    assert "send       new\\nline" in words.stdout


def test_what_is_left_out_for_other_reasons_is_said_too(cli: Cli, here: Path, there: Path) -> None:
    put(here, "data/sub/.gitignore", b"*.log\n")
    put(here, "data/sub/x.log", b"x")
    os.mkfifo(here / "data" / "pipe")
    said_up = cli("sync", "data/", "local:data/").stdout
    assert "1 left out by ignore files below" in said_up
    assert "1 left out, neither files, folders nor links: pipe" in said_up
    put(there, "names/A", b"1")
    put(there, "names/a", b"2")
    assert "note: one name on Windows and macOS: 'A' and 'a'" in cli("sync", "local:names/", "names").stdout
    put(there, "names/b", b"3")
    assert cli("sync", "local:names/", "names", "--json").data["collisions"] == ["'A' and 'a'"]


def test_checksum_looks_at_every_byte(cli: Cli, here: Path, there: Path) -> None:
    put(here, "data/a", b"right")
    put(there, "data/a", b"wrong")
    assert cli("sync", "data/", "local:data/", "--json").data["sent"] == []
    assert cli("sync", "data/", "local:data/", "--checksum", "--json").data["sent"] == ["a"]
    assert (there / "data" / "a").read_bytes() == b"right"


def test_digests_of_this_machine_are_remembered_in_the_cache(cli: Cli, here: Path, there: Path) -> None:
    put(here, "data/a", b"right")
    put(there, "data/a", b"right", mtime_ns=5)
    time.sleep(2.1)
    assert cli("sync", "data/", "local:data/", "--json").data["adopted"] == ["a"]
    assert (here / "launch" / "cache" / "hashes.sqlite").stat().st_size > 0
    (here / "launch" / "cache" / "hashes.sqlite").write_bytes(b"not a database")
    put(there, "data/a", b"right", mtime_ns=6)
    assert cli("sync", "data/", "local:data/", "--json").data["adopted"] == ["a"]


@pytest.mark.slow
def test_nothing_that_a_host_says_moves_the_cursor_or_ends_in_a_traceback(cli: Cli, tmp_path: Path) -> None:
    nasty = a_file(HOSTILE + "name\n")
    unseen = {"special": [HOSTILE + "pipe\ud800", None], "total": 3}
    refused = message({"refused": {"code": HOSTILE, "message": HOSTILE + "no", "hint": HOSTILE + "\nhint"}})
    gives_up = message({"x": 0, "why": HOSTILE + "why\nerror: owned"})
    with lying(tmp_path / "liar") as liar:
        save(cli, "box", liar.server)
        for words, status, expected in (
            (said(nasty, stream=small((0, b"abc")) + END, **unseen), 0, "sent"),
            (said(nasty, a_file("b"), stream=gives_up + END), 1, "did not go"),
            (said(a_file(HOSTILE + "/../x")), 1, "can't be brought here"),
            (said(Entry(HOSTILE, LINK, 0, 0, 0, "/" + HOSTILE)), 1, "leads outside"),
            (said(a_file("\ud800")), 1, "can't be brought here"),
            (refused, 1, "no"),
            (said(nasty, stream=refused), 1, "no"),
            (b"\x1b[2J\n", 1, "can't be read"),
        ):
            for options in (("-v",), ("--json",)):
                liar.says(words)
                shutil.rmtree(cli.home / "x", ignore_errors=True)
                done = cli("sync", "box:x/", "x/", *options)
                assert done.status == status, done
                both = done.stdout + done.stderr
                assert expected in both
                assert "Traceback" not in both
                assert not re.search("[\x1b\x07\u202e\x9b]", both)
                assert "\nerror: owned" not in done.stderr
        liar.says(said(a_file(".bashrc"), kind=FILE, stream=small((0, b"abc")) + END))
        assert cli("sync", "box:model.bin", ".").status == 0
        assert (cli.home / "model.bin").read_bytes() == b"abc"
        assert not (cli.home / ".bashrc").exists()


def test_on_a_terminal_a_bar_shows_a_large_transfer_and_goes_away(cli: Cli, here: Path, there: Path) -> None:
    from tests.test_hosts_cli import Screen

    put(here, "data/large", os.urandom(60_000_000))
    screen = Screen(cli, "sync", "data/", "local:data/")
    assert screen.end() == 0
    assert "1 file" in screen.text
    assert "Traceback" not in screen.text
    # What stays is the last line, on its own.
    assert screen.text.rstrip().rpartition("\n")[2].endswith("1 sent, 60.0 MB; 0 unchanged")
    assert (there / "data" / "large").stat().st_size == 60_000_000
    assert not (there / "data" / STAGING).exists()


# -- several runs


@pytest.fixture
def runs(cli: Cli) -> Iterator[list[str]]:
    """Two runs that succeeded, one that failed and one that goes on, on this machine."""
    ended = {"one-aaaaaaaa": "succeeded", "two-bbbbbbbb": "succeeded", "bad-cccccccc": "failed", "on-dddddddd": ""}
    for run_id, how in ended.items():
        a_run(cli, run_id, how)
    yield list(ended)


def a_run(cli: Cli, run_id: str, ended: str) -> RunDirectory:
    run = RunDirectory(cli.home / "launch" / "cache" / "launch" / "runs" / run_id)
    hand_made.adapter_of(run.artifacts)
    put(run.artifacts, "adapter/weights", run_id.encode() * 1000)
    put(run.artifacts, "metrics.json", b"{}")
    put(run.root, "log.txt", b"said\n")
    put(run.root, "events.jsonl", b'{"seq": 1, "time": 1, "type": "state", "state": "running"}\n')
    files = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
    plan = {"protocol": 1, "run_id": run_id, "name": "n", "files": files, "submitted_at": time.time(),
            "boot": process.boot_marker(), "phases": []}  # fmt: skip
    (run.root / "plan.json").write_text(json.dumps(plan))
    run.manifest.write_text(manifest.dump(manifest.list_files(run.artifacts)))
    result = {"protocol": 1, "run_id": run_id, "state": ended, "reason": "",
              "manifest_sha256": manifest.sha256_of(run.manifest)}  # fmt: skip
    if ended:
        run.result.write_text(json.dumps(result))
    else:
        (run.root / "supervisor.json").write_text(json.dumps(process.identity(os.getpid())))
    spec = from_mapping({"name": run_id.partition("-")[0], "model_name_or_path": "m", "data": "a.csv"})
    Ledger(cli.home / "launch" / "ledger.sqlite").add(
        Record(run_id, run_id.partition("-")[0], "local", 1, Submission(run_id, spec, {}, (), "0"))
    )
    return run


def test_several_runs_come_home_at_once(cli: Cli, runs: list[str]) -> None:
    pulled = cli("pull", "one", "two-bbbbbbbb", "one", "--json")
    assert pulled.status == 0, pulled
    assert [(run["run_id"], run["already_here"]) for run in pulled.data["runs"]] == [
        ("one-aaaaaaaa", False), ("two-bbbbbbbb", False)
    ]  # fmt: skip
    assert pulled.data["failed"] == []
    for run_id in ("one-aaaaaaaa", "two-bbbbbbbb"):
        weights = cli.home / "runs" / run_id / "artifacts" / "adapter" / "weights"
        assert weights.read_bytes() == run_id.encode() * 1000
    assert "is here already" in cli("pull", "one", "two").stdout


def test_all_brings_every_run_that_is_over_and_not_home(cli: Cli, runs: list[str]) -> None:
    assert cli("pull", "one").status == 0
    pulled = cli("pull", "--all", "--json")
    assert pulled.status == 0, pulled
    assert {run["run_id"]: run["state"] for run in pulled.data["runs"]} == {
        "two-bbbbbbbb": "succeeded", "bad-cccccccc": "failed"
    }  # fmt: skip
    assert "on-dddddddd" in pulled.stderr  # goes on, and is left alone
    assert not (cli.home / "runs" / "bad-cccccccc" / "artifacts").exists()
    words = cli("pull", "--all")
    assert (words.status, words.stdout) == (0, "every finished run is home already\n")
    assert words.stderr == "launch: on-dddddddd is running\n"


def test_one_run_that_can_not_come_keeps_no_other_from_coming(cli: Cli, runs: list[str]) -> None:
    put(cli.home / "launch" / "cache" / "launch" / "runs" / "one-aaaaaaaa", "artifacts/adapter/weights", b"damaged")
    pulled = cli("pull", "one", "two", "--json")
    assert pulled.status == 7, pulled
    assert [run["run_id"] for run in pulled.data["runs"]] == ["two-bbbbbbbb"]
    [failed] = pulled.data["failed"]
    assert (failed["run_id"], failed["code"]) == ("one-aaaaaaaa", "verification_failed")
    assert failed["hint"]
    assert not (cli.home / "runs" / "one-aaaaaaaa").exists()
    assert cli("pull", "one", "nothing-like-it").status == 4


def test_of_a_run_only_what_is_included_comes(cli: Cli, runs: list[str]) -> None:
    words = cli("pull", "one", "--include", "adapter/*")
    assert words.status == 0, words
    home = cli.home / "runs" / "one-aaaaaaaa"
    of_adapter = {"adapter/weights", *(path for path in hand_made.FILES if path.startswith("adapter/"))}
    assert set(contents(home / "artifacts")) == of_adapter
    assert "brings the rest" in words.stdout
    nothing = cli("pull", "one", "--include", "*.onnx", "--json")
    assert nothing.status == 1
    assert "no artifact matches" in nothing.error["message"]
    assert "adapter/weights" in nothing.error["hint"]
    assert cli("pull", "one", "--json").data["already_here"] is False
    assert set(contents(home / "artifacts")) == {"adapter/weights", "metrics.json", *hand_made.FILES}
    several = cli("pull", "two", "one", "--include", "metrics.json", "--json")
    assert [(run["include"], run["already_here"]) for run in several.data["runs"]] == [
        (["metrics.json"], False),
        ([], True),
    ]
    assert set(contents(cli.home / "runs" / "two-bbbbbbbb" / "artifacts")) == {"metrics.json"}
