"""Pulls a run: fetch, check against the manifest, check the adapter, and only then give it its name."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs import atomic, manifest
from jobs.errors import BrokenRun
from jobs.run_directory import PROTOCOL, RunDirectory
from launcher import rejected
from launcher.errors import LaunchError, NotFinished, VerificationFailed
from launcher.ledger import Ledger, Record
from launcher.progress import Note, Observer
from launcher.sync import Moved, going_on
from launcher.untrusted import clean
from remote import runs, sync
from remote.agent import Agent
from remote.errors import Unreachable
from remote.onhost.target import try_lock
from remote.onhost.tree import STAGING

# A log that has more files than one is at least so long.
LONG_LOG_BYTES = 1024 * 1024
LATER_LOG = re.compile(r"log\.\d{16}\.txt\Z")


@dataclass(frozen=True)
class Pulled:
    """A run that is home: `state` is how it ended, `folder` where it lies, `already` whether it was here before."""

    run_id: str
    state: str
    reason: str
    folder: Path
    files: int
    size_bytes: int
    already: bool = False
    include: tuple[str, ...] = ()

    def in_words(self) -> str:
        """For a person, with what to do next."""
        ended = self.state + (f": {clean(self.reason)}" if self.reason else "")
        here = "is here already, every byte as listed" if self.already else "is home, every byte as listed"
        if self.state != "succeeded":
            return f"{self.run_id} ({ended}): log and events are home, there is no adapter to trust\n{self.folder}"
        if self.include:
            some = f"of {self.run_id} is home what matches {', '.join(self.include)}, every byte as listed"
            return f"{some}\n{self.folder}\nlaunch pull {self.run_id} brings the rest"
        return f"{self.run_id} {here}\n{self.folder}\nlaunch verify {self.run_id} && launch evaluate {self.run_id}"

    def to_json(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "state": self.state,
            "reason": clean(self.reason),
            "folder": str(self.folder),
            "files": self.files,
            "size_bytes": self.size_bytes,
            "already_here": self.already,
            "include": list(self.include),
        }


def bring_home(
    record: Record,
    agent: Agent,
    ledger: Ledger,
    target: Path,
    observer: Observer,
    *,
    include: Sequence[str] = (),
    force: bool = False,
) -> Pulled:
    """Bring a finished run to `target/<run id>`; with `include` only the artifacts that match one of these globs.

    Of a run that did not succeed only log, events and result come: there is no adapter to trust.  An adapter that is
    not to be used, by its host's word or by what is seen here, comes with `force` only, to `target/<run id>.rejected`.
    A pull that was cut goes on where it was.

    Raises NotFinished, VerificationFailed when a byte differs from the manifest or the adapter is not to be used, the
    latter with everything in place, BrokenRun when the host breaks the protocol.
    """
    if record.superseded_by and not force:
        raise LaunchError(
            f"{record.run_id} was taken over by {record.superseded_by}, which is the one to bring home",
            hint=f"launch pull {record.superseded_by} (or add --force)",
            code="run_superseded",
        )
    state = _finished_state(record, agent, ledger)
    if rejected.by_host(state) and not force:
        include = (RunDirectory(Path()).host_verification.name,)
    home = RunDirectory(target.absolute() / record.run_id)
    home.root.parent.mkdir(parents=True, exist_ok=True)
    # A hidden name beside the final one, so that the last step is a rename, and nobody meets half a run.
    part = RunDirectory(home.root.with_name(f".{record.run_id}.{'some.' if include else ''}part"))
    with _claimed(part):
        fetched = _fetch(record, agent, part, home, state, include, observer)
        rejection = rejected.look(record, part, state, partial=bool(include))
        _drop(part, fetched.unasked)
        if rejection:
            raise _refused(rejection, record, part, home, ledger, include=include, force=force)
        if _same(part, home):
            pulled = _pulled(state, home, fetched.size_bytes, already=True)
        else:
            _as_asked(record, part)
            _put_in_place(part, home, whole=not include)
            pulled = _pulled(state, home, fetched.size_bytes, include=include)
    if not include:
        ledger.note_pulled(record.run_id, home.root)
    return pulled


def _refused(
    rejection: rejected.Rejection,
    record: Record,
    part: RunDirectory,
    home: RunDirectory,
    ledger: Ledger,
    *,
    include: Sequence[str],
    force: bool,
) -> VerificationFailed:
    """Put in place what may come of a run whose adapter is not to be used; the error that tells."""
    forced = force and part.artifacts.exists()
    place = rejection.place(home, forced=forced)
    if not rejection.by_host and not forced:
        shutil.rmtree(part.artifacts, ignore_errors=True)
    _as_asked(record, part)
    _put_in_place(part, place, whole=forced and not include)
    if place == home:
        ledger.note_pulled(record.run_id, home.root)
    return rejection.error(place.root, forced=forced)


def _as_asked(record: Record, part: RunDirectory) -> None:
    """Put this laptop's own memory of what was asked for beside what came, or a mark where it has none of its own."""
    atomic.write_json(part.spec, record.submission.to_json())
    if record.adopted:
        part.adopted.touch()


