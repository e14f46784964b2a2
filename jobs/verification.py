"""Verification of a run's adapter, or of any folder: result, manifest, static checks, what it was made of and is used
with, reproduction, one verdict.

Where the base lies is the caller's to say; it is never read from what came from a host.  The light process
can call this: whatever needs torch runs in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import adapter, base_tensors, manifest, provenance, reproduction, static_checks
from jobs.base_tensors import BaseTensors
from jobs.checks import HERE, ON_HOST, STATIC, Check, Level, Verdict, all_passed
from jobs.errors import AdapterRejected, BrokenRun
from jobs.label import in_order
from jobs.reproduction import Where
from jobs.run_directory import RunDirectory
from jobs.spec import TEXT
from jobs.static_checks import Told
from jobs.submission import Submission

USED_WITH = ("id2label", "max_length", "padding_side", "pad_token_id", "prompt_template")
"""What classifier.json and the description of the probes both tell, each written by itself."""
PEFT_DEFAULTS = {"use_rslora": False, "init_lora_weights": True}
ASKED_FOR = ("max_length", "prompt_template")
"""What of that stands in the spec, which this machine remembers."""

if TYPE_CHECKING:
    from jobs.held_out import HeldOut


def verify(
    run: RunDirectory,
    *,
    base_folder: Path | None,
    where: Where,
    base: BaseTensors | None = None,
    submission: Submission | None = None,
    static_only: bool = False,
    this_process_is_fresh: bool = False,
    held_out: HeldOut | None = None,
    python: str = sys.executable,
) -> Verdict:
    """The verdict on a run's adapter, on its host or at home.

    With a base the stored probes are reproduced in a fresh process: a new one of `python`, unless the caller says that
    this one has nothing of the training's memory (it then saves ten seconds of imports, and can compare the scores of
    `held_out`, too).  At home without one, the host's own verdict stands for it, and the level says so.  What was asked
    is `submission`, as the caller itself knows it, and `base` what is known of a base that is not here.
    """
    checks = [_transport(run, where)] if where == "host" else vouched_for(run, submission)
    checks += _of_what_is_here(run, base_folder or base, submission)
    if static_only:
        return Verdict(STATIC, (*checks, _not_reproduced("static checks only were asked for")))
    if where == "home" and any(check.id == "classifier" and check.status == "fail" for check in checks):
        # A probe of any length would be run, and attention takes memory by the square of it.
        return Verdict(STATIC, (*checks, _not_reproduced("its texts would be read otherwise than was asked for")))
    if base_folder is not None:
        folders = (run.adapter, run.probes, base_folder)
        if this_process_is_fresh:
            reproduced = reproduction.reproduce(*folders, where=where, held_out=held_out)
        else:
            reproduced = reproduction.in_fresh_process(*folders, where=where, python=python)
        level: Level = (ON_HOST if where == "host" else HERE) if all_passed(reproduced) else STATIC
        return Verdict(level, (*checks, *reproduced))
    if where == "home":
        host = _host_verdict(run)
        level = ON_HOST if host.status == "pass" and all_passed(checks) else STATIC
        return Verdict(level, (*checks, host, _not_reproduced("no base at hand")))
    return Verdict(STATIC, (*checks, _not_reproduced("no base at hand", required=True)))


def on_arrival(run: RunDirectory, submission: Submission) -> Verdict:
    """The verdict on an adapter that came from a host, before it gets its name: within a second, without the base.

    For files that were compared with the manifest already.
    """
    return Verdict(STATIC, tuple(_of_what_is_here(run, None, submission)))


def vouched_for(run: RunDirectory, submission: Submission | None) -> list[Check]:
    """Whether the run at home is the one that was submitted, ended well, and is to the byte what its result lists."""
    return [_result(run, submission), _transport(run, "home")]


def verify_adapter_folder(folder: Path, base: Path | BaseTensors | None) -> Verdict:
    """The verdict on any PEFT folder, also one made elsewhere: static, because it brings no probes."""
    checks = _static(folder, base, None)
    return Verdict(STATIC, (*checks, _not_reproduced("no probes were stored with this adapter")))


def told(run: RunDirectory) -> Told:
    """What the run's host tells of the training; nothing where that can't be read."""
    document = _training(run)
    base = document.get("base")
    sha256 = base.get("weights_sha256") if isinstance(base, dict) else None
    return Told(document.get("initial"), document.get("saved"), sha256)


def _of_what_is_here(run: RunDirectory, base: Path | BaseTensors | None, submission: Submission | None) -> list[Check]:
    checks = [*_static(run.adapter, base, told(run)), _written(run), _classifier(run, submission)]
    return [*checks, *([_settings(run, submission), _provenance(run, submission)] if submission else [])]


def _static(folder: Path, base: Path | BaseTensors | None, told: Told | None) -> list[Check]:
    """The static checks; a base that can't be read fails the check of it, and the others do without one."""
    unreadable = None
    if isinstance(base, Path):
        try:
            base = base_tensors.of_folder(base)
        except (AdapterRejected, OSError) as error:
            meaning = "the base can't be read, so nothing can be compared with it"
            base, unreadable = None, Check("base", "fail", ascii(str(error))[1:-1], meaning, "--base FOLDER")
    try:
        checks = static_checks.check_adapter(folder, base=base, told=told)
    except OSError as error:  # a disk, or rights
        checks = [Check("files", "fail", ascii(str(error))[1:-1], "the adapter can't be read", "look at its folder")]
    return [
        *(check for check in checks if not (unreadable and check.id == "base")),
        *([unreadable] if unreadable else []),
    ]


