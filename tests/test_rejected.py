"""Adapters that are not to be used: what comes home of them, where it lies, and that nothing calls it a success."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import manifest
from jobs.run_directory import RunDirectory
from launcher import home_jobs, verdict
from launcher.bring_home import Pulled, bring_home
from launcher.errors import LaunchError, VerificationFailed
from launcher.progress import ignore
from launcher.settings import load
from tests import hand_made
from tests.conftest import Cli
from tests.test_bring_home import RUN_ID, Laptop
from tests.test_launcher_faults import laptop_of

CHECK = {"id": "lora_b", "status": "fail", "detail": "14 of 14 are all zero", "meaning": "never trained", "todo": "",
         "required": True}  # fmt: skip
LATER = {**CHECK, "id": "portable", "status": "not_checked", "detail": "the checks before it failed"}


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


def failed_there(laptop: Laptop, document: Any = None) -> None:
    """The run's host found the adapter empty, said so, and vouches for that."""
    laptop.finish()
    hand_made.empty(laptop.run)
    told = {"ok": False, "level": "static", "checks": [CHECK, LATER]} if document is None else document
    laptop.run.host_verification.write_text(told if isinstance(told, str) else json.dumps(told))
    laptop.vouch("failed")
    hand_made.says(laptop.run, reason="verification: lora_b, portable")


def empty_there(laptop: Laptop) -> None:
    """The host calls an empty adapter a success, and vouches for every byte of it."""
    laptop.finish()
    hand_made.empty(laptop.run)
    laptop.vouch()


def refused(laptop: Laptop, **options: Any) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        pull(laptop, **options)
    return caught.value


def pull(laptop: Laptop, **options: Any) -> Pulled:
    return bring_home(laptop.record, laptop.agent, laptop.ledger, laptop.target, ignore, **options)


def there(laptop: Laptop) -> set[str]:
    return {path.name for path in laptop.target.iterdir()}


def artifacts(run: RunDirectory) -> set[str]:
    folder = run.artifacts
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_of_an_adapter_that_failed_there_the_reasons_come_in_words(laptop: Laptop) -> None:
    failed_there(laptop)
    error = refused(laptop)
    assert "its adapter failed verification on box" in error.message
    assert "lora_b: 14 of 14 are all zero. never trained" in error.message
    assert "1 more could not be checked" in error.message
    assert f"launch pull {RUN_ID} --force" in error.hint
    home = RunDirectory(laptop.target / RUN_ID)
    assert there(laptop) == {RUN_ID}
    assert home.log.read_text() == "said\n" and home.events.exists() and home.spec.exists()
    assert json.loads(home.result.read_text())["state"] == "failed"
    assert artifacts(home) == {"verification.json"}
    assert refused(laptop).message == error.message  # again: the same


@pytest.mark.parametrize("fail", [failed_there, empty_there])
def test_by_force_all_of_it_comes_but_not_as_the_run(laptop: Laptop, fail: Callable[[Laptop], None]) -> None:
    fail(laptop)
    for _ in range(2):
        error = refused(laptop, force=True)
        place = RunDirectory(laptop.target / f"{RUN_ID}.rejected")
        assert "lora_b" in error.message and str(place.root) in error.message
        assert error.hint == f"launch verify {place.root}"
        assert there(laptop) == {place.root.name}
        assert manifest.problems(place.artifacts, manifest.parse(place.manifest.read_text())) == []
        assert laptop.ledger.find(RUN_ID).pulled_to == ""
    home = home_jobs.find(str(place.root), laptop.ledger)
    assert home.submission == laptop.record.submission  # the laptop's own memory, also of a folder of that name
    with pytest.raises(VerificationFailed, match="result: it was rejected when it was pulled"):
        verdict.check(RUN_ID, home_jobs.verify(home, laptop.target, ignore, static=True))
    with pytest.raises(VerificationFailed, match="is not evaluated: result: it was rejected"):
        home_jobs.evaluate(home, load(), ignore)


def test_a_healthy_looking_adapter_in_such_a_folder_is_still_refused(laptop: Laptop) -> None:
    laptop.finish()
    laptop.pull()
    (laptop.target / RUN_ID).rename(laptop.target / f"{RUN_ID}.rejected")
    home = home_jobs.find(str(laptop.target / f"{RUN_ID}.rejected"), laptop.ledger)
    found = home_jobs.verify(home, laptop.target, ignore, static=True)
    assert [check["id"] for check in found["checks"] if check["status"] == "fail"] == ["result"]
    assert found["ok"] is False


def test_names_that_no_file_can_hold_end_in_a_verdict(laptop: Laptop) -> None:
    laptop.finish()
    home = home_jobs.find(str(laptop.pull().folder), laptop.ledger)
    entries = json.loads(home.run.manifest.read_text())["files"]
    entries.append({"path": "\ud800", "size_bytes": 1, "sha256": "0" * 64})
    home.run.manifest.write_text(json.dumps({"files": entries}))
    hand_made.says(home.run, manifest_sha256=manifest.sha256_of(home.run.manifest))
    found = home_jobs.verify(home, laptop.target, ignore, static=True)
    assert [check["detail"] for check in found["checks"] if check["status"] == "fail"] == ["?: missing"]
    assert home.run.home_verification.exists()


