"""Why a run ended badly, as a card: the cause, what speaks for it, and the one next command.

Pure.  What was measured counts before what was printed, and of that only how it ended: an error that was survived, or
a sentence in somebody's data, is no cause.  Everything that comes in is untrusted text; whoever shows the card cleans
it.  What the causes mean stands in the table of failures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote import failure
from remote.failure import Failure

MOST_EVIDENCE = 6
EVIDENCE_CHARACTERS = 160
LAST_LINES = 40
"""Of the log, where the words of the end can stand."""
AFTERMATH_LINES = 12
"""What others may print below the exception that ended a job: its parents, a warning at exit."""
LAST_WORDS = 4
"""Lines of a program that ends without an exception."""
FULL_BYTES, FULL_INODES, FULL_SHARE = 32 * 1024 * 1024, 64, 0.02
NEAR_LIMIT, FAR_FROM_LIMIT = 0.9, 0.7
GIB = 1024**3
BUSY_GPU_BYTES = GIB
# An exception as Python, torchrun and our own job print it, at the beginning of a line.
EXCEPTION = re.compile(
    r"(?:\[rank\d+\]:\s*)?(?:error|fatal|(?:[A-Za-z_]\w*\.)*(?:[A-Z]\w*(?:Error|Exception|Interrupt|Timeout|Full|Exit)"
    r"|OutOfMemoryError))(?::\s|\Z)"
)
# Signs of work that went on: what stands above them did not end the run.
PROGRESS = re.compile(r"(?:launch: )?(?:step \d+/\d+\b|verify: |evaluated? |saved |training took )")
MISSING = re.compile(r"No module named '?([\w.]+)")
STATUS = re.compile(r"(?:ended with status|exit(?: code|code)?:?|signal) (-?\d+)")
SIGNALS = {4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}


@dataclass(frozen=True)
class Card:
    """`cause` is the stable word for scripts, `next` the one command to type."""

    cause: str
    title: str
    explanation: str
    evidence: tuple[str, ...]
    next: str

    def to_json(self) -> dict[str, Any]:
        return {
            "cause": self.cause,
            "title": self.title,
            "explanation": self.explanation,
            "evidence": list(self.evidence),
            "next": self.next,
        }


@dataclass(frozen=True)
class Asked:
    """What the run was asked to do, as far as a next command needs it; `can_resume` is whether it left a checkpoint."""

    host: str
    run: str
    batch_size: int = 0
    max_length: int = 0
    learning_rate: float = 0.0
    can_resume: bool = True


def explain(state: str, reason: str, measured: Mapping[str, Any], log_tail: str, asked: Asked) -> Card | None:
    """The card of a run that ended as `state`, `reason`; None where nothing is known.

    `measured` is what `crash.json` holds, empty for a run without one.
    """
    case = _Case(state, reason, measured, log_tail)
    found = case.ending() or case.killed() or case.told() or case.status()
    if found is None:
        return None
    code, evidence = found
    row = failure.ended(code)
    lines = tuple(line[:EVIDENCE_CHARACTERS] for line in evidence if line)[:MOST_EVIDENCE]
    return Card(code, row.title, row.meaning, lines, _next(row, asked))


def _next(row: Failure, asked: Asked) -> str:
    words = {
        "BATCH": str(max(1, asked.batch_size // 2)) if asked.batch_size else "N",
        "LENGTH": str(max(16, asked.max_length // 2)) if asked.max_length else "N",
        "RATE": f"{asked.learning_rate / 4:.1e}" if asked.learning_rate else "RATE",
    }
    command = row.after_a_run(host=asked.host, run=asked.run)
    if not asked.can_resume:
        command = re.sub(r"\Alaunch resume\b", "launch retry", command)
    for word, value in words.items():
        command = re.sub(rf"\b{word}\b", value, command)
    return command


Found = tuple[str, list[str]]


class _Case:
    """One run's end.  Every question gives a cause with its evidence, or None."""

    def __init__(self, state: str, reason: str, measured: Mapping[str, Any], log_tail: str) -> None:
        self._state, self._reason, self._measured = state, reason, measured
        tail = measured.get("tail")
        lines = tail if isinstance(tail, list) and tail else log_tail.splitlines()
        self._lines = [str(line).rstrip() for line in lines if str(line).strip()][-LAST_LINES:]
        self._status = self._exit_status()

    def ending(self) -> Found | None:
        """What the result itself says in so many words."""
        if self._state == "lost":
            return "machine_restarted", [*self._step(), *self._last_lines(2)]
        if self._state == "stopped":
            if self._reason.startswith("time limit"):
                return "time_limit", [*self._step(), *self._last_lines(2)]
            return "stopped_by_hand", [self._reason, *self._step()]
        if self._reason.startswith(("supervisor killed", "the supervisor never started")):
            return "supervisor_killed", [self._reason, *self._memory(), *self._last_lines(2)]
        return None

    def killed(self) -> Found | None:
        """Signal 9: by the kernel or the platform, for memory, or by somebody's hand."""
        if self._status != 137:
            return None
        kills, share = _number(self._measured, "memory", "oom_kills") or 0, self._memory_share()
        told = [f"exit status 137 (signal 9) {self._when()}".rstrip(), *self._memory(), *self._last_lines(2)]
        if kills > 0 or (share is not None and share >= NEAR_LIMIT):
            return "memory_limit", told
        if share is not None and share < FAR_FROM_LIMIT:
            return "killed_by_hand", told
        return "killed", told

    def told(self) -> Found | None:
        """What the job said last."""
        code = self._measured.get("code")
        last = self._statements()
        if isinstance(code, str) and (row := failure.ended_with_code(code)):
            return row.code, [last[0] if last else self._reason, *self._hint()]
        for statement in last:
            if STATUS.search(statement) and self._status_of(statement) == 137:
                self._status = 137
                return self.killed()
            if row := failure.while_running(statement):
                return self._refined(row.code, statement)
        # A program of the system, which knows no exceptions: its words count only with a figure or a status.
        words = "\n".join(self._last_lines(LAST_WORDS))
        row = failure.while_running(words)
        if row is not None and row.code == "disk_full" and self._full():
            return self._refined("disk_full", _quoted(words, row))
        if row is not None and row.code == "not_on_path" and self._status == 127:
            return "not_on_path", [_quoted(words, row)]
        return None

    def status(self) -> Found | None:
        """What is left to go by: a signal, a status, a disk that is full."""
        if self._status in (139, 135):
            shared = [one for one in self._full() if "shared memory" in one]
            if self._status == 135 or shared:
                return "bus_error", [self._said_status(), *shared, *self._last_lines(2)]
            return "segfault", [self._said_status(), *self._last_lines(3)]
        if full := [line for line in self._full() if "(run)" in line]:
            return self._refined("disk_full", self._reason, full)
        if self._status == 127:
            return "not_on_path", self._last_lines(1)
        return None

    def _refined(self, code: str, statement: str, full: Sequence[str] = ()) -> Found:
        """The cause in more detail, where a figure tells more than the words."""
        evidence = [statement]
        if code == "disk_full":
            evidence += full or self._full() or self._disks()
            if any("inodes" in line for line in evidence[1:]):
                code = "inodes_full"
        if code == "cuda_out_of_memory":
            others = self._busy_gpus()
            evidence += [*self._step(), *others]
            if others and not _number(self._measured, "step"):
                code = "gpu_taken"
        if code == "missing_module" and (found := MISSING.search(statement)):
            evidence.append(f"missing: {found.group(1)}")
        if code == "diverged":
            evidence += self._step()
        if code == "cpu_out_of_memory":
            evidence += self._memory()
        return code, evidence

    def _statements(self) -> list[str]:
        """How it was told why it failed, the surest first: by the result, and by the last exception in the log."""
        specific = self._reason if self._reason and not STATUS.search(self._reason) else ""
        found = [specific] if specific else []
        for place in range(len(self._lines) - 1, max(-1, len(self._lines) - 1 - AFTERMATH_LINES), -1):
            line = self._lines[place]
            if PROGRESS.match(line):
                break
            if EXCEPTION.match(line):
                found.append(line)
        return found

    def _hint(self) -> list[str]:
        return [line for line in self._lines[-3:] if line.startswith("hint: ")][:1]

    def _exit_status(self) -> int | None:
        status, said = _number(self._measured, "exit_code"), self._status_of(self._reason)
        # Of several ranks one may have been killed; the job that started them ends with 1, and says so.
        return said if status is None or said == 137 else int(status)

    def _status_of(self, text: str) -> int | None:
        found = STATUS.search(text)
        if not found:
            return None
        number = int(found.group(1)[:6])
        return 128 + abs(number) if number < 0 or "signal" in found.group(0) else number

    def _said_status(self) -> str:
        number = (self._status or 0) - 128
        return f"exit status {self._status} (signal {number}, {SIGNALS.get(number, 'unknown')}) {self._when()}".rstrip()

    def _when(self) -> str:
        phase, step = self._measured.get("phase"), self._step()
        shown = f"while {phase}" if isinstance(phase, str) and phase.isidentifier() else ""
        return f"{shown}, {step[0]}" if step and shown else shown

    def _step(self) -> list[str]:
        step, steps = _number(self._measured, "step"), _number(self._measured, "steps")
        return [f"last step {step:.0f} of {steps:.0f}"] if step and steps else []

    def _last_lines(self, count: int) -> list[str]:
        return self._lines[-count:] if count else []

    def _memory_share(self) -> float | None:
        """The most that was in use, of the limit."""
        limit = _number(self._measured, "memory", "limit_bytes")
        used = [_number(self._measured, "memory", name) for name in ("peak_bytes", "largest_process_bytes")]
        known = [value for value in used if value is not None]
        return max(known) / limit if limit and known else None

    def _memory(self) -> list[str]:
        share, limit = self._memory_share(), _number(self._measured, "memory", "limit_bytes")
        if share is None or not limit:
            return []
        kills = _number(self._measured, "memory", "oom_kills")
        counted = "" if kills is None else f", {kills:.0f} memory kills by the kernel"
        return [f"memory at most {share * limit / GIB:.2f} of {limit / GIB:.2f} GiB ({share:.0%}){counted}"]

    def _each_disk(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        disks = self._measured.get("disks")
        for disk in disks if isinstance(disks, list) else ():
            if isinstance(disk, dict):
                yield f"{str(disk.get('path'))[:60]} ({str(disk.get('name'))[:20]})", disk

    def _full(self) -> list[str]:
        """The disks that had no room, or for no file, at some moment."""
        found = []
        for name, disk in self._each_disk():
            free, inodes = _number(disk, "least_free_bytes"), _number(disk, "least_free_inodes")
            if free is not None and free <= _floor(_number(disk, "total_bytes"), FULL_BYTES):
                found.append(f"{name}: {free / 1e6:.1f} MB free at its fullest")
            if inodes is not None and inodes <= _floor(_number(disk, "total_inodes"), FULL_INODES):
                found.append(f"{name}: {inodes:.0f} inodes free at its fullest")
        return found

    def _disks(self) -> list[str]:
        told = [(name, _number(disk, "least_free_bytes")) for name, disk in self._each_disk()]
        return [f"{name}: {free / 1e9:.1f} GB free at its fullest" for name, free in told if free is not None]

    def _busy_gpus(self) -> list[str]:
        gpus = self._measured.get("gpus")
        found = []
        for gpu in gpus if isinstance(gpus, list) else ():
            used, total = _number(gpu, "used_bytes"), _number(gpu, "total_bytes")
            if used and total and used >= BUSY_GPU_BYTES:
                found.append(
                    f"{str(gpu.get('name'))[:40]}: others hold {used / GIB:.1f} of {total / GIB:.1f} GiB, the run gone"
                )
        return found


def _quoted(words: str, row: Failure) -> str:
    return next(
        (line for line in reversed(words.splitlines()) if row.signal.search(line)), words[-EVIDENCE_CHARACTERS:]
    )


def _floor(total: float | None, most: float) -> float:
    """What is as good as nothing: of a small disk less than of a large one."""
    return most if total is None else min(most, total * FULL_SHARE)


def _number(table: Any, *keys: str) -> float | None:
    """A number that can be counted with; a host may say anything."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    if (
        isinstance(table, bool)
        or not isinstance(table, int | float)
        or not 0 <= table < 1e18
        or not math.isfinite(table)
    ):
        return None
    return float(table)
