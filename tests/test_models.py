"""Every kind of base: read as transformers reads it, trained, saved, loaded by plain libraries, reproduced."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import DECODERS, ENCODERS, make_base_of, make_run, toy_rows
from transformers import AutoModel, AutoModelForSequenceClassification, Qwen2Config, Qwen3Config

from jobs import (
    adapter,
    base_tensors,
    baselines,
    batches,
    inference,
    probes,
    reproduction,
    static_checks,
    training,
    verification,
)
from jobs import model as models
from jobs.classifier import Classifier
from jobs.errors import AdapterRejected, DataError, JobError
from jobs.spec import Spec, from_mapping
from jobs.static_subject import Told

ID2LABEL = {0: "bad", 1: "good", 2: "neither"}
TEXTS = ["", "a", "good", "bad bad", "ends in <pad>", "ends in </s>", "<pad>", "</s></s>", "好" * 9, "long " * 20]
MAX_LENGTH = 24
TEMPLATE = "say: {text} ?"
KINDS = [*DECODERS, *ENCODERS]


def make_spec(**keys: Any) -> Spec:
    document = {"name": "t", "model_name_or_path": "b", "data": "d.csv", "lora_r": 4, "max_length": MAX_LENGTH}
    return from_mapping(document | keys)


def load_base(base: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    tokenizer = models.load_tokenizer(base)
    return models.load_base(
        base,
        label_names=tuple(ID2LABEL.values()),
        pad_token_id=tokenizer.pad_token_id,
        dtype=dtype,
        device=torch.device("cpu"),
        **options,
    )


def padded(model: Any, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and the attention mask that lengths tell, not tokens."""
    input_ids = torch.from_numpy(batches.padded(rows, np.arange(len(rows)), models.pad_id_of(model)))
    lengths = torch.tensor([len(row) for row in rows])
    return input_ids, (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).long()


@dataclass(frozen=True)
class Trained:
    """A base, its adapter after three steps, and what a run would tell of these."""

    base: Path
    model: PeftModel
    artifacts: Path
    told: Told

    @property
    def adapter(self) -> Path:
        return self.artifacts / "adapter"

    def static(self) -> dict[str, str]:
        found = static_checks.check_adapter(self.adapter, base=base_tensors.of_folder(self.base), told=self.told)
        return {check.id: f"{check.status}: {check.detail}" for check in found if check.status != "pass"}

    def reproduced(self) -> dict[str, str]:
        found = reproduction.reproduce(self.adapter, self.artifacts / "probes", self.base, where="host")
        return {
            check.id: f"{check.status}: {check.detail}" for check in found if check.required and check.status != "pass"
        }


def train(base: Path, artifacts: Path, *, dtype: torch.dtype = torch.float32, **keys: Any) -> Trained:
    """Three steps of AdamW by hand, then everything that a run saves."""
    spec = make_spec(prompt_template=TEMPLATE, **keys)
    tokenizer = models.load_tokenizer(base)
    torch.manual_seed(0)
    model = models.with_lora(load_base(base, dtype), spec)
    initial = adapter.fingerprints(model)
    rows = models.encode(tokenizer, TEXTS, MAX_LENGTH, TEMPLATE)
    input_ids, _ = padded(model, rows)
    label_ids = torch.arange(len(rows)) % len(ID2LABEL)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=5e-3)
    for _ in range(3):
        torch.nn.functional.cross_entropy(models.logits(model, input_ids), label_ids).backward()
        assert all(parameter.grad is not None for parameter in trainable)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    adapter.save(
        model, tokenizer, artifacts / "adapter", base_name="tiny/base", revision="abc", id2label=ID2LABEL,
        max_length=MAX_LENGTH, prompt_template=TEMPLATE,
    )  # fmt: skip
    probes.record(
        model, tokenizer, TEXTS, base_folder=base, max_length=MAX_LENGTH, id2label=ID2LABEL,
        folder=artifacts / "probes", prompt_template=TEMPLATE,
    )  # fmt: skip
    hashes = base_tensors.of_folder(base).weights_sha256()
    return Trained(base, model, artifacts, Told(initial, adapter.fingerprints(model), hashes))


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(request.param)
    return train(make_base_of(request.param, folder / "base"), folder / "artifacts")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base_of("bert", tmp_path_factory.mktemp("bert") / "base")


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base_of("qwen3", tmp_path_factory.mktemp("qwen3") / "base")


