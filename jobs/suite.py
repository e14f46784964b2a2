"""A suite of robustness tests: cases, and the JSONL file they travel in.

Owns what a case is and what may stand in a file of them, which can come from anybody; knows no model and no score.
CheckList: Ribeiro et al. 2020, arXiv:2005.04118.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs import atomic
from jobs.errors import DataError
from jobs.label import label_of

POSITIVE, NEGATIVE = "positive", "negative"
MINIMUM, INVARIANCE, DIRECTION, CALM = "minimum functionality", "invariance", "direction", "calm"
TESTS = (MINIMUM, INVARIANCE, DIRECTION, CALM)
BUILT_IN = "chinese-reviews"

LARGEST_BYTES = 64 * 1024 * 1024
MOST_CASES = 200_000
MOST_CATEGORIES = 1000
LONGEST_NAME = 200
"""Characters of an id, a category, a label or a suite's name."""
MOST_PROBLEMS = 5
_KEYS = ("id", "category", "test", "text", "label", "original", "direction")
_HEADER = "suite"
_HINT = (
    'one object a line: {"text": "...", "label": "positive", "category": "..."}, with label null where no confident '
    "answer is right; optional: original, test, direction, id"
)


@dataclass(frozen=True)
class Case:
    """One text and what is expected of the answer to it.

    label: what `text` is; None where nothing is known (invariance, direction) or nothing can be (calm).
    original: the text before it was changed, for invariance and direction; None otherwise.
    direction: where P(positive) has to go from the original's, 1 up and -1 down; 0 for the other tests.  With a label
    the change turned the text around, so that it has to go there; without one it only may not go the other way.
    """

    id: str
    category: str
    test: str
    text: str
    label: str | None = None
    original: str | None = None
    direction: int = 0

    def problem(self) -> str:
        """What is wrong with the case, or ""."""
        changed = self.test in (INVARIANCE, DIRECTION)
        if self.test not in TESTS:
            return f"test must be one of {', '.join(TESTS)}, not {_shown(self.test)}"
        if changed != (self.original is not None):
            return f"{self.test} needs an original" if changed else f"{self.test} has no original"
        if (self.test == DIRECTION) != (self.direction in (1, -1)) or self.direction not in (-1, 0, 1):
            return "direction is 1 or -1 for the test direction, and 0 for the others"
        if self.test == MINIMUM and self.label is None:
            return "minimum functionality needs a label"
        if self.test == CALM and self.label is not None:
            return "calm has no label"
        return next((fault for name, value in self._texts() if (fault := _text_fault(name, value))), "")

    def _texts(self) -> Iterator[tuple[str, str]]:
        yield "text", self.text
        yield "original", self.original or ""
        for name, value in (("id", self.id), ("category", self.category), ("label", self.label)):
            if value is not None:
                yield name, value


@dataclass(frozen=True)
class Suite:
    """Cases under a name.  Raises DataError for a case that is none, and for an id that stands there twice."""

    name: str
    cases: tuple[Case, ...]

    def __post_init__(self) -> None:
        if fault := _text_fault("name", self.name):
            raise DataError(f"suite {_shown(self.name)}: {fault}")
        seen: set[str] = set()
        for case in self.cases:
            if fault := case.problem() or ("an id that stands there twice" if case.id in seen else ""):
                raise DataError(f"suite {self.name}, case {_shown(case.id)}: {fault}")
            seen.add(case.id)

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Where each text stands in `texts`."""
        both = (text for case in self.cases for text in (case.original, case.text) if text is not None)
        return {text: place for place, text in enumerate(dict.fromkeys(both))}

    @property
    def texts(self) -> tuple[str, ...]:
        """What a model has to answer: every text and every original once, in the order of the cases."""
        return tuple(self.index)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the cases as they are written into a file; the suite's name has no part in it."""
        digest = hashlib.sha256()
        for case in self.cases:
            digest.update(_line(asdict(case)))
        return digest.hexdigest()


def by_category(cases: Iterable[Case]) -> dict[tuple[str, str], list[int]]:
    """Numbers of the cases by category and test, both in the order in which they first occur."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, case in enumerate(cases):
        groups.setdefault((case.category, case.test), []).append(number)
    return groups


def built_in() -> Suite:
    """`chinese-reviews`: the same cases in every process.  CPU time well below a second."""
    from jobs import suite_chinese

    return Suite(BUILT_IN, suite_chinese.cases())


def dump(suite: Suite, path: Path) -> None:
    """Write the suite so that `load` gives an equal one: a line with its name and size, then a line a case."""
    with atomic.new_file(path) as file:
        file.write(_line({_HEADER: suite.name, "cases": len(suite.cases)}))
        for case in suite.cases:
            file.write(_line(asdict(case)))


def load(path: Path) -> Suite:
    """The suite in a JSONL file from anywhere, named after the file if it does not say otherwise.

    `text`, `label` and `category` have to be there; a missing `test` follows from the others: calm where the label is
    null, direction where there is a direction, invariance where there is an original, else minimum functionality.
    A missing id is the line's number.  Labels are the model's own or `positive` and `negative`: which ones a model
    knows is not asked here.  Raises DataError with the first few problems and their lines.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: not a file", hint=_HINT)  # opening a pipe would wait for whoever writes into it
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror or error}") from error
    if len(content) > LARGEST_BYTES:
        raise DataError(f"{path}: larger than {LARGEST_BYTES // 2**20} MiB", hint="split it into several suites")
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}: line {line}: not UTF-8", hint="save the file as UTF-8") from error
    return _parsed(lines, path)


