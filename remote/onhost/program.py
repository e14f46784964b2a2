"""The verbs of the host-side program: read a request, do one thing, reply.

`python FILE.pyz VERB NONCE` reads its request as the first line of stdin (JSON).  The reply stands on stdout behind a
line with the nonce, because a login shell may print anything before it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from typing import Any, BinaryIO, Callable, Dict, Iterator, List

from . import environment, frames, process, session
from .atomic import write_json
from .follow import follow as follow_run
from .refused import Refused
from .run import PROTOCOL, Run
from .store import Store
from .supervisor import Supervisor, stop_grace_s

# Names, never values, decide what a run gets of the login's environment: the rest may hold secrets.
LOGIN_NAMES = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
               "HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "SSL_CERT_FILE",
               "PIP_CERT", "PIP_CONFIG_FILE", "PIP_FIND_LINKS", "PIP_CACHE_DIR", "PIP_DEFAULT_TIMEOUT")  # fmt: skip


def missing(request: Dict[str, Any], stdin: BinaryIO) -> Dict[str, Any]:
    """Which of the named objects the store lacks."""
    return {"missing": Store(request["workspace"]).missing(request["sha256"])}


def receive(request: Dict[str, Any], stdin: BinaryIO) -> Dict[str, Any]:
    """Take in objects from the rest of stdin."""
    return {"received": Store(request["workspace"]).receive(frames.Reader(_chunks(stdin)))}


def submit(request: Dict[str, Any], stdin: BinaryIO) -> Dict[str, Any]:
    """Claim a run directory, lay out its inputs and code from the store, start its supervisor."""
    workspace, plan = request["workspace"], request["plan"]
    run = Run(workspace, plan["run_id"])
    os.makedirs(os.path.dirname(run.root), exist_ok=True)
    try:
        os.mkdir(run.root)  # exclusive: of two claims for one id, one fails here
    except FileExistsError as error:
        raise Refused("run_exists", f"run {run.run_id} is there already") from error
    try:
        _lay_out(run, request)
    except BaseException:
        # Without its plan it is not a run, and would only keep the id from the next attempt.
        shutil.rmtree(run.root)
        raise
    return {"how": session.start(run), "session": session.name(run.run_id), "root": run.root}


def _lay_out(run: Run, request: Dict[str, Any]) -> None:
    store, plan = Store(request["workspace"]), request["plan"]
    for link in request["links"]:
        store.place(link["sha256"], _inside(run, link["path"]))
    for name, document in request["documents"].items():
        write_json(_inside(run, name), document)
    plan.update(protocol=PROTOCOL, submitted_at=time.time(), boot=process.boot_marker())
    plan["login_env"] = {name: os.environ[name] for name in LOGIN_NAMES if name in os.environ}
    write_json(run.path("plan.json"), plan)


def states(request: Dict[str, Any], stdin: BinaryIO) -> Dict[str, Any]:
    """The state of the named runs, or of all in the workspace."""
    workspace = request["workspace"]
    folder = os.path.join(workspace, "runs")
    ids = request.get("run_ids")
    if ids is None:
        ids = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    rows: List[Dict[str, Any]] = []
    for run_id in ids:
        try:
            rows.append(Run(workspace, run_id).state())
        except Refused as refused:
            if request.get("run_ids") is not None:
                rows.append({"run_id": run_id, "state": "gone", "reason": refused.message})
    return {"runs": rows}


def stop(request: Dict[str, Any], stdin: BinaryIO) -> Dict[str, Any]:
    """End a run: its supervisor is asked, then made to; replies with the state after it."""
    run = Run(request["workspace"], request["run_id"])
    supervisor = run.supervisor()
    if run.result() is None and supervisor is not None and process.is_alive(supervisor):
        process.signal_process(supervisor, signal.SIGTERM)
        deadline = time.monotonic() + stop_grace_s(run.plan()) + 5
        while run.result() is None and process.is_alive(supervisor) and time.monotonic() < deadline:
            time.sleep(0.05)
        if run.result() is None:
            process.signal_process(supervisor, signal.SIGKILL)
            run.finish("stopped", "asked to; the supervisor had to be killed")
            run.end_orphans()
    return {"run": run.state()}


def send(request: Dict[str, Any]) -> Iterator[bytes]:
    """The named files and folders of a run as frames."""
    run = Run(request["workspace"], request["run_id"])
    run.plan()
    files = [file for name in request["names"] for file in _below(run, name)]

    def opened(file: _File) -> BinaryIO:
        return open(run.path(file.path), "rb")

    return frames.pack(files, opened)


def follow(request: Dict[str, Any]) -> Iterator[bytes]:
    """Log and events until the result is there."""
    run = Run(request["workspace"], request["run_id"])
    run.plan()
    return follow_run(run, request["log_offset"], request["events_offset"], request["once"])


def supervise(workspace: str, run_id: str) -> int:
    """Be the supervisor of a run."""
    return Supervisor(Run(workspace, run_id)).main()


def prepare(workspace: str, run_id: str) -> int:
    """Make the environment a run asks for and note its Python in the run's folder."""
    run = Run(workspace, run_id)
    write_json(run.path("environment.json"), {"python": environment.prepare(workspace, run.plan()["environment"])})
    return 0


