"""Merging: the folder answers in plain transformers as base and adapter do, or there is no folder."""

from __future__ import annotations

import json
import resource
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny import make_base_of, make_run, toy_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from jobs import adapter, merging, submission, training
from jobs.errors import AdapterRejected, JobError
from jobs.run_directory import RunDirectory
from launcher import merge
from launcher.errors import LaunchError
from launcher.home_jobs import HomeRun
from launcher.progress import ignore

TEMPLATE = "说：{text}。"
TEXTS = [text for text, _ in toy_rows(40, 7)]


@dataclass(frozen=True)
class Trained:
    """A base, a run on it, and a dtype that the base's weights, which are random and large, bear to be rounded to."""

    base: Path
    run: RunDirectory
    rounded: str

    def merged(self, folder: Path, dtype: str = "float32") -> merging.Merged:
        folder.mkdir()
        return merging.merge(self.run, self.base, folder, dtype)


@pytest.fixture(scope="module", params=["qwen3", "bert bf16", "gpt2"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Not to be changed.  The base names code that it does not have."""
    kind, _, bf16 = request.param.partition(" ")
    folder = tmp_path_factory.mktemp(kind)
    base = make_base_of(kind, folder / "base", dtype=torch.bfloat16 if bf16 else torch.float32)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "code.Model"}}))
    run = make_run(
        folder, base, baselines=["frozen"], prompt_template=TEMPLATE, bf16="yes" if bf16 else "no"
    )  # fmt: skip
    training.train(run.root)
    return Trained(base, run, "bfloat16" if kind == "qwen3" else "float16")


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Trained:
    return Trained(
        trained.base, RunDirectory(Path(shutil.copytree(trained.run.root, tmp_path / "run"))), trained.rounded
    )


def plain_logits(folder: Path) -> torch.Tensor:
    """As somebody would serve it who has transformers and classifier.json, and neither peft nor us."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    template = json.loads((folder / "classifier.json").read_text())["prompt_template"]
    batch = tokenizer(
        [template.format(text=text) for text in TEXTS], padding=True, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        answers: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return answers.float()


def unmerged_logits(trained: Trained) -> torch.Tensor:
    """The same of the base and the adapter in plain peft."""
    with warnings.catch_warnings(), adapter.quiet_libraries():
        warnings.simplefilter("ignore")
        base = AutoModelForSequenceClassification.from_pretrained(trained.base, num_labels=2, dtype=torch.float32)
        about = json.loads((trained.run.adapter / "classifier.json").read_text())
        base.config.pad_token_id = about["pad_token_id"]
        model = PeftModel.from_pretrained(base, str(trained.run.adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained.run.adapter)
    batch = tokenizer([TEMPLATE.format(text=text) for text in TEXTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        answers: torch.Tensor = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return answers


@pytest.mark.parametrize("rounded", [False, True])
def test_the_folder_answers_as_base_and_adapter(trained: Trained, tmp_path: Path, rounded: bool) -> None:
    folder, dtype = tmp_path / "model", trained.rounded if rounded else "float32"
    merged = trained.merged(folder, dtype)
    apart = float((plain_logits(folder) - unmerged_logits(trained)).abs().max())
    print(
        f"{dtype}: off by {merged.tolerances:.2g} tolerances; unseen texts by {apart / merged.miss:.2g} times as much"
    )
    assert apart < (0.3 if rounded else 1e-4)
    assert merged.tolerances < (1 if rounded else 1e-3)
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["id2label"], "auto_map" in config) == (dtype, {"0": "bad", "1": "good"}, False)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {getattr(torch, dtype)}
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
    assert str(trained.base.parent) not in "".join(path.read_text() for path in folder.glob("*.json"))
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 48


def test_an_adapter_that_rounding_drowns_is_refused(tmp_path: Path) -> None:
    """Trained so little that bf16 moves the logits by more than a twentieth of what the adapter does."""
    base = make_base_of("gpt2", tmp_path / "base")
    run = make_run(tmp_path, base, rows=64, baselines=["majority"], learning_rate=1e-4, lora_alpha=1)
    training.train(run.root)
    trained = Trained(base, run, "float16")
    with pytest.raises(AdapterRejected, match="saved in bfloat16 its logits are off") as caught:
        trained.merged(tmp_path / "model", "bfloat16")
    assert caught.value.hint == "--dtype float32"
    assert trained.merged(tmp_path / "exact", "float32").tolerances < 0.1


def change_classifier(run: RunDirectory, **changes: Any) -> None:
    path = run.adapter / adapter.CLASSIFIER
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def scale_head(run: RunDirectory) -> None:
    held = load_file(run.adapter / adapter.WEIGHTS)
    save_file({key: t if "lora_" in key else t * 1.5 for key, t in held.items()}, run.adapter / adapter.WEIGHTS)


def without_words(run: RunDirectory) -> None:
    path = run.adapter / "tokenizer.json"
    document = json.loads(path.read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["å"] = vocabulary["å"], vocabulary["a"]
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("trained", ["gpt2"], indirect=True)
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (scale_head, "logits are off by"),
        (without_words, "other tokens"),
        (lambda run: change_classifier(run, id2label={"0": "good", "1": "bad"}), "not what the probes"),
        (lambda run: change_classifier(run, max_length=7), "not what the probes"),
    ],
    ids=["weights", "tokenizer", "labels", "length"],
)
def test_what_is_not_the_trained_model_is_refused(
    copy: Trained, tmp_path: Path, harm: Callable[[RunDirectory], None], message: str
) -> None:
    harm(copy.run)
    with pytest.raises(AdapterRejected, match=message):
        copy.merged(tmp_path / "model")


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may grow beyond 50 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("trained", ["gpt2"], indirect=True)
def test_a_disk_that_refuses_is_an_error(trained: Trained, tmp_path: Path, small_disk: None) -> None:
    with pytest.raises(JobError, match="can't be written") as caught:
        trained.merged(tmp_path / "model")
    assert "--to" in caught.value.hint


# --- where it goes


@pytest.mark.parametrize("trained", ["gpt2"], indirect=True)
@pytest.mark.parametrize(
    ("target", "reason"),
    [("run/model", "inside of the run"), ("full", "something already"), ("file", "something already")],
)
def test_a_folder_that_is_taken_is_refused_before_anything_is_computed(
    copy: Trained, tmp_path: Path, target: str, reason: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / ".hidden").touch()
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match=reason) as caught:
        start(copy.run, copy.base, tmp_path / target)
    assert "--to" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "run"]


def start(run: RunDirectory, base: Path | None, target: Path) -> None:
    home = HomeRun(run, submission.load(run.spec), base, {})
    merge.merge(home, target, run.root / "no workspace", ignore, dtype="float32")


@pytest.mark.parametrize("trained", ["gpt2"], indirect=True)
def test_without_a_base_there_is_nothing_to_merge_into(copy: Trained, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="not on this machine") as caught:
        start(copy.run, None, tmp_path / "model")
    assert "--base" in caught.value.hint


@pytest.mark.parametrize("trained", ["gpt2"], indirect=True)
def test_a_disk_that_is_too_small_is_told_before_anything_is_computed(copy: Trained, tmp_path: Path) -> None:
    """A base of 4 TB, all of it holes."""
    base, count = tmp_path / "base", 10**12
    base.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    with (base / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + 4 * count)
    with pytest.raises(LaunchError, match="the model takes 4000.00 GB") as caught:
        start(copy.run, base, tmp_path / "deep" / "model")
    assert "--dtype" in caught.value.hint
    assert not (tmp_path / "deep").exists()
