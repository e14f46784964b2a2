"""Pre-trains the demo's base: a Qwen2 of 3.4 M parameters that read the training texts and never a label.

Owns the recipe: what the model is, what it learns from, how it is saved. The README holds what was measured.

Example: python examples/tiny_qwen/pretrain.py --data reviews --out base
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from batches import Batch, epoch
from embeddings import ppmi_embeddings
from threadpoolctl import threadpool_limits
from tokenizer import BEGIN_ID, END_ID, PAD_ID, SPECIAL_COUNT, train_tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

Report = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    vocabulary: int = 8_000
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    mlp: int = 512
    max_length: int = 256
    embedding_scale: float = 0.05
    tokens_per_step: int = 2_048
    epochs: int = 4
    crop_share: float = 0.5
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    next_token_share: float = 0.25
    bag_weight: float = 1.0
    seed: int = 42


def read_texts(path: Path) -> list[str]:
    """The column `text` of a CSV file. The labels are not looked at."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def new_model(recipe: Recipe) -> Qwen2ForCausalLM:
    """A Qwen2 with tied embeddings, randomly initialised from torch's global generator."""
    config = Qwen2Config(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.max_length,
        tie_word_embeddings=True,
        pad_token_id=PAD_ID,
        bos_token_id=BEGIN_ID,
        eos_token_id=END_ID,
    )
    return Qwen2ForCausalLM(config)


def token_counts(batch: Tensor, vocabulary: int) -> Tensor:
    """How often each token stands in each row of batch (B, T): (B, vocabulary) float, special tokens as 0."""
    counts = torch.zeros(len(batch), vocabulary).scatter_add_(1, batch, torch.ones(batch.shape))
    counts[:, :SPECIAL_COUNT] = 0
    return counts


def log_frequencies(rows: list[list[int]], vocabulary: int) -> Tensor:
    """Log share of each token in `rows`, each counted once more than it occurs: (vocabulary,)."""
    tokens = torch.tensor([token for row in rows for token in row])
    counts = torch.bincount(tokens, minlength=vocabulary) + 1.0
    return (counts / counts.sum()).log()


class Objective:
    """The two losses. Both add the log frequencies to the logits, so a state need not say what is common.

    States and embeddings then fit pointwise mutual information, which is what the embeddings start from.
    """

    def __init__(self, prior: Tensor, next_token_share: float, generator: torch.Generator) -> None:
        self.prior = prior  # (vocabulary,)
        self.next_token_share = next_token_share
        self.generator = generator

    def losses(self, model: Qwen2ForCausalLM, batch: Batch) -> tuple[Tensor, Tensor]:
        """(next-token loss, bag-of-words loss), both in nats a token."""
        # Causal attention, padding on the right: no real token ever sees a padding one, no mask is needed.
        states = model.model(input_ids=batch.seen, use_cache=False).last_hidden_state  # (B, T, hidden)
        ends = states[batch.seen == END_ID]  # (B, hidden)
        return self.next_token(model, states, batch.seen), self.bag(model, ends, batch.whole)

    def next_token(self, model: Qwen2ForCausalLM, states: Tensor, seen: Tensor) -> Tensor:
        """Cross-entropy at a random share of the positions: the 8,000 logits are what costs time."""
        chosen = torch.rand(seen[:, 1:].shape, generator=self.generator) < self.next_token_share
        chosen &= seen[:, 1:] != PAD_ID
        chosen[0, 0] = True  # a mean over nothing would be NaN
        logits = model.lm_head(states[:, :-1][chosen]) + self.prior
        return functional.cross_entropy(logits, seen[:, 1:][chosen])

    def bag(self, model: Qwen2ForCausalLM, ends: Tensor, whole: Tensor) -> Tensor:
        """Asks the states at `</s>`, (B, hidden), the ones a classifier reads, for the words of whole texts.

        From half a text the other half must be guessed: what carries over is topic and mood.
        """
        counts = token_counts(whole, len(self.prior))
        shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        logarithms = functional.log_softmax(model.lm_head(ends) + self.prior, dim=-1)
        return -(shares * logarithms).sum(dim=1).mean()


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then a half cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(model: Qwen2ForCausalLM, rows: list[list[int]], recipe: Recipe, report: Report) -> None:
    """Trains `model` in place on token rows; `report` gets a line every 100 steps."""
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = [
        batch
        for _ in range(recipe.epochs)
        for batch in epoch(rows, recipe.tokens_per_step, recipe.crop_share, generator)
    ]
    objective = Objective(log_frequencies(rows, recipe.vocabulary), recipe.next_token_share, generator)
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_at(step, len(batches), recipe.warmup_steps)
    )
    model.train()
    for step, batch in enumerate(batches, start=1):
        next_token, bag = objective.losses(model, batch)
        torch.autograd.backward(next_token + recipe.bag_weight * bag)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == len(batches):
            values = f"next token {next_token.item():.3f}  bag of words {bag.item():.3f}"
            report(f"step {step}/{len(batches)}  {values}")


def save(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, out: Path) -> None:
    """Writes a Hugging Face folder (float16) beside `out`, then moves it into place: never half a base."""
    out.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        fresh, former = workplace / "fresh", workplace / "former"
        half: Any = model.half  # untyped in transformers
        half().save_pretrained(fresh)
        tokenizer.backend_tokenizer.no_truncation()  # the limit stands in tokenizer_config.json
        tokenizer.save_pretrained(fresh)
        if out.exists():
            os.replace(out, former)
        os.replace(fresh, out)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def pretrain(data: Path, out: Path, recipe: Recipe, report: Report) -> None:
    """Makes the base from data/train.csv and saves it as the folder `out`."""
    texts = read_texts(data / "train.csv")
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.max_length)
    rows: list[list[int]] = tokenizer(texts, truncation=True)["input_ids"]
    report(f"{len(rows):,} texts, {sum(map(len, rows)):,} tokens")
    torch.manual_seed(recipe.seed)
    model = new_model(recipe)
    vectors = ppmi_embeddings(rows, recipe.vocabulary, recipe.hidden, recipe.embedding_scale, recipe.seed)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(torch.from_numpy(vectors))
    report("embeddings factorised")
    fit(model, rows, recipe, report)
    save(model, tokenizer, out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Pre-train the demo's tiny base on the training texts.")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="holds train.csv")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    with threadpool_limits(arguments.threads, user_api="blas"):
        pretrain(arguments.data, arguments.out, Recipe(seed=arguments.seed), report)
    report(f"saved {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
