"""Checks of a run's folder: how it ended, that its files are those it lists and wrote, that it is what was asked for.

Each looks at what the run's host tells, and believes none of it: it is held against the laptop's own submission.
"""

from __future__ import annotations

from typing import Any

from jobs import adapter, manifest, provenance
from jobs.checks import ON_HOST, Check
from jobs.errors import AdapterRejected, BrokenRun
from jobs.label import in_order
from jobs.reproduction import Where
from jobs.run_directory import RunDirectory
from jobs.spec import HEAD, TEXT
from jobs.submission import Submission

USED_WITH = ("id2label", "max_length", "padding_side", "pad_token_id", "prompt_template", "long_texts")
"""What classifier.json and the description of the probes both tell, each written by itself."""
OLDER = {"prompt_template": TEXT, "long_texts": HEAD}
"""What earlier versions did, and do not tell."""
PEFT_DEFAULTS = {"use_rslora": False, "init_lora_weights": True}
ASKED_FOR = ("max_length", "prompt_template", "long_texts")
"""What of that stands in the spec, which this machine remembers."""


def result(run: RunDirectory, submission: Submission | None) -> Check:
    """Whose result it is, how the run ended, and whether it was taken home as a success."""
    meaning, todo = "this adapter is not to be used", "train again"
    if run.is_rejected:
        return Check("result", "fail", "it was rejected when it was pulled", meaning, todo)
    try:
        told = adapter.read_json(run.result)
    except AdapterRejected as error:
        return Check("result", "fail", error.message, "the run is not finished", "launch pull")
    if submission and told.get("run_id") != submission.run_id:
        detail = f"it is that of {ascii(told.get('run_id'))[:80]}, not of {submission.run_id}"
        return Check("result", "fail", detail, "another run lies here", f"launch pull {submission.run_id}")
    if told.get("state") != "succeeded":
        ended = ascii(f"{told.get('state')}: {told.get('reason')}")[:160]
        return Check("result", "fail", f"the run ended {ended}", meaning, todo)
    return Check("result", "pass", "the run succeeded")


def listed(run: RunDirectory, where: Where) -> Check:
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


def training(run: RunDirectory) -> dict[str, Any]:
    """training.json; empty where it can't be read."""
    try:
        return adapter.read_json(run.training)
    except AdapterRejected:
        return {}


def written(run: RunDirectory) -> Check:
    """Whether the adapter's files are those that training wrote, before they got their name."""
    meaning, todo = "something changed the adapter after training saved it", "train again"
    told = training(run).get("adapter_files")
    if not isinstance(told, dict):
        return Check("written", "not_checked", "training tells nothing of its files", required=False)
    try:
        here = {entry.path: entry.sha256 for entry in manifest.list_files(run.adapter)}
    except (BrokenRun, OSError) as error:
        return Check("written", "fail", str(error), meaning, todo)
    if different := sorted(ascii(name)[:80] for name in told.keys() | here.keys() if told.get(name) != here.get(name)):
        return Check("written", "fail", f"{', '.join(different[:5])} not as written", meaning, todo)
    return Check("written", "pass", f"{len(here)} files, each as training wrote it")


def classifier(run: RunDirectory, submission: Submission | None) -> Check:
    """Whether classifier.json names the classes, and prepares a text, as training did and as was asked for."""
    meaning, todo = "texts would be read, or answers named, otherwise than in training", "pull again, or train again"
    try:
        told = OLDER | adapter.read_json(run.adapter / adapter.CLASSIFIER)
        wanted = OLDER | adapter.read_json(run.probe_texts)
    except AdapterRejected as error:
        return Check("classifier", "fail", error.message, meaning, todo)
    different = [key for key in USED_WITH if told.get(key) is None or told[key] != wanted.get(key)]
    asked = {key: getattr(submission.spec, key) for key in ASKED_FOR} if submission else {}
    different += [f"{key} of the spec" for key, value in asked.items() if told.get(key) != value]
    names = training(run).get("label_names")
    if not isinstance(names, list) or told.get("id2label") != {str(number): name for number, name in enumerate(names)}:
        different.append("label_names")
    words = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    if submission and submission.protocol > 1 and tuple(words) != in_order(words):
        different.append("the order of the labels")
    if different:
        return Check("classifier", "fail", f"not as in training: {', '.join(different)}", meaning, todo)
    return Check("classifier", "pass", "labels, length, padding and prompt are those of training")


def settings(run: RunDirectory, submission: Submission) -> Check:
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


def made_of(run: RunDirectory, submission: Submission) -> Check:
    """Whether spec, data, code and base of the training are what was submitted."""
    told = training(run).get("provenance")
    if told is None:
        detail = "the run tells nothing of it, as with an older launch"
        return Check("provenance", "not_checked", detail, "nothing is known about this", required=False)
    if wrong := provenance.problems(submission, told):
        meaning, todo = "something else was trained than was asked for", "train again"
        return Check("provenance", "fail", "; ".join(wrong)[:500], meaning, todo)
    if provenance.knows_base(submission):
        return Check("provenance", "pass", "spec, data, code and base are as submitted")
    return Check("provenance", "pass", "spec, data and code are as submitted; of the base only the name was known")


def hosts_word(check: Check) -> Check:
    """The same, where what was asked for is known from the run's host alone: agreeing with itself proves little."""
    if check.status != "pass":
        return check
    return Check(
        check.id,
        "warn",
        f"the host agrees with itself ({check.detail}), but what was asked for is known from the host alone",
        "another laptop submitted it; this one can't tell whether that was trained which was asked for",
        "launch verify on the laptop that submitted it",
        required=False,
    )


def host_verdict(run: RunDirectory) -> Check:
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
