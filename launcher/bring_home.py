"""Pulls a run: fetch, check against the manifest, check the adapter, and only then give it its name."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs import atomic, manifest
from jobs.errors import BrokenRun
from jobs.run_directory import PROTOCOL, RunDirectory
from launcher.errors import LaunchError, NotFinished, VerificationFailed
from launcher.ledger import Ledger, Record
from launcher.progress import Note, Observer
from launcher.untrusted import clean
from remote import runs
from remote.agent import Agent

SPARE_BYTES = 64 * 1024 * 1024


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

    def in_words(self) -> str:
        """For a person, with what to do next."""
        ended = self.state + (f": {clean(self.reason)}" if self.reason else "")
        here = "is here already, every byte as listed" if self.already else "is home, every byte as listed"
        if self.state != "succeeded":
            return f"{self.run_id} ({ended}): log and events are home, there is no adapter to trust\n{self.folder}"
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
        }


def bring_home(record: Record, agent: Agent, ledger: Ledger, target: Path, observer: Observer) -> Pulled:
    """Bring a finished run to `target/<run id>`.

    Of a run that did not succeed only log, events and result come: there is no adapter to trust.  Raises NotFinished,
    VerificationFailed when a byte differs from the manifest, BrokenRun when the host breaks the protocol.
    """
    state = _finished_state(record, agent, ledger)
    home = RunDirectory(target.absolute() / record.run_id)
    home.root.parent.mkdir(parents=True, exist_ok=True)
    # A temporary name beside the final one, so that the last step is a rename, and nobody meets half a run.
    part = RunDirectory(home.root.with_name(f".{record.run_id}.{secrets.token_hex(6)}.part"))
    part.root.mkdir()
    try:
        size = _fetch(record, agent, part, with_artifacts=state.state == "succeeded", observer=observer)
        _check(record, part, state)
        if _same(part, home):
            pulled = _pulled(state, home, size, already=True)
        else:
            atomic.write_json(part.spec, record.submission.to_json())
            _put_in_place(part, home)
            pulled = _pulled(state, home, size)
    finally:
        shutil.rmtree(part.root, ignore_errors=True)
    ledger.note_pulled(record.run_id, home.root)
    return pulled


def _finished_state(record: Record, agent: Agent, ledger: Ledger) -> runs.State:
    [state] = runs.states(agent, [record.run_id])
    ledger.note_state(record.run_id, state.state, state.reason)
    if state.state == "gone":
        raise LaunchError(f"{record.run_id} is not on {record.host} any more", hint="launch ps -a")
    if not state.is_over:
        raise NotFinished(f"{record.run_id} is {state.state}", hint=f"launch wait {record.run_id}")
    return state


def _fetch(record: Record, agent: Agent, part: RunDirectory, *, with_artifacts: bool, observer: Observer) -> int:
    """Bytes that came.  Every path is checked before anything is written."""
    names = [part.result.name, part.log.name, part.events.name]
    if with_artifacts:
        names += [part.manifest.name, part.artifacts.name]
    size_bytes = 0

    def receive(path: str, size: int, chunks: Iterator[bytes]) -> None:
        nonlocal size_bytes
        manifest.check_relative(path)
        inside = with_artifacts and path.startswith(f"{part.artifacts.name}/")
        if path not in names and not inside:
            raise BrokenRun(f"{record.host} sent {path!r}, which nobody asked for")
        if size > shutil.disk_usage(part.root).free - SPARE_BYTES:
            raise LaunchError(f"{path} has {size / 1e6:.0f} MB, more than is free in {part.root.parent}")
        with atomic.new_file(part.root / path) as file:
            for chunk in chunks:
                file.write(chunk)
        size_bytes += size

    files = runs.fetch(agent, record.run_id, names, receive)
    observer(Note(f"fetched {files} files, {size_bytes / 1e6:.1f} MB"))
    return size_bytes


def _check(record: Record, part: RunDirectory, state: runs.State) -> None:
    """Raise unless what came is this run, whole, as its result says."""
    result = read_result(part)
    if result["run_id"] != record.run_id or result["state"] != state.state:
        raise BrokenRun(f"{record.host}: the result that came is not the one of {record.run_id}")
    if state.state != "succeeded":
        return
    if not part.manifest.is_file() or manifest.sha256_of(part.manifest) != result.get("manifest_sha256"):
        raise VerificationFailed(f"{record.run_id}: the manifest is not the one the result names", hint=_again(record))
    # A manifest is bytes that a host chose: what is not UTF-8 must fail as a broken manifest does.
    entries = manifest.parse(part.manifest.read_text("utf-8", errors="replace"))
    if problems := manifest.problems(part.artifacts, entries):
        shown = "\n".join(f"  - {problem}" for problem in problems[:20])
        raise VerificationFailed(f"{record.run_id}: not what the manifest says\n{shown}", hint=_again(record))


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
    return not manifest.problems(home.artifacts, manifest.parse(part.manifest.read_text("utf-8")))


def _put_in_place(part: RunDirectory, home: RunDirectory) -> None:
    """One rename where nothing is there; else piece by piece, the result last, leaving alone what was made at home."""
    if not home.root.exists():
        try:
            part.root.rename(home.root)
            return
        except OSError:  # another pull of the same run was faster
            if not home.result.is_file():
                raise
    if home.artifacts.exists():
        home.artifacts.rename(part.root / ".replaced")
    if part.artifacts.exists():
        part.artifacts.rename(home.artifacts)
    for name in (part.spec.name, part.log.name, part.events.name, part.manifest.name, part.result.name):
        if (part.root / name).exists():
            (part.root / name).replace(home.root / name)


def _pulled(state: runs.State, home: RunDirectory, size: int, *, already: bool = False) -> Pulled:
    files = sum(1 for path in home.root.rglob("*") if path.is_file())
    return Pulled(state.run_id, state.state, state.reason, home.root, files, size, already)
