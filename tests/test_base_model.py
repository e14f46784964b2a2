"""Where the base comes from, with real downloads by real processes from a small Hub on localhost."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub, digest, serve

from jobs import base_model, manifest, spec, submission
from jobs.errors import BrokenRun, DataError, JobError
from jobs.run_directory import RunDirectory, new_run_id

# huggingface_hub reads HF_ENDPOINT when it is imported, so every download is a process of its own.
PROGRAM = """
import json, sys
from jobs import base_model
from jobs.errors import JobError
try:
    outcome = {"folder": str(base_model.locate(sys.argv[1], sys.argv[2], pushed=None))}
except JobError as error:
    outcome = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
print(json.dumps(outcome))
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What a repository holds: what is wanted, and what must not be fetched."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "merges.txt", "model.safetensors"):
        (folder / name).write_text(f"{{}} {name}")
    for name in ("pytorch_model.bin", "modeling_evil.py", "README.md", "consolidated.safetensors", "training_args.pt"):
        (folder / name).write_text("not wanted")
    return folder


@pytest.fixture
def hub(model: Path) -> Iterator[Hub]:
    with serve({"org/model": model, "org/gated": model}) as running:
        yield running


def environment(endpoint: str, cache: Path, **more: str) -> dict[str, str]:
    """What a process gets that talks to the Hub: nothing of this login's Hub and proxies."""
    strange = ("HF_", "HUGGING")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith(strange) and not key.upper().endswith("_PROXY")
    }
    ours = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "HF_HUB_ETAG_TIMEOUT": "2"}
    ours |= {"HF_HUB_DISABLE_TELEMETRY": "1"}  # as the launcher does
    return kept | ours | {"PYTHONPATH": str(Path(base_model.__file__).parents[1])} | more


def locate(name: str, revision: str, endpoint: str, cache: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, name, revision],
        env=environment(endpoint, cache),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def make_run(root: Path, name: str = "org/model", revision: str = "main") -> RunDirectory:
    """A submitted run with that base."""
    run = RunDirectory(root / new_run_id("toy"))
    run.root.mkdir(parents=True)
    document = {
        "name": "toy",
        "model_name_or_path": name,
        "model_revision": revision,
        "data": {"file": "inputs/file.csv"},
    }
    entry = {"file": manifest.Entry("inputs/file.csv", 1, "0" * 64)}
    frozen = submission.Submission(run.run_id, spec.from_mapping(document, origin="test"), entry, (), "0" * 64)
    run.spec.write_text(json.dumps(frozen.to_json()), "utf-8")
    return run


def start(run: RunDirectory, hub: Hub, cache: Path, **more: str) -> subprocess.Popen[str]:
    """`python -m jobs fetch RUN`, going on."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "jobs", "fetch", str(run.root)],
        env=environment(hub.endpoint, cache, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def fetch(run: RunDirectory, hub: Hub, cache: Path, **more: str) -> tuple[int, str]:
    """`python -m jobs fetch RUN`: its exit status, and what it printed."""
    with start(run, hub, cache, **more) as process:
        printed, _ = process.communicate(timeout=120)
        return process.returncode, printed


def pinned(run: RunDirectory) -> Any:
    return json.loads(run.base.read_text("utf-8"))


def result(run: RunDirectory) -> Any:
    return json.loads(run.result.read_text("utf-8"))


def blobs(cache: Path) -> Path:
    return cache / "hub" / "models--org--model" / "blobs"


def grow(model: Path, size_bytes: int) -> Path:
    """The model's weights, made of so many random bytes."""
    weights = model / "model.safetensors"
    weights.write_bytes(random.Random(0).randbytes(size_bytes))
    return weights


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_download_fetches_weights_config_and_tokenizer_only(hub: Hub, model: Path, tmp_path: Path) -> None:
    wanted = {"config.json", "tokenizer.json", "merges.txt", "model.safetensors"}
    found = Path(locate("org/model", "main", hub.endpoint, tmp_path / "cache")["folder"])
    assert {file.name for file in found.iterdir()} == hub.downloaded() == wanted
    assert all((found / name).read_bytes() == (model / name).read_bytes() for name in wanted)

    # With the Hub gone, what is in the cache is enough.
    again = locate("org/model", "main", "http://127.0.0.1:9", tmp_path / "cache")
    assert again == {"folder": str(found)}


