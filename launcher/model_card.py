"""The model card of a published adapter: what is known of a run in, the text of README.md out.

Owns what the card says, and that nothing a run holds can act in it: words stand in Markdown with their marks as
character references, values stand in code as Python literals, and the head is written by the Hub's own library.  Opens
no file and contacts nobody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.spec import HEAD, HEAD_TAIL, TEXT
from jobs.submission import Submission
from launcher.untrusted import clean

HUB_ID = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*\Z", re.ASCII)
REPRODUCED_HERE = "reproduced here"
NONE = "n/a"
LORA_KEYS = (
    "lora_r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "modules_to_save", "learning_rate",
    "num_train_epochs", "train_batch_size", "max_length", "head_start", "seed",
)  # fmt: skip
# What means something inside of a line of Markdown or HTML.  Nothing is put at the beginning of a line.
_MARKS = re.compile(r"[!#$&*:<>@\[\\\]^`|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?i:(?<=www))\.")


@dataclass(frozen=True)
class Classifier:
    """What classifier.json says that it takes to use the adapter, checked; `empty_text_logits` may be unknown.

    `threshold` is of the second of two labels' probability.
    """

    labels: tuple[str, ...]
    max_length: int
    padding_side: str
    pad_token_id: int
    prompt_template: str
    empty_text_logits: tuple[float, ...] | None
    long_texts: str = HEAD
    temperature: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Known:
    """All that a card is made of.  `training` and, unless `evaluated_here`, `metrics` are a host's word, unchecked.

    `base_revision` is empty where the base is no model of the Hub; `base_weights` are sha256 by file name.
    """

    repository: str
    submission: Submission
    classifier: Classifier
    training: Mapping[str, Any]
    metrics: Mapping[str, Any]
    evaluated_here: bool
    base_revision: str
    base_weights: Mapping[str, str]
    verdict: Mapping[str, Any]

    @property
    def base(self) -> str:
        return self.submission.spec.model_name_or_path

    @property
    def base_is_on_the_hub(self) -> bool:
        return bool(self.base_revision)


def card(known: Known) -> str:
    """The text of README.md."""
    parts = (_introduction(known), _metrics(known), _usage(known), _training(known), _data(known), _base(known),
             _verification(known))  # fmt: skip
    return f"---\n{_head(known)}\n---\n\n" + "\n\n".join(parts) + "\n"


def words(value: object, limit: int = 300) -> str:
    """`value` as text on one line of Markdown, at most `limit` characters of it: nothing in it is a mark."""
    line = " ".join(clean(str(value)).encode("utf-8", "replace").decode().split())  # half a surrogate has no bytes
    shown = line if len(line) <= limit else line[: limit - 1] + "…"
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", shown)


def _head(known: Known) -> str:
    """The YAML that the Hub reads, figures included."""
    from huggingface_hub import EvalResult, ModelCardData

    of_lora = next((figures for key, _, figures in _models(known.metrics) if key == "lora"), {})
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type="custom",
            dataset_name="the run's own test split",
            dataset_split="test",
            metric_type=kind,
            metric_value=of_lora[kind],
        )
        for kind in ("accuracy", "f1")
        if _is_number(of_lora.get(kind))
    ]
    return ModelCardData(
        library_name="peft",
        pipeline_tag="text-classification",
        base_model=known.base if known.base_is_on_the_hub else None,
        tags=["lora"],
        model_name=known.repository.split("/")[1] if results else None,
        eval_results=results or None,
    ).to_yaml()


def _introduction(known: Known) -> str:
    labels = known.classifier.labels
    return (
        f"# {words(known.repository.split('/')[1])}\n\n"
        f"A LoRA adapter that makes a classifier of texts out of {words(_base_name(known))}, with {len(labels)} "
        f"labels: {', '.join(words(label, 80) for label in labels)}. Run {words(known.submission.run_id)}; "
        f"{_level(known)}."
    )


def _level(known: Known) -> str:
    if known.verdict["level"] == REPRODUCED_HERE:
        return "verified: whoever published it loaded these files and got the logits of the trained model again"
    return (
        "verified: a fresh process on the training host loaded these files and got the logits of the trained model "
        "again; whoever published it has that host's word for it, and checked the files without running them"
    )


def _metrics(known: Known) -> str:
    models = _models(known.metrics)
    if not models:
        return "## Metrics\n\nIt was not evaluated."
    against = {str(one.get("against")): one for one in _mappings(known.metrics.get("comparisons"))}
    rows = [
        (
            words(title),
            _figure(figures.get("accuracy"), "{:.1%}"),
            _interval(_accuracy_interval(figures), "{:.1%}"),
            *(_figure(figures.get(name), "{:.3f}") for name in ("f1", "auc_roc", "mcc")),
            _figure(_ece(figures), "{:.3f}"),
            _difference(against[key]) if key in against else "",
        )
        for key, title, figures in models
    ]
    header = ("model", "accuracy", "95 % interval", "F1", "AUC-ROC", "MCC", "ECE",
              "the adapter's accuracy against it (95 % interval)")  # fmt: skip
    if not known.evaluated_here:
        whose = "as the training host tells them; nobody worked them out again"
    elif known.metrics.get("source") == "inferred here":
        whose = "worked out with these files by whoever published them"
    else:
        whose = "worked out by whoever published this, from the logits that the training host sent"
    positive = known.metrics.get("positive_label")
    averaged = "macro averages" if positive is None else f"of the label {words(positive, 80)}"
    count, in_all = (_figure(known.metrics.get(key), "{:,}") for key in ("rows", "rows_in_all"))
    some = f"{count} of {in_all}" if in_all not in (count, NONE) else count
    said = f"On {some} rows of the test split, {whose}; F1 and AUC-ROC are {averaged}."
    of_lora = next((figures for key, _, figures in models if key == "lora"), {})
    said = " ".join([said, *_scaled(known.metrics, of_lora), *_decided(known.metrics)])
    return f"## Metrics\n\n{said}\n\n{_table(header, rows)}"


def _accuracy_interval(figures: Mapping[str, Any]) -> object:
    """Of metrics.json's schema 2, else of its schema 1."""
    return _mapping(figures.get("intervals")).get("accuracy", figures.get("accuracy_interval"))


