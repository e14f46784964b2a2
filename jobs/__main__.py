"""`python -m jobs VERB RUN_DIRECTORY`: what the supervisor starts on the host, and the command line at home.

Prints for people.  For programs, `--reply FILE` gets {"ok": true, "data"} or {"ok": false, "error"}.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from jobs import atomic, cores, manifest, submission
from jobs.checks import FAILED_VERIFICATION
from jobs.errors import JobError
from jobs.events import EventLog
from jobs.pace import Pace
from jobs.run_directory import PROTOCOL, RunDirectory
from jobs.secret_values import masked
from jobs.stopping import EXIT_STATUS, Stopped


def fetch(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """Have the base model on this machine, whole, and pin it in the run; needs no torch and little memory."""
    from jobs import base_model

    base_model.fetch(run, submission.load(run.spec))
    return {}


def train(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """Train, save, and store probes of the trained model."""
    from jobs import ranks, training

    count = 1 if ranks.is_one_of_several() else ranks.wanted(submission.load(run.spec).spec.gpus)
    if count == 1:
        training.train(run.root)
    elif status := ranks.start(count, run.root):
        raise JobError(f"training on {count} GPUs ended with status {status}: the lines above say why")
    return {}


def finish(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """In a fresh process: verify what lies on disk, evaluate exactly that, list the artifacts, write the result."""
    from jobs import base_model, evaluation, held_out, verification

    asked = submission.load(run.spec)
    base = base_model.of_run(run, asked)
    verdict = verification.verify(
        run,
        base_folder=base,
        where="host",
        submission=asked,
        this_process_is_fresh=True,
        held_out=held_out.of_run(run, asked),
    )
    atomic.write_json(run.host_verification, verdict.to_json())
    for check in verdict.checks:
        if check.status == "warn" or (check.required and check.status != "pass"):
            print(f"verify: {check.status} {check.id}: {check.detail}. {check.meaning}", flush=True)
    passed = sum(check.status == "pass" for check in verdict.checks)
    print(
        f"verify: {'ok' if verdict.ok else 'FAILED'}, {passed} of {len(verdict.checks)} checks, {verdict.level}",
        flush=True,
    )
    if not verdict.ok:
        # Vouched for all the same: whoever wants to look at it can have it whole.
        reason = FAILED_VERIFICATION + ", ".join(check.id for check in verdict.unmet)
        _result(run, "failed", reason, manifest_sha256=_write_manifest(run))
        return {"state": "failed"}
    EventLog(run.events).write("state", state="evaluating")
    evaluation.on_host(run, asked, base)
    _result(run, "succeeded", "", manifest_sha256=_write_manifest(run))
    return {"state": "succeeded"}


def answer(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """Answer the texts that were sent along, with the adapter that was sent along."""
    from jobs import answering

    answering.answer(run, submission.load(run.spec))
    _result(run, "succeeded", "", manifest_sha256=_write_manifest(run))
    return {}


def evaluate(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """At home: metrics and report."""
    from jobs import evaluation, run_facts
    from jobs.questions import Asked

    asked = submission.load(run.spec)
    base, rows, suite, answers, keep = (
        Path(one) if one else None for one in (options.base, options.data, options.suite, options.answers, options.keep)
    )
    evaluated = evaluation.at_home(
        run,
        asked,
        Asked(rows, suite, options.limit),
        base=base,
        answers=answers,
        keep=keep,
        progress=Pace(options.progress),
    )
    facts = run_facts.of(run, asked, options.title or "the rows that came with the run", evaluated.notes)
    written = evaluation.write_home(run, Path(options.out or run.root), evaluated, facts, lang=options.lang)
    if keep is not None:
        keep.unlink(missing_ok=True)  # another evaluation is to infer anew
    return {
        "metrics": evaluated.metrics,
        "notes": list(evaluated.notes),
        "report": str(written.report),
        "predictions": str(written.home_predictions),
        "errors": str(written.home_errors),
        "plots": str(written.plots),
    }


def predict(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """At home: what the adapter says of texts without labels."""
    from jobs import answers

    return answers.answer(
        run,
        Path(options.base),
        Path(options.data),
        Path(options.out),
        tokens_per_batch=submission.load(run.spec).spec.tokens_per_batch,
        keep=Path(options.keep),
        progress=Pace(options.progress),
    )


def merge(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """At home: adapter and base as one model, in an empty folder."""
    from jobs import merging

    return vars(merging.merge(run, Path(options.base), Path(options.out), options.dtype))


def compare(run: RunDirectory, options: argparse.Namespace) -> dict[str, Any]:
    """At home: this run and others on the same rows, from the logits that lie here."""
    from jobs import side_by_side

    runs = [run, *(RunDirectory(Path(os.path.abspath(folder))) for folder in options.against)]
    ids = [one.run_id for one in runs]
    names = [one.run_id if ids.count(one.run_id) == 1 else str(one.root) for one in runs]
    contestants = [side_by_side.read(one, name, options.evaluated_on) for one, name in zip(runs, names, strict=True)]
    return side_by_side.compare(contestants, common=options.common)


VERBS = {
    "fetch": fetch, "train": train, "finish": finish, "answer": answer, "evaluate": evaluate, "predict": predict,
    "compare": compare, "merge": merge,
}  # fmt: skip

ON_HOST = ("fetch", "train", "finish", "answer")


def main(argv: list[str] | None = None) -> int:
    """Carry out one verb; 0, or 1 after an error that was printed and replied."""
    parser = argparse.ArgumentParser(prog="python -m jobs", description=__doc__)
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("run", type=lambda text: RunDirectory(Path(os.path.abspath(text))))
    parser.add_argument("--base", help="folder of the base model on this machine")
    parser.add_argument("--data", help="evaluate: JSONL file of texts and labels; predict: of texts")
    parser.add_argument("--suite", help="evaluate: JSONL file of cases instead of the run's robustness suite")
    parser.add_argument("--answers", help="evaluate: file of logits that a host answered with")
    parser.add_argument("--limit", type=int, default=0, help="evaluate: at most so many rows; 0 is all")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="evaluate: of the report")
    parser.add_argument("--title", default="", help="evaluate: what that file is called in the report")
    parser.add_argument("--out", help="evaluate, merge: folder for what is written; predict: file")
    parser.add_argument("--keep", help="evaluate, predict: file for logits, to go on with after a break")
    parser.add_argument("--progress", default="", help="evaluate, predict: what marks lines of figures for a program")
    parser.add_argument("--dtype", default="float32", help="merge: what the weights are saved in")
    parser.add_argument("--against", action="append", default=[], help="compare: another run's folder; may be repeated")
    parser.add_argument("--evaluated-on", default="", help="compare: the name of one of the runs' other evaluations")
    parser.add_argument("--common", action="store_true", help="compare: only the rows that all runs have")
    parser.add_argument("--reply", type=Path, help="file for the outcome as JSON")
    options = parser.parse_args(argv)
    # Read when torch is loaded.  Where other work shares the cores, OpenMP's threads would spin for each other,
    # and a step of 0.1 s becomes one of 3 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores.set_threads(os.environ)
    try:
        outcome: dict[str, Any] = {"ok": True, "data": VERBS[options.verb](options.run, options)}
    except Stopped as error:
        # Who asked writes the result, with the reason.
        print(error.message, flush=True)
        return EXIT_STATUS
    except JobError as error:
        if not options.reply:  # who asked shows it
            print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), flush=True)
        outcome = {"ok": False, "error": {"code": error.code, "message": error.message, "hint": error.hint}}
        if options.verb in ON_HOST:
            # In words, for whoever asks later; the supervisor only knows an exit status.
            _result(options.run, "failed", error.message, code=error.code)
    except OSError as error:
        if options.verb in ON_HOST:
            raise  # the log is all that is left there, and should have all of it
        named = error.filename2 or error.filename
        message = f"{options.verb}: {named}: {error.strerror}" if named else f"{options.verb}: {error}"
        if not options.reply:
            print(f"error: {message}", flush=True)
        hint = "make room on the disk, or let that file be written; then the same command again"
        outcome = {"ok": False, "error": {"code": JobError.code, "message": message, "hint": hint}}
    if options.reply:
        atomic.write_json(options.reply, outcome)
    failed = not outcome["ok"] or outcome["data"].get("state") == "failed"
    return 1 if failed else 0


def _write_manifest(run: RunDirectory) -> str:
    """Make every artifact durable, list them, and give the sha256 of the list."""
    for path in run.artifacts.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    atomic.write_text(run.manifest, manifest.dump(manifest.list_files(run.artifacts)))
    return manifest.sha256_of(run.manifest)


def _result(run: RunDirectory, state: str, reason: str, **fields: Any) -> None:
    """The last file of a run.  Written once: a second call finds it and keeps out."""
    if not run.result.exists():
        result = {"protocol": PROTOCOL, "run_id": run.run_id, "state": state, "reason": masked(reason)}
        atomic.write_json(run.result, {**result, **fields, "finished_at": round(time.time(), 3)})


if __name__ == "__main__":
    sys.exit(main())