# --- as transformers reads it


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_the_plain_forward(kind: str, tmp_path: Path) -> None:
    base = make_base_of(kind, tmp_path)
    model = models.with_lora(load_base(base), make_spec()).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    rows = models.encode(models.load_tokenizer(base), TEXTS, MAX_LENGTH)
    input_ids, mask = padded(model, rows)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    found = models.logits(model, input_ids)
    expected = model(input_ids=input_ids, attention_mask=mask).logits
    assert (found - expected).abs().max() < 1e-5
    gradients = torch.autograd.grad(found.square().sum(), list(trainable.values()))
    plain = torch.autograd.grad(expected.square().sum(), list(trainable.values()))
    for name, one, other in zip(trainable, gradients, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()) + 1e-6), name
    with torch.no_grad():
        for row, together in zip(rows, expected, strict=True):
            alone = torch.tensor([row])
            assert (models.logits(model, alone) - together).abs().max() < 1e-5
            assert (model(input_ids=alone).logits - together).abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_sees_no_later_token_goes_without_a_mask(kind: str, tmp_path: Path) -> None:
    fast = set(DECODERS) - {"gpt2", "opt"}
    assert models._reads_last_token_only(load_base(make_base_of(kind, tmp_path))) == (kind in fast)


def test_a_decoder_that_looks_both_ways_has_a_mask(tmp_path: Path) -> None:
    model = load_base(make_base_of("gemma3_text", tmp_path, use_bidirectional_attention=True))
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7], [9]]
    input_ids, mask = padded(model, rows)
    with torch.no_grad():
        expected = model(input_ids=input_ids, attention_mask=mask).logits
        without = model(input_ids=input_ids).logits
        assert (models.logits(model, input_ids) - expected).abs().max() < 1e-5
    assert (without - expected).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "electra", "deberta-v2", "modernbert", "qwen3"])
def test_the_last_layer_is_the_head_even_where_others_are_as_wide(kind: str, tmp_path: Path) -> None:
    names = [f"label {number}" for number in range(32)]
    options: dict[str, Any] = {"pad_token_id": 1, "dtype": torch.float32, "device": torch.device("cpu")}
    model = models.load_base(make_base_of(kind, tmp_path), label_names=names, **options)
    lora = models.with_lora(model, make_spec(lora_r=32)).eval()
    input_ids = torch.tensor([[70, 71, 72]])
    with torch.no_grad():
        assert (models.logits(lora, input_ids) - lora(input_ids=input_ids).logits).abs().max() < 1e-5
    assert models.head_of(lora).weight.requires_grad


