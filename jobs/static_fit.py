"""Static questions about fit: whether names and shapes are those of the adapter's configuration, task and base."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jobs import adapter
from jobs.adapter_contents import ROOT, is_inside_peft, unwrapped, word
from jobs.base_tensors import PACKED, TIED_OUTPUTS, BaseTensors
from jobs.lora_configuration import LoraConfiguration
from jobs.static_subject import EMBEDDINGS, EXPERT, Finding, Subject, is_embedding


def alpha(subject: Subject) -> Finding:
    document = subject.lora.document
    alpha = document.get("lora_alpha")
    for value in (alpha, *(document.get("alpha_pattern") or {}).values()):
        if type(value) not in (int, float) or not 0 < value < math.inf:
            return "fail", f"lora_alpha {word(value)}"
    return "pass", f"lora_alpha {alpha:g}"


def prefixes(subject: Subject) -> Finding:
    arrays = subject.contents.arrays
    wrapped = [name for name in arrays if unwrapped(name) != name]
    if wrapped:
        return "fail", f"{len(wrapped)} of {len(arrays)} keys, first {word(wrapped[0])}"
    return "pass", "no wrapper's prefix"


def keys(subject: Subject) -> Finding:
    lora, contents = subject.lora, subject.contents
    odd = [key for key in contents.others if not _is_written_by_peft(key, lora)]
    odd += [name for name in contents.arrays if not unwrapped(name).startswith(ROOT) and name not in odd]
    switches = {"lora_B.bias": "lora_bias", "lora_magnitude_vector": "use_dora"}
    for module, pair in contents.pairs.items():
        odd += [f"{module}.{part}" for part, key in switches.items() if part in pair.parts and not lora.is_on(key)]
    if odd:
        return "fail", f"{len(odd)} keys that PEFT does not write, first {word(odd[0])}"
    return "pass", f"{len(contents.arrays)} keys, all of PEFT's form"


def _is_written_by_peft(key: str, lora: LoraConfiguration) -> bool:
    """Whether a tensor that is no LoRA matrix has a place in a file of this configuration."""
    module = key.removesuffix(".weight").removesuffix(".bias")
    return (
        adapter.is_saved(key, lora.saved_whole)
        or lora.saves_whole(module)
        or (key.endswith(".bias") and lora.document.get("bias", "none") != "none")
        or (lora.is_on("trainable_token_indices") and "trainable_tokens" in key)
        or is_embedding(module)
    )


def pairs(subject: Subject) -> Finding:
    lora, pairs = subject.lora, subject.contents.pairs
    if not pairs:
        return "fail", "no LoRA matrices in the file"
    for module, pair in pairs.items():
        if pair.a is None or pair.b is None:
            return "fail", f"{word(module)} has no lora_{'A' if pair.a is None else 'B'}"
        if pair.a.ndim != 2 or pair.b.ndim != 2:
            return "fail", f"{word(module)}: matrices are needed, not {pair.a.ndim} and {pair.b.ndim} dimensions"
        if not pair.fits:
            return "fail", f"{word(module)}: ranks {len(pair.a)} and {pair.b.shape[1]}"
        if (rank := lora.rank_of(module)) != len(pair.a):
            return "fail", f"{word(module)}: rank {len(pair.a)}, the configuration says {rank}"
        if lora.is_on("lora_bias") and "lora_B.bias" not in pair.parts and not pair.is_embedding:
            return "fail", f"{word(module)} has no lora_B.bias"
        if lora.is_on("use_dora"):
            magnitude = pair.parts.get("lora_magnitude_vector")
            if magnitude is None or magnitude.size not in (len(pair.b), pair.a.shape[1]):
                return "fail", f"{word(module)}: no lora_magnitude_vector of its size, which DoRA needs"
            if not (magnitude > 0).all() and np.isfinite(magnitude).all():
                return "fail", f"{word(module)}: a lora_magnitude_vector that is not above zero"
    ranks = sorted({len(pair.a) for pair in pairs.values()})
    return "pass", f"{len(pairs)} pairs of rank {' to '.join(map(str, [*ranks[:1], *ranks[1:][-1:]]))}"


def modules(subject: Subject) -> Finding:
    """Both directions: every module that the configuration targets is in the file, and no other."""
    present = set(subject.contents.pairs)
    if subject.base is None:
        return _modules_without_base(subject.lora, present)
    expected = set(_targeted(subject.lora, subject.base, present))
    missing, extra = sorted(expected - present), sorted(subject.reached.keys() - expected)
    if missing:
        return "fail", f"{len(missing)} of {len(expected)} targeted modules are missing, first {word(missing[0])}"
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {word(extra[0])}"
    return "pass", f"exactly the {len(expected)} modules that the configuration targets"


def _targeted(lora: LoraConfiguration, base: BaseTensors, present: set[str]) -> Iterator[str]:
    """The modules of the base that get LoRA."""
    # A language model's own head and other parts that a classifier lacks stand beside the body, not in it.
    roots = {name.split(".")[0] for name in present}
    has_experts = any(map(EXPERT.search, present))
    for name, shape in base.shapes.items():
        last = name.split(".")[-1]
        beside = name.split(".")[0] not in roots and not (str(lora.task).endswith("_LM") and last in lora.listed)
        # RoBERTa's file has a pooler that its classifier does without; transformers 5 makes one tensor of all experts.
        optional = ".pooler." in f".{name}" or (last == "gate" and lora.selects_all_linear)
        if beside or len(shape) < 2 or (optional and name not in present) or (EXPERT.search(name) and not has_experts):
            continue
        if lora.selects_all_linear and (len(shape) != 2 or not _is_linear(last)):
            continue
        if lora.targets(name):
            yield name


def _is_linear(last: str) -> bool:
    """Whether a matrix of a base is a linear layer that all-linear takes in, by the last part of its module's name."""
    no_layers = (*EMBEDDINGS, "wpe", "relative_attention_bias", *adapter.HEADS)
    return last not in no_layers and not re.search(r"^embed_|embed(ding)?s?$", last)


