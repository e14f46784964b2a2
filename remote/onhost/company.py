"""Who else needs this machine at the moment: runs, the queue, people, transfers, GPU processes.

Asked before the machine is switched off, and so on the careful side: whoever can't be told apart counts.
"""

from __future__ import annotations

import glob
import os
import re
import time
from typing import Iterator, List

from . import fuse, occupied
from .inventory import names, standing
from .refused import Refused
from .run import RUN_ID, RUN_VARIABLE, Run

SUBMITTING_S = 120.0
TICKET = re.compile(r"\d+-(.+)\Z")
# What our program does for somebody who waits for it.
AT_WORK = (b"submit", b"store", b"sync", b"clean")


def look(workspace: str, own: str) -> str:
    """Who is there besides the run `own`, in words for a person; empty where nobody is."""
    # The last one starts a program, and is only asked where all else is quiet.
    for ask in (_runs, _queue, _people, _transfers, _gpus):
        for found in ask(workspace, own):
            return found
    return ""


def _runs(workspace: str, own: str) -> Iterator[str]:
    for name in names(workspace, "runs"):
        if name == own or not RUN_ID.match(name):
            continue
        run = Run(workspace, name)
        try:
            over = run.result() is not None
        except Refused:
            over = False
        if over:
            if fuse.is_keeping(run):
                yield f"run {name} failed, and is to be looked at"
        elif standing(workspace, name).is_live or _is_young(run.root):
            yield f"run {name} goes on"


def _is_young(folder: str) -> bool:
    """Whether it can be one that is being submitted right now, without a plan yet."""
    try:
        return not os.path.exists(os.path.join(folder, "plan.json")) and (
            abs(time.time() - os.stat(folder).st_mtime) < SUBMITTING_S
        )
    except FileNotFoundError:
        return False


def _queue(workspace: str, own: str) -> Iterator[str]:
    for name in names(workspace, "queue"):
        found = TICKET.match(name)
        if not found or found.group(1) == own:
            continue
        # A ticket outlives a run that was killed.
        if not RUN_ID.match(found.group(1)) or not _is_over(workspace, found.group(1)):
            yield f"{found.group(1)[:80]} waits in the queue"


def _is_over(workspace: str, run_id: str) -> bool:
    try:
        return Run(workspace, run_id).result() is not None
    except Refused:
        return False


def _people(workspace: str, own: str) -> Iterator[str]:
    logins = occupied.logins() or 0
    if logins:
        yield f"{logins} {'people are' if logins > 1 else 'person is'} logged in"
    if any(_content(path).startswith(b"tmux: client") for path in glob.glob("/proc/[0-9]*/comm")):
        yield "somebody is attached to tmux"


def _transfers(workspace: str, own: str) -> Iterator[str]:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        words: List[bytes] = _content(path).split(b"\0")
        at = next((place for place, word in enumerate(words[:-1]) if word.endswith(b".pyz")), None)
        if at is not None and words[at + 1] in AT_WORK:
            yield f"launch is at work there ({words[at + 1].decode('ascii')})"


def _gpus(workspace: str, own: str) -> Iterator[str]:
    mark = f"{RUN_VARIABLE}={own}".encode("ascii")
    for pid in occupied.gpu_pids() or ():
        # What the run itself left behind has nothing to wait for.
        if mark not in _content(f"/proc/{pid}/environ").split(b"\0"):
            yield f"process {pid} holds a GPU"


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
