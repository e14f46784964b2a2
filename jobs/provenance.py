"""What a run was really made of: spec, data, code and base as they lay on the host when training began.

Owns what is told of them in training.json, and the comparison with what was submitted: on the host before the first
step, at home with the laptop's own memory.  Says nothing of what was made of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jobs import base_model, submission
from jobs.errors import BrokenRun
from jobs.manifest import sha256_of
from jobs.run_directory import RunDirectory
from jobs.submission import Submission

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
PACKAGE = Path(__file__).parent


def of_run(run: RunDirectory, asked: Submission, base_folder: Path) -> dict[str, Any]:
    """The submission as it is read here, and sha256 of each input, of the code that runs this and of the base's files.

    A gigabyte takes about a second.  Raises BrokenRun where one of the files is gone.
    """
    pushed = [Path(entry.path).name for entry in asked.base_files]
    try:
        return {
            "submission": asked.to_json(),
            "data": {name: sha256_of(run.root / entry.path) for name, entry in asked.inputs.items()},
            "code": code_sha256(sha256_of(path) for path in PACKAGE.glob("*.py")),
            "base": {
                "revision": base_model.revision(run, asked),
                "files": {name: sha256_of(base_folder / name) for name in pushed}
                | base_model.weight_files(base_folder),
            },
        }
    except OSError as error:
        raise BrokenRun(f"{error.filename}: {error.strerror}", hint="launch train: it is sent again then") from error


def code_sha256(files: Iterable[str]) -> str:
    """One sha256 for a package, from those of its modules in any order."""
    return hashlib.sha256("".join(sorted(files)).encode()).hexdigest()


def problems(asked: Submission, told: Any, *, pinned: Mapping[str, str] | None = None) -> list[str]:
    """What differs from the submission: of spec, data, code and base, each in words; `told` may come from anywhere.

    `pinned` is sha256 of a Hub base's weights by file, where that is known.
    """
    if not isinstance(told, Mapping):
        return ["the record of what was trained on what can't be read"]
    found = _of_spec(asked, told.get("submission"))
    found += _differing("data", {name: entry.sha256 for name, entry in asked.inputs.items()}, told.get("data"))
    if told.get("code") != asked.code_sha256:
        found.append("code: other than what was sent")
    base: Any = told.get("base")
    base = base if isinstance(base, Mapping) else {}
    files = {Path(entry.path).name: entry.sha256 for entry in asked.base_files} or pinned
    if files:
        found += _differing("base", files, base.get("files"))
    elif COMMIT.match(asked.spec.model_revision) and base.get("revision") != asked.spec.model_revision:
        found.append(f"base: commit {ascii(base.get('revision'))[:60]}, asked for was {asked.spec.model_revision}")
    return found


def knows_base(asked: Submission) -> bool:
    """Whether the submission says which bytes, or which commit, the base has."""
    return asked.base_is_pushed or COMMIT.match(asked.spec.model_revision) is not None


def _of_spec(asked: Submission, told: Any) -> list[str]:
    """Compared as read by this version, not by its hash: a newer launch has keys that the host's did not know."""
    try:
        there = submission.parse(told, origin="training.json")
        if there == asked:
            return []
        mine, theirs = asked.to_json(), there.to_json()
    except (BrokenRun, RecursionError) as error:
        return [f"spec: {ascii(str(error))[:200]}"]
    pairs = [("", mine, theirs), ("spec.", mine["spec"], theirs["spec"])]
    keys = [f"{at}{key}" for at, one, other in pairs for key in one if key != "spec" and one[key] != other.get(key)]
    return [f"spec: other {', '.join(keys)}"]


def _differing(what: str, wanted: Mapping[str, str], told: Any) -> list[str]:
    there = told if isinstance(told, Mapping) else {}
    changed = sorted(name for name in wanted if there.get(name) != wanted[name])
    added = [ascii(name)[:60] for name in there if name not in wanted]
    found = [f"{what}: {', '.join(changed[:5])} not as submitted"] if changed else []
    return found + ([f"{what}: {', '.join(sorted(added)[:5])} was not submitted"] if added else [])
