"""The verbs of the host-side program: read a request, do one thing, reply.

`python FILE.pyz VERB NONCE [REQUEST]` takes its request (JSON, zlib, base64) from there or as the first line of stdin.
The reply stands on stdout behind a line with the nonce, because a login shell may print anything before it.  What a
verb needs is imported by it: every verb is a process of its own, and a sync is to begin at once.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List

from . import frames
from .refused import Refused

if TYPE_CHECKING:
    from .run import Run

# Names, never values, decide what a run gets of the login's environment: the rest may hold secrets.
LOGIN_NAMES = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES",
               "HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_XET", "HF_HUB_OFFLINE", "XDG_CACHE_HOME", "SSL_CERT_FILE",
               "PIP_CERT", "PIP_CONFIG_FILE", "PIP_FIND_LINKS", "PIP_CACHE_DIR", "PIP_DEFAULT_TIMEOUT")  # fmt: skip
# Where packages and models come from.  They may hold a password: the supervisor reads them once and removes them.
SOURCE_NAMES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_NO_INDEX",
                "UV_PYTHON_INSTALL_MIRROR", "UV_PYTHON_DOWNLOADS_JSON_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
                "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")  # fmt: skip
F_SETPIPE_SZ = 1031
PIPE_BYTES = 1024 * 1024
PREPARE_TRIES = 5
FUSE_OFF_S = 15.0
LOG_TAIL_BYTES = 32 * 1024
REQUEST_LIMIT_BYTES = 64 * 1024 * 1024
DOCUMENT_LIMIT_BYTES = 1024 * 1024


def submit(request: Dict[str, Any], reader: frames.Reader) -> Dict[str, Any]:
    """Claim a run directory, lay out its inputs and code from the store, take its secrets, start its supervisor."""
    import shutil

    from . import secret_file, session, tmux
    from .lock import shared
    from .queue import Queue
    from .run import Run

    workspace, plan = request["workspace"], request["plan"]
    run = Run(workspace, plan["run_id"])
    secret_bytes = int(request.get("secret_bytes") or 0)
    if secret_bytes > secret_file.MOST_BYTES:
        raise Refused("secrets_invalid", f"the secrets are longer than {secret_file.MOST_BYTES >> 20} MB")
    secrets = reader.exactly(secret_bytes)
    secret_file.sweep()
    with shared(workspace):
        # Before there is a run: one whose supervisor takes so long to start counts as failed.
        found = tmux.find(workspace, request.get("may_install") is True)
        os.makedirs(os.path.dirname(run.root), exist_ok=True)
        try:
            os.mkdir(run.root)  # exclusive: of two claims for one id, one fails here
        except FileExistsError as error:
            raise Refused("run_exists", f"run {run.run_id} is there already") from error
        try:
            _lay_out(run, request)
            if secrets:
                secret_file.put(run.run_id, run.root, secrets)
            if plan.get("gpus") is not None:
                Queue(workspace).join(run.run_id, int(plan["gpus"]))
        except BaseException:
            # Without its plan it is not a run, and would only keep the id from the next attempt.
            shutil.rmtree(run.root)
            secret_file.discard(run.run_id, run.root)
            raise
        started = session.start(run, found)
        return {**started._asdict(), "session": session.name(run.run_id), "root": run.root}


def _lay_out(run: Run, request: Dict[str, Any]) -> None:
    from . import process
    from .atomic import write_json
    from .run import PROTOCOL, Run
    from .store import Store

    store, plan = Store(request["workspace"]), request["plan"]
    for link in request["links"]:
        store.place(link["sha256"], _inside(run, link["path"]))
    if request.get("from_run"):
        from . import checkpoints as those

        before = Run(request["workspace"], request["from_run"]["run_id"])
        before.plan()
        those.take_over(before, run, request["from_run"]["paths"])
    for name, document in request["documents"].items():
        write_json(_inside(run, name), document)
    plan.update(protocol=PROTOCOL, submitted_at=time.time(), submitted_clock=process.clock(),
                boot=process.boot_marker())  # fmt: skip
    plan["login_env"] = {name: os.environ[name] for name in LOGIN_NAMES if name in os.environ}
    write_json(run.path(run.SOURCES), {name: os.environ[name] for name in SOURCE_NAMES if name in os.environ})
    write_json(run.path("plan.json"), plan)


def states(request: Dict[str, Any]) -> Dict[str, Any]:
    """The state of the named runs, or of all in the workspace; with `host` also who else uses the machine."""
    from . import secret_file
    from .queue import Queue
    from .run import Run

    workspace = request["workspace"]
    secret_file.sweep()
    places: Dict[str, int] = {}
    with contextlib.suppress(OSError):  # a queue that can't be read must not hide the runs
        places = Queue(workspace).waiting()
    folder = os.path.join(workspace, "runs")
    ids = request.get("run_ids")
    if ids is None:
        ids = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    rows: List[Dict[str, Any]] = []
    for run_id in ids:
        try:
            row = Run(workspace, run_id).state()
            if row["state"] == "queued":
                row["position"] = places.get(run_id, 0)
            rows.append(row)
        except Refused as refused:
            if request.get("run_ids") is not None:
                state = "unknown" if refused.code == "protocol_newer" else "gone"
                rows.append({"run_id": run_id, "state": state, "reason": refused.message})
        except (KeyError, TypeError, ValueError, OSError) as error:
            # One that is damaged must not hide the others.
            reason = f"its folder can't be read ({type(error).__name__}: {error})"
            rows.append({"run_id": run_id, "state": "unknown", "reason": reason})
    if not request.get("host"):
        return {"runs": rows}
    from . import presence

    return {"runs": rows, "host": presence.look(workspace)}


def asked(request: Dict[str, Any]) -> Dict[str, Any]:
    """What a run was asked to do, as it lies in its folder, and the rest that another laptop needs to take it over."""
    from .run import Run

    run = Run(request["workspace"], request["run_id"])
    plan = run.plan()
    try:
        descriptor = os.open(run.path(request["document"]), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            document = file.read(DOCUMENT_LIMIT_BYTES + 1)
    except OSError as error:
        raise Refused("run_unreadable", f"run {run.run_id}: {request['document']}: {error.strerror}") from error
    if len(document) > DOCUMENT_LIMIT_BYTES:
        raise Refused("run_unreadable", f"run {run.run_id}: {request['document']} is too large")
    kept = {key: plan[key] for key in ("attempt", "resumes", "only_prepares") if key in plan}
    return {"document": document.decode("utf-8", "replace"), "plan": kept, "run": run.state()}


def checkpoints(request: Dict[str, Any]) -> Dict[str, Any]:
    """The checkpoints of a run, newest first, and where its folder lies."""
    from . import checkpoints as those
    from .run import Run

    run = Run(request["workspace"], request["run_id"])
    run.plan()
    return {"checkpoints": those.of_run(run), "root": run.root, "run": run.state()}


def session(request: Dict[str, Any]) -> Dict[str, Any]:
    """The tmux session of a run and the argv that attaches to it; no argv where there is none."""
    import subprocess

    from . import session as sessions
    from . import tmux
    from .run import Run

    run = Run(request["workspace"], request["run_id"])
    state, name = run.state(), sessions.name(request["run_id"])
    path = tmux.find(request["workspace"], False).path
    argv: List[str] = []
    if path:
        # "=": exactly this name, where it could also be the beginning of another.
        there = [path, "has-session", "-t", "=" + name]
        if subprocess.run(there, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          check=False).returncode == 0:  # fmt: skip
            argv = [path, "-u", "attach-session", "-t", "=" + name]
    return {"run": state, "session": name, "argv": argv}


def remove(request: Dict[str, Any]) -> Dict[str, Any]:
    """Take one run away."""
    from . import removing

    return removing.remove(request["workspace"], request)


def stop(request: Dict[str, Any]) -> Dict[str, Any]:
    """End a run, and show that nothing of it is left."""
    from . import stopping

    return stopping.stop(request["workspace"], request["run_id"])


def ready(request: Dict[str, Any]) -> Dict[str, Any]:
    """What the environment of a recipe is, where it needs nothing any more; else, asked so, what it needs."""
    from . import environment, narrated, process

    asked = request["workspace"], request["recipe"], process.boot_marker()
    if request.get("lacks"):
        return {"lacks": environment.lacks(*asked)}
    if request.get("wanted"):
        try:
            return {"wanted": environment.wanted(*asked)}
        except narrated.Failed as failed:
            raise Refused("no_environment", str(failed)) from failed
    known = environment.ready(*asked)
    return {"ready": known._asdict() if known else None}


def environments(request: Dict[str, Any]) -> Dict[str, Any]:
    """The environments of the workspace; before that those in `remove` go."""
    from . import environments as those

    removed = those.remove(request["workspace"], request["remove"]) if request.get("remove") else {}
    return {"environments": those.listed(request["workspace"]), **removed}


def clean(request: Dict[str, Any]) -> Dict[str, Any]:
    """Remove what nothing needs, or everything of ours."""
    from . import clean as cleaning

    return cleaning.clean(request["workspace"], request, os.path.basename(sys.argv[0]))


def store(request: Dict[str, Any], reader: frames.Reader, say: Callable[[bytes], None]) -> None:
    """Take objects into the store."""
    from .lock import shared
    from .store import Store

    with shared(request["workspace"]):
        Store(request["workspace"]).converse(reader, say)


def sync(request: Dict[str, Any], reader: frames.Reader, say: Callable[[bytes], None]) -> None:
    """Take files into a folder, or send them out of one."""
    from .sync import converse

    converse(request, reader, say)


def follow(request: Dict[str, Any]) -> Iterator[bytes]:
    """Log and events until the run is over."""
    from .follow import follow as follow_run
    from .run import Run

    return follow_run(Run(request["workspace"], request["run_id"]), request)


def supervise(workspace: str, run_id: str) -> int:
    """Be the supervisor of a run."""
    from .run import Run
    from .supervisor import Supervisor

    return Supervisor(workspace, Run(workspace, run_id)).main()


def prepare(workspace: str, run_id: str) -> int:
    """Make the environment a run asks for and note its Python in the run's folder."""
    from . import environment, narrated, process
    from .atomic import write_json
    from .lock import shared
    from .run import Run

    def say(text: str) -> None:
        sys.stdout.write(f"environment: {text}\n")
        sys.stdout.flush()

    run, reason = Run(workspace, run_id), ""
    for _ in range(PREPARE_TRIES):
        try:
            prepared = environment.prepare(workspace, run.plan()["environment"], process.boot_marker(), say)
            with shared(workspace):  # from here on the run says what it uses, and a clean-up leaves that alone
                if os.path.exists(prepared.python):
                    write_json(run.path("environment.json"), prepared._asdict())
                    return 0
            reason = f"{prepared.python} was removed meanwhile"
        except Refused as refused:  # somebody cleans up; it can't be for long
            reason = refused.message
        except (narrated.Failed, OSError) as failed:
            reason = str(failed)
            break
        say(f"{reason}; once more")
    say(reason)
    run.finish("failed", f"no environment: {reason}")  # in words, for whoever asks later
    return 1