@contextlib.contextmanager
def _claimed(part: RunDirectory) -> Iterator[None]:
    """The folder for what has come so far, for one pull at a time.  Kept for the next one where this one was cut."""
    owner = part.root.with_name(part.root.name + ".owner")
    with _locked(owner):
        part.root.mkdir(exist_ok=True)
        try:
            yield
        except (Unreachable, KeyboardInterrupt):
            with contextlib.suppress(OSError):
                part.root.rmdir()  # if nothing came
            raise
        except BaseException:
            shutil.rmtree(part.root, ignore_errors=True)
            raise
        else:
            shutil.rmtree(part.root, ignore_errors=True)
        finally:
            with contextlib.suppress(OSError):  # Windows removes nothing that is open
                owner.unlink()


def _locked(path: Path) -> IO[bytes]:
    """A file that is this process's alone until it is closed; waits for another that has it."""
    while True:
        file = path.open("ab")
        try:
            # Whoever had it may have removed it: another one may have made it anew.
            if try_lock(file.fileno()) and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()
        time.sleep(0.1)


@dataclass(frozen=True)
class _Fetched:
    """The bytes that came; `unasked` came only so that the adapter could be looked at."""

    size_bytes: int
    unasked: tuple[manifest.Entry, ...]


def _finished_state(record: Record, agent: Agent, ledger: Ledger) -> runs.State:
    state = runs.state(agent, record.run_id)
    ledger.note_state(record.run_id, state.state, state.reason)
    if state.state == "gone":
        raise LaunchError(
            f"{record.run_id} is not on {record.host} any more",
            hint=f"launch retry {record.run_id} does it once more; launch rm {record.run_id} forgets it",
            code="not_found",
        )
    if not state.is_over:
        raise NotFinished(f"{record.run_id} is {state.state}", hint=f"launch wait {record.run_id}")
    return state


def _fetch(
    record: Record,
    agent: Agent,
    part: RunDirectory,
    home: RunDirectory,
    state: runs.State,
    include: Sequence[str],
    observer: Observer,
) -> _Fetched:
    """Bring everything wanted into `part`, and what it takes to look at the adapter, and check it."""
    moved = Moved(observer)

    def fetched(names: Sequence[str]) -> sync.Outcome:
        outcome = going_on(
            lambda: sync.pull(agent, f"{agent.workspace}/runs/{record.run_id}", part.root, names=names, observer=moved),
            moved, observer,
        )  # fmt: skip
        for path, why in outcome.failed.items():
            raise LaunchError(f"{record.run_id}: {path} did not come: {why}", hint=_again(record))
        return outcome  # type: ignore[no-any-return]

    names = [part.result.name, part.log.name, part.events.name]
    if state.state == "succeeded" or rejected.by_host(state):
        # What vouches for the rest comes first: what is listed with the content it has here need not come at all.
        names.append(part.manifest.name)
    if state.state != "succeeded":
        names.append(part.crash.name)
    outcomes = [fetched(names)]
    if part.log.is_file() and part.log.stat().st_size >= LONG_LOG_BYTES:
        later = [name for name in runs.log_files(agent, record.run_id) if LATER_LOG.match(name)]
        outcomes += [fetched(later)] if later else []
    result = _check_result(record, part, state)
    unasked: list[manifest.Entry] = []
    # An earlier version listed nothing of an adapter that failed.
    if state.state == "succeeded" or (rejected.by_host(state) and "manifest_sha256" in result):
        entries = _listed(record, part, result)
        wanted = [entry for entry in entries if not include or _matches(entry.path, include)]
        if include and not wanted and state.state == "succeeded":
            raise LaunchError(
                f"{record.run_id}: no artifact matches {', '.join(include)}",
                hint="for example --include 'adapter/*'; all of them: " + ", ".join(one.path for one in entries[:10]),
            )
        unasked = [entry for entry in rejected.looked_at(entries, wanted) if entry not in wanted]
        wanted += unasked
        _seed(part, home, wanted)
        outcomes.append(
            fetched([f"{part.artifacts.name}/{one.path}" for one in wanted] if include else [part.artifacts.name])
        )
        if problems := manifest.problems(part.artifacts, wanted):
            shown = "\n".join(f"  - {problem}" for problem in problems[:20])
            raise VerificationFailed(f"{record.run_id}: not what the manifest says\n{shown}", hint=_again(record))
    shutil.rmtree(part.root / STAGING, ignore_errors=True)  # of an earlier pull, of files that are others by now
    size_bytes = sum(outcome.sent_bytes for outcome in outcomes)
    files = sum(len(outcome.sent) for outcome in outcomes)
    observer(Note(f"{record.run_id}: fetched {files} files, {size_bytes / 1e6:.1f} MB"))
    return _Fetched(size_bytes, tuple(unasked))


