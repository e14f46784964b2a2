"""A tiny Qwen2 base and adapters that were really trained on it, for the tests of `jobs`."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from jobs import adapter, probes, safetensors_file
from jobs import model as models

# Two threads that wait for each other take many times longer than one where the cores are shared.
torch.set_num_threads(1)

ID2LABEL = {0: "bad", 1: "good"}
MAX_LENGTH = 24
WORDS = [f"w{i}" for i in range(60)]
GOOD = set(WORDS[:20])
"""A text is good when most of its words are among these."""


def make_tokenizer(folder: Path) -> None:
    """Word-level, `<s> text </s>`, padding on the right."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="right", **special).save_pretrained(folder)


def base_tokenizer(base: Path) -> Any:
    """The base's own; AutoTokenizer takes Qwen's for every base of type qwen2, whatever lies there."""
    return PreTrainedTokenizerFast.from_pretrained(base)


def make_base(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A causal language model with random weights, as a base comes from the Hub."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=True, initializer_range=0.2,
    )  # fmt: skip
    with adapter.quiet_libraries():
        Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def make_texts(count: int, *, seed: int = 0) -> tuple[list[str], list[int]]:
    """Texts of 1 to 20 words and their labels."""
    chance = random.Random(seed)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 20))) for _ in range(count)]
    return texts, [int(sum(word in GOOD for word in text.split()) * 3 > len(text.split())) for text in texts]


def train(
    base: Path, *, seed: int = 0, steps: int = 12, dtype: torch.dtype = torch.float32, **lora: Any
) -> tuple[PeftModel, dict[str, Any]]:
    """A LoRA classifier after `steps` steps of AdamW, and the fingerprints it had before the first."""
    model = adapter.load_base(base, dtype=dtype, id2label=ID2LABEL)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.score.weight, std=0.05)
    model.score.float()
    options = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "use_rslora": True} | lora
    with adapter.quiet_libraries():
        peft_model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", **options))
    initial = adapter.fingerprints(peft_model)
    texts, labels = make_texts(64, seed=seed)
    batch = base_tokenizer(base)(texts, padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW([p for p in peft_model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(steps):
        with models.precision(peft_model):
            logits = peft_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        torch.nn.functional.cross_entropy(logits.float(), torch.tensor(labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return peft_model.eval(), initial


def save_run(
    model: PeftModel,
    base: Path,
    artifacts: Path,
    *,
    max_length: int = MAX_LENGTH,
    texts: list[str] | None = None,
) -> Path:
    """Adapter and probes of a trained model as a run leaves them in its artifacts, the result."""
    tokenizer = base_tokenizer(base)
    adapter.save(
        model, tokenizer, artifacts / "adapter", base_name="tiny/base", revision="abc", id2label=ID2LABEL,
        max_length=max_length,
    )  # fmt: skip
    probes.record(
        model, tokenizer, texts or make_texts(32, seed=99)[0], base_folder=base, max_length=max_length,
        id2label=ID2LABEL, folder=artifacts / "probes",
    )  # fmt: skip
    return artifacts


@dataclass(frozen=True)
class TinyRun:
    """A trained run: its base, its artifacts, and the fingerprints from before the first step."""

    base: Path
    artifacts: Path
    initial: dict[str, Any]

    @property
    def adapter(self) -> Path:
        return self.artifacts / "adapter"

    @property
    def probes(self) -> Path:
        return self.artifacts / "probes"

    def arrays(self) -> dict[str, Any]:
        """The tensors of the saved file."""
        return safetensors_file.read_arrays(safetensors_file.read_header(self.adapter / adapter.WEIGHTS))


def make_run(folder: Path, base: Path, **training: Any) -> TinyRun:
    """Train on `base` and save below `folder`."""
    model, initial = train(base, **training)
    return TinyRun(base, save_run(model, base, folder / "artifacts"), initial)


_shared: dict[Path, TinyRun] = {}


def shared_run(factory: pytest.TempPathFactory) -> TinyRun:
    """A healthy run, not to be changed; made once per session, whichever test modules ask for it."""
    folder = factory.getbasetemp() / "tiny_run"
    if folder not in _shared:
        _shared[folder] = make_run(folder, make_base(folder / "base"))
    return _shared[folder]
