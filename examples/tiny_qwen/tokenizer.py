"""The base's tokenizer: a byte-level BPE that writes `<s> text </s>` by itself.

Owns vocabulary and special tokens; knows nothing of models. Normalisation (NFC) and splitting are Qwen2's
and can't be chosen: for a qwen2 folder AutoTokenizer (transformers 5.23) builds a Qwen2Tokenizer from
vocabulary, merges and post-processor, and replaces the rest of tokenizer.json without a word.
"""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import Qwen2Tokenizer

# The end differs from the padding: a sequence classifier reads the last token that is not padding.
PAD, BEGIN, END = "<pad>", "<s>", "</s>"
PAD_ID, BEGIN_ID, END_ID = 0, 1, 2
SPECIAL_COUNT = 3
# In bytes, so four Chinese characters: without it the merges swallow whole sentences of boilerplate.
MAX_TOKEN_BYTES = 12
# Qwen2 glues a punctuation mark to the letters after it. Learning with the marks apart keeps the vocabulary
# from being spent on "，房间" beside "房间".
WORDS = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def train_tokenizer(texts: list[str], vocabulary: int, max_length: int) -> Qwen2Tokenizer:
    """A tokenizer of `vocabulary` tokens learnt from `texts`, padding and truncating on the right."""
    learner = Tokenizer(models.BPE())
    learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learnt["merges"]]
    # Bytes leave nothing unknown, and the default would be one more token, without an embedding.
    unknown: Any = None
    tokenizer = Qwen2Tokenizer(
        vocab=learnt["vocab"],
        merges=merges,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=unknown,
        padding_side="right",
        truncation_side="right",
        model_max_length=max_length,
    )
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        pair=f"{BEGIN} $A {END} $B {END}",
        special_tokens=[(BEGIN, BEGIN_ID), (END, END_ID)],
    )
    return tokenizer
