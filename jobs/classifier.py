"""A trained adapter on its base, ready to answer: texts in, logits out, in any number and in their order.

Owns the way from texts to logits for all who evaluate or predict: windows of texts, so that memory does not grow
with their number, tokens, batches of like length, the answer to empty texts, and what is kept to go on later.  Knows
neither labels nor metrics.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from jobs import adapter, batches, inference, manifest
from jobs import model as models
from jobs.empty_text import is_empty
from jobs.errors import AdapterRejected, DataError
from jobs.kept_logits import KeptLogits
from jobs.spec import AUTO, WINDOWS
from jobs.tokens import encode_windows

MOST_ROWS, FEWEST_ROWS = 16_384, 256
"""Of a window: rows are sorted by length within it, and it is what a break may cost."""
WORK = 1.6e11
"""Rows x parameters of a window on a CPU: about half a minute for the demo's base, some minutes for 1.5 billion."""
MOST_CHARACTERS = 2**24
"""Of a window's texts, where these are long."""
ENCODED_ROWS, ENCODED_CHARACTERS = 1024, 2**20
"""At once: what a tokenizer says of them takes many times their memory."""

Logits = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Classifier:
    """Model and tokenizer, and what classifier.json says of how texts reach them.

    `empty` (C,) is the answer to texts with nothing in them, which no model is asked for; None where that is not known.
    `window` is how many texts are read before the first of them is answered.
    """

    model: nn.Module
    tokenizer: Any
    classes: int
    max_length: int
    prompt_template: str
    long_texts: str
    empty: Logits | None
    tokens_per_batch: int
    window: int
    folders: tuple[Path, Path]

    @classmethod
    def open(
        cls,
        base_folder: Path,
        adapter_folder: Path,
        *,
        label_names: Sequence[str],
        tokens_per_batch: int | str = AUTO,
        window: int | None = None,
    ) -> Classifier:
        """Base and adapter from disk on this machine's device, checked as by `adapter.load`.

        Where the base is in float32, as it is on a CPU, LoRA is added into its weights: a third of the time goes.  In
        bf16 that would round what was trained.  Raises AdapterRejected, and DataError for a base that is none.
        """
        max_length = adapter.read_json(adapter_folder / adapter.CLASSIFIER).get("max_length")
        if type(max_length) is not int or not 0 < max_length < 10**6:
            raise AdapterRejected(f"{adapter_folder / adapter.CLASSIFIER}: impossible max_length {max_length!r:.40}")
        device = models.best_device()
        dtype = models.base_dtype(AUTO, device)
        try:
            loaded = adapter.load(base_folder, adapter_folder, dtype=dtype, id2label=dict(enumerate(label_names)))
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            hint = "--base FOLDER: the model that the run was trained on"
            raise DataError(f"{base_folder}: can't be loaded as a base: {reason}", hint=hint) from error
        model: nn.Module = _merged(loaded, adapter_folder) if dtype == torch.float32 else loaded
        empty = adapter.empty_text_logits(adapter_folder, len(label_names))
        return cls(
            model=model.to(device).eval(),
            tokenizer=adapter.load_tokenizer(adapter_folder),
            classes=len(label_names),
            max_length=max_length,
            prompt_template=adapter.prompt_template(adapter_folder),
            long_texts=adapter.long_texts(adapter_folder),
            empty=None if empty is None else np.array(empty, dtype=np.float32),
            tokens_per_batch=inference.budget(tokens_per_batch, device),
            window=window or _window(model, device),
            folders=(base_folder, adapter_folder),
        )

    def logits(
        self,
        texts: Iterable[str],
        *,
        rows: int | None = None,
        keep: Path | None = None,
        progress: inference.Progress | None = None,
    ) -> Logits:
        """(N, C) float32 in the order of `texts`; all else as `answers`."""
        parts = list(self.answers(texts, rows=rows, keep=keep, progress=progress))
        return np.concatenate(parts) if parts else np.zeros((0, self.classes), dtype=np.float32)

    def answers(
        self,
        texts: Iterable[str],
        *,
        rows: int | None = None,
        keep: Path | None = None,
        progress: inference.Progress | None = None,
    ) -> Iterator[Logits]:
        """Logits (n, C) of one window of texts after the other, in their order; no text is held longer than its window.

        `rows` is how many texts there are, for `progress` alone.  In the file `keep` every window is kept as soon as it
        is done; who comes again with the same adapter, base and texts gets its windows from there, the same bits.
        """
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(KeptLogits(keep, self.identity, self.classes)) if keep is not None else None
            done = 0
            for window in self._windows(texts):
                found = kept.next(len(window), _sha256(window)) if kept is not None else None
                if found is None:
                    found = self._window_logits(window, done, rows, progress)
                    if kept is not None:
                        kept.add(_sha256(window), found)
                yield found
                done += len(window)

    @functools.cached_property
    def identity(self) -> bytes:
        """sha256 of all but the texts that decides about a bit of the logits: files, settings, device and libraries."""
        base, trained = self.folders
        told = [
            [(entry.path, entry.sha256) for entry in manifest.list_files(trained)],
            [(path.name, manifest.sha256_of(path)) for path in sorted(base.glob("*.safetensors"))],
            manifest.sha256_of(base / "config.json"),
            [self.max_length, self.prompt_template, self.long_texts, self.tokens_per_batch, self.window],
            [str(next(self.model.parameters()).dtype), next(self.model.parameters()).device.type],
            sorted(adapter.library_versions().items()),
        ]
        return hashlib.sha256(json.dumps(told).encode()).digest()

    def _windows(self, texts: Iterable[str]) -> Iterator[list[str]]:
        window: list[str] = []
        characters = 0
        for text in texts:
            window.append(text)
            characters += len(text)
            if len(window) == self.window or characters >= MOST_CHARACTERS:
                yield window
                window, characters = [], 0
        if window:
            yield window

    def _window_logits(
        self, texts: Sequence[str], before: int, rows: int | None, progress: inference.Progress | None
    ) -> Logits:
        """(n, C) of a window's texts, `before` of which were others."""
        empty = np.array([self.empty is not None and is_empty(text) for text in texts])
        asked = [text for text, nothing in zip(texts, empty, strict=True) if not nothing]
        found = np.zeros((len(texts), self.classes), dtype=np.float32)
        if self.empty is not None:
            found[empty] = self.empty
        if progress is not None:
            progress(before, rows)
        if asked:
            counts: list[int] = []
            token_ids = batches.Tokens(self._token_ids(asked, counts))

            def tell(done: int, of: int | None) -> None:
                if progress is not None and of:
                    progress(before + len(texts) * done // of, rows)

            answered = inference.logits(
                self.model, token_ids, tokens_per_batch=self.tokens_per_batch, progress=tell
            )  # (rows of all texts, C)
            found[~empty] = answered if self.long_texts != WINDOWS else _means(answered, counts)
        if progress is not None:
            progress(before + len(texts), rows)
        return found

    def _token_ids(self, texts: Sequence[str], counts: list[int]) -> Iterator[list[int]]:
        """Rows of token ids; how many each text has is added to `counts`."""
        for some in _pieces(texts):
            if self.long_texts == WINDOWS:
                token_ids, each = encode_windows(self.tokenizer, some, self.max_length, self.prompt_template)
            else:
                token_ids = models.encode(self.tokenizer, some, self.max_length, self.prompt_template, self.long_texts)
                each = [1] * len(some)
            counts += each
            yield from token_ids


def _merged(loaded: Any, adapter_folder: Path) -> nn.Module:
    with adapter.quiet_libraries(), adapter.peft_problems_as_errors(adapter_folder):
        merged: nn.Module = loaded.base_model.merge_and_unload(safe_merge=True)
    return merged


def _window(model: nn.Module, device: torch.device) -> int:
    """Rows of a window: fewer where each takes long, so that a break costs minutes."""
    if device.type == "cuda":
        return MOST_ROWS
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return max(FEWEST_ROWS, min(MOST_ROWS, int(WORK / parameters)))


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in pieces that a tokenizer is given at once."""
    piece: list[str] = []
    characters = 0
    for text in texts:
        piece.append(text)
        characters += len(text)
        if len(piece) == ENCODED_ROWS or characters >= ENCODED_CHARACTERS:
            yield piece
            piece, characters = [], 0
    if piece:
        yield piece


def _means(logits: Logits, counts: Sequence[int]) -> Logits:
    """(n, C) the mean over each text's rows, which follow each other in `logits`."""
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums = np.add.reduceat(logits.astype(np.float64), starts, axis=0)
    means: Logits = (sums / np.array(counts)[:, np.newaxis]).astype(np.float32)
    return means


def _sha256(texts: Iterable[str]) -> bytes:
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()
