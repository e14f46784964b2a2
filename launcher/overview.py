"""How all runs stand: the ledger's memory, refreshed from every host that can be asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from launcher.app import App
from launcher.asking import ANSWER_S, Answer, ask
from launcher.errors import LaunchError
from launcher.host_book import LOCAL
from launcher.ledger import FINAL as ENDED
from launcher.ledger import Line
from launcher.untrusted import clean
from remote import runs
from remote.errors import OtherMachine, RemoteError, TimedOut, Unreachable

if TYPE_CHECKING:
    from remote.agent import Agent
    from remote.profile import Profile

SUBMITTING_S = 600
PIPE_COLUMNS = 10_000
DAY_S = 86_400
MOST_NAMED = 3
WONT_FIRE = {"dead": "its guard was killed", "void": "its results would not survive", "failed": "the command failed"}

Told = tuple[list[runs.State], runs.Presence | None]


@dataclass(frozen=True)
class Row:
    """One run.

    State `unknown`: its host can't be asked; that says nothing about the run, which `was` something else `was_s`
    seconds ago.  With `asking` it is what this laptop remembers, while its host is being asked.  `position` is its
    place in the host's queue, `silent_s` how long its supervisor gave no sign, `fuse_left_s` how long it takes at most
    until its host powers itself off, `fuse` how that stands.
    """

    run_id: str
    name: str
    host: str
    state: str
    reason: str
    age_s: float | None
    pulled_to: str
    position: int = 0
    silent_s: float | None = None
    fuse_left_s: float | None = None
    fuse: str = ""
    was: str = ""
    was_s: float | None = None
    attempt: int = 1
    superseded_by: str = ""
    is_known: bool = True
    asking: bool = False

    @property
    def is_over(self) -> bool:
        return self.state in ENDED

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Note:
    """Something to do about a host or a run: `code` for programs, and a sentence."""

    code: str
    host: str
    text: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Overview:
    """The runs, newest first, and what there is to say about them and their hosts."""

    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"runs": [row.to_json() for row in self.rows], "notes": [note.to_json() for note in self.notes]}


Observer = Callable[[Overview], None]


def nobody(seen: Overview) -> None:
    """The observer that does not look."""


def overview(app: App, *, host: str | None, every: bool, observer: Observer = nobody) -> Overview:
    """How the runs of this laptop stand, or those of one `host`; within seconds, whoever does not answer.

    Without `every` those that are over and pulled, or taken over by another attempt, are left out.  The observer sees
    what is remembered first, and again what is known so far with each host that answers.
    """
    lines = app.ledger.lines()
    if host is not None:
        return _of_host(app, host, lines)
    shown = [line for line in lines if every or not (line.is_over and (line.pulled_to or line.superseded_by))]
    wanted: dict[str, list[str]] = {line.host: [] for line in shown if not line.is_over}
    for line in shown:
        if not line.is_over:
            wanted[line.host].append(line.run_id)
    billed = _billed(app)
    hosts = [*wanted, *(name for name in billed if name not in wanted)]
    answers: dict[str, Answer[Told]] = {}
    waiting = set(hosts)
    if hosts:
        observer(_seen(shown, answers, waiting))
    for answer in ask(app, hosts, partial(_question, wanted, billed)):
        answers[answer.host] = answer
        waiting.discard(answer.host)
        observer(_seen(shown, answers, waiting))
    rows = _seen(shown, answers, set()).rows
    reached_before = app.ledger.reached() if any(answer.error for answer in answers.values()) else {}
    _remember(app, shown, answers)
    notes = [*_idle(billed, answers), *_fading(app, lines, answers, reached_before), *_twice(rows), *_fuses(rows)]
    return Overview(rows, tuple(notes))


def _billed(app: App) -> dict[str, Profile]:
    """The saved hosts that cost for as long as they are on."""
    found = {}
    for saved in app.hosts.all():
        profile = _profile(app, saved.name)
        if profile is not None and profile.billing:
            found[saved.name] = profile
    return found


def _profile(app: App, host: str) -> Profile | None:
    """The kind of machine it is, as far as that is remembered or its address tells."""
    from remote.ssh import address as addresses

    try:
        saved = app.hosts.find(host)
        if saved.profile:
            return app.profiles.named(saved.profile)
        return app.profiles.by_address(addresses.parse(saved.login).host) if saved.name != LOCAL else None
    except (RemoteError, LaunchError):
        return None


def _question(wanted: Mapping[str, list[str]], billed: Mapping[str, Profile], host: str, agent: Agent) -> Told:
    if host in billed:
        return runs.look(agent, wanted.get(host, []), timeout_s=ANSWER_S)
    return runs.states(agent, wanted[host]), None


def _of_host(app: App, host: str, lines: Sequence[Line]) -> Overview:
    """Every run that lies there, whoever started it.  Raises what asking raises."""
    states, presence = runs.look(app.agent(host), None)
    known = {line.run_id: line for line in lines}
    answers: dict[str, Answer[Told]] = {host: Answer(host, (states, presence))}
    _remember(app, [line for line in lines if line.host == host], answers)
    ordered = sorted(states, key=lambda state: state.run_age_s if math.isfinite(state.run_age_s) else math.inf)
    rows = tuple(_row(state, host, known.get(state.run_id)) for state in ordered)
    profile = _profile(app, host)
    notes = list(_idle({host: profile} if profile and profile.billing else {}, answers))
    foreign = [row.run_id for row in rows if not row.is_known]
    if foreign:
        text = f"{_named(foreign)} {_were(foreign)} started elsewhere: launch adopt {foreign[0]} --host {host}"
        notes.append(Note("foreign", host, text))
    return Overview(rows, (*notes, *_twice(rows), *_fuses(rows)))


def _seen(lines: Sequence[Line], answers: Mapping[str, Answer[Told]], waiting: set[str]) -> Overview:
    """What is known of the runs at this moment."""
    states = {
        host: {state.run_id: state for state in answer.value[0]} for host, answer in answers.items() if answer.value
    }
    rows = []
    for line in lines:
        answer = answers.get(line.host)
        state = states.get(line.host, {}).get(line.run_id)
        if line.is_over or (answer is None and line.host not in waiting):
            rows.append(_remembered(line, asking=False))
        elif answer is None:
            rows.append(_remembered(line, asking=True))
        elif answer.error is not None:
            rows.append(_unknown(line, _short(answer.error, line.host)))
        elif state is None:
            rows.append(_unknown(line, "its host said nothing about it"))
        elif state.state == "unknown":
            rows.append(_unknown(line, state.reason))
        else:
            rows.append(_row(state, line.host, line))
    return Overview(tuple(rows))


def _remember(app: App, lines: Sequence[Line], answers: Mapping[str, Answer[Told]]) -> None:
    told = {state.run_id: state for answer in answers.values() if answer.value for state in answer.value[0]}
    heard = []
    for line in lines:
        state = told.get(line.run_id)
        # A run that was remembered a moment ago may not be on its host yet: "gone" would be believed for ever.
        young = time.time() - line.submitted_at < SUBMITTING_S
        passing = state is None or state.state == "unknown" or (state.state == "gone" and young)
        if state is not None and not passing and not line.is_over:
            heard.append((line.run_id, state.state, state.reason, _finite(state.age_s)))
    if heard:
        app.ledger.note_states(heard)
    if reached := [host for host, answer in answers.items() if answer.value]:
        app.ledger.note_reached(reached)


def _row(state: runs.State, host: str, line: Line | None) -> Row:
    return Row(
        run_id=clean(state.run_id),
        name=clean(line.name if line else state.name),
        host=host,
        state=state.state,
        reason=clean(state.reason),
        age_s=None if state.state == "gone" else _finite(state.age_s),
        pulled_to=line.pulled_to if line else "",
        position=state.position,
        silent_s=None if state.is_over else _finite(state.beat_age_s),
        fuse_left_s=_finite(state.fuse_left_s),
        fuse=clean(state.fuse),
        attempt=line.attempt if line else 1,
        superseded_by=line.superseded_by if line else "",
        is_known=line is not None,
    )


def _remembered(line: Line, *, asking: bool) -> Row:
    return Row(
        run_id=line.run_id,
        name=clean(line.name),
        host=line.host,
        state=line.state,
        reason=clean(line.reason),
        age_s=round(max(0.0, time.time() - line.since), 1) if line.since else None,
        pulled_to=line.pulled_to,
        attempt=line.attempt,
        superseded_by=line.superseded_by,
        asking=asking,
    )


def _unknown(line: Line, reason: str) -> Row:
    was_s = round(max(0.0, time.time() - line.checked_at), 1)
    changes = {"state": "unknown", "reason": clean(reason), "age_s": None, "was": line.state, "was_s": was_s}
    return replace(_remembered(line, asking=False), **changes)  # type: ignore[arg-type]


def _finite(seconds: float | None) -> float | None:
    """A host may say NaN or Infinity, which are not JSON."""
    return round(seconds, 1) if seconds is not None and math.isfinite(seconds) else None


def _short(error: RemoteError | LaunchError, host: str) -> str:
    """What failed, without the host's name, which stands beside it."""
    message = getattr(error, "short", "") or error.message
    return message.removeprefix(f"{host}: ").partition("\n")[0]


