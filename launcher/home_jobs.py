"""Verifies, evaluates, predicts and merges at home, in processes of their own: a broken torch can't take us down."""

from __future__ import annotations

import codecs
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import own_copy
from jobs.provenance import COMMIT
from jobs.run_directory import RunDirectory
from jobs.submission import Submission
from jobs.submission import load as load_submission
from launcher import dataset, home_python
from launcher.errors import LaunchError, NoSuchRun, VerificationFailed
from launcher.hub_model import HubModel
from launcher.ledger import Ledger, Record
from launcher.marked_output import MarkedOutput
from launcher.progress import Note, Observer
from launcher.settings import Settings
from remote.local_host import LocalHost

if TYPE_CHECKING:
    from jobs.questions import Questions


@dataclass(frozen=True)
class HomeRun:
    """A run that lies on this machine, the base where it is proven by its hash, and this machine's paths behind it.

    Of an `adopted` run what was asked for, the base's hashes included, is its host's word.
    """

    run: RunDirectory
    submission: Submission
    base: Path | None
    sources: Mapping[str, str]
    adopted: bool = False


def find(argument: str | None, ledger: Ledger, *, base: Path | None = None, needs_base: bool = True) -> HomeRun:
    """The run directory that `argument` names: a folder, else a run of the ledger that was pulled.

    The base is `base`, else the folder it was submitted from if not a byte of it changed, else the Hub's local cache;
    it is not looked for, which may take reading all of it, unless it `needs_base`.
    """
    record: Record | None = None
    folder = Path(argument) if argument is not None else None
    if folder is not None and RunDirectory(folder).result.is_file():
        run = RunDirectory(folder.absolute())
        record = ledger.get(run.run_id)
    else:
        try:
            record = ledger.find(argument)
        except NoSuchRun as error:
            if folder is not None and folder.is_dir():
                raise NoSuchRun(
                    f"{folder}: neither a run (result.json) nor an adapter (adapter_config.json) lies there",
                    hint="launch ps -a",
                ) from error
            raise
        if not record.pulled_to or not RunDirectory(Path(record.pulled_to)).result.is_file():
            raise NoSuchRun(f"{record.run_id} is not on this machine", hint=f"launch pull {record.run_id}")
        run = RunDirectory(Path(record.pulled_to))
    # The laptop's own memory comes first: what a host says about the base or the data is not evidence.
    submission = record.submission if record else load_submission(run.spec)
    sources = record.sources if record else {}
    if base is None and needs_base:
        model = _hub_base(submission, run)
        base = _own_base(submission, sources) or (model.cached() if model else None)
    return HomeRun(
        run=run,
        submission=submission,
        base=base,
        sources=sources,
        adopted=record.adopted if record else run.adopted.exists(),
    )


def verify(
    home: HomeRun, workspace: Path, observer: Observer, *, static: bool = False, fetch_base: bool = False
) -> dict[str, Any]:
    """The verdict document, also left in the run directory.

    The static checks run here, within a second; the model is loaded and run in a fresh process, of a Python that
    `workspace` may hold.  With `fetch_base` a base that is not here is fetched from the Hub, for static checks only the
    shapes of it.  Raises LaunchError where the Hub does not have it.
    """
    from jobs import atomic, verification

    python, shapes = sys.executable, None
    if home.base is None and fetch_base:
        if static:
            shapes = required_hub_base(home, "verify").tensors()
        else:
            home = with_base(home, observer, "verify")
    if home.base is None and shapes is None:
        observer(Note("the base model is not on this machine: what it takes the base to check is not checked"))
    elif not static:
        python = home_python.find(workspace, _trained_with(home.run), observer)
    verdict = verification.verify(
        home.run,
        base_folder=home.base,
        base=shapes,
        where="home",
        submission=home.submission,
        static_only=static,
        python=python,
        adopted=home.adopted,
    )
    if any(check.id == "loads" and check.status == "not_checked" for check in verdict.checks):
        home_python.forget(workspace, _trained_with(home.run))  # that Python worked once
    document: dict[str, Any] = verdict.to_json()
    atomic.write_json(home.run.home_verification, document)
    return document


