"""The data of a spec, read on this machine and brought into the one form that is sent.

Owns what the spec's `data` can be (files, folders, a dataset of the Hub), which splits are cut out of which part, and
the cache of what is sent.  Columns other than text and label never leave this machine.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jobs import atomic, hash_split, manifest, table
from jobs.errors import DataError
from jobs.spec import FILES, SPLITS, DataFiles, Spec
from jobs.submission import Origin, Submission
from jobs.table import Table
from launcher.errors import LaunchError
from launcher.hub_dataset import SPLIT_NAMES

FOLDER = "data"
"""In the application's cache: files of the form that is sent, each named by its sha256."""
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+\Z", re.ASCII)
_BEGINNING = re.compile(r"[a-z]+(?=\Z|[-_.])")
RELATIVE = "paths in a spec are relative to the spec's folder"


@dataclass(frozen=True)
class Dataset:
    """Train, validation and test, and where they came from.

    `spec_data` is the spec's `data` with all of it decided; `sources` are paths of this machine by the part of it;
    `encodings` are by the name of the file, `unused` splits of a dataset that nothing is done with.
    """

    tables: dict[str, Table]
    origin: Origin
    spec_data: DataFiles
    sources: dict[str, str] = field(default_factory=dict)
    encodings: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    def in_words(self) -> str:
        """How it was split, for a person."""
        rule = self.origin.split
        if rule["how"] == "given":
            return "splits as given"
        cut = " and ".join(f"{name} {share:.0%}" for name, share in rule["shares"].items())
        return f"{cut} cut out of {rule['of']} by a stratified hash of the texts"


def read(spec: Spec, folder: Path) -> Dataset:
    """The data that the spec names; `folder` is what its paths are relative to.  Raises DataError and LaunchError."""
    asked = spec.data
    if asked.file and not below(folder, asked.file).exists() and _may_be_on_the_hub(asked.file):
        asked = DataFiles(dataset=asked.file)
    if asked.dataset:
        return _of_hub(spec, asked, was_path=bool(spec.data.file))
    paths = {name: below(folder, path) for name, path in asked.named().items()}
    for path in paths.values():
        if not path.exists():
            raise DataError(f"{path}: no such file", hint=RELATIVE)
    files = {name: table.files_of(path) for name, path in paths.items()}
    if "file" in files and paths["file"].is_dir():
        files = _by_their_names(paths["file"], files["file"])
    tables: dict[str, Table] = {}
    encodings: dict[str, str] = {}
    for name, of_part in files.items():
        read_files = [table.read(file, spec.text_column, spec.label_column) for file in of_part]
        encodings |= {
            file.name if paths.get(name) == file else f"{file.parent.name}/{file.name}": one.encoding
            for file, one in zip(of_part, read_files, strict=True)
        }
        tables[name] = table.joined(read_files)
    hashes = {name: tuple(map(_entry, of_part)) for name, of_part in files.items()}
    tables, rule = _with_all_splits(tables)
    sources = {name: str(path.resolve()) for name, path in paths.items()}
    return Dataset(tables, Origin(rule, hashes), asked, sources, encodings)


def below(folder: Path, path: str) -> Path:
    """A path of the spec: relative to the spec's folder, absolute, or below a home (`~`)."""
    try:
        return folder / Path(path).expanduser()
    except RuntimeError as error:
        raise LaunchError(f"{path}: {error}", hint=RELATIVE) from error


def write(tables: Mapping[str, Table], cache: Path) -> dict[str, Path]:
    """Each table as a file of the form that is sent, in the cache; the same rows give the same file."""
    return {name: _written(rows, cache / FOLDER) for name, rows in tables.items()}


def test_file(submission: Submission, sources: Mapping[str, str], cache: Path) -> Path | None:
    """The test split that was submitted: as it was sent, else made again from this machine's own files behind it.

    None where neither is to be had, or a row of them is not what it was.
    """
    if submission.protocol == 1:
        return _first_protocol_test_file(submission, sources, cache)
    return sent_file(submission, "test", sources, cache)