def guard(workspace: str, run_id: str) -> int:
    """Be the guard of a run, with what it is handed on stdin."""
    from .run import Run
    from .watch import Watch

    return Watch(Run(workspace, run_id), json.loads(sys.stdin.buffer.read())).main()


def fuse(request: Dict[str, Any]) -> Dict[str, Any]:
    """How the fuse of a run stands, after it was disarmed if that is asked."""
    from . import fuse as fuses
    from .run import Run

    run = Run(request["workspace"], request["run_id"])
    if run.plan().get("poweroff") and request.get("off"):
        fuses.turn_off(run, FUSE_OFF_S)
    return {"run": run.state()}


def crash(request: Dict[str, Any]) -> Dict[str, Any]:
    """What was measured when a run ended badly, the end of its log, and its newest checkpoint, if there is one."""
    from . import checkpoints as those
    from . import evidence, log_segments
    from .atomic import read_object
    from .run import Run

    run = Run(request["workspace"], request["run_id"])
    log = run.path(run.plan()["files"]["log"])
    tail = log_segments.read(log, max(0, log_segments.end(log) - LOG_TAIL_BYTES), LOG_TAIL_BYTES).content
    return {
        "crash": read_object(run.path(evidence.NAME)),
        "log_tail": tail.decode("utf-8", "replace"),
        "checkpoint": next(iter(those.of_run(run)), None),
    }


