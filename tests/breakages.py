"""What happens to adapters: each breakage damages a healthy folder and names the check that has to notice.

The damages are those of the field (sharded saves, wrappers' prefixes, files cut off) and of whoever means harm.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from jobs import adapter
from tests.corpus import CLASSES, INITIAL, Recipe

WEIGHTS, CONFIG = adapter.WEIGHTS, adapter.CONFIG
Damage = Callable[[Path], None]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Breakage:
    """`check` has to fail after `damage`, on any adapter that `suits`.

    `told`: it takes what a run of ours tells.  `other_base`: held against another base of the same shapes.
    """

    name: str
    check: str
    damage: Damage
    suits: Callable[[Recipe], bool] = lambda recipe: True
    told: bool = False
    other_base: bool = False


# --- ways to damage


def tensors(change: Callable[[Tensors], Any]) -> Damage:
    """A damage to the tensors, saved as a file that is otherwise sound."""

    def damage(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file({key: value.contiguous() for key, value in held.items()}, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def each(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """Every tensor whose key has `part` in it is replaced."""
    return tensors(lambda held: held.update({key: change(value.clone()) for key, value in held.items() if part in key}))


def last(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """The last tensor whose key has `part` in it is replaced."""

    def over(held: Tensors) -> None:
        key = max(key for key in held if part in key)
        held[key] = change(held[key].clone())

    return tensors(over)


def without(part: str) -> Damage:
    return tensors(lambda held: [held.pop(key) for key in list(held) if part in key])


def without_last(part: str) -> Damage:
    return tensors(lambda held: held.pop(max(key for key in held if part in key)))


def renamed(old: str, new: str) -> Damage:
    return tensors(lambda held: [held.update({key.replace(old, new): held.pop(key)}) for key in list(held)])


def config(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        document = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(document | changes))

    return damage


def config_without(key: str) -> Damage:
    def damage(folder: Path) -> None:
        document = json.loads((folder / CONFIG).read_text())
        document.pop(key)
        (folder / CONFIG).write_text(json.dumps(document))

    return damage


def text(change: Callable[[str], str]) -> Damage:
    """Another text in adapter_config.json."""

    def damage(folder: Path) -> None:
        (folder / CONFIG).write_text(change((folder / CONFIG).read_text()))

    return damage


def raw(change: Callable[[bytes], bytes]) -> Damage:
    """Other bytes in the file of weights."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))

    return damage


