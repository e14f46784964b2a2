"""Training speed beside plain scripts: this loop, transformers' Trainer + peft, and the Trainer grouping by length.

python benchmarks/training.py [--rows-per-step 8,16,32,64] [--train-rows 4000] [--rounds 1] [--swift swift]

All of them fine-tune the same base (examples/tiny_qwen/base) from the same weights, LoRA on all linear layers and a
head from one linear probe, on the same rows of the reviews (examples/reviews), for the same epochs with the same
optimizer, schedule, clipping and number of rows per optimizer step, in float32, at most 256 tokens a row.  Each is a
process of its own with two threads; they take turns, every round with another seed.  Timed is the training alone: `fit`
with its trial of token budgets and its looks at the validation split, and `Trainer.train()`, which looks at nothing.
The test split is then answered by one and the same code.  ms-swift, whose command `--swift` names, has an environment
of its own: it groups by length too, without gradient checkpointing, and reports its own time; its padding and head are
not ours to look at.

`padding` is padded / real tokens; the ceiling is what an arm's lower padding alone would gain over the plain script.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

BASE = REPOSITORY / "examples" / "tiny_qwen" / "base"
ARMS = ("launch", "grouped", "plain")
TITLES = {
    "launch": "launch",
    "plain": "Trainer, dynamic padding, shuffled",
    "grouped": "Trainer, group_by_length",
    "swift": "ms-swift, group_by_length",
}
KEYS: dict[str, Any] = {
    "name": "benchmark",
    "model_name_or_path": str(BASE),
    "data": "reviews.csv",
    "num_train_epochs": 1,
    "learning_rate": 1.5e-3,
    "lora_alpha": 8,
    "max_length": 256,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows-per-step", default="8,16,32,64")
    parser.add_argument("--train-rows", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--reviews", type=Path, help="folder that examples/reviews/prepare.py has written")
    parser.add_argument("--swift", default="", help="ms-swift's command line program")
    parser.add_argument("--seed", type=int, default=42, help="of the first round")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--head", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(ARM[options.arm](int(options.rows_per_step), options)))
        return
    with tempfile.TemporaryDirectory(prefix="launch-training-") as name:
        run_all(options, Path(name))


def run_all(options: argparse.Namespace, folder: Path) -> None:
    """Every arm at every number of rows per step, in turns, and the table."""
    reviews = options.reviews or folder / "reviews"
    if not (reviews / "train.csv").is_file():
        subprocess.run([sys.executable, REPOSITORY / "examples/reviews/prepare.py", reviews], check=True)
    common = ["--train-rows", str(options.train_rows), "--reviews", str(reviews), "--head", str(folder / "head.npy")]
    one_process([sys.executable, __file__, "--arm", "probe", "--rows-per-step", "1", *common])
    print(f"{os.cpu_count()} cores, {options.train_rows} rows, 1 epoch, {options.rounds} rounds\n")
    print("| rows a step | | rows/s | launch is faster by | padding | ceiling | test accuracy | 95 % |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rows in options.rows_per_step.split(","):
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for turn in range(options.rounds):
            arms = (*ARMS, "swift") if options.swift else ARMS
            for arm in arms if turn % 2 == 0 else reversed(arms):
                seed = options.seed + turn
                argv = [sys.executable, __file__, "--arm", arm, "--rows-per-step", rows, "--seed", str(seed), *common]
                found[arm].append(swift(int(rows), options, reviews) if arm == "swift" else one_process(argv))
        print_table(rows, found)


ENVIRONMENT = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}


def one_process(argv: list[Any]) -> dict[str, Any]:
    """What an arm printed last; one that fails ends the benchmark."""
    done = subprocess.run(argv, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def print_table(rows: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """One number of rows a step: the fastest round of each arm, as noise only adds, and the mean of its accuracies."""
    from jobs.intervals import wilson_interval

    best = {arm: min(runs, key=lambda run: run["seconds"]) for arm, runs in found.items()}
    for arm, run in best.items():
        ratio = "" if arm == "launch" else f"{run['seconds'] / best['launch']['seconds']:.2f}x"
        cells = [rows, TITLES[arm], f"{run['rows'] / run['seconds']:.0f}", ratio, *[""] * 4]
        if "tested" in run:
            correct = round(statistics.mean(one["correct"] for one in found[arm]))
            low, high = wilson_interval(correct, run["tested"])
            cells[4:] = [f"{run['padding']:.2f}", f"{best['plain']['padding'] / run['padding']:.2f}x"]
            cells += [f"{correct / run['tested']:.3f}", f"{low:.3f}-{high:.3f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def load(options: argparse.Namespace) -> dict[str, tuple[list[str], list[int]]]:
    """Texts and label ids by split: as many training rows as asked for, drawn once and for all."""
    import numpy as np

    from jobs import table

    splits = {}
    for name, most in (("train", options.train_rows), ("validation", None), ("test", None)):
        rows = table.read(options.reviews / f"{name}.csv")
        chosen = np.sort(np.random.default_rng(0).permutation(len(rows.texts))[:most])
        names = sorted(set(rows.labels))
        splits[name] = ([rows.texts[i] for i in chosen], [names.index(rows.labels[i]) for i in chosen])
    return splits


def model_and_tokenizer(options: argparse.Namespace, rows: int) -> tuple[Any, Any, Any]:
    """The base with LoRA, with the head of the probe in it, and the spec."""
    import numpy as np
    import torch

    from jobs import model as models
    from jobs.spec import from_mapping

    spec = from_mapping({**KEYS, "seed": options.seed, "train_batch_size": rows, "tokens_per_batch": "auto"})
    model, tokenizer = with_lora(spec)
    if options.head.is_file():
        with torch.no_grad():
            models.head_of(model).weight.copy_(torch.from_numpy(np.load(options.head)))
    return model, tokenizer, spec


def with_lora(spec: Any) -> tuple[Any, Any]:
    """The base of the reviews with LoRA around it and a random head, and its tokenizer."""
    import torch

    from jobs import model as models

    torch.manual_seed(spec.seed)
    tokenizer = models.load_tokenizer(BASE)
    base = models.load_base(
        BASE,
        label_names=("negative", "positive"),
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    return models.with_lora(base, spec), tokenizer


def encoded(tokenizer: Any, split: tuple[list[str], list[int]]) -> Any:
    import numpy as np

    from jobs import batches
    from jobs import model as models
    from jobs.fitting import Encoded

    token_ids = batches.Tokens(models.encode(tokenizer, split[0], KEYS["max_length"]))
    return Encoded(token_ids, np.array(split[1], dtype=np.int64))


def probe(rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """Fit the head that all arms start from."""
    import numpy as np

    model, tokenizer, _ = model_and_tokenizer(options, rows)
    splits = load(options)
    np.save(options.head, probed(model, *(encoded(tokenizer, splits[name]) for name in ("train", "validation"))))
    return {}


def probed(model: Any, train: Any, validation: Any) -> Any:
    """The head (C, H) of a linear probe on the features of the base inside of `model`, which LoRA has not moved yet."""
    from jobs import head, inference

    features = [
        inference.pooled_features(model.get_base_model(), rows.token_ids, tokens_per_batch=4096)
        for rows in (train, validation)
    ]
    return head.fit(features[0], train.label_ids, features[1], validation.label_ids, 2).weight


def launch(rows: int, options: argparse.Namespace) -> dict[str, Any]:
    """This project's loop."""
    from jobs.events import EventLog
    from jobs.fitting import fit

    model, tokenizer, spec = model_and_tokenizer(options, rows)
    splits = {name: encoded(tokenizer, split) for name, split in load(options).items()}
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        fitted = fit(model, splits["train"], splits["validation"], spec, EventLog(Path(folder) / "events.jsonl"))
        seconds = time.monotonic() - started
    padding = fitted.padded_tokens / fitted.tokens
    return tested(model, splits["test"], seconds, len(splits["train"].token_ids), padding)