def _modules_without_base(lora: LoraConfiguration, present: set[str]) -> Finding:
    """What the configuration alone tells: enough to fail, never to pass."""
    extra = sorted(name for name in present if not lora.targets(name))
    if extra:
        return "fail", f"{len(extra)} modules in the file are not targeted, first {word(extra[0])}"
    return "not_checked", "no base to count the modules of", False


def shapes(subject: Subject) -> Finding:
    if subject.base is None:
        return "not_checked", "no base to compare with", False
    ways, packed = set(), 0
    for module, pair in subject.reached.items():
        shape = subject.base.shapes.get(module)
        if shape is None:
            return "fail", f"{word(module)} is not in the base"
        packed += shape == PACKED
        if not pair.fits or shape == PACKED:
            continue  # pairs says so, or nobody knows
        adapted = (len(pair.b), pair.a.shape[1])
        plain, turned = _is_shape_of(module, adapted, shape), _is_shape_of(module, adapted[::-1], shape)
        if not turned and (not plain or pair.is_embedding):
            return "fail", f"{word(module)}: {adapted} for a weight of {shape}"
        ways |= {plain} if plain != turned and not pair.is_embedding else set()
    # Where a base has weights of both ways (GPT-2's head is a Linear), the configuration tells that of the last one.
    if ways == {subject.lora.is_on("fan_in_fan_out")}:
        return "fail", "the base's weights lie the other way round than fan_in_fan_out says"
    if odd := _of_other_shapes(subject.contents.others, subject.base):
        return "fail", odd
    if packed:
        return "not_checked", f"{packed} of {len(subject.reached)} are packed by a quantiser; the others fit", False
    return "pass", f"{len(subject.reached)} modules fit the base's weights"