def test_another_run_in_a_run_s_folder_is_not_taken_for_it(laptop: Laptop) -> None:
    laptop.finish()
    laptop.pull()
    home = home_jobs.find(RUN_ID, laptop.ledger)
    hand_made.says(home.run, run_id="reviews-bbbbbbbb")
    with pytest.raises(VerificationFailed, match="is not evaluated: result: it is that of 'reviews-bbbbbbbb'"):
        home_jobs.evaluate(home, load(), ignore)
    assert not home_jobs.verify(home, laptop.target, ignore, static=True)["ok"]


def test_an_evaluation_is_written_into_the_run_s_folder_only(laptop: Laptop, tmp_path: Path) -> None:
    laptop.finish()
    laptop.pull()
    home = home_jobs.find(RUN_ID, laptop.ledger)
    (tmp_path / "elsewhere").mkdir()
    (home.run.root / "evaluations").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "rows.csv").write_text("text,label\na,bad\nb,good\n")
    with pytest.raises(LaunchError, match="leads out of the run's folder"):
        home_jobs.evaluate(home, load(), ignore, home_jobs.Evaluation(data=tmp_path / "rows.csv"))
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_run_that_failed_is_never_ok_whatever_is_seen_here(laptop: Laptop) -> None:
    """Bytes of a run that its host rejected, put together by hand under the run's own name."""
    laptop.finish("failed")
    hand_made.says(laptop.run, reason="verification: as_trained")
    home = home_jobs.find(str(laptop.run.root), laptop.ledger)
    found = home_jobs.verify(home, laptop.target, ignore, static=True)
    failed = {check["id"]: check["detail"] for check in found["checks"] if check["status"] == "fail"}
    assert failed == {"result": "the run ended 'failed: verification: as_trained'"}
    assert found["ok"] is False


def test_the_laptop_does_not_believe_a_host_that_calls_an_empty_adapter_a_success(laptop: Laptop) -> None:
    empty_there(laptop)
    error = refused(laptop)
    assert "box says that it succeeded, but the adapter that came is not to be used" in error.message
    assert "lora_b: 1 of 1 are all zero" in error.message and "never trained" in error.message
    place = RunDirectory(laptop.target / f"{RUN_ID}.rejected")
    assert there(laptop) == {place.root.name}
    assert place.log.exists() and place.events.exists() and place.result.exists() and not place.artifacts.exists()
    assert laptop.ledger.find(RUN_ID).pulled_to == ""  # so `launch clean` leaves the only copy where it is
    refused(laptop, force=True)
    refused(laptop)
    assert artifacts(place) >= hand_made.FILES  # what came by force stays


def without_digests(run: RunDirectory) -> None:
    told = json.loads(run.training.read_text())
    run.training.write_text(json.dumps(told | {"initial": dict.fromkeys(told["initial"])}))


def relabelled(run: RunDirectory, *names: str) -> None:
    """Told by every file alike."""
    labels = {"id2label": {str(number): name for number, name in enumerate(names)}}
    told = {run.training: {"label_names": names}, run.probe_texts: labels, run.adapter / "classifier.json": labels}
    for path, changes in told.items():
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def longer(run: RunDirectory) -> None:
    for path in (run.probe_texts, run.adapter / "classifier.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"max_length": 48_000}))


def configured(run: RunDirectory, **changes: Any) -> None:
    path = run.adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda run: run.probe_texts.write_text("{}"), "classifier: not as in training: id2label"),
        (lambda run: relabelled(run, "good", "bad"), "classifier: not as in training: the order of the labels"),
        (lambda run: relabelled(run, "good", "good"), "classifier: not as in training: the order of the labels"),
        (longer, "classifier: not as in training: max_length of the spec"),
        (without_digests, "moved: 3 tensors have no fingerprint from step 0"),
        (lambda run: configured(run, lora_alpha=10**400), "config: lora_alpha 1000"),
        (lambda run: configured(run, lora_alpha=32), "settings: not as was asked for: lora_alpha"),
        (lambda run: configured(run, use_rslora=False), "settings: not as was asked for: use_rslora"),
        (lambda run: configured(run, alpha_pattern={"up_proj": 32}), "settings: not as was asked for: alpha_pattern"),
        (lambda run: configured(run, init_lora_weights="pissa"), "settings: not as was asked for: init_lora_weights"),
    ],
    ids=[
        "nothing to compare",
        "labels swapped",
        "one label twice",
        "longer texts",
        "no digests",
        "no float",
        "alpha",
        "no rsLoRA",
        "one alpha",
        "PiSSA",
    ],
)
def test_what_a_host_vouches_for_is_held_against_what_was_asked(
    laptop: Laptop, harm: Callable[[RunDirectory], Any], says: str
) -> None:
    laptop.finish()
    harm(laptop.run)
    laptop.vouch()
    assert says in refused(laptop).message
    assert there(laptop) == {f"{RUN_ID}.rejected"}