def _ece(figures: Mapping[str, Any]) -> object:
    """After the temperature where there is one; of schema 2, else of schema 1."""
    blocks = [_mapping(figures.get(block)) for block in ("scaled", "raw")]
    return next((block["ece"] for block in blocks if "ece" in block), figures.get("ece"))


def _scaled(metrics: Mapping[str, Any], of_lora: Mapping[str, Any]) -> Iterable[str]:
    fitted = _mapping(metrics.get("temperature"))
    if _is_number(fitted.get("value")):
        raw = _figure(_mapping(of_lora.get("raw")).get("ece"), "{:.3f}")
        yield (
            f"ECE is that of probabilities after the temperature, {_figure(fitted['value'], '{:.3f}')} for the adapter "
            f"(without it {raw}), which was fitted on the validation split."
        )


def _decided(metrics: Mapping[str, Any]) -> Iterable[str]:
    """What the threshold does, where one was asked for."""
    decision = _mapping(metrics.get("decision"))
    if _is_number(decision.get("threshold")):
        test = _mapping(decision.get("test"))
        figures = ", ".join(f"{name} {_figure(test.get(name), '{:.3f}')}" for name in ("precision", "recall", "f1"))
        failed = "" if decision.get("reached") is True else ", which validation did not reach"
        yield (
            f"The figures are those of the likeliest label; with the threshold "
            f"{_figure(decision['threshold'], '{:.3f}')}, chosen on the validation split for "
            f"{words(decision.get('goal'), 40)}{failed}: {figures}."
        )


def _difference(comparison: Mapping[str, Any]) -> str:
    points = _figure(comparison.get("accuracy_difference"), "{:+.1%}")
    return f"{points} ({_interval(comparison.get('difference_interval'), '{:+.1%}')})"


def _usage(known: Known) -> str:
    code = _code(known)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", code))])
    needs = "With nothing but `transformers` and `peft`; while this repository is private, after `hf auth login`."
    if not known.base_is_on_the_hub:
        needs += " The base is no model of the Hub: write its folder into `BASE`."
    return f"## Use it\n\n{needs}\n\n{fence}python\n{code}\n{fence}"


