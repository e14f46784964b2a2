"""Runs on a host, seen from the laptop: submit, list, follow, stop, fetch."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from remote.agent import Agent, lost
from remote.errors import BadReply, RemoteError, Unreachable
from remote.onhost.frames import BrokenStream, EndedEarly, Reader
from remote.onhost.states import FINAL
from remote.silence import Silence

LINE_LIMIT_BYTES = 8 * 1024 * 1024
PIECE_LIMIT_BYTES = 8 * 1024 * 1024
# Three times as long as a host that is there keeps quiet.
SILENCE_S = 30.0
# The host may wait for a clean-up, install tmux and start the supervisor before it answers.
SUBMIT_TIMEOUT_S = 120
# Of what a host tells in words; a reason may quote the last line of a log.
MOST_CHARACTERS, REASON_CHARACTERS = 300, 2000
# It becomes part of commands that people copy, and of paths.
RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,79}\Z")
# The grace for a job, what the supervisor takes beyond it, the search for what is left, and the GPUs' memory.
STOP_TIMEOUT_S = 90
REMOVE_TIMEOUT_S = 600
CHECKPOINTS = "checkpoints"
# `unknown` where the run's folder can't be read there, or a newer launch made it.
STATES = ("unknown", "queued", "preparing", "running", "verifying", "evaluating", *FINAL, "lost", "gone")


@dataclass(frozen=True)
class State:
    """One run as its host tells it; ages in seconds by the host's clock.

    `position` is its place in the host's queue, 0 when it does not wait there.  `beat_age_s` is how long ago its
    supervisor showed that it lives, None where that does not matter any more.  `fuse_left_s` is how long it takes at
    most until the host powers itself off, None where no fuse is armed.  `fuse` says how that stands in words, its
    first word being armed, waiting, kept, failed, fired, off, void or dead; empty without one.
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
    fuse: str = ""

    @property
    def is_over(self) -> bool:
        return self.state in FINAL or self.state in ("lost", "gone")


@dataclass(frozen=True)
class Crash:
    """What a host tells of a run that ended badly: what was measured (`crash.json`, untrusted), and its log's end.

    `can_resume` is whether it left a checkpoint, None where that is not known.
    """

    measured: dict[str, Any]
    log_tail: str
    can_resume: bool | None = None


@dataclass(frozen=True)
class Checkpoint:
    """What a run can go on from: the state after `step` steps, in the folder `path` below the run's own."""

    step: int
    path: str
    age_s: float
    size_bytes: int


@dataclass(frozen=True)
class Presence:
    """Who uses a host: ids of `live` runs, people that are logged in, processes on its GPUs, and how long it is on.

    None for what can't be seen there; the GPUs are not looked at where runs or logins tell enough.
    """

    live: tuple[str, ...]
    logins: int | None
    gpu_pids: tuple[int, ...] | None
    uptime_s: float | None

    @property
    def is_idle(self) -> bool:
        """Whether nobody uses it, as far as can be seen."""
        return not self.live and self.logins == 0 and not self.gpu_pids


@dataclass(frozen=True)
class Asked:
    """A run as its host describes it to whoever takes it over; `document` is untrusted."""

    state: State
    document: str
    attempt: int = 1
    resumes: str = ""
    only_prepares: bool = False


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
class Begun:
    """The stream has begun: at `offset` of the log, `age_s` seconds after the run was submitted.

    `files` are the names of the log's files in the run's folder.
    """

    offset: int
    age_s: float
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class LogText:
    """A piece of the log, as the job printed it; `offset` in bytes is where the next one begins."""

    content: bytes
    offset: int

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")


@dataclass(frozen=True)
class LogGap:
    """The log from `start` to `offset` is gone: the host keeps only so much of it."""

    start: int
    offset: int


@dataclass(frozen=True)
class RunEvent:
    """One event of the run; `offset` as in LogText."""

    fields: dict[str, Any]
    offset: int


def submit(
    agent: Agent,
    plan: dict[str, Any],
    *,
    links: Sequence[dict[str, str]],
    documents: dict[str, Any],
    from_run: dict[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
) -> Started:
    """Claim a run directory and start its supervisor.  `links` are {path, sha256} of objects in the store.

    With `from_run`, {"run_id", "paths"}, these files and folders of an earlier run there lie in the new one, too.
    `secrets` are variables for the run's processes; they reach the supervisor's memory and no lasting file.

    Where a host lacks tmux it is installed first, if that can be done soon; never on this machine.
    """
    request = {"plan": plan, "links": list(links), "documents": documents, "may_install": not agent.host.is_local}
    if from_run is not None:
        request["from_run"] = from_run
    words = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in (secrets or {}).items()]
    follows = b"\0".join(words)
    reply = agent.call("submit", request | {"secret_bytes": len(follows)}, timeout_s=SUBMIT_TIMEOUT_S, follows=follows)
    how, session, root, why = (str(reply.get(name) or "") for name in ("how", "session", "root", "why"))
    return Started(how, session, root, why)


def states(agent: Agent, run_ids: Sequence[str] | None = None) -> list[State]:
    """The states of the named runs, or of every run of the workspace."""
    asked = list(run_ids) if run_ids is not None else None
    return _states(agent, agent.call("states", {"run_ids": asked}), asked)


