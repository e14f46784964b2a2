"""Submits a run: check here, plan, push, start."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from jobs import data_finding, manifest
from jobs.data_finding import Finding
from jobs.provenance import code_sha256
from jobs.run_directory import RunDirectory, new_run_id
from jobs.spec import AUTO, Spec
from jobs.submission import Submission
from launcher import dataset, recipe, wheelhouse
from launcher.errors import LaunchError
from launcher.hub_model import HubModel
from launcher.ledger import Ledger, Record
from launcher.progress import Note, Observer
from launcher.sync import Moved, going_on
from launcher.untrusted import clean
from remote import runs, store
from remote.agent import Agent
from remote.errors import BadReply, RemoteError, TimedOut, Unreachable

TRAINING = (("running", "train"), ("verifying", "finish"))
"""What a training does, each a state and a verb."""
# What a Hugging Face folder needs to be loaded; anything else in it stays at home.
BASE_SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class Plan:
    """A run that could be submitted: what it is, and every file that goes with it."""

    submission: Submission
    files: tuple[tuple[str, store.LocalFile], ...]
    sources: dict[str, str]
    rows: dict[str, int]
    how_split: str = ""
    findings: tuple[Finding, ...] = ()
    train_tokens: float = 0.0

    def with_wheels(self, files: tuple[tuple[str, store.LocalFile], ...]) -> Plan:
        """The same, and packages for a host that reaches no index."""
        return replace(self, files=self.files + files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for _, file in self.files)

    def is_unfit(self, *, force: bool = False) -> bool:
        """Whether what was found in the data would stop the run, even with `force`."""
        return bool(data_finding.stopping(self.findings, force=force))

    def to_json(self) -> dict[str, Any]:
        """The plan for `--dry-run`."""
        return {
            "run_id": self.submission.run_id,
            "spec": self.submission.spec.to_json(),
            "rows": self.rows,
            "split": self.submission.origin.split,
            "data_findings": [asdict(finding) for finding in self.findings],
            "base": "pushed from this machine" if self.submission.base_is_pushed else "fetched on the host",
            "files": [
                {"path": path, "size_bytes": file.size_bytes, "sha256": file.sha256} for path, file in self.files
            ],
            "size_bytes": self.size_bytes,
        }


def in_words(plan: Plan, host_name: str) -> str:
    """The plan for a person."""
    rows = ", ".join(f"{name} {count} rows" for name, count in plan.rows.items())
    spec = plan.submission.spec
    base = "pushed from this machine" if plan.submission.base_is_pushed else f"fetched on {host_name}"
    steps = (
        f"{spec.num_train_epochs:g} epochs, {spec.train_batch_size} rows a step, learning rate {spec.learning_rate:g}"
    )
    return (
        f"would train {spec.name} on {host_name}\n"
        f"  data  {rows}; {plan.how_split}\n"
        f"  base  {spec.model_name_or_path}, {base}\n"
        f"  LoRA  rank {spec.lora_r}, {steps}\n"
        f"  push  at most {len(plan.files)} files, {plan.size_bytes / 1e6:.1f} MB"
    )


def plan(spec: Spec, folder: Path, cache: Path, *, only_prepare: bool = False, push_model: bool = False) -> Plan:
    """Check and hash what the spec names; `folder` is what its paths are relative to.

    The data are left in `cache` in the form that is sent.  With `push_model` a model of the Hub is taken from this
    machine's cache, and sent along.

    Raises DataError for data that can't be read; what else is wrong with them is in the plan's findings.
    """
    from launcher import checked_data  # brings numpy along, which other users of this module do not need

    base = base_folder(spec, folder)
    checked = checked_data.look(spec, folder, base)
    data = checked.dataset
    base = base or (_cached(spec) if push_model else None)
    files = [(f"inputs/{name}.jsonl", path) for name, path in dataset.write(data.tables, cache).items()]
    files += [(f"inputs/base/{path.name}", path) for path in _base_files(base)]
    files += list(code_files())
    hashed = tuple((path, local_file(source)) for path, source in files)
    entries = {path: manifest.Entry(path, file.size_bytes, file.sha256) for path, file in hashed}
    submission = Submission(
        run_id=new_run_id(f"prepare-{spec.name}" if only_prepare else spec.name),
        spec=replace(spec, data=data.spec_data),
        inputs={name: entries[f"inputs/{name}.jsonl"] for name in data.tables},
        base_files=tuple(entry for path, entry in entries.items() if path.startswith("inputs/base/")),
        code_sha256=code_sha256(entry.sha256 for path, entry in entries.items() if path.startswith("code/")),
        origin=data.origin,
    )
    sources = data.sources | ({"base": str(base.resolve())} if base else {})
    rows = {name: len(table) for name, table in data.tables.items()}
    lengths = checked.report.lengths
    tokens = lengths.mean_read * rows["train"] if lengths else 0.0
    return Plan(submission, hashed, sources, rows, data.in_words(), checked.report.findings, tokens)


def submit(
    plan: Plan,
    agent: Agent,
    host_name: str,
    ledger: Ledger,
    observer: Observer,
    *,
    terms: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> tuple[Record, runs.Started]:
    """Push what the host lacks and start the run there; from here on it needs nobody.

    `terms` are the keys of the supervisor's plan that limit the run and say what happens after it.
    """
    observer(Note(f"data: {', '.join(f'{name} {count}' for name, count in plan.rows.items())} rows; {plan.how_split}"))
    push(plan.files, agent, host_name, observer)
    submission = plan.submission
    record = Record(
        run_id=submission.run_id,
        name=submission.spec.name,
        host=host_name,
        submitted_at=time.time(),
        submission=submission,
        sources=plan.sources,
    )
    # Remembered first: if the connection breaks now, the run may have started, and must not be forgotten.
    ledger.add(record)
    with starting(record, partial(ledger.forget, record.run_id)):
        started = start(plan, agent, TRAINING, terms=terms, secrets=secrets)
    observer(Note(f"run {submission.run_id} started on {host_name} in {where(started)}"))
    return record, started


@contextmanager
def starting(record: Record, forget: Callable[[], None]) -> Iterator[None]:
    """Around the start of a run that is remembered: it is forgotten where its host refused it, and only there."""
    doubt = f"{record.run_id} may have started on {record.host}"
    try:
        yield
    except (Unreachable, TimedOut, BadReply) as error:
        error.message, error.hint = f"{error.message}; {doubt}", "launch ps shows whether it did"
        raise
    except RemoteError:
        forget()
        raise
    except KeyboardInterrupt:
        raise LaunchError(f"interrupted: {doubt}", hint="launch ps shows whether it did", code="interrupted") from None


def told(record: Record, started: runs.Started) -> dict[str, Any]:
    """A run that was started, for `--json`."""
    return {
        "run_id": record.run_id,
        "host": record.host,
        "session": started.session,
        "how": started.how,
        "why": started.why,
        "root": started.root,
    }


def where(started: runs.Started) -> str:
    """What a run is started in, for a person."""
    place = f"tmux session {started.session}" if started.how == "tmux" else "a detached process"
    return clean(f"{place} ({started.why})" if started.why else place)


def push(named: Sequence[tuple[str, store.LocalFile]], agent: Agent, host_name: str, observer: Observer) -> None:
    """Send what the host lacks of the files that go with a run."""
    files = [file for _, file in named]
    size_bytes = sum(file.size_bytes for file in files)
    observer(Note(f"pushing to {host_name}: {len(files)} files, {size_bytes / 1e6:.1f} MB"))
    moved = Moved(observer)
    sent: store.Sent = going_on(lambda: store.push(agent, files, observer=moved), moved, observer)
    observer(Note(f"sent {sent.files} files, {sent.size_bytes / 1e6:.1f} MB; {sent.already_there} were there already"))


def start(
    plan: Plan,
    agent: Agent,
    jobs: Sequence[tuple[str, str]],
    *,
    terms: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> runs.Started:
    """Start what was pushed: the environment first, the base model, then `jobs`, each a state and a verb."""
    return runs.submit(
        agent,
        of_submission(plan.submission, agent, jobs, wheels=_has_wheels(plan.files)) | dict(terms or {}),
        links=links(plan.files),
        documents={RunDirectory(Path()).spec.name: plan.submission.to_json()},
        secrets=secrets,
    )


def links(files: Sequence[tuple[str, store.LocalFile]]) -> list[dict[str, str]]:
    """Where in the run's folder what was pushed belongs."""
    return [{"path": path, "sha256": file.sha256} for path, file in files]