def _idle(billed: Mapping[str, Profile], answers: Mapping[str, Answer[Told]]) -> Iterator[Note]:
    """Machines that cost and that nobody uses."""
    for host, profile in billed.items():
        answer = answers.get(host)
        presence = answer.value[1] if answer and answer.value else None
        if presence is None or not presence.is_idle:
            continue
        gpus = "no process on a GPU" if presence.gpu_pids is not None else "its GPUs can't be seen"
        end = f"launch host poweroff {host}" if profile.poweroff.safe else "stop it in the provider's console"
        text = f"{host} is on and idle (no run, nobody logged in, {gpus}): it costs; {end}"
        yield Note("idle", host, text)


def _fading(
    app: App, lines: Sequence[Line], answers: Mapping[str, Answer[Told]], reached: Mapping[str, float]
) -> Iterator[Note]:
    """Machines that can't be reached, whose provider deletes data some days after a power-off, with runs on them.

    When it was switched off nobody tells: not before it answered last.
    """
    for host, answer in answers.items():
        if not isinstance(answer.error, Unreachable | TimedOut | OtherMachine):
            continue
        profile = _profile(app, host)
        there = [line.run_id for line in lines if line.host == host and not line.pulled_to and line.state != "gone"]
        if profile is None or not profile.kept_days or not there or host not in reached:
            continue
        days = (reached[host] + profile.kept_days * DAY_S - time.time()) / DAY_S
        rule = f"{profile.title} deletes a box's data {profile.kept_days} days after its power-off"
        soon = "perhaps within a day" if days > 0 else "perhaps by now"
        when = f"in {days:.0f} days at the earliest" if days >= 1.5 else soon
        since = in_words(time.time() - reached[host])
        text = f"{host} can't be reached, and {_named(there)} never came home: {rule}, {when} (it answered {since} ago)"
        yield Note("fading", host, text)


