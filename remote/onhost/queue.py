"""Whose turn it is on this machine: first come, first served, as many at once as there are free GPUs.

A ticket is a file, `<number>-<run id>`; its content is how many GPUs the run waits for, and those it was given.  No
process manages them: every waiting supervisor looks for itself, under a lock that dies with its holder, and a ticket
whose run is over, or whose supervisor is dead, counts for nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from .atomic import read_object, write_json
from .build_lock import WITHOUT_LOCKS
from .refused import Refused
from .run import Run
from .states import FINAL


class Ticket(NamedTuple):
    """A place in the queue; `wanted` 0 stands for all GPUs that are free, `given` is None while it waits."""

    number: int
    run_id: str
    wanted: int
    given: Optional[List[int]]


class Queue:
    """The queue of one workspace."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._folder = os.path.join(workspace, "queue")

    def join(self, run_id: str, wanted: int) -> None:
        """Take the next ticket for a run."""
        with self._locked():
            number = max((ticket.number for ticket in self._all()), default=0) + 1
            write_json(self._path(number, run_id), {"wanted": wanted, "given": None})

    def leave(self, run_id: str) -> None:
        """Give the run's ticket back."""
        for ticket in self._all():
            if ticket.run_id == run_id:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(ticket.number, run_id))

    def turn(self, run_id: str, gpus: Sequence[int]) -> Optional[List[int]]:
        """The GPUs that the run is given, out of those this machine has; None while others come first.

        On a machine without any, one run at a time is given none.
        """
        slots = list(gpus) or [-1]
        with self._locked():
            free = list(slots)
            for ticket in self._living(run_id):
                if ticket.given is not None:
                    free = [slot for slot in free if slot not in ticket.given]
                if ticket.run_id == run_id:
                    if ticket.given is None:
                        wanted = min(ticket.wanted or len(free), len(slots))
                        if not free or len(free) < wanted:
                            return None
                        ticket = ticket._replace(given=free[:wanted])
                        self._write(ticket)
                    return [slot for slot in ticket.given or () if slot >= 0]
                if ticket.given is None:
                    return None  # who came first and waits for more GPUs is not overtaken
        raise Refused("queue_left", f"{run_id} has no place in the queue any more")

    def waiting(self) -> Dict[str, int]:
        """The runs that wait, with their place among them from 1."""
        tickets = [ticket for ticket in self._all() if ticket.given is None]
        return {ticket.run_id: place for place, ticket in enumerate(tickets, 1)}

    def _living(self, asking: str) -> Iterator[Ticket]:
        for ticket in self._all():
            if ticket.run_id == asking or self._is_live(ticket.run_id):
                yield ticket
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(ticket.number, ticket.run_id))

    def _is_live(self, run_id: str) -> bool:
        try:
            state = Run(self._workspace, run_id).state()["state"]
        except Refused:
            return False
        return state not in (*FINAL, "lost")

    def _all(self) -> List[Ticket]:
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        tickets = []
        for name in names:
            number, _, run_id = name.partition("-")
            if not number.isdigit() or not run_id:
                continue
            content = read_object(os.path.join(self._folder, name))
            wanted, given = content.get("wanted"), content.get("given")
            tickets.append(Ticket(
                int(number), run_id, wanted if isinstance(wanted, int) else 1,
                [slot for slot in given if isinstance(slot, int)] if isinstance(given, list) else None,
            ))  # fmt: skip
        return tickets

    def _write(self, ticket: Ticket) -> None:
        write_json(self._path(ticket.number, ticket.run_id), {"wanted": ticket.wanted, "given": ticket.given})

    def _path(self, number: int, run_id: str) -> str:
        return os.path.join(self._folder, f"{number:010d}-{run_id}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        os.makedirs(self._folder, exist_ok=True)
        with open(os.path.join(self._folder, ".lock"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
            yield
