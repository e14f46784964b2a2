"""The command line as a person and a script meet it: envelopes, exit statuses, errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.toy import write_task


def test_dry_run_plans_and_sends_nothing(cli: Cli) -> None:
    spec = write_task(cli.home / "task")
    planned = cli("train", str(spec), "--host", "local", "--dry-run", "--json", "--lora-r", "8")
    assert planned.status == 0, planned
    assert planned.data["rows"] == {"train": 200, "validation": 80, "test": 80}
    assert planned.data["spec"]["lora_r"] == 8
    assert planned.data["base"] == "pushed from this machine"
    assert cli("ps", "-a", "--json").data["runs"] == []
    text = cli("train", str(spec), "--host", "local", "--dry-run")
    assert "nothing was sent" in text.stdout


@pytest.mark.parametrize(
    ("argv", "status", "code"),
    [
        (["nonsense"], 2, "usage"),
        (["train"], 2, "usage"),
        (["train", "none.yaml", "--host", "local"], 2, "spec_invalid"),
        (["host", "add", "box", "ssh -R 1:2:3 root@box"], 2, "address_invalid"),
        (["host", "add", "box", "root@127.0.0.1:1"], 5, "unreachable"),
        (["host", "remove", "box", "-y"], 4, "host_not_found"),
        (["ps", "--host", "box"], 4, "host_not_found"),
        (["logs"], 4, "run_not_found"),
        (["wait", "x"], 4, "run_not_found"),
        (["stop", "x"], 4, "run_not_found"),
        (["pull", "x"], 4, "run_not_found"),
        (["verify", "x"], 4, "run_not_found"),
        (["evaluate", "x"], 4, "run_not_found"),
        (["compare", "x", "y"], 4, "run_not_found"),
        (["compare", "x"], 2, "usage"),
        (["publish", "x", "me/x", "--dry-run"], 4, "run_not_found"),
        (["publish", "x", "nobody"], 2, "usage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_errors_have_a_status_a_code_and_a_hint_in_both_forms(
    cli: Cli, argv: list[str], status: int, code: str
) -> None:
    as_json = cli(*argv, "--json")
    assert (as_json.status, as_json.error["code"]) == (status, code), as_json
    assert as_json.error["message"]
    as_text = cli(*argv)
    assert as_text.status == status
    assert as_text.stdout == ""
    assert as_text.stderr.startswith("error: ")
    assert "hint: " in as_text.stderr
    assert "Traceback" not in as_text.stderr


def test_data_that_cannot_be_trained_on_is_refused_before_anything_is_sent(cli: Cli) -> None:
    spec = write_task(cli.home / "task")
    (cli.home / "task" / "train.csv").write_bytes("text,label\ncafé noir,1\n".encode("latin-1"))
    refused = cli("train", str(spec), "--host", "nowhere", "--json")
    assert refused.error["code"] == "data_invalid"
    assert "train.csv" in refused.error["message"]
    assert "UTF-8" in refused.error["message"]


def test_a_model_folder_that_is_not_there(cli: Cli) -> None:
    spec = write_task(cli.home / "task", model_name_or_path="../no/such/folder")
    refused = cli("train", str(spec), "--host", "nowhere", "--json")
    assert refused.status == 1
    assert "no such model folder" in refused.error["message"]


def test_a_host_that_was_never_seen_is_not_saved_without_a_word(cli: Cli, embedded: object) -> None:
    line = embedded.login_line  # type: ignore[attr-defined]
    argv = ("host", "add", "box", line, "--known-hosts", str(cli.home / "known_hosts"), "--json")
    refused = cli(*argv)
    assert (refused.status, refused.error["code"]) == (3, "host_key_unknown")
    assert "SHA256:" in refused.error["message"]
    assert "--accept-new" in refused.error["hint"]
    assert cli("host", "list", "--json").data["hosts"] == []
    assert not (cli.home / "known_hosts").exists()
    assert cli(*argv, "--accept-new").data["name"] == "box"
    assert cli(*argv).data["name"] == "box"  # idempotent, and the key is known now
    assert len(cli("host", "list", "--json").data["hosts"]) == 1
    assert len((cli.home / "known_hosts").read_text().splitlines()) == 1


def test_a_broken_hosts_file_is_named(cli: Cli) -> None:
    (cli.home / "launch").mkdir()
    (cli.home / "launch" / "hosts.toml").write_text("this is not TOML")
    broken = cli("host", "list", "--json")
    assert broken.status == 1
    assert "hosts.toml" in broken.error["message"]


def test_stdout_of_a_json_command_is_one_document(cli: Cli) -> None:
    listed = cli("ps", "--json")
    assert json.loads(listed.stdout) == {"ok": True, "data": {"runs": [], "notes": []}}
    assert listed.stderr == ""


def test_evaluate_is_a_command_of_its_own(cli: Cli) -> None:
    import subprocess
    import sys

    script = Path(sys.executable).with_name("evaluate")
    done = subprocess.run(
        [script, "x", "--json"], env=cli.env, cwd=cli.home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert json.loads(done.stdout)["error"]["code"] == "run_not_found"


def test_data_are_checked_before_anything_is_sent(cli: Cli) -> None:
    spec = write_task(cli.home / "task", train=60)
    leak = (cli.home / "task" / "train.csv").read_text("utf-8") + "\x1b[31m[bold]红[/bold]\x1b]0;x\x07,positive\n" * 2
    (cli.home / "task" / "train.csv").write_text(leak, "utf-8")
    (cli.home / "task" / "test.csv").write_text(leak, "utf-8")
    checked = cli("check", str(spec), "--json")
    assert checked.status == 1
    assert checked.data["findings"][0]["code"] == "duplicate"
    assert checked.data["findings"][0]["severity"] == "error"
    assert checked.data["lengths"]["is_estimate"] is False
    text = cli("check", str(spec))
    assert text.status == 1
    assert text.stdout.startswith("CLASS")
    assert "error: 62 rows of test (100.0%) found in train, too" in text.stdout
    assert "[bold]红[/bold]" in text.stdout
    assert "\x1b" not in text.stdout
    refused = cli("train", str(spec), "--host", "local", "--json")
    assert (refused.status, refused.error["code"]) == (1, "data_unfit")
    assert "62 rows of test" in refused.error["message"]
    assert "--force" in refused.error["hint"]
    planned = cli("train", str(spec), "--host", "local", "--dry-run", "--json")
    assert planned.status == 1
    assert planned.data["data_findings"][0]["code"] == "duplicate"
    assert cli("train", str(spec), "--host", "local", "--dry-run", "--force", "--json").status == 0


def test_one_unsplit_file_in_gbk_is_checked_and_split(cli: Cli) -> None:
    spec = write_task(cli.home / "task", train=300, data="train.csv", model_name_or_path="org/elsewhere", max_length=8)
    path = cli.home / "task" / "train.csv"
    path.write_bytes(path.read_text("utf-8").encode("gbk"))
    checked = cli("check", str(spec), "--json", env={"HF_HUB_OFFLINE": "1"})
    assert checked.status == 0, checked
    assert checked.data["split"]["how"] == "stratified hash"
    found = {one["code"]: one for one in checked.data["findings"]}
    assert "GBK" in found["encoding"]["what"]
    assert "about" in found["cut"]["what"]
    assert "estimated" in found["cut"]["what"]
    assert "duplicate" not in found