def _code(known: Known) -> str:
    """A program that loads base and adapter and answers texts as they were answered when this was verified."""
    one = known.classifier
    revision = chosen = ""
    if known.base_is_on_the_hub:
        revision, chosen = f"\nREVISION = {known.base_revision!r}", ", revision=REVISION"
    labels = "".join(f"    {label!r},\n" for label in one.labels)
    before, after = one.prompt_template.split(TEXT)
    is_cut = one.long_texts == HEAD
    cut = _LONG.format(rows=_HEAD_AND_TAIL if one.long_texts == HEAD_TAIL else _WINDOWS)
    answer = _BATCH if is_cut else _EACH
    decided = one.threshold is not None and len(one.labels) == 2
    return f"""{"" if one.empty_text_logits is None else "import unicodedata" + chr(10) * 2}import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BASE = {_base_in_code(known)!r}{revision}
ADAPTER = {known.repository!r}
LABELS = [
{labels}]
BEFORE, AFTER = {before!r}, {after!r}  # what stood around each text
MAX_LENGTH = {one.max_length}
TEMPERATURE = {one.temperature or 1.0!r}  # what logits are divided by before they become probabilities
{f"THRESHOLD = {one.threshold!r}  # of the last label's probability{chr(10)}" if decided else ""}{_empty_code(one)}
tokenizer = AutoTokenizer.from_pretrained(
    ADAPTER, padding_side={one.padding_side!r}, truncation_side="right", trust_remote_code=False
)
model = AutoModelForSequenceClassification.from_pretrained(
    BASE{chosen},
    dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
    num_labels=len(LABELS), id2label=dict(enumerate(LABELS)), label2id={{label: i for i, label in enumerate(LABELS)}},
)
model.config.get_text_config().pad_token_id = {one.pad_token_id}
model = PeftModel.from_pretrained(model, ADAPTER).eval()


{(_CUT if after else _WHOLE) if is_cut else cut}

{(_LOGITS if one.empty_text_logits is None else _LOGITS_BUT_OF_EMPTY) + answer}

{_DECIDE if decided else _CLASSIFY}

print(classify(["Put a text of your own here."]))"""


def _empty_code(one: Classifier) -> str:
    if one.empty_text_logits is None:
        return ""
    return f"EMPTY = [{', '.join(map(repr, one.empty_text_logits))}]  # the answer to a text with nothing in it\n"


_WHOLE = """def prompt(text):
    return BEFORE + text
"""
# As `jobs.tokens` cuts: the tokenizer's own cut would take the end of the prompt away, not that of the text.
_CUT = '''def prompt(text):
    """The text in its prompt; what is too long loses the end of the text."""
    while True:
        row = tokenizer(BEFORE + text + AFTER, return_offsets_mapping=True, verbose=False)
        over = len(row["input_ids"]) - MAX_LENGTH
        if over <= 0 or not text:
            return BEFORE + text + AFTER
        end = len(BEFORE) + len(text)
        firsts = [first for first, last in row["offset_mapping"] if last > len(BEFORE) and first < end]
        kept = 0 if over >= len(firsts) else max(0, firsts[-over] - len(BEFORE))
        text = text[: min(kept, len(text) - 1)]
'''
# As `jobs.tokens` has it.
_LONG = '''def rows(text):
    """Rows of token ids, of at most MAX_LENGTH each, for the text in its prompt."""
    text = text[:262144]
    whole = tokenizer(BEFORE + text + AFTER, return_offsets_mapping=True, verbose=False)
    ids, places = whole["input_ids"], enumerate(whole["offset_mapping"])
    if len(ids) <= MAX_LENGTH:
        return [ids or [tokenizer.eos_token_id or tokenizer.pad_token_id]]
    inside = [at for at, (first, last) in places if len(BEFORE) <= first < last <= len(BEFORE) + len(text)]
    before, of_text, after = ids[: inside[0]], ids[inside[0] : inside[-1] + 1], ids[inside[-1] + 1 :]
    room, over = MAX_LENGTH - len(before) - len(after), len(ids) - MAX_LENGTH
{rows}
'''
_HEAD_AND_TAIL = """    first = (room + 1) // 2
    return [before + of_text[:first] + of_text[first + over :] + after]"""
_WINDOWS = """    count = min(64, -(-over // max(1, room - -(-room // 4))) + 1)
    starts = [int(over * n / (count - 1)) for n in range(count)]
    return [before + of_text[at : at + room] + after for at in starts]"""
_LOGITS = '''@torch.inference_mode()
def logits(texts):
    """(texts, labels)"""
    found = torch.zeros(len(texts), len(LABELS))
    asked = list(range(len(texts)))
'''
# As `jobs.empty_text` has it.
_LOGITS_BUT_OF_EMPTY = '''def is_empty(text):
    blank = "\\u115f\\u1160\\u2800\\u3164\\uffa0\\ufe0e\\ufe0f"
    return all(c.isspace() or c in blank or unicodedata.category(c) in ("Cc", "Cf") for c in text)


@torch.inference_mode()
def logits(texts):
    """(texts, labels)"""
    found = torch.tensor([EMPTY] * len(texts))
    asked = [row for row, text in enumerate(texts) if not is_empty(text)]
'''
_BATCH = """    if asked:
        prompts = [prompt(texts[row]) for row in asked]
        batch = tokenizer(prompts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        found[asked] = model(**batch).logits
    return found
"""
_EACH = """    for row in asked:
        batch = tokenizer.pad({"input_ids": rows(texts[row])}, return_tensors="pt")
        found[row] = model(**batch).logits.mean(0)
    return found
"""
_CLASSIFY = '''def classify(texts):
    """The likeliest label of each text, and its probability."""
    shares = (logits(texts).double() / TEMPERATURE).softmax(-1)
    return [(LABELS[int(share.argmax())], float(share.max())) for share in shares]
'''
_DECIDE = '''def classify(texts):
    """The likeliest label of each text, its probability, and the label that the threshold decides for."""
    shares = (logits(texts).double() / TEMPERATURE).softmax(-1)
    decided = [LABELS[int(share[1] >= THRESHOLD)] for share in shares]
    return [(LABELS[int(share.argmax())], float(share.max()), label) for share, label in zip(shares, decided)]
'''


