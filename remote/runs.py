"""Runs on a host, seen from the laptop: submit, list, follow, stop, fetch."""

from __future__ import annotations

import json
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
MOST_CHARACTERS = 300
STATES = ("queued", "preparing", "running", "verifying", "evaluating", *FINAL, "lost", "gone")


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
    """What a host tells of a run that ended badly: what was measured (`crash.json`, untrusted), and its log's end."""

    measured: dict[str, Any]
    log_tail: str


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
    secrets: Mapping[str, str] | None = None,
) -> Started:
    """Claim a run directory and start its supervisor.  `links` are {path, sha256} of objects in the store.

    `secrets` are variables for the run's processes; they reach the supervisor's memory and no lasting file.

    Where a host lacks tmux it is installed first, if that can be done soon; never on this machine.
    """
    request = {"plan": plan, "links": list(links), "documents": documents, "may_install": not agent.host.is_local}
    words = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in (secrets or {}).items()]
    follows = b"\0".join(words)
    reply = agent.call("submit", request | {"secret_bytes": len(follows)}, timeout_s=SUBMIT_TIMEOUT_S, follows=follows)
    how, session, root, why = (str(reply.get(name) or "") for name in ("how", "session", "root", "why"))
    return Started(how, session, root, why)


def states(agent: Agent, run_ids: Sequence[str] | None = None) -> list[State]:
    """The states of the named runs, or of every run of the workspace."""
    reply = agent.call("states", {"run_ids": list(run_ids) if run_ids is not None else None})
    rows = reply.get("runs")
    if not isinstance(rows, list):
        raise BadReply(f"{agent.host.name}: the list of runs has the wrong shape")
    return [_state(row) for row in rows]


def stop(agent: Agent, run_id: str) -> State:
    """End a run; its state afterwards."""
    return _state(agent.call("stop", {"run_id": run_id}, timeout_s=60).get("run"))


def fuse(agent: Agent, run_id: str, *, off: bool = False) -> State:
    """How a run and its fuse stand, after the fuse was disarmed if that is asked."""
    return _state(agent.call("fuse", {"run_id": run_id, "off": off}).get("run"))


def crash(agent: Agent, run_id: str) -> Crash:
    """Why a run ended badly, as far as its host can tell."""
    reply = agent.call("crash", {"run_id": run_id})
    measured = reply.get("crash")
    return Crash(measured if isinstance(measured, dict) else {}, _text(reply.get("log_tail")))


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
                yield from _said(agent, reader)
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


def _said(agent: Agent, reader: Reader) -> Iterator[Begun | LogText | LogGap | RunEvent | State]:
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
                case {"gap": int(start), "offset": int(offset)}:
                    yield LogGap(start, offset)
                case {"state": dict(row)}:
                    yield _state(row)
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
            fuse=_text(row.get("fuse"))[:MOST_CHARACTERS],
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadReply("the state of a run has the wrong shape") from error
    if state.state not in STATES:
        raise RemoteError(
            f"{state.run_id}: state {state.state!r} is unknown here", hint="pip install --upgrade lora-launch"
        )
    return state
