"""How good the demo's classifier is: `launch demo` with several seeds, from the submission to the figures at home.

python benchmarks/reviews.py [--seeds 42,1,2]

Everything is of the test split, on which nothing was chosen; the base and the recipe are the demo's own.  What LoRA is
beyond another model is on the same rows: the 95 % interval of the difference (Agresti & Min) and McNemar's exact p.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="42,1,2")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores\n")
    print("| seed | accuracy | AUC | ECE | beyond the frozen head | beyond TF-IDF | training s | whole demo s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    found = []
    for seed in options.seeds.split(","):
        with tempfile.TemporaryDirectory(prefix="launch-reviews-") as folder:
            found.append(demo(seed, folder))
    scores = [scores_of(one, "lora") for one in found]
    print(f"| mean | {' | '.join(f'{statistics.mean(column):.4f}' for column in zip(*scores, strict=True))} | | | | |")
    tfidf = scores_of(found[0], "tfidf")
    print(f"| TF-IDF (char 1-3) | {' | '.join(f'{value:.4f}' for value in tfidf)} | | | | |")


def demo(seed: str, folder: str) -> dict[str, Any]:
    """One demo, printed as a row."""
    argv = [sys.executable, "-m", "launcher", "demo", "--seed", seed, "--to", folder, "--json"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, text=True)
    data: dict[str, Any] = json.loads(done.stdout)["data"]
    gaps = {one["against"]: in_words(one) for one in data["metrics"]["comparisons"]}
    seconds = data["seconds"]
    cells = [seed, *(f"{value:.4f}" for value in scores_of(data, "lora")), gaps["frozen_head"], gaps["tfidf"]]
    cells += [f"{seconds['train on the host']:.0f}", f"{sum(seconds.values()):.0f}"]
    print(f"| {' | '.join(cells)} |", flush=True)
    return data


def scores_of(data: dict[str, Any], key: str) -> tuple[float, float, float]:
    """Accuracy, AUC and ECE of one model."""
    of = next(model["metrics"] for model in data["metrics"]["models"] if model["key"] == key)
    return of["accuracy"], of["auc_roc"], of["ece"]


def in_words(one: dict[str, Any]) -> str:
    low, high = (100 * bound for bound in one["difference_interval"])
    return f"{100 * one['accuracy_difference']:+.1f} points ({low:+.1f} to {high:+.1f}), p = {one['mcnemar_p']:.2g}"


if __name__ == "__main__":
    main()