def sent_file(submission: Submission, name: str, sources: Mapping[str, str], cache: Path) -> Path | None:
    """The same for the input of that name, in the form in which it was sent."""
    entry = submission.inputs[name]
    if submission.protocol == 1:
        return unchanged(sources.get(name), entry)
    if sent := unchanged(str(_place(cache / FOLDER, entry.sha256)), entry):
        return sent
    spec = submission.spec
    named = {name: path for name, path in sources.items() if name in FILES}
    try:
        if name in named and (name != "train" or named.keys() >= set(SPLITS)):
            rows = table.read(Path(named[name]), spec.text_column, spec.label_column)
        elif named:
            rows = read(replace(spec, data=DataFiles(**named)), Path()).tables[name]
        else:
            return None
    except (DataError, KeyError):
        return None
    return unchanged(str(_written(rows, cache / FOLDER)), entry)


def one_file(path: Path, spec: Spec, cache: Path) -> Path:
    """A file or folder of another test set, in the form that is sent.  Raises DataError."""
    return _written(table.read(path, spec.text_column, spec.label_column), cache / FOLDER)


def unchanged(path: str | None, entry: manifest.Entry | None) -> Path | None:
    """The file, if every byte of it is as it was."""
    if path is None or entry is None:
        return None
    file = Path(path)
    if not file.is_file() or file.stat().st_size != entry.size_bytes or manifest.sha256_of(file) != entry.sha256:
        return None
    return file


def _first_protocol_test_file(submission: Submission, sources: Mapping[str, str], cache: Path) -> Path | None:
    """With protocol 1 a person's own CSV files were sent, and one file was split by another rule."""
    from jobs import data

    part = "file" if "file" in submission.inputs else "test"
    path = unchanged(sources.get(part), submission.inputs.get(part))
    if path is None:
        return None
    rows = table.read(path, submission.spec.text_column, submission.spec.label_column)
    return _written(data.split_by_first_rule(rows)["test"] if part == "file" else rows, cache / FOLDER)


def _may_be_on_the_hub(name: str) -> bool:
    return HUB_NAME.match(name) is not None and Path(name).suffix.lower() not in table.SUFFIXES


def _of_hub(spec: Spec, asked: DataFiles, *, was_path: bool) -> Dataset:
    from launcher import hub_dataset

    try:
        found = hub_dataset.load(
            asked.dataset, asked.config, asked.revision, spec.text_column, spec.label_column
        )  # fmt: skip
    except DataError as error:
        if was_path:
            raise DataError(
                f"{asked.dataset}: no such file or folder here, and {error.message}", hint=error.hint
            ) from error
        raise
    tables, rule = _with_all_splits(found.tables)
    return Dataset(tables, Origin(rule, commit=found.commit), asked, unused=found.ignored)


def _with_all_splits(tables: dict[str, Table]) -> tuple[dict[str, Table], dict[str, Any]]:
    """All three, the missing ones cut out of the part that holds train; and the rule."""
    missing = [name for name in SPLITS[1:] if name not in tables]
    if not missing:
        return {name: tables[name] for name in SPLITS}, {"how": "given"}
    of = "file" if "file" in tables else "train"
    shares = dict.fromkeys(missing, hash_split.SHARE)
    parts = {**tables, **hash_split.split(tables[of], shares)}
    return {name: parts[name] for name in SPLITS}, {"how": hash_split.HOW, "of": of, "shares": shares}


def _by_their_names(folder: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Files of one folder by split, where their names say so (train.csv, test-00000.parquet); else all as one part."""
    parts: dict[str, list[Path]] = {}
    for file in files:
        beginning = _BEGINNING.match(file.name.lower())
        parts.setdefault(SPLIT_NAMES.get(beginning[0] if beginning else "", "file"), []).append(file)
    if "file" in parts and len(parts) > 1:
        raise DataError(
            f"{folder}: {', '.join(file.name for name in parts if name != 'file' for file in parts[name])} look like "
            f"splits, {table.listed([file.name for file in parts['file']], 5)} do not",
            hint="name the files: data: {train: FILE, validation: FILE, test: FILE}",
        )
    if "file" not in parts and "train" not in parts:
        parts = {"file": files}
    return parts


def _written(rows: Table, folder: Path) -> Path:
    digest = hashlib.sha256()
    fresh = folder / f"{secrets.token_hex(8)}.new"
    with atomic.new_file(fresh) as file:
        for line in table.lines(rows):
            file.write(line)
            digest.update(line)
    return fresh.replace(_place(folder, digest.hexdigest()))


def _place(folder: Path, sha256: str) -> Path:
    return folder / f"{sha256}.jsonl"


def _entry(path: Path) -> manifest.Entry:
    return manifest.Entry(path.name, path.stat().st_size, manifest.sha256_of(path))
