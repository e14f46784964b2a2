"""The way of an adapter from training to the laptop, with a fault at every place: caught at the next gate, by name.

Trainings are real, most of them in this process; where a fault comes from the operating system's side, a child process
has it from a `sitecustomize` on its path.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_base, make_run, toy_rows

from jobs import adapter, manifest, probes, submission, training
from jobs.__main__ import main
from jobs.run_directory import RunDirectory
from launcher import home_jobs, verdict
from launcher.bring_home import Pulled, bring_home
from launcher.errors import VerificationFailed
from launcher.ledger import Ledger, Record
from launcher.progress import ignore
from launcher.settings import load as load_settings
from remote.agent import Agent
from remote.local_host import LocalHost
from remote.onhost import process

REPOSITORY = Path(__file__).resolve().parent.parent
LABELS = {0: "bad", 1: "good"}

# -- damages


def weights(folder: Path) -> Path:
    return folder / adapter.WEIGHTS


def zeroed(folder: Path, other: Path) -> None:
    held = load_file(weights(folder))
    zeros = {key: torch.zeros_like(value) if ".lora_B." in key else value for key, value in held.items()}
    save_file(zeros, weights(folder), metadata={"format": "pt"})


def flipped(folder: Path, other: Path, bit: int = 30) -> None:
    """One bit of a number in the middle of a lora_B; of its exponent the highest one."""
    content = bytearray(weights(folder).read_bytes())
    header = json.loads(content[8 : 8 + (length := struct.unpack("<Q", content[:8])[0])])
    key = next(key for key in header if ".lora_B." in key)
    start, end = header[key]["data_offsets"]
    content[8 + length + start + (end - start) // 8 * 4 + bit // 8] ^= 1 << bit % 8
    weights(folder).write_bytes(content)


def hardly_flipped(folder: Path, other: Path) -> None:
    """The lowest bit: nothing that an answer would show."""
    flipped(folder, other, bit=0)


def truncated(folder: Path, other: Path) -> None:
    weights(folder).write_bytes(weights(folder).read_bytes()[:-1000])


def swapped(folder: Path, other: Path) -> None:
    shutil.copyfile(weights(other), weights(folder))


def wrong_order(folder: Path, other: Path) -> None:
    """The data in another order than the header says, of tensors of one shape: a file that is sound to look at."""
    held = load_file(weights(folder))
    keys = [key for key in sorted(held) if key.endswith("mlp.up_proj.lora_B.weight")]
    moved = dict(zip(keys, [held[key] for key in reversed(keys)], strict=True))
    save_file(held | moved, weights(folder), metadata={"format": "pt"})


def reconfigured(folder: Path, other: Path) -> None:
    document = json.loads((folder / adapter.CONFIG).read_text("utf-8"))
    (folder / adapter.CONFIG).write_text(json.dumps(document | {"lora_alpha": document["lora_alpha"] * 2}))


def relabelled(folder: Path, other: Path) -> None:
    document = json.loads((folder / adapter.CLASSIFIER).read_text("utf-8"))
    (folder / adapter.CLASSIFIER).write_text(json.dumps(document | {"id2label": {"0": "good", "1": "bad"}}))


def retokenized(folder: Path, other: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    words = document["model"]["vocab"]
    first, second = sorted(words)[-2:]  # of which the probes have none
    words[first], words[second] = words[second], words[first]
    (folder / "tokenizer.json").write_text(json.dumps(document), "utf-8")


Damage = Callable[[Path, Path], None]
DAMAGES: dict[str, tuple[Damage, str]] = {
    # what is done to an adapter's folder, and the check that names it beside `written`, which always does
    "lora_B zeroed": (zeroed, "lora_b"),
    "a bit flipped": (flipped, "portable"),
    "the lowest bit flipped": (hardly_flipped, "saved"),
    "truncated": (truncated, "header"),
    "of another run": (swapped, "portable"),
    "in the wrong order": (wrong_order, "portable"),
    "configuration changed": (reconfigured, "portable"),
    "labels swapped": (relabelled, "classifier"),
    "tokenizer changed": (retokenized, "written"),
}
each_damage = pytest.mark.parametrize("name", DAMAGES)
some_damage = pytest.mark.parametrize("name", ["a bit flipped", "truncated", "of another run", "labels swapped"])


# -- a host with a finished run, and a laptop


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A run between `train` and `finish`; not to be changed."""
    run = make_run(tmp_path_factory.mktemp("trained"), base, rows=64)
    training.train(run.root)
    return run


