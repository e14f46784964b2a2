"""Texts as token ids: the base's tokenizer, its padding token, the prompt template around a text, and the cut.

Owns what reaches the model of a text, and in how many rows; knows neither models nor where texts come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import AutoTokenizer

from jobs.errors import DataError
from jobs.spec import HEAD, HEAD_TAIL, TEXT, WINDOWS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_CHARACTERS, CHARACTERS_A_TOKEN = 65_536, 64
"""Of a text at least so many are looked at, more where `max_length` allows: a file that was pasted into a cell costs as
much as a long review."""
MOST_CHARACTERS_OF_WINDOWS = 262_144
MOST_WINDOWS = 64


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer, padding and cutting on the right, with a token to pad with.  Raises DataError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise DataError(f"{folder}: no tokenizer that can be loaded: {reason}") from error
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    tokenizer.pad_token = _pad_token(tokenizer)
    if tokenizer.pad_token_id is None:
        raise DataError(f"{folder}: the tokenizer has no special token to pad with")
    return tokenizer


def encode(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    template: str = TEXT,
    long_texts: str = HEAD,
) -> list[list[int]]:
    """Token ids of each text inside of `template`, at most `max_length`, not padded and not ending in padding.

    What is too long loses the end of its text, with `head_tail` its middle, never words of the template; `windows` is
    for `encode_windows`, and read as `head` here.  A text without any token becomes one end (or padding) token.  Raises
    DataError where the template leaves no room for a text.
    """
    if not texts:
        return []
    before, after = template.split(TEXT)
    _require_room(tokenizer, max_length, template)
    if long_texts == HEAD_TAIL:
        rows = [row for rows in _parts(tokenizer, texts, max_length, before, after, HEAD_TAIL) for row in rows]
    else:
        rows = _heads(tokenizer, texts, max_length, before, after)
    return _ended(tokenizer, rows)


def encode_windows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, template: str = TEXT
) -> tuple[list[list[int]], list[int]]:
    """Token ids as of `encode`, but of a text that is too long one row for each window of it; and how many each has.

    Windows overlap by a quarter or more, and the last one ends where the text does; of `MOST_WINDOWS` at most, evenly
    spread, each inside of the template.
    """
    if not texts:
        return [], []
    before, after = template.split(TEXT)
    _require_room(tokenizer, max_length, template)
    parts = _parts(tokenizer, texts, max_length, before, after, WINDOWS)
    return _ended(tokenizer, [row for rows in parts for row in rows]), [len(rows) for rows in parts]


def _require_room(tokenizer: Any, max_length: int, template: str) -> None:
    if template != TEXT:
        alone = len(_whole(tokenizer, [template.replace(TEXT, "")])[0])
        if alone >= max_length:
            raise DataError(
                f"prompt_template: {alone} tokens without any text, and max_length is {max_length}",
                hint="a shorter prompt_template, or a higher max_length",
            )


def _heads(tokenizer: Any, texts: Sequence[str], max_length: int, before: str, after: str) -> list[list[int]]:
    """Rows of at most `max_length`, of long texts the beginning."""
    most = max(MOST_CHARACTERS, CHARACTERS_A_TOKEN * max_length)
    texts = [text[:most] for text in texts]
    if after:
        return _cut_before(tokenizer, texts, max_length, before, after)
    prompts = [before + text for text in texts]
    rows: list[list[int]] = tokenizer(prompts, truncation=True, max_length=max_length, return_attention_mask=False)[
        "input_ids"
    ]
    return rows


def _parts(
    tokenizer: Any, texts: Sequence[str], max_length: int, before: str, after: str, how: str
) -> list[list[list[int]]]:
    """For each text its rows of at most `max_length`, each with all of the template: one, or for `windows` many."""
    texts = [_within(text, max_length, how) for text in texts]
    parts = [[row] for row in _whole(tokenizer, [before + text + after for text in texts])]
    long = [index for index, [row] in enumerate(parts) if len(row) > max_length]
    if not long:
        return parts
    prompts = [before + texts[index] + after for index in long]
    [alone] = _whole(tokenizer, [before + after])
    for index, spans in zip(long, _places(tokenizer, prompts), strict=True):
        [row] = parts[index]
        front, back = _around(row, spans, alone, len(before), len(before) + len(texts[index]))
        room = max_length - front - back
        if room < 1:  # its first or last letters became one token with all there is of the template
            parts[index] = _heads(tokenizer, [texts[index]], max_length, before, after)
            continue
        start, inside, end = row[:front], row[front : len(row) - back], row[len(row) - back :]
        if how == HEAD_TAIL:
            first = (room + 1) // 2
            parts[index] = [start + inside[:first] + inside[len(inside) - room + first :] + end]
        else:
            parts[index] = [start + inside[at : at + room] + end for at in _starts(len(inside), room)]
    return parts


def _within(text: str, max_length: int, how: str) -> str:
    """What is looked at of a text at all."""
    if how == WINDOWS:
        return text[:MOST_CHARACTERS_OF_WINDOWS]
    half = max(MOST_CHARACTERS, CHARACTERS_A_TOKEN * max_length) // 2
    return text if len(text) <= 2 * half else text[:half] + text[-half:]


def _around(row: list[int], spans: list[tuple[int, int]], alone: list[int], start: int, end: int) -> tuple[int, int]:
    """How many tokens at a row's front and back are special or have letters of the template.

    The text stands at characters `start` to `end`.  Where a slow tokenizer knows no `spans`, they are those that a row
    has in common with the template `alone`.
    """
    if spans:
        inside = [at for at, (first, last) in enumerate(spans) if start <= first < last <= end]
        return (inside[0], len(row) - 1 - inside[-1]) if inside else (len(row), 0)
    front = next((at for at, (one, other) in enumerate(zip(row, alone, strict=False)) if one != other), len(alone))
    ends = zip(reversed(row), reversed(alone[front:]), strict=False)
    return front, next((at for at, (one, other) in enumerate(ends) if one != other), len(alone) - front)


def _starts(tokens: int, room: int) -> list[int]:
    """Where windows of `room` tokens begin within so many more."""
    step = max(1, room - -(-room // 4))
    count = min(MOST_WINDOWS, -(-(tokens - room) // step) + 1)
    starts: list[int] = np.linspace(0, tokens - room, count).astype(int).tolist()
    return starts


def _ended(tokenizer: Any, rows: list[list[int]]) -> list[list[int]]:
    """The rows without padding at their ends, never without any token."""
    nothing = [tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id]
    return [_without_padding(row, tokenizer.pad_token_id) or nothing for row in rows]


def cut_otherwise(tokenizer: PreTrainedTokenizerBase, folder: Path, texts: Sequence[str], max_length: int) -> int:
    """How many of `texts` get other tokens from `tokenizer` than from the folder's tokenizer.json read as it is.

    transformers 5.23 builds the tokenizer of a known model type (qwen2 among them) anew from vocabulary and merges, and
    drops the file's own normalisation and splitting without a word: a base that learnt other tokens is then crippled.
    """
    from tokenizers import Tokenizer

    if not (folder / "tokenizer.json").is_file():
        return 0
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.no_padding()
    stored.enable_truncation(max_length)
    expected = [_without_padding(one.ids, tokenizer.pad_token_id) for one in stored.encode_batch(list(texts))]
    found = encode(tokenizer, texts, max_length)
    return sum(one != other for one, other in zip(expected, found, strict=True) if one)


def _pad_token(tokenizer: Any) -> str | None:
    """The tokenizer's own padding token, or the best of its other special ones; None where it has none.

    A decoder's classifier reads the last token that is not padding: a token that ends every text must not pad, or it
    would be passed over.  Llama has none by name but keeps one in reserve, GPT-2 has a single special token.
    """
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    kept_for_it = [token for token in added if "pad" in token.lower()]
    usual = [tokenizer.unk_token, tokenizer.eos_token, tokenizer.bos_token]
    candidates = [token for token in (tokenizer.pad_token, *kept_for_it, *usual) if token is not None]
    last = tokenizer("a")["input_ids"][-1:]
    fit: list[str] = [token for token in candidates if [tokenizer.convert_tokens_to_ids(token)] != last]
    return (fit or candidates or [None])[0]


def _cut_before(tokenizer: Any, texts: Sequence[str], max_length: int, before: str, after: str) -> list[list[int]]:
    """Token ids of `before` + text + `after`; texts are shortened until their row fits."""
    rows = _whole(tokenizer, [before + text + after for text in texts])
    left = {row: texts[row] for row, ids in enumerate(rows) if len(ids) > max_length}
    while left:
        for row, spans in zip(left, _places(tokenizer, [before + text + after for text in left.values()]), strict=True):
            left[row] = left[row][: _kept(left[row], spans, len(before), len(rows[row]) - max_length)]
        # A shorter text can have more tokens at its end than it had there before: once more, until it fits.
        for row, ids in zip(left, _whole(tokenizer, [before + text + after for text in left.values()]), strict=True):
            rows[row] = ids
        left = {row: text for row, text in left.items() if len(rows[row]) > max_length}
        if "" in left.values():
            # The template alone fits, so no tokenizer that reads the same text twice alike comes here.
            raise DataError("prompt_template: it does not fit into max_length", hint="a higher max_length")
    return rows


def _kept(text: str, spans: list[tuple[int, int]], start: int, over: int) -> int:
    """How many characters to keep of a text that begins at `start` so that `over` tokens go; always fewer than all.

    `spans` are the tokens' (first, end) characters; a slow tokenizer has none, and loses a character for a token.
    """
    firsts = [first for first, end in spans if end > start and first < start + len(text)]
    if not firsts:
        return max(0, len(text) - over)
    if over >= len(firsts):
        return 0
    return min(max(0, firsts[-over] - start), len(text) - 1)


def _whole(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    """Token ids of prompts, uncut."""
    rows: list[list[int]] = tokenizer(prompts, return_attention_mask=False, verbose=False)["input_ids"]
    return rows


def _places(tokenizer: Any, prompts: list[str]) -> list[list[tuple[int, int]]]:
    """The (first, end) characters of each prompt's tokens; none where the tokenizer does not know them."""
    if not tokenizer.is_fast:
        return [[] for _ in prompts]
    encoded = tokenizer(prompts, return_attention_mask=False, return_offsets_mapping=True, verbose=False)
    places: list[list[tuple[int, int]]] = encoded["offset_mapping"]
    return places


def _without_padding(row: list[int], pad_token_id: int) -> list[int]:
    """`row` up to its last token that is not padding: a text may end in the padding token's name, and would else be
    pooled otherwise in a batch than alone."""
    end = len(row)
    while end and row[end - 1] == pad_token_id:
        end -= 1
    return row[:end]