def test_logits_that_are_pooled_after_the_head_are_refused(tmp_path: Path) -> None:
    from transformers import EuroBertConfig, EuroBertForMaskedLM

    sizes = {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    config = EuroBertConfig(**sizes, num_attention_heads=4, initializer_range=0.2, pad_token_id=0)
    options: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu"), "pad_token_id": 0}
    for pooling in ("mean", "late"):
        config.classifier_pooling = pooling
        with adapter.quiet_libraries():
            EuroBertForMaskedLM(config).save_pretrained(tmp_path)
        if pooling == "mean":
            model = models.load_base(tmp_path, label_names=("a", "b"), **options)
            assert models.logits(model, torch.tensor([[5, 6, 7]])).shape == (1, 2)
        else:
            with pytest.raises(JobError, match="not what its head makes of one vector") as caught:
                models.load_base(tmp_path, label_names=("a", "b"), **options)
            assert "classifier_pooling" in caught.value.hint


def test_threads_that_share_an_encoder_keep_to_their_rows(bert: Path) -> None:
    model = load_base(bert)
    rows = [[70 + row % 9] * (row % 7 + 1) for row in range(200)]
    alone = inference.logits(model, rows, tokens_per_batch=16)
    torch.set_num_threads(3)
    try:
        together = inference.logits(model, rows, tokens_per_batch=16)
    finally:
        torch.set_num_threads(1)
    assert np.abs(alone - together).max() < 1e-5


def test_a_padding_token_that_the_base_lacks(bert: Path) -> None:
    options: dict[str, Any] = {"dtype": torch.float32, "device": torch.device("cpu")}
    with pytest.raises(DataError, match="pads with token 300, and the base knows 300"):
        models.load_base(bert, label_names=("a", "b"), pad_token_id=300, **options)


# --- the whole way


def test_a_name_that_stands_for_nothing_ends_a_run_at_once(qwen3: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, qwen3, target_modules=["w_proj"])
    with pytest.raises(JobError, match="no linear layer is called w_proj"):
        training.train(run.root)
    assert not (run.artifacts / baselines.FILE).exists()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_run_of_another_kind_of_base(kind: str, tmp_path: Path) -> None:
    base = make_base_of(kind, tmp_path / "base")
    run = make_run(tmp_path, base, prompt_template=TEMPLATE, rows=64, num_train_epochs=1)
    training.train(run.root)
    record = json.loads(run.training.read_text())
    checks = static_checks.check_adapter(run.adapter, base=base_tensors.of_folder(base), told=verification.told(run))
    checks += reproduction.reproduce(run.adapter, run.probes, base, where="host")
    assert [check for check in checks if check.status != "pass"] == []
    texts = [text for text, _ in toy_rows(40, 1)]
    logits = Classifier.open(base, run.adapter, label_names=("bad", "good")).logits(texts)
    truth = np.array([label == "good" for _, label in toy_rows(40, 1)])
    assert (logits.argmax(axis=1) == truth).mean() == record["best"]["accuracy"]


def test_what_was_trained_is_saved_and_reproduced(trained: Trained) -> None:
    assert trained.static() == {}
    assert trained.reproduced() == {}
    config = json.loads((trained.adapter / adapter.CONFIG).read_text())
    assert len(config["modules_to_save"]) == len(set(config["modules_to_save"]))
    assert config["use_rslora"] is True
    assert adapter.prompt_template(trained.adapter) == TEMPLATE
    assert probes.load(trained.artifacts / "probes")[0].prompt_template == TEMPLATE


def test_plain_peft_gives_the_same_logits(trained: Trained) -> None:
    with warnings.catch_warnings(), adapter.quiet_libraries():
        warnings.simplefilter("ignore")
        plain = AutoModelForSequenceClassification.from_pretrained(trained.base, num_labels=len(ID2LABEL))
        plain.config.pad_token_id = models.pad_id_of(trained.model)
        plain = PeftModel.from_pretrained(plain, str(trained.adapter)).eval()
    tokenizer = adapter.load_tokenizer(trained.adapter)
    rows = [row for row in models.encode(tokenizer, TEXTS, MAX_LENGTH, TEMPLATE) if row]
    input_ids, mask = padded(trained.model, rows)
    with torch.no_grad():
        expected = plain(input_ids=input_ids, attention_mask=mask).logits
        assert (models.logits(trained.model, input_ids) - expected).abs().max() < 1e-5


def broken(trained: Trained, folder: Path, change: Any) -> Trained:
    artifacts = Path(shutil.copytree(trained.artifacts, folder / "artifacts"))
    path = artifacts / "adapter" / adapter.WEIGHTS
    held = {key: change(key, value) for key, value in load_file(path).items()}
    save_file({key: value for key, value in held.items() if value is not None}, path, metadata={"format": "pt"})
    return Trained(trained.base, trained.model, artifacts, trained.told)


def test_an_emptied_adapter_fails(trained: Trained, tmp_path: Path) -> None:
    empty = broken(trained, tmp_path, lambda key, value: torch.zeros_like(value) if "lora_B" in key else value)
    assert "lora_b" in empty.static()
    assert {"portable", "adapter_matters"} <= empty.reproduced().keys()


def test_anything_new_drawn_again_fails(trained: Trained, tmp_path: Path) -> None:
    new = [key for key in load_file(trained.adapter / adapter.WEIGHTS) if "lora_" not in key and key.endswith("weight")]
    for key in new:
        again = broken(
            trained, tmp_path / key, lambda name, v, key=key: torch.randn_like(v) * 0.2 if name == key else v
        )
        assert "portable" in again.reproduced(), key


def test_anything_new_left_out_fails(trained: Trained, tmp_path: Path) -> None:
    saved = {key for key in load_file(trained.adapter / adapter.WEIGHTS) if "lora_" not in key}
    for key in saved:
        less = broken(trained, tmp_path / key, lambda name, value, key=key: None if name == key else value)
        assert {"head", "moved", "classes"} & less.static().keys(), key
        assert less.reproduced().keys() == {"loads"}, key


@pytest.mark.parametrize("kind", ["qwen2", "gpt2", "bert", "roberta", "deberta-v2"])
def test_a_bf16_base_trains_in_float32(kind: str, tmp_path: Path) -> None:
    run = train(make_base_of(kind, tmp_path / "base", dtype=torch.bfloat16), tmp_path / "a", dtype=torch.bfloat16)
    kinds = {p.requires_grad: set() for p in run.model.parameters()}
    for parameter in run.model.parameters():
        kinds[parameter.requires_grad].add(parameter.dtype)
    assert kinds[True] == {torch.float32} and torch.bfloat16 in kinds[False]
    head = models.head_of(run.model).weight
    before = head.detach().clone()
    head.grad = torch.ones_like(head)
    torch.optim.AdamW([head], lr=1e-5, weight_decay=0).step()
    assert (head != before).all()
    assert run.static() == {}
    assert run.reproduced() == {}


@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "electra", "deberta-v2", "modernbert", "roberta", "gpt2", "qwen3"]
)
def test_names_that_peft_shortens_mean_the_same_layers(kind: str, tmp_path: Path) -> None:
    """From 20 layers on it keeps only what their names end in."""
    depth = "n_layer" if kind == "gpt2" else "num_hidden_layers"
    run = train(make_base_of(kind, tmp_path / "base", **{depth: 5}), tmp_path / "a")
    config = json.loads((run.adapter / adapter.CONFIG).read_text())
    pairs = [key for key in run.told.initial if "lora_A" in key]
    assert len(config["target_modules"]) < 20 <= len(pairs)
    assert run.static() == {} and run.reproduced() == {}