@pytest.mark.parametrize(
    ("name", "revision", "error", "says", "hint"),
    [
        ("org/absent", "main", "DataError", "no such model", "model_name_or_path: FOLDER"),
        ("org/gated", "main", "DataError", "gated; its owner has to grant access", "accept the terms"),
        ("org/model", "v9", "DataError", "no revision 'v9'", "model_revision: main"),
        ("../no/such/folder", "main", "DataError", "neither a folder here nor a Hub id", ""),
    ],
)
def test_says_why_there_is_no_model(
    hub: Hub, tmp_path: Path, name: str, revision: str, error: str, says: str, hint: str
) -> None:
    outcome = locate(name, revision, hub.endpoint, tmp_path / "cache")
    assert outcome["error"] == error
    assert outcome["message"].startswith(name)
    assert says in outcome["message"]
    assert hint in outcome["hint"]


@pytest.mark.parametrize("absolute", [True, False])
def test_a_revision_that_is_a_path_writes_nothing_outside_of_the_cache(
    hub: Hub, tmp_path: Path, absolute: bool
) -> None:
    """The cache has a file for each branch and tag, and this Hub has one for whatever it is asked."""
    victim = tmp_path / "victim"
    revision = str(victim) if absolute else "../../../../victim"
    hub.tags[revision] = COMMIT
    outcome = locate("org/model", revision, hub.endpoint, tmp_path / "cache")
    assert outcome.get("error") == "DataError" and "is no revision" in outcome["message"]
    assert not victim.exists()


def test_an_unreachable_hub_is_no_fault_of_the_model(tmp_path: Path) -> None:
    outcome = locate("org/model", "main", "http://127.0.0.1:9", tmp_path / "cache")
    assert outcome["error"] == "JobError"
    assert "http://127.0.0.1:9 can't be reached" in outcome["message"]
    assert "HF_ENDPOINT" in outcome["hint"]


def test_what_answers_may_be_no_hub(hub: Hub, tmp_path: Path) -> None:
    hub.is_a_portal = True
    outcome = locate("org/model", "main", hub.endpoint, tmp_path / "cache")
    assert outcome["error"] == "JobError"
    assert "not the answer of a Hub" in outcome["message"]


def test_a_pushed_folder_wins_over_one_of_that_name(model: Path, tmp_path: Path) -> None:
    assert base_model.locate("org/model", "main", pushed=model) == model
    assert base_model.locate(str(model), "main", pushed=None) == model


@pytest.mark.parametrize(("absent", "says"), [("config.json", "not a model"), ("model.safetensors", "pickled weights")])
def test_a_folder_that_cannot_be_loaded_safely_is_refused(model: Path, absent: str, says: str) -> None:
    (model / absent).unlink()
    if absent == "model.safetensors":
        (model / "consolidated.safetensors").unlink()
    with pytest.raises(DataError, match=says):
        base_model.locate(str(model), "main", pushed=None)


def test_weight_files_tell_one_base_from_another(model: Path) -> None:
    before = base_model.weight_files(model)
    (model / "model.safetensors").write_text("another")
    after = base_model.weight_files(model)
    assert before.keys() == after.keys() == {"consolidated.safetensors", "model.safetensors"}
    assert [name for name in after if after[name] != before[name]] == ["model.safetensors"]


LIBRARY = """
import sys
from huggingface_hub import snapshot_download
from jobs.base_model import UNWANTED, WANTED
chosen = {"allow_patterns": list(WANTED), "ignore_patterns": list(UNWANTED)}
print(snapshot_download(sys.argv[1], revision="main", local_files_only=True, **chosen))
"""