@dataclass(frozen=True)
class Evaluation:
    """How to evaluate a run here.

    data: a file instead of the test split.  suite: a file of cases instead of the robustness suite that the run was
    asked.  limit: at most so many rows; 0: all.  pulled: infer nothing.  rerun: fetch a base that is not here.
    answers: a file of logits that a host answered with.  lang: of the report.  With data or a limit what is written
    goes to a folder in `evaluations`.
    """

    data: Path | None = None
    suite: Path | None = None
    limit: int = 0
    pulled: bool = False
    rerun: bool = False
    answers: Path | None = None
    lang: str = "en"


def with_base(home: HomeRun, observer: Observer, verb: str) -> HomeRun:
    """`home` with a base on this machine, fetched from the Hub where it was not; `verb` is the command that wants it.

    Raises LaunchError where the Hub does not have it.
    """
    if home.base is not None:
        return home
    return replace(home, base=required_hub_base(home, verb).fetch(observer))


def required_hub_base(home: HomeRun, verb: str) -> HubModel:
    """The Hub's model that the run was trained on.  Raises LaunchError where it was a folder of this machine."""
    model = _hub_base(home.submission, home.run)
    if model is None:
        raise LaunchError(
            f"{home.run.run_id}: its base was a folder of this machine, which is gone or changed",
            hint=f"launch {verb} {home.run.run_id} --base FOLDER",
        )
    return model


def evaluate(home: HomeRun, settings: Settings, observer: Observer, asked: Evaluation = Evaluation()) -> dict[str, Any]:
    """Metrics and the paths of what was written.

    Raises VerificationFailed where what lies here is not what a run that succeeded vouches for.
    """
    _require_vouched_for(home, "evaluated")
    if asked.pulled or asked.answers is not None:
        home = replace(home, base=None)
    elif home.base is None and asked.rerun:
        home = with_base(home, observer, "evaluate")
    elif home.base is None:
        observer(Note(
            "the base model is not on this machine: every figure is recomputed from the logits that its host sent "
            f"(launch evaluate {home.run.run_id} --rerun fetches it and infers again)"
        ))  # fmt: skip
    options = ["--lang", asked.lang]
    if asked.limit:
        options += ["--limit", str(asked.limit)]
    if asked.suite is not None:
        options += ["--suite", str(asked.suite.resolve())]
    if asked.answers is not None:
        options += ["--answers", str(asked.answers)]
    if home.base is not None:
        options += ["--base", str(home.base)]
    # Where nothing is inferred only the rows that came back have answers, whatever lies here.
    infers = asked.data is not None or asked.answers is not None or home.base is not None
    file, title = _rows(home, settings, asked) if infers else (None, "")
    if file is not None:
        options += ["--data", str(file), "--title", title]
    out = home.run.root
    if asked.data is not None or asked.limit:  # a part of the rows is not the run's figures
        name = asked.data.resolve().stem if asked.data is not None else "test"
        out = home.run.evaluations / (f"{name}-limit-{asked.limit}" if asked.limit else name)
        options += ["--out", str(out)]
    for folder in (out, RunDirectory(out).plots, RunDirectory(out).inferring):
        _inside(home.run, folder)
    keep = RunDirectory(out).inferring if home.base is not None else None
    try:
        return _job("evaluate", home, settings.local_workspace, options, observer, keep=keep)
    except LaunchError as error:
        if file is None or str(file) not in error.message:
            raise
        # The project's own copy of the rows means nothing to anybody.
        message = error.message.replace(str(file), str(asked.data or title))
        raise LaunchError(message, hint=error.hint, code=error.code) from error


