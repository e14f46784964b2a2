"""The spec: what a run is asked to do, in Hugging Face's words, from a YAML file with flags over it."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jobs.errors import SpecError

HEAD_STARTS = ("probe", "random")
SCHEDULES = ("cosine", "linear", "constant")
METRICS = ("loss", "accuracy", "balanced_accuracy", "f1", "mcc")
BASELINES = ("majority", "tfidf", "frozen")
TRACKERS = ("tensorboard", "wandb")
HEAD, HEAD_TAIL, WINDOWS = LONG_TEXTS = ("head", "head_tail", "windows")
AUTO = "auto"
NO_GOAL = "none"
GOAL = re.compile(r"none|accuracy|balanced_accuracy|f1|(?:precision|recall)>=0?\.[0-9]{1,6}\Z")
# Those of ours steer the run itself.
VARIABLE = re.compile(r"(?!LAUNCH_)[A-Za-z_][A-Za-z0-9_]{0,99}\Z")
ALL_LINEAR = "all-linear"
TEXT = "{text}"
SPLITS = ("train", "validation", "test")
FILES = (*SPLITS, "file")


@dataclass(frozen=True)
class DataFiles:
    """A file or folder for each split, or one `file` or folder for all, or a `dataset` of the Hub.

    A split that is not there is cut out of train.  `config` and `revision` are of the dataset.
    """

    train: str = ""
    validation: str = ""
    test: str = ""
    file: str = ""
    dataset: str = ""
    config: str = ""
    revision: str = ""

    def named(self) -> dict[str, str]:
        """The files that were given, by split name (`file` for the unsplit one); none of a dataset."""
        return {name: getattr(self, name) for name in FILES if getattr(self, name)}


def _number(default: Any, low: float, high: float, help: str) -> Any:
    return field(default=default, metadata={"low": low, "high": high, "help": help})


def _choice(default: str, choices: tuple[str, ...], help: str) -> Any:
    return field(default=default, metadata={"choices": choices, "help": help})


def _auto(default: int | str, low: int, high: int, help: str) -> Any:
    """A whole number, or `auto`."""
    return field(default=default, metadata={"low": low, "high": high, "auto": True, "help": help})


def _text(default: str, help: str) -> Any:
    return field(default=default, metadata={"help": help})


def _words(default: tuple[str, ...], help: str, choices: tuple[str, ...] = ()) -> Any:
    """A list of words; as a flag separated by commas.  `none` is the empty list."""
    return field(default=default, metadata={"words": True, "allowed": choices, "help": help})


@dataclass(frozen=True)
class Spec:
    """One LoRA classification run.  Defaults stand here and nowhere else."""

    name: str = field(metadata={"help": "first part of the run's id"})
    model_name_or_path: str = field(metadata={"help": "Hub id, or a folder"})
    data: DataFiles = field(metadata={"help": "one file, {train, validation, test}, or {dataset: owner/name}"})
    model_revision: str = _text("main", "branch, tag or commit of a Hub model")
    text_column: str = _text("text", "column of the text")
    label_column: str = _text("label", "column of the label")
    num_train_epochs: float = _number(3.0, 0.0, 1000, "passes over the training split")
    learning_rate: float = _number(2e-4, 0.0, 1.0, "peak learning rate of AdamW")
    weight_decay: float = _number(0.0, 0.0, 1.0, "AdamW's weight decay, LoRA and head")
    warmup_ratio: float = _number(0.06, 0.0, 1.0, "share of the steps spent warming up")
    lr_scheduler_type: str = _choice("cosine", SCHEDULES, "after the warm-up")
    max_grad_norm: float = _number(1.0, 0.0, 1e6, "gradients are clipped to this norm; 0 is off")
    label_smoothing_factor: float = _number(0.0, 0.0, 0.99, "share of each label given to all classes alike")
    class_weights: str = _choice("none", ("none", "balanced"), "balanced: rare classes count for more in the loss")
    metric_for_best_model: str = _choice("loss", METRICS, "on validation; f1 is macro")
    early_stopping_patience: int = _number(
        0, 0, 10_000, "stop after so many evaluations without a better one; 0: never"
    )
    save_steps: int | str = _auto(AUTO, 1, 10_000_000, "steps between checkpoints; auto: about a minute")
    train_batch_size: int = _number(32, 1, 65536, "rows per optimizer step, of all GPUs together")
    tokens_per_batch: int | str = _auto(AUTO, 16, 10_000_000, "padded tokens per forward pass; auto: by a trial")
    max_length: int = _number(256, 4, 131_072, "tokens; longer texts are cut")
    prompt_template: str = _text(TEXT, "what the model reads; {text} stands for the text, \\n for a new line")
    long_texts: str = _choice(HEAD, LONG_TEXTS, "what is read of a text beyond max_length")
    lora_r: int = _number(16, 1, 4096, "rank")
    lora_alpha: float = _number(16.0, 0.0, 65536, "LoRA's alpha")
    lora_dropout: float = _number(0.0, 0.0, 0.99, "dropout in front of LoRA")
    use_rslora: bool = field(default=True, metadata={"help": "scale by alpha / sqrt(r)"})
    target_modules: tuple[str, ...] = _words((ALL_LINEAR,), "names of the layers LoRA is laid around, or all-linear")
    modules_to_save: tuple[str, ...] = _words((), "names of modules trained whole, beside the head")
    head_start: str = _choice("probe", HEAD_STARTS, "classification head: linear probe on the frozen base, or random")
    bf16: str = _choice("auto", ("auto", "yes", "no"), "base in bf16 (auto: on a GPU that has it)")
    baselines: tuple[str, ...] = _words(BASELINES, "what to compare with, on the same rows", BASELINES)
    threshold_goal: str = _text(NO_GOAL, "what to choose the threshold of two labels for: f1, precision>=0.95, ...")
    robustness: str = _choice("auto", ("auto", "yes", "no"), "the suite of Chinese reviews; auto: where it fits")
    gpus: int | str = _auto(AUTO, 1, 64, "GPUs of one machine; auto: all of them")
    report_to: tuple[str, ...] = _words((), "trackers", TRACKERS)
    price: float = _number(0.0, 0.0, 1e6, "of an hour of the machine, to tell what the run costs")
    max_cost: float = _number(0.0, 0.0, 1e9, "stop before a training that would cost more than this; 0: no limit")
    secrets: tuple[str, ...] = _words((), "variables of this machine that the run gets, such as HF_TOKEN; kept nowhere")
    seed: int = _number(42, 0, 2**32 - 1, "of everything random")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `from_mapping` takes it back unchanged."""
        return dataclasses.asdict(self)


