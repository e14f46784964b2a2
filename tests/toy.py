"""A small classification task of our own, and a spec for it on the base of the examples."""

from __future__ import annotations

import csv
import random
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent / "examples" / "tiny_qwen" / "base"
THINGS = ("房间", "早餐", "屏幕", "电池", "服务", "位置", "价格", "书", "物流", "包装", "键盘", "前台")
GOOD = ("很好", "不错", "非常满意", "值得推荐", "很干净", "超出预期")
BAD = ("很差", "太糟糕了", "让人失望", "不会再来", "很脏", "完全不值")


def write_task(folder: Path, *, train: int = 200, held_out: int = 80, seed: int = 0, **keys: object) -> Path:
    """train.csv, validation.csv, test.csv and toy.yaml in `folder`; the path of the spec.  `keys` go into the spec."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for split, rows in (("train", train), ("validation", held_out), ("test", held_out)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for _ in range(rows):
                label = draw.choice(["negative", "positive"])
                words = GOOD if label == "positive" else BAD
                said = [draw.choice(THINGS) + draw.choice(words) for _ in range(draw.randint(1, 4))]
                writer.writerow(["，".join(said) + draw.choice(["。", "！", ""]), label])
    spec = {
        "name": "toy",
        "model_name_or_path": str(BASE),
        "num_train_epochs": 1,
        "learning_rate": "2e-3",
        "lora_alpha": 8,
        "max_length": 64,
        "robustness": "no",
        "data": "{train: train.csv, validation: validation.csv, test: test.csv}",
    }
    (folder / "toy.yaml").write_text("".join(f"{key}: {value}\n" for key, value in (spec | keys).items()), "utf-8")
    return folder / "toy.yaml"