def test_a_base_saved_without_the_classifiers_prefix(tmp_path: Path) -> None:
    """As the Hub's gpt2 is, and every base that was saved as a bare body."""
    for kind in ("gpt2", "bert", "roberta", "distilbert"):
        base = make_base_of(kind, tmp_path / kind)
        with adapter.quiet_libraries():
            AutoModel.from_pretrained(base).save_pretrained(base)
        run = train(base, tmp_path / f"{kind}-run")
        assert run.static() == {} and run.reproduced() == {}


def test_plain_pefts_own_choice_passes_the_static_checks(tmp_path: Path) -> None:
    """RoBERTa with `dense` among the targets, DistilBERT with a head that only PEFT's rule names."""
    for kind, targets in (("roberta", ["query", "dense"]), ("distilbert", ["q_lin", "lin1"])):
        base = make_base_of(kind, tmp_path / kind)
        with adapter.quiet_libraries():
            AutoModel.from_pretrained(base).save_pretrained(base)  # with a pooler
            plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
            model = get_peft_model(plain, LoraConfig(task_type="SEQ_CLS", target_modules=targets, r=2))
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter)
            model.save_pretrained(tmp_path / f"{kind}-adapter")
        found = static_checks.check_adapter(tmp_path / f"{kind}-adapter", base=base_tensors.of_folder(base))
        assert {check.id: check.detail for check in found if check.status == "fail"} == {}


def test_a_pooler_that_the_base_brings_is_not_new(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForPreTraining

    base = make_base_of("bert", tmp_path / "base")
    with adapter.quiet_libraries():
        BertForPreTraining(BertConfig.from_pretrained(base)).save_pretrained(base)
    run = train(base, tmp_path / "a")
    assert not [key for key in run.told.initial if "pooler" in key and "lora" not in key]
    assert [key for key in run.told.initial if "pooler.dense.lora_A" in key]
    assert run.static() == {} and run.reproduced() == {}


def test_a_classifier_can_be_the_base(tmp_path: Path) -> None:
    """Its head has weights, and is trained on and saved all the same."""
    base = make_base_of("roberta", tmp_path / "base")
    with adapter.quiet_libraries():
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=3).save_pretrained(base)
    run = train(base, tmp_path / "a")
    assert {key.split(".")[-2] for key in run.told.initial if "lora" not in key} == {"dense", "out_proj"}
    assert run.static() == {} and run.reproduced() == {}
    with pytest.raises(DataError, match="classifier of other labels"):
        models.load_base(base, label_names=("a", "b"), pad_token_id=1, dtype=torch.float32, device=torch.device("cpu"))