def option_fields() -> list[dataclasses.Field[Any]]:
    """The spec's keys that a flag can override, in order."""
    return [f for f in fields(Spec) if f.name != "data"]


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> Spec:
    """The spec in a YAML file, with `overrides` over it.  Raises SpecError with every problem at once."""
    import yaml

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise SpecError(str(path), ["no such file"], hint="launch train SPEC.yaml --host NAME") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(path), [f"not readable as UTF-8 text: {error}"]) from error
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SpecError(str(path), [f"not YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(document, Mapping):
        raise SpecError(str(path), ["a spec is a mapping of keys to values"], hint=f"allowed keys: {_allowed()}")
    document = {**document, **(overrides or {})}
    document.setdefault("name", path.stem)
    return from_mapping(document, origin=str(path))


def from_mapping(document: Mapping[Any, Any], *, origin: str = "spec") -> Spec:
    """A Spec from keys and values.  Raises SpecError with every problem at once and the allowed keys."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    known = {f.name: f for f in fields(Spec)}
    for key, value in document.items():
        if key in known:
            values[key] = _value(known[key], value, problems)
        else:
            near = difflib.get_close_matches(str(key), known, n=1)
            problems.append(f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
    for name, known_field in known.items():
        if name not in document and known_field.default is dataclasses.MISSING:
            problems.append(f"{name}: missing")
    if values.get("max_cost") and not values.get("price"):
        problems.append("max_cost: needs the price of an hour: price")
    if problems:
        raise SpecError(origin, problems, hint=f"allowed keys: {_allowed()}")
    return Spec(**values)


def _allowed() -> str:
    return ", ".join(f.name for f in fields(Spec))


def _value(known: dataclasses.Field[Any], value: Any, problems: list[str]) -> Any:
    """`value` as the field's type; adds to `problems` what is wrong with it."""
    if known.name == "data":
        return _data(value, problems)
    kind, limits = known.type, known.metadata
    if kind == "bool":
        if not isinstance(value, bool):
            problems.append(f"{known.name}: true or false, not {value!r}")
        return value
    if "choices" in limits:
        # YAML reads a bare yes/no as a boolean, and none as nothing.
        value = "none" if value is None and "none" in limits["choices"] else value
        value = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
        if value not in limits["choices"]:
            problems.append(f"{known.name}: one of {', '.join(limits['choices'])}, not {value!r}")
        return value
    if "words" in limits:
        return _word_list(known, value, problems)
    if "low" in limits:
        return value if "auto" in limits and value == AUTO else _numeric(known, value, problems)
    if known.name == "prompt_template":
        return _template(value, problems)
    if known.name == "threshold_goal":
        return _goal(value, problems)
    if not _is_line(value):
        problems.append(f"{known.name}: a line of text, not {value!r}")
    return value


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not any(ord(c) < 32 for c in value) and len(value) <= 4096


def _template(value: Any, problems: list[str]) -> Any:
    if not isinstance(value, str) or value.count(TEXT) != 1 or len(value) > 65536 or "\0" in value:
        problems.append(f"prompt_template: a text with {TEXT} in it once, not {value!r:.200}")
        return value
    return value.replace("\\n", "\n")  # as a flag it can't hold a new line


def _goal(value: Any, problems: list[str]) -> Any:
    goal = NO_GOAL if value is None else value.replace(" ", "") if isinstance(value, str) else value
    if not isinstance(goal, str) or not GOAL.fullmatch(goal):
        problems.append(
            "threshold_goal: none, accuracy, balanced_accuracy, f1, precision>=0.95 or recall>=0.95 "
            f"(any share), not {value!r:.100}"
        )
    return goal


def _word_list(known: dataclasses.Field[Any], value: Any, problems: list[str]) -> Any:
    """A tuple of lines without repeats, from a list or from a text with commas."""
    if value in (None, "none", ["none"]):
        return ()
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not all(map(_is_line, words)):
        problems.append(f"{known.name}: a list of words, not {value!r}")
        return value
    if known.name == "secrets" and (odd := [word for word in words if not VARIABLE.match(word)]):
        problems.append(f"secrets: names of variables, not {', '.join(odd):.200}")
    allowed = known.metadata["allowed"]
    if wrong := [word for word in words if allowed and word not in allowed]:
        problems.append(f"{known.name}: of {', '.join(allowed)}, not {', '.join(wrong)}")
    return tuple(dict.fromkeys(words))


def _numeric(known: dataclasses.Field[Any], value: Any, problems: list[str]) -> Any:
    low, high = known.metadata["low"], known.metadata["high"]
    if known.name == "price" and isinstance(value, str):
        value = value.strip().removesuffix("/h")  # as it is written on a price list
    if isinstance(value, str):  # YAML 1.1 reads 2e-4 as text
        try:
            value = float(value)
        except ValueError:
            pass
    whole = known.type != "float"
    wrong_type = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    if wrong_type or (whole and value != int(value)):
        or_auto = " or auto" if "auto" in known.metadata else ""
        problems.append(f"{known.name}: a {'whole ' if whole else ''}number{or_auto}, not {value!r}")
        return value
    if not low <= value <= high:
        problems.append(f"{known.name}: between {low:g} and {high:g}, not {value:g}")
        return value
    return int(value) if whole else float(value)


def _data(value: Any, problems: list[str]) -> DataFiles:
    if isinstance(value, str):
        value = {"file": value}
    names = [f.name for f in fields(DataFiles)]
    if not isinstance(value, Mapping) or not value:
        problems.append("data: one file, {train, validation, test}, or {dataset: owner/name}")
        return DataFiles()
    wrong = [str(key) for key in value if key not in names]
    if wrong:
        problems.append(f"data: unknown {', '.join(wrong)}; allowed: {', '.join(names)}")
    for key, path in value.items():
        if key in names and (not isinstance(path, str) or "\0" in path):
            problems.append(f"data.{key}: {'a path' if key in FILES else 'a name'}, not {path!r}")
    given = {key: path for key, path in value.items() if key in names and isinstance(path, str) and path}
    ways = [key for key in ("file", "train", "dataset") if key in given]
    if len(ways) > 1 or ("train" not in given and {"validation", "test"} & given.keys() and ways):
        problems.append("data: either one file, splits, or a dataset, not several of them")
    elif not ways:
        problems.append("data: train is missing (or one file, or a dataset)")
    elif "dataset" not in given and {"config", "revision"} & given.keys():
        problems.append("data: config and revision are of a dataset")
    return DataFiles(**given)