def _result(run: RunDirectory, submission: Submission | None) -> Check:
    """Whose result it is, how the run ended, and whether it was taken home as a success."""
    meaning, todo = "this adapter is not to be used", "train again"
    if run.is_rejected:
        return Check("result", "fail", "it was rejected when it was pulled", meaning, todo)
    try:
        result = adapter.read_json(run.result)
    except AdapterRejected as error:
        return Check("result", "fail", error.message, "the run is not finished", "launch pull")
    if submission and result.get("run_id") != submission.run_id:
        detail = f"it is that of {ascii(result.get('run_id'))[:80]}, not of {submission.run_id}"
        return Check("result", "fail", detail, "another run lies here", f"launch pull {submission.run_id}")
    if result.get("state") != "succeeded":
        ended = ascii(f"{result.get('state')}: {result.get('reason')}")[:160]
        return Check("result", "fail", f"the run ended {ended}", meaning, todo)
    return Check("result", "pass", "the run succeeded")


def _transport(run: RunDirectory, where: Where) -> Check:
    """Whether every artifact is byte for byte what result.json vouches for."""
    if not (run.manifest.is_file() and run.result.is_file()):
        detail = "no manifest.json and result.json" + (" yet" if where == "host" else "")
        return Check("manifest", "not_checked", detail, "the run is not finished", required=where == "home")
    try:
        wanted = adapter.read_json(run.result).get("manifest_sha256")
        entries = manifest.read(run.manifest)
        problems = manifest.problems(run.artifacts, entries)
    except (AdapterRejected, BrokenRun, OSError, ValueError) as error:
        problems, entries, wanted = [str(error)], [], ""
    if entries and manifest.sha256_of(run.manifest) != wanted:
        problems.insert(0, "manifest.json is not the one that result.json vouches for")
    if problems or not entries:
        detail = "; ".join(problems[:5]) or "the manifest lists nothing"
        detail = detail.encode("utf-8", "replace").decode()  # names may be what no file can hold, a verdict's neither
        return Check("manifest", "fail", detail, "files changed after the run vouched for them", "pull again")
    return Check("manifest", "pass", f"{len(entries)} files, sha256 of each")


def _training(run: RunDirectory) -> dict[str, Any]:
    """training.json; empty where it can't be read."""
    try:
        return adapter.read_json(run.training)
    except AdapterRejected:
        return {}


def _written(run: RunDirectory) -> Check:
    """Whether the adapter's files are those that training wrote, before they got their name."""
    meaning, todo = "something changed the adapter after training saved it", "train again"
    told = _training(run).get("adapter_files")
    if not isinstance(told, dict):
        return Check("written", "not_checked", "training tells nothing of its files", required=False)
    try:
        here = {entry.path: entry.sha256 for entry in manifest.list_files(run.adapter)}
    except (BrokenRun, OSError) as error:
        return Check("written", "fail", str(error), meaning, todo)
    if different := sorted(ascii(name)[:80] for name in told.keys() | here.keys() if told.get(name) != here.get(name)):
        return Check("written", "fail", f"{', '.join(different[:5])} not as written", meaning, todo)
    return Check("written", "pass", f"{len(here)} files, each as training wrote it")


