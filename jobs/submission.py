"""spec.json: what was asked, frozen at submit, with the hashes of everything that was sent along."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jobs import manifest
from jobs.errors import BrokenRun, SpecError
from jobs.run_directory import PROTOCOL, RUN_ID
from jobs.spec import Spec, from_mapping


@dataclass(frozen=True)
class Origin:
    """Where the inputs came from, before they were brought into one form on the laptop.

    `split` is the rule: {"how": "given"}, or how the missing splits were cut out of which part.  `files` are the files
    as the person has them, by the part of the data they were named for; `commit` is that of a Hub dataset.
    """

    split: dict[str, Any] = field(default_factory=lambda: {"how": "given"})
    files: dict[str, tuple[manifest.Entry, ...]] = field(default_factory=dict)
    commit: str = ""


@dataclass(frozen=True)
class Submission:
    """One run as it was submitted.

    `inputs` maps a split name (with protocol 1 also `file`) to its file; `base_files` are the files of a base
    model sent from a folder, empty for a Hub id.  All paths are relative to the run directory.
    """

    run_id: str
    spec: Spec
    inputs: dict[str, manifest.Entry]
    base_files: tuple[manifest.Entry, ...]
    code_sha256: str
    protocol: int = PROTOCOL
    origin: Origin = field(default_factory=Origin)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"spec": self.spec.to_json()}

    @property
    def base_is_pushed(self) -> bool:
        """True where the base lies in the run directory's inputs/base instead of being fetched from a Hub."""
        return bool(self.base_files)


def load(path: Path) -> Submission:
    """The submission in a run directory.  Raises BrokenRun, also when a newer `launch` wrote it."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BrokenRun(f"{path}: not a readable spec.json ({type(error).__name__})") from error
    return parse(document, origin=str(path))


def parse(document: Any, *, origin: str) -> Submission:
    """As `load`, from the parsed JSON."""
    try:
        protocol = int(document["protocol"])
        if protocol > PROTOCOL:
            raise BrokenRun(
                f"{origin}: written by a newer launch (protocol {protocol}, this one knows {PROTOCOL})",
                hint="pip install --upgrade lora-launch",
            )
        run_id = document["run_id"]
        if not isinstance(run_id, str) or not RUN_ID.match(run_id):
            raise BrokenRun(f"{origin}: not a run id: {run_id!r}")
        return Submission(
            run_id=run_id,
            spec=from_mapping(document["spec"], origin=origin),
            inputs={str(name): _entry(value) for name, value in document["inputs"].items()},
            base_files=tuple(_entry(value) for value in document["base_files"]),
            code_sha256=str(document["code_sha256"]),
            protocol=protocol,
            origin=_origin(document.get("origin")),
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise BrokenRun(f"{origin}: not a submission ({type(error).__name__}: {error})") from error
    except SpecError as error:
        raise BrokenRun(error.message, hint=error.hint) from error


def _origin(value: Any) -> Origin:
    if value is None:  # protocol 1
        return Origin()
    # A person's own names; nothing is ever opened by them.
    files = {
        str(name): tuple(
            manifest.Entry(str(one["path"]), int(one["size_bytes"]), str(one["sha256"])) for one in entries
        )
        for name, entries in value["files"].items()
    }
    return Origin(dict(value["split"]), files, str(value["commit"]))


def _entry(value: Any) -> manifest.Entry:
    entry = manifest.Entry(value["path"], int(value["size_bytes"]), str(value["sha256"]))
    manifest.check_relative(entry.path)
    return entry