def _training(known: Known) -> str:
    told, spec = known.training, known.submission.spec.to_json()
    counts = _mapping(told.get("rows"))
    facts = [
        ("rows", ", ".join(f"{words(name, 40)} {_figure(count, '{:,}')}" for name, count in counts.items())),
        ("optimizer steps", _figure(told.get("steps"), "{:,}")),
        ("trainable parameters", _figure(told.get("trainable_parameters"), "{:,}")),
        ("device", f"{words(told.get('device', 'n/a'), 80)}, base in {words(told.get('dtype', 'n/a'), 40)}"),
        ("seconds", _figure(_mapping(told.get("seconds")).get("total"), "{:,.0f}")),
        *((key, _plain(spec[key])) for key in LORA_KEYS),
        ("prompt", words(repr(known.classifier.prompt_template))),
        ("read of long texts", words(str(spec["long_texts"]).replace("_", " and "))),
        *((words(name, 40), words(version, 40)) for name, version in _mapping(told.get("libraries")).items()),
    ]
    rows = [(words(name), value) for name, value in facts]
    return (
        "## Training\n\nWhat was asked for, and steps, times, device and versions as the training host tells them.\n\n"
        + _table(("", ""), rows)
    )


def _data(known: Known) -> str:
    rows = [(words(name), f"`{entry.sha256}`") for name, entry in known.submission.inputs.items()]
    how = known.submission.origin.split.get("how", "given")
    return (
        f"## Data\n\nThe splits ({words(how, 80)}), each as one file of JSON lines with a text and a label, by their "
        "hashes on the machine that they came from. The data themselves are not here.\n\n"
        + _table(("split", "sha256"), rows)
    )


def _base(known: Known) -> str:
    whose = (
        "as hashed on the machine that it was sent from"
        if known.submission.base_is_pushed
        else "as the training host tells them"
    )
    where = (
        f"The model {words(_base_name(known))} of the Hub, revision {words(known.base_revision)}"
        if known.base_is_on_the_hub
        else f"A folder called {words(_base_name(known))}, which is no model of the Hub"
    )
    rows = [(words(name), f"`{words(digest, 64)}`") for name, digest in known.base_weights.items()]
    listed = f"\n\nIts weights, {whose}:\n\n{_table(('file', 'sha256'), rows)}" if rows else ""
    return f"## Base\n\n{where}.{listed}"


def _verification(known: Known) -> str:
    rows = [
        (words(one["id"]), words(str(one["status"]).replace("_", " ")), words(one["detail"], 500))
        for one in known.verdict["checks"]
    ]
    level = words(known.verdict["level"])
    return f"## Verification\n\nLevel: {level}. The whole verdict is in `verification.json`.\n\n" + _table(
        ("check", "status", "found"), rows
    )


def _base_name(known: Known) -> str:
    """The base's id on the Hub, else the last part of its folder's path: the rest means nothing elsewhere."""
    return known.base if known.base_is_on_the_hub else re.split(r"[/\\]", known.base.rstrip("/\\"))[-1] or "base"


def _base_in_code(known: Known) -> str:
    return known.base if known.base_is_on_the_hub else f"path/to/{_base_name(known)}"


def _models(metrics: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """(key, title, figures) of each model that was evaluated."""
    return [
        (str(one.get("key")), str(one.get("title")), _mapping(one.get("metrics")))
        for one in _mappings(metrics.get("models"))
    ]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: object) -> str:
    """A value of the spec."""
    if isinstance(value, list | tuple):
        return words(", ".join(map(str, value)) or "none")
    return words(value)


def _figure(value: object, form: str) -> str:
    if not _is_number(value):
        return NONE
    return form.format(value)


def _interval(value: object, form: str) -> str:
    match value:
        case [low, high]:
            return f"{_figure(low, form)} to {_figure(high, form)}"
    return NONE


def _is_number(value: object) -> bool:
    """Whether it is a number that a metric, a count or a time can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