def test_a_base_that_lacks_a_part_is_no_base(bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(bert, tmp_path / "base"))
    held = load_file(base / "model.safetensors")
    held.pop("bert.encoder.layer.1.output.dense.weight")
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match="lacks 1 weights, first bert.encoder.layer.1.output.dense.weight"):
        load_base(base)


def test_half_a_module_is_neither_the_bases_nor_new(tmp_path: Path) -> None:
    base = make_base_of("modernbert", tmp_path / "base")
    held = load_file(base / "model.safetensors")
    held.pop("head.dense.weight")
    save_file(held, base / "model.safetensors", metadata={"format": "pt"})
    assert "head.dense" in models.new_modules(load_base(base))  # a whole one, and the only one that `head` lacks
    run = train(base, tmp_path / "a")
    assert run.static() == {} and run.reproduced() == {}
    deberta = make_base_of("deberta-v2", tmp_path / "deberta")
    with adapter.quiet_libraries():
        AutoModelForSequenceClassification.from_pretrained(deberta, num_labels=3).save_pretrained(deberta)
    held = load_file(deberta / "model.safetensors")
    held.pop("pooler.dense.bias")
    save_file(held, deberta / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"lacks 1 weights of modules it has, first pooler.dense.bias"):
        load_base(deberta)


# --- what is trained


def trained_parts(model: PeftModel) -> tuple[set[str], set[str]]:
    """The last names of the layers with LoRA, and the names of what is trained whole."""
    keys = [key.removeprefix("base_model.model.") for key in adapter.adapter_tensors(model)]
    return (
        {key.split(".lora_A")[0].split(".")[-1] for key in keys if "lora_A" in key},
        {key for key in keys if "lora_" not in key},
    )


def test_named_targets_and_modules(qwen3: Path, tmp_path: Path) -> None:
    keys = {"target_modules": ["q_proj", "layers.0.mlp.up_proj"], "modules_to_save": ["embed_tokens", "model.norm"]}
    model = models.with_lora(load_base(qwen3), make_spec(**keys))
    layers, whole = trained_parts(model)
    assert layers == {"q_proj", "up_proj"}
    assert whole == {"score.weight", "model.embed_tokens.weight", "model.norm.weight"}
    assert len([key for key in adapter.adapter_tensors(model) if "up_proj" in key]) == 2
    run = train(qwen3, tmp_path, **keys)
    assert run.static() == {} and run.reproduced() == {}


def test_what_is_trained_whole_has_no_lora(bert: Path) -> None:
    model = models.with_lora(load_base(bert), make_spec(modules_to_save=["layer.1", "intermediate"]))
    keys = [key for key in adapter.adapter_tensors(model) if "lora_" in key]
    assert keys and not [key for key in keys if "layer.1." in key or "intermediate" in key or "pooler" in key]


