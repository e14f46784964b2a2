"""Training on a GPU, in the shapes of Qwen2.5-0.5B and 1.5B with random weights: this loop and a plain Trainer script.

python benchmarks/gpu.py [--shapes 0.5B,1.5B] [--rows 6400] [--rows-per-step 32,128] [--arms launch,plain]

Lengths are like the reviews' (lognormal, median 42 tokens, at most 256).  Tokens a second are real ones.  MFU counts 4
operations a parameter beside the embeddings and causal attention, of what a bf16 product of 8192 x 8192 matrices
reaches on the same card.  `--shapes tiny` runs anywhere, to see that the script works.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "vocab_size": 1000},
    "0.5B": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
             "num_key_value_heads": 2, "vocab_size": 151936},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
             "num_key_value_heads": 2, "vocab_size": 151936},
}  # fmt: skip


def main() -> None:
    import torch

    from jobs import calibration

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="0.5B,1.5B")
    parser.add_argument("--rows", type=int, default=6400)
    parser.add_argument("--rows-per-step", default="32,128")
    parser.add_argument("--arms", default="launch,plain")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    peak = calibration.peak_flops(device, dtype)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {peak / 1e12:.1f} TFLOP/s measured, {options.rows} rows\n")
    print("| shape | rows a step | | tokens/s | MFU | padded / real | peak GiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for shape in options.shapes.split(","):
        for rows in map(int, options.rows_per_step.split(",")):
            for arm in options.arms.split(","):
                gc.collect()
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                found = ARMS[arm](shape, rows, options.rows, device, dtype)
                flops = calibration.flops_per_token(found["model"], found["mean_length"])
                cells = [shape, str(rows), arm, f"{found['rate']:,.0f}", f"{found['rate'] * flops / peak:.1%}"]
                cells += [f"{found['padding']:.3f}", f"{found['peak'] / 2**30:.1f}"]
                print(f"| {' | '.join(cells)} |", flush=True)


def prepared(shape: str, rows_per_step: int, count: int, device: Any, dtype: Any) -> tuple[Any, Any, Any]:
    """A model with LoRA, rows and the spec."""
    import numpy as np
    import torch
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    from jobs import batches
    from jobs import model as models
    from jobs.fitting import Encoded
    from jobs.spec import from_mapping

    keys = {"name": "gpu", "model_name_or_path": shape, "data": "none", "num_train_epochs": 1, "max_length": 256}
    spec = from_mapping({**keys, "train_batch_size": rows_per_step, "head_start": "random"})
    torch.manual_seed(0)
    config = Qwen2Config(**SHAPES[shape], num_labels=2, pad_token_id=0, tie_word_embeddings=True)
    with torch.device(device):
        model = Qwen2ForSequenceClassification(config).to(dtype).requires_grad_(False)
    model.score.to(torch.float32).requires_grad_(True)
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(np.log(42), 0.84, count), 2, 256).astype(int)
    rows = batches.Tokens([random.integers(1, SHAPES[shape]["vocab_size"], length).tolist() for length in lengths])
    return models.with_lora(model, spec), Encoded(rows, random.integers(0, 2, count)), spec


def launch(shape: str, rows_per_step: int, count: int, device: Any, dtype: Any) -> dict[str, Any]:
    from jobs import memory
    from jobs.events import EventLog
    from jobs.fitting import Encoded, fit

    model, rows, spec = prepared(shape, rows_per_step, count, device, dtype)
    few = Encoded(type(rows.token_ids)(list(rows.token_ids)[:64]), rows.label_ids[:64])
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        fitted = fit(model, rows, few, spec, EventLog(Path(folder) / "events.jsonl"))
    told = fitted.calibration or {}
    return {
        "model": model,
        # Of the steps 4 to 20, and of everything with its trial where there are fewer.
        "rate": told.get("tokens_per_s") or fitted.tokens / fitted.seconds,
        "padding": fitted.padded_tokens / fitted.tokens,
        "peak": memory.peak_bytes(device),
        "mean_length": float((rows.lengths**2).sum() / rows.lengths.sum()),
    }


def plain(shape: str, rows_per_step: int, count: int, device: Any, dtype: Any) -> dict[str, Any]:
    """A Trainer with rows padded to the longest of a shuffled batch."""
    import torch
    from transformers import Trainer, TrainingArguments

    from jobs import batches, memory

    model, rows, spec = prepared(shape, rows_per_step, count, device, dtype)
    padded = 0

    def collate(examples: list[dict[str, int]]) -> dict[str, Any]:
        nonlocal padded
        chosen = [example["row"] for example in examples]
        ids = torch.from_numpy(batches.padded(rows.token_ids, chosen, 0))
        padded += ids.numel()
        labels = torch.tensor([int(rows.label_ids[row]) for row in chosen])
        return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}

    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        told = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=rows_per_step,
            learning_rate=spec.learning_rate,
            bf16=device.type == "cuda",
            use_cpu=device.type != "cuda",
            report_to="none",
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        examples = [{"row": row} for row in range(count)]
        trainer = Trainer(model=model, args=told, train_dataset=examples, data_collator=collate)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
    return {
        "model": model,
        "rate": int(rows.lengths.sum()) / seconds,
        "padding": padded / int(rows.lengths.sum()),
        "peak": memory.peak_bytes(device),
        "mean_length": float((rows.lengths**2).sum() / rows.lengths.sum()),
    }


ARMS = {"launch": launch, "plain": plain}

if __name__ == "__main__":
    main()