def state(agent: Agent, run_id: str) -> State:
    """The state of one run."""
    [found] = states(agent, [run_id])
    return found


def look(agent: Agent, run_ids: Sequence[str] | None, *, timeout_s: float = 60) -> tuple[list[State], Presence]:
    """As `states`, and in the same answer who else uses the host."""
    asked = list(run_ids) if run_ids is not None else None
    reply = agent.call("states", {"run_ids": asked, "host": True}, timeout_s=timeout_s)
    return _states(agent, reply, asked), _presence(reply.get("host"))


def asked(agent: Agent, run_id: str, document: str) -> Asked:
    """What a run was asked to do.  Raises NotFound where there is no such run."""
    reply = agent.call("asked", {"run_id": run_id, "document": document})
    text, plan = reply.get("document"), reply.get("plan")
    if not isinstance(text, str) or not isinstance(plan, dict):
        raise BadReply(f"{agent.host.name}: what it says about {run_id} has the wrong shape")
    attempt = plan.get("attempt")
    return Asked(
        state=_state(reply.get("run"), run_id),
        document=text,
        attempt=attempt if type(attempt) is int and 0 < attempt < 1000 else 1,
        resumes=_text(plan.get("resumes")),
        only_prepares=plan.get("only_prepares") is True,
    )


def checkpoints(agent: Agent, run_id: str) -> tuple[State, str, list[Checkpoint]]:
    """How a run stands, where its folder lies on its host, and its checkpoints, newest first."""
    reply = agent.call("checkpoints", {"run_id": run_id})
    rows = reply.get("checkpoints")
    if not isinstance(rows, list):
        raise BadReply(f"{agent.host.name}: the list of checkpoints has the wrong shape")
    found = sorted(map(_checkpoint, rows), key=lambda one: one.step, reverse=True)
    return _state(reply.get("run"), run_id), _text(reply.get("root")), found


def session(agent: Agent, run_id: str) -> tuple[State, list[str]]:
    """How a run stands, and the command that attaches to its tmux session; empty where there is none."""
    reply = agent.call("session", {"run_id": run_id})
    argv = reply.get("argv")
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        raise BadReply(f"{agent.host.name}: what it says about the session has the wrong shape")
    return _state(reply.get("run"), run_id), argv


def remove(agent: Agent, run_id: str, *, pulled: bool, force: bool, wait_s: float = 10) -> tuple[bool, list[str]]:
    """Take a run away from its host: whether it was there, and what of it could not be removed.

    Raises RemoteError for a run that is not over (run_live), and for one that succeeded and is neither `pulled` nor
    forced to go (run_not_pulled).
    """
    request = {"run_id": run_id, "pulled": pulled, "force": force, "wait_s": wait_s}
    reply = agent.call("remove", request, timeout_s=REMOVE_TIMEOUT_S)
    errors = reply.get("errors")
    if not isinstance(errors, list) or not isinstance(reply.get("was_there"), bool):
        raise BadReply(f"{agent.host.name}: what it says about removing has the wrong shape")
    return reply["was_there"], [_text(error) for error in errors]


def stop(agent: Agent, run_id: str) -> Stopped:
    """End a run: its state afterwards, and what is left of it.  The host goes on with it even if nobody waits."""
    reply = agent.call("stop", {"run_id": run_id}, timeout_s=STOP_TIMEOUT_S)
    state, left, gpu_left = _state(reply.get("run"), run_id), reply.get("left"), reply.get("gpu_left")
    newest = None if reply.get("checkpoint") is None else _checkpoint(reply["checkpoint"])
    return Stopped(
        **vars(state), left=None if left is None else _pids(left), gpu_left=_pids(gpu_left), checkpoint=newest
    )


def fuse(agent: Agent, run_id: str, *, off: bool = False) -> State:
    """How a run and its fuse stand, after the fuse was disarmed if that is asked."""
    return _state(agent.call("fuse", {"run_id": run_id, "off": off}).get("run"), run_id)


def crash(agent: Agent, run_id: str) -> Crash:
    """Why a run ended badly, as far as its host can tell."""
    reply = agent.call("crash", {"run_id": run_id})
    measured = reply.get("crash")
    measured = measured if isinstance(measured, dict) else {}
    return Crash(measured, _text(reply.get("log_tail")), can_resume=reply.get("checkpoint") is not None)


def follow(
    agent: Agent,
    run_id: str,
    *,
    log_offset: int = 0,
    events_offset: int = 0,
    once: bool = False,
    tail: int | None = None,
    since_s: float | None = None,
    silence_s: float = SILENCE_S,
) -> Generator[Begun | LogText | LogGap | RunEvent | State]:
    """What the run says from the offsets on: first Begun, last a State.

    With `tail` (lines) or `since_s` the host computes where the log begins, the later of both.  Raises NotFound where
    there is no such run, and Unreachable if the stream breaks before the state, or says nothing for `silence_s`: the
    host says at least every ten seconds that it is there.
    """
    request = {"run_id": run_id, "log_offset": log_offset, "events_offset": events_offset, "once": once}
    request |= {"tail": tail, "since_s": since_s}
    with agent.converse("follow", request) as talk:
        talk.end()
        with Silence(silence_s, talk.hang_up) as silence:
            reader = Reader(silence.watched(talk.rest()), line_limit=LINE_LIMIT_BYTES)
            try:
                yield from _said(agent, run_id, reader)
            except (EndedEarly, Unreachable) as error:
                if silence.is_broken:
                    raise Unreachable(f"{agent.host.name}: nothing was heard for {silence_s:g} s") from error
                raise lost(agent.host, error) if isinstance(error, EndedEarly) else error from error.__cause__


