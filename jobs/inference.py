"""Running a model over many rows: sorted by length, batched by tokens, answered in the order asked.

Owns the order and the progress; what one batch means stands in `model`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs import batches, memory
from jobs import model as models
from jobs.errors import JobError
from jobs.log_line import say

Progress = Callable[[int, int | None], None]
"""Called after each batch with the rows done and the rows in all, None where nobody knows these."""

Parallel = Callable[..., Iterator[Any]]
"""As `map`: the answers of a function to an iterable's items, in their order."""


def budget(asked: int | str, device: torch.device) -> int:
    """Padded tokens of a forward pass: what the spec asks for; of `auto` one that fills the device, and may not fit."""
    if isinstance(asked, int):
        return asked
    return 65_536 if device.type == "cuda" else 4096


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` of this machine's memory over there; a GPU is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def pooled_features(
    model: nn.Module, token_ids: models.TokenIds, *, tokens_per_batch: int, progress: Progress | None = None
) -> NDArray[np.float32]:
    """What the head would read of each row: (N, H) float32, in the order of `token_ids`."""

    def features(input_ids: Tensor) -> Tensor:
        with models.precision(model):
            return models.pooled(model, input_ids)

    return _rows(model, features, token_ids, tokens_per_batch, progress)


def logits(
    model: nn.Module,
    token_ids: models.TokenIds,
    *,
    tokens_per_batch: int,
    progress: Progress | None = None,
    parallel: Parallel | None = None,
) -> NDArray[np.float32]:
    """(N, C) float32, in the order of `token_ids`.  Inside of `lanes`, `parallel` is what they gave."""
    answer = functools.partial(models.logits, model)
    return _rows(model, answer, token_ids, tokens_per_batch, progress, parallel)


@contextlib.contextmanager
def lanes(device: torch.device, count: int | None = None) -> Iterator[Parallel]:
    """A `map` that runs batches side by side on a CPU, `count` (every thread torch has) at once, and keeps their order.

    Threads that share one batch meet after every operation, and spin while they wait: where another program wants one
    of two cores, a training step of the tiny base takes 0.3 to 3 s instead of 0.07.  Threads with a batch each take
    0.08 s alone and 0.13 s beside others.  Autograd's modes are per thread: set them in what is mapped.
    """
    threads = torch.get_num_threads()
    count = threads if count is None else count
    if device.type != "cpu" or count == 1:
        yield map
        return
    with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        torch.set_num_threads(1)  # for some of its libraries the setting is the whole process's
        try:
            yield pool.map
        finally:
            torch.set_num_threads(threads)


def _rows(
    model: nn.Module,
    answer: Callable[[Tensor], Tensor],
    token_ids: models.TokenIds,
    tokens_per_batch: int,
    progress: Progress | None,
    parallel: Parallel | None = None,
) -> NDArray[np.float32]:
    """`answer` of every batch, (B, T) -> (B, K), put together as (N, K); the model's mode is left as it was."""
    lengths = np.array([len(row) for row in token_ids], dtype=np.int64)
    device, pad_id, was_training = models.head_of(model).weight.device, models.pad_id_of(model), model.training
    order = batches.inference_batches(lengths, tokens_per_batch)

    @torch.inference_mode()
    def answer_batch(rows: batches.Indices) -> Tensor:
        try:
            return answer(
                on_device(torch.from_numpy(batches.padded(token_ids, rows, pad_id)), device)
            ).float()  # (B, K)
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out(error):
                raise
            if len(rows) == 1:
                raise JobError(
                    f"out of memory with a single row of {lengths[rows[0]]} tokens", hint="a lower max_length"
                ) from error
        memory.give_back()  # out here, where the exception no longer holds what was computed
        say(f"out of memory with {len(rows)} rows of up to {lengths[rows].max()} tokens; going on with half of them")
        half = len(rows) // 2
        return torch.cat([answer_batch(rows[:half]), answer_batch(rows[half:])])

    answers = []
    done = 0
    model.eval()
    try:
        with contextlib.nullcontext(parallel) if parallel is not None else lanes(device) as parallel:
            for rows, answered in zip(order, parallel(answer_batch, order), strict=True):
                answers.append(answered)
                done += len(rows)
                if progress is not None:
                    progress(done, len(token_ids))
        together = torch.cat(answers).cpu().numpy()  # (N, K), longest first
    finally:
        model.train(was_training)
    result = np.empty_like(together)
    result[np.concatenate(order)] = together
    return result