REPLYING: Dict[str, Callable[[Dict[str, Any]], Dict[str, Any]]] = {
    "asked": asked, "checkpoints": checkpoints, "session": session, "remove": remove, "states": states,
    "stop": stop, "clean": clean, "ready": ready, "environments": environments,
    "fuse": fuse, "crash": crash,
}  # fmt: skip
# Something follows their request.
READING: Dict[str, Callable[[Dict[str, Any], frames.Reader], Dict[str, Any]]] = {"submit": submit}
# These check their request before they return the iterator: once the stream has begun nothing can be refused.
STREAMING: Dict[str, Callable[[Dict[str, Any]], Iterator[bytes]]] = {"follow": follow}
CONVERSING: Dict[str, Callable[[Dict[str, Any], frames.Reader, Callable[[bytes], None]], None]] = {
    "store": store, "sync": sync,
}  # fmt: skip
OWN_PROCESS: Dict[str, Callable[[str, str], int]] = {"supervise": supervise, "prepare": prepare, "guard": guard}


def main(argv: List[str]) -> int:
    """Carry out one verb; the exit status."""
    verb = argv[1]
    if verb in OWN_PROCESS:
        return OWN_PROCESS[verb](argv[2], argv[3])
    nonce = argv[2]
    signal.signal(signal.SIGHUP, _leave)
    opened = False

    def refuse(code: str, message: str, hint: str) -> None:
        fields = {"code": code, "message": message, "hint": hint}
        if opened:
            _say(frames.message({"refused": fields}))
        else:
            _out(nonce, "refused", fields)

    try:
        request, reader = _request(argv)
        if verb in STREAMING:
            stream = STREAMING[verb](request)
            _out(nonce, "stream", {})
            return _pour(stream)
        if verb in CONVERSING:
            _out(nonce, "stream", {})
            opened = True
            _widen()
            CONVERSING[verb](request, reader, _say)
        elif verb in READING:
            _out(nonce, "reply", READING[verb](request, reader))
        elif verb in REPLYING:
            _out(nonce, "reply", REPLYING[verb](request))
        else:
            refuse("verb_unknown", f"{verb} is not known there", "pip install --upgrade lora-launch")
        return 0
    except BrokenPipeError:
        # The laptop is gone.  Python would complain about stdout once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Refused as refused:
        refuse(refused.code, refused.message, refused.hint)
    except frames.EndedEarly:
        pass  # cut: nobody is there to be told
    except frames.BrokenStream as broken:
        refuse("stream_broken", str(broken), "run the same command again")
    except OSError as error:
        refuse("host_io", f"on the host: {error}", "")
    return 1


