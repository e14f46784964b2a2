"""What the model sees in a step: texts, some cut in half, grouped by length.

Owns cropping, bucketing and padding; knows token ids only, nothing of models or losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizer import BEGIN_ID, END_ID, PAD_ID
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

SHORTEST_CROPPED = 8


@dataclass(frozen=True)
class Batch:
    """Token ids, padded on the right: `seen` (B, T) goes into the model, `whole` (B, U) is the uncut text."""

    seen: Tensor
    whole: Tensor


def crop(row: list[int], share: float, generator: torch.Generator) -> list[int]:
    """With probability `share` the first or the second half of `row` between `<s>` and `</s>`, else `row`."""
    words = row[1:-1]
    draw, side = torch.rand(2, generator=generator).tolist()
    if draw >= share or len(words) < SHORTEST_CROPPED:
        return row
    middle = len(words) // 2
    return [BEGIN_ID, *(words[:middle] if side < 0.5 else words[middle:]), END_ID]


def bucket(lengths: list[int], tokens: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Groups of indices of like length, in random order; size times longest is at most `tokens`."""
    noise = torch.rand(len(lengths), generator=generator).tolist()  # each epoch mixes anew
    groups: list[list[int]] = [[]]
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index] + noise[index]):
        if groups[-1] and (len(groups[-1]) + 1) * lengths[index] > tokens:
            groups.append([])
        groups[-1].append(index)
    for position in torch.randperm(len(groups), generator=generator).tolist():
        yield groups[position]


def epoch(rows: list[list[int]], tokens: int, crop_share: float, generator: torch.Generator) -> Iterator[Batch]:
    """Every row of `rows` once, in batches of at most `tokens` seen tokens, padding included."""
    seen = [crop(row, crop_share, generator) for row in rows]
    for group in bucket([len(row) for row in seen], tokens, generator):
        yield Batch(padded([seen[index] for index in group]), padded([rows[index] for index in group]))


def padded(rows: list[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD_ID)
