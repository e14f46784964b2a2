"""Publishing: a verified adapter, its model card and the verdict on it, as one commit of a repository of the Hub.

Owns the gate that nothing unverified passes, and which files of a run may leave this machine: those that make the
adapter, byte for byte as they were verified.  Probes, predictions and everything else that holds texts stay here.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import adapter, checks, manifest
from jobs.errors import AdapterRejected
from jobs.provenance import COMMIT
from jobs.spec import TEXT
from launcher import home_jobs, model_card, verdict
from launcher.errors import LaunchError, VerificationFailed
from launcher.home_jobs import HomeRun
from launcher.hub_repository import HubRepository, Standing
from launcher.model_card import Classifier, Known
from launcher.progress import Observer
from launcher.untrusted import clean

CARD, VERDICT = "README.md", "verification.json"
REQUIRED = (adapter.WEIGHTS, adapter.CONFIG, adapter.CLASSIFIER)
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model",
)  # fmt: skip
NAMES_CODE = {"tokenizer_config.json": ("auto_map",), adapter.CONFIG: ("auto_mapping", "megatron_config")}
"""By file the keys by which transformers or PEFT would import what they name."""
HARMLESS = (".gitattributes", "LICENSE*", "NOTICE*", "*.md", "*.png", "*.jpg", "*.svg", "*/*")
"""What else may lie in a repository without taking part when an adapter is loaded from it."""


@dataclass(frozen=True)
class Publication:
    """What would go up, all of it in memory: what is sent is what was verified, whatever happens to the folder."""

    run_id: str
    folder: Path
    repository: str
    level: str
    files: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def card(self) -> str:
        return self.files[CARD].decode()

    def listed(self) -> str:
        """The files, a line each."""
        return "\n".join(f"  {len(content):>13,}  {name}" for name, content in self.files.items())

    def in_words(self) -> str:
        """For a person who only looks."""
        return f"{clean(self.card)}\n{self.run_id} to {self.repository}, nothing was sent:\n{self.listed()}"

    def plan(self, standing: Standing | None, *, public: bool) -> str:
        """What would go where, and who would see it."""
        if standing is None:
            where = f"{self.repository}, which is made for it, {_seen(public)}"
        else:
            where = f"{self.repository}, which exists, {_seen(standing.is_public)}"
            where += ", and stays so: its settings page makes it public" * (public and not standing.is_public)
        return f"{self.size_bytes:,} bytes of {self.run_id} ({self.level}) to {where}\n{self.listed()}"

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "repository": self.repository,
            "level": self.level,
            "files": [{"path": name, "size_bytes": len(content)} for name, content in self.files.items()],
        }


@dataclass(frozen=True)
class Published:
    """A publication that is there."""

    publication: Publication
    url: str
    commit_url: str
    is_public: bool

    def in_words(self) -> str:
        how = f"{_seen(self.is_public)}, {self.publication.level}"
        return clean(f"{self.publication.run_id} is published ({how})\n{self.url}")

    def to_json(self) -> dict[str, Any]:
        return self.publication.to_json() | {
            "url": self.url,
            "commit_url": clean(self.commit_url),
            "public": self.is_public,
        }


def _seen(public: bool) -> str:
    return "for everybody to see" if public else "private"


def gather(home: HomeRun, repository: str, workspace: Path, observer: Observer) -> Publication:
    """Verify the run here and now, and read what would go up.

    Raises VerificationFailed unless the verdict is ok and rests on reproduced logits, or where a file is no longer the
    one that was verified; AdapterRejected where what is said beside the weights can't be used.
    """
    run = home.run
    found = home_jobs.verify(home, workspace, observer)
    verdict.check(run.run_id, found)
    if found["level"] == checks.STATIC:
        raise VerificationFailed(
            f"{run.run_id}: nobody reproduced its logits, and what was only looked at is not published",
            hint=f"launch verify {run.run_id} --base FOLDER",
        )
    files = _verified_files(home)
    classifier = _classifier(run.adapter)
    _require_own_base(home)
    training, metrics, evaluated_here = _told(run.training), _told(run.home_metrics), True
    if not metrics:
        metrics, evaluated_here = _told(run.metrics), False
    found = found | {"checks": [one | {"detail": _without_paths(one["detail"], home)} for one in found["checks"]]}
    known = Known(
        repository=repository,
        submission=home.submission,
        classifier=classifier,
        training=training,
        metrics=metrics,
        evaluated_here=evaluated_here,
        base_revision=_hub_revision(home),
        base_weights=_base_weights(home, training),
        verdict=found,
    )
    ours = {
        CARD: model_card.card(known).encode(),
        VERDICT: (json.dumps(found, indent=1) + "\n").encode(),
    }
    return Publication(home.submission.run_id, run.root, repository, found["level"], ours | files)


def require_fit(publication: Publication, standing: Standing | None, *, public: bool) -> None:
    """Raise LaunchError where the repository that is there must not get this."""
    name = publication.repository
    if standing is None:
        return
    if standing.is_public and not public:
        raise LaunchError(
            f"{name} is public: everybody would see this", hint="say so with --public, or name another REPO"
        )
    strays = [
        file
        for file in standing.files
        if file not in publication.files and not any(fnmatch.fnmatch(file, pattern) for pattern in HARMLESS)
    ]
    if strays:
        # A tokenizer, a configuration or weights of something else would be loaded in between.
        raise LaunchError(
            f"{name} holds files of something else: {', '.join(strays[:5])}",
            hint=f"name another REPO, or take them away: hf repos delete-files {name} {shlex.quote(strays[0])}",
        )


def send(publication: Publication, hub: HubRepository, standing: Standing | None, *, public: bool) -> Published:
    """Make the repository where there is none, and put everything there in one commit.

    `standing` is how it stood when somebody agreed.  Raises LaunchError, which says what is there after a failure.
    """
    before = standing
    try:
        if standing is None:
            hub.make(public=public)
            before = hub.look()  # a Hub may have rules of its own about who sees what
        if before is None:
            raise LaunchError(f"{hub.url} is not there right after it was made", hint="look at its page")
        require_fit(publication, before, public=public)
        message = f"{publication.run_id}, {publication.level}"
        commit_url = hub.commit(publication.files, message, before.head)
    except LaunchError as error:
        left = _left_behind(hub, before, made=standing is None)
        again = f"launch publish {shlex.quote(str(publication.folder))} {publication.repository}" + " --public" * public
        raise LaunchError(
            f"{error.message}\n{left}", hint=f"{error.hint}; then {again}" if error.hint else again, code=error.code
        ) from error
    return Published(publication, hub.url, commit_url, before.is_public)


def _left_behind(hub: HubRepository, before: Standing | None, *, made: bool) -> str:
    """What a failed publication left on the Hub, as far as the Hub tells."""
    try:
        now = hub.look()
    except LaunchError:
        return f"whether anything changed in {hub.name} can't be told now"
    if now is None:
        return f"there is no {hub.name} that this token sees"
    if before is not None and now.head != before.head:
        return f"{hub.name} has changed meanwhile: the commit may have come through, look at {hub.url}"
    if made:
        return f"{hub.name} was made, and nothing was put into it (hf repos delete {hub.name} takes it away)"
    return f"nothing changed in {hub.name}"


def _verified_files(home: HomeRun) -> dict[str, bytes]:
    """The adapter's files by name, each proven by the manifest that the verification went by.

    In memory: a path could be another file when the library opens it.
    """
    entries = manifest.read(home.run.manifest)
    prefix = f"{home.run.adapter.name}/"
    wanted = {entry.path.removeprefix(prefix): entry for entry in entries if entry.path.startswith(prefix)}
    if missing := [name for name in REQUIRED if name not in wanted]:
        raise VerificationFailed(f"{home.run.run_id}: no {missing[0]}", hint=f"launch pull {home.run.run_id}")
    files = {name: (home.run.adapter / name).read_bytes() for name in (*REQUIRED, *TOKENIZER) if name in wanted}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != wanted[name].sha256:
            raise VerificationFailed(
                f"{home.run.run_id}: {name} changed after it was verified", hint=f"launch verify {home.run.run_id}"
            )
        told = adapter.read_json(home.run.adapter / name) if name in NAMES_CODE else {}
        if any(told.get(key) for key in NAMES_CODE.get(name, ())):
            raise AdapterRejected(f"{home.run.run_id}: {name} names code to be run", hint="train again")
    return files


def _classifier(folder: Path) -> Classifier:
    """What classifier.json says, as far as a program can be made of it.  Raises AdapterRejected."""
    document = adapter.read_json(folder / adapter.CLASSIFIER)
    template = document.get("prompt_template", TEXT)
    match document:
        case {
            "id2label": dict(id2label),
            "max_length": int(max_length),
            "padding_side": ("left" | "right") as side,
            "pad_token_id": int(pad_token_id),
        } if 0 < max_length < 10**6 and 0 <= pad_token_id < 10**9 and adapter.is_template(template):
            labels = [id2label.get(str(index)) for index in range(len(id2label))]
            if len(labels) > 1 and all(isinstance(label, str) for label in labels):
                empty = adapter.empty_text_logits(folder, len(labels))
                return Classifier(
                    tuple(map(str, labels)), max_length, side, pad_token_id, template, tuple(empty) if empty else None,
                    adapter.long_texts(folder), adapter.temperature(folder), adapter.threshold(folder),
                )  # fmt: skip
    raise AdapterRejected(f"{folder / adapter.CLASSIFIER}: not what a training leaves", hint="launch pull again")


def _require_own_base(home: HomeRun) -> None:
    """Raise AdapterRejected where the configuration sends whoever loads it to another base than the one asked for."""
    document, spec = adapter.read_json(home.run.adapter / adapter.CONFIG), home.submission.spec
    named, own = [document.get("base_model_name_or_path")], [adapter.portable_name(spec.model_name_or_path)]
    if COMMIT.match(spec.model_revision):
        named, own = [*named, document.get("revision")], [*own, spec.model_revision]
    if named != own:
        raise AdapterRejected(
            f"{home.run.run_id}: {adapter.CONFIG} names the base {named!r:.200}, and it was trained on {own!r:.200}",
            hint="do not use it; train again",
        )


def _hub_revision(home: HomeRun) -> str:
    """The commit of a base that is a model of the Hub, else the revision that was asked for; empty for a folder."""
    spec = home.submission.spec
    if not model_card.HUB_ID.match(spec.model_name_or_path):
        return ""
    if home.submission.base_is_pushed:
        # `--push-model` sends a snapshot of this machine's cache; what else was pushed is a folder.
        source = Path(home.sources.get("base", ""))
        is_cached = source.parent.parent.name == "models--" + spec.model_name_or_path.replace("/", "--")
        return source.name if is_cached else ""
    told = adapter.read_json(home.run.adapter / adapter.CONFIG).get("revision")
    return told if isinstance(told, str) and COMMIT.match(told) else spec.model_revision


def _base_weights(home: HomeRun, training: Mapping[str, Any]) -> dict[str, str]:
    """sha256 of the base's files of weights: our own hashes of a base that was pushed, else what the host tells."""
    if home.submission.base_is_pushed:
        pairs = [(Path(entry.path).name, entry.sha256) for entry in home.submission.base_files]
        return {name: digest for name, digest in pairs if name.endswith(".safetensors")}
    base = training.get("base")
    told = base.get("weights_sha256") if isinstance(base, dict) else None
    return {str(name): str(digest) for name, digest in told.items()} if isinstance(told, dict) else {}


def _told(path: Path) -> Mapping[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        return adapter.read_json(path)
    except AdapterRejected:
        return {}


def _without_paths(detail: str, home: HomeRun) -> str:
    """What a check found, without this machine's folders."""
    for folder in (home.run.root, home.base, Path.home()):
        if folder is not None and len(folder.parts) > 1:
            detail = detail.replace(str(folder), folder.name)
    return detail
