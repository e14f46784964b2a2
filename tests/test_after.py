"""What a laptop asks a host to do after a run, what it refuses, and what it shows of a run that ended badly."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.run_directory import RunDirectory
from launcher import after, submit
from launcher.errors import LaunchError, exit_status
from launcher.terms import Terms
from remote import profile, runs
from remote.agent import Agent
from remote.errors import BadReply, RemoteError, TimedOut, Unreachable
from remote.local_host import LocalHost
from tests.conftest import Cli
from tests.connected import eventually, private_tmux
from tests.test_bring_home import RUN_ID, Laptop
from tests.test_launcher_faults import remember
from tests.test_runs import FILES, SUCCEED
from tests.toy import write_task

PROFILES = profile.load()
SECRET = "s3cr3t"


def refused(call: Any, *arguments: Any, **more: Any) -> LaunchError:
    with pytest.raises(LaunchError) as error:
        call(*arguments, **more)
    return error.value


def test_only_machines_that_keep_their_disks_and_stop_costing_are_powered_off() -> None:
    planned = after.poweroff("box", PROFILES.named("autodl"), "/root/autodl-tmp/launch", keep_on_failure=True)
    assert planned == {
        "command": ["/bin/sh", "/usr/bin/shutdown"],
        "keep_on_failure": True,
        "durable": ["/", "/root/autodl-tmp", "/root/autodl-fs"],
    }
    for one in PROFILES.all():
        if one.poweroff.safe:
            assert after.poweroff("box", one, one.workspaces[0].replace("~", "/root"))["durable"]
        else:
            error = refused(after.poweroff, "box", one, one.workspaces[0])
            assert (error.code, "from inside" in error.message) == ("poweroff_unsafe", True)


def test_a_workspace_that_does_not_survive_is_refused() -> None:
    only = replace(PROFILES.named("autodl"), durable=(profile.Durable("/root/autodl-fs", "release"),))
    error = refused(after.poweroff, "box", only, "/root/autodl-tmp/launch")
    assert "/root/autodl-tmp/launch would not survive" in error.message
    assert after.poweroff("box", only, "/root/autodl-fs/launch")


def test_the_terms_of_a_run_become_keys_of_its_plan(tmp_path: Path) -> None:
    agent = Agent(LocalHost(), workspace=str(tmp_path))
    terms = Terms(1.5, "poweroff", True)
    assert terms.for_host(PROFILES.named("autodl"), agent) == {
        "limit_s": 5400,
        "poweroff": after.poweroff("local", PROFILES.named("autodl"), str(tmp_path), keep_on_failure=True),
    }
    assert Terms().for_host(PROFILES.named("plain"), agent) == {}
    assert "any machine behind SSH" in refused(terms.for_host, PROFILES.named("plain"), agent).message
    assert refused(Terms, None, "poweroff").code == "usage"
    assert refused(Terms, float("nan")).code == "usage"
    error = refused(Terms, 1.0, notify=("https://example.com/", f"ftp://x/{SECRET}"))
    assert error.code == "usage"
    assert SECRET not in error.message + error.hint


def test_a_dry_run_refuses_what_the_run_would_be_refused_for(cli: Cli) -> None:
    spec = write_task(cli.home / "task", secrets="[MY_KEY]")
    dry = ["train", str(spec), "--host", "local", "--dry-run", "--json"]
    found = cli(*dry).data["findings"]
    assert ["MY_KEY" in one["what"] for one in found if one["code"] == "secrets_missing"] == [True]
    told = cli(*dry, env={"MY_KEY": SECRET})
    assert "secrets_missing" not in told.stdout
    assert SECRET not in told.stdout + told.stderr
    refusal = cli(*dry, "--on-finish", "poweroff", "--max-hours", "1")
    assert (refusal.status, refusal.error["code"]) == (1, "poweroff_unsafe")


@pytest.mark.parametrize("error", [Unreachable("cut"), TimedOut("late"), BadReply("what?"), KeyboardInterrupt()])
def test_a_run_that_may_have_started_is_not_forgotten(tmp_path: Path, error: BaseException) -> None:
    record = Laptop(tmp_path).record
    forgotten: list[int] = []
    with pytest.raises((RemoteError, LaunchError)) as caught, submit.starting(record, lambda: forgotten.append(1)):
        raise error
    assert f"{RUN_ID} may have started" in caught.value.message
    assert caught.value.hint.startswith("launch ps")  # not the same command again: that would be a second run
    assert exit_status(caught.value.code) == exit_status(getattr(error, "code", "interrupted"))
    with pytest.raises(RemoteError, match="no"), submit.starting(record, lambda: forgotten.append(1)):
        raise RemoteError("no")
    assert forgotten == [1]


def test_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTODL_TOKEN", raising=False)
    [hook, chat] = after.targets(["https://example.com/h?k=1", "wechat", "wechat"], lambda _: f" {SECRET}\n")
    assert (hook["kind"], hook["url"]) == ("json", "https://example.com/h?k=1")
    assert (chat["kind"], chat["token"], chat["url"]) == ("wechat", SECRET, after.WECHAT_URL)
    monkeypatch.setenv("AUTODL_TOKEN", "other")
    assert after.targets(["wechat"], lambda _: None)[0]["token"] == "other"
    assert after.targets([], lambda _: None) == []


@pytest.mark.parametrize(
    "value",
    [f"ftp://x/{SECRET}", f"/{SECRET}", SECRET, f"http:///{SECRET}", f"http://h:99999/{SECRET}", f"http://h/ {SECRET}",
     f"https://me:{SECRET}@example.com/", f"http://h/\n{SECRET}", f"http://h/评{SECRET}", f"http://[{SECRET}"],
)  # fmt: skip
def test_targets_that_are_none_are_refused_without_quoting_them(value: str) -> None:
    error = refused(after.targets, [value], lambda _: None)
    assert error.code == "usage"
    assert SECRET not in error.message + error.hint


def test_wechat_without_a_token_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTODL_TOKEN", raising=False)
    assert "AUTODL_TOKEN" in refused(after.targets, ["wechat"], lambda _: None).hint


@pytest.mark.parametrize("crash", ['{"protocol": 1}', None])
def test_the_crash_comes_home_with_a_run_that_failed(tmp_path: Path, crash: str | None) -> None:
    laptop = Laptop(tmp_path)
    laptop.finish("failed")
    if crash:
        laptop.run.crash.write_text(crash)
    home = RunDirectory(laptop.pull().folder)
    assert (home.crash.read_text() if home.crash.exists() else None) == crash  # an older version left none


pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


class Here:
    """This machine as a host, with one run that the ledger knows."""

    def __init__(self, cli: Cli) -> None:
        self.cli = cli
        self.agent = Agent(LocalHost(), workspace=str(cli.home / "launch" / "cache" / "launch"))
        self.ledger = remember(cli)
        self.root = Path(self.agent.workspace) / "runs" / RUN_ID

    def submit(self, *argv: str, **changes: Any) -> None:
        plan = {"run_id": RUN_ID, "name": "reviews", "files": FILES, "env": {}, "limit_s": 3600,
                "phases": [{"state": "running", "argv": list(argv)}]}  # fmt: skip
        runs.submit(self.agent, plan | changes, links=[], documents={})

    def poweroff(self, **changes: Any) -> dict[str, Any]:
        quick = {"poll_s": 0.05, "grace_s": 0.2, "quiet_s": 0.2, "retry_s": []}
        command = ["sh", "-c", f"echo off >{self.cli.home / 'off'}"]
        return {"command": command, "durable": ["/"], "keep_on_failure": True, **quick, **changes}

    def finished(self) -> None:
        eventually(lambda: (self.root / "result.json").exists())


@pytest.fixture
def here(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Any:
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs /proc")
    with private_tmux() as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
            cli.env[name] = value
        monkeypatch.delenv("TMUX", raising=False)
        made = Here(cli)
        yield made
        if made.root.is_dir():  # what waits for its hard limit would wait for an hour
            runs.stop(made.agent, RUN_ID)
            (made.root / "fuse.off").touch()


def test_a_run_that_was_killed_ends_in_a_card(here: Here) -> None:
    here.submit("sh", "-c", "echo reading; printf 'at \\033[31mred\\n'; kill -9 $$")
    shown = here.cli("wait", RUN_ID, "--json")
    assert (shown.status, shown.error["code"]) == (6, "run_failed")
    found = json.loads(shown.stdout)["data"]
    assert (found["cause"], found["run_id"]) == ("killed_by_hand", RUN_ID)
    assert found["evidence"][0] == "exit status 137 (signal 9) while running"
    assert "GiB" in found["evidence"][1]
    assert found["evidence"][-2:] == ["reading", "at red"]
    assert found["next"] == f"launch retry {RUN_ID}"
    text = here.cli("logs", RUN_ID, "-f").stderr
    assert "  | exit status 137 (signal 9) while running\n" in text
    assert f"hint: launch retry {RUN_ID}\n" in text
    assert max(map(len, text.splitlines())) <= 80 or "error:" in max(text.splitlines(), key=len)


def test_a_run_that_took_too_long_is_exit_124(here: Here) -> None:
    here.submit("sh", "-c", "sleep 60", limit_s=0.5)
    ended = here.cli("wait", RUN_ID, "--json")
    assert (ended.status, ended.error["code"], ended.error["hint"]) == (124, "time_limit", f"launch retry {RUN_ID}")


def test_a_card_of_a_run_whose_host_is_gone_comes_from_what_was_pulled(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.submit(sys.executable, "-ISc", "import no_such_package")
    here.finished()
    assert here.cli("pull", RUN_ID).status == 0
    shutil.rmtree(here.root)
    from launcher import conclusion
    from launcher.app import App

    monkeypatch.setenv("LAUNCH_HOME", here.cli.env["LAUNCH_HOME"])
    state = runs.State(RUN_ID, "failed", "running: ended with status 1")
    card = conclusion.card_of(App(), here.ledger.find(RUN_ID), state)
    assert card
    assert card.cause == "missing_module"


def test_the_fuse_of_a_run_is_shown_and_disarmed(here: Here) -> None:
    here.submit("sh", "-c", "exit 3", poweroff=here.poweroff())
    here.finished()
    eventually(lambda: "kept" in (here.root / "fuse.json").read_text())
    [shown] = here.cli("fuse", "show", "--json").data["fuses"]
    assert (shown["run_id"], shown["host"], shown["state"]) == (RUN_ID, "local", "kept")
    assert 0 < shown["left_s"] < 3700
    assert here.cli("fuse", "show", "--host", "local", "--json").data["fuses"][0]["state"] == "kept"
    assert "until the limit" in here.cli("fuse", "show", RUN_ID).stdout
    asked = here.cli("fuse", "off", "--json")
    assert (asked.status, asked.error["code"]) == (2, "usage")  # nobody to ask, and no RUN
    assert here.cli("fuse", "off", RUN_ID, "--json").data["state"] == "off"
    assert "the host stays on" in here.cli("fuse", "show").stdout
    assert not (here.cli.home / "off").exists()


def test_on_a_host_without_runs_no_other_hosts_fuse_is_disarmed(here: Here) -> None:
    here.submit("sh", "-c", "exit 3", poweroff=here.poweroff())
    here.finished()
    eventually(lambda: "kept" in (here.root / "fuse.json").read_text())
    refusal = here.cli("fuse", "off", "--host", "root@127.0.0.1:1", "-y", "--json")
    assert (refusal.status, refusal.error["code"]) == (4, "run_not_found")
    assert "kept" in (here.root / "fuse.json").read_text()


def test_there_may_be_no_fuse(here: Here) -> None:
    here.submit("sh", "-c", SUCCEED)
    here.finished()
    assert here.cli("fuse", "show", "--json").data["fuses"][0]["state"] == ""
    assert here.cli("fuse", "show", "--host", "local").stdout == "no fuse\n"
    refused = here.cli("fuse", "off", RUN_ID, "--json")
    assert refused.status == 1
    assert "nothing to disarm" in refused.error["message"]
    assert not (here.root / "fuse.off").exists()
    assert here.cli("fuse", "show", "nobody", "--host", "local").status == 4
