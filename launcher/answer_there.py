"""Has a host answer the texts of an evaluation with a run's adapter: `launch evaluate --rerun --on HOST`.

What is sent are the adapter and the texts, without their labels; what comes back are logits, which are looked at like
everything else that a host says.  The host does it as a run of its own, which is gone afterwards.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs import answering, manifest
from jobs.provenance import code_sha256
from jobs.run_directory import PROTOCOL, RunDirectory, new_run_id
from jobs.submission import Submission
from launcher import run_secrets, submit
from launcher.app import App
from launcher.bring_home import bring_home
from launcher.errors import LaunchError, RunFailed
from launcher.home_jobs import HomeRun
from launcher.ledger import Record
from launcher.progress import Note, Observer
from launcher.untrusted import clean
from launcher.watch import watch
from remote import runs, store
from remote.agent import Agent
from remote.errors import RemoteError

ANSWERING = (("running", "answer"),)


@dataclass(frozen=True)
class Plan:
    """What a host is sent, by its place in the run's folder, and the run that answers `texts` texts there."""

    submission: Submission
    files: tuple[tuple[str, store.LocalFile], ...]
    texts: int

    def in_words(self, host: str) -> str:
        """For a person who is asked whether to go on."""
        size = sum(file.size_bytes for path, file in self.files if not path.startswith("code/"))
        base = "" if self.submission.base_is_pushed else (
            f"; {host} fetches {clean(self.submission.spec.model_name_or_path)} unless it has it"
        )  # fmt: skip
        return (
            f"{self.texts:,} texts, without labels, and the adapter go to {host}: at most {size / 1e6:,.1f} MB{base}; "
            "an environment is made there if it has none"
        )


@contextlib.contextmanager
def planned(home: HomeRun, texts: Sequence[str]) -> Iterator[Plan]:
    """What it takes to have `texts` answered elsewhere.  Raises LaunchError where a base is gone that was a folder."""
    base_folder = home.base
    if home.submission.base_is_pushed and base_folder is None:
        raise LaunchError(
            f"{home.run.run_id}: its base was a folder of this machine, which is gone or changed",
            hint=f"launch evaluate {home.run.run_id} --base FOLDER",
        )
    with TemporaryDirectory(prefix="launch-") as folder:
        given = Path(folder) / answering.TEXTS
        given.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        adapter = home.run.adapter
        sent = [(f"inputs/{answering.TEXTS}", given)]
        sent += [
            (f"inputs/{answering.ADAPTER}/{entry.path}", adapter / entry.path) for entry in manifest.list_files(adapter)
        ]
        code = [(path, submit.local_file(source)) for path, source in submit.code_files()]
        inputs = [(path, submit.local_file(source)) for path, source in sent]
        base = [
            (entry.path, store.LocalFile(base_folder / Path(entry.path).name, entry.sha256, entry.size_bytes))
            for entry in home.submission.base_files
            if base_folder is not None
        ]
        submission = replace(
            home.submission,
            run_id=new_run_id(f"evaluate-{home.submission.spec.name}"),
            inputs={path: manifest.Entry(path, file.size_bytes, file.sha256) for path, file in inputs},
            code_sha256=code_sha256(file.sha256 for _, file in code),
            protocol=PROTOCOL,
        )
        yield Plan(submission, (*code, *inputs, *base), len(texts))


@contextlib.contextmanager
def answers(app: App, plan: Plan, host: str, observer: Observer) -> Iterator[Path]:
    """The file of a host's answers (see `jobs.answering`), there inside the block; nothing of it stays on the host.

    Raises RunFailed where it could not answer; its run stays there then, to be looked at.
    """
    agent = app.agent(host)
    spec = plan.submission.spec
    secrets = run_secrets.collect(spec.secrets, app.questions)
    submit.push(plan.files, agent, host, observer)
    record = Record(plan.submission.run_id, f"evaluate-{spec.name}", host, time.time(), plan.submission, {})
    app.ledger.add(record)
    with submit.starting(record, lambda: app.ledger.forget(record.run_id)):
        runs.submit(
            agent,
            submit.of_submission(plan.submission, agent, ANSWERING, wheels=False),
            links=submit.links(plan.files),
            documents={RunDirectory(Path()).spec.name: plan.submission.to_json()},
            secrets=secrets,
        )
    try:
        state = watch(record, agent, app.ledger, observer)
    except KeyboardInterrupt:
        observer(Note(f"stopping {record.run_id} on {host}: nobody would take its answers"))
        runs.stop(agent, record.run_id)
        _forget(app, agent, record, observer)
        raise
    if state.state != "succeeded":
        raise RunFailed(
            f"{record.run_id} on {host} {state.state}: {clean(state.reason)}", hint=f"launch logs {record.run_id}"
        )
    with TemporaryDirectory(prefix="launch-") as folder:
        pulled = bring_home(record, agent, app.ledger, Path(folder), observer, include=(answering.ANSWERS,))
        yield RunDirectory(pulled.folder).artifacts / answering.ANSWERS
    _forget(app, agent, record, observer)


def _forget(app: App, agent: Agent, record: Record, observer: Observer) -> None:
    try:
        runs.remove(agent, record.run_id, pulled=True, force=True)
        app.ledger.forget(record.run_id)
    except RemoteError as error:
        observer(Note(f"{record.run_id} stays on {record.host} ({error.message}): launch rm {record.run_id}"))