def _classifier(run: RunDirectory, submission: Submission | None) -> Check:
    """Whether classifier.json names the classes, and prepares a text, as training did and as was asked for."""
    meaning, todo = "texts would be read, or answers named, otherwise than in training", "pull again, or train again"
    try:
        # An earlier version had no templates.
        told = {"prompt_template": TEXT} | adapter.read_json(run.adapter / adapter.CLASSIFIER)
        wanted = {"prompt_template": TEXT} | adapter.read_json(run.probe_texts)
    except AdapterRejected as error:
        return Check("classifier", "fail", error.message, meaning, todo)
    different = [key for key in USED_WITH if told.get(key) is None or told[key] != wanted.get(key)]
    asked = {key: getattr(submission.spec, key) for key in ASKED_FOR} if submission else {}
    different += [f"{key} of the spec" for key, value in asked.items() if told.get(key) != value]
    names = _training(run).get("label_names")
    if not isinstance(names, list) or told.get("id2label") != {str(number): name for number, name in enumerate(names)}:
        different.append("label_names")
    words = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if submission and submission.protocol > 1 and tuple(words) != in_order(words):
        different.append("the order of the labels")
    if different:
        return Check("classifier", "fail", f"not as in training: {', '.join(different)}", meaning, todo)
    return Check("classifier", "pass", "labels, length, padding and prompt are those of training")


def _settings(run: RunDirectory, submission: Submission) -> Check:
    """Whether the adapter has the rank, the scaling and the start of a training with this spec."""
    meaning, todo = "it adds something else than what was trained to the base", "pull again, or train again"
    try:
        document = adapter.read_json(run.adapter / adapter.CONFIG)
    except AdapterRejected as error:
        return Check("settings", "fail", error.message, meaning, todo)
    spec = submission.spec
    # With another start plain PEFT changes the base as it loads the adapter.
    asked = {"r": spec.lora_r, "lora_alpha": spec.lora_alpha, "use_rslora": spec.use_rslora, "init_lora_weights": True}
    different = [key for key, value in asked.items() if document.get(key, PEFT_DEFAULTS.get(key)) != value]
    different += [key for key in ("rank_pattern", "alpha_pattern") if document.get(key)]
    if different:
        return Check("settings", "fail", f"not as was asked for: {', '.join(different)}", meaning, todo)
    return Check("settings", "pass", f"rank {spec.lora_r}, alpha {spec.lora_alpha:g}, as was asked for")


def _provenance(run: RunDirectory, submission: Submission) -> Check:
    """Whether spec, data, code and base of the training are what was submitted."""
    told = _training(run).get("provenance")
    if told is None:
        detail = "the run tells nothing of it, as with an older launch"
        return Check("provenance", "not_checked", detail, "nothing is known about this", required=False)
    if wrong := provenance.problems(submission, told):
        meaning, todo = "something else was trained than was asked for", "train again"
        return Check("provenance", "fail", "; ".join(wrong)[:500], meaning, todo)
    if provenance.knows_base(submission):
        return Check("provenance", "pass", "spec, data, code and base are as submitted")
    return Check("provenance", "pass", "spec, data and code are as submitted; of the base only the name was known")


def _host_verdict(run: RunDirectory) -> Check:
    """The host's word, which a hostile host may have made up; the level says whose word it is."""
    try:
        document = adapter.read_json(run.host_verification)
    except AdapterRejected as error:
        return Check(
            "host_verdict",
            "fail",
            error.message,
            "the host did not verify the adapter",
            "launch verify --base",
        )
    if document.get("ok") is not True or document.get("level") != ON_HOST:
        return Check("host_verdict", "fail", "the host could not reproduce its probes", "see its checks", "launch logs")
    return Check("host_verdict", "pass", "a fresh process on the host reproduced the probes")


def _not_reproduced(reason: str, *, required: bool = False) -> Check:
    todo = "launch verify --base FOLDER" if "base" in reason else ""
    return Check("reproduction", "not_checked", reason, "the weights were not run on this machine", todo, required)