def predict(home: HomeRun, workspace: Path, texts: Path, out: Path, keep: Path, observer: Observer) -> dict[str, Any]:
    """The figures of an answer to all texts of a file, which is at `out` afterwards; both are forms of `jobs.answers`.

    In the file `keep` an interrupted one sees how far it was.  `home` has a base.  Raises VerificationFailed where what
    lies here is not what a run that succeeded vouches for.
    """
    _require_vouched_for(home, "asked")
    options = ["--base", str(home.base), "--data", str(texts), "--out", str(out)]
    return _job("predict", home, workspace, options, observer, keep=keep)


def questions(home: HomeRun, settings: Settings, asked: Evaluation) -> Questions:
    """The texts that an evaluation answers, with all that is known of them.

    Raises VerificationFailed as `evaluate` does, DataError for data or a suite that can't be evaluated.
    """
    from jobs.questions import Asked, of_run

    _require_vouched_for(home, "evaluated")
    rows, _ = _rows(home, settings, asked)
    return of_run(home.run, home.submission.spec.robustness, Asked(rows, asked.suite, asked.limit))


def _rows(home: HomeRun, settings: Settings, asked: Evaluation) -> tuple[Path | None, str]:
    """The rows to evaluate, in the project's own form, and what they are called; None for those that came back."""
    if asked.data is not None:
        data = asked.data.resolve()  # `.` and `..` have no names
        return dataset.one_file(data, home.submission.spec, settings.cache), data.name
    file = dataset.test_file(home.submission, home.sources, settings.cache)
    return file, "the test split" if file is not None else ""


def parameters_of_base(home: HomeRun) -> int | None:
    """As the run's host counted them; None where it does not tell."""
    base = _told(home.run).get("base")
    count = base.get("parameters") if isinstance(base, dict) else None
    return count if isinstance(count, int) and 0 < count < 10**13 else None


def _inside(run: RunDirectory, place: Path) -> Path:
    """A path in the run's folder.  Raises LaunchError where a link, which no run of ours has, leads out of it."""
    if not place.resolve().is_relative_to(run.root.resolve()):
        first = run.root / place.relative_to(run.root).parts[0]
        raise LaunchError(f"{place} leads out of the run's folder", hint=f"take the link away: {first}")
    return place


def _require_vouched_for(home: HomeRun, what: str) -> None:
    """Figures of another adapter than the one that was trained would be worse than none."""
    from jobs import verification

    if wrong := [check for check in verification.vouched_for(home.run, home.submission) if check.status != "pass"]:
        raise VerificationFailed(
            f"{home.run.run_id} is not {what}: {wrong[0].id}: {wrong[0].detail}",
            hint=f"launch verify {home.run.root}",
        )


def merge(home: HomeRun, workspace: Path, folder: Path, dtype: str, observer: Observer) -> dict[str, Any]:
    """Adapter and base as one model in the empty `folder`, proven there; what was written, and how far it is off."""
    options = ["--base", str(home.base), "--out", str(folder), "--dtype", dtype]
    return _job("merge", home, workspace, options, observer)


def compare(
    homes: Sequence[HomeRun], workspace: Path, observer: Observer, *, data: str = "", common: bool = False
) -> dict[str, Any]:
    """Figures of the runs side by side and each against the first, from the logits that lie here.

    `data` is a file that all of them were evaluated on, by its name; `common` leaves out rows that one of them lacks.
    Raises VerificationFailed as `evaluate` does, LaunchError where a run was not evaluated on that file.
    """
    for home in homes:
        _require_vouched_for(home, "compared")
    options = [option for home in homes[1:] for option in ("--against", str(home.run.root))]
    if data:
        options.append(f"--evaluated-on={_evaluated_on(homes, data)}")
    return _job("compare", homes[0], workspace, [*options, *(["--common"] if common else [])], observer)