def _has_wheels(files: Sequence[tuple[str, store.LocalFile]]) -> bool:
    return any(path.startswith(f"{wheelhouse.FOLDER}/") for path, _ in files)


def supervision(
    run_id: str,
    name: str,
    agent: Agent,
    jobs: Sequence[tuple[str, str]],
    *,
    wheels: bool = False,
    trackers: Sequence[str] = (),
) -> dict[str, Any]:
    """The supervisor's plan: file names, phases and environment, as plain data.

    With `wheels` the environment is made of those that were sent along, and no package index is asked.
    """
    layout, workspace = RunDirectory(Path()), agent.workspace
    root = f"{workspace}/runs/{run_id}"
    trains = any(state == "running" for state, _ in jobs)
    return {
        "run_id": run_id,
        "name": name,
        # A run leaves its own word when it trained; of a preparation there is nothing to tell but that it went well.
        "only_prepares": not trains,
        "files": {key: getattr(layout, key).name for key in ("log", "events", "heartbeat", "result")},
        # On this machine the Python that runs us is worth a look before one is built.
        "environment": recipe_for(agent, trackers) | ({"wheels": f"{root}/{wheelhouse.FOLDER}"} if wheels else {}),
        "env": {
            "PYTHONPATH": f"{root}/{layout.code.name}",
            "PYTHONNOUSERSITE": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONIOENCODING": "utf-8",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        },
        "phases": [
            {
                "state": "preparing",
                "argv": ["{onhost_python}", "-I", "{onhost}", "prepare", workspace, run_id],
            },
            *({"state": state, "argv": ["{python}", "-P", "-m", "jobs", verb, "."]} for state, verb in jobs),
        ],
    }


def of_submission(
    submission: Submission, agent: Agent, jobs: Sequence[tuple[str, str]], *, wheels: bool
) -> dict[str, Any]:
    """The supervisor's plan for what was submitted: its environment, its base model, then `jobs`."""
    spec = submission.spec
    plan = supervision(
        submission.run_id,
        spec.name,
        agent,
        (("preparing", "fetch"), *jobs),
        wheels=wheels,
        trackers=spec.report_to,
    )
    if plan["only_prepares"]:
        return plan
    # A training has a turn on the GPUs; `auto` takes those that are free then.
    return plan | {"gpus": 0 if spec.gpus == AUTO else spec.gpus, "secrets": sorted(spec.secrets)}


def recipe_for(agent: Agent, trackers: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe of the environment there; on this machine the Python that runs us is worth a look."""
    return recipe.recipe(candidates=[sys.executable] if agent.host.is_local else [], trackers=trackers)


def base_folder(spec: Spec, folder: Path) -> Path | None:
    """The base model's folder on this machine, None for a Hub id."""
    path = dataset.below(folder, spec.model_name_or_path)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LaunchError(f"{path} is not a model: it has no config.json", hint="save_pretrained writes one")
        return path
    looks_local = spec.model_name_or_path.startswith((".", "/", "~", "\\")) or spec.model_name_or_path.count("/") > 1
    if looks_local:
        raise LaunchError(
            f"{path}: no such model folder", hint="model_name_or_path is a folder or a Hub id (owner/name)"
        )
    return None


def _cached(spec: Spec) -> Path:
    """The model's folder in the cache of this machine.  Raises LaunchError where it is not whole there."""
    found = HubModel(spec.model_name_or_path, (spec.model_revision,)).cached()
    if found is None:
        raise LaunchError(
            f"{spec.model_name_or_path} ({spec.model_revision}) is not whole in this machine's cache",
            hint=f"hf download {spec.model_name_or_path} --revision {spec.model_revision}; "
            "or name a folder: --model-name-or-path FOLDER",
        )
    return found


def _base_files(base: Path | None) -> list[Path]:
    if base is None:
        return []
    found = sorted(path for path in base.iterdir() if path.is_file() and path.suffix in BASE_SUFFIXES)
    if not any(path.suffix == ".safetensors" for path in found):
        raise LaunchError(f"{base} has no .safetensors weights; others are never loaded (they can hold code)")
    return found


def code_files() -> Iterator[tuple[str, Path]]:
    """The `jobs` package as it stands here, by its place in a run, so that the host runs exactly this version."""
    with resources.as_file(resources.files("jobs")) as package:
        for path in sorted(package.glob("*.py")):
            yield f"code/jobs/{path.name}", path


def local_file(path: Path) -> store.LocalFile:
    """A file and what is in it now."""
    # Always hashed anew: these are the files the whole run rests on.
    return store.LocalFile(path, manifest.sha256_of(path), path.stat().st_size)
