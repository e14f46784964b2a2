"""Puts one question to many hosts at once and gives their answers as they come, within a bounded time.

Nobody is asked for a password, and a host that hangs is left behind: its thread ends with the process.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from launcher.errors import LaunchError
from remote.errors import BadReply, RemoteError, TimedOut

if TYPE_CHECKING:
    from launcher.app import App
    from remote.agent import Agent

ANSWER_S = 7.0
# Each is a thread and a connection; who has more hosts waits a little for the rest.
AT_ONCE = 32

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What one host said, or why there is no answer."""

    host: str
    value: T | None = None
    error: RemoteError | LaunchError | None = None


def ask(
    app: App, hosts: Sequence[str], question: Callable[[str, Agent], T], *, within_s: float = ANSWER_S
) -> Iterator[Answer[T]]:
    """One answer a host, as they come; after `within_s` seconds what has not come is TimedOut."""
    deadline = time.monotonic() + within_s
    answers: queue.SimpleQueue[Answer[T]] = queue.SimpleQueue()
    waiting: queue.SimpleQueue[tuple[str, Agent]] = queue.SimpleQueue()
    open_ones = set(hosts)
    for host in open_ones:
        try:
            waiting.put((host, app.agent(host, quiet=True)))  # here, for the composition is no thing for threads
        except (RemoteError, LaunchError) as error:
            answers.put(Answer(host, error=error))

    def work() -> None:
        while True:
            try:
                host, agent = waiting.get_nowait()
            except queue.Empty:
                return
            answers.put(_answer(host, agent, question))

    for _ in range(min(AT_ONCE, len(open_ones))):
        threading.Thread(target=work, daemon=True).start()
    while open_ones:
        try:
            answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        open_ones.discard(answer.host)
        yield answer
    for host in sorted(open_ones):
        yield Answer(host, error=TimedOut(f"{host}: no answer within {within_s:g} s", hint=f"launch host probe {host}"))


def _answer(host: str, agent: Agent, question: Callable[[str, Agent], T]) -> Answer[T]:
    try:
        return Answer(host, question(host, agent))
    except (RemoteError, LaunchError) as error:
        return Answer(host, error=error)
    except Exception as error:  # what one host says must not cost us the others' answers
        return Answer(host, error=BadReply(f"{host}: its answer can't be understood ({type(error).__name__})"))