def trainer(rows: int, options: argparse.Namespace, **arguments: Any) -> dict[str, Any]:
    """What one writes from the documentation: Trainer, peft, a collator that pads to the longest of the batch."""
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    model, tokenizer, spec = model_and_tokenizer(options, rows)
    splits = {name: encoded(tokenizer, split) for name, split in load(options).items()}
    train = splits["train"]
    examples = [
        {"input_ids": list(map(int, ids)), "labels": int(label)}
        for ids, label in zip(train.token_ids, train.label_ids, strict=True)
    ]
    seen = {"padded": 0, "real": 0}
    collate = DataCollatorWithPadding(tokenizer)

    def counted(batch: list[dict[str, Any]]) -> Any:
        made = collate(batch)
        seen["padded"] += made["input_ids"].numel()
        seen["real"] += int(made["attention_mask"].sum())
        return made

    steps = math.ceil(len(examples) / rows)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        told = TrainingArguments(
            output_dir=folder,
            num_train_epochs=spec.num_train_epochs,
            per_device_train_batch_size=rows,
            learning_rate=spec.learning_rate,
            weight_decay=spec.weight_decay,
            lr_scheduler_type="cosine",
            warmup_steps=round(spec.warmup_ratio * steps),
            max_grad_norm=spec.max_grad_norm,
            seed=spec.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            report_to="none",
            save_strategy="no",
            logging_steps=50,
            disable_tqdm=True,
            **arguments,
        )
        made = Trainer(
            model=model, args=told, train_dataset=examples, data_collator=counted, processing_class=tokenizer
        )
        started = time.monotonic()
        made.train()
        seconds = time.monotonic() - started
    return tested(model, splits["test"], seconds, len(examples), seen["padded"] / seen["real"])