REPLYING: Dict[str, Callable[[Dict[str, Any], BinaryIO], Dict[str, Any]]] = {
    "missing": missing, "receive": receive, "submit": submit, "states": states, "stop": stop,
}  # fmt: skip
# These check their request before they return the iterator: once the stream has begun nothing can be refused.
STREAMING: Dict[str, Callable[[Dict[str, Any]], Iterator[bytes]]] = {"send": send, "follow": follow}
OWN_PROCESS: Dict[str, Callable[[str, str], int]] = {"supervise": supervise, "prepare": prepare}


def main(argv: List[str]) -> int:
    """Carry out one verb; the exit status."""
    verb = argv[1]
    if verb in OWN_PROCESS:
        return OWN_PROCESS[verb](argv[2], argv[3])
    nonce = argv[2]
    signal.signal(signal.SIGHUP, _leave)
    try:
        request = json.loads(sys.stdin.buffer.readline())
        if verb in STREAMING:
            stream = STREAMING[verb](request)
            _out(nonce, "stream", {})
            return _pour(stream)
        _out(nonce, "reply", REPLYING[verb](request, sys.stdin.buffer))
        return 0
    except Refused as refused:
        _out(nonce, "refused", {"code": refused.code, "message": refused.message, "hint": refused.hint})
    except frames.BrokenStream as broken:
        _out(nonce, "refused", {"code": "stream_broken", "message": str(broken), "hint": "run the same command again"})
    except BrokenPipeError:
        # The laptop is gone.  Python would complain about stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        _out(nonce, "refused", {"code": "host_io", "message": f"on the host: {error}", "hint": ""})
    return 1


def _leave(number: int, frame: Any) -> None:
    """The connection is gone: end by an exception, so that what is half-written is removed."""
    sys.exit(128 + number)


def _pour(stream: Iterator[bytes]) -> int:
    """Write the stream.  What goes wrong now goes to stderr: on stdout it would be taken for content."""
    try:
        for chunk in stream:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except (Refused, frames.BrokenStream, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _out(nonce: str, kind: str, fields: Dict[str, Any]) -> None:
    line = f"\n@launch {nonce} {kind} {json.dumps(fields)}\n"
    sys.stdout.buffer.write(line.encode("ascii"))
    sys.stdout.buffer.flush()


def _chunks(stdin: BinaryIO) -> Iterator[bytes]:
    while True:
        chunk = stdin.read1(frames.CHUNK_BYTES)  # type: ignore[attr-defined]
        if not chunk:
            return
        yield chunk


def _inside(run: Run, name: str) -> str:
    path = os.path.normpath(os.path.join(run.root, name))
    if not path.startswith(run.root + os.sep):
        raise Refused("path_outside", f"{name[:200]!r} would lie outside the run directory")
    return path


class _File:
    def __init__(self, path: str, size_bytes: int) -> None:
        self.path, self.size_bytes = path, size_bytes


def _below(run: Run, name: str) -> Iterator[_File]:
    """The regular files at or below `name`, sorted; links are never followed."""
    top = _inside(run, name)
    if os.path.realpath(top) != os.path.join(os.path.realpath(run.root), os.path.relpath(top, run.root)):
        raise Refused("path_outside", f"{name[:200]!r} leads through a link")
    if os.path.isfile(top) and not os.path.islink(top):
        yield _File(os.path.relpath(top, run.root), os.path.getsize(top))
    for parent, folders, names in os.walk(top):
        folders.sort()
        for leaf in sorted(names):
            path = os.path.join(parent, leaf)
            if os.path.isfile(path) and not os.path.islink(path):
                yield _File(os.path.relpath(path, run.root), os.path.getsize(path))
