"""What plain PEFT does with adapters that are broken, beside what `launch verify --static` says of them.

`python benchmarks/adapters.py` makes the corpus of the tests (tests/corpus.py, tests/breakages.py), loads one adapter
of each breakage with PeftModel.from_pretrained in a process of its own, and holds up to six against the static checks.
Prints the table of docs/trust.md.  Needs what the tests need.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent), str(Path(__file__).resolve().parent.parent / "tests")]

import peft  # noqa: E402
from breakages import BREAKAGES, Breakage  # noqa: E402
from corpus import AUTO, CLASSES, Recipe  # noqa: E402
from test_corpus import HEALTHY, Corpus, found_in, suited  # noqa: E402

from jobs import adapter, verification  # noqa: E402

LONGEST_S = 20.0


def by_peft(folder: Path, recipe: Recipe, base: Path) -> str:
    """What loading it does: an error and its type, warnings, nothing at all, or no end of it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(target=_load, args=(folder, recipe, base, sender))
    process.start()
    said = receiver.recv() if receiver.poll(LONGEST_S) else "waits for ever"
    process.kill()
    process.join()
    return str(said)


def _load(folder: Path, recipe: Recipe, base: Path, sender: Connection) -> None:
    options = {} if recipe.task in ("CAUSAL_LM", None) else {"num_labels": CLASSES}
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with adapter.quiet_libraries():
        model = AUTO[recipe.task or "CAUSAL_LM"].from_pretrained(str(base), **options)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            peft.PeftModel.from_pretrained(model, str(folder))
        relevant = [one for one in told if "is_gradient_checkpointing" not in str(one.message)]
        sender.send("warns" if relevant else "**nothing**")
    except Exception as error:  # which one it is, is what is measured
        sender.send(type(error).__name__)


def row(breakage: Breakage, corpus: Corpus, folder: Path) -> tuple[str, str, int, int]:
    """PEFT's word, the check that notices, how many it noticed, and of how many."""
    tried = suited(breakage)
    said, caught = "", 0
    for number, recipe in enumerate(tried):
        place = folder / str(number)
        caught += found_in(corpus, breakage, recipe, place)[breakage.check].status == "fail"
        if number == 0:
            said = by_peft(place / "adapter", recipe, corpus.base(recipe.kind))
    return said, breakage.check, caught, len(tried)


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    corpus = Corpus(folder / "corpus")
    started = time.monotonic()
    wrong = 0
    for recipe in HEALTHY:
        verdict = verification.verify_adapter_folder(corpus.adapter(recipe), corpus.base(recipe.kind))
        wrong += any(check.status in ("fail", "warn") for check in verdict.checks)
    print(f"{len(HEALTHY)} healthy adapters: {wrong} with a fail or a warning")
    print(f"PEFT {peft.__version__}, Python {platform.python_version()}, {os.cpu_count()} cores\n")
    print("| breakage | PEFT on load | check that fails | caught |\n| --- | --- | --- | --- |")
    words: Counter[str] = Counter()
    for number, breakage in enumerate(BREAKAGES):
        said, check, caught, count = row(breakage, corpus, folder / f"broken {number}")
        words[said if said.startswith("*") or " " in said or said == "warns" else "error"] += 1
        print(f"| {breakage.name} | {said} | `{check}` | {caught}/{count} |", flush=True)
    print(f"\n{len(BREAKAGES)} breakages, PEFT: {dict(words)}; {time.monotonic() - started:.0f} s")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
