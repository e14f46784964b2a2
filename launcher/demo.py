"""The whole way, once, on this machine: reviews, base, a host behind SSH, training, pull, verification, evaluation."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.spec import load
from launcher import home_jobs, submit, verdict
from launcher.app import App
from launcher.bring_home import bring_home
from launcher.errors import LaunchError, RunFailed
from launcher.host_book import SavedHost
from launcher.ledger import Record
from launcher.output import Output
from launcher.progress import Note
from launcher.watch import watch
from remote import runs
from remote.local_host import LocalHost

HOST = "demo"
PREPARE_TIMEOUT_S = 900


def demo(app: App, output: Output, target: Path, host: str | None, *, seed: int | None = None) -> dict[str, Any]:
    """Metrics and paths, as `evaluate` gives them, and the seconds of each stage.

    On `host`, else on an SSH server that lives in this process and goes with it.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "prepare"):
        spec_file = _prepared(output)
    with _host(app, host, output) as name:
        with _timed(seconds, "train on the host"):
            record = _trained(app, output, spec_file, name, seed)
        with _timed(seconds, "pull"):
            pulled = bring_home(record, app.agent(name), app.ledger, target, output.observe)
    output.observe(Note(pulled.in_words().splitlines()[0]))
    home = home_jobs.find(record.run_id, app.ledger)
    with _timed(seconds, "verify here"):
        verified = home_jobs.verify(home, app.settings.local_workspace, output.observe_notes)
        verdict.check(record.run_id, verified)
    output.observe(Note(f"verified: {len(verified['checks'])} checks, {verified['level']}"))
    with _timed(seconds, "evaluate here"):
        evaluated = home_jobs.evaluate(home, app.settings, output.observe)
    evaluated["notes"].append("seconds: " + ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items()))
    return {**evaluated, "run_id": record.run_id, "folder": str(pulled.folder), "seconds": seconds}


def _prepared(output: Output) -> Path:
    """The spec of the reviews, with its data and its base in place."""
    examples = Path(__file__).resolve().parent.parent / "examples"
    spec_file = examples / "reviews" / "spec.yaml"
    if not spec_file.is_file():
        raise LaunchError("the demo needs the repository's examples folder", hint="run it from a clone: make demo")
    data = examples / "reviews" / "data"
    if not (data / "test.csv").is_file():
        _run_example([str(examples / "reviews" / "prepare.py"), str(data)])
    base = examples / "tiny_qwen" / "base"
    if not (base / "config.json").is_file():
        output.observe(Note("pre-training the small base, which takes a few minutes, once"))
        _run_example([str(examples / "tiny_qwen" / "pretrain.py"), "--data", str(data), "--out", str(base)])
    return spec_file


def _run_example(argv: list[str]) -> None:
    LocalHost().run([sys.executable, *argv], timeout_s=PREPARE_TIMEOUT_S).check()


@contextmanager
def _host(app: App, host: str | None, output: Output) -> Iterator[str]:
    """The name of a host to train on: the one asked for, or one that is there only inside the block."""
    if host is not None:
        yield host
        return
    if os.name == "nt":
        raise LaunchError(
            "the demo's own host needs a POSIX system", hint="launch demo --host NAME, or run it inside WSL"
        )
    from remote.embedded import EmbeddedHost

    # Its image is the Python that runs this: an environment with everything, so that none has to be built.
    with EmbeddedHost(app.settings.demo / "host", path_prefix=[str(Path(sys.executable).parent)]) as embedded:
        output.observe(Note(f"a host of our own listens on port {embedded.port} (real SSH, this machine only)"))
        before = next((saved for saved in app.hosts.all() if saved.name == HOST), None)
        app.hosts.add(SavedHost(HOST, embedded.login_line, known_hosts=str(embedded.known_hosts_file)))
        try:
            yield HOST
        finally:
            app.close()
            if before is None:
                app.hosts.remove(HOST)
            else:  # a person's own host may be called that
                app.hosts.add(before)


def _trained(app: App, output: Output, spec_file: Path, host: str, seed: int | None) -> Record:
    spec = load(spec_file, {} if seed is None else {"seed": seed})
    plan = submit.plan(spec, spec_file.parent, app.settings.cache)
    record, _ = submit.submit(plan, app.agent(host), host, app.ledger, output.observe)
    try:
        state = watch(record, app.agent(host), app.ledger, output.observe)
    except KeyboardInterrupt:
        if host == HOST:  # nobody could reach it any more once its host is gone
            runs.stop(app.agent(host), record.run_id)
            app.ledger.note_state(record.run_id, "stopped", "the demo was interrupted")
        raise
    if state.state != "succeeded":
        raise RunFailed(f"{record.run_id} {state.state}: {state.reason}", hint="the log above says why")
    return record


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = round(time.monotonic() - started, 1)