def _twice(rows: Sequence[Row]) -> Iterator[Note]:
    """Attempts that were given up for dead, and are not."""
    for row in rows:
        if row.superseded_by and not row.is_over and row.state != "unknown" and not row.asking:
            text = f"{row.run_id} goes on although {row.superseded_by} took over: launch stop {row.run_id}"
            yield Note("twice", row.host, text)


def _fuses(rows: Sequence[Row]) -> Iterator[Note]:
    """Power-offs that somebody counts on, and that won't come."""
    for row in rows:
        word, _, why = row.fuse.partition(": ")
        if word in WONT_FIRE:
            text = f"{row.host} won't power itself off after {row.run_id}: {why or WONT_FIRE[word]}"
            yield Note("fuse", row.host, text)


def _named(run_ids: Sequence[str]) -> str:
    more = len(run_ids) - MOST_NAMED
    return ", ".join(run_ids[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _were(run_ids: Sequence[str]) -> str:
    return "was" if len(run_ids) == 1 else "were"


def age(seconds: float | None) -> str:
    """A time that has passed, in its largest unit."""
    return "" if seconds is None else in_words(seconds)


def in_words(seconds: float) -> str:
    """A length of time in its largest unit; `?` of what is none."""
    if not 0 <= seconds < 1e6 * DAY_S:
        return "?"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
