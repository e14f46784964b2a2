"""Texts as token ids: what pads, what is cut, and that a template keeps its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from jobs import tokens
from jobs.errors import DataError

# Padding, unknown, start and end as the families name them; what stands around a text; what has to pad it.
FAMILIES: dict[str, tuple[dict[str, str], list[str], str, str]] = {
    "Qwen2.5": ({"pad": "<|endoftext|>", "eos": "<|endoftext|>"}, ["<|im_end|>"], "$A", "<|endoftext|>"),
    "Qwen2.5-Instruct": ({"pad": "<|endoftext|>", "eos": "<|im_end|>"}, [], "$A", "<|endoftext|>"),
    "Llama-2": ({"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, [], "<s> $A", "<unk>"),
    "Llama-3": ({"bos": "<|begin|>", "eos": "<|end|>"}, [], "<|begin|> $A", "<|end|>"),
    "Llama-3.1": (
        {"bos": "<|begin|>", "eos": "<|end|>"}, ["<|reserved_0|>", "<|finetune_right_pad_id|>"], "<|begin|> $A",
        "<|finetune_right_pad_id|>",
    ),
    "Mistral-Nemo": ({"unk": "<unk>", "bos": "<s>", "eos": "</s>"}, ["<pad>"], "<s> $A", "<pad>"),
    "GPT-2": ({"unk": "<|endoftext|>", "bos": "<|endoftext|>", "eos": "<|endoftext|>"}, [], "$A", "<|endoftext|>"),
    "Gemma": ({"pad": "<pad>", "bos": "<bos>", "eos": "<eos>", "unk": "<unk>"}, [], "<bos> $A", "<pad>"),
    "an end behind every text": ({"bos": "<s>", "eos": "</s>"}, [], "<s> $A </s>", "<s>"),
    "an end that would pad": ({"pad": "</s>", "bos": "<s>", "eos": "</s>"}, [], "<s> $A </s>", "<s>"),
    "an end that has to pad": ({"eos": "</s>"}, [], "$A </s>", "</s>"),
}  # fmt: skip


def make_tokenizer(names: dict[str, str], others: list[str] = (), around: str = "$A", merges: Any = None) -> Any:  # type: ignore[assignment]
    """Bytes, or what BpeTrainer makes of `merges`, with these special tokens."""
    special = list(dict.fromkeys([*names.values(), *others]))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate([*special, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if merges:
        trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
        tokenizer.train_from_iterator(merges, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    marks = [(mark, tokenizer.token_to_id(mark)) for mark in around.split() if mark != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=marks)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_what_pads(family: str, tmp_path: Path) -> None:
    names, others, around, expected = FAMILIES[family]
    make_tokenizer(names, others, around).save_pretrained(tmp_path)
    tokenizer = tokens.load_tokenizer(tmp_path)
    assert tokenizer.pad_token == expected
    assert tokenizer.padding_side == "right"
    pad = tokenizer.pad_token_id
    rows = tokens.encode(tokenizer, ["", "a", "ab", expected, f"a{expected}{expected}", f"{expected}a"], 16)
    assert all(row and (row[-1] != pad or len(row) == 1) for row in rows)
    tokenizer.save_pretrained(tmp_path / "again")
    assert tokens.load_tokenizer(tmp_path / "again").pad_token == expected


def test_a_tokenizer_without_special_tokens_is_refused(tmp_path: Path) -> None:
    make_tokenizer({}).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="no special token to pad with"):
        tokens.load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["bert", "gemma", "qwen2", "gpt2", "roberta"])
def test_a_long_text_loses_its_end_inside_of_a_template(kind: str, tmp_path: Path) -> None:
    tokenizer = tokens.load_tokenizer(tiny.make_base_of(kind, tmp_path))
    template = "评价：{text}\n好不好？"
    [row] = tokens.encode(tokenizer, ["a" * 17 + "好" * 50], 64, template)
    assert len(row) in (62, 63, 64)  # a character of three bytes is kept or lost whole
    shown = tokenizer.decode(row, skip_special_tokens=True)
    assert set(shown.removeprefix(f"评价：{'a' * 17}").removesuffix("\n好不好？")) <= {"好"}
    assert shown.startswith(f"评价：{'a' * 17}") and shown.endswith("\n好不好？")
    assert tokens.encode(tokenizer, ["short"], 64, template) == [tokenizer("评价：short\n好不好？")["input_ids"]]


def test_a_template_at_the_front_is_cut_by_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = tokens.load_tokenizer(tiny.make_base_of("bert", tmp_path))
    [row] = tokens.encode(tokenizer, ["b" * 50], 12, "say: {text}")
    assert tokenizer.decode(row, skip_special_tokens=True) == "say: bbbbb"
    assert len(row) == 12 and row[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("template", ["a long question: {text}", "{text} is it good?", "one {text} two three"])
def test_a_template_without_room_is_refused_before_training(template: str, tmp_path: Path) -> None:
    tokenizer = tokens.load_tokenizer(tiny.make_base_of("bert", tmp_path))
    alone = len(tokenizer(template.replace("{text}", ""))["input_ids"])
    with pytest.raises(DataError, match=f"{alone} tokens without any text, and max_length is {alone}") as caught:
        tokens.encode(tokenizer, ["x"], alone, template)
    assert "max_length" in caught.value.hint
    assert len(tokens.encode(tokenizer, ["x" * 40], alone + 1, template)[0]) == alone + 1


def test_many_long_texts_are_cut_together() -> None:
    """A few turns for all of them, not one a character."""
    rows = tokens.encode(MERGED, ["the room was good " * 300] * 100, 64, "It says: {text}. Good?")
    assert {len(row) for row in rows} <= {62, 63, 64}


def test_braces_of_a_text_are_its_own(tmp_path: Path) -> None:
    tokenizer = tokens.load_tokenizer(tiny.make_base_of("qwen2", tmp_path))
    [row] = tokens.encode(tokenizer, ["{text} {0} {"], 64, "[{text}]")
    assert tokenizer.decode(row) == "[{text} {0} {]"


SOME_TEXTS = ["the room was good", "房间很好，早餐也好", "good good rooms, bad bad food", "    spaces   and\n\nlines"]
PLAIN = make_tokenizer({"pad": "<pad>", "bos": "<s>", "eos": "</s>"}, around="<s> $A </s>")
MERGED = make_tokenizer({"pad": "<pad>", "bos": "<s>", "eos": "</s>"}, around="<s> $A </s>", merges=SOME_TEXTS * 5)
FOLDED = make_tokenizer({"eos": "</s>", "pad": "<pad>"}, merges=SOME_TEXTS * 5)
FOLDED.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
WORDS = st.text(st.sampled_from("ab 好\n?：{}<s>ﬁ①É́😀"), max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(
        st.text(max_size=80) | st.text(st.sampled_from("good 房间\n<pad>ﬁ①"), max_size=200), min_size=1, max_size=4
    ),
    before=WORDS,
    after=WORDS,
    max_length=st.integers(4, 60),
    tokenizer=st.sampled_from([PLAIN, MERGED, FOLDED]),
)
def test_whatever_the_text_the_template_stays(
    texts: list[str], before: str, after: str, max_length: int, tokenizer: Any
) -> None:
    template = f"{before}{{text}}{after}"
    if template.count("{text}") != 1:
        return
    try:
        rows = tokens.encode(tokenizer, texts, max_length, template)
    except DataError as error:
        assert "tokens without any text" in error.message
        assert len(tokenizer(before + after)["input_ids"]) >= max_length
        return
    for text, row in zip(texts, rows, strict=True):
        assert 0 < len(row) <= max_length
        whole = tokenizer(before + text + after)["input_ids"]
        if len(whole) <= max_length:
            assert row == tokens._without_padding(whole, tokenizer.pad_token_id) or len(row) == 1
        elif after:
            # What is left is the template around a part of the text from its start.
            assert row in [
                tokens._without_padding(tokenizer(before + text[:kept] + after)["input_ids"], tokenizer.pad_token_id)
                for kept in range(len(text))
            ]
    if tokenizer is PLAIN and "<" not in template:
        ids = [tokenizer(words, add_special_tokens=False)["input_ids"] for words in (before, after)]
        for row in rows:
            assert row[1 : len(ids[0]) + 1] == ids[0]
            assert not ids[1] or row[-1 - len(ids[1]) : -1] == ids[1]


def test_a_cut_loses_no_more_than_it_must() -> None:
    """One byte a token: every row that was cut is full, but for the bytes of the character at the cut."""
    for text in ("x" * 500, "好" * 200, "a好" * 100):
        [row] = tokens.encode(PLAIN, [text], 40, "<{text}>")
        assert 38 <= len(row) <= 40


class SlowTokenizer:
    """A tokenizer in Python, which does not know where its tokens stand."""

    is_fast, eos_token_id, pad_token_id = False, 1, 0

    def __call__(self, prompts: list[str], **options: Any) -> dict[str, list[list[int]]]:
        assert not options.get("return_offsets_mapping")
        return {"input_ids": [[ord(character) for character in prompt] for prompt in prompts]}


def test_a_tokenizer_that_knows_no_places() -> None:
    slow: Any = SlowTokenizer()
    [row] = tokens.encode(slow, ["x" * 100], 10, "a{text}b")
    assert "".join(map(chr, row)) == "a" + "x" * 8 + "b"


# --- long texts

LONG_TEXTS = st.text(max_size=200) | st.text(st.sampled_from("good 房间\n<pad>ﬁ①"), min_size=30, max_size=200)
TEMPLATES = st.tuples(WORDS, WORDS).map("{text}".join).filter(lambda template: template.count("{text}") == 1)


@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(LONG_TEXTS, min_size=1, max_size=4),
    template=TEMPLATES,
    max_length=st.integers(30, 60),
    tokenizer=st.sampled_from([PLAIN, MERGED, FOLDED]),
)
def test_head_and_tail_of_whatever_text(texts: list[str], template: str, max_length: int, tokenizer: Any) -> None:
    before, after = template.split("{text}")
    try:
        rows = tokens.encode(tokenizer, texts, max_length, template, "head_tail")
    except DataError:
        assert len(tokenizer(before + after)["input_ids"]) >= max_length
        return
    for text, row in zip(texts, rows, strict=True):
        whole = tokenizer(before + text + after)["input_ids"]
        if len(whole) <= max_length:
            assert rows and row == (tokens._without_padding(whole, tokenizer.pad_token_id) or row)
            continue
        # Nothing but tokens of the middle are gone, half of the room is from either end.
        assert 0 < len(row) <= max_length
        if len(row) == max_length:
            head = next((at for at in range(max_length) if row[at] != whole[at]), max_length)
            tail = next((at for at in range(max_length) if row[-1 - at] != whole[-1 - at]), max_length)
            assert head + tail >= max_length
            ends = [len(tokenizer(words, add_special_tokens=False)["input_ids"]) for words in (before, after)]
            assert min(head - ends[0], tail - ends[1]) >= (max_length - sum(ends)) // 2 - 6


def test_head_and_tail_by_hand() -> None:
    template, text = "<{text}>", "abcdefghijklmnopqrstuvwxyz"
    [row] = tokens.encode(PLAIN, [text], 13, template, "head_tail")
    assert PLAIN.decode(row) == "<s><abcdewxyz></s>"
    [row] = tokens.encode(PLAIN, [text], 13, "{text}", "head_tail")
    assert PLAIN.decode(row) == "<s>abcdefvwxyz</s>"
    assert tokens.encode(PLAIN, ["short"], 13, template, "head_tail") == tokens.encode(PLAIN, ["short"], 13, template)
    assert tokens.encode(PLAIN, [text], 13, template, "windows") == tokens.encode(PLAIN, [text], 13, template)
    [row] = tokens.encode(PLAIN, [text], 5, template, "head_tail")
    assert PLAIN.decode(row) == "<s><a></s>"
    slow: Any = SlowTokenizer()
    [row] = tokens.encode(slow, [text], 10, "<{text}>", "head_tail")
    assert "".join(map(chr, row)) == "<abcdwxyz>"


def test_windows_by_hand() -> None:
    rows, counts = tokens.encode_windows(PLAIN, ["abcdefghijklmnopq", "short", ""], 12, "<{text}>")
    assert [PLAIN.decode(row) for row in rows] == [
        "<s><abcdefgh></s>", "<s><efghijkl></s>", "<s><jklmnopq></s>", "<s><short></s>", "<s><></s>",
    ]  # fmt: skip
    assert counts == [3, 1, 1]
    assert tokens.encode_windows(PLAIN, [], 12) == ([], [])


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(0, 900),
    max_length=st.integers(8, 27),
    template=st.sampled_from(["{text}", "<{text}>", "a{text}"]),
)
def test_windows_cover_a_text_and_overlap_by_a_quarter(length: int, max_length: int, template: str) -> None:
    text = "".join(chr(97 + number % 26) for number in range(length))
    rows, [count] = tokens.encode_windows(PLAIN, [text], max_length, template)
    around = len(PLAIN(template.replace("{text}", ""))["input_ids"])
    room = max_length - around
    before = len(template.split("{text}")[0])
    windows = [row[1 + before : len(row) - (around - 1 - before)] for row in rows]
    inside = PLAIN(text, add_special_tokens=False)["input_ids"]
    if length <= room:
        assert windows == [inside]
        return
    assert count <= tokens.MOST_WINDOWS and all(len(window) == room for window in windows)
    assert windows[0] == inside[:room] and windows[-1] == inside[-room:]
    for one, other in zip(windows, windows[1:], strict=False):  # a letter comes again only after 26
        overlap = next((size for size in range(room - 1, 0, -1) if one[-size:] == other[:size]), 0)
        assert overlap >= room // 4 or count == tokens.MOST_WINDOWS
    assert count == min(tokens.MOST_WINDOWS, -(-(length - room) // (room - -(-room // 4))) + 1)


def test_only_so_many_characters_are_looked_at() -> None:
    """The end of a text of a million characters is its end for head_tail, and beyond what windows look at."""
    text = "a" * 500_000 + "b" * 500_000
    [row] = tokens.encode(PLAIN, [text], 12, "{text}", "head_tail")
    assert PLAIN.decode(row) == "<s>aaaaabbbbb</s>"
    rows, [count] = tokens.encode_windows(PLAIN, [text], 12)
    assert count == tokens.MOST_WINDOWS and {PLAIN.decode(row) for row in rows} == {"<s>aaaaaaaaaa</s>"}
