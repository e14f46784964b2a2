"""adapter_config.json of a LoRA adapter as data: which modules it adapts, and with which rank and scaling.

Works out what PEFT 0.21 would (`check_target_module_exists`, `get_pattern_key`), without PEFT, and knows no tensors.
The file is anybody's word: types are checked, and a pattern that takes long to match is refused.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import AdapterRejected

ALL_LINEAR = "all-linear"
PATTERN_SECONDS = 5.0
"""For all patterns of a configuration on all modules; a backtracking one would take for ever."""
MAX_PATTERNS = 10_000
MOST_ALPHA = 1e30
"""JSON has numbers that no float holds."""
TASKS = ("SEQ_CLS", "CAUSAL_LM", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
HEADS = {"SEQ_CLS": ("score", "classifier"), "TOKEN_CLS": ("score", "classifier"), "QUESTION_ANS": ("qa_outputs",)}
"""What PEFT trains and saves whole for a task, whether the configuration says so or not."""
OTHER_HEADS = ("classification_head", "logits_proj")
"""Heads of other names, of BART, T5 and XLNet: PEFT saves them only where modules_to_save names them."""
PLAIN_STARTS = (True, "gaussian")
"""Values of init_lora_weights with which the update starts from nothing and the base stays as it is."""
VARIANTS = (
    "layer_replication", "target_parameters", "megatron_config", "use_qalora", "use_bdlora", "monteclora_config",
    "arrow_config", "kasa_config",
)  # fmt: skip
"""Keys of which each makes something else of LoRA: other tensors, or other modules."""


@dataclass(frozen=True)
class LoraConfiguration:
    """`document` is the file, its types checked; what is absent or null in it has PEFT's default."""

    document: Mapping[str, Any]
    _clock: _Clock = field(default_factory=lambda: _Clock(PATTERN_SECONDS), repr=False, compare=False)

    @property
    def task(self) -> str | None:
        task: str | None = self.document.get("task_type")
        return task

    @property
    def rank(self) -> int:
        return int(self.document["r"])

    @property
    def heads(self) -> tuple[str, ...]:
        """Names under which a model of this task may have its head; none where it has none."""
        usual = HEADS.get(self.task or "", ())
        return usual and (*usual, *(name for name in self._words("modules_to_save") if name in OTHER_HEADS))

    @property
    def saved_whole(self) -> tuple[str, ...]:
        """The modules that are to be in the file whole; which of the heads' names a model has is not known here."""
        return tuple(dict.fromkeys([*self.heads, *self._words("modules_to_save")]))

    @property
    def selects_all_linear(self) -> bool:
        targets = self.document.get("target_modules")
        return isinstance(targets, str) and targets.lower() == ALL_LINEAR

    @property
    def listed(self) -> list[str]:
        """The names in target_modules, where it is a list."""
        targets = self.document.get("target_modules")
        return list(targets) if isinstance(targets, list) else []

    @property
    def names(self) -> int:
        """How many names, patterns and layers modules may have to be compared with."""
        lists = ("target_modules", "exclude_modules", "modules_to_save", "rank_pattern", "alpha_pattern",
                 "layers_to_transform", "layers_pattern")  # fmt: skip
        return sum(len(value) for key in lists if isinstance(value := self.document.get(key), list | dict))

    @property
    def starts_plainly(self) -> bool:
        """Whether the update is nothing before training, so that its size tells how much was trained."""
        return self.document.get("init_lora_weights", True) in PLAIN_STARTS

    def is_on(self, key: str) -> bool:
        """Whether a switch, such as use_dora, is on."""
        return bool(self.document.get(key))

    def rank_of(self, module: str) -> int:
        """The rank of a module's matrices.  Raises AdapterRejected, as all below do, for patterns that take long."""
        return int(self._by_pattern("rank_pattern", module, self.rank))

    def scaling_of(self, module: str) -> float:
        """What a module's update is multiplied by."""
        alpha = self._by_pattern("alpha_pattern", module, self.document.get("lora_alpha", 8)) or 0
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.is_on("use_rslora") else rank)

    def targets(self, module: str) -> bool:
        """Whether this module gets LoRA.  With all-linear, of linear layers only the caller knows which they are."""
        document = self.document
        if _matches(self._clock, document.get("exclude_modules"), module) or self.saves_whole(module):
            return False
        if self.selects_all_linear or (module == "lm_head" and self.is_on("ensure_weight_tying")):
            return True  # PEFT takes lm_head off the list where it goes with the embedding
        targets = document.get("target_modules")
        if not _matches(self._clock, targets, module):
            return False
        layers = document.get("layers_to_transform")
        if isinstance(targets, str) or module in self.listed or layers is None or layers == []:
            return True  # a full name is meant whatever the layers
        index = self._layer(module)
        return index is not None and index in (layers if isinstance(layers, list) else [layers])

    def saves_whole(self, module: str) -> bool:
        """Whether a module is trained and saved whole, or lies in one that is."""
        return any(self.is_in(module, name) for name in self.saved_whole)

    def is_in(self, module: str, name: str) -> bool:
        """Whether a module is one that an entry of modules_to_save stands for, or lies in one."""
        if re.fullmatch(r"[\w.]+", name):
            return f".{name}." in f".{module}."
        return self._clock.match(rf"(^|.*\.){name}($|\..*)", module) is not None

    def _by_pattern(self, key: str, module: str, default: Any) -> Any:
        pattern = self.document.get(key) or {}
        for one, value in pattern.items():
            if one == module or self._clock.match(rf"(.*\.)?({one})$", module):
                return value
        return default

    def _layer(self, module: str) -> int | None:
        """The index of the layer that a module lies in."""
        patterns = self._words("layers_pattern")
        if not patterns:
            found = re.match(r".*?\.[^.]*\.(\d+)\.", module)
            return int(found[1]) if found else None
        for pattern in patterns:
            if named := self._clock.match(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", module):
                return int(named["idx"])
        return None

    def _words(self, key: str) -> list[str]:
        value = self.document.get(key) or []
        return [value] if isinstance(value, str) else list(value)


def parse(document: Mapping[str, Any]) -> LoraConfiguration:
    """The configuration that a parsed adapter_config.json of peft_type LORA holds.

    Raises AdapterRejected with everything in it that PEFT could not make an adapter of.  A `lora_alpha` of 0 or NaN is
    a value, if a useless one.
    """
    problems = [
        f"{key} {ascii(document[key])[:80]}"
        for key, is_sound in _SOUND.items()
        if document.get(key) not in _EMPTY and not is_sound(document[key])
    ]
    problems += [f"no {key}" for key in ("r", "target_modules") if document.get(key) in _EMPTY]
    if problems:
        raise AdapterRejected("; ".join(problems))
    return LoraConfiguration(document)


class _Clock:
    """Matches patterns until its time is up."""

    def __init__(self, seconds: float) -> None:
        self._left_s = seconds
        self._known: dict[str, Any] = {}

    def match(self, pattern: str, text: str, *, whole: bool = False) -> Any:
        """As re.match, with `whole` re.fullmatch.  Raises AdapterRejected: no pattern, or too slow."""
        import regex  # unlike re it can be given a time limit

        if self._left_s <= 0:
            raise AdapterRejected("patterns that take for ever to match")
        started = time.monotonic()
        try:
            if pattern not in self._known:
                self._known[pattern] = regex.compile(pattern)
            found = self._known[pattern]
            return (found.fullmatch if whole else found.match)(text, timeout=self._left_s)
        except TimeoutError:
            raise AdapterRejected(f"a pattern that takes for ever to match: {ascii(pattern)[:80]}") from None
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise AdapterRejected(f"not a pattern: {ascii(pattern)[:80]} ({str(error)[:80]})") from None
        finally:
            self._left_s -= time.monotonic() - started


def _matches(clock: _Clock, wanted: Any, module: str) -> bool:
    """PEFT's rule: a text is a pattern for the whole name; of a list one is the name, or its end after a dot."""
    if isinstance(wanted, str):
        return bool(wanted) and clock.match(wanted, module, whole=True) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted or ())


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 10_000


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value <= 65536


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and not abs(value) > MOST_ALPHA


