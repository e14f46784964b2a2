"""Who else needs this machine at the moment: runs that go on or wait, people, transfers, GPU processes.

Asked before the machine is switched off, and so on the careful side: whoever can't be told apart counts.
"""

from __future__ import annotations

import glob
import os
import time
from typing import Iterator, List

from . import fuse, occupied
from .descendants import RUN_VARIABLE, environment
from .inventory import is_live, names
from .run import RUN_ID, Run

SUBMITTING_S = 120.0
# What our program does for somebody who waits for it.
AT_WORK = (b"submit", b"store", b"sync", b"clean")


def look(workspace: str, own: str) -> str:
    """Who is there besides the run `own`, in words for a person; empty where nobody is."""
    # The last one starts a program, and is only asked where all else is quiet.
    for ask in (_runs, _people, _programs, _gpus):
        for found in ask(workspace, own):
            return found
    return ""


def _runs(workspace: str, own: str) -> Iterator[str]:
    # Whoever waits in the queue is among them.
    for name in names(workspace, "runs"):
        if name == own or not RUN_ID.match(name):
            continue
        run = Run(workspace, name)
        if fuse.is_keeping(run):
            yield f"run {name} failed, and is to be looked at"
        elif is_live(workspace, name) or _is_young(run.root):
            yield f"run {name} goes on"


def _is_young(folder: str) -> bool:
    """Whether it can be one that is being submitted right now, without a plan yet."""
    try:
        return not os.path.exists(os.path.join(folder, "plan.json")) and (
            abs(time.time() - os.stat(folder).st_mtime) < SUBMITTING_S
        )
    except FileNotFoundError:
        return False


def _people(workspace: str, own: str) -> Iterator[str]:
    logins = occupied.logins() or 0
    if logins:
        yield f"{logins} {'people are' if logins > 1 else 'person is'} logged in"
    if any(_content(path).startswith(b"tmux: client") for path in glob.glob("/proc/[0-9]*/comm")):
        yield "somebody is attached to tmux"


def _programs(workspace: str, own: str) -> Iterator[str]:
    """Those of launch, also of other workspaces, whose runs are not to be seen from here."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        words: List[bytes] = _content(path).split(b"\0")
        at = next((place for place, word in enumerate(words[:-1]) if word.endswith(b".pyz")), None)
        if at is None:
            continue
        verb, run_id = words[at + 1], b"".join(words[at + 3 : at + 4]).decode("utf-8", "replace")
        if verb in AT_WORK:
            yield f"launch is at work there ({verb.decode('ascii')})"
        elif verb == b"supervise" and run_id != own:
            yield f"run {run_id[:80]} goes on"


def _gpus(workspace: str, own: str) -> Iterator[str]:
    mark = f"{RUN_VARIABLE}={own}".encode("ascii")
    for pid in occupied.gpu_pids() or ():
        # What the run itself left behind has nothing to wait for.
        if mark not in environment(pid):
            yield f"process {pid} holds a GPU"


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
