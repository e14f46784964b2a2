"""The adapter on disk: saved whole or not at all, loaded by plain libraries, and only as what it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_adapter
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from tiny_adapter import ID2LABEL, MAX_LENGTH, TinyRun

from jobs import adapter, probes
from jobs import model as models
from jobs.errors import AdapterRejected

SAVED = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "classifier.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
# What anybody would write who has never heard of this project.
PLAIN_CODE = """
import json, sys, warnings
sys.modules["jobs"] = None  # from here on an import of it fails
warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

base, folder, texts, out = sys.argv[1:]
classifier = json.load(open(folder + "/classifier.json"))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(
    base, num_labels=len(classifier["id2label"]), dtype=torch.float32, attn_implementation="eager"
)
model.config.pad_token_id = tokenizer.pad_token_id
model = PeftModel.from_pretrained(model, folder).eval()
batch = tokenizer(
    json.load(open(texts)), truncation=True, max_length=classifier["max_length"], padding=True,
    return_tensors="pt",
)
with torch.no_grad():
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
json.dump(logits.tolist(), open(out, "w"))
"""


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return tiny_adapter.shared_run(tmp_path_factory)


@pytest.fixture(scope="module")
def model(tiny_run: TinyRun) -> PeftModel:
    return tiny_adapter.train(tiny_run.base, steps=1)[0]


@pytest.fixture
def copy(tiny_run: TinyRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_run.adapter, tmp_path / "adapter"))


def save(model: PeftModel, tiny_run: TinyRun, folder: Path, **changes: Any) -> None:
    options: dict[str, Any] = {"base_name": "tiny/base", "revision": "abc", "id2label": ID2LABEL}
    tokenizer = adapter.load_tokenizer(tiny_run.adapter)
    adapter.save(model, tokenizer, folder, max_length=MAX_LENGTH, **(options | changes))


def load(tiny_run: TinyRun, folder: Path, **changes: Any) -> PeftModel:
    options: dict[str, Any] = {"dtype": torch.float32, "id2label": ID2LABEL} | changes
    return adapter.load(tiny_run.base, folder, **options)


def rewrite_config(folder: Path, **changes: Any) -> None:
    document = json.loads((folder / adapter.CONFIG).read_text())
    (folder / adapter.CONFIG).write_text(json.dumps(document | changes))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_folder_holds_what_is_needed_and_no_path_of_this_machine(tiny_run: TinyRun) -> None:
    files = content(tiny_run.adapter)
    assert files.keys() == SAVED
    assert not [name for name, text in files.items() if str(tiny_run.base.parent).encode() in text]
    config = json.loads(files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == ("tiny/base", "abc")
    classifier = json.loads(files["classifier.json"])
    assert classifier["id2label"] == {"0": "bad", "1": "good"}
    assert (classifier["max_length"], classifier["padding_side"], classifier["pad_token_id"]) == (
        24,
        "right",
        0,
    )
    assert (classifier["base_model_name_or_path"], classifier["revision"]) == ("tiny/base", "abc")
    assert classifier["libraries"].keys() == set(adapter.LIBRARIES)


def test_plain_libraries_give_the_same_logits(tiny_run: TinyRun, tmp_path: Path) -> None:
    stored, logits = probes.load(tiny_run.probes)
    (tmp_path / "texts.json").write_text(json.dumps(stored.texts))
    arguments = [tiny_run.base, tiny_run.adapter, tmp_path / "texts.json", tmp_path / "out.json"]
    argv = [sys.executable, "-I", "-c", PLAIN_CODE, *map(str, arguments)]
    subprocess.run(argv, check=True, cwd=tmp_path, capture_output=True, timeout=120)
    plain = np.array(json.loads((tmp_path / "out.json").read_text()), dtype=np.float32)
    assert np.abs(plain - logits[probes.PORTABLE]).max() <= 1e-6


def test_a_path_of_the_training_host_is_not_kept(model: PeftModel, tiny_run: TinyRun, tmp_path: Path) -> None:
    save(model, tiny_run, tmp_path / "a", base_name="/root/autodl-tmp/models/Qwen2.5-0.5B")
    written = json.loads((tmp_path / "a" / adapter.CONFIG).read_text())
    assert written["base_model_name_or_path"] == "Qwen2.5-0.5B"
    assert adapter.portable_name("C:\\models\\Qwen") == "Qwen"
    assert adapter.portable_name("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"


def test_equal_adapters_are_equal_files(model: PeftModel, tiny_run: TinyRun, tmp_path: Path) -> None:
    save(model, tiny_run, tmp_path / "a")
    save(model, tiny_run, tmp_path / "b")
    assert content(tmp_path / "a") == content(tmp_path / "b")
    targets = json.loads((tmp_path / "a" / adapter.CONFIG).read_text())["target_modules"]
    assert targets == sorted(targets)


class BrokenTokenizer:
    """A tokenizer whose save fails after the weights are written: a full disk, say."""

    padding_side = "right"

    def save_pretrained(self, folder: str) -> None:
        Path(folder, "tokenizer.json").write_text("half")
        raise OSError("No space left on device")


def test_a_fault_while_saving_leaves_the_old_folder(model: PeftModel, tiny_run: TinyRun, copy: Path) -> None:
    before = content(copy)
    options: dict[str, Any] = {"base_name": "b", "revision": "r", "id2label": ID2LABEL, "max_length": 8}
    with pytest.raises(OSError, match="No space left"):
        adapter.save(model, BrokenTokenizer(), copy, **options)
    assert content(copy) == before
    with pytest.raises(OSError, match="No space left"):
        adapter.save(model, BrokenTokenizer(), copy.parent / "new", **options)
    assert [path.name for path in copy.parent.iterdir()] == ["adapter"]


def test_a_second_save_replaces_the_first_whole(model: PeftModel, tiny_run: TinyRun, copy: Path) -> None:
    (copy / "left-over.txt").write_text("of another adapter")
    before = content(copy)
    save(model, tiny_run, copy)
    assert content(copy).keys() == SAVED
    assert content(copy)[adapter.WEIGHTS] != before[adapter.WEIGHTS]
    assert [path.name for path in copy.parent.iterdir()] == ["adapter"]


def test_a_rename_that_fails_puts_the_old_folder_back(tiny_run: TinyRun, copy: Path) -> None:
    before = content(copy)
    with pytest.raises(FileNotFoundError):
        adapter._put_in_place(copy.parent / "vanished", copy)
    assert content(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["adapter"]


def test_an_empty_state_dict_never_takes_the_adapters_place(tiny_run: TinyRun, copy: Path) -> None:
    model, _ = tiny_adapter.train(tiny_run.base, steps=1)
    before = content(copy)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.zeros(0, parameter.shape[1])
    with pytest.warns(UserWarning, match="invalid shape"), pytest.raises(AdapterRejected, match="no numbers"):
        save(model, tiny_run, copy)
    assert content(copy) == before


def test_fingerprints_are_of_the_tensors_that_are_saved(model: PeftModel, tiny_run: TinyRun, tmp_path: Path) -> None:
    save(model, tiny_run, tmp_path / "a")
    stored = load_file(tmp_path / "a" / adapter.WEIGHTS)
    found = adapter.fingerprints(model)
    assert found.keys() == stored.keys()
    for key, tensor in stored.items():
        assert found[key] == adapter.array_fingerprint(tensor.numpy())
        assert found[key]["norm"] == pytest.approx(tensor.norm().item(), rel=1e-5)


def test_load_gives_an_evaluated_model_with_nothing_to_train(tiny_run: TinyRun) -> None:
    model = load(tiny_run, tiny_run.adapter, dtype=torch.bfloat16)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert models.is_bf16(model)
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    assert all(kind == torch.float32 for name, kind in kinds.items() if "lora_" in name or "score" in name)
    assert model.config.id2label == ID2LABEL


def test_the_base_is_the_folder_given_whatever_the_configuration_says(tiny_run: TinyRun, copy: Path) -> None:
    rewrite_config(copy, base_model_name_or_path="/nowhere/at/all", revision="evil")
    stored, logits = probes.load(tiny_run.probes)
    answers = probes.forward(load(tiny_run, copy, attention="eager"), stored).logits
    assert np.array_equal(answers, logits[probes.PORTABLE])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "only LORA"),
        ({"task_type": "CAUSAL_LM"}, "only LORA"),
        ({"megatron_config": {"x": 1}, "megatron_core": "antigravity"}, "megatron_config"),
        ({"arrow_config": {"x": 1}}, "arrow_config"),
        ({"runtime_config": {"x": 1}}, "runtime_config"),
        ({"something_new": [1]}, "something_new"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights"),  # plain PEFT would change the base as it loads
        ({"rank_pattern": {"(a|a)*$": 3}}, "rank_pattern is not a list of modules"),
        ({"target_modules": r"(\w|\w\w|.)*(.*)*!"}, "target_modules is not a list of modules"),
        ({"r": 0}, "can't load|r"),
        ({"r": 8}, "can't load"),
        ({"target_modules": ["q_proj"]}, "unexpected"),
        ({"target_modules": ["no_such_layer"]}, "can't load"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    tiny_run: TinyRun, copy: Path, changes: dict[str, Any], message: str
) -> None:
    rewrite_config(copy, **changes)
    with pytest.raises(AdapterRejected, match=message):
        load(tiny_run, copy)


@pytest.mark.parametrize("part", ["score", "layers.0.mlp.up_proj", "lora_B", "layers.1"])
def test_missing_tensors_are_refused(tiny_run: TinyRun, copy: Path, part: str) -> None:
    held = load_file(copy / adapter.WEIGHTS)
    save_file({key: value for key, value in held.items() if part not in key}, copy / adapter.WEIGHTS)
    with pytest.raises(AdapterRejected):
        load(tiny_run, copy)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_prefixed_keys_are_refused(tiny_run: TinyRun, copy: Path, prefix: str) -> None:
    held = load_file(copy / adapter.WEIGHTS)
    save_file({f"{prefix}{key}": value for key, value in held.items()}, copy / adapter.WEIGHTS)
    with pytest.raises(AdapterRejected):
        load(tiny_run, copy)


def test_a_pickle_is_never_opened(tiny_run: TinyRun, copy: Path) -> None:
    (copy / adapter.WEIGHTS).rename(copy / "adapter_model.bin")
    with pytest.raises(AdapterRejected, match="pickle"):
        load(tiny_run, copy)


def test_an_adapter_is_no_base(tiny_run: TinyRun, copy: Path) -> None:
    with pytest.raises(AdapterRejected, match="an adapter, not a base"):
        adapter.load(copy, tiny_run.adapter, dtype=torch.float32, id2label=ID2LABEL)


def test_a_base_with_missing_weights_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_run.base, tmp_path / "base"))
    held = load_file(base / "model.safetensors")
    held.pop("model.layers.1.mlp.up_proj.weight")
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AdapterRejected, match="lacks 1 weights"):
        adapter.load(base, tiny_run.adapter, dtype=torch.float32, id2label=ID2LABEL)


def test_an_impossible_pad_token_is_refused(tiny_run: TinyRun, copy: Path) -> None:
    (copy / adapter.CLASSIFIER).write_text('{"pad_token_id": 99999}')
    with pytest.raises(AdapterRejected, match="pad_token_id"):
        load(tiny_run, copy)