def _request(argv: List[str]) -> Any:
    """What is asked, and a reader of what follows it on stdin."""
    reader = frames.Reader(_chunks(), line_limit=REQUEST_LIMIT_BYTES)
    packed = argv[3].encode("ascii") if len(argv) > 3 else reader.line()
    request = json.loads(zlib.decompress(base64.b64decode(packed)))
    # Our program lies in the workspace that it works in.
    request.setdefault("workspace", os.path.dirname(os.path.dirname(os.path.abspath(argv[0]))))
    return request, reader


def _widen() -> None:
    """Let sshd bring or take a megabyte while a file is hashed or written: a pipe holds 64 KB, and both would wait."""
    for descriptor in (0, 1):
        with contextlib.suppress(OSError):  # no pipe, or more than this user may have
            fcntl.fcntl(descriptor, F_SETPIPE_SZ, PIPE_BYTES)


def _leave(number: int, frame: Any) -> None:
    """The connection is gone: end by an exception, so that what is half-written is removed."""
    sys.exit(128 + number)


def _pour(stream: Iterator[bytes]) -> int:
    """Write the stream.  What goes wrong now goes to stderr: on stdout it would be taken for content."""
    try:
        for chunk in stream:
            _say(chunk)
    except BrokenPipeError:
        raise
    except (Refused, frames.BrokenStream, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _out(nonce: str, kind: str, fields: Dict[str, Any]) -> None:
    _say(f"\n@launch {nonce} {kind} {json.dumps(fields)}\n".encode("ascii"))


def _say(chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(1, view) :]


def _chunks() -> Iterator[bytes]:
    while True:
        chunk = os.read(0, frames.READ_BYTES)
        if not chunk:
            return
        yield chunk


def _inside(run: Run, name: str) -> str:
    path = os.path.normpath(os.path.join(run.root, name))
    if not path.startswith(run.root + os.sep):
        raise Refused("path_outside", f"{name[:200]!r} would lie outside the run directory")
    return path
