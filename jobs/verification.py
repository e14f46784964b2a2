"""Verification of a run's adapter, or of any folder: the run's folder, static checks, reproduction, one verdict.

Where the base lies is the caller's to say; it is never read from what came from a host.  The light process
can call this: whatever needs torch runs in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import base_tensors, reproduction, run_checks, static_checks
from jobs.base_tensors import BaseTensors
from jobs.checks import HERE, ON_HOST, STATIC, Check, Level, Verdict, all_passed
from jobs.errors import AdapterRejected
from jobs.reproduction import Where
from jobs.run_directory import RunDirectory
from jobs.static_subject import Told
from jobs.submission import Submission

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
    adopted: bool = False,
) -> Verdict:
    """The verdict on a run's adapter, on its host or at home.

    With a base the stored probes are reproduced in a fresh process: a new one of `python`, unless the caller says that
    this one has nothing of the training's memory (it then saves ten seconds of imports, and can compare the scores of
    `held_out`, too).  At home without one, the host's own verdict stands for it, and the level says so.  What was asked
    is `submission`, as the caller itself knows it, unless the run is `adopted`: then it is its host's word.  `base` is
    what is known of a base that is not here.
    """
    checks = [run_checks.listed(run, where)] if where == "host" else vouched_for(run, submission)
    checks += _of_what_is_here(run, base_folder or base, submission)
    if adopted:
        checks = [run_checks.hosts_word(check) if check.id == "provenance" else check for check in checks]
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
        host = run_checks.host_verdict(run)
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
    return [run_checks.result(run, submission), run_checks.listed(run, "home")]


def verify_adapter_folder(folder: Path, base: Path | BaseTensors | None) -> Verdict:
    """The verdict on any PEFT folder, also one made elsewhere: static, because it brings no probes."""
    checks = _static(folder, base, None)
    return Verdict(STATIC, (*checks, _not_reproduced("no probes were stored with this adapter")))


def told(run: RunDirectory) -> Told:
    """What the run's host tells of the training; nothing where that can't be read."""
    document = run_checks.training(run)
    base = document.get("base")
    sha256 = base.get("weights_sha256") if isinstance(base, dict) else None
    return Told(document.get("initial"), document.get("saved"), sha256)


def _of_what_is_here(run: RunDirectory, base: Path | BaseTensors | None, submission: Submission | None) -> list[Check]:
    checks = [*_static(run.adapter, base, told(run)), run_checks.written(run), run_checks.classifier(run, submission)]
    return [
        *checks,
        *([run_checks.settings(run, submission), run_checks.made_of(run, submission)] if submission else []),
    ]


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


def _not_reproduced(reason: str, *, required: bool = False) -> Check:
    todo = "launch verify --base FOLDER" if "base" in reason else ""
    return Check("reproduction", "not_checked", reason, "the weights were not run on this machine", todo, required)