def plain(rows: int, options: argparse.Namespace) -> dict[str, Any]:
    return trainer(rows, options)


def grouped(rows: int, options: argparse.Namespace) -> dict[str, Any]:
    return trainer(rows, options, train_sampling_strategy="group_by_length")


def swift(rows: int, options: argparse.Namespace, reviews: Path) -> dict[str, Any]:
    """ms-swift's own command on the same rows; its head starts at random."""
    options.reviews = reviews
    texts, labels = load(options)["train"]
    with tempfile.TemporaryDirectory() as name:
        data, out = Path(name) / "train.jsonl", Path(name) / "out"
        lines = [
            json.dumps({"messages": [{"role": "user", "content": text}], "label": label})
            for text, label in zip(texts, labels, strict=True)
        ]
        data.write_text("\n".join(lines) + "\n", "utf-8")
        told = {
            "model": BASE, "model_type": "qwen2", "template": "dummy", "task_type": "seq_cls", "num_labels": 2,
            "dataset": data, "tuner_type": "lora", "target_modules": "all-linear", "lora_rank": 16,
            "lora_alpha": KEYS["lora_alpha"], "lora_dropout": 0, "use_rslora": "true", "torch_dtype": "float32",
            "num_train_epochs": KEYS["num_train_epochs"], "per_device_train_batch_size": rows,
            "gradient_accumulation_steps": 1, "learning_rate": KEYS["learning_rate"], "weight_decay": 0,
            "max_length": KEYS["max_length"], "gradient_checkpointing": "false", "group_by_length": "true",
            "split_dataset_ratio": 0, "save_strategy": "no", "report_to": "none", "attn_impl": "sdpa",
            "output_dir": out, "seed": options.seed, "logging_steps": 50,
        }  # fmt: skip
        argv = [options.swift, "sft", *(str(word) for key, value in told.items() for word in (f"--{key}", value))]
        subprocess.run(argv, env={**os.environ, **ENVIRONMENT}, stdout=sys.stderr, check=True)
        log = json.loads(next(out.glob("*/logging.jsonl")).read_text("utf-8").splitlines()[-1])
    log = log if "train_runtime" in log else log["log_history"][-1]
    return {"seconds": float(log["train_runtime"]), "rows": len(texts)}


def tested(model: Any, test: Any, seconds: float, rows: int, padding: float) -> dict[str, Any]:
    """The outcome of an arm: its time, and how its adapter does on the test split."""
    from jobs import inference

    answers = inference.logits(model, test.token_ids, tokens_per_batch=4096).argmax(axis=1)
    correct = int((answers == test.label_ids).sum())
    return {"seconds": seconds, "rows": rows, "padding": padding, "correct": correct, "tested": len(answers)}


ARM = {"launch": launch, "plain": plain, "grouped": grouped, "probe": probe}

if __name__ == "__main__":
    main()