def _list_of(sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) <= MAX_PATTERNS and all(map(sound, value))


def _either(*sounds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: any(sound(value) for sound in sounds)


def _pattern_to(sound: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and _list_of(_is_text)([*value]) and all(map(sound, value.values()))


def _is_layer(value: Any) -> bool:
    return type(value) is int and 0 <= value < 10_000


def _one_of(allowed: Iterable[Any]) -> Callable[[Any], bool]:
    return lambda value: value in tuple(allowed)


_EMPTY: tuple[Any, ...] = (None, [], {}, "")  # PEFT takes an empty pattern or list for none
_names = _either(_is_text, _list_of(_is_text))
_SOUND: dict[str, Callable[[Any], bool]] = {
    "task_type": _one_of(TASKS),
    "r": _is_count,
    "target_modules": _names,
    "exclude_modules": _names,
    "modules_to_save": _list_of(_is_text),
    "rank_pattern": _pattern_to(_is_count),
    "lora_alpha": _is_number,
    "alpha_pattern": _pattern_to(_is_number),
    "layers_to_transform": _either(_is_layer, _list_of(_is_layer)),
    "layers_pattern": _names,
    "bias": _one_of(("none", "all", "lora_only")),
    "use_rslora": _one_of((True, False)),
    "use_dora": _one_of((True, False)),
    "lora_bias": _one_of((True, False)),
    "fan_in_fan_out": _one_of((True, False)),
}