def header(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """A damage to the header, its length kept right."""

    def over(content: bytes) -> bytes:
        length = struct.unpack("<Q", content[:8])[0]
        document = json.loads(content[8 : 8 + length])
        change(document)
        text = json.dumps(document).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return raw(over)


def entry(**changes: Any) -> Damage:
    """A damage to the last entry of the header."""
    return header(lambda document: document[max(document)].update(changes))


def instead(make: Callable[[Path], Any]) -> Damage:
    """Something else in place of the file of weights."""

    def damage(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        make(folder / WEIGHTS)

    return damage


# --- changes


def zero(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value)


def first_rows(share: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rank 0's slice of so many."""

    def change(value: torch.Tensor) -> torch.Tensor:
        value[len(value) // share :] = 0
        return value

    return change


def last_half_of_columns(value: torch.Tensor) -> torch.Tensor:
    value[:, value.shape[1] // 2 :] = 0
    return value


def first_half_twice(value: torch.Tensor) -> torch.Tensor:
    return torch.cat([value[: len(value) // 2]] * 2)


def put(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(held: torch.Tensor) -> torch.Tensor:
        held.view(-1)[1] = value
        return held

    return change


def a_row_of_zeros(value: torch.Tensor) -> torch.Tensor:
    value[-1] = 0
    return value


def other_byte_order(value: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(value.numpy().byteswap())


def times(factor: float) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda value: value * factor


def a_page_of_zeros(content: bytes) -> bytes:
    return content[:-8192] + bytes(8191) + content[-1:]


def no_head(held: Tensors) -> None:
    for key in [key for key in held if is_of_head(key)]:
        held.pop(key)


def another_bit(value: torch.Tensor) -> torch.Tensor:
    """The lowest bit of one number: nothing that an answer would show."""
    value.view(-1).view(torch.int32)[-1] ^= 1
    return value


def swapped(part: str) -> Damage:
    """Two layers' tensors of one shape change places, as with a save in another order than the header's."""

    def over(held: Tensors) -> None:
        keys = sorted(key for key in held if part in key)
        one = keys[0]
        two = next(key for key in reversed(keys) if held[key].shape == held[one].shape)
        held[one], held[two] = held[two].clone(), held[one].clone()

    return tensors(over)


def twice(content: bytes) -> bytes:
    """A key that stands twice in the header, for readers that take the first and the last."""
    length = struct.unpack("<Q", content[:8])[0]
    name = max(json.loads(content[8 : 8 + length])).encode()
    text = content[8 : 8 + length].replace(b"{", b'{"' + name + b'":{},', 1)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


def transposed(held: Tensors) -> None:
    held.update({key: value.T for key, value in held.items() if ".lora_A.w" in key or ".lora_B.w" in key})


def a_layer_twice(held: Tensors) -> None:
    held.update({key: held[key.replace(".1.", ".0.")].clone() for key in held if ".1." in key})


def is_of_head(key: str) -> bool:
    return any(f".{name}." in key for name in ("score", "classifier"))


def is_of_lora(key: str) -> bool:
    return "lora_" in key


def head(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def over(held: Tensors) -> None:
        [key] = [key for key in held if is_of_head(key) and key.endswith("weight")]
        held[key] = change(held[key].clone())

    return tensors(over)


def whole_embedding(change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    """Every embedding that is saved whole."""
    names = ("embed_tokens.weight", "lm_head.weight")
    return tensors(lambda held: held.update({k: change(v.clone()) for k, v in held.items() if k.endswith(names)}))


def as_at_first(chosen: Callable[[str], bool], *, one: bool = False) -> Damage:
    """What it was before the first step, which the corpus keeps beside an adapter."""

    def damage(folder: Path) -> None:
        initial = {key: value for key, value in load_file(folder.with_name(INITIAL)).items() if chosen(key)}
        last_one = max(initial)
        tensors(lambda held: held.update({last_one: initial[last_one]} if one else initial))(folder)

    return damage


# --- which suit


def is_classifier(recipe: Recipe) -> bool:
    return recipe.task == "SEQ_CLS"


def is_language_model(recipe: Recipe) -> bool:
    return recipe.task == "CAUSAL_LM"


def is_decoder(recipe: Recipe) -> bool:
    return is_plain(recipe) and recipe.kind != "bert"


def has(key: str) -> Callable[[Recipe], bool]:
    return lambda recipe: bool(recipe.settings.get(key))


def has_score(recipe: Recipe) -> bool:
    return is_classifier(recipe) and recipe.kind != "bert"


def saves_an_embedding(recipe: Recipe) -> bool:
    return not {"embed_tokens", "lm_head"}.isdisjoint(recipe.settings.get("modules_to_save", ()))


def has_blocks(recipe: Recipe) -> bool:
    """Halves that are not the same by chance."""
    return is_plain(recipe) and recipe.settings["r"] >= 8


def has_biases(recipe: Recipe) -> bool:
    return recipe.settings.get("bias") == "all" and recipe.kind in ("qwen2", "bert")


def has_all_linear(recipe: Recipe) -> bool:
    return recipe.settings["target_modules"] == "all-linear"


def is_plain(recipe: Recipe) -> bool:
    """Two linear layers by their names, one rank, an ordinary start."""
    odd = {"rank_pattern", "layers_to_transform", "modules_to_save", "init_lora_weights", "trainable_token_indices"}
    some = (["q_proj", "v_proj"], ["query", "value"])
    return not {*odd, "use_dora"} & recipe.settings.keys() and recipe.settings["target_modules"] in some


def is_float32(recipe: Recipe) -> bool:
    return is_plain(recipe) and recipe.dtype == "fp32"


def is_wide(recipe: Recipe) -> bool:
    """Matrices that fill whole pages of the file."""
    return recipe.settings["r"] >= 32 and has_all_linear(recipe)


def has_some_rank(recipe: Recipe) -> bool:
    """More than one row, and fewer than the layers are wide."""
    return is_plain(recipe) and 1 < recipe.settings["r"] < 32


ROOT = "base_model.model."
EMPTY_FILE = struct.pack("<Q", 32) + b'{"__metadata__":{"format":"pt"}}'
assert len(EMPTY_FILE) == 40
FOREVER = r"([a-z._0-9]*|.*)*(.*)*!"
MORE_TARGETS = ["q_proj", "v_proj", "k_proj", "query", "value", "key"]
ONE_TARGET = ["q_proj", "query"]
EXTRACTION = {"task_type": "FEATURE_EXTRACTION", "modules_to_save": None}
WHOLE = ["score", "classifier", "pre_head"]

BREAKAGES = [
    # the file
    Breakage("40 bytes: metadata and no tensor (filtered twice)", "tensors", raw(lambda _: EMPTY_FILE)),
    Breakage("tensors of size 0 (ZeRO-3, not gathered)", "tensors", each(".lora_B.", lambda _: torch.zeros(0))),
    Breakage("a file of 0 bytes", "header", raw(lambda _: b"")),
    Breakage("no file of weights", "files", lambda folder: (folder / WEIGHTS).unlink()),
    Breakage("no configuration", "files", lambda folder: (folder / CONFIG).unlink()),
    Breakage("weights only as a pickle", "files", pickled),
    Breakage("a folder in place of the weights", "files", instead(Path.mkdir)),
    Breakage("a named pipe in place of the weights", "files", instead(os.mkfifo)),
    Breakage("the last byte is missing", "header", raw(lambda content: content[:-1])),
    Breakage("the second half is missing", "header", raw(lambda content: content[: len(content) // 2])),
    Breakage("bytes too many at the end", "header", raw(lambda content: content + b"\0" * 8)),
    Breakage("the header claims a terabyte", "header", raw(lambda content: struct.pack("<Q", 2**40) + content[8:])),
    Breakage("the header is not JSON", "header", raw(lambda content: content[:8] + b"x" + content[9:])),
    Breakage("a key that stands twice", "header", raw(twice)),
    Breakage("tensors that overlap", "header", entry(data_offsets=[0, 256])),
    Breakage("a shape that its bytes do not fit", "header", entry(shape=[2, 33])),
    Breakage("a dtype that nobody knows", "header", entry(dtype="F12")),
    Breakage("a negative shape", "header", entry(shape=[-2, -32])),
    Breakage("its tail is zeros (a full disk)", "zero_tail", raw(lambda content: content[:-72] + b"\0" * 72)),
    Breakage("a page that was never written", "zero_tail", raw(a_page_of_zeros), is_wide),
    Breakage("float64", "dtypes", last(".lora_B.", torch.Tensor.double)),
    Breakage("integers (quantised)", "dtypes", each(".lora_B.", lambda value: value.to(torch.int8))),
    # the configuration
    Breakage("the configuration is cut off", "config", text(lambda old: old[:99])),
    Breakage("the configuration is a list", "config", text(lambda old: "[]")),
    Breakage("the configuration is nested without end", "config", text(lambda old: "[" * 100_000)),
    Breakage("r is 0", "config", config(r=0)),
    Breakage("r is a text", "config", config(r="16")),
    Breakage("no r", "config", config_without("r")),
    Breakage("no target_modules", "config", config(target_modules=None)),
    Breakage("target_modules with a number in it", "config", config(target_modules=["q_proj", 7])),
    Breakage("no such task", "config", config(task_type="SEQ_CLASSIFICATION")),
    Breakage("another r than the matrices have", "pairs", config(r=3), is_plain),
    Breakage("lora_alpha is 0", "alpha", config(lora_alpha=0)),
    Breakage("lora_alpha is NaN", "alpha", config(lora_alpha=float("nan"))),
    Breakage("no lora_alpha", "alpha", config_without("lora_alpha")),
    Breakage("alpha_pattern with a 0", "alpha", config(alpha_pattern={"q_proj": 0})),
    Breakage("rank_pattern is lost", "pairs", config(rank_pattern={}), has("rank_pattern")),
    Breakage("rank_pattern of another adapter", "pairs", config(rank_pattern={"q_proj": 6, "query": 6}), is_plain),
    Breakage("targets narrower than the file", "modules", config(target_modules=ONE_TARGET), is_plain),
    Breakage("targets wider than the file", "modules", config(target_modules=MORE_TARGETS), is_plain),
    Breakage("layers_to_transform is lost", "modules", config(layers_to_transform=None), has("layers_to_transform")),
    Breakage("layers_to_transform of fewer layers", "modules", config(layers_to_transform=[0]), is_plain),
    Breakage("all-linear in place of the names", "modules", config(target_modules="all-linear"), is_plain),
    Breakage("a pattern in place of the names", "modules", config(target_modules=r".*\.q_proj|.*\.query"), is_plain),
    Breakage("a pattern that takes for ever", "modules", config(target_modules=FOREVER), is_plain),
    Breakage("a pattern that is none", "modules", config(target_modules="(*"), is_plain),
    Breakage("use_dora is lost", "keys", config(use_dora=False), has("use_dora")),
    Breakage("use_dora without magnitudes", "pairs", config(use_dora=True), is_float32),
    Breakage("magnitudes of zero (DoRA)", "pairs", each("lora_magnitude_vector", zero), has("use_dora")),
    Breakage("bias is lost", "keys", config(bias="none"), has_biases),
    Breakage("fan_in_fan_out of other layers", "shapes", config(fan_in_fan_out=True), has_all_linear),
    Breakage("a classifier's file for another task", "keys", config(**EXTRACTION), is_classifier),
    Breakage("another task's file for a classifier", "head", config(task_type="SEQ_CLS"), is_language_model),
    Breakage("a module to be saved is not there", "head", config(modules_to_save=WHOLE), is_classifier),
    # names
    Breakage("torch.compile's prefix", "prefixes", renamed(ROOT, f"{ROOT}_orig_mod.")),
    Breakage("DDP's prefix", "prefixes", renamed("base_model.", "module.base_model.")),
    Breakage("FSDP's prefix", "prefixes", renamed(ROOT, f"{ROOT}_fsdp_wrapped_module.")),
    Breakage("the adapter's name in the keys", "keys", renamed(".weight", ".default.weight")),
    Breakage("keys without PEFT's root", "keys", renamed(ROOT, "")),
    # what is missing
    Breakage("no LoRA, the head alone", "pairs", without("lora_"), is_classifier),
    Breakage("a layer is missing", "modules", without(".1."), is_plain),
    Breakage("a lora_B is missing", "pairs", without_last(".lora_B.w")),
    Breakage("a lora_A is missing", "pairs", without_last(".lora_A.")),
    Breakage("no head (modules_to_save forgotten)", "head", tensors(no_head), is_classifier),
    Breakage("a head by PEFT's name for it in memory", "head", renamed("score.", "score.modules_to_save."), has_score),
    Breakage("trained tokens are not there", "head", without("trainable_tokens"), has("trainable_token_indices")),
    Breakage("biases are not there", "head", without("base_layer.bias"), has_biases),
    Breakage("biases of lora_B are not there", "pairs", without(".lora_B.bias"), has("lora_bias")),
    # numbers
    Breakage("every lora_B is zero (no gradient)", "lora_b", each(".lora_B.", zero)),
    Breakage("one lora_B is zero", "lora_b", last(".lora_B.w", zero)),
    Breakage("one lora_A is zero", "lora_a", last(".lora_A.", zero)),
    Breakage("rank 0's half of lora_B (FSDP)", "shards", each(".lora_B.w", first_rows(2)), is_plain),
    Breakage("rank 0's eighth of lora_B (FSDP)", "shards", each(".lora_B.w", first_rows(8)), is_plain),
    Breakage("a row of lora_A is zero", "shards", last(".lora_A.", a_row_of_zeros), has_some_rank),
    Breakage("half of lora_A's columns are zero", "shards", each(".lora_A.w", last_half_of_columns), is_plain),
    Breakage("half of the ranks are zero", "shards", each(".lora_B.w", last_half_of_columns), has_some_rank),
    Breakage("rank 0's half of an embedding (FSDP)", "shards", whole_embedding(first_rows(2)), saves_an_embedding),
    Breakage("half of an embedding", "shapes", whole_embedding(lambda value: value[::2]), saves_an_embedding),
    Breakage("rank 0's half of lora_B, twice", "copies", each(".lora_B.w", first_half_twice), has_blocks),
    Breakage("a layer in place of another", "copies", tensors(a_layer_twice), is_plain),
    Breakage("half of lora_A's columns (tensor parallel)", "shapes", each(".lora_A.", lambda value: value[:, ::2])),
    Breakage("half of lora_B's rows (tensor parallel)", "shapes", each(".lora_B.w", lambda value: value[::2])),
    Breakage("NaN in one number", "finite", last(".lora_B.", put(float("nan")))),
    Breakage("NaN in every number (the loss was)", "finite", each("", lambda value: value * float("nan"))),
    Breakage("infinity in the head (fp16 overflowed)", "finite", head(put(float("inf"))), is_classifier),
    Breakage("matrices that are transposed", "pairs", tensors(transposed), has_some_rank),
    Breakage("a vector in place of a matrix", "pairs", last(".lora_B.w", torch.flatten)),
    Breakage("matrices of two ranks", "pairs", last(".lora_A.", lambda value: torch.cat([value, value]))),
    Breakage("of a base of another width", "shapes", each(".lora_A.", lambda value: torch.cat([value, value], 1))),
    Breakage("of a base with more layers", "shapes", renamed(".1.", ".7."), is_plain),
    Breakage("an update a million times too large", "update_size", each(".lora_B.w", times(1e6)), is_float32),
    Breakage("the other byte order", "update_size", each(".lora_B.w", other_byte_order), is_float32),
    Breakage("an update of next to nothing", "update_size", each(".lora_B.w", times(1e-12)), is_float32),
    Breakage("a head of zeros", "head", head(zero), is_classifier),
    Breakage("a head of one row for all", "head", head(lambda value: value[:1].expand_as(value)), is_classifier),
    Breakage("a head for another width", "head", head(lambda value: torch.ones(CLASSES, 48)), is_classifier),
    # what a run of ours can tell
    Breakage("a head for more labels", "classes", head(lambda value: torch.cat([value, value])), is_plain, told=True),
    Breakage("a head for fewer labels", "classes", head(lambda value: value[1:]), is_plain, told=True),
    Breakage("never trained", "moved", as_at_first(lambda key: True), is_plain, told=True),
    Breakage("the head was trained, LoRA was not", "moved", as_at_first(is_of_lora), is_plain, told=True),
    Breakage("LoRA was trained, the head was not", "moved", as_at_first(is_of_head), is_plain, told=True),
    Breakage("one lora_A was not trained", "moved", as_at_first(is_of_lora, one=True), is_plain, told=True),
    Breakage("one bit is another", "saved", last(".lora_B.w", another_bit), is_plain, told=True),
    Breakage("two layers changed places", "saved", swapped(".q_proj.lora_A"), is_decoder, told=True),
    Breakage("the head's rows changed places", "saved", head(lambda value: value.flip(0)), is_plain, told=True),
    Breakage("a head drawn anew", "saved", head(torch.randn_like), is_plain, told=True),
    Breakage("rounded to bf16", "saved", each("", torch.Tensor.bfloat16), is_plain, told=True),
    Breakage("another base of the same shapes", "base", lambda _: None, is_plain, told=True, other_base=True),
]
