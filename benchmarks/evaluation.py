"""Inference speed beside transformers' pipeline: the same adapter, the same rows, cut at the same length.

python benchmarks/evaluation.py [--rounds 2] [--shape demo|135m] [--rows N] [--lengths 12500,50000,200000]

`pipeline` is `transformers.pipeline("text-classification", batch_size=32)` on a PeftModel loaded as documented;
`launch` is `jobs.classifier`.  Each arm is a process of its own with two threads, they take turns, and what is timed
is all from the first text to the last logit, without loading.  The adapter is of random numbers that are not small:
logits are compared.  `demo` is examples/tiny_qwen/base and the test split of the reviews; `135m` is a Llama-shaped base
of random weights, as large as SmolLM2-135M, with the same tokenizer.

Then ours alone on so many rows (the reviews again and again, each with a number in front): rows a second, the CPU time
of a row, which other work on the machine changes less, and the most memory that the process had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

BASE = REPOSITORY / "examples" / "tiny_qwen" / "base"
LABELS = ("negative", "positive")
MAX_LENGTH = 256
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "PASSIVE"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", choices=("demo", "135m"), default="demo")
    parser.add_argument("--rows", type=int, default=0, help="of the test split; 0: all")
    parser.add_argument("--lengths", default="12500,50000,200000", help="rows for the second table; none: no table")
    parser.add_argument("--reviews", type=Path, help="folder that examples/reviews/prepare.py has written")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(ARM[options.arm](options)))
        return
    with tempfile.TemporaryDirectory(prefix="launch-evaluation-") as name:
        options.folder = Path(name)
        run_all(options)


def run_all(options: argparse.Namespace) -> None:
    """Both tables."""
    options.reviews = options.reviews or options.folder / "reviews"
    if not (options.reviews / "test.csv").is_file():
        subprocess.run([sys.executable, REPOSITORY / "examples/reviews/prepare.py", options.reviews], check=True)
    one_process("make", options)
    found: dict[str, list[dict[str, Any]]] = {"launch": [], "pipeline": []}
    for turn in range(options.rounds):
        for arm in ("launch", "pipeline") if turn % 2 == 0 else ("pipeline", "launch"):
            found[arm].append(one_process(arm, options))
    best = {arm: min(runs, key=lambda run: run["seconds"]) for arm, runs in found.items()}
    rows = best["launch"]["rows"]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {options.shape}, {rows} reviews\n")
    print("| | s | rows/s | |\n| --- | --- | --- | --- |")
    for arm, title in (("pipeline", "pipeline, batch_size 32"), ("launch", "launch")):
        ratio = best["pipeline"]["seconds"] / best[arm]["seconds"]
        print(f"| {title} | {best[arm]['seconds']:.2f} | {rows / best[arm]['seconds']:.0f} | {ratio:.2f}x |")
    print(f"\nlargest difference of a logit: {difference(options.folder):.1e}\n")
    if options.lengths == "none":
        return
    print("| rows | rows/s | CPU ms a row | memory at most, MB |\n| --- | --- | --- | --- |")
    for length in options.lengths.split(","):
        told = one_process("many", options, rows=int(length))
        cells = [
            f"{told['rows']:,}",
            f"{told['rows'] / told['seconds']:.0f}",
            f"{1e3 * told['cpu'] / told['rows']:.2f}",
        ]
        print(f"| {' | '.join(cells)} | {told['memory'] / 1e6:.0f} |", flush=True)


def one_process(arm: str, options: argparse.Namespace, rows: int | None = None) -> dict[str, Any]:
    """What an arm printed last; one that fails ends the benchmark."""
    argv = [
        sys.executable, __file__, "--arm", arm, "--folder", options.folder, "--reviews", options.reviews,
        "--shape", options.shape, "--rows", str(options.rows if rows is None else rows),
    ]  # fmt: skip
    done = subprocess.run(argv, env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, check=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def difference(folder: Path) -> float:
    import numpy as np

    return float(np.abs(np.load(folder / "launch.npy") - np.load(folder / "pipeline.npy")).max())


def make(options: argparse.Namespace) -> dict[str, Any]:
    """Base and adapter."""
    from made_adapter import make_adapter

    base = options.folder / "base"
    if options.shape == "135m":
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        tokenizer = AutoTokenizer.from_pretrained(BASE)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
            num_key_value_heads=3, tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(base)
        tokenizer.save_pretrained(base)
    else:
        base.symlink_to(BASE)
    make_adapter(base, options.folder / "adapter", max_length=MAX_LENGTH, lora_r=16)
    return {}


def texts_of(options: argparse.Namespace) -> list[str]:
    from jobs import table

    texts = table.read(options.reviews / "test.csv").texts
    return texts[: options.rows] if options.rows else texts


def opened(options: argparse.Namespace) -> Any:
    from jobs.classifier import Classifier

    return Classifier.open(options.folder / "base", options.folder / "adapter", label_names=("bad", "good"))


def launch(options: argparse.Namespace) -> dict[str, Any]:
    """This project's way."""
    import numpy as np

    classifier, texts = opened(options), texts_of(options)
    classifier.logits(texts[:32])
    started = time.monotonic()
    logits = classifier.logits(texts)
    seconds = time.monotonic() - started
    np.save(options.folder / "launch.npy", logits)
    return {"seconds": seconds, "rows": len(texts)}


def pipeline(options: argparse.Namespace) -> dict[str, Any]:
    """What one writes from the documentation."""
    import numpy as np
    import torch
    import transformers
    from peft import PeftModel

    transformers.logging.set_verbosity_error()
    about = json.loads((options.folder / "adapter" / "classifier.json").read_text())
    base = transformers.AutoModelForSequenceClassification.from_pretrained(
        str(options.folder / "base"), num_labels=2, dtype=torch.float32
    )
    base.config.pad_token_id = about["pad_token_id"]
    model = PeftModel.from_pretrained(base, str(options.folder / "adapter")).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(options.folder / "adapter"))
    ask = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    told: dict[str, Any] = {"truncation": True, "max_length": MAX_LENGTH, "top_k": None, "function_to_apply": "none"}
    texts = texts_of(options)
    ask(texts[:32], batch_size=32, **told)
    started = time.monotonic()
    answers = ask(texts, batch_size=32, **told)
    seconds = time.monotonic() - started
    order = list(model.config.id2label.values())
    logits = [[next(one["score"] for one in row if one["label"] == name) for name in order] for row in answers]
    np.save(options.folder / "pipeline.npy", np.array(logits, dtype=np.float32))
    return {"seconds": seconds, "rows": len(texts)}


def many(options: argparse.Namespace) -> dict[str, Any]:
    """Ours on `--rows` texts that are made one by one."""
    import torch

    from jobs import memory

    rows, options.rows = options.rows, 0
    classifier, texts = opened(options), texts_of(options)

    def some() -> Iterator[str]:
        for number in range(rows):
            yield f"{number}{texts[number % len(texts)]}"

    started, cpu = time.monotonic(), time.process_time()
    assert len(classifier.logits(some())) == rows
    told = {"seconds": time.monotonic() - started, "cpu": time.process_time() - cpu, "rows": rows}
    return told | {"memory": memory.peak_bytes(torch.device("cpu"))}


ARM = {"make": make, "launch": launch, "pipeline": pipeline, "many": many}

if __name__ == "__main__":
    main()