def _drop(part: RunDirectory, entries: Sequence[manifest.Entry]) -> None:
    for entry in entries:
        path = part.artifacts / entry.path
        path.unlink()
        with contextlib.suppress(OSError):  # there may be others
            path.parent.rmdir()


def _matches(path: str, include: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(path, glob) or path.startswith(glob.rstrip("/") + "/") for glob in include)


def _seed(part: RunDirectory, home: RunDirectory, wanted: Sequence[manifest.Entry]) -> None:
    """Copy what lies at home with the listed content, so that it is not sent again."""
    for entry in wanted:
        here, there = home.artifacts / entry.path, part.artifacts / entry.path
        alike = not there.exists() and here.is_file() and here.stat().st_size == entry.size_bytes
        if alike and manifest.sha256_of(here) == entry.sha256:
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(here, there)


def _check_result(record: Record, part: RunDirectory, state: runs.State) -> dict[str, Any]:
    result = read_result(part)
    if result["run_id"] != record.run_id or result["state"] != state.state:
        raise BrokenRun(f"{record.host}: the result that came is not the one of {record.run_id}")
    return result


def _listed(record: Record, part: RunDirectory, result: dict[str, Any]) -> list[manifest.Entry]:
    """The artifacts that the run vouches for."""
    if not part.manifest.is_file() or manifest.sha256_of(part.manifest) != result.get("manifest_sha256"):
        raise VerificationFailed(f"{record.run_id}: the manifest is not the one the result names", hint=_again(record))
    return manifest.read(part.manifest)


def read_result(run: RunDirectory) -> dict[str, Any]:
    """The result file of a run directory.  Raises BrokenRun."""
    try:
        result = json.loads(run.result.read_text("utf-8"))
        protocol, _, _ = int(result["protocol"]), result["run_id"], result["state"]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise BrokenRun(f"{run.result}: not a readable result ({type(error).__name__})") from error
    if protocol > PROTOCOL:
        raise BrokenRun(f"{run.result}: written by a newer launch", hint="pip install --upgrade lora-launch")
    assert isinstance(result, dict)
    return result


def _again(record: Record) -> str:
    return f"nothing was put in place; try again: launch pull {record.run_id}"


def _same(part: RunDirectory, home: RunDirectory) -> bool:
    """Whether what lies at home already is, byte for byte, what came."""
    if not home.result.is_file() or home.result.read_bytes() != part.result.read_bytes():
        return False
    if not part.manifest.is_file():
        return True
    if not home.manifest.is_file() or home.manifest.read_bytes() != part.manifest.read_bytes():
        return False
    return not manifest.problems(home.artifacts, manifest.read(part.manifest))


def _put_in_place(part: RunDirectory, home: RunDirectory, *, whole: bool) -> None:
    """One rename where nothing is there; else piece by piece, the result last, leaving alone what was made at home."""
    if not home.root.exists():
        try:
            part.root.rename(home.root)
            return
        except OSError:  # another pull of the same run was faster
            if not home.result.is_file():
                raise
    if part.manifest.exists() and home.manifest.exists() and part.manifest.read_bytes() != home.manifest.read_bytes():
        found_here = (home.home_verification, home.home_predictions, home.earlier_home_predictions, home.home_errors,
                      home.home_metrics, home.report)  # fmt: skip
        for path in found_here:
            path.unlink(missing_ok=True)  # of another adapter
        shutil.rmtree(home.plots, ignore_errors=True)
        if home.evaluations.exists():
            home.evaluations.rename(part.root / ".replaced-evaluations")
    if whole and home.artifacts.exists():
        home.artifacts.rename(part.root / ".replaced")
    if part.artifacts.exists():
        if not home.artifacts.exists():
            part.artifacts.rename(home.artifacts)
        for path in part.artifacts.rglob("*"):
            if path.is_file():
                final = home.artifacts / path.relative_to(part.artifacts)
                final.parent.mkdir(parents=True, exist_ok=True)
                path.replace(final)
    for path in (part.spec, part.adopted, *part.logs, part.events, part.crash, part.manifest, part.result):
        if path.exists():
            path.replace(home.root / path.name)


def _pulled(
    state: runs.State, home: RunDirectory, size: int, *, already: bool = False, include: Sequence[str] = ()
) -> Pulled:
    files = sum(1 for path in home.root.rglob("*") if path.is_file())
    return Pulled(state.run_id, state.state, state.reason, home.root, files, size, already, tuple(include))