def _parsed(lines: list[str], path: Path) -> Suite:
    name, announced = path.stem[:LONGEST_NAME] or "suite", None
    cases: dict[str, Case] = {}
    categories: set[str] = set()
    problems: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = _object(line)
            if _HEADER in fields and "text" not in fields and not cases and not problems:
                name, announced = _header(fields)
                continue
            case = _case(fields, number)
            if case.id in cases:
                raise DataError(f"id {_shown(case.id)} stands there twice")
        except DataError as error:
            problems.append(f"line {number}: {error.message}")
            if len(problems) == MOST_PROBLEMS:
                break
            continue
        cases[case.id] = case
        categories.add(case.category)
        if len(cases) > MOST_CASES or len(categories) > MOST_CATEGORIES:
            limit = f"{MOST_CASES:,} cases, or {MOST_CATEGORIES:,} categories"
            raise DataError(f"{path}: more than {limit}", hint="split it into several suites")
    if problems:
        raise DataError(f"{path}: not a robustness suite\n" + "\n".join(f"  - {one}" for one in problems), hint=_HINT)
    if not cases or announced not in (None, len(cases)):
        says = "no cases" if not cases else f"{len(cases):,} cases, and its first line says {announced:,}: was it cut?"
        raise DataError(f"{path}: {says}", hint=_HINT)
    return Suite(name, tuple(cases.values()))


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        where = f" at character {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"not JSON: {getattr(error, 'msg', str(error))[:100]}{where}") from error
    if not isinstance(value, dict):
        raise DataError("not an object")
    return value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _header(fields: dict[str, Any]) -> tuple[str, int]:
    match fields:
        case {"suite": str(name), "cases": int(count)} if type(count) is int and not _text_fault("name", name):
            return name, count
    raise DataError(f'the first line must be a case, or {{"suite": NAME, "cases": NUMBER}}, not {_shown(fields)}')


def _case(fields: dict[str, Any], line: int) -> Case:
    """The case of a line.  Raises DataError with what is wrong, without the line's number."""
    if unknown := sorted(set(fields) - set(_KEYS)):
        raise DataError(f"unknown key {_shown(unknown[0])}; known are {', '.join(_KEYS)}")
    if missing := [key for key in ("text", "label", "category") if key not in fields]:
        raise DataError(f"no {missing[0]}")
    for key in ("text", "category", "test", "original"):
        if not isinstance(fields.get(key, ""), str) and not (key == "original" and fields[key] is None):
            raise DataError(f"{key} must be a text, not {_shown(fields[key])}")
    label, direction, original = _label(fields["label"]), fields.get("direction", 0), fields.get("original")
    if type(direction) is not int:
        raise DataError(f"direction must be -1, 0 or 1, not {_shown(direction)}")
    name = fields.get("id", line)
    if not isinstance(name, str) and type(name) is not int:
        raise DataError(f"id must be a text, not {_shown(name)}")
    test = fields.get("test") or _test_of(label, original, direction)
    case = Case(str(name), fields["category"], test, fields["text"], label, original, direction)
    if fault := case.problem():
        raise DataError(fault)
    return case


def _test_of(label: str | None, original: str | None, direction: int) -> str:
    if direction:
        return DIRECTION
    if original is not None:
        return INVARIANCE
    return CALM if label is None else MINIMUM


def _label(value: Any) -> str | None:
    """As tables write labels: 1 and 1.0 are "1".  Raises DataError for an empty one and for what is none."""
    if value is None:
        return None
    try:
        name = label_of(value)
    except TypeError as error:
        raise DataError(f"label must be a text, a number or null, not {_shown(value)}") from error
    if not name:
        raise DataError("an empty label; null says that no confident answer is right")
    return name


def _text_fault(name: str, value: str) -> str:
    """What is wrong with a text, or "": a NUL, half a surrogate pair, or a name that is empty or too long."""
    if name not in ("text", "original") and not 0 < len(value) <= LONGEST_NAME:
        return f"{name} must have 1 to {LONGEST_NAME} characters"
    if "\0" in value:
        return f"{name}: a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{name}: half a surrogate pair, which UTF-8 can't hold"
    return ""


def _line(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _shown(value: object) -> str:
    """`value` for a message: control characters escaped, never longer than a line."""
    shown = value if isinstance(value, str) and value.isprintable() else ascii(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
