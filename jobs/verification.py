"""Verification of a run's adapter, or of any folder: manifest, static checks, reproduction, one verdict.

Where the base lies is the caller's to say; it is never read from what came from a host.  The light process
can call this: whatever needs torch runs in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs import adapter, manifest, reproduction, static_checks
from jobs.checks import HERE, ON_HOST, STATIC, Check, Level, Verdict, all_passed
from jobs.errors import AdapterRejected, BrokenRun
from jobs.reproduction import Where
from jobs.run_directory import RunDirectory

if TYPE_CHECKING:
    from jobs.held_out import HeldOut


def verify(
    run: RunDirectory,
    *,
    base_folder: Path | None,
    where: Where,
    static_only: bool = False,
    this_process_is_fresh: bool = False,
    held_out: HeldOut | None = None,
    python: str = sys.executable,
) -> Verdict:
    """The verdict on a run's adapter, on its host or at home.

    With a base the stored probes are reproduced in a fresh process: a new one of `python`, unless the caller says that
    this one has nothing of the training's memory (it then saves ten seconds of imports, and can compare the scores of
    `held_out`, too).  At home without one, the host's own verdict stands for it, and the level says so.
    """
    checks = [_transport(run, where)]
    checks += _static(run.adapter, base_folder, initial=_initial(run), ours=True)
    if static_only:
        return Verdict(STATIC, (*checks, _not_reproduced("static checks only were asked for")))
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


def verify_adapter_folder(folder: Path, base_folder: Path | None) -> Verdict:
    """The verdict on any PEFT folder, also one made elsewhere: static, because it brings no probes."""
    checks = _static(folder, base_folder, initial=None, ours=False)
    return Verdict(STATIC, (*checks, _not_reproduced("no probes were stored with this adapter")))


def _static(folder: Path, base_folder: Path | None, *, initial: Any, ours: bool) -> list[Check]:
    try:
        return static_checks.check_adapter(folder, base_folder=base_folder, initial=initial, ours=ours)
    except (AdapterRejected, OSError) as error:
        return [
            Check(
                "base",
                "fail",
                str(error),
                "the base can't be read, so nothing can be compared",
                "--base FOLDER",
            )
        ]


def _transport(run: RunDirectory, where: Where) -> Check:
    """Whether every artifact is byte for byte what result.json vouches for."""
    if not (run.manifest.is_file() and run.result.is_file()):
        detail = "no manifest.json and result.json" + (" yet" if where == "host" else "")
        return Check("manifest", "not_checked", detail, "the run is not finished", required=where == "home")
    try:
        wanted = adapter.read_json(run.result).get("manifest_sha256")
        entries = manifest.parse(run.manifest.read_text("utf-8"))
        problems = manifest.problems(run.artifacts, entries)
    except (AdapterRejected, BrokenRun, OSError, ValueError) as error:
        problems, entries, wanted = [str(error)], [], ""
    if entries and manifest.sha256_of(run.manifest) != wanted:
        problems.insert(0, "manifest.json is not the one that result.json vouches for")
    if problems or not entries:
        detail = "; ".join(problems[:5]) or "the manifest lists nothing"
        return Check("manifest", "fail", detail, "files changed after the run vouched for them", "pull again")
    return Check("manifest", "pass", f"{len(entries)} files, sha256 of each")


def _initial(run: RunDirectory) -> Any:
    """The fingerprints from before the first step; None where there are none."""
    try:
        return adapter.read_json(run.training).get("initial")
    except AdapterRejected:
        return None


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
