"""Whose turn it is on this machine: first come, first served, as many at once as there are free GPUs.

A ticket is a file, `<number>-<run id>`; its content is how many GPUs the run waits for, and those it was given.  No
process manages them: every waiting supervisor looks for itself, under a lock that dies with its holder, and a ticket
whose run is over, or whose supervisor is dead, counts for nothing.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from . import build_lock, inventory
from .atomic import read_object, write_json
from .refused import Refused

JOIN_S = 20.0
"""How long a new run waits for the lock, which nobody holds for longer than a moment unless it was stopped."""
POLL_S = 0.05
NO_GPU = -1


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
        """Take the next ticket for a run.  Raises Refused where somebody holds the queue and does not move."""
        with self._locked(JOIN_S) as is_ours:
            if not is_ours:
                raise Refused("queue_stuck", f"a stopped process holds {self._folder}/.lock", "try again")
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

        On a machine without any, one run at a time is given none.  Raises Refused for a run without a ticket.
        """
        slots = list(gpus) or [NO_GPU]
        with self._locked(0.0) as is_ours:
            if not is_ours:
                return None  # for this time
            if run_id not in [ticket.run_id for ticket in self._all()]:
                raise Refused("queue_left", f"{run_id} has no place in the queue any more")
            free = list(slots)
            for ticket in self._living(run_id):
                if ticket.given is not None:
                    # Who saw none may use one all the same: nvidia-smi fails now and then.
                    none_seen = NO_GPU in (*ticket.given, *slots)
                    free = [] if none_seen else [slot for slot in free if slot not in ticket.given]
                if ticket.run_id == run_id:
                    if ticket.given is None:
                        wanted = min(ticket.wanted or len(free), len(slots))
                        if not free or len(free) < wanted:
                            return None
                        ticket = ticket._replace(given=free[:wanted])
                        self._write(ticket)
                    return [slot for slot in ticket.given or () if slot != NO_GPU]
                if ticket.given is None:
                    break  # who came first and waits for more GPUs is not overtaken
        return None

    def waiting(self) -> Dict[str, int]:
        """The runs that wait, with their place among them from 1."""
        tickets = [one for one in self._all() if one.given is None and inventory.is_live(self._workspace, one.run_id)]
        return {ticket.run_id: place for place, ticket in enumerate(tickets, 1)}

    def _living(self, asking: str) -> Iterator[Ticket]:
        for ticket in self._all():
            if ticket.run_id == asking or inventory.is_live(self._workspace, ticket.run_id):
                yield ticket
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path(ticket.number, ticket.run_id))

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
    def _locked(self, wait_s: float) -> Iterator[bool]:
        """Whether nobody else changes the queue inside the block, after `wait_s` seconds at most."""
        os.makedirs(self._folder, exist_ok=True)
        deadline = time.monotonic() + wait_s
        with open(os.path.join(self._folder, ".lock"), "ab") as lock:
            while not (is_ours := build_lock.taken(lock.fileno())) and time.monotonic() < deadline:
                time.sleep(POLL_S)
            yield is_ours
