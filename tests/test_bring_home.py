"""Pulling: whole or not at all, byte for byte, whatever the host does to the run directory."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from jobs import manifest
from jobs.errors import BrokenRun, JobError
from jobs.run_directory import RunDirectory
from jobs.spec import from_mapping
from jobs.submission import Submission
from launcher.bring_home import Pulled, bring_home
from launcher.errors import LaunchError, NotFinished, VerificationFailed
from launcher.ledger import Ledger, Record
from launcher.progress import Note, ignore
from remote.agent import Agent
from remote.embedded import EmbeddedHost
from remote.errors import BadReply, RemoteError
from remote.local_host import LocalHost
from remote.onhost import process
from remote.ssh.address import parse
from remote.ssh.host import SshHost
from tests import hand_made

RUN_ID = "reviews-aaaaaaaa"


class Laptop:
    """A ledger with one run, a host that has it, and a folder to pull to."""

    def __init__(self, folder: Path, agent: Agent | None = None) -> None:
        self.workspace = folder / "workspace" / "launch"
        self.run = RunDirectory(self.workspace / "runs" / RUN_ID)
        self.ledger = Ledger(folder / "ledger.sqlite")
        spec = from_mapping({"name": "reviews", "model_name_or_path": "m", "data": "a.csv"})
        self.record = Record(RUN_ID, "reviews", "box", 1, Submission(RUN_ID, spec, {}, (), "0"))
        self.ledger.add(self.record)
        self.target = folder / "runs"
        self.agent = agent or Agent(LocalHost(folder), workspace=str(self.workspace))

    def finish(self, state: str = "succeeded", **artifacts: bytes) -> None:
        """Leave on the host what a run leaves that ended in `state`, with a sound adapter."""
        hand_made.adapter_of(self.run.artifacts)
        for name, content in ({"a": b"adapter", "b": b"metrics"} | artifacts).items():
            path = self.run.artifacts / "adapter" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.run.log.write_text("said\n")
        self.run.events.write_text('{"seq": 1, "time": 1, "type": "state", "state": "running"}\n')
        files = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
        plan = {"protocol": 1, "run_id": RUN_ID, "name": "reviews", "files": files, "submitted_at": time.time(),
                "boot": process.boot_marker(), "phases": []}  # fmt: skip
        (self.run.root / "plan.json").write_text(json.dumps(plan))
        self.vouch(state)

    def vouch(self, state: str = "succeeded", run_id: str = RUN_ID) -> None:
        """Write manifest and result for what lies there."""
        self.run.manifest.write_text(manifest.dump(manifest.list_files(self.run.artifacts)))
        result = {
            "protocol": 1,
            "run_id": run_id,
            "state": state,
            "reason": "",
            "manifest_sha256": manifest.sha256_of(self.run.manifest),
        }
        self.run.result.write_text(json.dumps(result))

    def pull(self) -> Pulled:
        return bring_home(self.record, self.agent, self.ledger, self.target, ignore)

    def nothing_came(self) -> bool:
        return not self.target.exists() or list(self.target.iterdir()) == []


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


def test_a_run_comes_home_whole_and_only_once(laptop: Laptop) -> None:
    laptop.finish(c=os.urandom(1 << 20))
    pulled = laptop.pull()
    home = RunDirectory(pulled.folder)
    assert (pulled.state, pulled.already) == ("succeeded", False)
    assert manifest.problems(home.artifacts, manifest.parse(home.manifest.read_text())) == []
    assert json.loads(home.spec.read_text())["run_id"] == RUN_ID
    assert laptop.ledger.find(RUN_ID).pulled_to == str(pulled.folder)
    assert laptop.pull().already is True
    assert [path.name for path in laptop.target.iterdir()] == [RUN_ID]


def test_a_second_pull_heals_and_leaves_alone_what_was_made_here(laptop: Laptop) -> None:
    laptop.finish()
    home = RunDirectory(laptop.pull().folder)
    home.report.write_text("made here")
    (home.adapter / "a").write_bytes(b"broken!")
    (home.adapter / "extra").touch()
    assert laptop.pull().already is False
    assert (home.adapter / "a").read_bytes() == b"adapter"
    assert not (home.adapter / "extra").exists()
    assert home.report.read_text() == "made here"
    assert [path.name for path in laptop.target.iterdir()] == [RUN_ID]


def test_of_a_failed_run_everything_but_the_adapter(laptop: Laptop) -> None:
    laptop.finish("failed")
    home = RunDirectory(laptop.pull().folder)
    assert home.log.read_text() == "said\n"
    assert not home.artifacts.exists()


def test_a_run_that_goes_on_is_not_pulled(laptop: Laptop) -> None:
    laptop.finish()
    laptop.run.result.unlink()
    (laptop.run.root / "supervisor.json").write_text(json.dumps(process.identity(os.getpid())))
    with pytest.raises(NotFinished):
        laptop.pull()
    assert laptop.nothing_came()


@pytest.mark.parametrize("fault", ["changed", "missing", "added", "link", "manifest"])
def test_what_changed_on_the_host_after_the_run_vouched_for_it_stays_there(laptop: Laptop, fault: str) -> None:
    laptop.finish()
    weights = laptop.run.adapter / "a"
    if fault == "changed":
        weights.write_bytes(b"adaqter")
    if fault in ("missing", "link"):
        weights.unlink()
    if fault == "link":
        weights.symlink_to("/etc/hostname")
    if fault == "added":
        (laptop.run.adapter / "c").write_bytes(b"more")
    if fault == "manifest":
        laptop.run.manifest.write_text(laptop.run.manifest.read_text() + " ")
    with pytest.raises((VerificationFailed, BadReply)) as caught:
        laptop.pull()
    assert caught.value.hint
    assert laptop.nothing_came()


@pytest.mark.parametrize("name", ["con", "a:b", "back\\slash", "new\nline", "esc\x1b[2J", "dot."])
def test_names_that_are_not_files_on_every_laptop_are_refused_before_anything_is_in_place(
    laptop: Laptop, name: str
) -> None:
    laptop.finish(**{name: b"x"})
    with pytest.raises(BrokenRun):
        laptop.pull()
    assert laptop.nothing_came()


@pytest.mark.parametrize(
    "content", ["", "null", "[]", '{"protocol": "x"}', '{"protocol": 99, "run_id": "", "state": ""}', "[" * 99_999]
)
def test_a_result_that_makes_no_sense_is_never_a_success(laptop: Laptop, content: str) -> None:
    laptop.finish()
    laptop.run.result.write_text(content)
    (laptop.run.root / "supervisor.json").write_text(json.dumps(process.identity(2**22 + 1)))
    try:
        pulled = laptop.pull()
    except (JobError, LaunchError, RemoteError):
        assert laptop.nothing_came()
        return
    # The host itself noticed that this is no result, and that nobody is left to write one.
    assert (pulled.state, pulled.reason) == ("failed", "supervisor killed")
    assert not RunDirectory(pulled.folder).artifacts.exists()


def test_the_result_of_another_run_is_not_taken_for_ours(laptop: Laptop) -> None:
    laptop.finish()
    laptop.vouch(run_id="reviews-bbbbbbbb")
    with pytest.raises(BrokenRun):
        laptop.pull()
    assert laptop.nothing_came()


def test_a_manifest_that_is_not_utf_8_is_none(laptop: Laptop) -> None:
    laptop.finish()
    laptop.run.manifest.write_bytes(laptop.run.manifest.read_bytes().replace(b'"files"', b'"x": "\xff", "files"'))
    hand_made.says(laptop.run, manifest_sha256=manifest.sha256_of(laptop.run.manifest))
    for _ in range(2):
        with pytest.raises(BrokenRun, match="not readable"):
            laptop.pull()
        assert laptop.nothing_came()


def test_half_a_character_in_a_reason_is_no_trouble(laptop: Laptop) -> None:
    laptop.finish("failed")
    result = json.loads(laptop.run.result.read_text())
    laptop.run.result.write_text(json.dumps(result | {"reason": "\ud800 broke"}))
    assert laptop.pull().reason == "? broke"
    assert laptop.ledger.find(RUN_ID).reason == "? broke"


def test_what_was_found_out_about_another_adapter_does_not_stay(laptop: Laptop) -> None:
    """A host that has other artifacts now, whose figures would be those of the ones before."""
    laptop.finish()
    home = RunDirectory(laptop.pull().folder)
    made = (home.home_metrics, home.home_predictions, home.home_errors, home.home_verification, home.report)
    elsewhere = home.evaluations / "more" / "metrics.json"
    elsewhere.parent.mkdir(parents=True)
    for path in (*made, elsewhere):
        path.write_text("made here")
    (laptop.run.adapter / "a").write_bytes(b"another")
    laptop.vouch()
    assert laptop.pull().already is False
    assert not any(path.exists() for path in (*made, elsewhere))


def test_a_pull_that_is_cut_goes_on_and_nothing_is_seen_of_it_before(tmp_path: Path, embedded: EmbeddedHost) -> None:
    host = SshHost("box", parse(embedded.login_line), known_hosts=embedded.known_hosts_file)
    laptop = Laptop(tmp_path, Agent(host, workspace=str(tmp_path / "workspace")))
    laptop.finish(big=os.urandom(64 << 20))
    done, seen, notes = threading.Event(), list[bool](), list[str]()

    def cut_when_it_flows() -> None:
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):  # it may take its final name between two looks
                if any(path.stat().st_size > 8 << 20 for path in laptop.target.rglob("*.part*") if path.is_file()):
                    seen.append((laptop.target / RUN_ID).exists())
                    embedded.cut()
                    return
            time.sleep(0.001)

    cutter = threading.Thread(target=cut_when_it_flows)
    cutter.start()
    try:
        observer = lambda progress: notes.append(progress.text) if isinstance(progress, Note) else None  # noqa: E731
        pulled = bring_home(laptop.record, laptop.agent, laptop.ledger, laptop.target, observer)
    finally:
        done.set()
        cutter.join()
    assert seen == [False]
    assert any("going on" in note for note in notes)
    assert pulled.state == "succeeded"
    assert pulled.size_bytes < (64 << 20) - (8 << 20) + 100_000  # what had come was not sent again
    assert [path.name for path in laptop.target.iterdir()] == [RUN_ID]
    host.close()