def log_files(agent: Agent, run_id: str) -> tuple[str, ...]:
    """The names of the files of a run's log, the first first."""
    for said in follow(agent, run_id, once=True, tail=0):
        if isinstance(said, Begun):
            return said.files
    return ()


def _said(agent: Agent, run_id: str, reader: Reader) -> Iterator[Begun | LogText | LogGap | RunEvent | State]:
    while True:
        try:
            said = json.loads(reader.line())
            match said:
                case {"log": int(size), "offset": int(offset)} if 0 < size <= PIECE_LIMIT_BYTES:
                    yield LogText(reader.exactly(size), offset)
                case {"event": str(line), "offset": int(offset)}:
                    yield RunEvent(_event(line), offset)
                case {"begin": int(offset), "age_s": int() | float() as age_s, "files": list(files)}:
                    yield Begun(offset, age_s, tuple(one for one in files if isinstance(one, str)))
                case {"gap": int(start), "offset": int(offset)} if start < offset:
                    yield LogGap(start, offset)
                case {"state": dict(row)}:
                    yield _state(row, run_id)
                    return
                case {"alive": _}:
                    continue
                case _:
                    raise BadReply(f"{agent.host.name}: the log stream has the wrong shape")
        except EndedEarly:
            raise
        except (BrokenStream, ValueError, RecursionError) as error:
            raise BadReply(f"{agent.host.name}: the log stream can't be read") from error


def _event(line: str) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _states(agent: Agent, reply: dict[str, Any], asked: list[str] | None) -> list[State]:
    rows = reply.get("runs")
    if not isinstance(rows, list):
        raise BadReply(f"{agent.host.name}: the list of runs has the wrong shape")
    found = [_state(row, *(asked or ())) for row in rows]
    if asked is not None and sorted(one.run_id for one in found) != sorted(asked):
        raise BadReply(f"{agent.host.name}: the runs it tells of are not those that were asked for")
    return found


def _presence(row: Any) -> Presence:
    try:
        live, logins, gpus, uptime_s = row["live"], row["logins"], row["gpu_pids"], row["uptime_s"]
        return Presence(
            live=tuple(_text(run_id) for run_id in live),
            logins=None if logins is None else int(logins),
            gpu_pids=None if gpus is None else _pids(gpus),
            uptime_s=_seconds(uptime_s),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadReply("what the host says about its use has the wrong shape") from error


def _pids(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(pid) is int for pid in value):
        raise BadReply("the list of processes has the wrong shape")
    return tuple(value)


def _checkpoint(row: Any) -> Checkpoint:
    try:
        step, path, age_s, size_bytes = row["step"], row["path"], float(row["age_s"]), row["size_bytes"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadReply("the description of a checkpoint has the wrong shape") from error
    if not (type(step) is int and type(size_bytes) is int and 0 <= step < 10**12 and 0 <= size_bytes < 1 << 62):
        raise BadReply("the numbers of a checkpoint have the wrong shape")
    # The path is opened below the run's folder, on the host and here.
    if path != f"{CHECKPOINTS}/step-{step:08d}":
        raise BadReply("the description of a checkpoint has the wrong shape")
    return Checkpoint(step, path, age_s, size_bytes)


def _text(value: Any) -> str:
    """JSON has halves of characters, which no file and no database takes."""
    return str(value or "").encode("utf-8", "replace").decode()


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _state(row: Any, *asked: str) -> State:
    """The state in a row, which is that of a run that was asked for, if any was.  Raises BadReply."""
    try:
        state = State(
            run_id=str(row["run_id"]),
            state=str(row["state"]),
            reason=_text(row.get("reason"))[:REASON_CHARACTERS],
            name=_text(row.get("name"))[:MOST_CHARACTERS],
            age_s=float(row.get("age_s") or 0),
            run_age_s=float(row.get("run_age_s") or 0),
            position=int(row.get("position") or 0),
            beat_age_s=_seconds(row.get("beat_age_s")),
            fuse_left_s=_seconds(row.get("fuse_left_s")),
            fuse=_text(row.get("fuse"))[:MOST_CHARACTERS],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadReply("the state of a run has the wrong shape") from error
    if state.state not in STATES:
        raise RemoteError(
            f"{state.run_id[:80]}: state {state.state[:40]!r} is unknown here", hint="pip install --upgrade lora-launch"
        )
    if state.run_id not in asked if asked else not RUN_ID.match(state.run_id):
        raise BadReply("the state of a run is that of another")
    return state