def test_what_is_home_already_stays_when_the_host_changes_its_mind(laptop: Laptop) -> None:
    laptop.finish()
    home = RunDirectory(laptop.pull().folder)
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    hand_made.empty(laptop.run)
    laptop.vouch()
    refused(laptop)
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before


def test_force_changes_nothing_for_a_run_that_succeeded(laptop: Laptop) -> None:
    laptop.finish()
    pulled = pull(laptop, force=True)
    assert (pulled.state, there(laptop)) == ("succeeded", {RUN_ID})
    assert laptop.ledger.find(RUN_ID).pulled_to == str(pulled.folder)


def test_only_what_has_to_do_with_the_adapter_is_held_against_it(laptop: Laptop) -> None:
    empty_there(laptop)
    pulled = pull(laptop, include=["probes/*"])
    assert artifacts(RunDirectory(pulled.folder)) == {"probes/probes.json"}
    assert "lora_b" in refused(laptop, include=["adapter/classifier.json"]).message
    assert artifacts(RunDirectory(pulled.folder)) == {"probes/probes.json"}


def test_of_a_sound_adapter_a_part_comes_and_what_its_checks_took_does_not(laptop: Laptop) -> None:
    laptop.finish()
    pulled = pull(laptop, include=["adapter/classifier.json"])
    assert artifacts(RunDirectory(pulled.folder)) == {"adapter/classifier.json"}
    assert [path.name for path in (pulled.folder / "artifacts").iterdir()] == ["adapter"]


def test_a_success_without_any_adapter_is_none(laptop: Laptop) -> None:
    laptop.finish()
    for path in laptop.run.adapter.iterdir():
        path.unlink()
    laptop.vouch()
    assert "files: no adapter_model.safetensors" in refused(laptop).message
    assert not (laptop.target / RUN_ID).exists()


@pytest.mark.parametrize(
    "document",
    ["[", "[]", '{"checks": [1]}', '{"checks": [{"required": true}]}', '{"checks": []}', "[" * 99_999],
)
def test_findings_that_make_no_sense_leave_the_names_of_the_checks(laptop: Laptop, document: str) -> None:
    failed_there(laptop, document)
    assert "  - lora_b, portable\n" in refused(laptop).message


def test_findings_that_the_run_does_not_vouch_for_are_not_told(laptop: Laptop) -> None:
    failed_there(laptop)
    laptop.run.host_verification.write_text(json.dumps({"checks": [{**CHECK, "detail": "nothing to see"}]}))
    error = refused(laptop)
    assert "verification.json" in error.message and "nothing to see" not in error.message
    assert laptop.nothing_came()


def test_a_host_can_not_fill_the_screen(laptop: Laptop) -> None:
    many = [{**CHECK, "id": f"c{number}", "detail": "x\n" * 2000} for number in range(100)]
    failed_there(laptop, {"checks": many})
    message = refused(laptop).message
    assert len(message.splitlines()) < 30 and len(message) < 30_000


def test_a_run_of_an_older_version_that_failed_lists_nothing(laptop: Laptop) -> None:
    failed_there(laptop)
    laptop.run.manifest.unlink()
    result = json.loads(laptop.run.result.read_text())
    result.pop("manifest_sha256")
    laptop.run.result.write_text(json.dumps(result))
    for force in (False, True):
        assert "lora_b, portable" in refused(laptop, force=force).message
        assert there(laptop) == {RUN_ID} and not (laptop.target / RUN_ID / "artifacts").exists()


def test_the_command_line_calls_nothing_of_it_a_success(cli: Cli) -> None:
    laptop = laptop_of(cli)
    failed_there(laptop, {"checks": [{**CHECK, "detail": "\x1b[2J[red]zero\x07"}]})
    pulled = cli("pull", "--json")
    assert (pulled.status, pulled.error["code"]) == (7, "verification_failed")
    assert "[red]zero" in pulled.error["message"] and "\x1b" not in pulled.error["message"]
    assert "--force" in pulled.error["hint"]
    waited = cli("wait", "--json")
    assert (waited.status, waited.error["code"]) == (7, "verification_failed")
    assert "launch pull" in waited.error["hint"]
    place = cli.home / "runs" / f"{RUN_ID}.rejected"
    assert cli("pull", "--force").status == 7
    for argv in (("verify", "--static"), ("evaluate",)):
        for what in (RUN_ID, str(place)):
            ended = cli(argv[0], what, *argv[1:], "--json")
            assert (ended.status, ended.error["code"]) == (7, "verification_failed"), ended
            assert "result: " in ended.error["message"]