def _of_other_shapes(others: Mapping[str, Any], base: BaseTensors) -> str:
    """Which module that is saved whole has another shape than the base's."""
    for key, array in others.items():
        module = key.removesuffix(".weight").removesuffix(".base_layer")
        shape = base.shapes.get(module, PACKED) if key.endswith(".weight") else PACKED
        is_head = module.split(".")[0] in adapter.HEADS  # the base's own may be for other labels
        if shape != PACKED and not is_head and not _is_shape_of(module, array.shape, shape):
            return f"{word(module)}: {array.shape} for a weight of {shape}"
    return ""


def _is_shape_of(module: str, shape: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Whether it is the weight's shape; an embedding may have been given other tokens, but not less than half."""
    return shape == weight or (is_embedding(module) and shape[1:] == weight[1:] and 2 * shape[0] > weight[0])


def head(subject: Subject) -> Finding:
    lora, weight = subject.lora, subject.contents.head
    if absent := _absent(subject):
        return "fail", f"{word(absent[0])} was trained whole and is not in the file"
    if not lora.heads:
        return "not_checked", f"a model for {lora.task or 'no task'} has no classification head", False
    if weight is None:
        return "fail", f"none of {', '.join(lora.heads)} is in the file"
    if weight.ndim != 2 or not weight.any():
        return "fail", f"shape {weight.shape}" if weight.ndim != 2 else "all zero"
    if len(weight) > 1 and (weight == weight[0]).all():
        return "fail", "each class has the same row"
    if subject.base is not None and not any(shape[:1] == weight.shape[1:] for shape in subject.base.shapes.values()):
        return "fail", f"shape {weight.shape}, and no layer of the base has {weight.shape[1]} outputs"
    return "pass", f"shape {weight.shape}"


def _absent(subject: Subject) -> list[str]:
    """Modules that are trained whole and have no tensor in the file: by the configuration, and of the base's."""
    lora, others = subject.lora, [key for key in subject.contents.others if not is_inside_peft(key)]
    # PEFT finds these by how names end, so that no pattern is ever found; a classifier has no output embedding.
    none = (*adapter.HEADS, *lora.heads, *(TIED_OUTPUTS if lora.heads else ()))
    named = [name for name in lora.saved_whole if name not in none and re.fullmatch(r"[\w.]+", name)]
    absent = [name for name in named if not any(adapter.is_saved(key, (name,)) for key in others)]
    roots = {name.split(".")[0] for name in subject.contents.pairs}
    modules = subject.base.shapes if subject.base else ()
    of_base = [module for module in modules if adapter.is_saved(f"{module}.", named)]
    if lora.is_on("trainable_token_indices") and not any("trainable_tokens" in key for key in others):
        absent.append("trainable_tokens")
    there = [name for name in of_base if name.split(".")[0] in roots]
    absent += [name for name in there if f"{name}.weight" not in others]
    biased = subject.base.biased if subject.base else frozenset()
    if lora.document.get("bias", "none") != "none":
        absent += [f"{m}.bias" for m in biased & subject.contents.pairs.keys() if f"{m}.base_layer.bias" not in others]
    return absent + [f"{name}.bias" for name in there if name in biased and f"{name}.bias" not in others]


def classes(subject: Subject) -> Finding:
    weight, classes = subject.contents.head, subject.contents.classes
    if classes is None or weight is None:
        return "not_checked", f"no {adapter.CLASSIFIER}, or no head", subject.ours
    if weight.shape[0] != classes:
        return "fail", f"{weight.shape[0]} rows for {classes} labels"
    return "pass", f"{classes} labels"


def base(subject: Subject) -> Finding:
    """Whether the base at hand has the very weights that were trained on."""
    told = subject.told.base_sha256 if subject.told else None
    if subject.base is None:
        return "not_checked", "no base to compare with", False
    if not isinstance(told, Mapping) or not told:
        return "not_checked", "nothing tells the hashes of the base it was trained on", False
    here = subject.base.weights_sha256()
    if sorted(here.values()) != sorted(map(str, told.values())):
        others = sorted(name for name in here if here[name] not in told.values()) or sorted(map(str, told))
        return "fail", f"{len(others)} of its files are others than in training, first {word(others[0])}"
    return "pass", f"{len(here)} file{'s' * (len(here) != 1)} of weights, sha256 of each"