@pytest.fixture(scope="module")
def finished(trained: RunDirectory, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The same, ended well; not to be changed."""
    run = copy(trained, tmp_path_factory.mktemp("finished"))
    assert main(["finish", str(run.root)]) == 0
    return run


@pytest.fixture(scope="module")
def other(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of another run, as healthy."""
    run = make_run(tmp_path_factory.mktemp("other"), base, rows=64, seed=7)
    training.train(run.root)
    return run.adapter


def copy(run: RunDirectory, runs: Path) -> RunDirectory:
    return RunDirectory(Path(shutil.copytree(run.root, runs / run.run_id)))


class Laptop:
    """A laptop that submitted a run, which lies on the host `folder`/workspace."""

    def __init__(self, folder: Path, run: RunDirectory) -> None:
        self.workspace = folder / "workspace" / "launch"
        self.run = copy(run, self.workspace / "runs")
        for path in (self.run.log, self.run.events):
            path.touch()
        files = {"log": "log.txt", "events": "events.jsonl", "heartbeat": "heartbeat", "result": "result.json"}
        plan = {"protocol": 1, "run_id": run.run_id, "name": "toy", "files": files, "submitted_at": time.time(),
                "boot": process.boot_marker(), "phases": []}  # fmt: skip
        (self.run.root / "plan.json").write_text(json.dumps(plan))
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.record = Record(run.run_id, "toy", "box", 1, submission.load(run.spec))
        self.ledger.add(self.record)
        self.agent = Agent(LocalHost(folder), workspace=str(self.workspace))
        self.home = RunDirectory(folder / "runs" / run.run_id)

    def pull(self, **options: Any) -> Pulled:
        return bring_home(self.record, self.agent, self.ledger, self.home.root.parent, ignore, **options)

    def refused(self, **options: Any) -> str:
        """What is said when a pull is refused."""
        with pytest.raises(VerificationFailed) as caught:
            self.pull(**options)
        return caught.value.message

    def vouch(self) -> None:
        """Let the host's result vouch for what lies there now."""
        self.run.manifest.write_text(manifest.dump(manifest.list_files(self.run.artifacts)))
        result = json.loads(self.run.result.read_text("utf-8"))
        result["manifest_sha256"] = manifest.sha256_of(self.run.manifest)
        self.run.result.write_text(json.dumps(result))

    def brought_nothing(self) -> bool:
        return not any(self.home.root.parent.iterdir())


def result_of(run: RunDirectory) -> Any:
    return json.loads(run.result.read_text("utf-8"))


def failed_checks(run: RunDirectory) -> set[str]:
    """Those that a run gives as the reason why it failed."""
    result = result_of(run)
    assert result["state"] == "failed" and result["reason"].startswith("verification: ")
    return set(result["reason"].removeprefix("verification: ").split(", "))


def comes_home_rejected(run: RunDirectory, folder: Path, *expected: str) -> None:
    """What a laptop makes of a run whose adapter failed on its host."""
    assert failed_checks(run) >= set(expected)
    laptop = Laptop(folder, run)
    said = laptop.refused()
    assert "its adapter failed verification on box" in said
    assert all(f"  - {name}: " in said for name in expected)
    assert laptop.home.log.exists() and laptop.home.result.exists()
    assert [path.name for path in laptop.home.artifacts.rglob("*")] == ["verification.json"]
    said = laptop.refused(force=True)
    assert str(laptop.home.rejected.root) in said
    entries = manifest.parse(laptop.home.rejected.manifest.read_text("utf-8"))
    assert manifest.problems(laptop.home.rejected.artifacts, entries) == []
    assert not laptop.home.adapter.exists()


def test_of_an_adopted_run_the_verdict_says_whose_word_it_is(finished: RunDirectory, tmp_path: Path) -> None:
    laptop = Laptop(tmp_path, finished)
    laptop.ledger.forget(laptop.record.run_id)
    laptop.record = replace(laptop.record, adopted=True)
    laptop.ledger.add(laptop.record)
    laptop.pull()
    # Also for a laptop that only has the folder.
    for ledger in (laptop.ledger, Ledger(tmp_path / "another.sqlite")):
        home = home_jobs.find(str(laptop.home.root), ledger)
        verdict = home_jobs.verify(home, tmp_path / "workspace", ignore, static=True)
        [provenance] = [check for check in verdict["checks"] if check["id"] == "provenance"]
        assert (provenance["status"], provenance["required"]) == ("warn", False)
        assert "known from the host alone" in provenance["detail"]
        assert verdict["ok"]


# -- a fault at every place


RENAMES = """
import os, shutil
rename = os.rename
def damaging(old, new, **more):
    if os.path.basename(new) == "adapter":
        shutil.copyfile({other!r}, os.path.join(old, "adapter_model.safetensors"))
    rename(old, new, **more)
os.rename = damaging
"""


def train(run: RunDirectory, folder: Path, customize: str) -> int:
    """`python -m jobs train RUN` as the supervisor starts it, in a Python whose site was customised."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(customize)
    path = os.pathsep.join([str(folder), str(REPOSITORY)])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with run.log.open("ab") as log:
        argv = [sys.executable, "-P", "-m", "jobs", "train", str(run.root)]
        return subprocess.run(argv, env=env, stdout=log, stderr=log, check=False, timeout=120).returncode


@pytest.mark.slow
def test_between_save_and_rename(base: Path, other: Path, tmp_path: Path) -> None:
    """Another run's weights, whole and sound, get the adapter's name: only what training held in memory tells."""
    run = make_run(tmp_path, base, rows=64)
    assert train(run, tmp_path / "site", RENAMES.format(other=str(weights(other)))) == 0
    assert weights(run.adapter).read_bytes() == weights(other).read_bytes()
    assert main(["finish", str(run.root)]) == 1
    comes_home_rejected(run, tmp_path / "laptop", "portable", "written")


@each_damage
def test_after_the_rename_and_before_it_is_verified(
    trained: RunDirectory, other: Path, tmp_path: Path, name: str
) -> None:
    damage, expected = DAMAGES[name]
    run = copy(trained, tmp_path)
    damage(run.adapter, other)
    assert main(["finish", str(run.root)]) == 1
    assert failed_checks(run) >= {expected, "written"}
    assert result_of(run)["manifest_sha256"] == manifest.sha256_of(run.manifest)


@some_damage
def test_in_transit(finished: RunDirectory, other: Path, tmp_path: Path, name: str) -> None:
    """A pull was cut, and what had come is damaged, which neither its size nor its time need show."""
    laptop = Laptop(tmp_path, finished)
    part = RunDirectory(laptop.home.root.with_name(f".{finished.run_id}.part"))
    shutil.copytree(laptop.run.artifacts, part.artifacts)
    before = {path: path.stat() for path in part.adapter.iterdir()}
    DAMAGES[name][0](part.adapter, other)
    resized = any(path.stat().st_size != stat.st_size for path, stat in before.items())
    for path, stat in before.items():
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    if resized:  # it is sent again
        assert laptop.pull().state == "succeeded"
        assert manifest.problems(laptop.home.artifacts, manifest.list_files(finished.artifacts)) == []
    else:
        assert "content differs from the manifest (sha256)" in laptop.refused()
        assert laptop.brought_nothing()


@some_damage
def test_in_the_run_directory_after_it_succeeded(
    finished: RunDirectory, other: Path, tmp_path: Path, name: str
) -> None:
    laptop = Laptop(tmp_path, finished)
    DAMAGES[name][0](laptop.run.adapter, other)
    assert "not what the manifest says" in laptop.refused()
    assert laptop.brought_nothing()
    laptop.vouch()  # a host that lies
    assert "  - written: " in laptop.refused()
    assert [path.name for path in laptop.home.root.parent.iterdir()] == [laptop.home.rejected.root.name]
    assert not laptop.home.rejected.artifacts.exists()


@each_damage
def test_in_the_folder_that_was_pulled(finished: RunDirectory, other: Path, tmp_path: Path, name: str) -> None:
    laptop = Laptop(tmp_path, finished)
    laptop.pull()
    home = home_jobs.find(finished.run_id, laptop.ledger)
    verdict.check(finished.run_id, home_jobs.verify(home, tmp_path, ignore, static=True))
    DAMAGES[name][0](laptop.home.adapter, other)
    with pytest.raises(VerificationFailed, match="manifest: adapter/"):
        verdict.check(finished.run_id, home_jobs.verify(home, tmp_path, ignore, static=True))
    with pytest.raises(VerificationFailed, match="is not evaluated: manifest: adapter/") as caught:
        home_jobs.evaluate(home, load_settings(), ignore)
    assert caught.value.hint == f"launch verify {laptop.home.root}"
    assert not laptop.home.home_metrics.exists() and not laptop.home.report.exists()


# -- the original disaster

CUT_OFF = """
from torch.nn.modules.module import register_module_forward_hook
def cut(module, inputs, output):
    if type(module).__name__ == "Qwen2Model":
        output.last_hidden_state = output.last_hidden_state.detach()
register_module_forward_hook(cut)
"""


@pytest.mark.slow
def test_the_loss_would_fall_and_lora_gets_no_gradient(base: Path, tmp_path: Path) -> None:
    """The hidden states are cut off from the graph, as reentrant checkpointing does where embeddings are frozen."""
    run = make_run(tmp_path, base, rows=64)
    assert train(run, tmp_path / "site", CUT_OFF) == 1
    result = result_of(run)
    assert result["state"] == "failed"
    assert "14 of 14 lora_B matrices get no gradient in the first step" in result["reason"]
    assert "the adapter stay empty" in result["reason"]
    assert not run.adapter.exists()
    laptop = Laptop(tmp_path / "laptop", run)
    pulled = laptop.pull()
    assert pulled.state == "failed" and "get no gradient" in pulled.in_words()
    assert not laptop.home.artifacts.exists()
    assert not laptop.home.rejected.root.exists()


def test_only_the_head_was_trained_and_nothing_noticed(trained: RunDirectory, base: Path, tmp_path: Path) -> None:
    """What the run would have saved had no sentinel stopped it; memory and disk agree."""
    run = copy(trained, tmp_path)
    model = adapter.load(base, run.adapter, dtype=torch.float32, id2label=LABELS)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.zero_()
    tokenizer, about = adapter.load_tokenizer(run.adapter), {"id2label": LABELS, "max_length": 48}
    written = adapter.save(model, tokenizer, run.adapter, base_name=str(base), revision="main", **about)
    record = json.loads(run.training.read_text("utf-8"))
    run.training.write_text(json.dumps(record | {"adapter_files": written}))
    texts = [text for text, _ in toy_rows(32, 1)]
    probes.record(model, tokenizer, texts, base_folder=base, folder=run.probes, **about)
    assert main(["finish", str(run.root)]) == 1
    assert "written" not in result_of(run)["reason"]
    comes_home_rejected(run, tmp_path / "laptop", "lora_b", "moved", "distance", "adapter_matters")


def test_a_job_that_vouches_before_its_adapter_is_whole(finished: RunDirectory, tmp_path: Path) -> None:
    """Manifest and result first, the rest of the adapter after them: pulled in between, and when it is done."""
    laptop = Laptop(tmp_path, finished)
    whole = weights(laptop.run.adapter).read_bytes()
    weights(laptop.run.adapter).write_bytes(whole[:-4096])
    laptop.vouch()
    early = laptop.refused()
    assert "box says that it succeeded" in early
    assert "  - header: truncated: 4,096 bytes" in early
    assert not laptop.home.root.exists()
    weights(laptop.run.adapter).write_bytes(whole)
    late = laptop.refused()
    assert f"adapter/{adapter.WEIGHTS}: {len(whole)} bytes, the manifest says {len(whole) - 4096}" in late
    assert not laptop.home.root.exists()
    assert result_of(laptop.run)["state"] == "succeeded"  # the host's word is not enough