@pytest.mark.parametrize(
    ("keys", "message", "hint"),
    [
        ({"target_modules": ["w_proj"]}, "no linear layer is called w_proj", "q_proj, k_proj"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "no linear layer is called embed_tokens", "down_proj"),
        ({"target_modules": ["score"]}, "no linear layer is called score", "q_proj"),
        ({"target_modules": ["proj"]}, "no linear layer is called proj", "q_proj"),
        ({"target_modules": "none"}, "no layer at all", "all-linear"),
        ({"modules_to_save": ["model"]}, "no layer at all", ""),
        ({"target_modules": ["q_proj"], "modules_to_save": ["layers"]}, "no linear layer is called q_proj", ""),
        ({"modules_to_save": ["nrm"]}, "no module is called nrm", "norm"),
    ],
)
def test_names_that_stand_for_nothing(qwen3: Path, keys: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        models.with_lora(load_base(qwen3), make_spec(**keys))
    assert hint in caught.value.hint


@pytest.mark.parametrize(("kind", "longest"), [("bert", 64), ("roberta", 64), ("gpt2", 64), ("opt", 64)])
def test_rows_that_the_base_has_no_positions_for(kind: str, longest: int, tmp_path: Path) -> None:
    base = make_base_of(kind, tmp_path)
    model = load_base(base, max_length=longest)
    with torch.no_grad():
        assert models.logits(model, torch.full((1, longest), 70)).isfinite().all()
    with pytest.raises(DataError, match=f"reads at most {longest} tokens, and max_length is {longest + 1}") as caught:
        load_base(base, max_length=longest + 1)
    assert caught.value.hint == f"max_length: {longest}"


def test_positions_that_are_computed_have_no_end(qwen3: Path) -> None:
    assert models.longest_row(load_base(qwen3, max_length=100_000)) is None


def qwen(kind: Any, hidden: int, mlp: int, layers: int, heads: int, groups: int, head_dim: int) -> Any:
    return kind(
        vocab_size=1000, hidden_size=hidden, intermediate_size=mlp, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=groups, head_dim=head_dim,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tensors", "parameters_of_rank_1"),
    [
        (qwen(Qwen2Config, 896, 4864, 24, 14, 2, 64), 337, 549_888),
        (qwen(Qwen2Config, 1536, 8960, 28, 12, 2, 128), 393, 1_154_048),
        (qwen(Qwen3Config, 1024, 3072, 28, 16, 8, 128), 393, 630_784),
        (qwen(Qwen3Config, 2048, 6144, 28, 16, 8, 128), 393, 1_089_536),
    ],
    ids=["Qwen2.5-0.5B", "Qwen2.5-1.5B", "Qwen3-0.6B", "Qwen3-1.7B"],
)
def test_all_linear_is_every_layer_but_the_head(config: Any, tensors: int, parameters_of_rank_1: int) -> None:
    def on_meta() -> Any:
        with torch.device("meta"), adapter.quiet_libraries():
            base = AutoModelForSequenceClassification.from_config(config)
        base.requires_grad_(False)
        base.score.requires_grad_(True)
        return base

    with torch.device("meta"), adapter.quiet_libraries():
        model = models.with_lora(on_meta(), make_spec(lora_r=8))
        peft = get_peft_model(on_meta(), LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", r=8))
    found = adapter.adapter_tensors(model)
    assert found.keys() == adapter.adapter_tensors(peft).keys()
    assert len(found) == tensors
    assert sum(t.numel() for key, t in found.items() if "lora_" in key) == 8 * parameters_of_rank_1


# --- from a host that lies


@pytest.mark.parametrize("template", [7, None, "no text", "{text}{text}", "{text}" + "x" * 70_000])
def test_a_template_that_is_none_is_refused(trained_bert: Trained, tmp_path: Path, template: Any) -> None:
    run = broken(trained_bert, tmp_path, lambda _, value: value)
    path = run.adapter / adapter.CLASSIFIER
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prompt_template": template}))
    with pytest.raises(AdapterRejected, match="not a prompt template"):
        adapter.prompt_template(run.adapter)
    assert run.reproduced().keys() == {"tokenizer"}


@pytest.fixture(scope="module")
def trained_bert(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(bert, tmp_path_factory.mktemp("trained"))


def test_another_template_is_another_input(trained_bert: Trained, tmp_path: Path) -> None:
    run = broken(trained_bert, tmp_path, lambda _, value: value)
    path = run.adapter / adapter.CLASSIFIER
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"prompt_template": "{text}"}))
    assert run.reproduced().keys() == {"tokenizer"}
    del document["prompt_template"]
    path.write_text(json.dumps(document))
    assert adapter.prompt_template(run.adapter) == "{text}"


def test_probes_that_no_row_of_the_base_holds(trained_bert: Trained, tmp_path: Path) -> None:
    run = broken(trained_bert, tmp_path, lambda _, value: value)
    path = run.artifacts / "probes" / probes.DESCRIPTION
    document = json.loads(path.read_text())
    document["token_ids"][0], document["max_length"] = [70] * 65, 65
    path.write_text(json.dumps(document))
    assert "more than its 64 tokens" in run.reproduced()["loads"]


def test_patterns_for_modules_are_refused(trained_bert: Trained, tmp_path: Path) -> None:
    run = broken(trained_bert, tmp_path, lambda _, value: value)
    path = run.adapter / adapter.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | {"modules_to_save": ["(a+)+$"]}))
    assert "not a list of modules" in run.reproduced()["loads"]