def test_fetch_pins_the_commit_and_the_weights(hub: Hub, model: Path, tmp_path: Path) -> None:
    run, cache = make_run(tmp_path), tmp_path / "cache"
    status, printed = fetch(run, hub, cache)
    assert status == 0, printed
    weights = model / "model.safetensors"
    expected = {"size_bytes": weights.stat().st_size, "sha256": manifest.sha256_of(weights)}
    folder = cache / "hub" / "models--org--model" / "snapshots" / COMMIT
    assert pinned(run) == {"folder": str(folder), "revision": COMMIT, "files": {"model.safetensors": expected}}
    assert {file.name for file in folder.iterdir()} == {"config.json", "tokenizer.json", "merges.txt", weights.name}
    assert "model.safetensors: whole and as listed" in printed
    assert not run.result.exists()

    # Other programs find it where the library would have put it, and the library knows that it is whole.
    asked = subprocess.run(
        [sys.executable, "-c", LIBRARY, "org/model"],
        env=environment("http://127.0.0.1:9", cache),
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.strip() == str(folder)


def test_a_folder_is_pinned_too(model: Path, hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path, str(model))
    assert fetch(run, hub, tmp_path / "cache")[0] == 0
    assert pinned(run).keys() == {"folder", "revision", "files"}
    assert (pinned(run)["folder"], pinned(run)["revision"]) == (str(model), "")
    assert hub.requests == []


def test_fetch_goes_on_where_a_killed_one_ended(hub: Hub, model: Path, tmp_path: Path) -> None:
    size = 24_000_000
    weights, run, cache = grow(model, size), make_run(tmp_path), tmp_path / "cache"
    part = blobs(cache) / f"{digest(weights, 'sha256')}.incomplete"
    hub.bytes_per_s = 12e6
    with start(run, hub, cache) as process:
        until(lambda: part.is_file() and part.stat().st_size > size // 4)
        process.kill()  # SIGKILL
    have = part.stat().st_size
    assert size // 4 < have < size
    assert not run.base.exists()
    assert not part.with_suffix("").exists()

    hub.forget()
    hub.bytes_per_s = 0
    status, printed = fetch(run, hub, cache)
    assert status == 0, printed
    assert hub.sent_bytes() == {"model.safetensors": size - have, "tokenizer.json": len("{} tokenizer.json")}
    assert "are here already, going on" in printed
    assert pinned(run)["files"]["model.safetensors"]["sha256"] == manifest.sha256_of(weights)
    assert (Path(pinned(run)["folder"]) / "model.safetensors").read_bytes() == weights.read_bytes()
    assert not part.exists()


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_cut_connection_is_taken_up_again(hub: Hub, model: Path, tmp_path: Path, knows_ranges: bool) -> None:
    weights, run = grow(model, 3_000_000), make_run(tmp_path)
    hub.knows_ranges = knows_ranges
    hub.cuts = {"model.safetensors": [1_000_000, 1_000_000]}
    status, printed = fetch(run, hub, tmp_path / "cache")
    assert status == 0, printed
    assert "lost the connection at 1.0 MB" in printed
    assert hub.sent_bytes()["model.safetensors"] == 3_000_000 + (0 if knows_ranges else 2_000_000)
    assert (Path(pinned(run)["folder"]) / "model.safetensors").read_bytes() == weights.read_bytes()


def test_wrong_content_never_gets_the_name_of_the_right_one(hub: Hub, model: Path, tmp_path: Path) -> None:
    weights, run, cache = grow(model, 300_000), make_run(tmp_path), tmp_path / "cache"
    hub.wrong = {"model.safetensors"}
    status, printed = fetch(run, hub, cache)
    assert status == 1
    reason = result(run)["reason"]
    assert reason.startswith("model.safetensors: what came from http://127.0.0.1:")
    assert digest(weights, "sha256") in reason
    assert f"error: {reason}\nhint: start the run again" in printed
    assert not run.base.exists()
    names = {file.name for file in blobs(cache).iterdir()}
    assert not any(name.startswith(digest(weights, "sha256")) for name in names), names

    hub.wrong = set()
    hub.forget()
    again = make_run(tmp_path)
    assert fetch(again, hub, cache)[0] == 0
    assert hub.sent_bytes() == {"model.safetensors": 300_000, "tokenizer.json": len("{} tokenizer.json")}


@pytest.mark.parametrize("more_bytes", [-1000, 1000])
def test_a_file_of_another_size_than_listed_is_wrong(hub: Hub, model: Path, tmp_path: Path, more_bytes: int) -> None:
    weights, run, cache = grow(model, 300_000), make_run(tmp_path), tmp_path / "cache"
    hub.listed_bytes = {"model.safetensors": 300_000 + more_bytes}
    assert fetch(run, hub, cache)[0] == 1
    assert result(run)["reason"].startswith("model.safetensors: what came from")
    assert not any(blob.name.startswith(digest(weights, "sha256")) for blob in blobs(cache).iterdir())


def test_wrong_content_of_a_small_file_is_found_by_the_hash_of_git(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    hub.wrong = {"tokenizer.json"}
    assert fetch(run, hub, tmp_path / "cache")[0] == 1
    assert result(run)["reason"].startswith("tokenizer.json: what came from")


def test_a_part_that_went_bad_is_found(hub: Hub, model: Path, tmp_path: Path) -> None:
    weights, cache = grow(model, 300_000), tmp_path / "cache"
    part = blobs(cache) / f"{digest(weights, 'sha256')}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(100_000))
    first, second = make_run(tmp_path), make_run(tmp_path)
    assert fetch(first, hub, cache)[0] == 1
    assert "is not what the Hub lists" in result(first)["reason"]
    assert fetch(second, hub, cache)[0] == 0


def test_a_blob_that_went_bad_in_the_cache_is_fetched_anew(hub: Hub, model: Path, tmp_path: Path) -> None:
    weights, cache = grow(model, 300_000), tmp_path / "cache"
    assert fetch(make_run(tmp_path), hub, cache)[0] == 0
    blob = blobs(cache) / digest(weights, "sha256")
    blob.write_bytes(bytes(300_000))
    hub.forget()
    run = make_run(tmp_path)
    assert fetch(run, hub, cache)[0] == 0
    assert hub.sent_bytes() == {"model.safetensors": 300_000}
    assert blob.read_bytes() == weights.read_bytes()


def test_a_whole_cache_is_not_fetched_again_and_does_without_the_hub(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = make_run(tmp_path)
    assert fetch(first, hub, cache)[0] == 0
    hub.forget()
    second, third, fourth = make_run(tmp_path), make_run(tmp_path), make_run(tmp_path, revision=COMMIT)
    assert fetch(second, hub, cache)[0] == 0
    assert hub.sent_bytes() == {}
    hub.endpoint = "http://127.0.0.1:9"
    status, printed = fetch(third, hub, cache)
    assert status == 0, printed
    assert "the model is whole in the cache" in printed
    status, printed = fetch(fourth, hub, cache, HF_HUB_OFFLINE="1")
    assert status == 0, printed
    assert pinned(first) == pinned(second) == pinned(third) == pinned(fourth)


def test_half_a_snapshot_is_no_model(hub: Hub, tmp_path: Path) -> None:
    cache, run = tmp_path / "cache", make_run(tmp_path)
    assert fetch(make_run(tmp_path), hub, cache)[0] == 0
    (cache / "hub" / "models--org--model" / "snapshots" / COMMIT / "tokenizer.json").unlink()
    assert fetch(run, hub, cache, HF_HUB_OFFLINE="1")[0] == 1
    assert "not whole in the cache" in result(run)["reason"]


def test_a_branch_that_moves_does_not_move_a_run(hub: Hub, model: Path, tmp_path: Path) -> None:
    run, cache, moved = make_run(tmp_path), tmp_path / "cache", "f" * 40
    assert fetch(run, hub, cache)[0] == 0
    before = pinned(run)
    later = tmp_path / "later"
    later.mkdir()
    for name in ("config.json", "model.safetensors"):
        (later / name).write_text(f"later {name}")
    hub.commits, hub.main = {moved: later, COMMIT: model}, moved
    hub.forget()
    frozen = submission.load(run.spec)
    assert base_model.of_run(run, frozen) == Path(before["folder"])
    assert fetch(run, hub, cache)[0] == 0
    assert pinned(run) == before
    assert hub.sent_bytes() == {}

    other = make_run(tmp_path)
    assert fetch(other, hub, cache)[0] == 0
    assert pinned(other)["revision"] == moved
    assert base_model.of_run(run, frozen) != base_model.of_run(other, frozen)


@pytest.mark.slow
def test_training_and_verification_use_the_commit_that_was_fetched(hub: Hub, tmp_path: Path) -> None:
    from tiny import make_run as make_whole_run
    from toy import BASE

    hub.commits = {COMMIT: BASE}
    run, cache = make_whole_run(tmp_path / "runs", Path("org/model"), num_train_epochs=1), tmp_path / "cache"
    assert fetch(run, hub, cache)[0] == 0
    later = tmp_path / "later"
    later.mkdir()
    for name in ("config.json", "model.safetensors"):
        (later / name).write_text("nothing to train on")
    hub.main = "f" * 40
    hub.commits[hub.main] = later
    hub.forget()
    for verb in ("train", "finish"):
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jobs", verb, "."],
            cwd=run.root,
            env=environment(hub.endpoint, cache),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
    assert hub.requests == []
    assert result(run)["state"] == "succeeded"
    used = json.loads(run.training.read_text("utf-8"))["base"]["weights_sha256"]
    assert used == {name: file["sha256"] for name, file in pinned(run)["files"].items()}


def test_what_was_pinned_must_still_be_there(model: Path, hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path, str(model))
    assert fetch(run, hub, tmp_path / "cache")[0] == 0
    (model / "model.safetensors").write_text("another")
    with pytest.raises(JobError, match="gone, or changed"):
        base_model.of_run(run, submission.load(run.spec))
    run.base.write_text("{}")
    with pytest.raises(BrokenRun, match="not what"):
        base_model.of_run(run, submission.load(run.spec))
    run.base.unlink()
    assert base_model.of_run(run, submission.load(run.spec)) == model


@pytest.mark.slow
def test_two_at_once_fetch_every_byte_once(hub: Hub, model: Path, tmp_path: Path) -> None:
    grow(model, 10_000_000)
    hub.bytes_per_s = 2.5e6
    runs, cache = [make_run(tmp_path), make_run(tmp_path)], tmp_path / "cache"
    processes = [start(run, hub, cache) for run in runs]
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert hub.sent_bytes() == {
        name: (model / name).stat().st_size
        for name in ("config.json", "tokenizer.json", "merges.txt", "model.safetensors")
    }
    assert "another process fetches it" in "".join(printed)
    assert pinned(runs[0]) == pinned(runs[1])


def test_a_token_is_sent_only_when_the_run_was_given_one(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "token").write_text("hf_of_the_login")
    assert fetch(make_run(tmp_path), hub, cache)[0] == 0
    assert set(hub.authorizations) == {None}

    hub.forget()
    status, printed = fetch(make_run(tmp_path, "org/gated"), hub, cache, HF_TOKEN="hf_granted")
    assert status == 0, printed
    assert set(hub.authorizations) == {"Bearer hf_granted"}
    assert "hf_" not in printed


@pytest.mark.parametrize(
    ("name", "token", "says"),
    [
        ("org/gated", "hf_other", "has to grant access to the account of this HF_TOKEN"),
        ("org/absent", "hf_other", "no such model on"),
        ("org/model", "hf_revoked", "refuses this HF_TOKEN (401)"),
        ("org/model", "hf_two\nlines", "HF_TOKEN: not a token"),
    ],
)
def test_what_is_wrong_with_a_token_is_said_without_it(
    hub: Hub, tmp_path: Path, name: str, token: str, says: str
) -> None:
    hub.token = "" if token == "hf_other" else "hf_valid"
    run = make_run(tmp_path, name)
    status, printed = fetch(run, hub, tmp_path / "cache", HF_TOKEN=token)
    assert status == 1
    assert says in result(run)["reason"]
    assert token not in printed
    assert token.splitlines()[-1] not in printed


def test_a_disk_that_is_too_small_is_known_before_the_first_byte(hub: Hub, tmp_path: Path) -> None:
    run = make_run(tmp_path)
    hub.listed_bytes = {"model.safetensors": 10**15}
    status, printed = fetch(run, hub, tmp_path / "cache")
    assert status == 1
    assert "no space for it" in result(run)["reason"]
    assert "1,000,000,000.0 MB are to come" in result(run)["reason"]
    assert "launch clean HOST" in printed
    assert hub.sent_bytes() == {}


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=24m none "$1" || exit 77
(
    until [ -n "$(find "$1" -name '*.incomplete' -size +1000k)" ]; do sleep 0.02; done
    cat /dev/zero > "$1/filler"
) 2>/dev/null &
"$2" -W error -m jobs fetch "$3"
echo "status $?"
rm "$1/filler"
find "$1" -name '*.incomplete' -printf 'kept %s\\n'
"$2" -W error -m jobs fetch "$3.again"
echo "status $?"
"""


def test_a_disk_that_fills_meanwhile_keeps_what_came(hub: Hub, model: Path, tmp_path: Path) -> None:
    size = 16_000_000
    grow(model, size)
    hub.bytes_per_s = 8e6
    run, cache = make_run(tmp_path), tmp_path / "cache"
    cache.mkdir()
    shutil.copytree(run.root, f"{run.root}.again")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, "sh", str(cache), sys.executable, str(run.root)],
        env=environment(hub.endpoint, cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 77 or "unshare" in done.stdout:
        pytest.skip(f"no private mounts here: {done.stdout}")
    assert "no space for it" in result(run)["reason"], done.stdout
    kept = int(re.findall(r"kept (\d+)", done.stdout)[0])
    assert 1_000_000 < kept < size
    assert re.findall(r"status (\d)", done.stdout) == ["1", "0"], done.stdout


def test_weights_that_are_pickles_are_refused(hub: Hub, model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    run = make_run(tmp_path)
    assert fetch(run, hub, tmp_path / "cache")[0] == 1
    assert "pickled weights are not loaded" in result(run)["reason"]


def test_a_model_without_one_of_its_files_of_weights_is_refused(model: Path) -> None:
    index = model / base_model.INDEX
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(DataError, match="incomplete, its .* names model-2.safetensors"):
        base_model.locate(str(model), "main", pushed=None)
    index.write_text("[]")
    with pytest.raises(DataError, match="not an index of weights"):
        base_model.locate(str(model), "main", pushed=None)


FRUGAL = """
import re, sys
from jobs.__main__ import main
status = main(["fetch", sys.argv[1]])
heavy = {"torch", "transformers", "numpy"} & set(sys.modules)
peak = re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]
print(f"status {status} heavy {heavy or None} peak {peak}")
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="no /proc")
def test_fetch_takes_little_memory(hub: Hub, model: Path, tmp_path: Path) -> None:
    with (model / "model.safetensors").open("wb") as file:
        file.truncate(256_000_000)
    done = subprocess.run(
        [sys.executable, "-c", FRUGAL, str(make_run(tmp_path).root)],
        env=environment(hub.endpoint, tmp_path / "cache"),
        capture_output=True,
        text=True,
        check=True,
    )
    status, heavy, peak_kb = re.findall(r"status (\S+) heavy (\S+) peak (\d+)", done.stdout)[0]
    assert (status, heavy) == ("0", "None"), done.stdout
    assert int(peak_kb) < 300_000


def test_progress_is_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.blob import Blob, Progress

    now = 100.0
    progress = Progress(Blob("model.safetensors", 500_000_000, "0" * 64), 100_000_000, clock=lambda: now)
    for second in range(1, 26):
        now = 100.0 + second
        progress.received(10_000_000, 100_000_000 + second * 10_000_000)
    progress.done()
    assert capsys.readouterr().out.splitlines() == [
        "model.safetensors: 100.0 of 500.0 MB are here already, going on",
        "model.safetensors: 200.0 of 500.0 MB, 10.0 MB/s",
        "model.safetensors: 300.0 of 500.0 MB, 10.0 MB/s",
        "model.safetensors: whole and as listed, 500.0 MB (250.0 MB in 25 s, 10.0 MB/s)",
    ]


def test_a_list_can_not_name_files_elsewhere() -> None:
    from jobs.blob import Blob

    with pytest.raises(JobError, match="neither a sha256 nor a git sha1"):
        Blob("model.safetensors", 1, "../../../elsewhere")
