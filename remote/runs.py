"""Runs on a host, seen from the laptop: submit, list, follow, stop, fetch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from remote.agent import Agent, lost
from remote.errors import BadReply, RemoteError
from remote.onhost.frames import BrokenStream, EndedEarly, Reader
from remote.onhost.states import FINAL

LINE_LIMIT_BYTES = 8 * 1024 * 1024
# The host may wait for a clean-up, install tmux and start the supervisor before it answers.
SUBMIT_TIMEOUT_S = 120
# The grace for a job, what the supervisor takes beyond it, the search for what is left, and the GPUs' memory.
STOP_TIMEOUT_S = 90
CHECKPOINTS = "checkpoints"
STATES = ("queued", "preparing", "running", "verifying", "evaluating", *FINAL, "lost", "gone")


@dataclass(frozen=True)
class State:
    """One run as its host tells it; ages in seconds by the host's clock.

    `position` is its place in the host's queue, 0 when it does not wait there.  `beat_age_s` is how long ago its
    supervisor showed that it lives, None where that does not matter any more.  `fuse_left_s` is how long it takes at
    most until the host powers itself off, None where no fuse is armed.
    """

    run_id: str
    state: str
    reason: str = ""
    name: str = ""
    age_s: float = 0.0
    run_age_s: float = 0.0
    position: int = 0
    beat_age_s: float | None = None
    fuse_left_s: float | None = None

    @property
    def is_over(self) -> bool:
        return self.state in FINAL or self.state in ("lost", "gone")


@dataclass(frozen=True)
class Checkpoint:
    """What a run can go on from: the state after `step` steps, in the folder `path` below the run's own."""

    step: int
    path: str
    age_s: float
    size_bytes: int


@dataclass(frozen=True)
class Stopped(State):
    """A run after it was stopped, with its newest checkpoint.

    `left` are pids of its processes that are still there, None where the host can't tell; `gpu_left` those that still
    hold memory of a GPU.  Both empty: proof that nothing is left.
    """

    left: tuple[int, ...] | None = ()
    gpu_left: tuple[int, ...] = ()
    checkpoint: Checkpoint | None = None


@dataclass(frozen=True)
class Started:
    """How a run was started: `how` is tmux or setsid, `session` its tmux session, `root` its folder there.

    `why` says why it is setsid, or where the tmux came from; empty where there is nothing to say.
    """

    how: str
    session: str
    root: str
    why: str = ""


@dataclass(frozen=True)
class LogText:
    """A piece of the log; `offset` in bytes is where the next one begins."""

    text: str
    offset: int


@dataclass(frozen=True)
class RunEvent:
    """One event of the run; `offset` as in LogText."""

    fields: dict[str, Any]
    offset: int


def submit(
    agent: Agent, plan: dict[str, Any], *, links: Sequence[dict[str, str]], documents: dict[str, Any]
) -> Started:
    """Claim a run directory and start its supervisor.  `links` are {path, sha256} of objects in the store.

    Where a host lacks tmux it is installed first, if that can be done soon; never on this machine.
    """
    request = {"plan": plan, "links": list(links), "documents": documents, "may_install": not agent.host.is_local}
    reply = agent.call("submit", request, timeout_s=SUBMIT_TIMEOUT_S)
    how, session, root, why = (str(reply.get(name) or "") for name in ("how", "session", "root", "why"))
    return Started(how, session, root, why)


def states(agent: Agent, run_ids: Sequence[str] | None = None) -> list[State]:
    """The states of the named runs, or of every run of the workspace."""
    reply = agent.call("states", {"run_ids": list(run_ids) if run_ids is not None else None})
    rows = reply.get("runs")
    if not isinstance(rows, list):
        raise BadReply(f"{agent.host.name}: the list of runs has the wrong shape")
    return [_state(row) for row in rows]


def stop(agent: Agent, run_id: str) -> Stopped:
    """End a run: its state afterwards, and what is left of it.  The host goes on with it even if nobody waits."""
    reply = agent.call("stop", {"run_id": run_id}, timeout_s=STOP_TIMEOUT_S)
    state, left, gpu_left = _state(reply.get("run")), reply.get("left"), reply.get("gpu_left")
    newest = None if reply.get("checkpoint") is None else _checkpoint(reply["checkpoint"])
    return Stopped(
        **vars(state), left=None if left is None else _pids(left), gpu_left=_pids(gpu_left), checkpoint=newest
    )


def follow(
    agent: Agent, run_id: str, *, log_offset: int = 0, events_offset: int = 0, once: bool = False
) -> Iterator[LogText | RunEvent | State]:
    """What the run says from the offsets on; a State comes last.  Raises Unreachable if the stream breaks before it."""
    request = {"run_id": run_id, "log_offset": log_offset, "events_offset": events_offset, "once": once}
    with closing(agent.stream("follow", request)) as chunks:
        reader = Reader(chunks, line_limit=LINE_LIMIT_BYTES)
        while True:
            try:
                said = json.loads(reader.line())
            except EndedEarly as error:
                raise lost(agent.host, error) from error
            except (BrokenStream, ValueError, RecursionError) as error:
                raise BadReply(f"{agent.host.name}: the log stream can't be read") from error
            match said:
                case {"log": str(text), "offset": int(offset)}:
                    yield LogText(text, offset)
                case {"event": str(line), "offset": int(offset)}:
                    yield RunEvent(_event(line), offset)
                case {"state": dict(row)}:
                    yield _state(row)
                    return
                case {"alive": _}:
                    continue
                case _:
                    raise BadReply(f"{agent.host.name}: the log stream has the wrong shape")


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _pids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(pid) is int for pid in value):
        raise BadReply("the list of processes has the wrong shape")
    return tuple(value)


def _checkpoint(row: Any) -> Checkpoint:
    try:
        step, path, age_s, size_bytes = row["step"], row["path"], float(row["age_s"]), row["size_bytes"]
    except (KeyError, TypeError, ValueError) as error:
        raise BadReply("the description of a checkpoint has the wrong shape") from error
    # The path is opened below the run's folder, on the host and here.
    if type(step) is not int or type(size_bytes) is not int or path != f"{CHECKPOINTS}/step-{step:08d}":
        raise BadReply("the description of a checkpoint has the wrong shape")
    return Checkpoint(step, path, age_s, size_bytes)


def _text(value: Any) -> str:
    """JSON has halves of characters, which no file and no database takes."""
    return str(value or "").encode("utf-8", "replace").decode()


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _state(row: Any) -> State:
    try:
        state = State(
            run_id=str(row["run_id"]),
            state=str(row["state"]),
            reason=_text(row.get("reason")),
            name=_text(row.get("name")),
            age_s=float(row.get("age_s") or 0),
            run_age_s=float(row.get("run_age_s") or 0),
            position=int(row.get("position") or 0),
            beat_age_s=_seconds(row.get("beat_age_s")),
            fuse_left_s=_seconds(row.get("fuse_left_s")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadReply("the state of a run has the wrong shape") from error
    if state.state not in STATES:
        raise RemoteError(
            f"{state.run_id}: state {state.state!r} is unknown here", hint="pip install --upgrade lora-launch"
        )
    return state