def _evaluated_on(homes: Sequence[HomeRun], data: str) -> str:
    """The name of all runs' evaluations on `data`, which may be a file's name, with its ending or without it."""
    names = [name for name in (Path(data).name, Path(data).stem) if name not in ("", "..")]
    lacking = homes[0].run
    for name in names:
        folders = [RunDirectory(_inside(home.run, home.run.evaluations / name)) for home in homes]
        missing = [home.run for home, folder in zip(homes, folders, strict=True) if not folder.home_metrics.is_file()]
        if not missing:
            return name
        lacking = missing[0]
    raise LaunchError(
        f"{lacking.run_id} was not evaluated here on {data!r}",
        hint=f"launch evaluate {lacking.run_id} --data FILE",
        code="not_found",
    )


def _job(
    verb: str,
    home: HomeRun,
    workspace: Path,
    options: Sequence[str],
    observer: Observer,
    *,
    keep: Path | None = None,
) -> dict[str, Any]:
    """What the verb replies.  In the file `keep` it keeps what an interrupted one goes on with."""
    output = MarkedOutput(home.run.run_id)
    options = [*options, "--progress", output.mark, *(["--keep", str(keep)] if keep is not None else [])]
    python = home_python.find(workspace, _trained_with(home.run), observer)
    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        reply = Path(folder) / "reply.json"
        # -P: a file called torch.py in the current folder must not be taken for torch.
        argv = [python, "-P", "-m", "jobs", verb, str(home.run.root), *options, "--reply", str(reply)]
        env = {
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            **own_copy.into(Path(folder)),
        }
        with LocalHost().start(argv, env=env, cwd=str(Path.cwd())) as process:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a chunk may end within a character
            try:
                for chunk in process.chunks():
                    for told in output.take(decoder.decode(chunk)):
                        observer(told)
            except KeyboardInterrupt:
                if keep is None or not keep.exists():
                    raise
                raise LaunchError(
                    f"{verb} was interrupted", hint="the same command goes on where it was", code="interrupted"
                ) from None
            for told in output.rest():
                observer(told)
            status = process.wait()
        try:
            outcome = json.loads(reply.read_text("utf-8"))
        except FileNotFoundError:
            home_python.forget(workspace, _trained_with(home.run))  # it worked once; the next time it has to show that
            said = process.stderr().decode("utf-8", "replace").strip().splitlines()
            raise LaunchError(
                f"{verb} ended with status {status}" + (f": {said[-1]}" if said else ""),
                hint="the lines above say where",
            ) from None
    if not outcome["ok"]:
        error = outcome["error"]
        raise LaunchError(error["message"], hint=error["hint"], code=error["code"])
    data: dict[str, Any] = outcome["data"]
    return data


def _trained_with(run: RunDirectory) -> Mapping[str, Any]:
    """Versions by library, as the run's host tells them; empty where it does not."""
    told = _told(run).get("libraries")
    return told if isinstance(told, dict) else {}


def _told(run: RunDirectory) -> Mapping[str, Any]:
    """What the run's host tells of the training; empty where that can't be read."""
    try:
        told = json.loads(run.training.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _own_base(submission: Submission, sources: dict[str, str]) -> Path | None:
    """The folder the base was pushed from, unless a file of it changed since."""
    folder = sources.get("base")
    if not folder or not submission.base_files:
        return None
    for entry in submission.base_files:
        if dataset.unchanged(str(Path(folder) / Path(entry.path).name), entry) is None:
            return None
    return Path(folder)


def _hub_base(submission: Submission, run: RunDirectory) -> HubModel | None:
    """The Hub's model that was trained on: at the commit that is told, else as it was asked for."""
    if submission.base_files:
        return None
    base = _told(run).get("base")
    told = base.get("revision") if isinstance(base, dict) else None
    commits = [told] if isinstance(told, str) and COMMIT.match(told) else []
    spec = submission.spec
    return HubModel(spec.model_name_or_path, (*commits, spec.model_revision))
